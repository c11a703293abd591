"""A real HTTP server on loopback that answers as a test scripts it, faults included."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self

REASONS = {200: "OK", 302: "Found", 429: "Too Many Requests", 500: "Internal Server Error"}


@dataclass(frozen=True)
class Answer:
    """What the server does with one request.

    `fault`: "hang" never answers; "reset" kills the connection; "cut" announces the whole body and closes after half.
    """

    body: Any = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    fault: Literal["hang", "reset", "cut"] | None = None
    delay: float = 0.0

    @property
    def payload(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


@dataclass(frozen=True)
class Received:
    """One request as it came; header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    payload: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.payload)


class ScriptedServer:
    """Answers each request with what `answer` says: a fixed Answer, a list (the last one repeats) or a function.

    >>> with ScriptedServer(Answer({"ok": True})) as server:
    ...     server.url.startswith("http://127.0.0.1:")
    True
    """

    def __init__(self, answer: Answer | Sequence[Answer] | Callable[[Received], Answer]) -> None:
        self._answer = answer
        self.received: list[Received] = []
        self.connections = 0
        self._open: set[asyncio.Transport] = set()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        server = await self._loop.create_server(lambda: _Connection(self), "127.0.0.1", 0)
        self._port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for transport in list(self._open):
            transport.abort()
        await asyncio.sleep(0)

    def _next(self, received: Received) -> Answer:
        self.received.append(received)
        if isinstance(self._answer, Answer):
            return self._answer
        if callable(self._answer):
            return self._answer(received)
        return self._answer[min(len(self.received), len(self._answer)) - 1]


class _Connection(asyncio.Protocol):
    def __init__(self, server: ScriptedServer) -> None:
        self._server = server
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._server.connections += 1
        self._server._open.add(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server._open.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            first, *lines = self._buffer[:end].decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            total = end + 4 + int(headers.get("content-length", "0"))
            if len(self._buffer) < total:
                return
            method, path, _ = first.split(" ", 2)
            received = Received(method, path, headers, self._buffer[end + 4 : total])
            self._buffer = self._buffer[total:]
            answer = self._server._next(received)
            if answer.fault != "hang":
                self._server._loop.call_later(answer.delay, self._send, answer)

    def _send(self, answer: Answer) -> None:
        if self._transport.is_closing():
            return
        if answer.fault == "reset":
            raw = self._transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closing sends RST, not FIN
            self._transport.abort()
            return
        payload = answer.payload
        headers = {"Content-Type": "application/json", "Content-Length": str(len(payload)), **answer.headers}
        head = f"HTTP/1.1 {answer.status} {REASONS.get(answer.status, 'Other')}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n"
        if answer.fault == "cut":
            self._transport.write(head.encode() + payload[: len(payload) // 2])
            self._transport.close()
        else:
            self._transport.write(head.encode() + payload)


def free_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def chat_reply(
    alternatives: Sequence[tuple[Any, Any]] = (("1", -0.25), ("2", -1.5)),
    *,
    text: Any = "1",
    token: Any = "1",
    logprob: Any = -0.25,
    **changes: Any,
) -> dict[str, Any]:
    """The body of a chat completion of one token; `changes` replace fields of the choice."""
    entry = {
        "token": token,
        "logprob": logprob,
        "bytes": None,
        "top_logprobs": [{"token": other, "logprob": value, "bytes": None} for other, value in alternatives],
    }
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text, "refusal": None},
        "logprobs": {"content": [entry], "refusal": None},
        "finish_reason": "length",
        **changes,
    }
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "judge",
        "choices": [choice],
        "usage": {
            "prompt_tokens": 12,
            "completion_tokens": 1,
            "total_tokens": 13,
            "prompt_tokens_details": {"cached_tokens": 8},
        },
    }


def error_reply(message: str, *, code: str | None = None) -> dict[str, Any]:
    """The body of a refusal."""
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}

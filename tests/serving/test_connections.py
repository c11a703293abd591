"""Clients that do not keep to HTTP's good manners, byte by byte."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from rlaif.records import Candidates, Rating
from tests.serving.conftest import Serve, Served, certain

BODY = json.dumps({"items": [{"prompt": "?", "response": "!"}]}).encode()
HEAD = (
    f"POST /score HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n".encode()
)


async def rate(item: Candidates) -> Rating:
    return certain(3)


@asynccontextmanager
async def connected(served: Served) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    host, _, port = served.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield reader, writer
    finally:
        writer.close()


async def everything(reader: asyncio.StreamReader) -> bytes:
    """What comes until the server closes."""
    async with asyncio.timeout(10):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""


@pytest.mark.parametrize("sent", [b"", b"POST /sc", HEAD[:-2]], ids=["nothing", "half a line", "half the headers"])
async def test_headers_that_do_not_come_are_not_waited_for(serve: Serve, sent: bytes) -> None:
    served = await serve(rate, read_timeout=0.2)
    async with connected(served) as (reader, writer):
        writer.write(sent)
        assert (await everything(reader)).startswith(b"HTTP/1.1 408 ")


async def test_headers_that_trickle_are_not_waited_for(serve: Serve) -> None:
    served = await serve(rate, read_timeout=0.3)
    async with connected(served) as (reader, writer):

        async def trickle() -> None:
            for byte in HEAD:
                writer.write(bytes([byte]))
                await asyncio.sleep(0.02)

        trickling = asyncio.ensure_future(trickle())
        assert (await everything(reader)).startswith(b"HTTP/1.1 408 ")
        trickling.cancel()


async def test_a_body_that_does_not_come_is_not_waited_for(serve: Serve) -> None:
    served = await serve(rate, read_timeout=0.2)
    async with connected(served) as (reader, writer):
        writer.write(HEAD + BODY[:-1])
        answer = await everything(reader)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"the body did not arrive within 0.2 s" in answer


async def test_a_second_request_that_does_not_come_is_not_waited_for(serve: Serve) -> None:
    served = await serve(rate, read_timeout=0.2)
    async with connected(served) as (reader, writer):
        writer.write(HEAD + BODY + HEAD[:20])
        answer = await everything(reader)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.count(b"HTTP/1.1") == 1


async def test_headers_without_end_are_cut_off(serve: Serve) -> None:
    served = await serve(rate)
    async with connected(served) as (reader, writer):
        writer.write(b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 100_000)
        assert (await everything(reader)).startswith(b"HTTP/1.1 431 ")


async def test_no_more_connections_than_allowed(serve: Serve) -> None:
    served = await serve(rate, max_connections=2)
    async with connected(served), connected(served):
        await asyncio.sleep(0.05)
        async with connected(served) as (reader, _):
            assert (await everything(reader)).startswith(b"HTTP/1.1 503 ")
    await asyncio.sleep(0.05)
    assert (await served.get("/healthz"))[0] == 200


async def test_a_refused_body_leaves_the_connection_usable(serve: Serve) -> None:
    served = await serve(rate, max_body=len(BODY))
    huge = b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n" + b"x" * 200_000
    async with connected(served) as (reader, writer):
        writer.write(huge + HEAD + BODY)
        statuses = []
        async with asyncio.timeout(10):
            for _ in range(2):
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
                statuses.append(head[9:12])
    assert statuses == [b"413", b"200"]


async def test_requests_may_follow_each_other_without_waiting(serve: Serve) -> None:
    served = await serve(rate, read_timeout=0.3)
    async with connected(served) as (reader, writer):
        writer.write((HEAD + BODY) * 5)
        for _ in range(5):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            await reader.readuntil(b"]}]}")


@pytest.mark.parametrize("sent", [b"\x16\x03\x01\x02\x00\x01\x00", b"hello\r\n\r\n", b"GET * HTTP/1.1\r\n\r\n\r\n"])
async def test_what_is_no_http_is_refused(serve: Serve, sent: bytes) -> None:
    served = await serve(rate)
    async with connected(served) as (reader, writer):
        writer.write(sent)
        assert (await reader.read(12)).startswith((b"HTTP/1.1 400", b"HTTP/1.1 404"))
    assert served.faults == []

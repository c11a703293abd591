"""The endpoint as an ASGI application: who may ask, what a body may be, and which answer says what went wrong."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import time
from collections.abc import Callable, Mapping
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rlaif.data.columns import described
from rlaif.errors import BackendTimeoutError, InputError, RlaifError, TransientBackendError
from rlaif.records import Candidates, Rating
from rlaif.serving.config import LimitConfig
from rlaif.serving.metrics import CONTENT_TYPE, Metrics
from rlaif.serving.protocols import Protocol, protocols
from rlaif.serving.queue import QueueFullError, RatingQueue

CLIENT_GONE = 499
"""nginx's status for a client that left before its answer; nobody receives it, /metrics counts it."""

_SHORTEST_SECRET = 8
_LONGEST_MESSAGE = 1000


class Refusal(Exception):
    """An answer that is none: status, the error's name, a sentence, and the place of the item at fault."""

    def __init__(
        self, status: int, name: str, message: str, *, item: int | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.name = name
        self.item = item
        self.retry_after = retry_after


class Endpoint:
    """A judge behind HTTP.

    Args:
        judge: Its name, for /healthz.
        queue: Rates.
        limits: Sizes and times.
        end_tokens: Cut from the end of responses that come with special tokens as text.
        token: What clients have to send; None lets everybody ask.
        secrets: Further texts that no answer and no log line may hold, such as the judge's key.
        log: Hears of each request that gets no rewards, in one line.
        on_fault: Hears of faults of ours.
    """

    def __init__(
        self,
        judge: str,
        queue: RatingQueue,
        limits: LimitConfig,
        *,
        end_tokens: tuple[str, ...] = (),
        token: str | None = None,
        secrets: tuple[str, ...] = (),
        log: Callable[[str], None] = lambda _: None,
        on_fault: Callable[[Exception], None] = lambda _: None,
    ) -> None:
        self._judge = judge
        self._queue = queue
        self._limits = limits
        self._token = token.encode() if token is not None else None
        self._secrets = [text for text in (token, *secrets) if text and len(text) >= _SHORTEST_SECRET]
        self._log = log
        self._on_fault = on_fault
        self._metrics = Metrics(queue)
        self._ratings: set[asyncio.Task[list[Rating | BaseException]]] = set()
        self._open = 0
        self._is_idle = asyncio.Event()
        self._is_idle.set()
        self._is_draining = False
        self.paths = protocols(end_tokens)
        self.app = self._build()

    async def drain(self, seconds: float) -> int:
        """Refuse new requests, wait so long for those in flight, and answer what is then left with 503.

        Returns:
            How many requests were left.
        """
        self._is_draining = True
        try:
            await asyncio.wait_for(self._is_idle.wait(), seconds)
        except TimeoutError:
            left = len(self._ratings)
            for task in self._ratings:
                task.cancel()
            return left
        return 0

    # --- the application ----------------------------------------------------------------------------------------------

    def _build(self) -> ASGIApp:
        def rewards(protocol: Protocol) -> Callable[[Request], Any]:
            async def answer(request: Request) -> Response:
                return await self._rewards(request, protocol)

            return answer

        async def refuse(request: Request, error: Exception) -> Response:
            assert isinstance(error, HTTPException)
            known = ", ".join([*self.paths, "/healthz", "/metrics"])
            message = f"{error.detail}; POST to {known}" if error.status_code == 404 else str(error.detail)
            return self._refused(Refusal(error.status_code, error.detail.replace(" ", ""), message), error.headers)

        app = Starlette(
            routes=[
                *(Route(path, rewards(protocol), methods=["POST"]) for path, protocol in self.paths.items()),
                Route("/healthz", self._health, methods=["GET"]),
                Route("/metrics", self._report, methods=["GET"]),
            ],
            exception_handlers={HTTPException: refuse},
        )
        app.router.redirect_slashes = False
        return self._observed(app)

    def _observed(self, app: ASGIApp) -> ASGIApp:
        known = {*self.paths, "/healthz", "/metrics"}

        async def observed(scope: Scope, receive: Receive, send: Send) -> None:
            status = CLIENT_GONE
            start = time.perf_counter()

            async def noting(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                await send(message)

            try:
                await app(scope, receive, noting)
            finally:
                path = scope.get("path", "")
                self._metrics.observe(path if path in known else "other", status, time.perf_counter() - start)

        return observed

    async def _health(self, request: Request) -> Response:
        body: dict[str, Any] = {"status": "ok", "judge": self._judge}
        if self._is_draining:
            body["status"] = "draining"
        elif (error := self._queue.unusable) is not None:
            body["status"] = "unusable"
            body["error"] = {"name": error.error_name, "message": self._without_secrets(str(error))}
        return _json(body, 200 if body["status"] == "ok" else 503)

    async def _report(self, request: Request) -> Response:
        return Response(self._metrics.render(), media_type=CONTENT_TYPE)

    # --- one request --------------------------------------------------------------------------------------------------

    async def _rewards(self, request: Request, protocol: Protocol) -> Response:
        self._open += 1
        self._is_idle.clear()
        try:
            self._admit(request)
            items = self._read(await self._body(request), protocol)
            return _json(protocol.write(await self._rate(items, request, protocol)))
        except Refusal as refusal:
            return self._refused(refusal)
        except ClientDisconnect:
            return Response(status_code=CLIENT_GONE)
        except Exception as error:
            self._on_fault(error)
            return self._refused(Refusal(500, "InternalError", f"a fault of the server: {type(error).__name__}"))
        finally:
            self._open -= 1
            if self._open == 0:
                self._is_idle.set()

    def _admit(self, request: Request) -> None:
        if self._token is not None and not hmac.compare_digest(_credential(request), self._token):
            raise Refusal(
                401, "Unauthorized", "expected the header Authorization: Bearer TOKEN with the server's token"
            )
        if "origin" in request.headers:  # a web page open on this machine could otherwise spend the judge's budget
            raise Refusal(403, "Forbidden", "web pages are not served: the request has the header Origin")
        if request.headers.get("content-encoding", "identity") != "identity":
            raise Refusal(415, "UnsupportedMediaType", "the body is compressed, expected plain JSON")
        if self._is_draining:
            raise Refusal(503, "Draining", "the server is stopping; ask another one", retry_after=1)

    async def _body(self, request: Request) -> bytes:
        limit = self._limits.max_body
        too_large = Refusal(413, "BodyTooLarge", f"the body is larger than {limit} bytes; send fewer items at a time")
        announced = request.headers.get("content-length", "")
        if announced.isdigit() and int(announced) > limit:
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(self._limits.read_timeout):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > limit:
                        raise too_large
        except TimeoutError:
            seconds = self._limits.read_timeout
            raise Refusal(408, "RequestTimeout", f"the body did not arrive within {seconds:g} s") from None
        return bytes(body)

    def _read(self, body: bytes, protocol: Protocol) -> list[Candidates]:
        try:
            value = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise Refusal(400, "InvalidJson", f"the body is not JSON: {error}") from None
        if not isinstance(value, Mapping):
            raise Refusal(422, "InputError", f"the body is {described(value)}, expected an object")
        entries = value.get(protocol.list_name)
        if isinstance(entries, list) and len(entries) > self._limits.max_items:
            count, most = len(entries), self._limits.max_items
            raise Refusal(413, "TooManyItems", f"{protocol.list_name} holds {count}, expected at most {most}")
        try:
            return protocol.read(value)
        except InputError as error:
            raise Refusal(422, error.error_name, str(error)) from None

    async def _rate(self, items: list[Candidates], request: Request, protocol: Protocol) -> list[Rating]:
        """The ratings, waited for as long as the client does.

        Raises:
            Refusal, ClientDisconnect: There are none.
        """
        if not items:
            return []
        ratings = asyncio.ensure_future(self._queue.rate_all(items))
        ratings.add_done_callback(lambda task: task.cancelled() or task.exception())  # seen, should the client be gone
        leaving = asyncio.ensure_future(_gone(request.receive))
        self._ratings.add(ratings)
        try:
            done, _ = await asyncio.wait(
                {ratings, leaving}, timeout=self._limits.deadline, return_when=asyncio.FIRST_COMPLETED
            )
            if ratings not in done:
                if leaving in done:
                    raise ClientDisconnect
                seconds = self._limits.deadline
                raise Refusal(503, BackendTimeoutError.__name__, f"the judge did not answer within {seconds:g} s")
            outcomes = ratings.result()
        except QueueFullError as error:
            raise Refusal(429, "QueueFull", str(error), retry_after=error.retry_after) from None
        except asyncio.CancelledError:
            if not self._is_draining:
                raise
            raise Refusal(503, "Draining", "the server stopped before the judge had answered") from None
        finally:
            self._ratings.discard(ratings)
            ratings.cancel()
            leaving.cancel()
        return [self._rating(outcome, place, protocol) for place, outcome in enumerate(outcomes)]

    def _rating(self, outcome: Rating | BaseException, place: int, protocol: Protocol) -> Rating:
        if isinstance(outcome, Rating):
            return outcome
        if isinstance(outcome, RlaifError):
            retry_after = outcome.retry_after if isinstance(outcome, TransientBackendError) else None
            message = f"{protocol.list_name}[{place}]: {outcome}"
            raise Refusal(503, outcome.error_name, message, item=place, retry_after=retry_after)
        if isinstance(outcome, asyncio.CancelledError):
            raise Refusal(503, "Draining", "the server stopped before the judge had answered", item=place)
        raise outcome

    def _refused(self, refusal: Refusal, headers: Mapping[str, str] | None = None) -> Response:
        message = self._without_secrets(str(refusal))[:_LONGEST_MESSAGE]
        error: dict[str, Any] = {"name": refusal.name, "message": message}
        if refusal.item is not None:
            error["item"] = refusal.item
        response = _json({"error": error}, refusal.status, headers)
        if refusal.status == 401:
            response.headers["WWW-Authenticate"] = "Bearer"
        if refusal.retry_after is not None:
            response.headers["Retry-After"] = f"{max(1.0, refusal.retry_after):.0f}"
        if refusal.status == 408:
            response.headers["Connection"] = "close"
        self._log(f"{refusal.name}: {message}")
        return response

    def _without_secrets(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "[secret]")
        return text


def _credential(request: Request) -> bytes:
    """The token that a client sent: as a bearer, or as the password of http://:TOKEN@HOST, which is all that trainers
    with nothing but a URL can send."""
    scheme, _, credential = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return credential.strip().encode("latin-1")
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(credential, validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            return b""
    return b""


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _json(body: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(orjson.dumps(body), status, headers, media_type="application/json")

"""An `rlaif serve`, asked over HTTP: by trainers of others, and as a backend for our own."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from rlaif.backends.base import Capabilities
from rlaif.backends.openai_connection import to_json
from rlaif.engine.retry import call_with_retries
from rlaif.errors import (
    BackendError,
    BackendTimeoutError,
    BackendUnusableError,
    ConfigError,
    MalformedReplyError,
    RateLimitedError,
    RequestRefusedError,
    RlaifError,
    ServerFaultError,
)
from rlaif.records import RATING_LABELS, Candidates, Message, Rating, Reward, RewardRequest, Turn

if TYPE_CHECKING:
    from aiohttp import ClientSession

CONNECTIONS = 128
TIMEOUT = 180.0
"""Seconds for one rating; the server gives up a little before."""

_RETRIES = 6

_JUDGE_IS_DOWN = frozenset(
    error.__name__ for error in (RateLimitedError, ServerFaultError, BackendTimeoutError, MalformedReplyError)
)
"""What a server says where its judge could not be asked, after retries of its own."""


class RemoteRater:
    """Posts each item to `/score`, so that one that fails takes no other with it.

    Args:
        url: Such as "http://127.0.0.1:8400".
        token: The server's RLAIF_TOKEN; None where it has none.

    Raises:
        ConfigError: That is no http address.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        self._endpoint = _Endpoint(url, token)

    async def rate_all(self, items: Sequence[Candidates]) -> list[Rating | BaseException]:
        async with self._endpoint.open(CONNECTIONS) as session:

            async def rate(item: Candidates) -> Rating:
                return await call_with_retries(
                    lambda: self._endpoint.post(session, item.prompt, item.responses[0]), max_retries=_RETRIES
                )

            return await asyncio.gather(*map(rate, items), return_exceptions=True)

    def close(self) -> None:
        return None


class RemoteBackend:
    """An `rlaif serve` in the place of a reward model: one request an item, retried by who asks.

    Args:
        url, token: As of a `RemoteRater`.

    Raises:
        ConfigError: That is no http address.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        self._endpoint = _Endpoint(url, token, waits_for_judge=True)
        self._session: ClientSession | None = None
        self.name = url
        # Which judge answers there the server does not say in full, so that its address has to stand for it.
        self.identity: Mapping[str, Any] = {"backend": "rlaif serve", "url": url}
        self.capabilities = Capabilities(has_logprobs=False, has_rewards=True)

    async def reward(self, request: RewardRequest) -> Reward:
        """The reward that the server gives: in [-1, 1] of a judge, any number of a reward model.

        Raises:
            BackendError: The server, or its judge, gave none; transient where it may yet.
        """
        if self._session is None:
            self._session = self._endpoint.open(0)  # whoever asks counts the calls in flight, not the pool
        rating = await self._endpoint.post(self._session, request.prompt, request.response)
        return Reward(rating.reward)

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return sum(len(message.content) for message in messages) // 4

    async def aclose(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()


class _Endpoint:
    """`/score` of a server, and what its answers mean.

    Args:
        url, token: As of a `RemoteRater`.
        waits_for_judge: Take a judge that could not be asked for a fault that may pass, and not as final.
    """

    def __init__(self, url: str, token: str | None, *, waits_for_judge: bool = False) -> None:
        if not url.startswith(("http://", "https://")):
            raise ConfigError(f"url: {url!r}, expected http://HOST:PORT of an rlaif serve")
        self._url = url.rstrip("/").removesuffix("/score") + "/score"
        self._headers = {"Content-Type": "application/json"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        self._waits_for_judge = waits_for_judge

    def open(self, connections: int) -> ClientSession:
        """So many connections, 0 for any number, of the running event loop."""
        import aiohttp

        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections),
            headers=self._headers,
            timeout=aiohttp.ClientTimeout(total=TIMEOUT),
        )

    async def post(self, session: ClientSession, prompt: Sequence[Turn], response: str) -> Rating:
        """One rating. Raises `BackendError`, one of its tree."""
        import aiohttp

        messages = [turn._asdict() for turn in prompt]
        body = to_json({"items": [{"prompt": messages, "response": response}]})
        try:
            async with session.post(self._url, data=body, allow_redirects=False) as answer:
                reply = await answer.read()
                if answer.status != 200:
                    raise self._error(answer.status, reply, answer.headers)
        except TimeoutError:
            raise BackendTimeoutError(f"{self._url} did not answer within {TIMEOUT:g} s") from None
        except aiohttp.ClientError as error:
            raise ServerFaultError(f"{self._url}: no answer: {error or type(error).__name__}") from None
        return self._rating(reply)

    def _rating(self, reply: bytes) -> Rating:
        try:
            (item,) = orjson.loads(reply)["items"]
            if item["rating_probs"] is None:
                return Rating(None, own_score=float(item["reward"]))
            probs = tuple(float(prob) for prob in item["rating_probs"])
        except (ValueError, KeyError, TypeError):
            probs = ()
        if len(probs) != len(RATING_LABELS):
            raise MalformedReplyError(
                f"{self._url} answered with something else than one item with rating_probs or, where these are null, "
                "a reward"
            )
        return Rating(probs)

    def _error(self, status: int, reply: bytes, headers: Mapping[str, str]) -> RlaifError:
        name, message = _words(reply)
        said = f"{self._url} answered {status}{f', {name}: {message}' if name else ''}"
        if status == 429 or name == "Draining":
            return RateLimitedError(said, retry_after=_seconds(headers.get("Retry-After")))
        if name == BackendUnusableError.__name__ or status in (401, 403, 404, 405):
            return BackendUnusableError(said)
        if name in _JUDGE_IS_DOWN and self._waits_for_judge:
            return ServerFaultError(said, retry_after=_seconds(headers.get("Retry-After")))
        if status in (400, 413, 415, 422):
            return RequestRefusedError(said)
        # The server has made the judge's call again already: what it reports is final, and only its own fault is not.
        return BackendError(said) if name else ServerFaultError(said)


def _words(reply: bytes) -> tuple[str, str]:
    """(name, message) of an error that the server reports; empty where it does not."""
    try:
        error: Any = orjson.loads(reply)["error"]
        return str(error["name"]), str(error["message"])
    except (ValueError, KeyError, TypeError):
        return "", ""


def _seconds(header: str | None) -> float | None:
    return float(header) if header is not None and header.isdigit() else None

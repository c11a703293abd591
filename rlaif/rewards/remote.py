"""An `rlaif serve`, asked over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import orjson

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
from rlaif.records import RATING_LABELS, Candidates, Rating

if TYPE_CHECKING:
    from aiohttp import ClientSession

CONNECTIONS = 128
TIMEOUT = 180.0
"""Seconds for one rating; the server gives up a little before."""

_RETRIES = 6


class RemoteRater:
    """Posts each item to `/score`, so that one that fails takes no other with it.

    Args:
        url: Such as "http://127.0.0.1:8400".
        token: The server's RLAIF_TOKEN; None where it has none.

    Raises:
        ConfigError: That is no http address.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        if not url.startswith(("http://", "https://")):
            raise ConfigError(f"url: {url!r}, expected http://HOST:PORT of an rlaif serve")
        self._url = url.rstrip("/").removesuffix("/score") + "/score"
        self._headers = {"Content-Type": "application/json"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"

    async def rate_all(self, items: Sequence[Candidates]) -> list[Rating | BaseException]:
        import aiohttp

        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=CONNECTIONS),
            headers=self._headers,
            timeout=aiohttp.ClientTimeout(total=TIMEOUT),
        ) as session:

            async def rate(item: Candidates) -> Rating:
                return await call_with_retries(lambda: self._post(session, item), max_retries=_RETRIES)

            return await asyncio.gather(*map(rate, items), return_exceptions=True)

    def close(self) -> None:
        return None

    async def _post(self, session: ClientSession, item: Candidates) -> Rating:
        import aiohttp

        messages = [turn._asdict() for turn in item.prompt]
        body = orjson.dumps({"items": [{"prompt": messages, "response": item.responses[0]}]})
        try:
            async with session.post(self._url, data=body, allow_redirects=False) as response:
                reply = await response.read()
                if response.status != 200:
                    raise self._error(response.status, reply, response.headers)
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

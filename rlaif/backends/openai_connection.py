"""HTTP exchanges with one or more OpenAI-compatible servers through aiohttp: replicas, key, faults. What bodies mean
stands in `openai_replies.py` and `openai_refusals.py`; what is asked, in `openai_api.py`."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from rlaif.backends.openai_refusals import error_of_status
from rlaif.errors import (
    BackendError,
    BackendTimeoutError,
    BackendUnusableError,
    ConfigError,
    MalformedReplyError,
    ServerFaultError,
)

if TYPE_CHECKING:
    from aiohttp import ClientSession
    from yarl import URL

DEFAULT_BASE_URL = "https://api.openai.com/v1"

_HOSTED = "api.openai.com"

_KEEP_ALIVE = 4.0
"""Seconds an idle connection is kept: less than the 5 of uvicorn, so that a call is not written into a closing one."""

_FIRST_REST, _LONGEST_REST = 1.0, 30.0
"""Seconds that a replica is passed over after it could not be reached: doubled each time in a row, up to the second."""

_OUT_OF_SERVICE = (502, 503)
"""Statuses of a server that is not there behind its gateway: so quickly refused, it would attract all calls."""

_LARGE_BODY = 2**20
"""Bytes from which aiohttp wants a body as a file."""

_SHORTEST_SECRET = 8
"""Characters: anything shorter is a placeholder such as EMPTY, and hiding it would garble messages."""

_LOOK_SECONDS, _LOOK_BYTES = 5.0, 4 * 2**20
"""Most that a look at a server may take."""


class Connection:
    """Servers that hold replicas of one model; each call goes to the one with the fewest in flight.

    Args:
        base_urls: Addresses up to and with /v1. None given: `OPENAI_BASE_URL`, else api.openai.com.
        api_key: By default `OPENAI_API_KEY`; sent to these addresses only, and redirects are not followed.
        timeout: Seconds until a call counts as lost.
        trust_env: Heed HTTP_PROXY and .netrc.

    Raises:
        ConfigError: An address or the key cannot be used.
    """

    def __init__(self, base_urls: Sequence[str], api_key: str | None, timeout: float, trust_env: bool) -> None:
        addresses = base_urls or (os.environ.get("OPENAI_BASE_URL") or DEFAULT_BASE_URL,)
        self.replicas = [Replica(address) for address in addresses]
        self._key = _checked_key(api_key if api_key is not None else os.environ.get("OPENAI_API_KEY", ""))
        self._timeout = timeout
        self._trust_env = trust_env
        self._session: ClientSession | None = None

    async def post(self, path: str, data: bytes) -> tuple[bytes, str]:
        """One call: the body of a 200 and who sent it.

        Args:
            path: Below the address, such as "/completions"; one that starts with "//" is beside its /v1.
            data: A JSON body.

        Raises:
            BackendError: One of the tree in `rlaif.errors`.
        """
        import aiohttp

        replicas = self.replicas
        replica = replicas[0] if len(replicas) == 1 else _least_busy(replicas, time.monotonic())
        session = self._session or self._open_session()
        payload = data if len(data) < _LARGE_BODY else io.BytesIO(data)  # aiohttp warns of large bytes
        error: BackendError
        replica.in_flight += 1
        replica.started += 1
        try:
            async with session.post(replica.url(path), data=payload, allow_redirects=False) as response:
                body = await response.read()
                if response.status == 200:
                    replica.failures_in_row = 0
                    return body, replica.shown
                if response.status in _OUT_OF_SERVICE:
                    replica.rest(time.monotonic())
                body = self.without_key(body)
                error = error_of_status(response.status, body, response.headers, replica.shown, time.time())
        except TimeoutError:
            error = BackendTimeoutError(f"{replica.shown} did not answer within {self._timeout:g} s")
        except aiohttp.ClientPayloadError:
            error = MalformedReplyError(f"{replica.shown} broke off in the middle of an answer")
        except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError) as fault:
            error = BackendUnusableError(f"{replica.shown}: no secure connection: {fault}")
        except (aiohttp.ClientError, OSError) as fault:
            replica.rest(time.monotonic())
            error = ServerFaultError(f"{replica.shown}: no answer: {fault or type(fault).__name__}")
        finally:
            replica.in_flight -= 1
        raise error

    async def look(self, replica: Replica, path: str) -> bytes | None:
        """What a server says of itself by GET; None if it says nothing, too much, or takes too long.

        Raises:
            ServerFaultError: It is not there, so nothing is known of it.
        """
        import aiohttp

        session = self._session or self._open_session()
        limit = aiohttp.ClientTimeout(total=min(_LOOK_SECONDS, self._timeout))
        try:
            async with session.get(replica.url(path), timeout=limit, allow_redirects=False) as response:
                if response.status in _OUT_OF_SERVICE:
                    replica.rest(time.monotonic())
                    raise ServerFaultError(f"{replica.shown} answered {response.status}")
                if response.status != 200:
                    return None
                body = bytearray()
                async for chunk in response.content.iter_any():
                    body += chunk
                    if len(body) > _LOOK_BYTES:
                        return None
                return self.without_key(bytes(body))
        except aiohttp.ClientConnectorError as fault:
            replica.rest(time.monotonic())
            raise ServerFaultError(f"{replica.shown}: no answer: {fault or type(fault).__name__}") from None
        except (TimeoutError, aiohttp.ClientError, OSError):
            return None

    def without_key(self, body: bytes) -> bytes:
        """A body whose words may be shown: servers have been seen to echo the key they refuse."""
        if len(self._key) < _SHORTEST_SECRET:
            return body
        return body.replace(self._key.encode(), b"[key]")

    async def aclose(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _open_session(self) -> ClientSession:
        import aiohttp

        if not self._key and any(replica.is_hosted for replica in self.replicas):
            raise BackendUnusableError(  # here, and not earlier: a dry run needs no key
                "api.openai.com needs a key: set OPENAI_API_KEY, or give --base-url for a server without one"
            )
        headers = {"Content-Type": "application/json", "Accept": "application/json", "Accept-Encoding": "identity"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        for header, variable in (("OpenAI-Organization", "OPENAI_ORG_ID"), ("OpenAI-Project", "OPENAI_PROJECT_ID")):
            if value := os.environ.get(variable):
                headers[header] = value
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE),  # the limiter counts, not the pool
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=self._timeout),
            trust_env=self._trust_env,
        )
        return self._session


class Replica:
    """One server, and what is known of it: `in_flight` calls, calls `started`, connection failures in a row."""

    def __init__(self, base_url: str) -> None:
        from yarl import URL

        try:
            url = URL(base_url.strip())
            is_usable = url.scheme in ("http", "https") and bool(url.host) and url.port is not None
        except ValueError:
            is_usable = False
        if not is_usable:
            raise ConfigError(f"base_url: {base_url!r}, expected an address such as http://localhost:8000/v1")
        if url.user or url.password:
            raise ConfigError(f"base_url: a name or password for {url.host}; put the key in OPENAI_API_KEY instead")
        self._base = url.with_fragment(None).with_path(url.path.rstrip("/"), keep_query=True)
        self._urls: dict[str, URL] = {}
        self.shown = str(self._base.with_query(None))
        self.is_hosted = self._base.host == _HOSTED
        self.in_flight = 0
        self.started = 0
        self.failures_in_row = 0
        self.rests_until = 0.0

    def url(self, path: str) -> URL:
        """The address of a path, as `Connection.post` takes it; the query of the base address is kept."""
        known = self._urls.get(path)
        if known is None:
            base = self._base.path.rstrip("/")
            if path.startswith("//"):
                base, path_below = base.removesuffix("/v1"), path[1:]
            else:
                path_below = path
            known = self._urls[path] = self._base.with_path(base + path_below, keep_query=True)
        return known

    def rest(self, now: float) -> None:
        """It cannot be reached: pass this replica over for a while, longer each time in a row."""
        if now < self.rests_until:
            return  # one fault of the server breaks many connections: count it once
        self.rests_until = now + min(_LONGEST_REST, _FIRST_REST * 2.0**self.failures_in_row)
        self.failures_in_row = min(self.failures_in_row + 1, 10)


def _least_busy(replicas: Sequence[Replica], now: float) -> Replica:
    """The replica with the fewest calls in flight, then the least used; a failing one only when all fail."""
    usable = [replica for replica in replicas if replica.rests_until <= now]
    if not usable:
        return min(replicas, key=lambda replica: replica.rests_until)
    return min(usable, key=lambda replica: (replica.in_flight, replica.started))


def _checked_key(key: str) -> str:
    """The key, fit for a header.

    Raises:
        ConfigError: It holds characters that no key has; the message does not show them.
    """
    key = key.strip()
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(
            "OPENAI_API_KEY holds line breaks or characters outside ASCII: it was not copied whole or alone"
        )
    return key


def to_json(value: Any) -> bytes:
    """Compact JSON. A lone surrogate, which no encoding can carry, becomes U+FFFD."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return orjson.dumps(_without_surrogates(value))


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, Mapping):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_surrogates(item) for item in value]
    return value

"""`openai:MODEL`: any server that speaks OpenAI's HTTP protocol, through aiohttp.

The openai package costs 3 to 5 CPU-milliseconds a call, several times everything else a label takes; so the calls are
made here, and a test holds bodies and replies against that package. What bodies mean stands in `openai_replies.py`.
"""

from __future__ import annotations

import io
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import orjson

from rlaif.backends.base import Capabilities
from rlaif.backends.openai_replies import (
    Endpoint,
    asks_for_max_completion_tokens,
    error_of_status,
    largest_top_logprobs,
    missing_logprobs,
    parse_generation,
    parse_score,
    refuses_logprobs,
    words_of,
)
from rlaif.errors import (
    BackendError,
    BackendTimeoutError,
    BackendUnusableError,
    ConfigError,
    LogprobsUnavailableError,
    MalformedReplyError,
    RequestRefusedError,
    ServerFaultError,
)
from rlaif.records import CandidateLogprobs, GenerateRequest, Generation, Message, ScoreRequest

if TYPE_CHECKING:
    from aiohttp import ClientSession
    from yarl import URL

Reply = TypeVar("Reply", CandidateLogprobs, Generation)

DEFAULT_BASE_URL = "https://api.openai.com/v1"

_PATHS: dict[Endpoint, str] = {"chat": "/chat/completions", "completions": "/completions"}

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

_logger = logging.getLogger(__name__)


class OpenAIBackend:
    """A model behind one or more OpenAI-compatible servers.

    Args:
        model: Its name, as the server knows it.
        base_urls: Addresses up to and with /v1; several are replicas of one model, and each call goes to the one with
            the fewest in flight. None given: `OPENAI_BASE_URL`, else api.openai.com.
        endpoint: "chat" applies the model's template; "completions" takes the messages' contents joined by blank lines.
        api_key: By default `OPENAI_API_KEY`; local servers need none.
        timeout: Seconds until a call counts as lost.
        top_logprobs: Alternatives asked for; lowered, once and with a notice, when the server allows fewer.
        extra_body: Further fields of every request, such as `chat_template_kwargs`; part of the identity.
        trust_env: Heed HTTP_PROXY and .netrc. Off by default: a proxy meant for browsing would see every prompt.
        on_notice: Told of each thing learnt about the server; by default it is logged as a warning.

    Raises:
        ConfigError: An address or the key cannot be used.
    """

    def __init__(
        self,
        model: str,
        *,
        base_urls: Sequence[str] = (),
        endpoint: Endpoint = "chat",
        api_key: str | None = None,
        timeout: float = 60.0,
        top_logprobs: int = 20,
        extra_body: Mapping[str, Any] | None = None,
        trust_env: bool = False,
        on_notice: Callable[[str], None] = _logger.warning,
    ) -> None:
        self._model = model
        self._endpoint: Endpoint = endpoint
        self._timeout = timeout
        self._trust_env = trust_env
        self._on_notice = on_notice
        addresses = base_urls or (os.environ.get("OPENAI_BASE_URL") or DEFAULT_BASE_URL,)
        self._replicas = [_Replica(address, _PATHS[endpoint]) for address in addresses]
        self._key = _checked_key(api_key if api_key is not None else os.environ.get("OPENAI_API_KEY", ""))
        self._asked_top_logprobs = self._top_logprobs = top_logprobs
        self._tokens_field = "max_tokens"
        self._extra_body = dict(extra_body or {})
        self._score_head = self._make_score_head()
        self._session: ClientSession | None = None

    def __repr__(self) -> str:
        return f"OpenAIBackend({self._model!r}, base_urls={[replica.shown for replica in self._replicas]})"

    @property
    def name(self) -> str:
        return f"openai:{self._model}"

    @property
    def identity(self) -> Mapping[str, Any]:
        known: dict[str, Any] = {
            "backend": "openai",
            "model": self._model,
            "endpoint": self._endpoint,
            "top_logprobs": self._asked_top_logprobs,
        }
        return {**known, "extra_body": self._extra_body} if self._extra_body else known

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(has_logprobs=True, has_token_alternatives=True)

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return (sum(len(message.content) for message in messages) + 3) // 4

    async def score(self, request: ScoreRequest) -> CandidateLogprobs:
        body, where = await self._ask(request.messages, lambda: self._score_head, wants_logprobs=True)
        return self._read(body, lambda text: parse_score(text, self._endpoint, where, self._model))

    async def generate(self, request: GenerateRequest) -> Generation:
        def head() -> bytes:
            return self._head(request.max_tokens, request.temperature, request.seed, request.wants_logprobs)

        body, where = await self._ask(request.messages, head, wants_logprobs=request.wants_logprobs)
        return self._read(body, lambda text: parse_generation(text, self._endpoint, where, request.labels))

    async def aclose(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    # --- the request --------------------------------------------------------------------------------------------------

    def _prompt_json(self, messages: Sequence[Message]) -> bytes:
        """`"messages": [...]` or `"prompt": "..."`, without the braces around."""
        if self._endpoint == "completions":
            return b'"prompt":' + _to_json("\n\n".join([message.content for message in messages]))
        return b'"messages":' + _to_json([{"role": message.role, "content": message.content} for message in messages])

    def _make_score_head(self) -> bytes:
        """What all score requests have in common; a new object each time something was learnt."""
        return self._head(1, 0.0, None, True)

    def _head(self, max_tokens: int, temperature: float, seed: int | None, wants_logprobs: bool) -> bytes:
        """The body up to the prompt, from the opening brace to a comma."""
        fields: dict[str, Any] = {
            "model": self._model,
            self._tokens_field: max_tokens,
            "temperature": int(temperature) if temperature == int(temperature) else temperature,
        }
        if seed is not None:
            fields["seed"] = seed
        if wants_logprobs and self._endpoint == "chat":
            fields |= {"logprobs": True, "top_logprobs": self._top_logprobs}
        elif wants_logprobs:
            fields["logprobs"] = self._top_logprobs
        return _to_json(fields | self._extra_body)[:-1] + b","

    def _may_ask_again(self, error: BackendError, known: bytes, *, wants_logprobs: bool) -> bool:
        """Whether a refused request may be accepted now, because of what its refusal or another's since then taught.

        Args:
            error: The refusal.
            known: `_score_head` when the request was made.
            wants_logprobs: Whether the request asked for log-probabilities.

        Raises:
            LogprobsUnavailableError: The server gives no log-probabilities for this model.
        """
        if known is not self._score_head:
            return True
        words = words_of(error)
        allowed = largest_top_logprobs(words, self._top_logprobs) if wants_logprobs else None
        if self._endpoint == "chat" and self._tokens_field == "max_tokens" and asks_for_max_completion_tokens(words):
            self._tokens_field = "max_completion_tokens"
            self._on_notice(f"{self.name}: the server wants max_completion_tokens in place of max_tokens; using it")
        elif allowed is not None:
            self._on_notice(
                f"{self.name}: the server allows {allowed} top_logprobs, not {self._top_logprobs}; using {allowed}"
            )
            self._top_logprobs = allowed
        elif wants_logprobs and refuses_logprobs(words):
            where = self._replicas[0].shown
            raise LogprobsUnavailableError(f"{missing_logprobs(where, self._model)} ({words})") from error
        else:
            return False
        self._score_head = self._make_score_head()
        return True

    # --- the exchange -------------------------------------------------------------------------------------------------

    async def _ask(
        self, messages: Sequence[Message], head: Callable[[], bytes], *, wants_logprobs: bool
    ) -> tuple[bytes, str]:
        """The body of a good reply and where it came from, after adapting to a server that refuses a field."""
        prompt = self._prompt_json(messages)
        while True:
            known = self._score_head
            try:
                return await self._post(head() + prompt + b"}")
            except (RequestRefusedError, BackendUnusableError) as error:
                if not self._may_ask_again(error, known, wants_logprobs=wants_logprobs):
                    raise

    async def _post(self, data: bytes) -> tuple[bytes, str]:
        """One HTTP exchange: the body of a 200 and who sent it, or an error of our tree."""
        import aiohttp

        replica = self._replicas[0] if len(self._replicas) == 1 else _least_busy(self._replicas, time.monotonic())
        session = self._session or self._open_session()
        payload = data if len(data) < _LARGE_BODY else io.BytesIO(data)  # aiohttp warns of large bytes
        error: BackendError
        replica.in_flight += 1
        replica.started += 1
        try:
            async with session.post(replica.url, data=payload, allow_redirects=False) as response:
                body = await response.read()
                if response.status == 200:
                    replica.failures_in_row = 0
                    return body, replica.shown
                if response.status in _OUT_OF_SERVICE:
                    replica.rest(time.monotonic())
                body = self._without_key(body)
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

    def _read(self, body: bytes, parse: Callable[[bytes], Reply]) -> Reply:
        try:
            return parse(body)
        except BackendError:
            cleaned = self._without_key(body)
            if cleaned == body:
                raise
        return parse(cleaned)

    def _without_key(self, body: bytes) -> bytes:
        """A body whose words may be shown: servers have been seen to echo the key they refuse."""
        if len(self._key) < _SHORTEST_SECRET:
            return body
        return body.replace(self._key.encode(), b"[key]")

    def _open_session(self) -> ClientSession:
        import aiohttp

        if not self._key and any(replica.url.host == "api.openai.com" for replica in self._replicas):
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


class _Replica:
    """One server, and what is known of it: `in_flight` calls, calls `started`, connection failures in a row."""

    def __init__(self, base_url: str, path: str) -> None:
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
        base = url.with_fragment(None).with_path(url.path.rstrip("/"), keep_query=True)
        self.shown = str(base.with_query(None))
        self.url: URL = base.with_path(base.path.rstrip("/") + path, keep_query=True)
        self.in_flight = 0
        self.started = 0
        self.failures_in_row = 0
        self.rests_until = 0.0

    def rest(self, now: float) -> None:
        """It cannot be reached: pass this replica over for a while, longer each time in a row."""
        if now < self.rests_until:
            return  # one fault of the server breaks many connections: count it once
        self.rests_until = now + min(_LONGEST_REST, _FIRST_REST * 2.0**self.failures_in_row)
        self.failures_in_row = min(self.failures_in_row + 1, 10)


def _least_busy(replicas: Sequence[_Replica], now: float) -> _Replica:
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


def _to_json(value: Any) -> bytes:
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

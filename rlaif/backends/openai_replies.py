"""What the bodies of OpenAI-compatible servers mean: replies to records, refusals to the tree in `rlaif.errors`.

Pure: bytes and headers in, values or errors out. Nothing in a body is trusted to have the type it should have; any
surprise in a good reply is a `MalformedReplyError`, which is asked again. `openai_api.py` does the talking.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Literal

import orjson

from rlaif.errors import (
    BackendError,
    BackendTimeoutError,
    BackendUnusableError,
    LogprobsUnavailableError,
    MalformedReplyError,
    PromptTooLongError,
    RateLimitedError,
    RequestRefusedError,
    ServerFaultError,
)
from rlaif.records import CandidateLogprobs, GeneratedToken, Generation, TokenLogprob, Usage

Endpoint = Literal["chat", "completions"]

UNSEEN_BELOW = -100.0
"""Nats. OpenAI and vLLM write -9999 for what they did not compute, others float32's minimum: unseen, which is not zero.
A true value down here (under 4e-44) cannot be told from zero in float32, so not counting it as seen loses nothing."""

_ROUNDING = 1e-3
"""Nats above 0 that a logprob may be by rounding; such a value counts as 0."""

_WORDS = 300
"""Characters kept of what a server says."""

_TOO_LONG = re.compile(
    r"context[ _-]?(?:length|size|window)|max(?:imum)?[ _]model[ _](?:length|len)|prompt (?:is )?too long"
    r"|input (?:is )?too long|inputs? tokens? .{0,40}must be|exceeds? the maximum allowed length",
    re.IGNORECASE,
)
_ABOUT_LOGPROBS = r"log_?probs\b(?![\"']\s*:\s*(?:true|\d))"  # that is a quotation of our own request
_REFUSES = r"\b(?:not|unsupported|unavailable|unknown|unrecognized|disabled|invalid|cannot|doesn't|isn't|aren't)\b"
_LOGPROBS_REFUSED = re.compile(
    rf"{_ABOUT_LOGPROBS}.{{0,60}}{_REFUSES}|{_REFUSES}.{{0,60}}{_ABOUT_LOGPROBS}", re.IGNORECASE
)
_LOGPROBS_LIMITED = re.compile(_ABOUT_LOGPROBS, re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x20\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")
_TAGS = re.compile(r"<(script|style)\b.*?</\1\s*>|<[^>]*>", re.IGNORECASE | re.DOTALL)
_NUMBERS = (float, int)  # compared by `type(x) in`: True is no number here


# --- good replies -----------------------------------------------------------------------------------------------------


def parse_score(body: bytes, endpoint: Endpoint, where: str, model: str) -> CandidateLogprobs:
    """The likeliest first tokens of a reply, the generated one among them.

    Args:
        body: Of a reply with status 200.
        endpoint: Which one answered.
        where, model: The server's address and the model's name, for messages.

    Raises:
        MalformedReplyError: The body is cut short or not what the protocol says.
        LogprobsUnavailableError: The reply is fine and holds no log-probabilities.
        RequestRefusedError: A content filter stands in place of the answer.
    """
    reply, choice, text = _open(body, endpoint, where)
    try:
        logprobs = choice.get("logprobs")
        if not logprobs:
            raise LogprobsUnavailableError(missing_logprobs(where, model))
        first = _first_of_completion(logprobs) if endpoint == "completions" else _first_of_chat(logprobs)
        if first is None and not text:  # the model ended at once: an answer, though not one of the labels
            return CandidateLogprobs((), False, _usage(reply), "")
        if first is None or not first.alternatives:
            raise LogprobsUnavailableError(missing_logprobs(where, model))
        return CandidateLogprobs(first.alternatives, False, _usage(reply), first.token)
    except _SURPRISES as error:
        raise _malformed(body, where, error) from None


def parse_generation(body: bytes, endpoint: Endpoint, where: str, labels: Collection[str] = ()) -> Generation:
    """The text of a reply and, where `labels` are given, its tokens.

    Only tokens that spell a label have their alternatives read: 512 tokens with 20 each take milliseconds. Raises as
    `parse_score`, but for `LogprobsUnavailableError`: no tokens is an answer, too.
    """
    reply, choice, text = _open(body, endpoint, where)
    try:
        reason = choice.get("finish_reason")
        logprobs = choice.get("logprobs")
        tokens: tuple[GeneratedToken, ...] = ()
        if logprobs and labels:
            read = _tokens_of_completion if endpoint == "completions" else _tokens_of_chat
            tokens = tuple(read(logprobs, labels))
        return Generation(text, reason if isinstance(reason, str) else "stop", tokens, _usage(reply))
    except _SURPRISES as error:
        raise _malformed(body, where, error) from None


class _SurpriseError(Exception):
    """Something in a body is not what the protocol says; never leaves this module."""


_SURPRISES = (KeyError, IndexError, TypeError, AttributeError, _SurpriseError)


def _open(body: bytes, endpoint: Endpoint, where: str) -> tuple[dict[str, Any], dict[str, Any], str]:
    """The reply, its first choice and that choice's text."""
    try:
        reply = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _malformed(body, where, error) from None
    try:
        choices = reply.get("choices")
        if not choices and reply.get("error"):  # gateways report the fault of a server behind them with status 200
            code = reply["error"].get("code") if isinstance(reply["error"], dict) else None
            # others number their faults as they like: only an HTTP error status says what to do
            status = code if isinstance(code, int) and 400 <= code < 600 else 502
            raise error_of_status(status, body, {}, where)
        choice = choices[0]
        if endpoint == "completions":
            text, refusal = choice["text"], None
        else:
            message = choice["message"]
            text, refusal = message.get("content"), message.get("refusal")
        if choice.get("finish_reason") == "content_filter" or (refusal and not text):
            said = f": {_clean(refusal)[:_WORDS]}" if isinstance(refusal, str) else ""
            raise RequestRefusedError(f"{where} returned no answer but its content filter's refusal{said}")
        if text is None:
            text = ""
        if type(text) is not str:
            raise _SurpriseError(f"the text is {type(text).__name__}")
    except _SURPRISES as error:
        raise _malformed(body, where, error) from None
    return reply, choice, text


def _first_of_chat(logprobs: dict[str, Any]) -> GeneratedToken | None:
    content = logprobs.get("content")
    return GeneratedToken(content[0]["token"], _alternatives(content[0])) if content else None


def _tokens_of_chat(logprobs: dict[str, Any], labels: Collection[str]) -> Iterator[GeneratedToken]:
    for entry in logprobs.get("content") or ():
        token = _text(entry["token"])
        yield GeneratedToken(token, _alternatives(entry) if token.strip() in labels else ())


def _alternatives(entry: dict[str, Any]) -> tuple[TokenLogprob, ...]:
    """The tokens listed for one place, the generated one among them; none where the server lists none."""
    listed = entry.get("top_logprobs")
    if not listed:
        return ()
    return _seen([(other["token"], other["logprob"]) for other in listed], entry["token"], entry["logprob"])


def _first_of_completion(logprobs: dict[str, Any]) -> GeneratedToken | None:
    return next(_tokens_of_completion(logprobs, None), None)


def _tokens_of_completion(logprobs: dict[str, Any], labels: Collection[str] | None) -> Iterator[GeneratedToken]:
    """The tokens; with `labels` None, all with their alternatives."""
    texts, own = logprobs["tokens"] or (), logprobs["token_logprobs"] or ()
    alternatives = logprobs.get("top_logprobs") or [None] * len(texts)
    if not len(texts) == len(own) == len(alternatives):
        raise _SurpriseError(f"{len(texts)} tokens have {len(own)} logprobs and {len(alternatives)} alternatives")
    for text, logprob, listed in zip(texts, own, alternatives, strict=True):
        is_wanted = listed and (labels is None or _text(text).strip() in labels)
        yield GeneratedToken(_text(text), _seen(listed.items(), text, logprob) if is_wanted else ())


def _seen(listed: Iterable[tuple[Any, Any]], token: Any, logprob: Any) -> tuple[TokenLogprob, ...]:
    """What is listed, and the generated token where it is absent, without what counts as unseen."""
    found: list[TokenLogprob] = []
    is_listed = False
    for other, value in listed:
        is_listed = is_listed or other == token
        _append(found, other, value)
    if not is_listed:
        _append(found, token, logprob)
    return tuple(found)


def _append(found: list[TokenLogprob], token: Any, logprob: Any) -> None:
    """Keep a token that was seen. A null stands for minus infinity, which JSON cannot write."""
    if logprob is None:
        return
    if type(logprob) not in _NUMBERS:
        raise _SurpriseError(f"a logprob is {type(logprob).__name__}")
    if logprob > 0.0:
        if logprob > _ROUNDING:
            raise _SurpriseError(f"a logprob is {logprob}, above 0")
        logprob = 0.0
    if logprob > UNSEEN_BELOW:
        found.append(TokenLogprob(_text(token), float(logprob)))


def _text(token: Any) -> str:
    if type(token) is not str:
        raise _SurpriseError(f"a token is {type(token).__name__}")
    return token


def _usage(reply: dict[str, Any]) -> Usage:
    """Token counts; 0 where a server leaves them out, since they change no label."""
    usage = reply.get("usage")
    if type(usage) is not dict:
        return Usage()
    details = usage.get("prompt_tokens_details")
    return Usage(
        _count(usage.get("prompt_tokens")),
        _count(usage.get("completion_tokens")),
        _count(details.get("cached_tokens")) if type(details) is dict else 0,
    )


def _count(value: Any) -> int:
    return value if type(value) is int and value > 0 else 0


def _malformed(body: bytes, where: str, error: Exception) -> MalformedReplyError:
    why = f"has no {error}" if isinstance(error, KeyError) else str(error)
    return MalformedReplyError(
        f"{where} answered 200 with a body that cannot be read ({_clean(why)[:120]}): {_excerpt(body)}"
    )


def missing_logprobs(where: str, model: str) -> str:
    """The sentence for a server without log-probabilities."""
    return (
        f"{where} sent no log-probabilities for {model!r}; turn them on in the server, ask a model that has them, "
        "or label with --scoring sample"
    )


# --- refusals and faults ----------------------------------------------------------------------------------------------


def error_of_status(status: int, body: bytes, headers: Mapping[str, str], where: str, now: float = 0.0) -> BackendError:
    """The error that a reply other than 200 stands for.

    Args:
        status: HTTP status.
        body: As received.
        headers: Looked up by lower-case name (a case-insensitive mapping, or lower-case keys).
        where: The server's address, for the message.
        now: Unix time in seconds, for a Retry-After date from a server that does not say its own time.
    """
    words, code = server_words(body)
    message = f"{where} answered {status}: {words or 'nothing more'}"
    retry_after = retry_after_seconds(headers, now)
    if status == 429:
        if code == "insufficient_quota":
            return BackendUnusableError(message)
        return RateLimitedError(message, retry_after=retry_after)
    if status == 408:
        return BackendTimeoutError(message, retry_after=retry_after)
    if status >= 500 or status in (409, 425):
        return ServerFaultError(message, retry_after=retry_after)
    if status in (401, 402, 403):
        return BackendUnusableError(message)
    if status in (404, 405):
        return BackendUnusableError(f"{message} (is this the address up to and with /v1, and the model's exact name?)")
    if status < 400:
        target = _clean(headers.get("location", ""))[:_WORDS]
        return BackendUnusableError(
            f"{message} (it points to {target or 'nowhere'}; give --base-url the final address)"
        )
    if code == "context_length_exceeded" or _TOO_LONG.search(words):
        return PromptTooLongError(message)
    return RequestRefusedError(message)


def server_words(body: bytes) -> tuple[str, str]:
    """What a server says in an error body, in at most 300 printable characters, and the error's code ("" without)."""
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        return _excerpt(body), ""
    fault = said.get("error", said) if isinstance(said, dict) else said
    if isinstance(fault, dict):
        code = fault.get("code") or fault.get("type") or ""
        words = next((fault[key] for key in ("message", "detail", "msg", "error") if fault.get(key)), fault)
    else:
        code, words = "", fault
    if not isinstance(words, str):
        words = orjson.dumps(words).decode()
    return _clean(words)[:_WORDS], code if isinstance(code, str) else ""


def retry_after_seconds(headers: Mapping[str, str], now: float = 0.0) -> float | None:
    """Seconds that a server asks to wait, by `retry-after-ms` or `Retry-After` (seconds or a date); None if none.

    >>> retry_after_seconds({"retry-after": "2"}), retry_after_seconds({"retry-after-ms": "150"})
    (2.0, 0.15)
    """
    for name, scale in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) / scale
        except ValueError:
            seconds = _seconds_until(value, headers.get("date"), now)
        if math.isfinite(seconds):
            return max(0.0, seconds)
    return None


def _seconds_until(date: str, server_now: str | None, now: float) -> float:
    """Seconds to an HTTP date, by the server's own clock where it says it; NaN when it cannot be read."""
    try:
        then = parsedate_to_datetime(date).timestamp()
        return then - (parsedate_to_datetime(server_now).timestamp() if server_now else now)
    except (ValueError, TypeError, OverflowError):
        return math.nan


def words_of(refusal: BackendError) -> str:
    """The server's words in an error of `error_of_status`, without the address and status before them."""
    return str(refusal).partition(": ")[2]


def asks_for_max_completion_tokens(words: str) -> bool:
    """Whether a refusal says that `max_tokens` must be called `max_completion_tokens`."""
    return "max_completion_tokens" in words


def largest_top_logprobs(words: str, asked: int) -> int | None:
    """The number of alternatives that a refusal allows, below the one asked for; None if it is about something else.

    A refusal that names `top_logprobs` and no number leaves the two limits in use among hosts: 20, then 5.

    >>> largest_top_logprobs("Invalid value for 'top_logprobs': must be less than or equal to 5.", 20)
    5
    """
    if _LOGPROBS_LIMITED.search(words) is None:
        return None
    is_about_number = re.search(
        r"less than|at most|greater than|max|up to|between|exceed|<=|limit|range", words, re.IGNORECASE
    )
    numbers = [int(number) for number in re.findall(r"(?<![\w.])\d{1,4}(?![\w.]*\d)", words)]
    below = [number for number in numbers if 1 <= number < asked]
    if is_about_number and below:
        return max(below)
    if is_about_number and "top_logprobs" in words and not numbers:
        return next((known for known in (20, 5) if known < asked), None)
    return None


def refuses_logprobs(words: str) -> bool:
    """Whether a refusal is about log-probabilities as such, and not one that merely quotes the request."""
    return _LOGPROBS_REFUSED.search(words) is not None


def _excerpt(body: bytes) -> str:
    text = body[:4000].decode("utf-8", "replace")
    if text.lstrip()[:1] == "<":
        text = _TAGS.sub(" ", text)
    return _clean(text)[:_WORDS]


def _clean(text: str) -> str:
    """One line, without control and direction characters that a terminal or a log would obey."""
    return _CONTROL.sub(" ", text).strip()

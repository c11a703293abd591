"""What the refusals and faults of OpenAI-compatible servers mean: statuses and words to the tree in `rlaif.errors`.

Pure, and nothing in a body is trusted. Good replies are read in `openai_replies.py`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

import orjson

from rlaif.errors import (
    BackendError,
    BackendTimeoutError,
    BackendUnusableError,
    PromptTooLongError,
    RateLimitedError,
    RequestRefusedError,
    ServerFaultError,
)

LONGEST_WORDS = 300
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
_LOGPROBS_LIMITED = re.compile(rf"{_ABOUT_LOGPROBS}|top_n_tokens", re.IGNORECASE)  # the latter is TGI's word


def _refusal_of(field: str) -> re.Pattern[str]:
    """A sentence that refuses a field, and does not merely quote our own request."""
    named = rf"\b{field}\b(?![\"']\s*:)"
    return re.compile(rf"{named}.{{0,80}}(?:{_REFUSES}|\bonly\b)|{_REFUSES}.{{0,60}}{named}", re.IGNORECASE)


_TEMPERATURE_REFUSED, _TOP_P_REFUSED, _SEED_REFUSED = map(_refusal_of, ("temperature", "top_p", "seed"))
_MODERATED = re.compile(
    r"content[ _-]?(?:filter|policy|management policy)|moderation|input was flagged|responsible ?ai", re.IGNORECASE
)
_TOKEN_IDS = re.compile(r"logprob_token_ids|return_tokens_as_token_ids|return_token_ids")
_CONTROL = re.compile(r"[\x00-\x20\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")
_TAGS = re.compile(r"<(script|style)\b.*?</\1\s*>|<[^>]*>", re.IGNORECASE | re.DOTALL)


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
    if status == 403 and _MODERATED.search(f"{code} {words}"):
        return RequestRefusedError(message)  # some gateways answer so to one prompt; else 403 is about the key
    if status in (401, 402, 403):
        return BackendUnusableError(message)
    if status in (404, 405):
        return BackendUnusableError(f"{message} (is this the address up to and with /v1, and the model's exact name?)")
    if status < 400:
        target = clean(headers.get("location", ""))[:LONGEST_WORDS]
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
        return excerpt(body), ""
    fault = said.get("error", said) if isinstance(said, dict) else said
    if isinstance(fault, dict):
        code = fault.get("code") or fault.get("type") or ""
        words = next((fault[key] for key in ("message", "detail", "msg", "error") if fault.get(key)), fault)
    else:
        code, words = "", fault
    if not isinstance(words, str):
        words = orjson.dumps(words).decode()
    return clean(words)[:LONGEST_WORDS], code if isinstance(code, str) else ""


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


def refuses_temperature(words: str) -> bool:
    """Whether a refusal is about `temperature`, as that of reasoning models is.

    >>> refuses_temperature("Unsupported value: 'temperature' does not support 0 with this model. Only the default (1)")
    True
    """
    return _TEMPERATURE_REFUSED.search(words) is not None


def refuses_seed(words: str) -> bool:
    """Whether a refusal is about `seed`, which some hosts do not know."""
    return _SEED_REFUSED.search(words) is not None


def refuses_top_p(words: str) -> bool:
    """Whether a refusal is about `top_p`, as that of reasoning models is.

    >>> refuses_top_p("Unsupported parameter: 'top_p' is not supported with this model.")
    True
    """
    return _TOP_P_REFUSED.search(words) is not None


def refuses_token_ids(words: str) -> bool:
    """Whether a refusal is about log-probabilities of chosen tokens."""
    return _TOKEN_IDS.search(words) is not None


def excerpt(body: bytes) -> str:
    text = body[:4000].decode("utf-8", "replace")
    if text.lstrip()[:1] == "<":
        text = _TAGS.sub(" ", text)
    return clean(text)[:LONGEST_WORDS]


def clean(text: str) -> str:
    """One line, without control and direction characters that a terminal or a log would obey."""
    return _CONTROL.sub(" ", text).strip()

"""What the good replies of OpenAI-compatible servers mean, as records. Refusals are read in `openai_refusals.py`.

Pure: bytes in, values or errors out. Nothing in a body is trusted to have the type it should have; any surprise is a
`MalformedReplyError`, which is asked again. `openai_api.py` does the talking.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any, Literal, NamedTuple

import orjson

from rlaif.backends.openai_refusals import LONGEST_WORDS, clean, error_of_status, excerpt
from rlaif.errors import LogprobsUnavailableError, MalformedReplyError, RequestRefusedError
from rlaif.records import CandidateLogprobs, GeneratedToken, Generation, TokenLogprob, Usage

Endpoint = Literal["chat", "completions"]

UNSEEN_BELOW = -100.0
"""Nats. OpenAI and vLLM write -9999 for what they did not compute, others float32's minimum: unseen, which is not zero.
A true value down here (under 4e-44) cannot be told from zero in float32, so not counting it as seen loses nothing."""

_ROUNDING = 1e-3
"""Nats above 0 that a logprob may be by rounding; such a value counts as 0."""

_NUMBERS = (float, int)  # compared by `type(x) in`: True is no number here


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
        first = _first_of_completion(logprobs) if _is_by_place(logprobs, endpoint) else _first_of_chat(logprobs)
        if first is None and not text:  # the model ended at once: an answer, though not one of the labels
            return CandidateLogprobs((), False, _usage(reply), "")
        if first is None or not first.alternatives:
            raise LogprobsUnavailableError(missing_logprobs(where, model))
        return CandidateLogprobs(first.alternatives, False, _usage(reply), first.token)
    except _SURPRISES as error:
        raise _malformed(body, where, error) from None


class Places(NamedTuple):
    """What a reply says of its first two tokens.

    Attributes:
        first: The likeliest first tokens, the generated one among them.
        text: The generated first token.
        second: The likeliest tokens after it; None where the reply ends with it.
        usage: What the call took.
    """

    first: tuple[TokenLogprob, ...]
    text: str
    second: tuple[TokenLogprob, ...] | None
    usage: Usage


def parse_places(body: bytes, endpoint: Endpoint, where: str, model: str) -> Places:
    """The likeliest first and second tokens of a reply. Arguments and errors are those of `parse_score`."""
    reply, choice, text = _open(body, endpoint, where)
    try:
        found = _all_tokens(choice.get("logprobs"), endpoint)
        if (not found and (text or not choice.get("logprobs"))) or (found and not found[0].alternatives):
            raise LogprobsUnavailableError(missing_logprobs(where, model))
        if not found:
            return Places((), "", None, _usage(reply))
        second = found[1].alternatives if len(found) > 1 and found[1].alternatives else None
        return Places(found[0].alternatives, _text(found[0].token), second, _usage(reply))
    except _SURPRISES as error:
        raise _malformed(body, where, error) from None


class ChosenLogprobs(NamedTuple):
    """Log-probabilities of the tokens that were asked for by id.

    Attributes:
        logprobs: Id -> log-probability; None where the server gave those of others, as one does that does not know how.
        prompt_ids: Of the prompt, where the server tells them.
        text: The generated text.
        usage: What the call took.
    """

    logprobs: dict[int, float] | None
    prompt_ids: tuple[int, ...] | None
    text: str
    usage: Usage


def parse_chosen(body: bytes, endpoint: Endpoint, where: str, model: str, ids: Iterable[int]) -> ChosenLogprobs:
    """What a vLLM says of chosen tokens. Raises as `parse_score`.

    Args:
        body, endpoint, where, model: As for `parse_score`.
        ids: Those asked for.
    """
    reply, choice, text = _open(body, endpoint, where)
    try:
        logprobs = choice.get("logprobs")
        if not logprobs:
            raise LogprobsUnavailableError(missing_logprobs(where, model))
        if endpoint == "completions":
            listed = dict((logprobs.get("top_logprobs") or [{}])[0] or {})
            prompt_ids = choice.get("prompt_token_ids")
        else:
            entry = (logprobs.get("content") or [{}])[0]
            listed = {other["token"]: other["logprob"] for other in entry.get("top_logprobs") or ()}
            prompt_ids = reply.get("prompt_token_ids")
        names = {token: f"token_id:{token}" for token in ids}
        is_complete = all(name in listed for name in names.values())
        return ChosenLogprobs(
            {token: _logprob(listed[name]) for token, name in names.items()} if is_complete else None,
            _prompt_ids(prompt_ids),
            text,
            _usage(reply),
        )
    except _SURPRISES as error:
        raise _malformed(body, where, error) from None


def parse_generation(body: bytes, endpoint: Endpoint, where: str, labels: Collection[str] = ()) -> Generation:
    """The text of a reply and, where `labels` are given, its tokens.

    Only tokens that spell a label have their alternatives read: 512 tokens with 20 each take milliseconds. Text that a
    content filter cut short is an answer with that finish reason. Raises as `parse_score`, but for
    `LogprobsUnavailableError`: no tokens is an answer, too.
    """
    reply, choice, text = _open(body, endpoint, where, takes_filtered=True)
    try:
        reason = choice.get("finish_reason")
        logprobs = choice.get("logprobs")
        tokens: tuple[GeneratedToken, ...] = ()
        if not text and reason == "length" and (spent := _spent_on_reasoning(reply, choice, endpoint)):
            raise RequestRefusedError(
                f"{where} spent all {spent} tokens of the reply on reasoning, and came to no answer; "
                "give it more with --cot and a higher --max-tokens, or less to think about in the server's settings"
            )
        if logprobs and labels:
            read = _tokens_of_completion if _is_by_place(logprobs, endpoint) else _tokens_of_chat
            tokens = tuple(read(logprobs, labels))
        return Generation(text, reason if isinstance(reason, str) else "stop", tokens, _usage(reply))
    except _SURPRISES as error:
        raise _malformed(body, where, error) from None


def _prompt_ids(value: Any) -> tuple[int, ...] | None:
    is_list = type(value) is list and bool(value) and all(type(token) is int for token in value)
    return tuple(value) if is_list else None


class _SurpriseError(Exception):
    """Something in a body is not what the protocol says; never leaves this module."""


_SURPRISES = (KeyError, IndexError, TypeError, AttributeError, _SurpriseError)


def _open(
    body: bytes, endpoint: Endpoint, where: str, *, takes_filtered: bool = False
) -> tuple[dict[str, Any], dict[str, Any], str]:
    """The reply, its first choice and that choice's text; `takes_filtered`: also one that a content filter cut short.

    Raises:
        RequestRefusedError: There is a refusal in its place.
    """
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
        is_filtered = choice.get("finish_reason") == "content_filter" and not (takes_filtered and text)
        if is_filtered or (refusal and not text):
            said = f": {clean(refusal)[:LONGEST_WORDS]}" if isinstance(refusal, str) else ""
            raise RequestRefusedError(f"{where} returned no answer but its content filter's refusal{said}")
        if text is None:
            text = ""
        if type(text) is not str:
            raise _SurpriseError(f"the text is {type(text).__name__}")
    except _SURPRISES as error:
        raise _malformed(body, where, error) from None
    return reply, choice, text


def _spent_on_reasoning(reply: dict[str, Any], choice: dict[str, Any], endpoint: Endpoint) -> int:
    """Tokens of a reply without text that went into reasoning; 0 when none did."""
    usage = reply.get("usage")
    details = usage.get("completion_tokens_details") if type(usage) is dict else None
    counted = _count(details.get("reasoning_tokens")) if type(details) is dict else 0
    if endpoint == "chat" and not counted:
        message = choice["message"]
        if message.get("reasoning_content") or message.get("reasoning"):
            return _usage(reply).completion_tokens or 1
    return counted


def _is_by_place(logprobs: dict[str, Any], endpoint: Endpoint) -> bool:
    """Whether log-probabilities come in the form of the completions endpoint. llama.cpp has long used the other one."""
    return endpoint == "completions" and "content" not in logprobs


def _all_tokens(logprobs: Any, endpoint: Endpoint) -> list[GeneratedToken]:
    if not logprobs:
        return []
    if _is_by_place(logprobs, endpoint):
        return list(_tokens_of_completion(logprobs, None))
    return [GeneratedToken(entry["token"], _alternatives(entry)) for entry in logprobs.get("content") or ()]


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
    logprob = _logprob(logprob)
    if logprob > UNSEEN_BELOW:
        found.append(TokenLogprob(_text(token), logprob))


def _logprob(value: Any) -> float:
    if type(value) not in _NUMBERS:
        raise _SurpriseError(f"a logprob is {type(value).__name__}")
    if value > 0.0:
        if value > _ROUNDING:
            raise _SurpriseError(f"a logprob is {value}, above 0")
        return 0.0
    return float(value)


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
        f"{where} answered 200 with a body that cannot be read ({clean(why)[:120]}): {excerpt(body)}"
    )


def missing_logprobs(where: str, model: str) -> str:
    """The sentence for a server without log-probabilities."""
    return (
        f"{where} sent no log-probabilities for {model!r}; turn them on in the server, ask a model that has them, "
        "or label with --scoring sample"
    )

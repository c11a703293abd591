"""`openai:MODEL`: any server that speaks OpenAI's HTTP protocol.

The openai package costs 3 to 5 CPU-milliseconds a call, several times everything else a label takes; so the calls are
made here, and a test holds bodies and replies against that package. What a server can do is learnt from its `/version`
and `/models` before the first call (`openai_servers.py`), and from what it refuses.

A value must not depend on which reply came first. So how labels are read is settled before the first row where the
server can tell, and reply by reply where it cannot; nothing that one reply shows changes how another one is read. The
one exception is a field that the server refuses or ignores: then the very reply that showed it is asked for again.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from rlaif.backends import openai_servers as servers
from rlaif.backends.base import Capabilities
from rlaif.backends.openai_connection import Connection, to_json
from rlaif.backends.openai_learning import Learner
from rlaif.backends.openai_refusals import (
    asks_for_max_completion_tokens,
    largest_top_logprobs,
    refuses_logprobs,
    refuses_seed,
    refuses_temperature,
    refuses_token_ids,
    refuses_top_p,
    words_of,
)
from rlaif.backends.openai_replies import (
    ChosenLogprobs,
    Endpoint,
    Places,
    missing_logprobs,
    parse_chosen,
    parse_generation,
    parse_places,
    parse_score,
)
from rlaif.backends.openai_servers import LabelPlan
from rlaif.backends.spelling import NEGLIGIBLE, joined, with_tails
from rlaif.errors import (
    BackendError,
    BackendUnusableError,
    LogprobsUnavailableError,
    PromptTooLongError,
    RequestRefusedError,
)
from rlaif.records import (
    CandidateLogprobs,
    GenerateRequest,
    Generation,
    Message,
    ScoreRequest,
    Segment,
    TokenLogprob,
    Usage,
)

Reply = TypeVar("Reply", CandidateLogprobs, ChosenLogprobs, Generation, Places)

_PATHS: dict[Endpoint, str] = {"chat": "/chat/completions", "completions": "/completions"}

_FOR_GOOD = (RequestRefusedError, BackendUnusableError, PromptTooLongError)

_logger = logging.getLogger(__name__)


class _IdsRefusedError(Exception):
    """The server knows nothing of log-probabilities by token id; never leaves this module."""


class OpenAIBackend:
    """A model behind one or more OpenAI-compatible servers.

    Args:
        model: Its name, as the server knows it.
        base_urls: Addresses up to and with /v1; several are replicas of one model, and each call goes to the one with
            the fewest in flight. None given: `OPENAI_BASE_URL`, else api.openai.com.
        endpoint: "chat" applies the model's template; "completions" takes the messages' contents joined by blank lines,
            without a word of who says what: for base models, which go on with a text.
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
        self._path = _PATHS[endpoint]
        self._notice = on_notice
        self._said: set[str] = set()
        self._connection = Connection(base_urls, api_key, timeout, trust_env)
        self._asked_top_logprobs = self._top_logprobs = top_logprobs
        self._tokens_field = "max_tokens"
        self._sends_temperature = self._sends_seed = True
        self._extra_body = dict(extra_body or {})
        self._learner = Learner(self._connection, model, endpoint, self._extra_body, self._say)
        self._heads: dict[LabelPlan, bytes] = {}

    def __repr__(self) -> str:
        return f"OpenAIBackend({self._model!r}, base_urls={[replica.shown for replica in self._connection.replicas]})"

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
        server = self._learner.server
        context = server.context_tokens if server else None
        return Capabilities(has_logprobs=True, has_token_alternatives=True, context_tokens=context)

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return (sum(len(message.content) for message in messages) + 3) // 4

    async def score(self, request: ScoreRequest) -> CandidateLogprobs:
        plan = self._learner.plans.get(request.labels) or await self._learner.plan(request.labels)
        if plan.exact is not None:
            try:
                return await self._score_exactly(request, plan)
            except _IdsRefusedError:
                self._learner.give_up_ids()
                plan = await self._learner.plan(request.labels)
        prompt = self._prompt_json(request.messages)
        body, where = await self._ask(lambda: self._score_head(plan) + prompt + b"}", self._path)
        if plan.long is not None:
            places = self._read(body, lambda text: parse_places(text, self._endpoint, where, self._model))
            return await self._with_long_label(request, plan, places)
        return self._read(body, lambda text: parse_score(text, self._endpoint, where, self._model))

    async def generate(self, request: GenerateRequest) -> Generation:
        """Text after the messages. What a content filter cut short comes with the finish reason content_filter.

        Raises:
            RequestRefusedError: The server or its content filter refuses; in its words.
            BackendUnusableError: It refuses the request's top_p.
            BackendError: As `score` does.
        """
        server = self._learner.server or await self._learner.learn_server()
        prompt = self._prompt_json(request.messages)
        wants_logprobs = request.wants_logprobs
        fields = servers.sampling_fields(server.kind, request.top_p) if request.temperature > 0 else {}

        def data() -> bytes:
            head = self._head(
                request.max_tokens, request.temperature, request.seed, wants_logprobs=wants_logprobs, **fields
            )
            return head + prompt + b"}"

        cuts_tail = bool(fields) and request.top_p != 1.0
        body, where = await self._ask(data, self._path, wants_logprobs=wants_logprobs, cuts_tail=cuts_tail)
        return self._read(body, lambda text: parse_generation(text, self._endpoint, where, request.labels))

    async def aclose(self) -> None:
        await self._learner.aclose()
        await self._connection.aclose()

    # --- labels -------------------------------------------------------------------------------------------------------

    async def _score_exactly(self, request: ScoreRequest, plan: LabelPlan) -> CandidateLogprobs:
        """Log-probabilities of all tokens that spell a label, by id.

        Raises:
            _IdsRefusedError: The server does not know how.
        """
        spelling = plan.exact
        assert spelling is not None
        ids = [token.id for token in spelling.tokens]
        prompt = self._prompt_json(request.messages)
        body, where = await self._ask(lambda: self._score_head(plan) + prompt + b"}", self._path)
        said = self._read(body, lambda text: parse_chosen(text, self._endpoint, where, self._model, ids))
        if said.logprobs is None or (spelling.splits and said.prompt_ids is None):
            raise _IdsRefusedError
        heads = {
            head.id: split.tail_ids
            for split in spelling.splits
            for head in split.heads
            if math.exp(said.logprobs[head.id]) >= NEGLIGIBLE
        }
        replies = await asyncio.gather(
            *(self._follow_ids([*(said.prompt_ids or ()), head], tail) for head, tail in heads.items())
        )
        halves = {head: reply[0] for head, reply in zip(heads, replies, strict=True) if reply is not None}
        usage = sum((reply[1] for reply in replies if reply is not None), said.usage)
        is_exhaustive = len(halves) == len(heads)
        return CandidateLogprobs(joined(spelling, said.logprobs, halves), is_exhaustive, usage, said.text)

    async def _follow_ids(self, prompt: Sequence[int], tail: Sequence[int]) -> tuple[Mapping[int, float], Usage] | None:
        """Log-probabilities of `tail` tokens after exactly these: no chat template stands between. None if refused."""

        def data() -> bytes:
            return self._head(1, 0.0, None, "completions", **servers.exact_fields(tail)) + b'"prompt":' + ids + b"}"

        ids = to_json(list(prompt))
        try:
            body, where = await self._ask(data, _PATHS["completions"])
        except _FOR_GOOD as error:
            self._say_unfollowed(f"refuses to continue a reply ({words_of(error)})")
            return None
        said = self._read(body, lambda text: parse_chosen(text, "completions", where, self._model, tail))
        return None if said.logprobs is None else (said.logprobs, said.usage)

    async def _with_long_label(self, request: ScoreRequest, plan: LabelPlan, places: Places) -> CandidateLogprobs:
        """What the first tokens say about the labels, with one that takes two tokens taken apart from its beginning."""
        long = plan.long
        assert long is not None
        texts = {place: servers.bare(text) for place, (text, _) in enumerate(places.first)}
        heads = {
            place: servers.plain_text(places.first[place].token)
            for place, text in texts.items()
            if text == long.head and math.exp(places.first[place].logprob) >= NEGLIGIBLE
        }
        if not heads or long.label in texts.values():  # a token of its own: seen
            return CandidateLogprobs(places.first, False, places.usage, places.text)
        rests: dict[str, float | None] = {}  # None: not among the likeliest there
        if places.second is not None:
            rests[servers.plain_text(places.text)] = _sum_of(places.second, long.rest)
        usage = places.usage
        missing = [text for text in dict.fromkeys(heads.values()) if text not in rests]
        if missing and plan.follows:
            for text, reply in zip(
                missing, await asyncio.gather(*(self._follow_text(request, text) for text in missing)), strict=True
            ):
                if reply is not None:
                    rests[text], usage = _sum_of(reply.tokens, long.rest), usage + reply.usage
        elif missing:
            self._say_unfollowed("cannot be asked to continue a reply")
        tails = {place: rest for place, text in heads.items() if (rest := rests.get(text)) is not None}
        return CandidateLogprobs(with_tails(places.first, tails, long.rest), False, usage, places.text)

    async def _follow_text(self, request: ScoreRequest, start: str) -> CandidateLogprobs | None:
        """The likeliest tokens after a reply that begins with `start`; None where the server refuses."""
        fields: Mapping[str, Any] = {}
        if self._endpoint == "completions":
            prompt = self._prompt_json(request.messages, start)
        else:
            server = await self._learner.learn_server()
            fields = servers.continuing_fields(server.kind) or {}
            prompt = self._prompt_json((*request.messages, Message("assistant", (Segment(start, True),))))
        try:
            body, where = await self._ask(lambda: self._head(1, 0.0, None, **fields) + prompt + b"}", self._path)
        except _FOR_GOOD as error:
            self._say_unfollowed(f"refuses to continue a reply ({words_of(error)})")
            return None
        return self._read(body, lambda text: parse_score(text, self._endpoint, where, self._model))

    def _say_unfollowed(self, why: str) -> None:
        self._say(f"the server {why}: a label of two tokens, such as 10, is bounded where it is not seen")

    def _say(self, words: str) -> None:
        """A notice, once."""
        if words not in self._said:
            self._said.add(words)
            self._notice(f"{self.name}: {words}")

    # --- the request --------------------------------------------------------------------------------------------------

    def _prompt_json(self, messages: Sequence[Message], start: str = "") -> bytes:
        """`"messages": [...]` or `"prompt": "..."`, without the braces around; `start` begins the reply to a prompt."""
        if self._endpoint == "completions":
            return b'"prompt":' + to_json("\n\n".join([message.content for message in messages]) + start)
        return b'"messages":' + to_json([{"role": message.role, "content": message.content} for message in messages])

    def _score_head(self, plan: LabelPlan) -> bytes:
        """What all score requests for a set of labels have in common; made anew each time something was learnt."""
        head = self._heads.get(plan)
        if head is None:
            head = self._heads[plan] = self._head(plan.max_tokens, 0.0, None, **plan.fields)
        return head

    def _head(
        self,
        max_tokens: int,
        temperature: float,
        seed: int | None,
        endpoint: Endpoint | None = None,
        *,
        wants_logprobs: bool = True,
        **more: Any,
    ) -> bytes:
        """The body up to the prompt, from the opening brace to a comma."""
        is_chat = (endpoint or self._endpoint) == "chat"
        fields: dict[str, Any] = {"model": self._model, self._tokens_field if is_chat else "max_tokens": max_tokens}
        if self._sends_temperature:
            fields["temperature"] = int(temperature) if temperature == int(temperature) else temperature
        if seed is not None and self._sends_seed:
            fields["seed"] = seed
        if wants_logprobs and is_chat:
            fields |= {"logprobs": True, "top_logprobs": self._top_logprobs}
        elif wants_logprobs:
            fields["logprobs"] = self._top_logprobs
        return to_json(fields | more | self._extra_body)[:-1] + b","

    def _may_ask_again(self, error: BackendError, known: object, *, wants_logprobs: bool, cuts_tail: bool) -> bool:
        """Whether a refused request may be accepted now, because of what its refusal or another's since then taught.

        Args:
            error: The refusal.
            known: `_heads` when the request was made; another one by now if something was learnt since.
            wants_logprobs: Whether the request asked for log-probabilities.
            cuts_tail: Whether the request asked for a top_p other than 1.

        Raises:
            BackendUnusableError: It takes no top_p: what was asked for is not what it would give.
            LogprobsUnavailableError: The server gives no log-probabilities for this model.
            _IdsRefusedError: It gives none by token id.
        """
        words = words_of(error)
        if refuses_token_ids(words):
            raise _IdsRefusedError from error
        if cuts_tail and refuses_top_p(words):
            raise BackendUnusableError(f"{error} (leave --top-p at 1 for {self.name})") from error
        if known is not self._heads:
            return True
        allowed = largest_top_logprobs(words, self._top_logprobs) if wants_logprobs else None
        if self._endpoint == "chat" and self._tokens_field == "max_tokens" and asks_for_max_completion_tokens(words):
            self._tokens_field = "max_completion_tokens"
            self._say("the server wants max_completion_tokens in place of max_tokens; using it")
        elif allowed is not None:
            self._say(f"the server allows {allowed} top_logprobs, not {self._top_logprobs}; using {allowed}")
            self._top_logprobs = allowed
        elif self._sends_temperature and refuses_temperature(words):
            self._sends_temperature = False
            self._say(f"the server refuses a temperature, and uses its own ({words})")
        elif self._sends_seed and refuses_seed(words):
            self._sends_seed = False
            self._say(f"the server refuses a seed: what it samples cannot be drawn again ({words})")
        elif wants_logprobs and refuses_logprobs(words):
            where = self._connection.replicas[0].shown
            raise LogprobsUnavailableError(f"{missing_logprobs(where, self._model)} ({words})") from error
        else:
            return False
        self._heads = {}
        return True

    # --- the exchange -------------------------------------------------------------------------------------------------

    async def _ask(
        self, data: Callable[[], bytes], path: str, *, wants_logprobs: bool = True, cuts_tail: bool = False
    ) -> tuple[bytes, str]:
        """The body of a good reply and where it came from, after adapting to a server that refuses a field."""
        while True:
            known = self._heads
            try:
                return await self._connection.post(path, data())
            except (RequestRefusedError, BackendUnusableError) as error:
                if not self._may_ask_again(error, known, wants_logprobs=wants_logprobs, cuts_tail=cuts_tail):
                    server = self._learner.server
                    hint = servers.hint_at_models(self._model, server.models) if server else ""
                    if hint and " answered 404: " in str(error):
                        raise BackendUnusableError(f"{error}{hint}") from None
                    raise

    def _read(self, body: bytes, parse: Callable[[bytes], Reply]) -> Reply:
        try:
            return parse(body)
        except BackendError:
            cleaned = self._connection.without_key(body)
            if cleaned == body:
                raise
        return parse(cleaned)


def _sum_of(tokens: Sequence[TokenLogprob], text: str) -> float | None:
    """The log of the probability of a text, summed over its tokens; None where it is not among them."""
    probs = [math.exp(logprob) for token, logprob in tokens if token == text]
    return math.log(math.fsum(probs)) if probs and math.fsum(probs) > 0.0 else None

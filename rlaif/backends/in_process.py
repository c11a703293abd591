"""What the backends of models at hand (`hf`, `hf-reward`, `vllm`) share: collecting calls, fitting prompts, delivering
replies.

Calls made at the same time are handed over at once, so that they are answered together. Handing over and delivering
cross threads: the caller's event loop stands on one side, the backend's threads on the other.
"""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from rlaif.errors import BackendError, ConfigError, PromptTooLongError, RequestRefusedError
from rlaif.records import CandidateLogprobs, Generation, Message, Reply, Request, Reward
from rlaif.tokens import PromptEncoder, flatten, truncate

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_log = logging.getLogger(__name__)

R = TypeVar("R", CandidateLogprobs, Generation, Reward)
_SETTLE_ROUNDS = 8
"""Turns of the event loop, at most, in which more calls may still join a batch: one task starts another in a few."""


@dataclass(eq=False)
class Call:
    """A request that somebody waits for; `ids` is its prompt, once it was tokenized."""

    request: Request
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    ids: list[int] = field(default_factory=list)


C = TypeVar("C", bound=Call)


class Collector(Generic[C]):
    """Collects calls until no more come, then hands them over together.

    Args:
        call_type: What a call is made as.
        hand_over: Takes the calls; runs on the event loop, and must not wait.
    """

    def __init__(self, call_type: type[C], hand_over: Callable[[list[C]], None]) -> None:
        self._call_type = call_type
        self._hand_over = hand_over
        self._waiting: list[C] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    async def ask(self, request: Request, reply_type: type[R], on_cancel: Callable[[C], None] | None = None) -> R:
        """The reply to a request. `on_cancel` hears of a call that nobody waits for any more."""
        loop = asyncio.get_running_loop()
        call = self._call_type(request, loop, loop.create_future())
        self._waiting.append(call)
        if self._loop is not loop:
            self._loop = loop
            loop.call_soon(self._flush, loop, 0, 0)
        try:
            reply = await call.future
        except asyncio.CancelledError:
            if on_cancel is not None:
                on_cancel(call)
            raise
        assert isinstance(reply, reply_type)
        return reply

    def _flush(self, loop: asyncio.AbstractEventLoop, seen: int, rounds: int) -> None:
        if len(self._waiting) > seen and rounds < _SETTLE_ROUNDS:
            loop.call_soon(self._flush, loop, len(self._waiting), rounds + 1)
            return
        calls, self._waiting, self._loop = self._waiting, [], None
        self._hand_over(calls)


class PromptFitter:
    """Messages to token ids that fit into the model's context.

    Args:
        tokenizer: The model's.
        name: The judge, for messages.
        truncates: Cut a prompt that is too long in the middle of its longest texts, instead of refusing it.

    Attributes:
        truncated_prompts: How many were cut.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, name: str, *, truncates: bool) -> None:
        self._encoder = PromptEncoder(tokenizer)
        self._name = name
        self._truncates = truncates
        self.truncated_prompts = 0

    def count(self, messages: Sequence[Message]) -> int:
        """Tokens of the whole prompt; characters / 4 where the model's chat template cannot render it."""
        try:
            return sum(len(piece.ids) for piece in self._encoder.encode(messages))
        except ConfigError:
            return (sum(len(message.content) for message in messages) + 3) // 4

    def fit(self, messages: Sequence[Message], limit: int | None, answer_tokens: int = 0) -> list[int]:
        """The prompt's ids, at most `limit` of them.

        Args:
            messages: The conversation.
            limit: None where the model has none.
            answer_tokens: Where prompts are cut, further room for an answer: at most half of what there is, and less
                where the template's own text leaves less.

        Raises:
            PromptTooLongError: It has more and is not to be cut.
            RequestRefusedError: The model's chat template cannot render the conversation, or there is nothing in it.
        """
        try:
            pieces = self._encoder.encode(messages)
        except ConfigError as error:
            raise RequestRefusedError(f"{self._name} cannot be asked this: {error}") from error
        length = sum(len(piece.ids) for piece in pieces)
        if limit is not None and self._truncates:
            roomy = limit - min(answer_tokens, limit // 2)
            fixed = sum(len(piece.ids) for piece in pieces if piece.is_template)
            limit = roomy if fixed <= roomy else limit
        if limit is not None and length > limit:
            if not self._truncates:
                raise PromptTooLongError(
                    f"the prompt has {length} tokens and {self._name} takes {limit}; shorten it (fewer --shots, a "
                    "shorter preamble), or give --truncate, which cuts the middle of the longest text"
                )
            pieces = truncate(pieces, limit)
            self.truncated_prompts += 1
        ids = flatten(pieces)
        if not ids:
            raise RequestRefusedError(f"{self._name} cannot be asked this: the prompt is empty, expected a text")
        return ids

    def report(self, context_tokens: int | None) -> None:
        """Say how many prompts were cut, if any were."""
        count = self.truncated_prompts
        if count:
            _log.warning(
                "%s: %d prompt%s longer than its context of %s tokens and cut in the middle of the longest text",
                self._name,
                count,
                " was" if count == 1 else "s were",
                context_tokens,
            )


def deliver(answers: Sequence[tuple[Call, Reply | Exception]]) -> None:
    """Wake the tasks that wait, from any thread: one wake-up an event loop."""
    loops: dict[asyncio.AbstractEventLoop, list[tuple[Call, Reply | Exception]]] = {}
    for call, answer in answers:
        loops.setdefault(call.loop, []).append((call, answer))
    for loop, its_answers in loops.items():
        if not loop.is_closed():
            loop.call_soon_threadsafe(resolve, its_answers)


def resolve(answers: Sequence[tuple[Call, Reply | Exception]]) -> None:
    """Wake the tasks of this event loop that wait."""
    for call, answer in answers:
        if call.future.done():
            continue
        if isinstance(answer, Exception):
            call.future.set_exception(answer)
        else:
            call.future.set_result(answer)


def own_copy(error: BackendError) -> BackendError:
    """An error of a call's own: the engine writes into it where it happened."""
    own = copy.copy(error)
    own.__cause__ = error.__cause__
    return own

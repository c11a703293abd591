"""The one seam between the judge and the models it can ask: a backend takes a request and returns a reply.

There are two kinds: a language model is asked for log-probabilities or text, a reward model for a number.
A backend knows records and errors, and no judge. It makes each call once: retries, concurrency and the journal are the
engine's. A new backend is one file, one line in `registry.py` and one run of `tests/backends/contract.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rlaif.records import CandidateLogprobs, GenerateRequest, Generation, Message, Reward, RewardRequest, ScoreRequest


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a backend can do, declared by it.

    Attributes:
        has_logprobs: Whether `score` works; False leaves only `--scoring sample`.
        has_token_alternatives: Whether `generate` can return log-probabilities with the text, so that the verdict after
            a chain of thought is read from the reply itself. False: the verdict is asked for in a second call.
        is_in_process: The model runs in this process: calls are batched, nothing is rate-limited, retries do not help.
        context_tokens: Longest prompt plus completion; None when unknown.
        has_rewards: It is a `RewardBackend`, which has no log-probabilities; else a `LanguageBackend`.
    """

    has_logprobs: bool = True
    has_token_alternatives: bool = False
    is_in_process: bool = False
    context_tokens: int | None = None
    has_rewards: bool = False


class Backend(Protocol):
    """A model that can be asked. One instance serves many concurrent calls on one event loop."""

    @property
    def name(self) -> str:
        """`BACKEND:MODEL` as the user wrote it, such as "openai:gpt-4.1-mini"."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """Everything of the backend that can change an answer, as JSON values; goes into each journal key.

        The model's name and, for local weights, their fingerprint; not the address, concurrency or batch size.
        """

    @property
    def capabilities(self) -> Capabilities: ...

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Tokens that a call with these messages takes in; an estimate (characters / 4) where there is no tokenizer at
        hand."""

    async def aclose(self) -> None:
        """Free sockets, threads and processes; safe to call twice."""


class LanguageBackend(Backend, Protocol):
    """A language model."""

    async def score(self, request: ScoreRequest) -> CandidateLogprobs:
        """Log-probabilities of the next token after the messages.

        Raises:
            BackendError: One of the tree in `rlaif.errors`; a `TransientBackendError` is worth another try.
        """

    async def generate(self, request: GenerateRequest) -> Generation:
        """Text after the messages. Raises as `score` does."""


class RewardBackend(Backend, Protocol):
    """A reward model."""

    async def reward(self, request: RewardRequest) -> Reward:
        """How good the response is. Raises as `LanguageBackend.score` does."""

"""A backend that answers with a function: for our tests and for yours.

    backend = FakeBackend(lambda request: 0.8)          # P("1") = 0.8, whatever is asked
    backend = FakeBackend(lambda request: "Preferred response: 2")
    backend = FakeBackend(lambda request: float(len(request.response)), capabilities=REWARDS)    # a reward model

By name: `fake:0.8` answers P("1") = 0.8, `fake:longer` prefers the longer response.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rlaif.backends.base import Capabilities
from rlaif.errors import ConfigError
from rlaif.records import (
    CandidateLogprobs,
    GeneratedToken,
    GenerateRequest,
    Generation,
    Message,
    Reply,
    Request,
    Reward,
    RewardRequest,
    ScoreRequest,
    TokenLogprob,
    Usage,
)

REWARDS = Capabilities(has_logprobs=False, has_rewards=True)
"""What a reward model can do."""

Answer = float | str | Reply
"""P(first label), or a reward, text to generate, a ready reply, or (raised) an error."""


class FakeBackend:
    """Answers each request with `handler(request)`.

    Args:
        handler: Returns an `Answer`; an exception it raises is the call's failure.
        name: As a judge would be named.
        capabilities: What the backend claims; by default that of a server with log-probabilities.
        latency: Seconds each call takes.

    Attributes:
        requests: Every request received, in order.
    """

    def __init__(
        self,
        handler: Callable[[Request], Answer],
        *,
        name: str = "fake:handler",
        capabilities: Capabilities | None = None,
        latency: float = 0.0,
    ) -> None:
        self.name = name
        self.identity: Mapping[str, Any] = {"backend": "fake", "model": name}
        self.capabilities = capabilities or Capabilities(has_token_alternatives=True)
        self.requests: list[Request] = []
        self._handler = handler
        self._latency = latency

    @classmethod
    def named(cls, model: str) -> FakeBackend:
        """The fake behind `fake:MODEL`.

        Raises:
            ConfigError: MODEL is neither a probability nor "longer".
        """
        if model == "longer":
            return cls(_prefers_longer, name="fake:longer")
        try:
            prob = float(model)
        except ValueError:
            prob = math.nan
        if not 0.0 <= prob <= 1.0:
            raise ConfigError(f"judge 'fake:{model}': expected a probability of \"1\" in 0 to 1, or longer")
        return cls(lambda request: prob, name=f"fake:{model}")

    async def score(self, request: ScoreRequest) -> CandidateLogprobs:
        answer = await self._answer(request)
        if isinstance(answer, float):
            return logprobs_of({request.labels[0]: answer, request.labels[1]: 1.0 - answer}, request)
        if isinstance(answer, CandidateLogprobs):
            return answer
        raise TypeError(f"a fake handler must return a float or CandidateLogprobs to a score request, not {answer!r}")

    async def generate(self, request: GenerateRequest) -> Generation:
        answer = await self._answer(request)
        if isinstance(answer, Generation):
            return answer
        if isinstance(answer, CandidateLogprobs | Reward):
            raise TypeError("a fake handler must return text, a float or a Generation to a generate request")
        text = answer if isinstance(answer, str) else ("1" if answer >= 0.5 else "2")
        chars = text if request.wants_logprobs else ""
        tokens = tuple(GeneratedToken(char, (TokenLogprob(char, -0.1),)) for char in chars)
        return Generation(text, "stop", tokens, Usage(self.count_tokens(request.messages), len(text)))

    async def reward(self, request: RewardRequest) -> Reward:
        answer = await self._answer(request)
        if isinstance(answer, float):
            return Reward(answer, Usage(self.count_tokens(request.messages)))
        if isinstance(answer, Reward):
            return answer
        raise TypeError(f"a fake handler must return a float or a Reward to a reward request, not {answer!r}")

    async def _answer(self, request: Request) -> Answer:
        self.requests.append(request)
        if self._latency:
            await asyncio.sleep(self._latency)
        return self._handler(request)

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return sum(len(message.content) for message in messages) // 4

    async def aclose(self) -> None:
        return None


def logprobs_of(probs: Mapping[str, float], request: ScoreRequest) -> CandidateLogprobs:
    """Label probabilities as a backend would return them; a probability of 0 is left out."""
    tokens = tuple(TokenLogprob(label, math.log(prob)) for label, prob in probs.items() if prob > 0)
    prompt_tokens = sum(len(message.content) for message in request.messages) // 4
    return CandidateLogprobs(tokens, is_exhaustive=True, usage=Usage(prompt_tokens, 1))


def _prefers_longer(request: Request) -> Answer:
    text = request.messages[0].content
    first, _, rest = text.rpartition("### Response 1\n")[2].partition("\n\n### Response 2\n")
    second = rest.partition("\n\n### Question\n")[0]
    return 1.0 / (1.0 + math.exp((len(second) - len(first)) / 100))

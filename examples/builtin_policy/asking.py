"""The policy and the judge behind the package's own backends, for whoever looks at what the policy has learnt."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, NamedTuple

from rlaif.backends.base import LanguageBackend
from rlaif.judge.revising import RevisionPrompts
from rlaif.judge.templates import PairwiseTemplate, RatingTemplate
from rlaif.policy_records import RevisionRequests
from rlaif.records import Comparison, GenerateRequest, Message, Order, Role, ScoreRequest, Segment, Turn

MOST_TOKENS = 128
"""Few of its answers are longer, and those go round in circles."""
RATING_LABELS = tuple(str(n) for n in range(1, 11))


class Revised(NamedTuple):
    """What the policy wrote: a critique, and the response as it should have been."""

    critique: str
    revision: str


async def answer(
    policy: LanguageBackend, turns: Sequence[Turn], seed: int = 0, temperature: float = 1.0, system: str = ""
) -> str:
    """The policy's answer to a conversation."""
    roles: list[tuple[Role, str]] = [("system", system)] if system else []
    roles += [("assistant" if role == "assistant" else "user", text) for role, text in turns]
    messages = tuple(Message(role, (Segment(text, is_template=False),)) for role, text in roles)
    reply = await policy.generate(GenerateRequest(messages, MOST_TOKENS, temperature, seed))
    return reply.text


async def revise(
    policy: LanguageBackend,
    prompts: RevisionPrompts,
    turns: Sequence[Turn],
    response: str,
    requests: RevisionRequests,
    temperature: float = 0.0,
    seed: int = 0,
) -> Revised:
    """A critique, and the revision that follows it."""
    asked = prompts.critique(turns, response, requests)
    critique = (await policy.generate(GenerateRequest(asked, MOST_TOKENS, temperature, seed))).text
    asked = prompts.revision(turns, response, requests, critique)
    revision = (await policy.generate(GenerateRequest(asked, MOST_TOKENS, temperature, seed))).text
    return Revised(critique, revision)


async def rate(judge: LanguageBackend, turns: Sequence[Turn], response: str) -> float:
    """The expected rating of a response, 1 to 10, by helpfulness."""
    messages = RatingTemplate("helpfulness").render(turns, response)
    probs = await _distribution(judge, messages, RATING_LABELS)
    return sum(score * prob for score, prob in enumerate(probs, 1))


async def prefer(judge: LanguageBackend, turns: Sequence[Turn], first: str, second: str, principle: str) -> float:
    """P(first preferred) by a principle, both orders averaged; 0.5 without a call where the two are the same."""
    if first == second:
        return 0.5
    comparison = Comparison("x", tuple(turns), first, second)
    template = PairwiseTemplate("helpfulness")
    calls = [template.render(comparison, order, principle=principle) for order in Order]
    ab, ba = await asyncio.gather(*(_distribution(judge, messages, ("1", "2")) for messages in calls))
    return (ab[0] + ba[1]) / 2


async def _distribution(judge: LanguageBackend, messages: tuple[Message, ...], labels: tuple[str, ...]) -> list[float]:
    reply = await judge.score(ScoreRequest(messages, labels))
    probs = [sum(math.exp(t.logprob) for t in reply.tokens if t.token.strip() == label) for label in labels]
    return [prob / sum(probs) for prob in probs]


async def gather_in_parts(work: Iterable[Coroutine[Any, Any, Any]], size: int = 64) -> list[Any]:
    """Await many coroutines, some at a time."""
    pending, results = list(work), []
    for start in range(0, len(pending), size):
        results += await asyncio.gather(*pending[start : start + size])
    return results

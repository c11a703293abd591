"""Rollouts, and judges that rate them, for tests of rewards."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rlaif.backends.config import BackendConfig
from rlaif.backends.fake import FakeBackend, logprobs_of
from rlaif.engine.config import CallConfig, RateConfig
from rlaif.judge.config import JudgeConfig
from rlaif.records import Prompt, Request, ScoreRequest, Turn
from rlaif.rollout_records import Completion, Rollout


def rollout(
    texts: Sequence[str], prompt: str | Sequence[tuple[str, str]] = "Name a color.", row: str = "row", **extra: Any
) -> Rollout:
    """A rollout with these completions; `prompt` is text, or (role, content) messages."""
    is_text = isinstance(prompt, str)
    turns = (Turn("user", prompt),) if isinstance(prompt, str) else tuple(Turn(*message) for message in prompt)
    completions = tuple(Completion((1,), text, is_finished=True, logprobs=(-1.0,)) for text in texts)
    return Rollout(f"{row}/0", Prompt(row, turns, extra=extra, is_conversational=not is_text), (1,), completions, 0)


def settings(
    *,
    judges: tuple[str, ...] = ("fake:0.5",),
    base_url: str | None = None,
    judging: JudgeConfig | None = None,
    **calls: Any,
) -> RateConfig:
    """What a run's configuration says of the judge."""
    backend = BackendConfig(judge=judges, base_url=(base_url,) if base_url else ())
    calls = {"max_retries": 0, **calls}
    return RateConfig("", "", judging=judging or JudgeConfig(), backend=backend, calls=CallConfig(**calls))


def response_in(request: Request) -> str:
    """The response that a rating prompt shows."""
    assert isinstance(request, ScoreRequest)
    return request.messages[-1].content.rpartition("### Response\n")[2].partition("\n\n### Question")[0]


def rater(probs_of: Callable[[str], Mapping[int, float]], **keywords: Any) -> FakeBackend:
    """A judge that gives a response these probabilities of scores."""

    def answer(request: Request) -> Any:
        assert isinstance(request, ScoreRequest)
        probs = probs_of(response_in(request))
        return logprobs_of({str(score): prob for score, prob in probs.items()}, request)

    return FakeBackend(answer, **keywords)

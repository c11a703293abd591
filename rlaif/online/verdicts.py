"""What the judge said of rollouts, and the figures of a batch that it comes to. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

from rlaif.online.guard_figures import BatchFigures, batch_figures
from rlaif.online.recipes import JudgedRollout
from rlaif.rewards.sources import PairLabel
from rlaif.rollout_records import Rollout, Score

Verdict: TypeAlias = tuple[Score, ...] | PairLabel
"""What the judge says of a rollout: a score of each completion, or which of two it prefers."""

_LOGGED_AS = {"tokens": "completion_tokens", "tokens_spread": "completion_tokens_spread"}
"""Figures of a batch that go by another name in the log, where "tokens" are those that are learnt from."""


def watched_figures(
    pairs: Sequence[tuple[Rollout, Verdict]], judged: Sequence[JudgedRollout], step: int
) -> BatchFigures:
    """How a batch is, in the eyes of the guard rails.

    `kl` is from the reference, nats a completion (k1); `entropy` nats a token, estimated as minus the log-probability
    of what was drawn, with the temperature that it was drawn at.
    """
    completions = [one for rollout, _ in pairs for one in rollout.completions]
    drawn = [logprob for one in completions for logprob in one.logprobs]
    kls = [kl for one in judged for kl in kls_of(one) if kl is not None]
    figures = batch_figures(
        step,
        [rollout for rollout, _ in pairs],
        [scores_of(verdict) for _, verdict in pairs],
        kl=math.fsum(kls) / len(kls) if kls else None,
        entropy=-math.fsum(drawn) / len(drawn),
    )
    if any(isinstance(verdict, PairLabel) for _, verdict in pairs):  # a pair is dropped as a whole
        dropped = sum(len(rollout.completions) for rollout, verdict in pairs if prob_of(verdict) is None)
        return replace(figures, dropped=dropped)
    return figures


def logged_figures(figures: BatchFigures) -> dict[str, float]:
    """The same by the names of metrics.jsonl."""
    numbers = figures.numbers()
    dropped = numbers.pop("dropped") / numbers.pop("completions")
    return {_LOGGED_AS.get(name, name): value for name, value in numbers.items()} | {"dropped": dropped}


def prob_of(verdict: Verdict) -> float | None:
    """P(the first of two is preferred); None where it is not known, or completions were scored."""
    return verdict.prob_a if isinstance(verdict, PairLabel) else None


def scores_of(verdict: Verdict) -> tuple[Score, ...]:
    """A score of each completion; none where completions were compared."""
    return () if isinstance(verdict, PairLabel) else verdict


def is_silent(verdict: Verdict) -> bool:
    """Whether it says nothing of which completion is better."""
    return len({score.value for score in scores_of(verdict) if score.value is not None}) < 2


def kls_of(judged: JudgedRollout) -> list[float | None]:
    """k1 of each completion from the reference, nats; None where that was not asked."""
    if judged.reference_logprobs is None:
        return [None] * len(judged.rollout.completions)
    return [
        math.fsum(ours) - math.fsum(theirs)
        for ours, theirs in zip(judged.assessed.logprobs, judged.reference_logprobs, strict=True)
    ]

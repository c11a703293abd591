"""What the guard rails are told: the figures of a batch of rollouts, and those of an evaluation. Pure, no torch."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from rlaif.online.phrases import PromptTexts, most_shared
from rlaif.online.texts import text_shares
from rlaif.rollout_records import Rollout, Score


@dataclass(frozen=True, slots=True)
class BatchFigures:
    """Figures of the completions of one optimizer step; None where there is none.

    Attributes:
        step: Optimizer steps done.
        completions: How many there are.
        reward: Mean of those that have one.
        reward_spread: Their standard deviation.
        kl: Divergence of the policy from the start, nats a completion.
        entropy: Nats a token.
        tokens: Mean of a completion.
        tokens_spread: Their standard deviation.
        truncated, repeated, junk, empty: Shares of completions, as in `texts`; truncated: cut off at the most tokens.
        phrase: The phrase that most completions of different prompts share.
        phrase_share: The share of completions that have it.
        clip_share: Share of tokens whose ratio was clipped.
        dropped: Completions without a reward.
        silent_groups: Share of the prompts whose completions all got the same reward, so that there is nothing to
            learn; with one completion a prompt, 1 where the whole batch got the same, and else 0.

    Raises:
        ValueError: A figure is NaN or infinite.
    """

    step: int
    completions: int = 1
    reward: float | None = None
    reward_spread: float | None = None
    kl: float | None = None
    entropy: float | None = None
    tokens: float | None = None
    tokens_spread: float | None = None
    truncated: float | None = None
    repeated: float | None = None
    junk: float | None = None
    empty: float | None = None
    phrase: str | None = None
    phrase_share: float | None = None
    clip_share: float | None = None
    dropped: int = 0
    silent_groups: float | None = None

    def __post_init__(self) -> None:
        _check_finite(self)

    def numbers(self) -> dict[str, float]:
        """The figures that there are, without the step, as they go into curves."""
        return _numbers(self)


@dataclass(frozen=True, slots=True)
class EvaluationFigures:
    """What an evaluation on held-out prompts found; None where it was not asked for.

    Attributes:
        step: Optimizer steps done; 0 is the policy at the start.
        watched_reward: Mean reward by a judge that is not trained against.
        watched_error: Standard error of that; has to be there with it.
        win_rate: Of the policy against the start, in [0, 1], judged in both orders.
        win_low, win_high: Its 95 % interval; has to be there with it.
        reward_accuracy: Share of pairs of the policy's own completions where the reward that is trained on and the
            watched one agree which is better.
        reward_accuracy_error: Standard error of that; has to be there with it.
        kl: Divergence of the policy from the start, nats a completion; it counts where batches do not measure it.

    Raises:
        ValueError: A figure is NaN or infinite, or lacks what has to be there with it.
    """

    step: int
    watched_reward: float | None = None
    watched_error: float | None = None
    win_rate: float | None = None
    win_low: float | None = None
    win_high: float | None = None
    reward_accuracy: float | None = None
    reward_accuracy_error: float | None = None
    kl: float | None = None

    def __post_init__(self) -> None:
        _check_finite(self)
        needs = {
            "watched_reward": ("watched_error",),
            "win_rate": ("win_low", "win_high"),
            "reward_accuracy": ("reward_accuracy_error",),
        }
        for name, others in needs.items():
            for other in others:
                if getattr(self, name) is not None and getattr(self, other) is None:
                    raise ValueError(f"evaluation of step {self.step} has {name} without {other}")

    def numbers(self) -> dict[str, float]:
        """The figures that there are, without the step, as they go into curves."""
        return _numbers(self)


def batch_figures(
    step: int,
    rollouts: Sequence[Rollout],
    scores: Sequence[Sequence[Score]],
    *,
    kl: float | None = None,
    entropy: float | None = None,
    clip_share: float | None = None,
) -> BatchFigures:
    """Figures of the rollouts of a step.

    Args:
        rollouts: At least one.
        scores: Of each rollout's completions.
        kl, entropy, clip_share: As in `BatchFigures`; what texts and rewards do not tell.
    """
    completions = [completion for rollout in rollouts for completion in rollout.completions]
    texts = [completion.text for completion in completions]
    shares = text_shares(texts, [completion.is_finished for completion in completions])
    lengths = [len(completion.ids) for completion in completions]
    groups = [[score.value for score in of_prompt if score.value is not None] for of_prompt in scores]
    rewards = [value for group in groups for value in group]
    phrase = most_shared(texts_of(rollouts))
    return BatchFigures(
        step=step,
        completions=len(completions),
        reward=statistics.fmean(rewards) if rewards else None,
        reward_spread=statistics.pstdev(rewards) if rewards else None,
        kl=kl,
        entropy=entropy,
        tokens=statistics.fmean(lengths),
        tokens_spread=statistics.pstdev(lengths),
        truncated=sum(not completion.is_finished for completion in completions) / len(completions),
        repeated=shares.repeated,
        junk=shares.junk,
        empty=shares.empty,
        phrase=phrase.text if phrase else None,
        phrase_share=phrase.share if phrase else None,
        clip_share=clip_share,
        dropped=len(completions) - len(rewards),
        silent_groups=_silent_share(groups),
    )


def texts_of(rollouts: Sequence[Rollout], scores: Sequence[Sequence[Score]] = ()) -> list[PromptTexts]:
    """Prompts and completions as plain text, for `GuardRails.add_batch`.

    Args:
        scores: Of each rollout's completions; () where there are none.
    """
    rewards = [tuple(score.value for score in of_prompt) for of_prompt in scores] or [()] * len(rollouts)
    return [
        PromptTexts(
            "\n".join(turn.content for turn in rollout.prompt.prompt),
            tuple(completion.text for completion in rollout.completions),
            of_prompt,
        )
        for rollout, of_prompt in zip(rollouts, rewards, strict=True)
    ]


def _silent_share(groups: Sequence[Sequence[float]]) -> float | None:
    several = [group for group in groups if len(group) > 1]
    if not several:  # one completion a prompt: they are compared with each other
        several = [[value for group in groups for value in group]]
    if len(several[0]) < 2:
        return None
    return sum(min(group) == max(group) for group in several) / len(several)


def _check_finite(figures: BatchFigures | EvaluationFigures) -> None:
    for name, value in _numbers(figures).items():
        if not math.isfinite(value):
            raise ValueError(f"{name} of step {figures.step} is {value}; expected a finite number, or None for none")


def _numbers(figures: BatchFigures | EvaluationFigures) -> dict[str, float]:
    values: dict[str, Any] = {field.name: getattr(figures, field.name) for field in fields(figures)}
    return {name: value for name, value in values.items() if name != "step" and isinstance(value, int | float)}

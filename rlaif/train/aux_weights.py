"""How much the likelihood of each response weighs in HPO: by how far its auxiliary rewards lead what is usual. Pure
numbers, made once before training; the loss that takes them is `hpo.hpo_loss`."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rlaif.errors import ConfigError, did_you_mean
from rlaif.train.config import HpoLossConfig
from rlaif.training_records import Feedback, LabeledPair, TrainingRow

_ROUNDING = 1e-9
"""A spread below this share of the rewards' size is the rounding of equal ones."""

_LARGEST_REWARD = 1e100
"""What is larger overflows where it is squared."""

_MOST_LISTED = 10
"""Names that a message spells out."""

_LARGEST_EXPONENT = 700.0
"""exp of more overflows."""


@dataclass(frozen=True, slots=True)
class AuxSummary:
    """How the weights came about.

    Attributes:
        names: Weight of each auxiliary reward in their sum.
        baseline: Mean of that sum over all responses that are trained on: what a response leads by where its prompt has
            no other one.
        tau: What leads are divided by.
        responses: Responses, of the rows that are trained on, that have all of the rewards.
        without: Those that lack one: only the preference term is trained on them.
        clipped: Those whose weight was held at the largest one.
    """

    names: Mapping[str, float]
    baseline: float
    tau: float
    responses: int
    without: int
    clipped: int

    def __str__(self) -> str:
        names = _listed(name if weight == 1.0 else f"{weight:g} {name}" for name, weight in self.names.items())
        parts = [
            f"{self.responses:,} responses weighed by {names}, tau {self.tau:.4g}",
            f"{self.without:,} without auxiliary rewards" if self.without else "",
            f"{self.clipped:,} at the largest weight" if self.clipped else "",
        ]
        return "; ".join(filter(None, parts))


class AuxWeights(NamedTuple):
    """One tuple a row, one number a response: exp(A / tau), at most the largest weight; 0 where it has no rewards."""

    train: list[tuple[float, ...]]
    held_out: list[tuple[float, ...]]
    summary: AuxSummary


def weigh_aux(
    train: Sequence[TrainingRow], held_out: Sequence[TrainingRow], config: HpoLossConfig, *, name: str = "the data"
) -> AuxWeights:
    """Weigh each response by its auxiliary rewards.

    A response's reward is the weighted sum of those that count; its advantage A is that less the mean over the
    responses to its prompt, or less the mean over all that are trained on where its prompt has no other one. Held-out
    responses are weighed by the same tau and mean.

    Args:
        train, held_out: Pairs or feedback; no prompt stands in both.
        config: Which rewards count for how much, tau and the largest weight.
        name: What messages call the rows.

    Raises:
        ConfigError: No response that is trained on has all of the rewards; one is asked for that none has; or no
            advantage differs from another.
    """
    weights = _weights_of_names(train, config.aux, name)
    rewards = [_rewards_of(row, weights) for row in train]
    known = [reward for row in rewards for reward in row if reward is not None]
    if not known:
        raise ConfigError(f"aux: no response of {name} has all of {_listed(weights)}, expected some to be weighed by")
    baseline = math.fsum(known) / len(known)
    leads = advantages(rewards, [row.prompt for row in train], baseline)
    tau = config.aux_tau or _spread(leads, size=max(map(abs, known)))
    if not tau:
        raise ConfigError(
            f"aux: by {_listed(weights)} no response of {name} leads the others to its prompt, so that there is "
            "nothing to learn from them; train without them (rlaif train kto)"
        )
    others = advantages([_rewards_of(row, weights) for row in held_out], [row.prompt for row in held_out], baseline)
    flat = [lead for row in leads for lead in row if lead is not None]
    return AuxWeights(
        [_weighed(row, tau, config.aux_max_weight) for row in leads],
        [_weighed(row, tau, config.aux_max_weight) for row in others],
        AuxSummary(
            names=weights,
            baseline=baseline,
            tau=tau,
            responses=len(flat),
            without=sum(map(len, leads)) - len(flat),
            clipped=sum(lead / tau > math.log(config.aux_max_weight) for lead in flat),
        ),
    )


def advantages(
    rewards: Sequence[Sequence[float | None]], prompts: Sequence[Hashable], baseline: float
) -> list[tuple[float | None, ...]]:
    """By how much each response's reward leads the mean of the responses to its prompt.

    Args:
        rewards: Of each row, one number a response; None where there is none.
        prompts: Of each row; rows of one prompt are taken together.
        baseline: The mean in place of that where the prompt has only one response with a reward.

    >>> advantages([(3.0, 1.0), (5.0, None)], ["one prompt", "another"], 4.0)
    [(1.0, -1.0), (1.0, None)]
    """
    of_prompt: dict[Hashable, list[float]] = {}
    for row, prompt in zip(rewards, prompts, strict=True):
        of_prompt.setdefault(prompt, []).extend(reward for reward in row if reward is not None)
    means = {prompt: math.fsum(found) / len(found) for prompt, found in of_prompt.items() if len(found) > 1}
    return [
        tuple(None if reward is None else reward - means.get(prompt, baseline) for reward in row)
        for row, prompt in zip(rewards, prompts, strict=True)
    ]


def likelihood_weight(advantage: float, tau: float, max_weight: float) -> float:
    """exp(A / tau), at most `max_weight`, without overflow.

    >>> likelihood_weight(0.0, 2.0, 20.0), likelihood_weight(1e9, 2.0, 20.0)
    (1.0, 20.0)
    """
    return min(max_weight, math.exp(min(advantage / tau, _LARGEST_EXPONENT)))


def _weights_of_names(train: Sequence[TrainingRow], asked: Mapping[str, float], data: str) -> dict[str, float]:
    """Which rewards count for how much: all of them 1 where none is named."""
    present = sorted({name for row in train for each in _aux_of(row) for name in each})
    if not present:
        raise ConfigError(
            f"hpo weighs responses by their auxiliary rewards, and {data} has none; expected a column aux_rewards of "
            "{name: [number, number]} beside a pair, or aux_rewards_a and aux_rewards_b of {name: number}"
        )
    for name in asked:
        if name not in present:
            hint = did_you_mean(name, present)
            raise ConfigError(f"aux: {name!r} is unknown{hint}, expected one of {_listed(present)}")
    return dict(asked) or dict.fromkeys(present, 1.0)


def _listed(names: Iterable[str]) -> str:
    """Names for a message; of very many, the first."""
    each = list(names)
    more = f" and {len(each) - _MOST_LISTED:,} more" if len(each) > _MOST_LISTED else ""
    return ", ".join(each[:_MOST_LISTED]) + more


def _aux_of(row: TrainingRow) -> Sequence[Mapping[str, float]]:
    return row.aux_rewards if isinstance(row, LabeledPair | Feedback) else ()


def _rewards_of(row: TrainingRow, weights: Mapping[str, float]) -> tuple[float | None, ...]:
    """The weighted sum of each response's rewards; None where it lacks one."""
    return tuple(_sum_of(each, weights, row.id) if weights.keys() <= each.keys() else None for each in _aux_of(row))


def _sum_of(rewards: Mapping[str, float], weights: Mapping[str, float], row_id: str) -> float:
    total = sum(weight * rewards[name] for name, weight in weights.items())
    if not abs(total) <= _LARGEST_REWARD:  # NaN too: infinities of both signs
        raise ConfigError(
            f"aux: the auxiliary rewards of row {row_id!r} come to {total}, expected at most {_LARGEST_REWARD:g} "
            "either way; give them smaller weights with --aux NAME=WEIGHT"
        )
    return total


def _spread(leads: Sequence[Sequence[float | None]], *, size: float) -> float:
    """Standard deviation of the advantages; 0 where they differ by rounding alone."""
    flat = [lead for row in leads for lead in row if lead is not None]
    mean = math.fsum(flat) / len(flat)
    spread = math.sqrt(math.fsum((lead - mean) ** 2 for lead in flat) / len(flat))
    return spread if spread > _ROUNDING * size else 0.0


def _weighed(leads: Sequence[float | None], tau: float, max_weight: float) -> tuple[float, ...]:
    return tuple(0.0 if lead is None else likelihood_weight(lead, tau, max_weight) for lead in leads)

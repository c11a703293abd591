"""What a trained model's probabilities are worth on held-out pairs: beside the labels it learnt from, and people's.

P(A preferred) is sigma of the difference of the two rewards: a reward model's own, or those that a policy implies.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from rlaif.auditing.agreement import judge_statistics
from rlaif.auditing.intervals import Statistic, SumStatistic, estimate, mean_statistic, ratio_of_sums
from rlaif.auditing.reliability import ECE_BINS, equal_mass_bins, probability_statistics
from rlaif.auditing.results import Figure
from rlaif.auditing.table import TIE, AuditTable, FloatArray, build_table, verdicts
from rlaif.records import JudgedComparison
from rlaif.training_records import LabeledPair

RESAMPLES = 2000


def evaluate_pairs(
    pairs: Sequence[LabeledPair],
    labels: Sequence[float],
    rewards: Sequence[tuple[float, ...]],
    *,
    is_probability: bool,
    seed: int = 0,
) -> dict[str, dict[str, Figure]]:
    """Figures of held-out pairs, with 95 % intervals clustered by prompt.

    Args:
        pairs: The rows.
        labels: P(A preferred) that each was to be learnt from.
        rewards: Of A and B.
        is_probability: Whether sigma of the rewards' difference is a probability, and not only a side.
        seed: Of the bootstrap.

    Returns:
        "labels": agreement with the side of the labels (ties left out), `squared_error` and `calibration_error` against
        them; "human", where there are human labels: agreement, Brier score, log loss, ECE and AUC against majorities.
    """
    probs = np.array([_sigmoid(reward_a - reward_b) for reward_a, reward_b in rewards])
    table = build_table(
        [
            JudgedComparison(pair.comparison, float(prob), cluster=repr(pair.prompt))
            for pair, prob in zip(pairs, probs, strict=True)
        ]
    )
    known = np.asarray(labels, dtype=np.float64)
    sections: dict[str, Mapping[str, Statistic]] = {"labels": _label_statistics(table, known, is_probability)}
    if np.isfinite(table.human).any():
        human = {"agreement": judge_statistics(table)["agreement"]}
        probability = probability_statistics(table)
        human |= probability if is_probability else {"auc": probability["auc"]}
        sections["human"] = human
    return {
        name: estimate(statistics, table.clusters, resamples=RESAMPLES, seed=seed)
        for name, statistics in sections.items()
    }


def _label_statistics(table: AuditTable, labels: FloatArray, is_probability: bool) -> dict[str, Statistic]:
    sides = verdicts(labels)
    counted = np.asarray(sides != TIE)
    equal = np.where(verdicts(table.prob_a) == sides, 1.0, 0.0)
    found: dict[str, Statistic] = {"agreement": mean_statistic(equal, counted, why="every label is a tie")}
    if is_probability:
        everywhere = np.full(len(table), True)
        found["squared_error"] = mean_statistic((table.prob_a - labels) ** 2, everywhere)
        found["calibration_error"] = _calibration_error(table.prob_a, labels)
    return found


def _calibration_error(probs: FloatArray, labels: FloatArray) -> SumStatistic:
    """Mean distance, over bins of equal mass, between mean probability and mean label: ECE with labels of any kind."""
    bins = np.eye(ECE_BINS)[equal_mass_bins(probs, ECE_BINS)]
    terms = np.column_stack([bins * (probs - labels)[:, None], np.ones(len(probs))])
    return SumStatistic(
        terms,
        lambda sums: ratio_of_sums(np.stack([np.abs(sums[..., :-1]).sum(-1), sums[..., -1]], axis=-1)),
        np.full(len(probs), True),
    )


def _sigmoid(difference: float) -> float:
    if difference < 0:
        return math.exp(difference) / (1.0 + math.exp(difference))
    return 1.0 / (1.0 + math.exp(-difference))

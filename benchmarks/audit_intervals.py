"""Do the 95 % intervals of an audit hold the truth in 93 to 97 % of data sets?

Draws many data sets from a known judge, in clusters whose rows are alike (some prompts are easy, some hard; on some the
judge leans to the first slot) and without clusters, and counts how often each interval holds the true value, which
comes from one very large draw. Beside it: how often the bootstrap's plain percentiles would have.

    python benchmarks/audit_intervals.py
    python benchmarks/audit_intervals.py --sets 200 --resamples 500
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from rlaif.auditing.agreement import judge_statistics
from rlaif.auditing.bias import length_statistics, swap_statistics
from rlaif.auditing.intervals import Statistic, estimate, resampled_values
from rlaif.auditing.reliability import probability_statistics
from rlaif.auditing.results import Figure
from rlaif.auditing.table import AuditTable, FloatArray, IntArray

FIGURES = ("agreement", "cohen_kappa", "swap_consistency", "brier", "auc", "length_effect.difference")
LARGEST_CLUSTER = 10
CORRELATION = 0.2
"""Of whether the judge is right, between two rows of a cluster."""


class Setting(NamedTuple):
    """A judge and a size of data set."""

    agreement: float
    rows: int
    is_clustered: bool


class Covered(NamedTuple):
    """What became of one interval."""

    figure: Figure
    by_percentiles: tuple[float, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=1000, help="data sets of each setting")
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print("| agreement | rows | clusters | figure | true | covered | mean width | covered by percentiles |")
    print("|---|---|---|---|---|---|---|---|")
    for number, setting in enumerate(itertools.starmap(Setting, itertools.product((0.7, 0.9), (100, 400), (0, 1)))):
        rng = np.random.default_rng([options.seed, number])
        large = draw_table(rng, setting._replace(rows=1_000_000))
        truth = {name: each.value() for name, each in statistics_of(large).items()}
        truth["length_effect.difference"] = 0.0  # lengths are drawn apart from everything else
        tables = [draw_table(rng, setting) for _ in range(options.sets)]
        clusters = np.mean([table.clusters.max() + 1 for table in tables])
        found = [covered(table, options.resamples, seed) for seed, table in enumerate(tables)]
        for name in FIGURES:
            row = " | ".join(summary([each[name] for each in found if each[name].figure.low is not None], truth[name]))
            print(f"| {setting.agreement} | {setting.rows} | {clusters:.0f} | {name} | {row} |", flush=True)


def summary(found: list[Covered], true: float) -> Iterator[str]:
    """The last four columns."""
    held = [each.figure.low <= true <= each.figure.high for each in found]
    by_percentiles = [each.by_percentiles[0] <= true <= each.by_percentiles[1] for each in found]
    yield f"{true:.3f}"
    yield f"{np.mean(held):.1%}"
    yield f"{np.mean([each.figure.high - each.figure.low for each in found]):.3f}"
    yield f"{np.mean(by_percentiles):.1%}"


def covered(table: AuditTable, resamples: int, seed: int) -> Mapping[str, Covered]:
    statistics = statistics_of(table)
    figures = estimate(statistics, table.clusters, resamples=resamples, seed=seed)
    drawn = resampled_values(statistics, table.clusters, resamples=resamples, seed=seed)
    return {name: Covered(figures[name], percentiles(drawn[name])) for name in statistics}


def percentiles(drawn: FloatArray) -> tuple[float, float]:
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def statistics_of(table: AuditTable) -> dict[str, Statistic]:
    every = {
        **judge_statistics(table),
        **swap_statistics(table),
        **probability_statistics(table),
        **length_statistics(table),
    }
    return {name: every[name] for name in FIGURES}


def draw_table(rng: np.random.Generator, setting: Setting) -> AuditTable:
    """Rows of a judge who agrees with people in a share of `setting.agreement`, who prefer A in 60 %."""
    clusters = draw_clusters(rng, setting)
    count, size = setting.rows, int(clusters.max()) + 1
    spread = 1.0 / CORRELATION - 1.0
    ease = rng.beta(setting.agreement * spread, (1.0 - setting.agreement) * spread, size)
    leaning = rng.normal(0.0, 0.1, size)
    human = (rng.random(count) < 0.6).astype(np.float64)
    right = rng.random(count) < ease[clusters]
    prob_a = 0.5 + 0.5 * np.where(right, 1, -1) * (2 * human - 1) * rng.uniform(0.02, 1.0, count)
    lean = 0.1 + leaning[clusters] + rng.normal(0.0, 0.05, count)
    lean = np.clip(lean, -np.minimum(prob_a, 1 - prob_a), np.minimum(prob_a, 1 - prob_a))
    return AuditTable(
        ids=np.arange(count).astype(object),
        clusters=clusters,
        prob_a=prob_a,
        prob_a_ab=prob_a + lean,
        prob_a_ba=prob_a - lean,
        human=human,
        votes=np.zeros((count, 3), dtype=np.int64),
        weights=np.ones(count),
        length_a=rng.integers(1, 2000, count),
        length_b=rng.integers(1, 2000, count),
        style_a=np.zeros((count, 3), dtype=np.int64),
        style_b=np.zeros((count, 3), dtype=np.int64),
        addresses_judge_a=np.zeros(count, dtype=np.bool_),
        addresses_judge_b=np.zeros(count, dtype=np.bool_),
        groups={},
        by_judge={},
    )


def draw_clusters(rng: np.random.Generator, setting: Setting) -> IntArray:
    """Clusters of 1 to 10 rows, or one a row."""
    if not setting.is_clustered:
        return np.arange(setting.rows)
    sizes = rng.integers(1, LARGEST_CLUSTER + 1, setting.rows)
    return np.repeat(np.arange(setting.rows), sizes)[: setting.rows]


if __name__ == "__main__":
    main()

"""Two judges, or two prompts, on the same rows."""

from __future__ import annotations

import numpy as np

from rlaif.auditing.intervals import estimate, mean_statistic
from rlaif.auditing.results import Against
from rlaif.auditing.table import TIE, AuditTable, IntArray, verdicts
from rlaif.records import TIE_BAND


def compare(
    table: AuditTable, other: AuditTable, name: str, *, tie_band: float = TIE_BAND, resamples: int = 2000, seed: int = 0
) -> Against:
    """Which of two judges agrees with people more often, on the rows that both judged.

    Args:
        table: This judge's; human labels, weights and clusters are taken from here.
        other: The other judge's; rows are joined by id.
        name: What the other judge is called.
        tie_band: A probability this close to 0.5 is a tie, of either judge.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.

    Returns:
        Over the rows with a decided human majority that both judged; a judge's tie counts as wrong. `same_verdict` is
        over all rows that both judged, a tie being a class. The interval of the difference is of the paired bootstrap
        over clusters. The p-value is of McNemar's exact test on `only_this` and `only_other`: it counts rows, whatever
        their weights and clusters, so trust the interval where rows of a cluster resemble each other.
    """
    here, there = _matching_rows(table, other)
    joined = table.take(here)
    this_verdict = verdicts(joined.prob_a, tie_band)
    other_verdict = verdicts(other.prob_a[there], tie_band)
    judged = np.isfinite(this_verdict) & np.isfinite(other_verdict)
    counted = judged & np.isfinite(joined.human) & (joined.human != TIE)
    this_right = (this_verdict == joined.human).astype(np.float64)
    other_right = (other_verdict == joined.human).astype(np.float64)
    why = "no row that both judged has a human majority for one response"
    weights = joined.weights
    figures = estimate(
        {
            "agreement": mean_statistic(this_right, counted, weights, why=why),
            "other_agreement": mean_statistic(other_right, counted, weights, why=why),
            "difference": mean_statistic(this_right - other_right, counted, weights, bounds=(-1.0, 1.0), why=why),
            "same_verdict": mean_statistic(
                (this_verdict == other_verdict).astype(np.float64), judged, why="no row was judged by both"
            ),
        },
        joined.clusters,
        resamples=resamples,
        seed=seed,
    )
    only_this = int((counted & (this_right > other_right)).sum())
    only_other = int((counted & (this_right < other_right)).sum())
    return Against(
        name=name,
        **figures,
        only_this=only_this,
        only_other=only_other,
        p_value=_mcnemar(only_this, only_other),
        rows_only_here=len(table) - len(here),
        rows_only_there=len(other) - len(there),
    )


def _matching_rows(table: AuditTable, other: AuditTable) -> tuple[IntArray, IntArray]:
    """Places of the ids that both have, here and there, in the order of here."""
    places = {row_id: place for place, row_id in enumerate(other.ids)}
    pairs = [(place, places[row_id]) for place, row_id in enumerate(table.ids) if row_id in places]
    here, there = np.array(pairs, dtype=np.int64).reshape(len(pairs), 2).T
    return here, there


def _mcnemar(only_this: int, only_other: int) -> float | None:
    if not only_this + only_other:
        return None
    from statsmodels.stats.contingency_tables import mcnemar

    return float(mcnemar([[0, only_this], [only_other, 0]], exact=True).pvalue)

"""The whole audit of one table: all figures, with the intervals of one bootstrap. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from rlaif.auditing.agreement import CLASSES, human_statistics, judge_statistics, left_out_pairs
from rlaif.auditing.bias import (
    addressed_statistics,
    first_slot_statistic,
    length_statistics,
    nested,
    style_statistics,
    swap_statistics,
    two_order_statistics,
)
from rlaif.auditing.comparing import compare
from rlaif.auditing.controlled import controlled_agreement
from rlaif.auditing.findings import findings
from rlaif.auditing.intervals import Statistic, estimate
from rlaif.auditing.panels import panel_result
from rlaif.auditing.prediction_powered import prediction_powered
from rlaif.auditing.reliability import (
    brier_decomposition,
    confusion,
    coverage_groups,
    length_gap_groups,
    probability_statistics,
    reliability_groups,
)
from rlaif.auditing.results import Audit, CoveragePoint, Figure, LengthGapBin, ReliabilityBin, Section
from rlaif.auditing.table import TIE, A, AuditTable, B, FloatArray, verdicts
from rlaif.records import TIE_BAND, Order

FIGURES_OF_A_GROUP = (
    "agreement", "agreement_human_decided", "agreement_with_ties", "cohen_kappa", "human_pairwise_agreement",
    "krippendorff_alpha", "fleiss_kappa", "human_ceiling", "swap_consistency", "first_position_rate", "brier",
    "log_loss", "ece", "auc", "length_bias",
)  # fmt: skip
"""What is reported for each value of a `--by` column."""


class Draws(NamedTuple):
    """Settings of the bootstrap behind all intervals of an audit."""

    resamples: int
    seed: int

    @property
    def settings(self) -> dict[str, int]:
        return self._asdict()

    def estimate(self, statistics: Mapping[str, Statistic], table: AuditTable) -> dict[str, Figure]:
        return estimate(statistics, table.clusters, **self.settings)


def audit_table(
    table: AuditTable,
    *,
    tie_band: float = TIE_BAND,
    resamples: int = 2000,
    seed: int = 0,
    by: Sequence[str] = (),
    source: Mapping[str, Any] | None = None,
    other: AuditTable | None = None,
    name_of_other: str = "other",
    calibration: Mapping[str, Any] | None = None,
) -> Audit:
    """Everything that can be said of the judge of a table.

    Args:
        table: Its `prob_a` is what counts at the top; rows where it is NaN are in no figure of the judge's there.
        tie_band: A probability this close to 0.5 is a tie.
        resamples: Of the bootstrap behind the intervals.
        seed: Of its draws.
        by: Columns of `table.groups` to split the figures by.
        source: What was audited, for the record.
        other: Another judge's table, to be compared on the rows that both have.
        name_of_other: What that one is called.
        calibration: What fitting a calibration found, for the record.

    Returns:
        With a `why` in place of every value that the data cannot support.

    Raises:
        ValueError: The table has no column of that name in `groups`.
    """
    missing = [column for column in by if column not in table.groups]
    if missing:
        raise ValueError(f"no groups by {missing[0]!r}; there are: {', '.join(table.groups) or 'none'}")
    draws = Draws(resamples, seed)
    reliability, coverage = reliability_groups(table), coverage_groups(table, tie_band)
    gaps = length_gap_groups(table, tie_band)
    parts: dict[str, Statistic] = {f"reliability {place}": each.statistic for place, each in enumerate(reliability)}
    parts |= {f"coverage {place}": each.statistic for place, each in enumerate(coverage)}
    parts |= {f"length gap {place}": each.statistic for place, each in enumerate(gaps)}
    statistics = table_statistics(table, tie_band)
    found = draws.estimate({**statistics, **parts}, table)
    audit = Audit(
        source=dict(source or {}),
        counts=row_counts(table, tie_band),
        figures={
            **nested({name: found[name] for name in statistics}),
            **controlled_agreement(table, tie_band=tie_band),
        },
        orders=_orders(table, tie_band, draws),
        by={column: _by_value(table, column, tie_band, draws) for column in by},
        confusion=confusion(table, tie_band),
        reliability=tuple(
            ReliabilityBin(each.low, each.high, each.mean, found[f"reliability {place}"])
            for place, each in enumerate(reliability)
        ),
        brier_decomposition=brier_decomposition(table),
        coverage=tuple(
            CoveragePoint(each.share, each.least_confidence, found[f"coverage {place}"])
            for place, each in enumerate(coverage)
        ),
        length_gaps=tuple(
            LengthGapBin(each.low, each.high, each.mean, found[f"length gap {place}"])
            for place, each in enumerate(gaps)
        ),
        panel=panel_result(table, tie_band=tie_band, **draws.settings),
        prediction_powered=prediction_powered(table, tie_band=tie_band),
        against=None if other is None else compare(table, other, name_of_other, tie_band=tie_band, **draws.settings),
        calibration=calibration,
    )
    return replace(audit, findings=findings(audit))


def table_statistics(table: AuditTable, tie_band: float = TIE_BAND) -> dict[str, Statistic]:
    """Every figure at the top; "length_bias.judge" and the like are parts of a figure."""
    return {
        **judge_statistics(table, tie_band),
        **human_statistics(table, tie_band),
        **swap_statistics(table, tie_band),
        **two_order_statistics(table, tie_band),
        **probability_statistics(table),
        **length_statistics(table, tie_band),
        **style_statistics(table, tie_band),
        **addressed_statistics(table, tie_band),
    }


def row_counts(table: AuditTable, tie_band: float = TIE_BAND) -> dict[str, int]:
    """Rows by what is known of them; `first_chosen`, `second_chosen` are verdicts, of rows judged in both orders."""
    ab, ba = verdicts(table.prob_a_ab, tie_band), verdicts(table.prob_a_ba, tie_band)
    asked = table.votes.sum(axis=1)
    both = np.isfinite(ab) & np.isfinite(ba)
    counts = {
        "rows": np.full(len(table), True),
        "clusters": np.diff(np.sort(table.clusters), prepend=-1) > 0,
        "rows_judged": np.isfinite(table.prob_a),
        "rows_judged_both_orders": both,
        "rows_with_human_label": np.isfinite(table.human),
        "rows_human_tie": table.human == TIE,
        "rows_with_votes": asked > 0,
        "rows_without_plurality": (asked > 0) & ~np.isfinite(table.human),
        "first_chosen": np.stack([both & (ab == A), both & (ba == B)]),
        "second_chosen": np.stack([both & (ab == B), both & (ba == A)]),
        "inconsistent_always_first": (ab == A) & (ba == B),
        "inconsistent_always_second": (ab == B) & (ba == A),
    }
    return {
        **{name: int(np.count_nonzero(rows)) for name, rows in counts.items()},
        "annotator_pairs": int((asked * (asked - 1) // 2).sum()),
        "left_out_annotators": int(left_out_pairs(table.votes).sum()),
        **_verdict_counts("verdicts", verdicts(table.prob_a, tie_band)),
        **(_verdict_counts("verdicts_ab", ab) if np.isfinite(ab).any() else {}),
        **(_verdict_counts("verdicts_ba", ba) if np.isfinite(ba).any() else {}),
    }


def _verdict_counts(name: str, verdict: FloatArray) -> dict[str, int]:
    said = zip(CLASSES, (A, TIE, B), strict=True)
    counts = {f"{name}_{word}": int(np.count_nonzero(verdict == number)) for word, number in said}
    return {**counts, f"{name}_null": int(np.count_nonzero(np.isnan(verdict)))}


def _orders(table: AuditTable, tie_band: float, draws: Draws) -> dict[str, Section]:
    """The figures of each order that was judged, alone."""
    sections: dict[str, Section] = {}
    for order, prob_a in ((Order.AB, table.prob_a_ab), (Order.BA, table.prob_a_ba)):
        judged = np.isfinite(prob_a)
        if judged.any():
            alone = replace(table, prob_a=prob_a).take(judged)
            lengths = length_statistics(alone, tie_band)
            statistics: dict[str, Statistic] = {
                **judge_statistics(alone, tie_band),
                **probability_statistics(alone),
                **{name: lengths[name] for name in lengths if name.startswith("length_bias.")},
                "first_slot_rate": first_slot_statistic(alone.prob_a, order, tie_band),
            }
            sections[order.value] = nested(draws.estimate(statistics, alone))
    return sections


def _by_value(table: AuditTable, column: str, tie_band: float, draws: Draws) -> dict[str, Section]:
    """The contract's figures for each value of a column, those with most rows first."""
    values = table.groups[column]
    sections: dict[str, Section] = {}
    for value, _ in sorted(Counter(values).items(), key=lambda item: (-item[1], item[0])):
        rows = table.take(np.flatnonzero(values == value))
        statistics = {
            name: statistic
            for name, statistic in table_statistics(rows, tie_band).items()
            if name.partition(".")[0] in FIGURES_OF_A_GROUP
        }
        sections[value] = nested(draws.estimate(statistics, rows))
    return sections

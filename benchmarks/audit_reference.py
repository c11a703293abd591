"""The audit beside an independent script: every figure of reference_audit.json that the audit also reports.

    python benchmarks/audit_reference.py [FOLDER]

FOLDER holds the data sets and reference_audit.json (default: ../shared/data). One line a set and judge: how many
figures were compared, and the largest difference. Ends with 1 where one is above 1e-6. The reference is rounded to six
decimals: differences up to 5e-7 are its own.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rlaif.auditing.audit import audit_table
from rlaif.auditing.results import Audit
from rlaif.auditing.table import build_table
from rlaif.data.files import open_source
from rlaif.data.judged import JudgedOptions, read_judged

FOLDER = Path(__file__).resolve().parents[1].parent / "shared" / "data"
TOLERANCE = 1e-6

AGREE_ELSE_TIE = 0.25
"""The reference joins two orders to a tie wherever they differ. Here, a tie and a win make a win (their mean is 0.75
or 0.25); with this tie band they make a tie too. Single verdicts (1, 0.5, 0) do not feel it."""

_ORDER = {
    "accuracy_3class": "agreement_with_ties",
    "accuracy_both_nontie": "agreement",
    "accuracy_human_nontie": "agreement_human_decided",
    "accuracy_human_nontie_tie_half": "agreement_tie_half",
    "cohen_kappa_3class": "cohen_kappa",
}
_ORDER_ROWS = {
    "n_both_nontie": "agreement", "n_human_nontie": "agreement_human_decided", "n_vs_human": "agreement_with_ties",
}  # fmt: skip
_BOTH_ORDERS = {
    "correct_in_both_orders": "correct_in_both_orders",
    "mean_accuracy_two_orders": "mean_accuracy_two_orders",
    "swap_consistency": "swap_consistency",
    "swap_consistency_excluding_any_tie": "swap_consistency_without_ties",
    "first_position_preference_rate": "first_position_rate",
}
_BOTH_ORDERS_COUNTS = {
    "first_chosen": "first_chosen",
    "second_chosen": "second_chosen",
    "inconsistent_always_first": "inconsistent_always_first",
    "inconsistent_always_second": "inconsistent_always_second",
    "n_both_orders": "rows_judged_both_orders",
}
_HUMAN = {
    "pairwise_agreement_3class": "human_pairwise_agreement",
    "pairwise_agreement_excluding_any_tie": "human_pairwise_agreement_without_ties",
    "krippendorff_alpha_nominal": "krippendorff_alpha",
    "fleiss_kappa_3class": "fleiss_kappa",
    "leave_one_out_vs_majority_of_rest": "human_ceiling",
    "unanimous_rate": "unanimous_rate",
}
_HUMAN_COUNTS = {
    "n_annotator_pairs": "annotator_pairs",
    "n_leave_one_out": "left_out_annotators",
    "no_strict_majority": "rows_without_plurality",
}
_VERDICTS = {"0": "tie", "1": "a", "2": "b"}


class Compared(NamedTuple):
    """One figure of the reference, and ours; None where there is none."""

    name: str
    theirs: float | None
    ours: float | None

    @property
    def difference(self) -> float:
        """Absolute; infinite where only one of the two is there."""
        if self.theirs is None or self.ours is None:
            return 0.0 if self.theirs is self.ours else float("inf")
        return abs(self.theirs - self.ours)


def compared(folder: Path) -> Iterator[tuple[str, str, list[Compared]]]:
    """Set, judge ("people" for the figures without one) and the figures, for everything in the reference."""
    reference = json.loads((folder / "reference_audit.json").read_text(encoding="utf-8"))["sets"]
    for name, expected in reference.items():
        path = next(folder.glob(f"{name}.jsonl*"))
        rows = [row.values for row in open_source(path).read() if isinstance(row.values, dict)]
        yield name, "people", list(_of_people(expected, rows))
        for judge, figures in (expected.get("judges") or {}).items():
            yield name, judge, list(_of_judge(figures, rows, judge))


def _of_people(expected: Mapping[str, Any], rows: list[dict[str, Any]]) -> Iterator[Compared]:
    """The figures of people and their lengths; the labels stand in for a judge, which an audit has to have."""
    audit = _audit(rows, "human_label3", None)
    yield Compared("n", expected["n"], audit.counts["rows"])
    for value, count in expected["human_label3_counts"].items():
        if value in _VERDICTS:
            yield Compared(f"human_label3 {value}", count, audit.counts[f"verdicts_{_VERDICTS[value]}"])
    if "human_prefers_longer_chars" in expected:
        figure = audit.figure("human_prefers_longer")
        yield Compared("human_prefers_longer_chars", expected["human_prefers_longer_chars"], figure.value)
        yield Compared("n_length_differs", expected["n_length_differs"], figure.n)
    people = expected.get("human")
    if people:
        for theirs, ours in _HUMAN.items():
            yield Compared(theirs, people[theirs], audit.figure(ours).value)
        for theirs, ours in _HUMAN_COUNTS.items():
            yield Compared(theirs, people[theirs], audit.counts[ours])
        yield Compared("n_items", people["n_items"], audit.figure("human_pairwise_agreement").n)


def _of_judge(expected: Mapping[str, Any], rows: list[dict[str, Any]], judge: str) -> Iterator[Compared]:
    columns = [f"judge_votes.{judge}.order_12", f"judge_votes.{judge}.order_21"]
    given = [column if f"order_{column[-2:]}" in expected else None for column in columns]
    audit = _audit(rows, given[0], given[1])
    for name, order in (("order_12", "ab"), ("order_21", "ba")):
        if name not in expected:
            continue
        figures = expected[name]
        for value, count in figures["verdict_counts"].items():
            ours = audit.counts[f"verdicts_{order}_{_VERDICTS[value]}"]
            yield Compared(f"{name} verdict {value}", count, ours)
        for theirs in _ORDER:
            if theirs in figures:
                yield Compared(f"{name} {theirs}", figures[theirs], _value(audit, order, _ORDER[theirs]))
        for theirs in _ORDER_ROWS:
            if theirs in figures:
                yield Compared(f"{name} {theirs}", figures[theirs], _rows(audit, order, _ORDER_ROWS[theirs]))
    if not expected["n_both_orders"]:
        return
    for theirs, ours in _BOTH_ORDERS.items():
        if theirs in expected:
            yield Compared(theirs, expected[theirs], audit.figure(ours).value)
    for theirs, ours in _BOTH_ORDERS_COUNTS.items():
        yield Compared(theirs, expected[theirs], audit.counts[ours])
    together = expected.get("combined_agree_else_tie")
    if together:
        yield Compared("combined accuracy", together["accuracy_3class"], audit.figure("agreement_with_ties").value)
        yield Compared("combined kappa", together["cohen_kappa_3class"], audit.figure("cohen_kappa").value)
        yield Compared("combined n", together["n"], audit.figure("agreement_with_ties").n)


def _audit(rows: list[dict[str, Any]], column: str | None, column_ba: str | None) -> Audit:
    read = read_judged(rows, JudgedOptions(judge_column=column, judge_column_ba=column_ba))
    # The intervals are not compared, so the smallest bootstrap will do.
    return audit_table(build_table(read.rows), tie_band=AGREE_ELSE_TIE, resamples=2)


def _value(audit: Audit, order: str, name: str) -> float | None:
    figure = audit.orders[order][name]
    assert not isinstance(figure, Mapping)
    return figure.value


def _rows(audit: Audit, order: str, name: str) -> int:
    figure = audit.orders[order][name]
    assert not isinstance(figure, Mapping)
    return figure.n


def main() -> int:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    total, worst = 0, 0.0
    for name, judge, figures in compared(folder):
        largest = max(figures, key=lambda each: each.difference)
        total, worst = total + len(figures), max(worst, largest.difference)
        shown = f"{len(figures):3d} figures, largest difference {largest.difference:.1e}"
        at_fault = (
            f"  ({largest.name}: {largest.theirs}, ours {largest.ours})" if largest.difference > TOLERANCE else ""
        )
        print(f"{name:20s} {judge:40s} {shown}{at_fault}")
    print(f"all: {total} figures, largest difference {worst:.1e}")
    return int(worst > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())

"""What can be said of a run's labels without human ones: ties, position bias, label mass. One pass, constant memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rlaif.records import Judgment, Verdict

TIE_BAND = 1e-9
"""A probability this close to 0.5 is a tie."""


def verdict_of(prob_a: float, tie_band: float = TIE_BAND) -> Verdict:
    """The verdict that a soft label comes to: its larger side, or a tie within `tie_band` of 0.5.

    >>> verdict_of(0.7), verdict_of(0.2), verdict_of(0.5)
    (<Verdict.A: 'a'>, <Verdict.B: 'b'>, <Verdict.TIE: 'tie'>)
    """
    if abs(prob_a - 0.5) <= tie_band:
        return Verdict.TIE
    return Verdict.A if prob_a > 0.5 else Verdict.B


@dataclass
class SlotCounts:
    """How often each slot was preferred in one order."""

    first: int = 0
    second: int = 0
    tie: int = 0

    @property
    def first_rate(self) -> float | None:
        """Share of the first slot among verdicts that are no ties; None without any. Without bias it is near 0.5."""
        decided = self.first + self.second
        return self.first / decided if decided else None


@dataclass
class LabelStatistics:
    """Counts over the judgments of a run.

    Attributes:
        rows: Judgments added.
        identical: Rows with equal responses, which no judge was asked about; in none of the counts below but `ties`.
        ties: Rows whose label is within 1e-9 of 0.5.
        in_ab, in_ba: Slots preferred in each order.
        both_orders: Rows judged in both orders.
        consistent: Of these, rows with the same verdict in both; a tie is a verdict.
        same_first, same_second: Of these, rows where the first (second) slot won both times.
        bounded: Rows where a label's mass was bounded rather than seen.
        calls: Judge calls behind the labels.
    """

    rows: int = 0
    identical: int = 0
    ties: int = 0
    in_ab: SlotCounts = field(default_factory=SlotCounts)
    in_ba: SlotCounts = field(default_factory=SlotCounts)
    both_orders: int = 0
    consistent: int = 0
    same_first: int = 0
    same_second: int = 0
    bounded: int = 0
    calls: int = 0
    _mass_sum: float = 0.0
    _mass_count: int = 0
    _mass_min: float = float("inf")

    def add(self, judgment: Judgment) -> None:
        """Count one more row."""
        label = judgment.label
        self.rows += 1
        self.calls += judgment.calls
        self.ties += verdict_of(label.prob_a) is Verdict.TIE
        if judgment.calls == 0:
            self.identical += 1
            return
        self.bounded += judgment.is_bounded
        for mass in (judgment.label_mass_ab, judgment.label_mass_ba):
            if mass is not None:
                self._mass_sum += mass
                self._mass_count += 1
                self._mass_min = min(self._mass_min, mass)
        in_ab = None if label.prob_a_ab is None else verdict_of(label.prob_a_ab)
        in_ba = None if label.prob_a_ba is None else verdict_of(label.prob_a_ba)
        _count(self.in_ab, in_ab, first=Verdict.A)
        _count(self.in_ba, in_ba, first=Verdict.B)
        if in_ab is not None and in_ba is not None:
            self.both_orders += 1
            self.consistent += in_ab is in_ba
            self.same_first += (in_ab, in_ba) == (Verdict.A, Verdict.B)
            self.same_second += (in_ab, in_ba) == (Verdict.B, Verdict.A)

    @property
    def swap_consistency(self) -> float | None:
        """Share of rows judged in both orders whose verdict is the same; None without any."""
        return self.consistent / self.both_orders if self.both_orders else None

    @property
    def same_position_rate(self) -> float | None:
        """Share of rows judged in both orders where one slot won both times: ideally 0; 1 for position alone.

        Source: Lee et al., RLAIF, arXiv:2309.00267, appendix B.
        """
        return (self.same_first + self.same_second) / self.both_orders if self.both_orders else None

    @property
    def label_mass_mean(self) -> float | None:
        """Mean share of the next-token probability on the labels, over rows and orders; None where none was read."""
        return self._mass_sum / self._mass_count if self._mass_count else None

    @property
    def label_mass_min(self) -> float | None:
        return self._mass_min if self._mass_count else None

    def as_json(self) -> dict[str, Any]:
        """The figures as they stand in `run.json`."""
        return {
            "rows": self.rows,
            "identical": self.identical,
            "ties": self.ties,
            "bounded": self.bounded,
            "rows_in_both_orders": self.both_orders,
            "swap_consistency": self.swap_consistency,
            "same_position_rate": self.same_position_rate,
            "same_position_first": self.same_first,
            "same_position_second": self.same_second,
            "first_rate_ab": self.in_ab.first_rate,
            "first_rate_ba": self.in_ba.first_rate,
            "label_mass_mean": self.label_mass_mean,
            "label_mass_min": self.label_mass_min,
        }


def _count(counts: SlotCounts, verdict: Verdict | None, *, first: Verdict) -> None:
    if verdict is None:
        return
    if verdict is Verdict.TIE:
        counts.tie += 1
    elif verdict is first:
        counts.first += 1
    else:
        counts.second += 1

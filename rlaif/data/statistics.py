"""What can be said of a run's labels and ratings without human ones: ties, position bias, how ratings spread, label
mass, how far a panel's judges agree. One pass, and no memory of the rows but a panel's scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rlaif.data.panels import JudgeCorrelation, PanelScores
from rlaif.records import RATING_LABELS, Judgment, Rating, Verdict, verdict_of


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
class Moments:
    """Mean, spread and ends of numbers seen one by one; each is None where none was.

    Source: B. P. Welford, Note on a method for calculating corrected sums of squares and products, 1962.
    """

    count: int = 0
    _mean: float = 0.0
    _squares: float = 0.0
    _least: float = math.inf
    _most: float = -math.inf

    def add(self, value: float) -> None:
        self.count += 1
        before = value - self._mean
        self._mean += before / self.count
        self._squares += before * (value - self._mean)
        self._least, self._most = min(self._least, value), max(self._most, value)

    @property
    def mean(self) -> float | None:
        return self._mean if self.count else None

    @property
    def sd(self) -> float | None:
        """Standard deviation of just these numbers (divided by their count)."""
        return math.sqrt(self._squares / self.count) if self.count else None

    @property
    def least(self) -> float | None:
        return self._least if self.count else None

    @property
    def most(self) -> float | None:
        return self._most if self.count else None


@dataclass
class LabelStatistics:
    """Counts over the judgments of a run. Of a calibrated one, `ties` are those of the calibrated labels; everything
    else is of the judge's own.

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
        unreadable_samples: Samples without a verdict that a label had to do without.
        partial_rows: Rows that some judge of the panel is missing from.
        masses: Share of the next-token probability on the labels, over rows and orders.
        panel: P(A preferred) of each judge of a panel.
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
    unreadable_samples: int = 0
    partial_rows: int = 0
    masses: Moments = field(default_factory=Moments)
    panel: PanelScores = field(default_factory=PanelScores)

    def add(self, judgment: Judgment) -> None:
        """Count one more row."""
        label = judgment.own_label
        self.rows += 1
        self.calls += judgment.calls
        self.ties += verdict_of(judgment.prob_a) is Verdict.TIE
        if judgment.calls == 0:
            self.identical += 1
            return
        self.bounded += judgment.is_bounded
        self.unreadable_samples += judgment.unreadable_samples
        self.partial_rows += bool(judgment.missing_judges)
        self.panel.add({each.name: each.label.prob_a for each in judgment.by_judge})
        for mass in (judgment.label_mass_ab, judgment.label_mass_ba):
            if mass is not None:
                self.masses.add(mass)
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
    def judge_correlation(self) -> list[JudgeCorrelation]:
        """Of P(A preferred), for each pair of the panel's judges; empty without a panel."""
        return self.panel.correlations()

    def as_json(self) -> dict[str, Any]:
        """The figures as they stand in `run.json`."""
        return {
            "rows": self.rows,
            "identical": self.identical,
            "ties": self.ties,
            "bounded": self.bounded,
            "unreadable_samples": self.unreadable_samples,
            "partial_rows": self.partial_rows,
            "rows_in_both_orders": self.both_orders,
            "swap_consistency": self.swap_consistency,
            "same_position_rate": self.same_position_rate,
            "same_position_first": self.same_first,
            "same_position_second": self.same_second,
            "first_rate_ab": self.in_ab.first_rate,
            "first_rate_ba": self.in_ba.first_rate,
            "label_mass_mean": self.masses.mean,
            "label_mass_min": self.masses.least,
            **self.panel.as_json(),
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


@dataclass
class RatingStatistics:
    """Counts over the ratings of a run.

    Attributes:
        rows: Rows added, of one response or several.
        rewards: One a response.
        ratings: Expectations in [1, 10], one a response; none of a reward model.
        histogram: Responses by their rating rounded to 1..10; a half goes up.
        spreads: Standard deviation of the distribution behind each rating: 0 where the judge is sure, 2.87 where it
            finds all ten scores equally likely, 4.5 at most.
        masses: Share of the next-token probability on the ten scores, over responses.
        bounded: Responses where a score's mass was bounded rather than seen.
        unreadable_samples: Samples without a rating that had to be done without.
        partial_rows: Rows that some judge of the panel is missing from.
        calls: Judge calls behind the ratings.
        panel: Rating by each judge of a panel.
    """

    rows: int = 0
    rewards: Moments = field(default_factory=Moments)
    ratings: Moments = field(default_factory=Moments)
    histogram: list[int] = field(default_factory=lambda: [0] * len(RATING_LABELS))
    spreads: Moments = field(default_factory=Moments)
    masses: Moments = field(default_factory=Moments)
    bounded: int = 0
    unreadable_samples: int = 0
    partial_rows: int = 0
    calls: int = 0
    panel: PanelScores = field(default_factory=PanelScores)

    def add(self, ratings: Sequence[Rating]) -> None:
        """Count one more row: the ratings of its responses."""
        self.rows += 1
        self.partial_rows += any(rating.missing_judges for rating in ratings)
        for rating in ratings:
            self.rewards.add(rating.reward)
            if rating.probs is not None and (expected := rating.rating) is not None:
                self.ratings.add(expected)
                self.histogram[math.floor(expected + 0.5) - 1] += 1
                self.spreads.add(_spread(rating.probs, expected))
            if rating.label_mass is not None:
                self.masses.add(rating.label_mass)
            self.bounded += rating.is_bounded
            self.unreadable_samples += rating.unreadable_samples
            self.calls += rating.calls
            self.panel.add({each.name: each.rating for each in rating.by_judge})

    @property
    def responses(self) -> int:
        """Responses rated."""
        return self.rewards.count

    @property
    def judge_correlation(self) -> list[JudgeCorrelation]:
        """Of the ratings, for each pair of the panel's judges; empty without a panel."""
        return self.panel.correlations()

    def as_json(self) -> dict[str, Any]:
        """The figures as they stand in `run.json`."""
        return {
            "rows": self.rows,
            "responses": self.responses,
            "reward_mean": self.rewards.mean,
            "reward_sd": self.rewards.sd,
            "reward_min": self.rewards.least,
            "reward_max": self.rewards.most,
            "rating_mean": self.ratings.mean,
            "rating_sd": self.ratings.sd,
            "rating_min": self.ratings.least,
            "rating_max": self.ratings.most,
            "rating_histogram": dict(zip(RATING_LABELS, self.histogram, strict=True)),
            "distribution_sd_mean": self.spreads.mean,
            "bounded": self.bounded,
            "unreadable_samples": self.unreadable_samples,
            "partial_rows": self.partial_rows,
            "calls": self.calls,
            "label_mass_mean": self.masses.mean,
            "label_mass_min": self.masses.least,
            **self.panel.as_json(),
        }


def _spread(probs: Sequence[float], mean: float) -> float:
    return math.sqrt(math.fsum(prob * (score - mean) ** 2 for score, prob in enumerate(probs, 1)))

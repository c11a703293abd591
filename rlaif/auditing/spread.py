"""Intervals of values from how they spread over resamples: of values alone, of their differences, of their ranks. Pure.

The resamples come from who knows what is resampled; figures that are functions of sums have `intervals.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from rlaif.auditing.intervals import LEVEL, t_interval, t_quantile, wilson_interval
from rlaif.auditing.results import Figure
from rlaif.auditing.table import FloatArray, IntArray

_NO_SPREAD = 1e-12
_EQUAL = 1e-7
"""Values that are no further apart are equal: what a fit leaves undecided."""

WHY_NO_SPREAD = "resampling has no spread"


class Ranks(NamedTuple):
    """Ranks of K items; see `Standing`."""

    ranks: list[Figure]
    prob_best: list[float | None]


@dataclass(frozen=True)
class Spread:
    """K values, and what they are in R resamples.

    Attributes:
        values: (K,).
        drawn: (R, K); NaN where an item is in no row of a resample.
        effective: Effective number of clusters behind each value (K,).
    """

    values: FloatArray
    drawn: FloatArray
    effective: FloatArray

    def figure(self, item: int, rows: int) -> Figure:
        """A value with its interval."""
        return spread_figure(float(self.values[item]), self.drawn[:, item], self.effective[item], rows)

    def difference(self, first: int, second: int, rows: int) -> Figure:
        """The first value minus the second, with its interval."""
        value = float(self.values[first] - self.values[second])
        error = float(self.difference_errors[first, second])
        effective = min(self.effective[first], self.effective[second])
        if error <= _NO_SPREAD or effective <= 1.0:
            return Figure(value, None, None, rows, WHY_NO_SPREAD)
        low, high = t_interval(value, error, max(2.0, effective), None)
        return Figure(value, low, high, rows)

    def separability(self, why: str = "") -> Figure:
        """Share of the pairs whose interval of the difference leaves out 0; why there is none, if there is none."""
        items = len(self.values)
        pairs = items * (items - 1) // 2
        if why:
            return Figure(None, None, None, pairs, why)
        gaps = np.abs(self.values[:, None] - self.values[None, :])
        effective = np.minimum(self.effective[:, None], self.effective[None, :])
        apart = (gaps > self.difference_errors * _stretches(effective)) & (self.difference_errors > _NO_SPREAD)
        share = float(np.triu(apart, 1).sum() / pairs)
        return Figure(share, None, None, pairs, "it is a count of intervals, and has none itself")

    @cached_property
    def difference_errors(self) -> FloatArray:
        """Standard error of each difference (K, K)."""
        with np.errstate(invalid="ignore"):
            errors = [_standard_errors(self.drawn[:, item : item + 1] - self.drawn) for item in range(len(self.values))]
        return np.stack(errors)


def spread_figure(value: float, drawn: FloatArray, effective: float, rows: int) -> Figure:
    """A value with the interval value +- t * (standard deviation of `drawn`), as in `intervals.estimate`.

    Args:
        value: The figure's.
        drawn: In the resamples (R,); NaN where there is none.
        effective: Effective number of clusters.
        rows: Behind it.
    """
    error = float(_standard_errors(drawn[:, None])[0])
    if error <= _NO_SPREAD or effective <= 1.0:
        return Figure(value, None, None, rows, WHY_NO_SPREAD)
    low, high = t_interval(value, error, max(2.0, effective), None)
    return Figure(value, low, high, rows)


def share_figure(scores: FloatArray, clusters: IntArray) -> Figure:
    """The mean of scores in [0, 1] (N,), N at least 1, with an interval clustered by `clusters` (N,).

    Its standard error is the linearised one of a ratio, what the bootstrap over clusters comes to: there may be a pair
    for every two of many policies.
    """
    value = float(scores.mean())
    members, counts = np.unique(clusters, return_inverse=True, return_counts=True)[1:]
    residuals = np.bincount(members, weights=scores - value)
    error = math.sqrt(float((residuals**2).sum())) / len(scores)
    effective = float(counts.sum() ** 2 / (counts.astype(np.float64) ** 2).sum())
    if error > _NO_SPREAD and effective > 1.0:
        low, high = t_interval(value, error, max(2.0, effective), (0.0, 1.0))
    else:
        low, high = wilson_interval(value, len(counts))
    return Figure(value, max(0.0, min(low, value)), min(1.0, max(high, value)), len(scores))


def ranks_with_intervals(spread: Spread, rows: Sequence[int], why: str = "") -> Ranks:
    """Ranks, 1 for the greatest value, with intervals that hold the true rank.

    Args:
        spread: Of the values.
        rows: Behind each value.
        why: Why there are no ranks; "" where there are.

    Returns:
        The ranks. An item's interval reaches from 1 + the number of others that are surely better to K - the number of
        others that are surely worse. Sure is what the largest studentized difference of the item to any other does not
        exceed in 95 % of the resamples (at least what a single difference would take), stretched for few clusters as t
        is.
    """
    items = len(spread.values)
    if why:
        return Ranks([Figure(None, None, None, count, why) for count in rows], [None] * items)
    errors = spread.difference_errors
    stretch = _stretches(spread.effective) / t_quantile(1e9)
    values = shared_ranks(spread.values)
    figures = []
    for item in range(items):
        known = errors[item] > _NO_SPREAD
        if spread.effective[item] <= 1.0 or not known.any():
            figures.append(Figure(float(values[item]), None, None, rows[item], WHY_NO_SPREAD))
            continue
        gaps = spread.values[item] - spread.values[known]
        drawn = spread.drawn[:, item : item + 1] - spread.drawn[:, known]
        largest = np.abs((drawn - gaps) / errors[item, known])
        largest = np.where(np.isnan(largest), 0.0, largest).max(axis=1)
        # Of few clusters, the resamples' tails are short: never surer of all the others than of one of them alone.
        critical = max(float(np.quantile(largest, LEVEL)), t_quantile(1e9))
        reach = critical * stretch[item] * errors[item, known]
        low, high = 1 + int((gaps + reach < 0).sum()), items - int((gaps - reach > 0).sum())
        rank = int(values[item])
        figures.append(Figure(float(rank), float(min(low, rank)), float(max(high, rank)), rows[item]))
    filled = np.where(np.isnan(spread.drawn), -np.inf, spread.drawn)
    best = filled >= filled.max(axis=1, keepdims=True) - _EQUAL
    shares = (best / best.sum(axis=1, keepdims=True)).mean(axis=0)
    return Ranks(figures, [float(share) for share in shares])


def shared_ranks(values: FloatArray) -> IntArray:
    """Ranks of values (K,), 1 for the greatest; equal ones share the best of theirs.

    >>> shared_ranks(np.array([0.5, 2.0, 0.5, -1.0]))
    array([2, 1, 2, 4])
    """
    ordered = np.sort(-values)
    # A value joins the one before it where the two are equal, so that a chain of equals shares one rank.
    starts = np.concatenate([[True], np.diff(ordered) > _EQUAL])
    ranks = np.maximum.accumulate(np.where(starts, np.arange(1, len(values) + 1), 0))
    found = np.empty(len(values), dtype=np.int64)
    found[np.argsort(-values, kind="stable")] = ranks
    return found


def _standard_errors(drawn: FloatArray) -> FloatArray:
    """Standard deviations over the resamples (K,), of those in which there is a value; 0 where there are none."""
    known = np.isfinite(drawn)
    count = np.maximum(known.sum(axis=0), 1)
    filled = np.where(known, drawn, 0.0)
    mean = filled.sum(axis=0) / count
    return np.asarray(np.sqrt((np.where(known, drawn - mean, 0.0) ** 2).sum(axis=0) / count))


def _stretches(effective: FloatArray) -> FloatArray:
    """What a standard error is multiplied by, for each number of clusters."""
    sizes, where = np.unique(np.maximum(2.0, effective), return_inverse=True)
    found = np.array([t_quantile(float(size) - 1.0) * math.sqrt(size / (size - 1.0)) for size in sizes])
    return np.asarray(found[where.reshape(effective.shape)])

"""Figures with 95 % intervals: one bootstrap over clusters, shared by all figures of a table.

A figure is a function of sums over rows (`SumStatistic`), so that a resample of clusters costs one row of a matrix
product, or the area under the ROC curve (`AucStatistic`), which is not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from rlaif.auditing.results import Figure
from rlaif.auditing.table import BoolArray, FloatArray, IntArray

LEVEL = 0.95

_DRAWS_AT_ONCE = 4_000_000
"""Numbers of one chunk of resamples; bounds memory to some 100 MB."""

_NO_SPREAD = 1e-12


class Statistic(Protocol):
    """A figure before it has a value.

    Attributes:
        counted: Rows that it is computed from (N,).
        bounds: Smallest and largest value it can take; None where it has none.
        why: What the data lacks when there is no value.
    """

    @property
    def counted(self) -> BoolArray: ...

    @property
    def bounds(self) -> tuple[float, float] | None: ...

    @property
    def why(self) -> str: ...

    def value(self) -> float:
        """On all rows; NaN where the data cannot support it."""
        ...

    def resampler(self, clusters: IntArray, count: int) -> Callable[[FloatArray], FloatArray]:
        """From how often each of `count` clusters is drawn (R, C) to the value in each resample (R,); NaN: none."""
        ...


@dataclass(frozen=True)
class SumStatistic:
    """A figure that is a function of sums over rows.

    Attributes:
        terms: What each row adds (N, K); zeros in rows that do not count. Weights are already in it.
        of_sums: From sums (..., K) to values (...), NaN where undefined.
        counted: Rows that it is computed from (N,).
        bounds: Smallest and largest value it can take; None where it has none.
        why: What the data lacks when there is no value.
    """

    terms: FloatArray
    of_sums: Callable[[FloatArray], FloatArray]
    counted: BoolArray
    bounds: tuple[float, float] | None = (0.0, 1.0)
    why: str = "no row counts"

    def value(self) -> float:
        return float(self.of_sums(self.terms.sum(axis=0)))

    def resampler(self, clusters: IntArray, count: int) -> Callable[[FloatArray], FloatArray]:
        columns = [np.bincount(clusters, weights=column, minlength=count) for column in self.terms.T]
        by_cluster = np.stack(columns, axis=1)
        return lambda draws: self.of_sums(draws @ by_cluster)


def mean_statistic(
    values: FloatArray,
    counted: BoolArray,
    weights: FloatArray | None = None,
    *,
    bounds: tuple[float, float] | None = (0.0, 1.0),
    why: str = "no row counts",
) -> SumStatistic:
    """The (weighted) mean of `values` (N,) over the rows that count; a share where they are 0 and 1."""
    weight = np.where(counted, 1.0 if weights is None else weights, 0.0)
    terms = np.stack([np.where(counted, values, 0.0) * weight, weight], axis=1)
    return SumStatistic(terms, ratio_of_sums, counted, bounds, why)


def ratio_of_sums(sums: FloatArray) -> FloatArray:
    """The first sum over the second (..., 2) -> (...); NaN over zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(sums[..., 1] > 0, sums[..., 0] / sums[..., 1], np.nan))


@dataclass(frozen=True)
class AucStatistic:
    """Area under the ROC curve: P(score of a positive > score of a negative), ties count half.

    Attributes:
        scores: (N,).
        positives: Whether a row is a positive (N,).
        counted: Rows that it is computed from (N,).
        weights: Of the rows (N,).
    """

    scores: FloatArray
    positives: BoolArray
    counted: BoolArray
    weights: FloatArray
    bounds: tuple[float, float] | None = (0.0, 1.0)
    why: str = "it takes rows where people prefer A and rows where they prefer B"

    def value(self) -> float:
        resample = self.resampler(np.arange(len(self.scores)), len(self.scores))
        return float(resample(np.ones((1, len(self.scores))))[0])

    def resampler(self, clusters: IntArray, count: int) -> Callable[[FloatArray], FloatArray]:
        rows = np.flatnonzero(self.counted)
        order = rows[np.argsort(self.scores[rows], kind="stable")]
        scores, positives, weights = self.scores[order], self.positives[order], self.weights[order]
        starts = np.flatnonzero(np.diff(scores, prepend=np.nan) != 0)  # NaN differs from every score
        members = clusters[order]

        def resampled(draws: FloatArray) -> FloatArray:
            if not len(order):
                return np.full(len(draws), np.nan)
            drawn = draws[:, members] * weights
            positive = np.add.reduceat(drawn * positives, starts, axis=1)
            negative = np.add.reduceat(drawn * ~positives, starts, axis=1)
            below = np.cumsum(negative, axis=1) - negative / 2
            pairs = positive.sum(axis=1) * negative.sum(axis=1)
            return ratio_of_sums(np.stack([(positive * below).sum(axis=1), pairs], axis=1))

        return resampled


def estimate(
    statistics: Mapping[str, Statistic], clusters: IntArray, *, resamples: int = 2000, seed: int = 0
) -> dict[str, Figure]:
    """Values with 95 % bootstrap intervals over clusters.

    Args:
        statistics: Over the same N rows.
        clusters: Of the rows (N,), 0 to C - 1; whole clusters are drawn with replacement.
        resamples: How many times.
        seed: Of the draws.

    Returns:
        A figure for each statistic. The interval is the expanded percentile interval (percentiles moved out to what a
        t-distribution with C - 1 degrees of freedom asks for, C being the clusters that count); where resampling has
        no spread, Wilson's at the number of clusters.

    Source: Hesterberg, "What Teachers Should Know About the Bootstrap", The American Statistician 69 (2015), section
    5.3 (expanded percentile interval).
    """
    values = {name: statistic.value() for name, statistic in statistics.items()}
    known = [name for name, value in values.items() if math.isfinite(value)]
    count = int(clusters.max()) + 1 if len(clusters) else 0
    resamplers = {name: statistics[name].resampler(clusters, count) for name in known}
    drawn: dict[str, list[FloatArray]] = {name: [] for name in known}
    if known:
        for draws in _draws(count, resamples, seed):
            for name, resampler in resamplers.items():
                drawn[name].append(resampler(draws))
    return {
        name: _figure(statistic, values[name], np.concatenate(drawn[name]) if name in drawn else None, clusters)
        for name, statistic in statistics.items()
    }


def _draws(count: int, resamples: int, seed: int) -> Iterator[FloatArray]:
    """How often each cluster is drawn in each resample, a chunk of resamples at a time (R, C)."""
    rng = np.random.default_rng(seed)
    left = resamples
    while left > 0:
        size = min(left, max(1, _DRAWS_AT_ONCE // count))
        chosen = rng.integers(0, count, size=(size, count)) + np.arange(size)[:, None] * count
        yield np.bincount(chosen.ravel(), minlength=size * count).reshape(size, count).astype(np.float64)
        left -= size


def _figure(statistic: Statistic, value: float, drawn: FloatArray | None, clusters: IntArray) -> Figure:
    n = int(statistic.counted.sum())
    if drawn is None:
        return Figure(None, None, None, n, statistic.why)
    drawn = drawn[np.isfinite(drawn)]
    size = len(np.unique(clusters[statistic.counted]))
    if len(drawn) and np.ptp(drawn) > _NO_SPREAD and size > 1:
        low, high = np.quantile(drawn, _expanded_levels(size))
        return Figure(value, float(min(low, value)), float(max(high, value)), n)
    if statistic.bounds is None:
        return Figure(value, None, None, n, "resampling has no spread")
    least, most = statistic.bounds
    low, high = wilson_interval((value - least) / (most - least), size)
    return Figure(value, least + low * (most - least), least + high * (most - least), n)


def _expanded_levels(size: int) -> tuple[float, float]:
    from scipy.stats import norm, t

    tail = (1.0 - LEVEL) / 2
    level = float(norm.cdf(math.sqrt(size / (size - 1)) * t.ppf(tail, size - 1)))
    return level, 1.0 - level


def wilson_interval(share: float, size: int) -> tuple[float, float]:
    """Wilson's 95 % interval for a share of `size` (at least 1) independent trials; within [0, 1]."""
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(min(max(share, 0.0), 1.0) * size, size, alpha=1.0 - LEVEL, method="wilson")
    return max(0.0, float(low)), min(1.0, float(high))

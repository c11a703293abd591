"""Figures with 95 % intervals: one bootstrap over clusters, shared by all figures of a table.

A figure is a function of sums over rows (`SumStatistic`), so that a resample of clusters costs one row of a matrix
product, or the area under the ROC curve (`AucStatistic`), which is not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

from rlaif.auditing.results import Figure
from rlaif.auditing.table import BoolArray, FloatArray, IntArray

LEVEL = 0.95

_DRAWS_AT_ONCE = 4_000_000
"""Numbers of one chunk of resamples; bounds memory to some 100 MB."""

_AT_HAND = 60_000
"""Numbers of one block within a chunk where work goes over them several times; they stay in the processor's cache."""

_NO_SPREAD = 1e-12


class Statistic(Protocol):
    """A figure before it has a value.

    Attributes:
        counted: Rows that it is computed from (N,).
        sides: Parts of the counted rows that are each indispensable; the smallest says how much is known.
        bounds: Smallest and largest value it can take; None where it has none.
        why: What the data lacks when there is no value.
    """

    @property
    def counted(self) -> BoolArray: ...

    @property
    def sides(self) -> tuple[BoolArray, ...]: ...

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
        noise: How far noise alone lifts it where there is nothing to find, as with a sum of absolute values; the
            interval reaches so much further down.
    """

    terms: FloatArray
    of_sums: Callable[[FloatArray], FloatArray]
    counted: BoolArray
    bounds: tuple[float, float] | None = (0.0, 1.0)
    why: str = "no row counts"
    noise: float = 0.0

    @property
    def sides(self) -> tuple[BoolArray, ...]:
        return (self.counted,)

    def value(self) -> float:
        return float(self.of_sums(self.terms.sum(axis=0)))

    def resampler(self, clusters: IntArray, count: int) -> Callable[[FloatArray], FloatArray]:
        by_cluster = _by_cluster(self.terms, clusters, count)
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

    @property
    def sides(self) -> tuple[BoolArray, ...]:
        return self.counted & self.positives, self.counted & ~self.positives

    def value(self) -> float:
        resample = self.resampler(np.arange(len(self.scores)), len(self.scores))
        return float(resample(np.ones((1, len(self.scores))))[0])

    def resampler(self, clusters: IntArray, count: int) -> Callable[[FloatArray], FloatArray]:
        positive, negative = self.counted & self.positives, self.counted & ~self.positives
        ups = np.flatnonzero(positive)[np.argsort(self.scores[positive], kind="stable")]
        downs = np.flatnonzero(negative)[np.argsort(self.scores[negative], kind="stable")]
        below = np.searchsorted(self.scores[downs], self.scores[ups], side="left")
        up_to = np.searchsorted(self.scores[downs], self.scores[ups], side="right")
        has_ties = bool((below != up_to).any())
        of_ups, of_downs = clusters[ups], clusters[downs]
        weight_of_ups, weight_of_downs = self.weights[ups], self.weights[downs]
        size = max(1, _AT_HAND // max(1, count))

        def block(draws: FloatArray) -> FloatArray:
            drawn_ups = draws.take(of_ups, axis=1) * weight_of_ups
            sums = np.zeros((len(draws), len(downs) + 1))  # of the drawn negatives up to each score
            np.cumsum(draws.take(of_downs, axis=1) * weight_of_downs, axis=1, out=sums[:, 1:])
            mass = sums.take(below, axis=1)
            if has_ties:
                mass = (mass + sums.take(up_to, axis=1)) / 2
            pairs = drawn_ups.sum(axis=1) * sums[:, -1]
            return ratio_of_sums(np.stack([np.einsum("ij,ij->i", drawn_ups, mass), pairs], axis=1))

        return lambda draws: np.concatenate([block(draws[at : at + size]) for at in range(0, len(draws), size)])


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
        A figure for each statistic. The interval is value +- t * (bootstrap standard error) on the logit scale between
        the figure's bounds, so that it never leaves them and is longer towards the middle. t has E - 1 degrees of
        freedom, E = (sum of m)^2 / (sum of m^2) being the effective number of clusters of m counted rows each (of the
        rarer side, for an area under the ROC curve), and the standard error is stretched by sqrt(E / (E - 1)).
        Percentiles of the bootstrap, which are simpler, cover too seldom here: 90 % for an agreement of 0.9 with 19
        clusters of 1 to 10 rows (benchmarks/audit_intervals.py).
        A figure that noise lifts gets value - noise - t * error to value + t * error. Where resampling has no spread,
        it is Wilson's interval at the number of clusters.

    Sources: Efron and Tibshirani, An Introduction to the Bootstrap (1993), for the standard error and t-intervals on a
    transformed scale; Hesterberg, "What Teachers Should Know About the Bootstrap", The American Statistician 69 (2015),
    for how narrow the bootstrap is with few draws; Kish, Survey Sampling (1965), for E. Put together by us.
    """
    values = {name: statistic.value() for name, statistic in statistics.items()}
    known = {name: statistics[name] for name, value in values.items() if math.isfinite(value)}
    drawn = resampled_values(known, clusters, resamples=resamples, seed=seed) if known else {}
    return {name: _figure(statistic, values[name], drawn.get(name), clusters) for name, statistic in statistics.items()}


def resampled_values(
    statistics: Mapping[str, Statistic], clusters: IntArray, *, resamples: int = 2000, seed: int = 0
) -> dict[str, FloatArray]:
    """The value of each statistic in each resample (R,), NaN where it has none; arguments as of `estimate`."""
    count = int(clusters.max()) + 1
    # One matrix product serves all sums: a product each would read all draws again for every statistic.
    sums = {name: each for name, each in statistics.items() if isinstance(each, SumStatistic)}
    others = {name: each.resampler(clusters, count) for name, each in statistics.items() if name not in sums}
    stacked = np.concatenate([each.terms for each in sums.values()], axis=1) if sums else np.zeros((len(clusters), 0))
    by_cluster = _by_cluster(stacked, clusters, count)
    ends = np.cumsum([each.terms.shape[1] for each in sums.values()], dtype=np.int64)
    drawn: dict[str, list[FloatArray]] = {name: [] for name in statistics}
    for draws in cluster_draws(count, resamples, seed):
        products = draws @ by_cluster
        for (name, statistic), end in zip(sums.items(), ends, strict=True):
            drawn[name].append(statistic.of_sums(products[:, end - statistic.terms.shape[1] : end]))
        for name, resampler in others.items():
            drawn[name].append(resampler(draws))
    return {name: np.concatenate(chunks) for name, chunks in drawn.items()}


def _by_cluster(terms: FloatArray, clusters: IntArray, count: int) -> FloatArray:
    """Sums of the rows of each cluster (C, K)."""
    columns = [np.bincount(clusters, weights=column, minlength=count) for column in terms.T]
    return np.stack(columns, axis=1) if columns else np.zeros((count, 0))


def cluster_draws(count: int, resamples: int, seed: int) -> Iterator[FloatArray]:
    """How often each cluster is drawn in each resample, a chunk of resamples at a time (R, C)."""
    rng = np.random.default_rng(seed)
    left = resamples
    while left > 0:
        size = min(left, max(1, _DRAWS_AT_ONCE // count))
        draws = np.empty((size, count))
        block = max(1, _AT_HAND // count)
        for start in range(0, size, block):
            part = draws[start : start + block]
            chosen = rng.integers(0, count, size=part.shape) + np.arange(len(part))[:, None] * count
            part[:] = np.bincount(chosen.ravel(), minlength=part.size).reshape(part.shape)
        yield draws
        left -= size


def _figure(statistic: Statistic, value: float, drawn: FloatArray | None, clusters: IntArray) -> Figure:
    n = int(statistic.counted.sum())
    if drawn is None:
        return Figure(None, None, None, n, statistic.why)
    drawn = drawn[np.isfinite(drawn)]
    sizes = [_cluster_sizes(clusters[side]) for side in statistic.sides]
    fewest = min(map(len, sizes))
    if len(drawn) and np.ptp(drawn) > _NO_SPREAD and fewest > 1:
        effective = max(2.0, min(float(each.sum() ** 2 / (each**2).sum()) for each in sizes))
        noise = statistic.noise if isinstance(statistic, SumStatistic) else 0.0
        low, high = t_interval(value, float(drawn.std()), effective, None if noise else statistic.bounds)
        low -= noise
    elif statistic.bounds is None:
        return Figure(value, None, None, n, "resampling has no spread")
    else:
        least, most = statistic.bounds
        low, high = wilson_interval((value - least) / (most - least), fewest)
        low, high = least + low * (most - least), least + high * (most - least)
    if statistic.bounds is not None:
        low, high = max(low, statistic.bounds[0]), min(high, statistic.bounds[1])
    return Figure(value, min(low, value), max(high, value), n)


def _cluster_sizes(clusters: IntArray) -> FloatArray:
    """Rows of each cluster that has any."""
    return np.unique(clusters, return_counts=True)[1].astype(np.float64)


def t_interval(value: float, error: float, size: float, bounds: tuple[float, float] | None) -> tuple[float, float]:
    """value +- t * error on the logit scale, or on its own where there are no bounds (or the value is one of them)."""
    reach = t_quantile(size - 1.0) * error * math.sqrt(size / (size - 1.0))
    if bounds is None or not bounds[0] < value < bounds[1]:
        return value - reach, value + reach
    least, most = bounds
    share = (value - least) / (most - least)
    # The slope of the logit at the value carries the standard error over (delta method).
    reach /= (most - least) * share * (1.0 - share)
    middle = math.log(share / (1.0 - share))
    ends = (1.0 / (1.0 + math.exp(-min(max(middle + step, -700.0), 700.0))) for step in (-reach, reach))
    low, high = (least + end * (most - least) for end in ends)
    return low, high


@lru_cache(maxsize=1024)
def t_quantile(freedom: float) -> float:
    from scipy.stats import t

    return float(t.ppf(1.0 - (1.0 - LEVEL) / 2, freedom))


def wilson_interval(share: float, size: int) -> tuple[float, float]:
    """Wilson's 95 % interval for a share of `size` (at least 1) independent trials; within [0, 1]."""
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(min(max(share, 0.0), 1.0) * size, size, alpha=1.0 - LEVEL, method="wilson")
    return max(0.0, float(low)), min(1.0, float(high))

"""Whether a judge's probabilities can be taken at their word, against decided human majorities. Pure.

Rows count where people decided and the judge gave an answer; each weighs 1 / (probability with which people were
asked about it).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from rlaif.auditing.agreement import confusion_terms, why_not_compared
from rlaif.auditing.intervals import AucStatistic, Statistic, SumStatistic, mean_statistic
from rlaif.auditing.table import TIE, A, AuditTable, BoolArray, FloatArray, IntArray, verdicts
from rlaif.records import TIE_BAND

ECE_BINS = 15
LENGTH_GAP_BINS = 8
LEAST_PROB = 1e-6
"""Log loss takes no probability of the label seen as smaller than this."""

KEPT_SHARES = tuple(round(1.0 - 0.05 * step, 2) for step in range(20))
"""1.0, 0.95 ... 0.05: of the coverage curve."""

_ONE_CLASS = "people always prefer the same response; it takes rows of both kinds"


@dataclass(frozen=True)
class RowGroup:
    """Rows with values next to each other, and a figure of them that has no interval yet.

    Attributes:
        low, high: Range of the value.
        mean: Its weighted mean.
        statistic: Over all rows of the table, of which these count.
    """

    low: float
    high: float
    mean: float
    statistic: Statistic


@dataclass(frozen=True)
class KeptRows:
    """The most confident rows, and the agreement on them that has no interval yet.

    Attributes:
        share: Of the rows that both decided, in (0, 1].
        least_confidence: Smallest max(prob_a, 1 - prob_a) among them.
        statistic: Over all rows of the table, of which these count.
    """

    share: float
    least_confidence: float
    statistic: Statistic


def probability_statistics(table: AuditTable) -> dict[str, Statistic]:
    """How good `prob_a` is as a probability.

    Returns:
        `brier` (mean squared error, 0 to 1), `log_loss` (nats), `ece` (mean distance, over 15 bins of equal mass,
        between mean probability and share of A; the bins of all rows are kept when rows are resampled) and `auc`.
    """
    counted = _counted(table)
    why = _why(table)
    prob = np.where(counted, table.prob_a, 0.5)
    human = np.where(counted, table.human, 0.5)
    on_seen = np.clip(np.where(human == A, prob, 1.0 - prob), LEAST_PROB, 1.0)
    weights = np.where(counted, table.weights, 0.0)
    bins = _bin_columns(table.prob_a, counted, ECE_BINS)
    gaps = bins * ((prob - human) * weights)[:, None]
    # A calibrated judge's gap in a bin is normal around 0: its mean size is sqrt(2 / pi) standard deviations.
    spread = np.sqrt((bins * (weights**2 * prob * (1.0 - prob))[:, None]).sum(axis=0))
    noise = float(math.sqrt(2 / math.pi) * spread.sum() / weights.sum()) if counted.any() else 0.0
    # Nobody can tell clipped probabilities apart, so the loss has a largest value.
    largest = -math.log(LEAST_PROB)
    return {
        "brier": mean_statistic((prob - human) ** 2, counted, table.weights, why=why),
        "log_loss": mean_statistic(-np.log(on_seen), counted, table.weights, bounds=(0.0, largest), why=why),
        "ece": SumStatistic(np.column_stack([gaps, weights]), _ece, counted, why=why, noise=noise),
        "auc": AucStatistic(table.prob_a, table.human == A, counted, table.weights, why=why or _ONE_CLASS),
    }


def reliability_groups(table: AuditTable) -> tuple[RowGroup, ...]:
    """The 15 bins of `ece`: `prob_a`, and the share of rows where people prefer A."""
    return _groups(table.prob_a, _counted(table), ECE_BINS, (table.human == A).astype(np.float64), table.weights)


def length_gap_groups(table: AuditTable, tie_band: float = TIE_BAND) -> tuple[RowGroup, ...]:
    """About 8 bins of ln((characters of the response people prefer + 1) / (characters of the other + 1)), and the
    agreement in each; rows that both decided."""
    judge = verdicts(table.prob_a, tie_band)
    counted = _counted(table) & (judge != TIE)
    gap = np.log((table.length_a + 1) / (table.length_b + 1)) * np.where(table.human == A, 1.0, -1.0)
    return _groups(gap, counted, LENGTH_GAP_BINS, (judge == table.human).astype(np.float64), table.weights)


def coverage_groups(table: AuditTable, tie_band: float = TIE_BAND) -> tuple[KeptRows, ...]:
    """Agreement when the least confident labels are dropped, from all rows that both decided to the last 5 %.

    Rows of equal confidence stay or go together, so that a share may be larger than was asked for, and a judge of few
    distinct probabilities has few points.
    """
    judge = verdicts(table.prob_a, tie_band)
    counted = _counted(table) & (judge != TIE)
    if not counted.any():
        return ()
    equal = (judge == table.human).astype(np.float64)
    confidence = np.maximum(table.prob_a, 1.0 - table.prob_a)
    order = np.flatnonzero(counted)[np.argsort(-confidence[counted], kind="stable")]
    mass = np.cumsum(table.weights[order]) / table.weights[order].sum()
    points: list[KeptRows] = []
    for share in KEPT_SHARES:
        place = min(int(np.searchsorted(mass, share - 1e-9)), len(order) - 1)
        least = float(confidence[order[place]])
        if points and points[-1].least_confidence == least:
            continue
        kept = counted & (confidence >= least)
        last = int(np.count_nonzero(kept)) - 1
        points.append(KeptRows(float(min(1.0, mass[last])), least, mean_statistic(equal, kept, table.weights)))
    return tuple(points)


def brier_decomposition(table: AuditTable) -> dict[str, float] | None:
    """The Brier score in parts, over the bins of `ece`; None without a row that counts.

    Returns:
        `reliability` (squared distance of the bins' mean probabilities from their shares of A; less is better),
        `resolution` (how far those shares spread; more is better), `uncertainty` (of the labels themselves) and
        `within_bins` (what bins hide: variance of `prob_a` within bins minus twice its covariance with the labels).
        Brier = reliability - resolution + uncertainty + within_bins, exactly.

    Source: Stephenson, Coelho and Jolliffe, "Two extra components in the Brier score decomposition", Weather and
    Forecasting 23 (2008).
    """
    counted = _counted(table)
    if not counted.any():
        return None
    prob, human, weights = table.prob_a[counted], table.human[counted], table.weights[counted]
    weights = weights / weights.sum()
    bins = equal_mass_bins(prob, ECE_BINS)
    mass = np.bincount(bins, weights)
    used = mass > 0
    mean_prob = np.bincount(bins, weights * prob)[used] / mass[used]
    mean_human = np.bincount(bins, weights * human)[used] / mass[used]
    mass, bins = mass[used], (np.cumsum(used) - 1)[bins]
    share = float((weights * human).sum())
    spread = prob - mean_prob[bins]
    within = weights * (spread**2 - 2 * spread * (human - mean_human[bins]))
    return {
        "reliability": float((mass * (mean_prob - mean_human) ** 2).sum()),
        "resolution": float((mass * (mean_human - share) ** 2).sum()),
        "uncertainty": share * (1.0 - share),
        "within_bins": float(within.sum()),
    }


def confusion(table: AuditTable, tie_band: float = TIE_BAND) -> tuple[tuple[float, ...], ...]:
    """Weighted rows by human majority (a, tie, b) and by the judge's verdict (a, tie, b); () without any."""
    sums = confusion_terms(table.human, verdicts(table.prob_a, tie_band), table.weights).sum(axis=0)
    return tuple(tuple(row) for row in sums.reshape(3, 3).tolist()) if sums.any() else ()


def equal_mass_bins(values: FloatArray, count: int) -> IntArray:
    """Bin of each value (N,), 0 to `count` - 1: floor(count * (rank - 1/2) / N), equal values sharing their mean rank.

    Equal values are never split, so that bins may be uneven, or empty.

    >>> equal_mass_bins(np.array([0.1, 0.9, 0.2, 0.8]), 2)
    array([0, 1, 0, 1])
    """
    _, inverse, sizes = np.unique(values, return_inverse=True, return_counts=True)
    below = np.cumsum(sizes) - sizes
    middle = (below + sizes / 2)[inverse]  # mean rank - 1/2
    return np.minimum(np.floor(count * middle / max(1, len(values))).astype(np.int64), count - 1)


def _counted(table: AuditTable) -> BoolArray:
    return np.asarray(np.isfinite(table.prob_a) & np.isfinite(table.human) & (table.human != TIE))


def _why(table: AuditTable) -> str:
    return why_not_compared(table) or ("" if _counted(table).any() else "people call every row a tie")


def _bin_columns(values: FloatArray, counted: BoolArray, count: int) -> FloatArray:
    """1 in the column of a row's bin, 0 elsewhere (N, count); rows that do not count are 0 throughout."""
    columns = np.zeros((len(values), count))
    rows = np.flatnonzero(counted)
    columns[rows, equal_mass_bins(values[rows], count)] = 1.0
    return columns


def _ece(sums: FloatArray) -> FloatArray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.abs(sums[..., :-1]).sum(axis=-1) / np.where(sums[..., -1] > 0, sums[..., -1], np.nan))


def _groups(
    values: FloatArray, counted: BoolArray, count: int, outcome: FloatArray, weights: FloatArray
) -> tuple[RowGroup, ...]:
    columns = _bin_columns(values, counted, count) > 0
    groups = []
    for inside in columns.T:
        if inside.any():
            low, high = float(values[inside].min()), float(values[inside].max())
            mean = float(np.average(values[inside], weights=weights[inside]))
            groups.append(RowGroup(low, high, min(max(mean, low), high), mean_statistic(outcome, inside, weights)))
    return tuple(groups)

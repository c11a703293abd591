"""A panel of judges: how good each is, and how many independent votes they amount to."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np

from rlaif.auditing.intervals import Statistic, SumStatistic, estimate, mean_statistic
from rlaif.auditing.results import ErrorCorrelation, PanelResult
from rlaif.auditing.table import TIE, AuditTable, BoolArray, FloatArray, verdicts
from rlaif.records import TIE_BAND

_NO_SPREAD = 1e-12


def panel_result(
    table: AuditTable, *, tie_band: float = TIE_BAND, resamples: int = 2000, seed: int = 0
) -> PanelResult | None:
    """A panel against people, over the rows that every one of its judges answered; None with fewer than two judges.

    Agreement and errors are over the rows with a decided human majority; a judge's tie is an error.

    - The correlation of errors of two judges is the phi coefficient (Pearson's of the two 0/1 columns). A pair in
      which one judge never errs, or always, has none, and is left out of the mean.
    - Effective votes are m / (1 + (m - 1) * mean correlation), with the mean taken as no less than 0: from 1 (all err
      together) to m (independent). Errors that cancel each other would make more than m of it, which few rows show by
      chance and no panel can promise.
    - Kendall's W, corrected for ties, compares how the judges rank the rows by `prob_a`; it needs no human label and
      ignores weights. Resamples keep the ranks of the full table, so that they cost a sum each.

    Source: Kish, Survey Sampling (1965), section 5.4 (design effect 1 + (m - 1) * rho); Kendall and Babington Smith,
    "The problem of m rankings", Annals of Mathematical Statistics 10 (1939), with the correction for ties of Kendall,
    Rank Correlation Methods (1948), chapter 6.

    Args:
        table: With `by_judge`.
        tie_band: A probability this close to 0.5 is a tie.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.
    """
    judges = list(table.by_judge)
    if len(judges) < 2:
        return None
    probs = np.stack([table.by_judge[judge] for judge in judges], axis=1)
    answered = np.asarray(np.isfinite(probs).all(axis=1))
    decided = answered & np.isfinite(table.human) & (table.human != TIE)
    wrong = (verdicts(probs, tie_band) != table.human[:, None]).astype(np.float64)
    pairs = list(combinations(range(len(judges)), 2))
    why = "no row has a human majority for one response and an answer of every judge"

    statistics: dict[str, Statistic] = {
        f"judge {judge}": mean_statistic(1.0 - wrong[:, column], decided, table.weights, why=why)
        for column, judge in enumerate(judges)
    }
    errors = _error_statistics(wrong, decided, table.weights)
    for number, pair in enumerate(pairs):
        statistics[f"pair {number}"] = errors([pair], lambda correlations: correlations[..., 0], (-1.0, 1.0))
    statistics["mean"] = errors(pairs, _mean_known, (-1.0, 1.0))
    statistics["votes"] = errors(
        pairs, lambda correlations: effective_votes(_mean_known(correlations), len(judges)), (1.0, float(len(judges)))
    )
    statistics["kendall_w"] = _kendall_w_statistic(probs, answered)
    figures = estimate(statistics, table.clusters, resamples=resamples, seed=seed)
    return PanelResult(
        judges={judge: figures[f"judge {judge}"] for judge in judges},
        effective_votes=figures["votes"],
        mean_error_correlation=figures["mean"],
        error_correlations=tuple(
            ErrorCorrelation(judges[first], judges[second], figures[f"pair {number}"])
            for number, (first, second) in enumerate(pairs)
        ),
        kendall_w=figures["kendall_w"],
    )


def effective_votes(correlation: FloatArray, judges: int) -> FloatArray:
    """How many independent judges a panel of `judges` is worth, in [1, judges]; NaN stays NaN.

    >>> effective_votes(np.array([0.0, 0.5, 1.0, -0.1]), 3)
    array([3. , 1.5, 1. , 3. ])
    """
    return np.asarray(judges / (1.0 + (judges - 1) * np.clip(correlation, 0.0, 1.0)))


def _error_statistics(
    wrong: FloatArray, counted: BoolArray, weights: FloatArray
) -> Callable[[list[tuple[int, int]], Callable[[FloatArray], FloatArray], tuple[float, float]], SumStatistic]:
    """Makes figures out of the phi coefficients (..., P) of some pairs of judges."""
    weight = np.where(counted, weights, 0.0)

    def statistic(
        pairs: list[tuple[int, int]], of_correlations: Callable[[FloatArray], FloatArray], bounds: tuple[float, float]
    ) -> SumStatistic:
        used, places = np.unique(np.array(pairs), return_inverse=True)
        first, second = places.reshape(len(pairs), 2).T
        judges = len(used)
        errors = wrong[:, used]
        together = errors[:, first] * errors[:, second]
        terms = np.column_stack([np.ones(len(wrong)), errors, together]) * weight[:, None]

        def of_sums(sums: FloatArray) -> FloatArray:
            with np.errstate(divide="ignore", invalid="ignore"):
                shares = sums[..., 1:] / sums[..., :1]
                alone, both = shares[..., :judges], shares[..., judges:]
                variance = alone * (1.0 - alone)
                spread = np.sqrt(variance[..., first] * variance[..., second])
                correlations = (both - alone[..., first] * alone[..., second]) / spread
            return of_correlations(np.where(spread > _NO_SPREAD, np.clip(correlations, -1.0, 1.0), np.nan))

        why = "it takes two judges that are each right in some rows and wrong in others"
        return SumStatistic(terms, of_sums, counted, bounds, why)

    return statistic


def _mean_known(correlations: FloatArray) -> FloatArray:
    known = np.isfinite(correlations)
    count = known.sum(axis=-1)
    total = np.where(known, correlations, 0.0).sum(axis=-1)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan))


def _kendall_w_statistic(probs: FloatArray, counted: BoolArray) -> SumStatistic:
    """W = SS(sum of a row's ranks) / (m * sum over judges of SS(its ranks)), which equals the textbook formula with
    its correction for ties: m^2 (n^3 - n) / 12 less m * sum(t^3 - t) / 12 is m times the judges' sums of squares."""
    from scipy.stats import rankdata

    judges = probs.shape[1]
    ranks = np.zeros_like(probs)
    n = int(counted.sum())
    if n:
        ranks[counted] = (rankdata(probs[counted], axis=0) - (n + 1) / 2) / n
    total = ranks.sum(axis=1)
    terms = np.column_stack([counted.astype(np.float64), total, total**2, ranks, (ranks**2).sum(axis=1)])

    def of_sums(sums: FloatArray) -> FloatArray:
        with np.errstate(divide="ignore", invalid="ignore"):
            count = sums[..., 0]
            across = sums[..., 2] - sums[..., 1] ** 2 / count
            within = sums[..., -1] - (sums[..., 3:-1] ** 2).sum(axis=-1) / count
            return np.asarray(np.where(within > _NO_SPREAD, across / (judges * within), np.nan))

    return SumStatistic(terms, of_sums, counted, (0.0, 1.0), "it takes two rows that the judges do not all rate alike")

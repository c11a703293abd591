"""Shares as they would be between responses of equal length, or of equal length and style: how often a judge agrees
with people, and, in `evaluation.py`, how often a policy wins."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from rlaif.auditing.intervals import LEVEL, wilson_interval
from rlaif.auditing.results import Figure
from rlaif.auditing.table import TIE, AuditTable, BoolArray, FloatArray, IntArray, verdicts
from rlaif.records import TIE_BAND

_FEWEST_ROWS = 20
_FEWEST_ON_A_SIDE = 3
"""Rows where people prefer the longer response, and rows where they prefer the shorter: else it is extrapolation."""

_PENALTY = 1.0 / 2.5**2
"""Of a squared slope, per standard unit: a prior of normal(0, 2.5). It keeps the slopes finite where a difference tells
right from wrong without exception, and is lost beside some hundred rows."""


class _Fit(NamedTuple):
    """Agreement where nothing differs, as a logit."""

    logit: float
    standard_error: float


def controlled_agreement(table: AuditTable, *, tie_band: float = TIE_BAND) -> dict[str, Figure]:
    """Agreement of the judge with people, had the responses been alike in what judges are swayed by.

    A logistic regression of "the judge agrees with people", over the rows that both decided, on how the response that
    people preferred differs from the other one; the figure is its prediction where they do not differ. A difference of
    lengths is ln((characters + 1) / (characters of the other + 1)), of a count of list items, headers or bold spans
    (a - b) / (a + b + 1). Nothing is centred, so A and B can change places. In other words: logit P(judge says A) =
    theta * h + phi * (difference of A to B), with h = 1 where people prefer A and -1 where they prefer B; the figure
    is the inverse logit of theta.

    The slopes have a mild ridge penalty, the intercept has none. A first fit tells in which rows the differences speak
    for the response that people preferred, and in which against it; the second one, which is reported, lets both kinds
    weigh the same. Where the model holds this changes nothing but the noise; where it does not, for a judge that always
    picks the longer response, it makes the figure one half, however often people prefer the longer.

    Args:
        table: Rows count by their `weights`.
        tie_band: A probability this close to 0.5 is a tie.

    Returns:
        `length_controlled_agreement` and `style_controlled_agreement` (length and style at once). The interval takes
        the wider of the logit's cluster-robust (sandwich) and model-based standard errors, with a t-distribution; where
        the judge is right, or wrong, everywhere, it is Wilson's at the number of clusters.

    Source: ours, after length-controlled AlpacaEval (Dubois et al., arXiv:2404.04475, section 3) and Lee et al.,
    RLAIF, arXiv:2309.00267, appendix J, whose plain ratio of lengths is not antisymmetric.
    """
    judge = verdicts(table.prob_a, tie_band)
    both = np.isfinite(table.human) & np.isfinite(judge) & (table.human != TIE) & (judge != TIE)
    decided = table.take(both)
    sign = np.where(decided.human > TIE, 1.0, -1.0)
    length = sign * np.log((decided.length_a + 1) / (decided.length_b + 1))
    counts_a, counts_b = decided.style_a.astype(np.float64), decided.style_b.astype(np.float64)
    style = sign[:, None] * (counts_a - counts_b) / (counts_a + counts_b + 1)
    right = judge[both] == decided.human
    return {
        "length_controlled_agreement": _figure(right, length[:, None], decided),
        "style_controlled_agreement": _figure(right, np.column_stack([length, style]), decided),
    }


class Needed(NamedTuple):
    """What messages say is missing: rows of what kind, and how one where the first difference is "shorter" or "longer"
    is described."""

    rows: str
    side: str


_AGREEMENT = Needed(
    "rows that both people and the judge decided", "rows where people prefer the {} response, or one as long"
)


def _figure(right: BoolArray, differences: FloatArray, decided: AuditTable) -> Figure:
    return controlled_share(right.astype(np.float64), differences, decided.clusters, decided.weights, needed=_AGREEMENT)


def controlled_share(
    outcome: FloatArray,
    differences: FloatArray,
    clusters: IntArray,
    weights: FloatArray | None = None,
    *,
    needed: Needed,
    is_balanced: bool = True,
) -> Figure:
    """The mean of an outcome as a logistic regression on differences predicts it where there is no difference.

    Args:
        outcome: In [0, 1] (N,): 1 and 0, or shares in between (0.5 is a tie).
        differences: What it is swayed by (N, K), 0 where there is none; the first is that of lengths.
        clusters: Of the rows (N,).
        weights: Of the rows (N,); None for the same.
        needed: For what is said where the data cannot support a figure.
        is_balanced: Whether rows that the differences speak for weigh as much as those that they speak against, as
            `controlled_agreement` tells.

    Returns:
        With the interval that `controlled_agreement` describes.
    """
    n = len(outcome)
    if n < _FEWEST_ROWS:
        return Figure(None, None, None, n, f"it takes {_FEWEST_ROWS} {needed.rows}")
    for other, side in (("shorter", differences[:, 0] <= 0), ("longer", differences[:, 0] >= 0)):
        if side.sum() < _FEWEST_ON_A_SIDE:
            return Figure(None, None, None, n, f"it takes {_FEWEST_ON_A_SIDE} {needed.side.format(other)}")
    clusters = np.unique(clusters, return_inverse=True)[1]
    count = int(clusters.max()) + 1
    if np.ptp(outcome) == 0.0:
        share = float(outcome[0])
        return Figure(share, *wilson_interval(share, count), n)
    weights = np.ones(n) if weights is None else weights / weights.mean()
    fit = _fit(outcome, differences, weights, clusters, is_balanced=is_balanced)
    value = _inverse_logit(fit.logit)
    if count < 2:
        return Figure(value, None, None, n, "an interval takes two clusters")
    from scipy.stats import t

    reach = float(t.ppf((1.0 + LEVEL) / 2, count - 1)) * fit.standard_error
    return Figure(value, _inverse_logit(fit.logit - reach), _inverse_logit(fit.logit + reach), n)


def _fit(
    outcome: FloatArray, differences: FloatArray, weights: FloatArray, clusters: IntArray, *, is_balanced: bool
) -> _Fit:
    scale = np.sqrt(np.average(differences**2, axis=0, weights=weights))
    design = np.column_stack([np.ones(len(outcome)), differences[:, scale > 0] / scale[scale > 0]])
    coefficients = _coefficients(outcome, design, weights)
    if is_balanced:
        weights = _balanced(weights, design[:, 1:] @ coefficients[1:])
        coefficients = _coefficients(outcome, design, weights)
    predicted = 1.0 / (1.0 + np.exp(-(design @ coefficients)))
    penalty = np.diag([0.0] + [_PENALTY] * (design.shape[1] - 1))
    bread = np.linalg.inv((design * (weights * predicted * (1.0 - predicted))[:, None]).T @ design + penalty)
    scores = design * (weights * (outcome - predicted))[:, None]
    count = int(clusters.max()) + 1
    by_cluster = np.stack([np.bincount(clusters, weights=score, minlength=count) for score in scores.T], axis=1)
    sandwich = bread @ (by_cluster.T @ by_cluster) @ bread * (count / max(1, count - 1))
    # With few errors the sandwich is too narrow: the slopes have bent to the very rows that it looks at.
    return _Fit(float(coefficients[0]), math.sqrt(max(sandwich[0, 0], bread[0, 0])))


def _coefficients(outcome: FloatArray, design: FloatArray, weights: FloatArray) -> FloatArray:
    if design.shape[1] == 1:
        share = float(np.average(outcome, weights=weights))
        return np.array([math.log(share / (1.0 - share))])
    from sklearn.linear_model import LogisticRegression

    # A share is so much of a row that is 1 and the rest of one that is 0: the likelihood is the same.
    parts = np.concatenate([weights * outcome, weights * (1.0 - outcome)])
    kept = parts > 0.0
    rows, labels = np.tile(design[:, 1:], (2, 1)), np.repeat([1.0, 0.0], len(outcome))
    model = LogisticRegression(C=1.0 / _PENALTY, solver="newton-cholesky", tol=1e-8, max_iter=200)
    model.fit(rows[kept], labels[kept], sample_weight=parts[kept])
    return np.asarray(np.concatenate([model.intercept_, model.coef_[0]]), dtype=np.float64)


def _balanced(weights: FloatArray, sway: FloatArray) -> FloatArray:
    """The rows with a positive sway get as much weight as those with a negative one."""
    sides = (sway > 0, sway < 0)
    totals = [float(weights[side].sum()) for side in sides]
    if not all(totals):
        return weights
    factors = [sum(totals) / 2 / total for total in totals]
    return np.asarray(weights * np.select(sides, factors, 1.0))


def _inverse_logit(logit: float) -> float:
    return 1.0 / (1.0 + math.exp(-logit)) if logit >= 0 else math.exp(logit) / (1.0 + math.exp(logit))

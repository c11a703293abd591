"""What people would say of all rows, from the few that they labelled and the judge's labels of all of them."""

from __future__ import annotations

import math

import numpy as np

from rlaif.auditing.intervals import LEVEL, wilson_interval
from rlaif.auditing.results import Figure, Section
from rlaif.auditing.table import TIE, AuditTable, BoolArray, FloatArray, IntArray, verdicts
from rlaif.records import TIE_BAND

_FEWEST_CLUSTERS = 10
"""Of labelled rows; below this the interval cannot be trusted."""


def prediction_powered(table: AuditTable, *, tie_band: float = TIE_BAND) -> Section:
    """Agreement and win rate over all judged rows; people need to have labelled only some of them.

    - `agreement`: over the rows that the judge decided and people decide, the share where both say the same. Proxy f =
      max(prob_a, 1 - prob_a), what the judge itself expects.
    - `win_rate`: over the judged rows, the share where people prefer A, a tie counting half. Proxy f = prob_a.

    With y what people say, the estimate is lambda * (mean of f over all rows - weighted mean of f over the labelled
    ones) + weighted mean of y over the labelled ones (for the agreement: over those that people decided). It is
    right for any judge; a better one makes the interval narrower. Lambda in [0, 1] minimises the estimated variance
    (power tuning); 0 leaves the plain weighted estimate. Weights are 1 / (probability that people were asked), as from
    `rlaif.auditing.suggesting`; labels not drawn so, with weights of 1, must be a random part of the rows. A row that
    people labelled without a strict plurality counts as not labelled.

    The variance is that of the linearised estimate, summed by cluster; the interval is Wilson's at the number of
    independent trials that would have that variance, with a quantile of the t-distribution. `n` is the number of
    labelled rows.

    Source: Angelopoulos et al., "Prediction-powered inference", arXiv:2301.09633; power tuning of "PPI++",
    arXiv:2311.01453, section 6; weights normalised to sum to 1 are Hajek's. The ratio over the rows that people decide,
    the sums by cluster and the form of the interval are ours; that form is the one surveys use for shares (Korn and
    Graubard, "Confidence intervals for proportions with small expected number of positive counts estimated from survey
    data", Survey Methodology 24, 1998, take an effective number of trials in the same way).
    """
    judge = verdicts(table.prob_a, tie_band)
    judged = np.isfinite(judge)
    decided = judged & (judge != TIE)
    people_decide = np.isfinite(table.human) & (table.human != TIE)
    agrees = (judge == table.human).astype(np.float64)
    confidence = np.maximum(table.prob_a, 1.0 - table.prob_a)
    return {
        "agreement": _estimate(table.take(decided), agrees[decided], confidence[decided], people_decide[decided]),
        "win_rate": _estimate(
            table.take(judged), table.human[judged], table.prob_a[judged], np.ones(int(judged.sum()), dtype=np.bool_)
        ),
    }


def _estimate(table: AuditTable, outcome: FloatArray, proxy: FloatArray, counts: BoolArray) -> Figure:
    """The mean of `outcome` over the rows that count, were all of them labelled.

    Args:
        table: The rows meant (N).
        outcome: What people say (N,); of the labelled rows only.
        proxy: Known of all rows (N,).
        counts: Whether a labelled row is one that the mean is over (N,).
    """
    labelled = np.isfinite(table.human)
    n = int(labelled.sum())
    clusters = len(np.unique(table.clusters[labelled]))
    if clusters < _FEWEST_CLUSTERS:
        return Figure(None, None, None, n, f"it takes human labels of {_FEWEST_CLUSTERS} rows (clusters, where given)")
    counted = labelled & counts
    if not counted.any():
        return Figure(None, None, None, n, "no row has a human majority for one response")
    weight = np.where(labelled, table.weights, 0.0)
    weight /= weight.sum()
    share_counted = float(weight[counted].sum())
    plain = float((weight * np.where(counted, outcome, 0.0)).sum()) / share_counted
    # What each row adds to the estimate's deviation: of the plain part, and of the proxy's.
    deviation = weight * np.where(counted, outcome - plain, 0.0) / share_counted
    shift = float(proxy.mean() - (weight * proxy).sum())
    proxy_deviation = (proxy - proxy.mean()) / len(proxy) - weight * (proxy - (weight * proxy).sum())
    first, second = _sums(deviation, table.clusters), _sums(proxy_deviation, table.clusters)
    power = _power(first, second)
    value = plain + power * shift
    variance = float(((first + power * second) ** 2).sum()) * clusters / (clusters - 1)
    value = min(1.0, max(0.0, value))
    low, high = _score_interval(value, variance, clusters)
    low, high = min(low, value), max(high, value)  # but for rounding it is so
    why = "every row has a human label: the plain estimate, to which the judge's labels add nothing"
    return Figure(value, low, high, n, why if labelled.all() else None)


def _score_interval(value: float, variance: float, clusters: int) -> tuple[float, float]:
    """Wilson's interval at the number of independent trials that would have this variance, with a t-quantile.

    Around a share near 0 or 1 the symmetric interval misses on one side: the estimate and its variance go together.
    """
    trials = value * (1.0 - value) / variance if variance > 0.0 else 0.0
    if trials <= 0.0:
        return wilson_interval(value, clusters)
    from scipy.stats import t

    square = float(t.ppf((1.0 + LEVEL) / 2, clusters - 1)) ** 2 / trials
    middle = (value + square / 2) / (1.0 + square)
    reach = math.sqrt(square * (value * (1.0 - value) + square / 4)) / (1.0 + square)
    return max(0.0, middle - reach), min(1.0, middle + reach)


def _power(deviation: FloatArray, proxy_deviation: FloatArray) -> float:
    """Lambda in [0, 1] that makes deviation + lambda * proxy_deviation smallest in its sum of squares."""
    squares = float((proxy_deviation**2).sum())
    if squares < 1e-24:
        return 0.0
    return min(1.0, max(0.0, -float((deviation * proxy_deviation).sum()) / squares))


def _sums(values: FloatArray, clusters: IntArray) -> FloatArray:
    return np.asarray(np.bincount(clusters, weights=values), dtype=np.float64)

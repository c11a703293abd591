"""The loss that a fitted calibration makes least, where it is least, and how certain that is. Pure arrays.

Fitted are (ln T, k, c), where c = T * b is the slot bias in the judge's own logits: (logit -/+ c) / T + k * length.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np

from rlaif.auditing.results import Figure
from rlaif.auditing.table import A, AuditTable, BoolArray, FloatArray, IntArray
from rlaif.calibration import CLIP, Calibration, clipped_logit, length_ratio, sigmoid

Debias = Literal["mean-prob", "mean-logit"]
SlotBiasFrom = Literal["both orders", "likelihood", "nothing"]

LEAST_ROWS_AN_ORDER = 20
"""Rows that the slot bias is told from: judged in both orders, or else, of each order, judged in that one only."""

_SPREAD = np.array([1.0, 1.0, 2.0])
"""Standard deviations of the normal prior on (ln T, k, c), around 0: worth a handful of rows. It keeps a judge that is
always right, or that says nothing, at finite numbers."""

_BOUNDS = ((-5.0, 5.0), (-10.0, 10.0), (-20.0, 20.0))
"""Of (ln T, k, c); far outside what the prior allows, so that no step of the search overflows."""

LEAST_PROB_SEEN = 1e-12
"""Probabilities are kept this far from 0 and 1 in logarithms."""

_NO_PULL = 1e-9
"""A row's part of an equation that is no larger is rounding."""

_SIGNS = np.array([-1.0, 1.0])
"""Of the slot bias in each order."""


class FitEvidence(NamedTuple):
    """What the fit looks at, over the N rows of the table; orders are columns, ab first.

    Attributes:
        logits: Clipped (N, 2); 0 where not asked.
        shares: Of each order in the average (N, 2): halves, or 1 and 0; 0 and 0 in rows that are not fitted to.
        lengths: ln of the ratio of lengths (N,).
        is_a: Whether people prefer A (N,).
        weights: (N,); 0 in rows that are not fitted to. They sum to Kish's effective number of rows, so that the prior
            weighs the same whatever their unit.
        paired: Rows from which the slot bias is read without a label (N,).
        debias: How orders are averaged.
        slot_bias_from: As in `rlaif.auditing.fitting.FitResult`.
    """

    logits: FloatArray
    shares: FloatArray
    lengths: FloatArray
    is_a: BoolArray
    weights: FloatArray
    paired: BoolArray
    debias: Debias
    slot_bias_from: SlotBiasFrom

    def at(self, rows: BoolArray) -> FitEvidence:
        """Only these rows; they keep their weights."""
        return self._replace(
            logits=self.logits[rows],
            shares=self.shares[rows],
            lengths=self.lengths[rows],
            is_a=self.is_a[rows],
            weights=self.weights[rows],
            paired=self.paired[rows],
        )


def evidence_of(table: AuditTable, usable: BoolArray, debias: Debias) -> FitEvidence:
    """What a table holds for a fit.

    Args:
        table: Of N rows.
        usable: Those with a decided human label and a probability (N,).
        debias: How orders will be averaged.
    """
    probs = np.stack([table.prob_a_ab, table.prob_a_ba], axis=1)
    asked = np.isfinite(probs)
    unclipped = asked & (probs > CLIP) & (probs < 1.0 - CLIP)
    paired = np.asarray(unclipped.all(axis=1))
    both = asked.all(axis=1)
    singles = [int(np.count_nonzero(usable & asked[:, order] & ~both)) for order in (0, 1)]
    slot_bias_from: SlotBiasFrom = "both orders"
    if np.count_nonzero(paired) < LEAST_ROWS_AN_ORDER:
        paired = np.zeros(len(table), dtype=np.bool_)
        slot_bias_from = "likelihood" if min(singles) >= LEAST_ROWS_AN_ORDER else "nothing"
    weights = np.where(usable, table.weights, 0.0)
    return FitEvidence(
        logits=np.where(asked, clipped_logit(np.where(asked, probs, 0.5)), 0.0),
        shares=np.where(usable[:, None], asked / np.maximum(1, asked.sum(axis=1, keepdims=True)), 0.0),
        lengths=length_ratio(table.length_a, table.length_b),
        is_a=table.human == A,
        weights=weights * weights.sum() / (weights**2).sum(),
        paired=paired,
        debias=debias,
        slot_bias_from=slot_bias_from,
    )


def minimum(evidence: FitEvidence, is_in: BoolArray) -> FloatArray:
    """(ln T, k, c) at which the penalised log loss over some of the rows is least.

    Args:
        evidence: Of all rows.
        is_in: The rows to look at (N,).
    """
    from scipy.optimize import minimize

    part = evidence.at(is_in)
    free = 3 if evidence.slot_bias_from == "likelihood" else 2
    read = np.array([0.0, 0.0, _paired_differences(part).sum() / max(1, part.paired.sum())])

    def loss(values: FloatArray) -> tuple[float, FloatArray]:
        theta = np.concatenate([values, read[free:]])
        losses, gradients = losses_and_gradients(theta, part)
        penalty = float(((values / _SPREAD[:free]) ** 2).sum()) / 2
        return float(losses.sum()) + penalty, gradients.sum(axis=0)[:free] + values / _SPREAD[:free] ** 2

    fine = {"ftol": 1e-14, "gtol": 1e-8}
    least = minimize(loss, read[:free], jac=True, method="L-BFGS-B", bounds=_BOUNDS[:free], options=fine)
    return np.concatenate([least.x, read[free:]])


def _paired_differences(evidence: FitEvidence) -> FloatArray:
    """(logit p_ab - logit p_ba) / 2 of rows that tell the slot bias without a label, c on average; else 0 (N,)."""
    return np.where(evidence.paired, evidence.logits[:, 0] - evidence.logits[:, 1], 0.0) / 2


def losses_and_gradients(theta: FloatArray, evidence: FitEvidence) -> tuple[FloatArray, FloatArray]:
    """Weighted log loss of each row (N,), and its gradient by ln T, k and c (N, 3)."""
    temperature = np.exp(theta[0])
    own = (evidence.logits + _SIGNS * theta[2]) / temperature
    lengths = evidence.lengths[:, None]
    logits = own + theta[1] * lengths
    slopes = (-own, lengths, _SIGNS / temperature)
    if evidence.debias == "mean-logit":
        mean = (evidence.shares * logits).sum(axis=1)
        losses = np.logaddexp(0.0, np.where(evidence.is_a, -mean, mean))
        pulls = evidence.shares * (sigmoid(mean) - evidence.is_a)[:, None]
    else:
        signs = np.where(evidence.is_a, 1.0, -1.0)[:, None]
        seen = sigmoid(signs * logits)  # of the label that was seen, so that nothing is lost near 1
        prob_seen = np.maximum((evidence.shares * seen).sum(axis=1), LEAST_PROB_SEEN)
        losses = -np.log(prob_seen)
        pulls = -signs * evidence.shares * seen * (1.0 - seen) / prob_seen[:, None]
    counted = evidence.weights > 0
    gradients = np.stack([(pulls * slope).sum(axis=1) for slope in slopes], axis=1)
    return np.where(counted, evidence.weights * losses, 0.0), gradients * evidence.weights[:, None]


def calibration_at(theta: FloatArray) -> Calibration:
    """(ln T, k, c) as T, b and k."""
    log_temperature, slope, raw_bias = (float(value) for value in theta)
    temperature = math.exp(log_temperature)
    return Calibration(temperature, raw_bias / temperature, slope)


def length_share(theta: FloatArray, evidence: FitEvidence) -> float:
    """How much of the spread of the calibrated logits is the length term's: its variance over rows, divided by the sum
    of that and the variance of the judge's own part, in [0, 1]."""
    own = (evidence.shares * (evidence.logits + _SIGNS * theta[2])).sum(axis=1) / np.exp(theta[0])
    spreads = [np.cov(part, aweights=evidence.weights) for part in (theta[1] * evidence.lengths, own)]
    return float(spreads[0] / sum(spreads)) if sum(spreads) > 0 else 0.0


def intervals(theta: FloatArray, evidence: FitEvidence, clusters: IntArray) -> dict[str, Figure]:
    """The parameters with 95 % intervals from the sandwich covariance over clusters (t, with C - 1 degrees of freedom),
    where any rows tell them.

    Source: Liang and Zeger, "Longitudinal data analysis using generalized linear models", Biometrika 73 (1986), for
    the covariance; Newey and McFadden, "Large sample estimation and hypothesis testing" (1994), section 6, for the slot
    bias that is estimated first and then put into the loss.
    """
    from scipy.stats import t

    step = 1e-5
    columns = [
        (_equations(theta + shift, evidence).sum(axis=0) - _equations(theta - shift, evidence).sum(axis=0)) / (2 * step)
        for shift in np.eye(3) * step
    ]
    free = [0, 1] if evidence.slot_bias_from == "nothing" else [0, 1, 2]
    is_fitted = np.array([True, True, evidence.slot_bias_from == "likelihood"])
    slopes = (np.stack(columns, axis=1) + np.diag(np.where(is_fitted, 1.0 / _SPREAD**2, 0.0)))[np.ix_(free, free)]
    by_row = _equations(theta, evidence)[:, free]
    by_cluster = np.stack([np.bincount(clusters, weights=column) for column in by_row.T], axis=1)
    size = len(np.unique(clusters[(np.abs(by_row) > _NO_PULL).any(axis=1)]))
    inverse = np.linalg.inv(slopes)
    covariance = np.zeros((3, 3))
    covariance[np.ix_(free, free)] = inverse @ (by_cluster.T @ by_cluster) @ inverse.T * size / max(1, size - 1)

    calibration = calibration_at(theta)
    bias, temperature = calibration.slot_bias, calibration.temperature
    by_bias = np.array([-bias, 0.0, 1.0 / temperature])  # of b = c / T by ln T, k and c
    reach = float(t.ppf(0.975, max(1, size - 1)))
    error_t, error_k = (reach * math.sqrt(covariance[place, place]) for place in (0, 1))
    # Where no row pulls at a parameter, the prior alone holds it: resampling rows would find it certain.
    is_told = (np.abs(by_row).max(axis=0) > _NO_PULL) & (size > 1)
    untold = "the rows do not tell it"
    error_b = reach * math.sqrt(float(by_bias @ covariance @ by_bias))
    rows = int(np.count_nonzero(evidence.weights))
    paired = int(np.count_nonzero(evidence.paired))
    slope = calibration.length_slope
    return {
        "temperature": Figure(temperature, temperature * math.exp(-error_t), temperature * math.exp(error_t), rows)
        if is_told[0]
        else Figure(temperature, None, None, rows, untold),
        "slot_bias": Figure(bias, None, None, rows, "nothing tells the slot bias; it is left at 0")
        if evidence.slot_bias_from == "nothing"
        else Figure(bias, bias - error_b, bias + error_b, paired or rows),
        "length_slope": Figure(slope, slope - error_k, slope + error_k, rows)
        if is_told[1]
        else Figure(slope, None, None, rows, untold),
    }


def _equations(theta: FloatArray, evidence: FitEvidence) -> FloatArray:
    """What each row adds to the equations whose sums the fit makes 0, but for the prior (N, 3)."""
    _, equations = losses_and_gradients(theta, evidence)
    if evidence.slot_bias_from != "likelihood":
        equations[:, 2] = np.where(evidence.paired, _paired_differences(evidence) - theta[2], 0.0)
    return equations

"""A judge's calibration from human labels: temperature, slot bias and length slope, with what it is worth out of fold.
Pure; `rlaif.calibration` has the form, and applies it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rlaif.auditing.calibration_loss import (
    LEAST_PROB_SEEN,
    LEAST_ROWS_AN_ORDER,
    Debias,
    FitEvidence,
    SlotBiasFrom,
    calibration_at,
    evidence_of,
    intervals,
    length_share,
    minimum,
)
from rlaif.auditing.intervals import estimate, mean_statistic
from rlaif.auditing.reliability import LEAST_PROB, probability_statistics
from rlaif.auditing.results import Figure
from rlaif.auditing.table import TIE, A, AuditTable, BoolArray, FloatArray, IntArray
from rlaif.calibration import CLIP, Calibration, FittedOn, calibrated, sigmoid
from rlaif.errors import CalibrationError
from rlaif.records import Order

LEAST_ROWS = 50
"""Rows with a decided human label, at least; 200 to 500 are usual, and with fewer than 50 the slope is noise."""

SCORES = ("brier", "log_loss", "ece")

_MOSTLY_CLIPPED = 0.5

_MOSTLY_LENGTH = 0.5

_SAYS_LITTLE = 5.0
"""A temperature above this makes 0.99 less than 0.72."""


@dataclass(frozen=True)
class FitResult:
    """A fitted calibration, and how far to trust it.

    Attributes:
        calibration: Fitted to all rows; its `fitted_on` holds the cross-validated figures.
        parameters: `temperature`, `slot_bias`, `length_slope`, with 95 % intervals (sandwich, clustered).
        before, after: `brier`, `log_loss`, `ece` of the rows without and with a calibration that was fitted to other
            clusters (out of fold).
        gain: Log loss before minus after, in nats a row, with its interval; above 0 where calibrating helps.
        rows, clusters: With a decided human label and a usable answer.
        folds: Of the cross-validation.
        slot_bias_from: Where the slot bias was read: the difference between the "both orders" of a row; the
            "likelihood" of rows judged in one order each; or "nothing" that could tell it, and it is 0.
        clipped_share: Share of the probabilities that are closer to 0 or 1 than 1e-4.
        length_share: How much of the spread of the calibrated logits is the length term's and not the judge's, 0 to 1.
    """

    calibration: Calibration
    parameters: Mapping[str, Figure]
    before: Mapping[str, float]
    after: Mapping[str, float]
    gain: Figure
    rows: int
    clusters: int
    folds: int
    slot_bias_from: SlotBiasFrom
    clipped_share: float
    length_share: float

    @property
    def helps(self) -> bool:
        """Whether log loss is smaller with it, out of fold."""
        return self.gain.value is not None and self.gain.value > 0

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should know before using it, a sentence each."""
        found = []
        losses = f"log loss {self.before['log_loss']:.4f} before, {self.after['log_loss']:.4f} after"
        if not self.helps:
            found.append(f"the calibration does not help on rows it was not fitted to ({losses}): better not to use it")
        elif self.gain.low is not None and self.gain.low <= 0:
            found.append(
                f"the calibration's gain is not certain ({losses}; the interval of the gain reaches below 0): "
                "more human labels would tell"
            )
        if self.calibration.temperature > _SAYS_LITTLE:
            found.append(
                f"the temperature is {self.calibration.temperature:.1f}: the judge's probabilities say little about "
                "what people prefer, and calibrated they all come near 0.5"
            )
        if self.length_share > _MOSTLY_LENGTH:
            way = "longer" if self.calibration.length_slope > 0 else "shorter"
            found.append(
                f"the calibrated labels follow the lengths of the responses more than the judge: people prefer the "
                f"{way} one more than it does, and a policy trained on such labels may learn length alone"
            )
        if self.slot_bias_from == "nothing":
            found.append(
                "the slot bias could not be told and is left at 0: it takes rows judged in both orders, or rows of "
                f"each order (at least {LEAST_ROWS_AN_ORDER} with a human label)"
            )
        if self.clipped_share > _MOSTLY_CLIPPED:
            found.append(
                f"{self.clipped_share:.0%} of the probabilities are closer to 0 or 1 than {CLIP:g}: the judge is so "
                "sure that little is left to calibrate"
            )
        return tuple(found)

    def as_mapping(self) -> dict[str, Any]:
        """For `Audit.calibration`: the numbers at the top, everything else beside them."""
        intervals = {name: [figure.low, figure.high] for name, figure in self.parameters.items()}
        return {
            **self.calibration.parameters,
            "intervals": intervals,
            "before": dict(self.before),
            "after": dict(self.after),
            "gain": self.gain,
            "helps": self.helps,
            "n": self.rows,
            "clusters": self.clusters,
            "folds": self.folds,
            "slot_bias_from": self.slot_bias_from,
            "clipped_share": self.clipped_share,
            "length_share": self.length_share,
            "fingerprint": self.calibration.fingerprint,
            "warnings": list(self.warnings),
        }


def fit_calibration(
    table: AuditTable,
    *,
    seed: int = 0,
    folds: int = 5,
    debias: Debias = "mean-prob",
    judges: tuple[str, ...] = (),
    task: str | None = None,
    template: str | None = None,
) -> FitResult:
    """Fit temperature, slot bias and length slope to the decided human labels of a table.

    The log loss of the calibrated, averaged `prob_a` is made least, under a weak normal prior. Where rows were judged
    in both orders, the slot bias is not fitted: it is half the mean difference of the two logits, over all rows of
    the table, which takes no human label.

    Args:
        table: Its `prob_a_ab` and `prob_a_ba` are the judge's own, never calibrated before.
        seed: Of the folds, and of the bootstrap behind the gain's interval.
        folds: Of the cross-validation; rows of one cluster are never parted.
        debias: How orders are averaged where the calibration will be used.
        judges, task, template: Whose probabilities these are (`FittedOn`), for the record.

    Raises:
        CalibrationError: There are too few labels, of one kind only, no probabilities by order, or nothing but hard
            verdicts in them.
    """
    usable = _usable(table)
    _check(table, usable)
    evidence = evidence_of(table, usable, debias)
    theta = minimum(evidence, np.ones(len(table), dtype=np.bool_))
    calibration = calibration_at(theta)

    rows = table.take(usable)
    groups = np.random.default_rng(seed).permutation(int(rows.clusters.max()) + 1)[rows.clusters]
    clusters = len(np.unique(groups))
    folds = min(folds, clusters)
    plain = replace(rows, prob_a=average(rows.prob_a_ab, rows.prob_a_ba, debias))
    held_out = replace(rows, prob_a=_out_of_fold(rows, groups, evidence, folds, usable))
    before, after = _scores(plain), _scores(held_out)
    gains = _losses(plain) - _losses(held_out)
    everything = np.ones(len(rows), dtype=np.bool_)
    gain = mean_statistic(gains, everything, rows.weights, bounds=None)
    origin = FittedOn(len(rows), judges, task, template, debias, folds, before, after)
    return FitResult(
        calibration=replace(calibration, fitted_on=origin),
        parameters=intervals(theta, evidence, table.clusters),
        before=before,
        after=after,
        gain=estimate({"gain": gain}, rows.clusters, seed=seed)["gain"],
        rows=len(rows),
        clusters=clusters,
        folds=folds,
        slot_bias_from=evidence.slot_bias_from,
        clipped_share=_clipped_share(rows),
        length_share=length_share(theta, evidence),
    )


def calibrated_prob(table: AuditTable, calibration: Calibration, debias: Debias = "mean-prob") -> FloatArray:
    """P(A preferred) of each row (N,), calibrated and averaged over the orders that were asked; `prob_a` where none
    was (identical responses)."""
    prob_ab, prob_ba = (
        calibrated(prob, order, table.length_a, table.length_b, calibration)
        for order, prob in ((Order.AB, table.prob_a_ab), (Order.BA, table.prob_a_ba))
    )
    averaged = average(prob_ab, prob_ba, debias)
    return np.where(np.isnan(averaged), table.prob_a, averaged)


def average(prob_ab: FloatArray, prob_ba: FloatArray, debias: Debias) -> FloatArray:
    """`rlaif.judge.scoring.combine_orders` for arrays: NaN where not asked, the other order's where one was."""
    if debias == "mean-prob":
        both = (prob_ab + prob_ba) / 2
    else:
        logits = [
            np.log(np.maximum(prob, LEAST_PROB_SEEN)) - np.log(np.maximum(1.0 - prob, LEAST_PROB_SEEN))
            for prob in (prob_ab, prob_ba)
        ]
        both = sigmoid((logits[0] + logits[1]) / 2)
    return np.where(np.isnan(prob_ab), prob_ba, np.where(np.isnan(prob_ba), prob_ab, both))


# --- what can be fitted to --------------------------------------------------------------------------------------------


def _usable(table: AuditTable) -> BoolArray:
    """Rows with a decided human label and a probability in at least one order (N,)."""
    is_decided = np.isfinite(table.human) & (table.human != TIE)
    has_order = np.isfinite(table.prob_a_ab) | np.isfinite(table.prob_a_ba)
    return np.asarray(is_decided & has_order & np.isfinite(table.prob_a))


def _check(table: AuditTable, usable: BoolArray) -> None:
    """Refuse what no calibration can be fitted to."""
    asked = np.concatenate([table.prob_a_ab, table.prob_a_ba])
    asked = asked[np.isfinite(asked)]
    if not len(asked):
        raise CalibrationError(
            "there is no probability by order to calibrate (prob_a_ab, prob_a_ba): use a run folder of rlaif label, "
            "or --judge-column with the judge's probabilities"
        )
    if np.isin(np.clip(asked, CLIP, 1.0 - CLIP), (CLIP, TIE, 1.0 - CLIP)).all():
        raise CalibrationError(
            f"the judge gave only hard verdicts (each is a tie, or closer to 0 or 1 than {CLIP:g}), which have no "
            "logit to calibrate: use a judge with log-probabilities, or --scoring sample with several --samples"
        )
    count = int(np.count_nonzero(usable))
    if count < LEAST_ROWS:
        raise CalibrationError(
            f"{count} rows have both a human majority and the judge's probability, expected at least {LEAST_ROWS}: "
            f"{LEAST_ROWS - count} more are needed, and 200 to 500 make a good calibration (--suggest draws rows to "
            "label)"
        )
    preferred = set(table.human[usable].tolist())
    if len(preferred) < 2:
        side = "A" if preferred == {A} else "B"
        raise CalibrationError(
            f"people prefer response {side} in all of the {count} rows; expected rows of both kinds: put the two "
            "responses in random order, or check the column of the human labels"
        )
    if len(np.unique(table.clusters[usable])) < 2:
        raise CalibrationError(
            f"the {count} rows with a human label all belong to one cluster, so that none can be held out; expected "
            "several prompts (--cluster names the column that tells them apart)"
        )


def _clipped_share(rows: AuditTable) -> float:
    probs = np.concatenate([rows.prob_a_ab, rows.prob_a_ba])
    probs = probs[np.isfinite(probs)]
    return float(np.mean((probs <= CLIP) | (probs >= 1.0 - CLIP)))


# --- how far to trust it ----------------------------------------------------------------------------------------------


def _out_of_fold(
    rows: AuditTable, groups: IntArray, evidence: FitEvidence, folds: int, usable: BoolArray
) -> FloatArray:
    """`prob_a` of each usable row under a calibration fitted to the other folds."""
    from sklearn.model_selection import GroupKFold

    places = np.flatnonzero(usable)
    prob_a = np.empty(len(rows))
    for _, held_out in GroupKFold(folds).split(groups, groups=groups):
        is_in = np.ones(len(usable), dtype=np.bool_)
        is_in[places[held_out]] = False
        calibration = calibration_at(minimum(evidence, is_in))
        prob_a[held_out] = calibrated_prob(rows.take(held_out), calibration, evidence.debias)
    return prob_a


def _scores(rows: AuditTable) -> dict[str, float]:
    found = probability_statistics(rows)
    return {name: found[name].value() for name in SCORES}


def _losses(rows: AuditTable) -> FloatArray:
    return -np.log(np.maximum(np.where(rows.human == A, rows.prob_a, 1.0 - rows.prob_a), LEAST_PROB))

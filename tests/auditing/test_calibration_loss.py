"""The loss behind a calibration: its value by hand, its gradient, and how certain its minimum is."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from auditing.simulated import simulated_judge
from auditing.tables import table_of
from hypothesis import given
from hypothesis import strategies as st

from rlaif.auditing.calibration_loss import (
    calibration_at,
    evidence_of,
    intervals,
    length_share,
    losses_and_gradients,
    minimum,
)
from rlaif.auditing.table import AuditTable


def everything(table: AuditTable) -> np.ndarray:
    return np.ones(len(table), dtype=np.bool_)


def test_the_loss_by_hand() -> None:
    # T 2, c 0.4 (b 0.2), k 0: odds 4 in ab and 2 in ba. ab: sqrt(4 * exp(-0.4)) = 1.6375, p 0.62084;
    # ba: sqrt(2 * exp(0.4)) = 1.7273, p 0.63334. People prefer A: loss -ln of the mean, 0.62709.
    table = table_of([0.73], [1.0], prob_a_ab=[0.8], prob_a_ba=[2 / 3])
    theta = np.array([math.log(2), 0.0, 0.4])
    odds = [math.sqrt(4 * math.exp(-0.4)), math.sqrt(2 * math.exp(0.4))]
    evidence = evidence_of(table, everything(table), "mean-prob")
    losses, _ = losses_and_gradients(theta, evidence)
    assert losses[0] == pytest.approx(-math.log(sum(each / (1 + each) for each in odds) / 2))
    assert losses[0] == pytest.approx(-math.log(0.62709), abs=1e-5)
    # mean-logit: the bias cancels, odds are the geometric mean
    losses, _ = losses_and_gradients(theta, evidence_of(table, everything(table), "mean-logit"))
    both = math.sqrt(math.sqrt(4) * math.sqrt(2))
    assert losses[0] == pytest.approx(-math.log(both / (1 + both)))


@given(
    st.tuples(st.floats(-1.5, 1.5), st.floats(-2, 2), st.floats(-2, 2)),
    st.sampled_from(["mean-prob", "mean-logit"]),
    st.sampled_from(["both", "random"]),
)
def test_the_gradient_is_that_of_the_loss(theta: tuple[float, float, float], debias: str, orders: str) -> None:
    table = simulated_judge(1, 20, 2.0, 0.3, 0.3, noise=0.5, orders=orders)
    evidence = evidence_of(table, everything(table), debias)  # type: ignore[arg-type]
    values, step = np.array(theta), 1e-6
    _, gradients = losses_and_gradients(values, evidence)
    for place, shift in enumerate(np.eye(3) * step):
        above, below = (losses_and_gradients(values + sign * shift, evidence)[0] for sign in (1, -1))
        assert gradients[:, place] == pytest.approx((above - below) / (2 * step), abs=1e-5)


def test_rows_without_a_label_weigh_nothing_and_still_tell_the_slot_bias() -> None:
    table = simulated_judge(2, 100, 2.0, 0.5)
    labelled = np.arange(100) < 40
    evidence = evidence_of(replace(table, human=np.where(labelled, table.human, np.nan)), labelled, "mean-prob")
    losses, gradients = losses_and_gradients(np.zeros(3), evidence)
    assert not losses[~labelled].any()
    assert not gradients[~labelled].any()
    assert evidence.paired.sum() > 90  # but for the few that are clipped
    assert minimum(evidence, everything(table))[2] == pytest.approx(2.0 * 0.5)


def test_weights_sum_to_the_effective_number_of_rows() -> None:
    # weights 3 and 1: (3 + 1)^2 / (9 + 1) = 1.6
    table = table_of([0.8, 0.3], [1.0, 0.0], weights=[3.0, 1.0])
    evidence = evidence_of(table, everything(table), "mean-prob")
    assert evidence.weights.tolist() == pytest.approx([1.2, 0.4])


@pytest.mark.parametrize("orders", ["both", "random"])
def test_standard_errors_are_those_of_repetition(orders: str) -> None:
    found, reaches = [], []
    for seed in range(100):
        table = simulated_judge(seed, 300, 1.5, 0.5, 0.3, orders=orders)
        evidence = evidence_of(table, everything(table), "mean-prob")
        theta = minimum(evidence, everything(table))
        figures = intervals(theta, evidence, table.clusters)
        found.append([*calibration_at(theta).parameters.values()])
        reaches.append(
            [(figures[name].high - figures[name].low) / 2 / 1.97 for name in calibration_at(theta).parameters]
        )
    # the standard deviation of 100 draws is itself known to 7 %
    assert np.mean(reaches, axis=0) == pytest.approx(np.std(found, axis=0, ddof=1), rel=0.25)


def test_copies_of_rows_in_one_cluster_make_nothing_more_certain() -> None:
    table = simulated_judge(3, 1000, 1.5, 0.5, 0.3, noise=0.5)
    twice = table.take(np.repeat(np.arange(1000), 2))
    widths = []
    for each in (table, twice):
        evidence = evidence_of(each, everything(each), "mean-prob")
        figures = intervals(minimum(evidence, everything(each)), evidence, each.clusters)
        widths.append([figure.high - figure.low for figure in figures.values()])
    assert widths[1] == pytest.approx(widths[0], rel=0.02)  # not exactly: the prior weighs half as much


def test_what_lengths_make_of_the_labels() -> None:
    table = simulated_judge(4, 300)
    evidence = evidence_of(table, everything(table), "mean-prob")
    assert length_share(np.array([0.0, 0.0, 0.0]), evidence) == 0.0
    assert length_share(np.array([4.0, 1.0, 0.0]), evidence) > 0.9
    assert length_share(np.array([0.0, 0.1, 0.0]), evidence) < 0.1


@pytest.mark.parametrize("debias", ["mean-prob", "mean-logit"])
def test_what_no_rows_tell_has_no_interval(debias: str) -> None:
    people = [1.0, 0.0] * 50
    # Only the slot matters, by as much in every row: nothing is left for the temperature, nor for equal lengths.
    slot_only = table_of([0.5] * 100, people, prob_a_ab=[0.9] * 100, prob_a_ba=[0.1] * 100)
    # A single row that is no tie.
    one_row = table_of([0.6] + [0.5] * 99, people)
    for table in (slot_only, one_row):
        evidence = evidence_of(table, everything(table), debias)  # type: ignore[arg-type]
        figures = intervals(minimum(evidence, everything(table)), evidence, table.clusters)
        for name in ("temperature", "length_slope"):
            assert (figures[name].low, figures[name].why) == (None, "the rows do not tell it")

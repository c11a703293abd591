"""Agreement and win rate from few human labels and many of a judge's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from auditing.tables import make_table, table_of
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.weightstats import DescrStatsW

from rlaif.auditing.intervals import wilson_interval
from rlaif.auditing.prediction_powered import prediction_powered
from rlaif.auditing.results import Figure
from rlaif.auditing.suggesting import draw, sampling_probs
from rlaif.auditing.table import AuditTable, FloatArray


def figures_of(table: AuditTable) -> dict[str, Figure]:
    return {name: figure for name, figure in prediction_powered(table).items() if isinstance(figure, Figure)}


def bounds(figure: Figure) -> tuple[float, float, float]:
    assert figure.value is not None
    assert figure.low is not None
    assert figure.high is not None
    return figure.value, figure.low, figure.high


def people_of(rng: np.random.Generator, count: int, slope: float) -> AuditTable:
    """People prefer A with probability q; the judge says q with its logit times `slope`."""
    q = np.clip(rng.beta(0.5, 0.4, count), 1e-4, 1 - 1e-4)
    people = (rng.random(count) < q).astype(np.float64)
    prob_a = 1 / (1 + (1 / q - 1) ** slope)
    return table_of(prob_a.tolist(), people.tolist())


def asked(table: AuditTable, rows: np.ndarray[tuple[int], np.dtype[np.int64]], probs: FloatArray) -> AuditTable:
    human, weights = np.full(len(table), np.nan), np.ones(len(table))
    human[rows], weights[rows] = table.human[rows], 1 / probs[rows]
    return replace(table, human=human, weights=weights)


def test_hand_worked() -> None:
    # 40 rows, 20 of them labelled: the judge says 0.9 in half of each kind and 0.1 in the other, and is always right.
    prob_a = [0.9] * 15 + [0.1] * 5 + [0.9] * 5 + [0.1] * 15
    people = [1.0] * 15 + [0.0] * 5 + [None] * 20
    win_rate = figures_of(table_of(prob_a, people))["win_rate"]
    # People prefer A in 15 of 20; the judge's mean is 0.7 there and 0.5 over all. y = 1.25 f - 0.125 exactly, so that
    # the best lambda for labels alone is 1.25; the judged rows vary too, and lambda falls: the deviation of a labelled
    # row is (y - 0.75) / 20 = 0.0125 or -0.0375, that of the proxy (f - 0.5) / 40 - (f - 0.7) / 20 = 0 or 0.02, and
    # 0.01 or -0.01 in unlabelled rows. Lambda = 5 * 0.0375 * 0.02 / (5 * 0.02^2 + 20 * 0.01^2) = 0.9375.
    assert win_rate.value == pytest.approx(0.75 - 0.9375 * 0.2)
    assert win_rate.n == 20


def test_without_a_useful_judge_it_is_the_plain_mean() -> None:
    rng = np.random.default_rng(0)
    people: list[float | None] = [*(rng.random(100) < 0.6).astype(float).tolist(), *[None] * 400]
    figure = figures_of(table_of([0.7] * 500, people))["win_rate"]
    known = np.array(people[:100], dtype=np.float64)
    value, low, high = bounds(figure)
    assert value == pytest.approx(known.mean())
    plain_low, plain_high = DescrStatsW(known).tconfint_mean()
    assert (low, high) == pytest.approx((plain_low, plain_high), abs=0.01)  # Wilson's form is a little narrower


def test_weights_make_it_the_hajek_estimate() -> None:
    people: list[float | None] = [1.0] * 10 + [0.0] * 10 + [None] * 30
    weights = np.array([3.0] * 10 + [1.0] * 10 + [1.0] * 30)
    table = table_of([0.7] * 50, people, weights=weights)
    figures = figures_of(table)
    assert figures["win_rate"].value == pytest.approx(30 / 40)
    assert figures["agreement"].value == pytest.approx(30 / 40)
    as_many = figures_of(replace(table, weights=weights * 7))
    assert as_many["win_rate"].value == pytest.approx(30 / 40)


def test_agreement_is_over_what_both_decide() -> None:
    prob_a = [0.9] * 8 + [0.5] * 4 + [0.9] * 8
    people = [1.0] * 6 + [0.0] * 2 + [1.0] * 4 + [0.5] * 8
    figures = figures_of(table_of(prob_a, people))
    assert figures["agreement"].value == pytest.approx(6 / 8)
    assert figures["agreement"].n == 16  # the judge's ties are left out
    assert figures["win_rate"].value == pytest.approx((6 + 4 + 8 / 2) / 20)


def test_a_narrower_interval_than_labels_alone() -> None:
    rng = np.random.default_rng(1)
    table = people_of(rng, 3000, 1.0)
    known = np.arange(3000) < 200
    human = np.where(known, table.human, np.nan)
    powered = bounds(figures_of(replace(table, human=human))["win_rate"])
    alone = bounds(figures_of(replace(table.take(known), prob_a=np.full(200, 0.6)))["win_rate"])
    assert powered[2] - powered[1] < 0.8 * (alone[2] - alone[1])


@pytest.mark.parametrize("slope", [0.3, 1.0, 3.0])
def test_suggested_rows_do_not_bias_it(slope: float) -> None:
    rng = np.random.default_rng(2)
    truth = figures_of(people_of(rng, 200_000, slope))
    times, covered = 200, {"agreement": 0, "win_rate": 0}
    naive: list[float] = []
    powered: list[float] = []
    for seed in range(times):
        table = people_of(rng, 600, slope)
        probs = sampling_probs(table, 60)
        rows = draw(probs, seed)
        sample = asked(table, rows, probs)
        figures = figures_of(sample)
        for name, figure in figures.items():
            _, low, high = bounds(figure)
            covered[name] += low <= (truth[name].value or 0.0) <= high
        powered.append(figures["agreement"].value or 0.0)
        naive.append(float(np.mean((table.prob_a[rows] > 0.5) == table.human[rows])))
    # 200 draws of 0.95 fall below 0.91 in one case of 100.
    assert min(covered.values()) >= 0.91 * times
    target = truth["agreement"].value or 0.0
    assert np.mean(powered) == pytest.approx(target, abs=0.012)
    assert np.mean(naive) < target - 0.012 * (slope + 0.5)


def test_clusters_tell_in_the_interval() -> None:
    table = make_table(np.random.default_rng(3), 60)
    fourfold = table.take(np.repeat(np.arange(60), 4))  # keeps the clusters
    once, four_times = figures_of(table)["agreement"], figures_of(fourfold)["agreement"]
    assert bounds(four_times) == pytest.approx(bounds(once))
    assert four_times.n == 240


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_a_and_b_can_change_places(seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = make_table(rng, 200, clusters=80, human_ties=0.2, judge_ties=0.1, unlabelled=0.5, unanswered=0.1)
    table = replace(table, weights=rng.uniform(1, 5, 200))
    figures, exchanged = figures_of(table), figures_of(table.swapped())
    assert bounds(exchanged["agreement"]) == pytest.approx(bounds(figures["agreement"]))
    value, low, high = bounds(figures["win_rate"])
    assert bounds(exchanged["win_rate"]) == pytest.approx((1 - value, 1 - high, 1 - low))
    for figure in figures.values():
        value, low, high = bounds(figure)
        assert 0 <= low <= value <= high <= 1


def test_what_it_says_of_too_few_and_of_all() -> None:
    few = figures_of(table_of([0.9] * 50, [1.0] * 9 + [None] * 41))
    for figure in few.values():
        assert (figure.value, figure.n) == (None, 9)
        assert figure.why == "it takes human labels of 10 rows (clusters, where given)"
    all_labelled = figures_of(table_of([0.9, 0.2] * 10, [1.0] * 20))
    assert all_labelled["agreement"].value == pytest.approx(0.5)
    assert "every row has a human label" in (all_labelled["win_rate"].why or "")
    ties = figures_of(table_of([0.9] * 20, [0.5] * 15 + [None] * 5))
    assert ties["agreement"].why == "no row has a human majority for one response"
    nothing = figures_of(table_of([None] * 20, [1.0] * 20))
    assert nothing["win_rate"].value is None


def test_where_all_labels_are_alike_it_is_wilson_s() -> None:
    figure = figures_of(table_of([0.9] * 50, [1.0] * 30 + [None] * 20))["agreement"]
    assert bounds(figure) == pytest.approx((1.0, *wilson_interval(1.0, 30)))


def test_the_interval_holds_a_value_of_one() -> None:
    table = table_of([0.9] * 200, [1.0] * 10 + [None] * 190)
    figure = prediction_powered(table)["agreement"]
    assert isinstance(figure, Figure)
    assert (figure.value, figure.high) == (1.0, 1.0)

"""Agreement between responses of equal length and style."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from auditing.tables import make_table, table_of
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif.auditing.controlled import Needed, controlled_agreement, controlled_share
from rlaif.auditing.intervals import wilson_interval
from rlaif.auditing.table import AuditTable

NAMES = ["length_controlled_agreement", "style_controlled_agreement"]


def lengths_table(rng: np.random.Generator, count: int, *, theta: float, phi: float, longer: float) -> AuditTable:
    """People prefer the longer response with probability `longer`; logit P(judge says A) = theta * h + phi * x."""
    length_a, length_b = rng.integers(10, 3000, (2, count))
    human = np.where(rng.random(count) < longer, length_a > length_b, length_a < length_b).astype(np.float64)
    logit = theta * (2 * human - 1) + phi * np.log((length_a + 1) / (length_b + 1))
    judge = rng.random(count) < 1 / (1 + np.exp(-np.clip(logit, -500, 500)))
    style = rng.integers(0, 5, (2, count, 3))
    return table_of(
        judge.astype(float).tolist(), human.tolist(),
        length_a=length_a, length_b=length_b, style_a=style[0], style_b=style[1],
    )  # fmt: skip


def agreement(table: AuditTable) -> float:
    return float(np.mean((table.prob_a > 0.5) == (table.human > 0.5)))


def test_a_judge_that_picks_the_longer_has_no_agreement_of_its_own() -> None:
    table = lengths_table(np.random.default_rng(0), 5000, theta=0.0, phi=1e6, longer=0.65)
    assert agreement(table) == pytest.approx(0.65, abs=0.02)
    for figure in controlled_agreement(table).values():
        assert figure.value == pytest.approx(0.5, abs=0.03)
        assert figure.low is not None
        assert figure.high is not None
        assert figure.low < 0.5 < figure.high


@pytest.mark.parametrize("longer", [0.1, 0.5, 0.8])
@pytest.mark.parametrize("phi", [-1.0, 0.0, 1.0])
def test_the_model_s_own_figure_is_recovered(longer: float, phi: float) -> None:
    table = lengths_table(np.random.default_rng(1), 20_000, theta=1.2, phi=phi, longer=longer)
    truth = 1 / (1 + np.exp(-1.2))  # 0.769
    figures = controlled_agreement(table)
    assert list(figures) == NAMES
    for figure in figures.values():
        assert figure.value == pytest.approx(truth, abs=0.02)
        assert figure.n == 20_000


def test_style_that_the_judge_likes_is_taken_out_too() -> None:
    rng = np.random.default_rng(2)
    table = lengths_table(rng, 5000, theta=1.0, phi=0.0, longer=0.5)
    bold_a, bold_b = table.style_a[:, 2], table.style_b[:, 2]
    more_bold = np.where(bold_a == bold_b, table.human, bold_a > bold_b)
    table = replace(table, human=np.where(rng.random(5000) < 0.8, more_bold, 1 - more_bold))
    style = (bold_a - bold_b) / (bold_a + bold_b + 1)
    judge = rng.random(5000) < 1 / (1 + np.exp(-(0.5 * (2 * table.human - 1) + 3.0 * style)))
    figures = controlled_agreement(replace(table, prob_a=judge.astype(np.float64)))
    assert figures["style_controlled_agreement"].value == pytest.approx(1 / (1 + np.exp(-0.5)), abs=0.04)
    assert figures["length_controlled_agreement"].value == pytest.approx(0.75, abs=0.07)


@pytest.mark.parametrize(("agreement", "rows", "clusters"), [(0.8, 120, None), (0.8, 300, 40), (0.95, 60, None)])
def test_intervals_cover(agreement: float, rows: int, clusters: int | None) -> None:
    rng = np.random.default_rng(3)
    covered = dict.fromkeys(NAMES, 0)
    for _ in range(200):
        for name, figure in controlled_agreement(make_table(rng, rows, agreement=agreement, clusters=clusters)).items():
            assert figure.low is not None
            assert figure.high is not None
            covered[name] += figure.low <= agreement <= figure.high
    # 200 draws of 0.95 fall below 0.91 in one case of 100.
    assert min(covered.values()) >= 0.91 * 200


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_a_and_b_can_change_places(seed: int) -> None:
    table = make_table(np.random.default_rng(seed), 80, clusters=30, human_ties=0.1, judge_ties=0.1)
    table = replace(table, weights=np.random.default_rng(seed).uniform(1, 4, len(table)))
    as_given, exchanged = controlled_agreement(table), controlled_agreement(table.swapped())
    for name in NAMES:
        first, second = as_given[name], exchanged[name]
        assert (first.value, first.low, first.high) == pytest.approx((second.value, second.low, second.high), abs=1e-6)
        assert first.n == second.n


def test_a_weight_of_two_is_the_row_twice() -> None:
    rng = np.random.default_rng(4)
    table = make_table(rng, 100)
    counts = rng.integers(1, 4, 100)
    repeated = table.take(np.repeat(np.arange(100), counts))
    weighted = replace(table, weights=counts.astype(np.float64))
    for name in NAMES:
        one, other = controlled_agreement(weighted)[name].value, controlled_agreement(repeated)[name].value
        assert one == pytest.approx(other, abs=0.01)  # the penalty weighs a little less beside more rows


def test_equal_lengths_leave_the_share_itself() -> None:
    table = table_of([0.9] * 30 + [0.1] * 10, [1.0] * 40)
    figures = controlled_agreement(table)
    assert [figures[name].value for name in NAMES] == pytest.approx([0.75, 0.75])


def test_a_judge_that_is_always_right() -> None:
    table = table_of([0.9] * 15 + [0.1] * 15, [1.0] * 15 + [0.0] * 15)
    figure = controlled_agreement(table)["length_controlled_agreement"]
    assert figure.value == 1.0
    assert (figure.low, figure.high) == wilson_interval(1.0, 30)


def test_what_the_data_cannot_support_is_null() -> None:
    few = controlled_agreement(table_of([0.9, 0.1] * 9, [1.0] * 18))
    assert few[NAMES[0]].value is None
    assert few[NAMES[0]].why == "it takes 20 rows that both people and the judge decided"
    ties = controlled_agreement(table_of([0.5, 0.1] * 15, [1.0, 0.5] * 15))
    assert (ties[NAMES[1]].value, ties[NAMES[1]].n) == (None, 0)
    one_sided = table_of([0.9, 0.1] * 15, [1.0] * 30, length_a=np.full(30, 200), length_b=np.full(30, 100))
    why = controlled_agreement(one_sided)[NAMES[0]].why
    assert why == "it takes 3 rows where people prefer the shorter response, or one as long"


def test_a_share_counts_as_so_much_of_a_row_that_is_1_and_one_that_is_0() -> None:
    rng = np.random.default_rng(5)
    differences, clusters = rng.normal(size=(60, 1)), np.arange(60)
    outcome = rng.choice([0.0, 0.25, 0.5, 1.0], 60)
    needed = Needed("rows", "rows that are {}")
    whole = controlled_share(outcome, differences, clusters, needed=needed)
    split = controlled_share(
        np.repeat([1.0, 0.0], 60), np.tile(differences, (2, 1)), np.tile(clusters, 2),
        np.concatenate([outcome, 1.0 - outcome]), needed=needed,
    )  # fmt: skip
    assert whole.value == pytest.approx(split.value, abs=1e-4)  # the slope's unit differs by the weights' rounding
    assert whole.n == 60


def test_an_outcome_that_never_varies_is_its_own_figure() -> None:
    needed = Needed("rows", "rows that are {}")
    half = controlled_share(np.full(30, 0.5), np.linspace(-1, 1, 30)[:, None], np.arange(30), needed=needed)
    assert (half.value, half.low, half.high) == (0.5, *wilson_interval(0.5, 30))
    few = controlled_share(np.zeros(30), np.ones((30, 1)), np.arange(30), needed=needed)
    assert few.why == "it takes 3 rows that are shorter"

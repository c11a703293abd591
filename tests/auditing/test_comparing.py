"""Two judges on the same rows."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from auditing.tables import make_table, table_of
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from rlaif.auditing.comparing import compare


def test_hand_worked() -> None:
    # Rows:        0    1    2    3    4    5    6    7
    people = [1.0, 1.0, 0.0, 0.0, 1.0, 0.5, None, 1.0]
    this = [0.9, 0.8, 0.1, 0.2, 0.5, 0.9, 0.9, None]  # right: 0 1 2 3, wrong: 4 (a tie)
    other = [0.9, 0.3, 0.7, 0.1, 0.4, 0.9, 0.2, 0.9]  # right: 0 3, wrong: 1 2 4
    result = compare(table_of(this, people), table_of(other, people), "other")
    assert result.name == "other"
    assert (result.agreement.value, result.agreement.n) == (pytest.approx(4 / 5), 5)
    assert result.other_agreement.value == pytest.approx(2 / 5)
    assert result.difference.value == pytest.approx(2 / 5)
    assert (result.only_this, result.only_other) == (2, 0)
    assert result.p_value == pytest.approx(2 * 0.5**2)  # 2 of 2, two-sided
    # Both judged rows 0 to 6; the same verdict in 0, 3 and 5.
    assert (result.same_verdict.value, result.same_verdict.n) == (pytest.approx(3 / 7), 7)
    assert (result.rows_only_here, result.rows_only_there) == (0, 0)


def test_rows_are_joined_by_id() -> None:
    rng = np.random.default_rng(0)
    table = make_table(rng, 60)
    other = make_table(rng, 60)
    plain = compare(table, other, "x")
    shuffled = compare(table, other.take(rng.permutation(60)), "x")
    assert shuffled == plain
    part = compare(table.take(np.arange(50)), other.take(np.arange(20, 60)), "x")
    assert (part.rows_only_here, part.rows_only_there, part.same_verdict.n) == (20, 10, 30)
    assert compare(table, replace(other, human=1 - other.human), "x") == plain  # people are taken from `table`


@given(only_this=st.integers(0, 30), only_other=st.integers(0, 30), both=st.integers(1, 10))
@settings(max_examples=25, deadline=None)
def test_p_value_is_the_sign_test_s(only_this: int, only_other: int, both: int) -> None:
    this = [0.9] * only_this + [0.1] * only_other + [0.9] * both
    other = [0.1] * only_this + [0.9] * only_other + [0.9] * both
    people = [1.0] * len(this)
    result = compare(table_of(this, people), table_of(other, people), "x", resamples=100)
    assert (result.only_this, result.only_other) == (only_this, only_other)
    if only_this + only_other:
        expected = binomtest(only_this, only_this + only_other).pvalue
        assert result.p_value == pytest.approx(expected)
    else:
        assert result.p_value is None


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=15, deadline=None)
def test_a_and_b_and_the_two_judges_can_change_places(seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = make_table(rng, 40, clusters=15, human_ties=0.1, judge_ties=0.1, unanswered=0.1)
    other = replace(make_table(rng, 40, judge_ties=0.2), human=table.human, clusters=table.clusters)
    result = compare(table, other, "x", resamples=200)
    exchanged = compare(table.swapped(), other.swapped(), "x", resamples=200)
    assert exchanged == result
    reverse = compare(other, table, "x", resamples=200)
    assert reverse.agreement == result.other_agreement
    assert reverse.difference.value == pytest.approx(-(result.difference.value or 0.0))
    assert reverse.p_value == result.p_value


def test_pairing_and_clusters_tell_in_the_interval() -> None:
    rng = np.random.default_rng(1)
    table = make_table(rng, 400, agreement=0.7)
    flipped = rng.random(400) < 0.05
    near = replace(table, prob_a=np.where(flipped, 1 - table.prob_a, table.prob_a))
    result = compare(table, near, "near")
    assert result.difference.high is not None
    assert result.difference.low is not None
    # Unpaired the difference would have sqrt(2 * 0.7 * 0.3 / 400) = 0.032 for a standard error; paired
    # sqrt(0.05 / 400) = 0.011.
    width = result.difference.high - result.difference.low
    assert width == pytest.approx(2 * 1.96 * math.sqrt(flipped.mean() / 400), rel=0.15)
    tenfold = table.take(np.repeat(np.arange(400), 10))
    tenfold_near = near.take(np.repeat(np.arange(400), 10))
    ids = np.array([str(row) for row in range(4000)], dtype=object)
    repeated = compare(replace(tenfold, ids=ids), replace(tenfold_near, ids=ids), "near")
    assert repeated.difference.high is not None
    assert repeated.difference.low is not None
    assert repeated.difference.high - repeated.difference.low == pytest.approx(width, rel=0.1)


def test_weights_count() -> None:
    table = table_of([0.9, 0.1, 0.1], [1.0, 1.0, 1.0], weights=np.array([6.0, 2.0, 2.0]))
    other = table_of([0.1, 0.9, 0.1], [None, None, None])
    result = compare(table, other, "x")
    assert result.agreement.value == pytest.approx(0.6)
    assert result.difference.value == pytest.approx(0.4)
    assert result.same_verdict.value == pytest.approx(1 / 3)  # of judges only: unweighted


def test_nothing_in_common() -> None:
    table = table_of([0.9], [1.0])
    result = compare(table, replace(table, ids=np.array(["elsewhere"], dtype=object)), "x")
    assert result.agreement.value is None
    assert result.agreement.why == "no row that both judged has a human majority for one response"
    assert result.same_verdict.why == "no row was judged by both"
    assert (result.p_value, result.rows_only_here, result.rows_only_there) == (None, 1, 1)

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.auditing.table import build_table, verdicts
from rlaif.records import Comparison, JudgedComparison, NamedLabel, SoftLabel, Turn, Verdict, verdict_of

NONE = np.nan


def judged(name, prob_a, *, response_a="a", response_b="b", votes=(), label=None, **others):
    comparison = Comparison(name, (Turn("user", "?"),), response_a, response_b, votes, label)
    return JudgedComparison(comparison, prob_a, **others)


ROWS = [
    judged(
        "one",
        0.7,
        response_a="- long\n- **list**",
        response_b="[[1]]",
        votes=(Verdict.A, Verdict.A, Verdict.TIE),
        label=Verdict.A,
        prob_a_ab=0.9,
        prob_a_ba=0.5,
        cluster="z",
        groups={"task": "x"},
        sampling_prob=0.25,
        by_judge=(NamedLabel("tiny", SoftLabel(0.8, None, None)),),
    ),
    judged("two", None, label=Verdict.TIE, cluster="y", groups={"task": "y"}),
    judged("three", 0.2, cluster="z", groups={"task": "x"}),
]


def equal(one, two):
    return all(
        np.array_equal(getattr(one, name), getattr(two, name), equal_nan=name not in {"ids"})
        for name in one.__dataclass_fields__
        if isinstance(getattr(one, name), np.ndarray)
    )


def test_rows_become_arrays():
    table = build_table(ROWS)
    assert len(table) == 3
    assert table.ids.tolist() == ["one", "two", "three"]
    assert table.clusters.tolist() == [1, 0, 1]
    assert table.prob_a.tolist() == pytest.approx([0.7, NONE, 0.2], nan_ok=True)
    assert table.prob_a_ab.tolist() == pytest.approx([0.9, NONE, NONE], nan_ok=True)
    assert table.prob_a_ba.tolist() == pytest.approx([0.5, NONE, NONE], nan_ok=True)
    assert table.human.tolist() == pytest.approx([1.0, 0.5, NONE], nan_ok=True)
    assert table.votes.tolist() == [[2, 1, 0], [0, 0, 0], [0, 0, 0]]
    assert table.weights.tolist() == [4.0, 1.0, 1.0]
    assert table.length_a.tolist() == [17, 1, 1]
    assert table.style_a.tolist() == [[2, 0, 1], [0, 0, 0], [0, 0, 0]]
    assert table.addresses_judge_b.tolist() == [True, False, False]
    assert table.groups["task"].tolist() == ["x", "y", "x"]
    assert table.by_judge["tiny"].tolist() == pytest.approx([0.8, NONE, NONE], nan_ok=True)


def test_no_rows_are_a_table_too():
    table = build_table([])
    assert len(table) == 0
    assert (table.votes.shape, table.style_a.shape) == ((0, 3), (0, 3))


def test_taking_rows_numbers_clusters_anew():
    taken = build_table(ROWS).take(np.array([2, 0]))
    assert taken.ids.tolist() == ["three", "one"]
    assert taken.clusters.tolist() == [0, 0]
    assert taken.groups["task"].tolist() == ["x", "x"]
    assert taken.by_judge["tiny"].tolist() == pytest.approx([NONE, 0.8], nan_ok=True)
    assert build_table(ROWS).take(np.array([True, False, False])).ids.tolist() == ["one"]


def test_swapping_exchanges_responses_and_not_slots():
    table = build_table(ROWS)
    swapped = table.swapped()
    assert swapped.prob_a[0] == pytest.approx(0.3)
    # What was shown first stays first: the order that showed A first now shows B first.
    assert (swapped.prob_a_ab[0], swapped.prob_a_ba[0]) == pytest.approx((0.5, 0.1))
    assert swapped.human.tolist() == pytest.approx([0.0, 0.5, NONE], nan_ok=True)
    assert swapped.votes[0].tolist() == [0, 1, 2]
    assert (swapped.length_a[0], swapped.length_b[0]) == (5, 17)
    assert (swapped.addresses_judge_a[0], swapped.addresses_judge_b[0]) == (True, False)


def test_swapping_twice_is_nothing():
    table = build_table([judged("x", 0.75, prob_a_ab=1.0, prob_a_ba=0.5, label=Verdict.B), judged("y", None)])
    assert equal(table.swapped().swapped(), table)


@given(st.floats(0, 1), st.sampled_from([1e-9, 0.05, 0.5]))
def test_verdicts_are_those_of_records(prob, band):
    number = {Verdict.A: 1.0, Verdict.TIE: 0.5, Verdict.B: 0.0}[verdict_of(prob, band)]
    assert verdicts(np.array([prob]), band).tolist() == [number]

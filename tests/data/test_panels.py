import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif.data.panels import PanelScores

numbers = st.floats(0, 1, allow_subnormal=True)


def scores(*rows):
    panel = PanelScores()
    for row in rows:
        panel.add(row)
    return panel


def test_hand_worked():
    # a: 1 2 3 (mean 2), b: 1 3 2 (mean 2): deviations -1 0 1 and -1 1 0; 1 / sqrt(2 * 2) = 0.5
    (pair,) = scores({"a": 1, "b": 1}, {"a": 2, "b": 3}, {"a": 3, "b": 2}).correlations()
    assert (pair.judges, pair.rows) == (("a", "b"), 3)
    assert pair.pearson == pytest.approx(0.5)


def test_every_pair_in_the_order_seen():
    panel = scores({"b": 0.1, "a": 0.2, "c": 0.3}, {"b": 0.2, "a": 0.1, "c": 0.5})
    found = panel.correlations()
    assert [each.judges for each in found] == [("b", "a"), ("b", "c"), ("a", "c")]
    assert [each.pearson for each in found] == [pytest.approx(-1), pytest.approx(1), pytest.approx(-1)]


def test_a_missing_judge_counts_only_where_it_spoke():
    panel = scores({"a": 0.9}, {"a": 0.1, "b": 0.1}, {"b": 0.7}, {"a": 0.3, "b": 0.2}, {"a": 0.2, "b": 0.0})
    (pair,) = panel.correlations()
    assert pair.rows == 3
    assert pair.pearson == pytest.approx(np.corrcoef([0.1, 0.3, 0.2], [0.1, 0.2, 0.0])[0, 1])


@pytest.mark.parametrize(
    "rows",
    [
        [{"a": 0.1, "b": 0.2}],
        [{"a": 0.1, "b": 0.2}] * 7,  # a mean of 0.1s is not always 0.1
        [{"a": 0.1, "b": 0.2}, {"a": 0.1, "b": 0.9}],
        [{"a": 0.1}, {"b": 0.9}],
    ],
)
def test_undefined_is_null_and_never_a_number(rows):
    panel = scores(*rows)
    assert panel.correlations()[0].pearson is None
    assert '"pearson": null' in json.dumps(panel.as_json())


def test_what_hardly_varies_still_has_its_correlation():
    # The hand-worked rows above, so small that the squares of their differences are 0.
    tiny = [(1e-200, 0.1), (2e-200, 0.3), (3e-200, 0.2)]
    assert scores(*({"a": a, "b": b} for a, b in tiny)).correlations()[0].pearson == pytest.approx(0.5)


def test_no_panel_says_nothing():
    panel = scores({}, {})
    assert not panel
    assert panel.as_json() == {}
    assert panel.correlations() == []


def test_more_can_be_added_after_a_report():
    panel = scores({"a": 0.1, "b": 0.2}, {"a": 0.3, "b": 0.4})
    assert panel.correlations()[0].rows == 2
    panel.add({"a": 0.0, "b": 1.0})
    assert panel.correlations()[0].rows == 3


@settings(deadline=None)
@given(st.lists(st.tuples(numbers, numbers), max_size=20))
def test_the_same_either_way_round_bounded_and_unmoved_by_scale(pairs):
    (pair,) = scores(*({"a": a, "b": b} for a, b in pairs)).correlations() or [None]
    if pair is None:
        return
    (other,) = scores(*({"b": b, "a": a} for a, b in pairs)).correlations()
    swapped = scores(*({"a": 1 - a, "b": 1 - b} for a, b in pairs)).correlations()[0]
    if pair.pearson is None:
        assert other.pearson is None
        return
    assert -1 <= pair.pearson <= 1
    assert pair.pearson == pytest.approx(other.pearson)
    # Exchanging A and B turns every p into 1 - p, and no correlation changes.
    if swapped.pearson is not None and np.ptp([a for a, _ in pairs]) > 1e-3 and np.ptp([b for _, b in pairs]) > 1e-3:
        assert math.isclose(pair.pearson, swapped.pearson, abs_tol=1e-6)

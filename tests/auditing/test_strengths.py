from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif.auditing.strengths import connected_groups, fit_strengths, has_strengths


def counts(size, wins, ties=()):
    """(R = 1) wins and ties from {(winner, loser): count}."""
    won, tied = np.zeros((1, size, size)), np.zeros((1, size, size))
    for (winner, loser), count in dict(wins).items():
        won[0, winner, loser] += count
    for (one, other), count in dict(ties).items():
        tied[0, one, other] += count
        tied[0, other, one] += count
    return won, tied


def test_two_items_are_apart_by_the_log_of_their_odds():
    # 3 wins to 1: the odds are 3, ln 3 apart, half of it to each side of 0.
    fitted = fit_strengths(*counts(2, {(0, 1): 3, (1, 0): 1}))
    assert fitted.values[0] == pytest.approx([math.log(3) / 2, -math.log(3) / 2])
    assert fitted.tie_parameter[0] == 0.0
    # Four soft labels of 0.75 are as good.
    assert fit_strengths(*counts(2, {(0, 1): 4 * 0.75, (1, 0): 4 * 0.25})).values == pytest.approx(fitted.values)


def test_three_items_whose_odds_fit_together():
    # a : b = 3, b : c = 3 and a : c = 9: strengths ln 3, 0, -ln 3 expect just what was observed.
    wins = {(0, 1): 3, (1, 0): 1, (1, 2): 3, (2, 1): 1, (0, 2): 9, (2, 0): 1}
    assert fit_strengths(*counts(3, wins)).values[0] == pytest.approx([math.log(3), 0, -math.log(3)])


def test_ties_are_davidsons():
    # P(0 wins) / P(1 wins) = 6 / 2 and P(tie) / sqrt(P(0 wins) P(1 wins)) = 4 / sqrt(6 * 2).
    fitted = fit_strengths(*counts(2, {(0, 1): 6, (1, 0): 2}, {(0, 1): 4}))
    assert fitted.values[0] == pytest.approx([math.log(3) / 2, -math.log(3) / 2])
    assert fitted.tie_parameter[0] == pytest.approx(4 / math.sqrt(12))


def test_where_all_are_ties_all_are_equal():
    fitted = fit_strengths(*counts(3, {}, {(0, 1): 2, (1, 2): 5}))
    assert fitted.values[0] == pytest.approx([0, 0, 0])
    assert np.isnan(fitted.tie_parameter[0])


def test_the_prior_holds_what_would_be_infinite():
    # One match, and one prior match each: with x = exp(s), 2 / (1 + x^2) = (x - 1) / (x + 1).
    (x,) = [root.real for root in np.roots([1, -1, -1, -3]) if abs(root.imag) < 1e-9]
    fitted = fit_strengths(*counts(2, {(0, 1): 1}), np.array([1.0]))
    assert fitted.values[0] == pytest.approx([math.log(x), -math.log(x)])


def test_an_item_without_a_match_has_no_strength():
    fitted = fit_strengths(*counts(3, {(0, 2): 3, (2, 0): 1}))
    assert fitted.values[0, [0, 2]] == pytest.approx([math.log(3) / 2, -math.log(3) / 2])
    assert np.isnan(fitted.values[0, 1])


@pytest.mark.parametrize(
    ("size", "wins", "ties", "expected"),
    [
        (2, {(0, 1): 1, (1, 0): 1}, {}, True),
        (2, {(0, 1): 5}, {}, False),  # never lost
        (4, {(0, 1): 1, (1, 0): 1, (2, 3): 1, (3, 2): 1}, {}, False),  # never met
        (3, {(0, 1): 1, (1, 2): 1, (2, 0): 1}, {}, True),  # a circle
        (2, {}, {(0, 1): 3}, True),
        # A win and a tie: likeliest where P(loss) is 0, with nu and the strengths without end.
        (2, {(0, 1): 1}, {(0, 1): 1}, False),
        # Two wins down, one tie back: more wins than ties in a circle.
        (3, {(0, 1): 1, (1, 2): 1}, {(0, 2): 1}, True),
        # One win down, two ties back.
        (3, {(0, 1): 1}, {(1, 2): 1, (0, 2): 1}, False),
        (2, {(0, 1): 1, (1, 0): 1e-12}, {}, False),  # a soft label as good as certain
        (3, {(0, 1): 1, (1, 0): 1}, {}, True),  # the third met nobody
    ],
)
def test_when_the_data_give_strengths(size, wins, ties, expected):
    won, tied = counts(size, wins, ties)
    assert has_strengths(won, tied).tolist() == [expected]
    # Where they do, the fit has come to rest: each scores what is expected.
    if expected:
        assert np.nanmax(np.abs(fit_strengths(won, tied).values)) < 20


def test_many_fits_at_once_are_those_of_each():
    rng = np.random.default_rng(0)
    wins = (rng.integers(0, 4, (50, 4, 4)) * (rng.random((50, 4, 4)) < 0.4)).astype(np.float64)
    ties = np.triu(rng.integers(0, 2, (50, 4, 4)), 1).astype(np.float64)
    ties += ties.swapaxes(1, 2)
    for array in (wins, ties):
        array[:, range(4), range(4)] = 0
    prior = np.where(has_strengths(wins, ties), 0.0, 1.0)
    assert 0 < prior.sum() < 50
    together = fit_strengths(wins, ties, prior)
    near = fit_strengths(wins[:1], ties[:1], prior[:1])
    assert fit_strengths(wins, ties, prior, near=near).values == pytest.approx(together.values, abs=1e-7, nan_ok=True)
    for number in range(50):
        alone = fit_strengths(wins[number : number + 1], ties[number : number + 1], prior[number : number + 1])
        assert alone.values[0] == pytest.approx(together.values[number], abs=1e-7, nan_ok=True)
    one_by_one = [has_strengths(wins[n : n + 1], ties[n : n + 1])[0] for n in range(50)]
    assert one_by_one == has_strengths(wins, ties).tolist()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.integers(1, 4), st.sampled_from([0.0, 0.02, 0.3, 0.5, 0.8, 1.0])),
        min_size=1,
        max_size=40,
    )
)
def test_expected_scores_are_the_observed_and_swapping_changes_nothing(rows):
    wins, ties = np.zeros((1, 5, 5)), np.zeros((1, 5, 5))
    for first, step, prob in rows:
        second = (first + step) % 5
        if prob == 0.5:
            ties[0, first, second] += 1
            ties[0, second, first] += 1
        else:
            wins[0, first, second] += prob
            wins[0, second, first] += 1 - prob
    prior = 0.0 if has_strengths(wins, ties)[0] else 1.0
    fitted = fit_strengths(wins, ties, np.array([prior]))
    met = ~np.isnan(fitted.values[0])
    assert fitted.values[0][met].mean() == pytest.approx(0, abs=1e-9)
    reversed_ = fit_strengths(wins.swapaxes(1, 2), ties, np.array([prior]))
    assert reversed_.values[0] == pytest.approx(-fitted.values[0], abs=1e-6, nan_ok=True)
    nu = fitted.tie_parameter[0]
    if prior or np.isnan(nu):
        return  # with prior matches, scores are drawn towards them
    strengths = np.where(met, fitted.values[0], 0.0)
    gaps = strengths[:, None] - strengths[None, :]
    whole = np.exp(gaps / 2) + np.exp(-gaps / 2) + nu
    expected = (np.exp(gaps / 2) + nu / 2) / whole
    matches = wins[0] + wins[0].T + ties[0]
    assert (matches * expected).sum(axis=1) == pytest.approx(wins[0].sum(axis=1) + ties[0].sum(axis=1) / 2, abs=1e-6)
    assert (matches * nu / whole).sum() == pytest.approx(ties.sum(), abs=1e-6)


def test_groups():
    edges = np.array([[0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]], dtype=bool)
    assert len(set(connected_groups(edges))) == 3
    assert len(set(connected_groups(edges, by_chains_both_ways=False))) == 2

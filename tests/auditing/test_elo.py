from __future__ import annotations

import numpy as np
import pytest

from rlaif.auditing.elo import ELO_MEAN, ELO_UNIT, elo_ratings, match_orders


def test_two_matches_by_hand():
    # 16 * (1 - 0.5) = 8 points; then the winner is expected to score 1 / (1 + 10^(-16 / 400)) = 0.52301 and gains
    # 16 * 0.47699 = 7.6318.
    ratings = elo_ratings(np.array([0, 0]), np.array([1, 1]), np.array([1.0, 1.0]), np.array([[0, 1]]), items=2)
    assert ratings[0] == pytest.approx([1015.6318, 984.3682], abs=1e-4)


def test_the_order_matters():
    first, second, prob = np.array([0, 0]), np.array([1, 1]), np.array([1.0, 0.0])
    ratings = elo_ratings(first, second, prob, np.array([[0, 1], [1, 0]]), items=2)
    # Who wins last stands higher, by 16 * 2 * (0.52301 - 0.5).
    assert ratings[0] == pytest.approx([999.6318, 1000.3682], abs=1e-4)
    assert ratings[1] == pytest.approx(ratings[0][::-1])


def test_no_match_changes_nothing():
    orders = np.array([[0, -1], [-1, -1]])
    ratings = elo_ratings(np.array([0]), np.array([1]), np.array([0.5]), orders, items=3)
    assert ratings == pytest.approx(np.full((2, 3), 1000.0))


def test_the_mean_stays_and_long_play_finds_the_strengths():
    rng = np.random.default_rng(0)
    strengths = np.array([1.0, 0.0, -1.0])
    first = rng.integers(0, 3, 6000)
    second = (first + rng.integers(1, 3, 6000)) % 3
    prob = 1 / (1 + np.exp(strengths[second] - strengths[first]))  # no noise
    ratings = elo_ratings(first, second, prob, np.arange(6000)[None], items=3, k=8.0)
    assert ratings.mean() == pytest.approx(ELO_MEAN)
    assert ratings[0] == pytest.approx(ELO_MEAN + ELO_UNIT * strengths, abs=2.0)


def test_orders_hold_each_match_once_or_whole_clusters():
    clusters = np.array([0, 0, 1, 2, 2, 2])
    rng = np.random.default_rng(0)
    shuffled = match_orders(clusters, rng, orders=5, is_resampled=False)
    assert np.sort(shuffled, axis=1).tolist() == [list(range(6))] * 5
    assert len({tuple(order) for order in shuffled.tolist()}) > 1
    for order in match_orders(clusters, rng, orders=20, is_resampled=True):
        drawn = np.bincount(order[order >= 0], minlength=6)
        times = drawn[[0, 2, 3]]
        assert drawn.tolist() == times[clusters].tolist()
        assert times.sum() == 3
    assert match_orders(clusters, rng, orders=2, is_resampled=False, most=4).shape == (2, 4)

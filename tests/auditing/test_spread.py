from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import t

from rlaif.auditing.intervals import estimate, mean_statistic
from rlaif.auditing.spread import Spread, ranks_with_intervals, share_figure, shared_ranks, spread_figure


def normal_spread(values, error, effective=1000.0, resamples=4000):
    drawn = np.array(values) + np.random.default_rng(0).normal(0, error, (resamples, len(values)))
    return Spread(np.array(values, dtype=np.float64), drawn, np.full(len(values), effective))


def test_equal_values_share_the_best_rank():
    assert shared_ranks(np.array([3.0, 3.0 + 1e-12, 5.0, 1.0, 1.0])).tolist() == [2, 2, 1, 4, 4]
    assert shared_ranks(np.array([0.0, 0.0])).tolist() == [1, 1]


def test_a_value_has_a_t_interval():
    drawn = np.array([1.0, 3.0] * 50)  # standard deviation 1
    figure = spread_figure(2.0, drawn, 10.0, 40)
    reach = t.ppf(0.975, 9) * math.sqrt(10 / 9)
    assert (figure.low, figure.high, figure.n) == (pytest.approx(2 - reach), pytest.approx(2 + reach), 40)
    assert spread_figure(2.0, np.append(drawn, [np.nan] * 7), 10.0, 40) == figure  # without what has no value
    assert spread_figure(2.0, np.full(9, 2.0), 10.0, 40).why == "resampling has no spread"
    assert spread_figure(2.0, drawn, 1.0, 40).low is None  # one cluster


def test_a_share_has_the_interval_of_the_bootstrap():
    rng = np.random.default_rng(1)
    clusters = np.repeat(np.arange(80), 3)
    scores = np.clip(rng.normal(0.6, 0.2, 80)[clusters] + rng.normal(0, 0.1, 240), 0, 1)
    ours = share_figure(scores, clusters)
    other = estimate({"it": mean_statistic(scores, np.full(240, True))}, clusters, resamples=20_000)["it"]
    assert (ours.value, ours.n) == (pytest.approx(other.value), 240)
    assert (ours.low, ours.high) == (pytest.approx(other.low, abs=0.003), pytest.approx(other.high, abs=0.003))
    certain = share_figure(np.ones(12), np.repeat(np.arange(4), 3))
    assert certain.high == 1.0
    assert certain.low == pytest.approx(4 / (4 + 1.959964**2))  # Wilson's for 4 of 4


def test_ranks_far_apart_are_known_and_near_ones_are_not():
    ranked = ranks_with_intervals(normal_spread([5.0, 0.0, 0.05, -5.0], 0.1), [10] * 4)
    assert [(each.value, each.low, each.high) for each in ranked.ranks] == [(1, 1, 1), (3, 2, 3), (2, 2, 3), (4, 4, 4)]
    assert ranked.prob_best == [1.0, 0.0, 0.0, 0.0]
    assert normal_spread([5.0, 0.0, 0.05, -5.0], 0.1).separability().value == pytest.approx(5 / 6)


def test_ranks_are_not_surer_than_the_difference_behind_them():
    # Two clusters' worth of resamples, -1 or +1 around the difference 2.5: its largest studentized value is 1, and
    # 1 * error would tell the two apart, where the interval of the difference (t, 5 degrees) holds 0.
    drawn = np.column_stack([2.5 + np.tile([-1.0, 1.0], 500), np.zeros(1000)])
    spread = Spread(np.array([2.5, 0.0]), drawn, np.array([6.0, 6.0]))
    assert spread.difference(0, 1, 6).low < 0
    assert [(each.low, each.high) for each in ranks_with_intervals(spread, [6, 6]).ranks] == [(1, 2), (1, 2)]


def test_intervals_of_ranks_hold_the_truth():
    rng = np.random.default_rng(2)
    truth = np.array([0.3, 0.2, 0.1, 0.0])
    held = []
    for _ in range(300):
        values = truth + rng.normal(0, 0.1, 4)
        drawn = values + rng.normal(0, 0.1, (300, 4))
        ranks = ranks_with_intervals(Spread(values, drawn, np.full(4, 500.0)), [1] * 4).ranks
        held += [each.low <= place <= each.high for place, each in enumerate(ranks, 1)]
    assert np.mean(held) >= 0.95


def test_without_spread_ranks_have_no_interval():
    spread = Spread(np.array([1.0, 0.0]), np.tile([1.0, 0.0], (50, 1)), np.array([9.0, 9.0]))
    ranked = ranks_with_intervals(spread, [3, 3])
    assert [(each.value, each.low, each.why) for each in ranked.ranks] == [
        (1, None, "resampling has no spread"),
        (2, None, "resampling has no spread"),
    ]
    assert spread.difference(0, 1, 3).low is None
    assert spread.separability().value == 0.0
    unknown = ranks_with_intervals(spread, [3, 3], "nobody met")
    assert [each.why for each in unknown.ranks] == ["nobody met"] * 2
    assert unknown.prob_best == [None, None]


def test_an_item_that_resamples_miss_counts_where_it_is():
    spread = normal_spread([1.0, 0.0, -1.0], 0.2)
    spread.drawn[::2, 1] = np.nan
    errors = spread.difference_errors
    assert errors[0, 2] == pytest.approx(0.2 * math.sqrt(2), rel=0.05)
    assert errors[0, 1] == pytest.approx(0.2 * math.sqrt(2), rel=0.05)
    assert all(each.value is not None for each in ranks_with_intervals(spread, [1, 1, 1]).ranks)

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t
from sklearn.metrics import roc_auc_score
from statsmodels.stats.proportion import proportion_confint

from rlaif.auditing.intervals import (
    AucStatistic,
    SumStatistic,
    estimate,
    mean_statistic,
    ratio_of_sums,
    resampled_values,
    wilson_interval,
)


def share(hits, counted=None, **others):
    hits = np.array(hits, dtype=np.float64)
    return mean_statistic(hits, np.full(len(hits), True) if counted is None else np.array(counted), **others)


def only(statistic, clusters=None, **settings):
    clusters = np.arange(len(statistic.counted)) if clusters is None else np.array(clusters)
    return estimate({"it": statistic}, clusters, **settings)["it"]


def logit(share):
    return math.log(share / (1 - share))


def auc_of(scores, positives, counted=None, weights=None):
    count = len(scores)
    return AucStatistic(
        np.array(scores, dtype=np.float64),
        np.array(positives, dtype=np.bool_),
        np.full(count, True) if counted is None else np.array(counted),
        np.ones(count) if weights is None else np.array(weights, dtype=np.float64),
    )


def test_values_are_of_the_rows_that_count():
    statistic = share([1, 0, 1, 1], counted=[True, True, True, False], weights=np.array([1.0, 1.0, 2.0, 9.0]))
    assert statistic.value() == pytest.approx(3 / 4)
    assert only(statistic).n == 3
    assert np.isnan(ratio_of_sums(np.array([0.0, 0.0])))


def test_interval_of_a_share_is_the_textbooks():
    # The standard error of a share over single rows is sqrt(p (1 - p) / n) in the bootstrap, stretched by n / (n - 1).
    figure = only(share([1] * 70 + [0] * 30), resamples=20_000)
    reach = t.ppf(0.975, 99) * math.sqrt(0.7 * 0.3 / 99) / (0.7 * 0.3)
    assert logit(figure.low) == pytest.approx(logit(0.7) - reach, abs=0.02)
    assert logit(figure.high) == pytest.approx(logit(0.7) + reach, abs=0.02)


def test_rows_of_one_cluster_are_worth_one():
    hits = np.repeat([1] * 14 + [0] * 6, 10)
    alone = only(share([1] * 14 + [0] * 6), resamples=4000)
    clustered = only(share(hits), np.repeat(np.arange(20), 10), resamples=4000)
    assert (clustered.low, clustered.high) == pytest.approx((alone.low, alone.high))
    assert clustered.n == 200
    unclustered = only(share(hits))
    assert unclustered.high - unclustered.low < 0.5 * (clustered.high - clustered.low)


def test_unequal_clusters_are_worth_fewer():
    # One cluster of 81 rows beside 19 of one: (100)^2 / (81^2 + 19) = 1.5 clusters, taken as 2.
    clusters = [0] * 81 + list(range(1, 20))
    hits = [1, 0] * 50
    assert only(share(hits), clusters).high - only(share(hits), clusters).low > 0.9


def test_without_spread_it_is_wilson_at_the_number_of_clusters():
    figure = only(share([1] * 30), np.repeat(np.arange(10), 3))
    assert (figure.low, figure.high) == pytest.approx(proportion_confint(10, 10, method="wilson"))
    one_cluster = only(share([1, 0, 0, 0]), [0, 0, 0, 0])
    assert (one_cluster.low, one_cluster.high) == pytest.approx(wilson_interval(0.25, 1))
    assert one_cluster.low < 0.25 < one_cluster.high
    difference = only(share([1] * 9, bounds=(-1.0, 1.0)))
    assert difference.low == pytest.approx(-1 + 2 * wilson_interval(1.0, 9)[0])


def test_without_bounds_it_is_symmetric_or_none():
    figure = only(share(np.arange(50), bounds=None))
    assert figure.high - figure.value == pytest.approx(figure.value - figure.low)
    assert only(share([4.0] * 5, bounds=None)) == only(share([4.0] * 5, bounds=None))
    assert only(share([4.0] * 5, bounds=None)).why == "resampling has no spread"


def test_noise_reaches_further_down():
    sums = share([1, 0] * 50)
    lifted = SumStatistic(sums.terms, sums.of_sums, sums.counted, noise=0.2)
    plain = SumStatistic(sums.terms, sums.of_sums, sums.counted, bounds=None)
    assert only(lifted).low == pytest.approx(only(plain).low - 0.2)
    assert only(lifted).high == pytest.approx(only(plain).high)


def test_what_is_missing_is_said():
    figure = only(share([1, 0], counted=[False, False], why="nobody was asked"))
    assert (figure.value, figure.low, figure.high, figure.n, figure.why) == (None, None, None, 0, "nobody was asked")
    assert only(share([])).why == "no row counts"
    assert only(auc_of([0.1, 0.2], [True, True])).value is None
    assert only(auc_of([], [])).value is None


def test_an_area_under_the_curve_is_no_surer_than_its_rarer_side():
    # Drawn again, a single positive has no spread: the interval is Wilson's at one cluster.
    scores = np.random.default_rng(0).random(200)
    value = (scores[0] > scores[1:]).mean()
    figure = only(auc_of(scores, np.arange(200) < 1))
    assert (figure.low, figure.high) == pytest.approx(wilson_interval(value, 1))
    # A normal score shifted by 1 has an area of Phi(1 / sqrt(2)) = 0.760; with 4 positives, the interval holds it.
    held = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        positives = np.arange(200) < 4
        figure = only(auc_of(rng.normal(size=200) + positives, positives), resamples=300)
        held += figure.low <= 0.7602 <= figure.high
    assert held >= 90


@given(st.integers(0, 10_000))
def test_intervals_hold_the_value_and_stay_within_bounds(seed):
    rng = np.random.default_rng(seed)
    hits = rng.random(rng.integers(2, 40)) < rng.random()
    figure = only(share(hits), rng.integers(0, 8, len(hits)), resamples=100)
    assert 0.0 <= figure.low <= figure.value <= figure.high <= 1.0


def test_the_same_seed_gives_the_same_interval():
    hits = np.random.default_rng(0).random(60) < 0.7
    assert only(share(hits), seed=3) == only(share(hits), seed=3)
    assert only(share(hits), seed=3) != only(share(hits), seed=4)


def test_figures_do_not_depend_on_their_company():
    hits = np.random.default_rng(0).random(60) < 0.7
    scores = np.random.default_rng(1).random(60)
    alone = only(share(hits))
    both = estimate({"auc": auc_of(scores, hits), "it": share(hits)}, np.arange(60))
    assert both["it"] == alone
    assert both["auc"] == only(auc_of(scores, hits))


@settings(max_examples=30)
@given(st.integers(0, 10_000))
def test_auc_is_the_librarys_in_every_resample(seed):
    rng = np.random.default_rng(seed)
    scores = np.round(rng.random(30), 1)
    positives = rng.random(30) < 0.5
    positives[:2] = True, False
    weights, counted = rng.uniform(0.5, 2, 30), rng.random(30) < 0.8
    counted[:2] = True
    statistic = auc_of(scores, positives, counted, weights)
    expected = roc_auc_score(positives[counted], scores[counted], sample_weight=weights[counted])
    assert statistic.value() == pytest.approx(expected)
    clusters = rng.integers(0, 9, 30)
    draws = rng.integers(0, 3, (4, 9)).astype(np.float64) + 0.5
    for draw, found in zip(draws, statistic.resampler(clusters, 9)(draws), strict=True):
        drawn = (weights * draw[clusters])[counted]
        assert found == pytest.approx(roc_auc_score(positives[counted], scores[counted], sample_weight=drawn))


def test_resamples_of_a_sum_are_what_drawing_rows_gives():
    rng = np.random.default_rng(0)
    statistic = share(rng.random(40) < 0.5)
    clusters = rng.integers(0, 7, 40)
    draws = rng.integers(0, 3, (5, 7)).astype(np.float64)
    for draw, found in zip(draws, statistic.resampler(clusters, 7)(draws), strict=True):
        rows = np.repeat(np.arange(40), draw[clusters].astype(int))
        assert found == pytest.approx((statistic.terms[rows, 0]).mean())


def test_many_clusters_are_drawn_in_chunks_that_change_nothing(monkeypatch):
    from rlaif.auditing import intervals

    statistics = {"it": share(np.random.default_rng(0).random(50) < 0.5)}
    at_once = resampled_values(statistics, np.arange(50), resamples=100)["it"]
    monkeypatch.setattr(intervals, "_DRAWS_AT_ONCE", 120)
    in_chunks = resampled_values(statistics, np.arange(50), resamples=100)["it"]
    assert len(in_chunks) == 100
    assert in_chunks == pytest.approx(at_once)
    # Each resample draws as many clusters as there are, so that a mean of ones stays one.
    assert resampled_values({"it": share([1] * 50)}, np.arange(50), resamples=10)["it"].tolist() == [1.0] * 10


@given(st.floats(0, 1), st.integers(1, 1000))
def test_wilson_holds_the_share_within_bounds(value, size):
    low, high = wilson_interval(value, size)
    assert 0.0 <= low <= value + 1e-12 <= high + 2e-12 <= 1.0 + 2e-12


@pytest.mark.parametrize("size", [1, 15])
def test_intervals_hold_the_truth_in_about_95_of_100_data_sets(size):
    # 400 data sets: within 4 standard errors (1.1 points each) of 95 %.
    rng = np.random.default_rng(size)
    held = 0
    for seed in range(400):
        ease = rng.beta(8.0, 2.0, 60)
        sizes = rng.integers(1, size + 1, 60)
        clusters = np.repeat(np.arange(60), sizes)
        figure = only(share(rng.random(len(clusters)) < ease[clusters]), clusters, resamples=200, seed=seed)
        held += figure.low <= 0.8 <= figure.high
    assert 0.906 <= held / 400 <= 0.994

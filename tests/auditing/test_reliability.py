import math
from itertools import pairwise

import numpy as np
import pytest
from auditing.tables import make_table, table_of
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from rlaif.auditing.reliability import (
    brier_decomposition,
    confusion,
    coverage_groups,
    equal_mass_bins,
    length_gap_groups,
    probability_statistics,
    reliability_groups,
)

A, TIE, B = 1.0, 0.5, 0.0


def values(statistics):
    return {name: each.value() for name, each in statistics.items()}


def test_hand_worked_figures():
    table = table_of([0.9, 0.6, 0.2, 0.4, 0.7, None], [A, B, B, A, TIE, A])
    found = probability_statistics(table)
    assert values(found) == pytest.approx(
        {
            "brier": (0.01 + 0.36 + 0.04 + 0.36) / 4,
            "log_loss": -(math.log(0.9) + math.log(0.4) + math.log(0.8) + math.log(0.4)) / 4,
            "ece": (0.1 + 0.6 + 0.2 + 0.6) / 4,  # each row has a bin of its own
            "auc": 3 / 4,  # of (0.9, 0.4) against (0.6, 0.2), only 0.4 is under 0.6
        }
    )
    assert {int(each.counted.sum()) for each in found.values()} == {4}


def test_log_loss_is_clipped():
    found = values(probability_statistics(table_of([0.0, 1.0], [A, A])))
    assert found["log_loss"] == pytest.approx(-math.log(1e-6) / 2)


def test_equal_mass_bins_by_hand():
    # Mean ranks 1, 2.5, 2.5, 4, 5 of five: 3 * (rank - 1/2) / 5 = 0.3, 1.2, 1.2, 2.1, 2.7.
    assert equal_mass_bins(np.array([0.1, 0.5, 0.5, 0.8, 0.9]), 3).tolist() == [0, 1, 1, 2, 2]
    assert equal_mass_bins(np.full(7, 0.5), 15).tolist() == [7] * 7
    assert equal_mass_bins(np.zeros(0), 15).tolist() == []


@given(st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]), max_size=60), st.integers(1, 20))
def test_equal_values_share_a_bin_and_bins_keep_the_order(numbers, count):
    bins = equal_mass_bins(np.array(numbers), count)
    assert all(0 <= each < count for each in bins)
    for one, two in pairwise(range(len(numbers))):
        assert (bins[one] == bins[two]) or (numbers[one] < numbers[two]) == (bins[one] < bins[two])


def test_distinct_values_make_bins_of_equal_size():
    assert np.bincount(equal_mass_bins(np.random.default_rng(0).random(150), 15)).tolist() == [10] * 15


@given(st.integers(0, 10_000))
def test_figures_are_the_librarys_and_know_no_a(seed):
    rng = np.random.default_rng(seed)
    table = make_table(rng, 60, human_ties=0.1, unlabelled=0.1, unanswered=0.1)
    rounded = table_of(np.round(table.prob_a, 1).tolist(), table.human.tolist(), weights=rng.uniform(1, 5, 60))
    counted = np.isfinite(rounded.prob_a) & np.isfinite(rounded.human) & (rounded.human != TIE)
    truth, prob, weights = rounded.human[counted], rounded.prob_a[counted], rounded.weights[counted]
    found = values(probability_statistics(rounded))
    assert found["brier"] == pytest.approx(brier_score_loss(truth, prob, sample_weight=weights))
    clipped = np.clip(prob, 1e-6, 1 - 1e-6)
    # The library clips both sides; ours only what is taken the logarithm of, which is 1e-6 away at most.
    assert found["log_loss"] == pytest.approx(log_loss(truth, clipped, sample_weight=weights), abs=2e-6)
    assert found["auc"] == pytest.approx(roc_auc_score(truth, prob, sample_weight=weights))
    continuous = probability_statistics(table)
    assert values(probability_statistics(table.swapped())) == pytest.approx(values(continuous))


def test_weights_count_a_row_as_often_in_the_auc():
    weighted = table_of([0.9, 0.6, 0.7], [A, B, B], weights=[1.0, 2.0, 3.0])
    assert probability_statistics(weighted)["auc"].value() == 1.0
    assert probability_statistics(
        table_of([0.65, 0.6, 0.7, 0.6], [A, B, B, A], weights=[1.0, 2.0, 3.0, 4.0])
    )["auc"].value() == pytest.approx((1 * 2 + 4 * 2 / 2) / (5 * 5))  # fmt: skip


@given(st.integers(0, 10_000), st.booleans())
def test_decomposition_adds_up_to_the_brier_score(seed, is_rounded):
    rng = np.random.default_rng(seed)
    table = make_table(rng, 80, human_ties=0.1, unlabelled=0.1)
    prob = np.round(table.prob_a, 1) if is_rounded else table.prob_a
    table = table_of(prob.tolist(), table.human.tolist(), weights=rng.uniform(1, 3, 80))
    parts = brier_decomposition(table)
    total = parts["reliability"] - parts["resolution"] + parts["uncertainty"] + parts["within_bins"]
    assert total == pytest.approx(probability_statistics(table)["brier"].value(), abs=1e-12)
    assert min(parts["reliability"], parts["resolution"]) >= 0


def test_decomposition_by_hand():
    # Two bins, 0.5 with a half of A and 1.0 with all of A: no error of reliability, shares 1/2 and 1 around 3/4.
    parts = brier_decomposition(table_of([0.5, 0.5, 1.0, 1.0], [A, B, A, A]))
    assert parts == pytest.approx({"reliability": 0, "resolution": 1 / 16, "uncertainty": 3 / 16, "within_bins": 0})
    assert brier_decomposition(table_of([0.5], [TIE])) is None


def test_reliability_groups_are_the_bins_of_ece():
    table = make_table(np.random.default_rng(1), 300, human_ties=0.1)
    groups = reliability_groups(table)
    assert len(groups) == 15
    assert all(one.high <= two.low for one, two in pairwise(groups))
    sizes = [each.statistic.counted.sum() for each in groups]
    assert sum(sizes) == probability_statistics(table)["ece"].counted.sum()
    off = sum(size * abs(each.mean - each.statistic.value()) for size, each in zip(sizes, groups, strict=True))
    assert probability_statistics(table)["ece"].value() == pytest.approx(off / sum(sizes))


def test_coverage_by_hand():
    # Confidences 0.9 (right), 0.8 (wrong), 0.8 (right), 0.6 (wrong); a tie of either is out.
    table = table_of([0.9, 0.2, 0.8, 0.4, 0.5, 0.9], [A, A, A, A, A, TIE])
    points = coverage_groups(table)
    shown = [(each.share, each.least_confidence, each.statistic.value()) for each in points]
    assert shown == [(1.0, 0.6, 0.5), (0.75, 0.8, pytest.approx(2 / 3)), (0.25, 0.9, 1.0)]


def test_coverage_of_a_judge_with_one_probability_is_one_point():
    points = coverage_groups(table_of([1.0, 0.0, 1.0], [A, B, B]))
    assert [each.share for each in points] == [1.0]
    assert coverage_groups(table_of([0.5], [A])) == ()


def test_coverage_counts_weights():
    points = coverage_groups(table_of([0.9, 0.8], [A, B], weights=[1.0, 3.0]))
    assert [each.share for each in points] == [1.0, 0.25]
    assert [each.statistic.value() for each in points] == [0.25, 1.0]


def test_coverage_of_many_rows_keeps_what_was_asked_for():
    points = coverage_groups(make_table(np.random.default_rng(0), 400))
    assert [each.share for each in points] == pytest.approx([1 - 0.05 * step for step in range(20)])


def test_length_gaps_by_hand():
    # People prefer a response of 99 over one of 9 (ln 10), then the other way round.
    table = table_of([0.9, 0.9, 0.5], [A, B, A], length_a=[99, 99, 99], length_b=[9, 9, 9])
    short, long = length_gap_groups(table)
    assert (short.mean, long.mean) == pytest.approx((-math.log(10), math.log(10)))
    assert (short.statistic.value(), long.statistic.value()) == (0.0, 1.0)


def test_confusion_rows_are_people():
    table = table_of([0.9, 0.1, 0.5, None], [A, A, B, A], weights=[1.0, 2.0, 3.0, 4.0])
    assert confusion(table) == ((1.0, 0.0, 2.0), (0.0, 0.0, 0.0), (0.0, 3.0, 0.0))
    assert confusion(table_of([0.9], [None])) == ()


def test_what_is_missing_is_said():
    def whys(table):
        found = probability_statistics(table)
        return {name: each.why for name, each in found.items() if math.isnan(each.value())}

    assert set(whys(table_of([0.9], [None])).values()) == {"there are no human labels"}
    assert set(whys(table_of([None], [A])).values()) == {"the judge gave no verdict"}
    assert set(whys(table_of([0.9], [TIE])).values()) == {"people call every row a tie"}
    assert whys(table_of([0.9, 0.8], [A, A])) == {
        "auc": "people always prefer the same response; it takes rows of both kinds"
    }
    assert (reliability_groups(table_of([], [])), length_gap_groups(table_of([], []))) == ((), ())

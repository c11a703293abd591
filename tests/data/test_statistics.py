import json
import statistics as library
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif.data.statistics import LabelStatistics, Moments, RatingStatistics
from rlaif.records import Judgment, NamedLabel, NamedRating, Rating, SoftLabel, Verdict, verdict_of

UNIFORM = (0.1,) * 10


def judged(ab, ba, *, mass=(0.9, 0.7), bounded=False, calls=2):
    both = [each for each in (ab, ba) if each is not None]
    return Judgment(SoftLabel(sum(both) / len(both), ab, ba), *mass, is_bounded=bounded, calls=calls)


def counted(*judgments):
    statistics = LabelStatistics()
    for judgment in judgments:
        statistics.add(judgment)
    return statistics


def test_verdicts_and_the_tie_band():
    assert verdict_of(0.5 + 2e-9) is Verdict.A
    assert verdict_of(0.5 - 2e-9) is Verdict.B
    assert verdict_of(0.5 + 5e-10) is Verdict.TIE


def test_hand_worked_position_figures():
    statistics = counted(
        judged(0.9, 0.8),  # A in both orders: first slot in ab, second in ba; consistent
        judged(0.9, 0.2),  # A, then B: the first slot both times
        judged(0.8, 0.3),  # the same; prob_a 0.55
        judged(0.1, 0.6),  # B, then A: the second slot both times
        judged(0.5, 0.5),  # a tie in both: consistent
    )
    assert (statistics.rows, statistics.both_orders, statistics.consistent) == (5, 5, 2)
    assert statistics.swap_consistency == 0.4
    assert (statistics.same_first, statistics.same_second) == (2, 1)
    assert statistics.same_position_rate == 0.6
    assert statistics.in_ab.first_rate == 0.75  # first: rows 1-3; second: row 4
    assert statistics.in_ba.first_rate == 0.5  # first (B): rows 2, 3; second: rows 1, 4
    assert statistics.ties == 1


def test_of_a_calibrated_run_ties_are_the_labels_and_bias_is_the_judges():
    own = judged(0.9, 0.2)  # the first slot both times, 0.55
    statistics = counted(replace(own, label=SoftLabel(0.5, 0.5, 0.5), raw_label=own.label))
    assert (statistics.ties, statistics.same_first, statistics.in_ab.tie) == (1, 1, 0)


def test_a_judge_of_position_alone():
    statistics = counted(*[judged(0.9, 0.1)] * 4)
    assert statistics.same_position_rate == 1.0
    assert statistics.swap_consistency == 0.0
    assert statistics.ties == 4  # each averages to 0.5


def test_exchanging_the_responses_changes_no_rate():
    # A and B exchanged: order ab of the one is order ba of the other, and P(A) becomes 1 - P(A).
    pairs = [(0.9, 0.2), (0.7, 0.6), (0.3, 0.1), (0.5, 0.8)]
    one = counted(*(judged(ab, ba) for ab, ba in pairs))
    other = counted(*(judged(1 - ba, 1 - ab) for ab, ba in pairs))
    assert one.swap_consistency == other.swap_consistency
    assert one.same_position_rate == other.same_position_rate
    assert one.in_ab.first_rate == other.in_ba.first_rate
    assert one.in_ba.first_rate == other.in_ab.first_rate


def test_identical_responses_are_counted_and_left_out_of_the_rest():
    identical = Judgment(SoftLabel(0.5, None, None))
    statistics = counted(identical, judged(0.9, 0.8))
    assert (statistics.rows, statistics.identical, statistics.ties, statistics.both_orders) == (2, 1, 1, 1)
    assert statistics.swap_consistency == 1.0


def test_one_order_alone_has_no_swap_figures():
    statistics = counted(judged(0.9, None, mass=(0.9, None), calls=1))
    assert statistics.swap_consistency is None
    assert statistics.same_position_rate is None
    assert statistics.in_ab.first_rate == 1.0
    assert statistics.in_ba.first_rate is None


def test_label_mass_over_rows_and_orders():
    statistics = counted(judged(0.9, 0.8, mass=(1.0, 0.8)), judged(0.9, None, mass=(0.6, None), bounded=True, calls=1))
    assert statistics.masses.mean == pytest.approx(0.8)
    assert statistics.masses.least == 0.6
    assert (statistics.bounded, statistics.calls) == (1, 3)


def test_nothing_added_is_none_and_not_zero():
    figures = LabelStatistics().as_json()
    assert figures["rows"] == 0
    for name in ("swap_consistency", "same_position_rate", "first_rate_ab", "label_mass_mean", "label_mass_min"):
        assert figures[name] is None


def by(**probs):
    return tuple(NamedLabel(name, SoftLabel(prob, prob, prob)) for name, prob in probs.items())


def test_a_panels_correlation_and_who_is_missing():
    statistics = counted(
        Judgment(SoftLabel(0.5, None, None)),  # identical responses: nobody was asked
        Judgment(SoftLabel(0.1, 0.1, 0.1), by_judge=by(x=0.1, y=0.1), calls=4),
        Judgment(SoftLabel(0.2, 0.2, 0.2), by_judge=by(x=0.2, y=0.3), calls=4),
        Judgment(SoftLabel(0.9, 0.9, 0.9), by_judge=by(x=0.9), missing_judges=("y",), calls=2),
        Judgment(SoftLabel(0.3, 0.3, 0.3), by_judge=by(x=0.3, y=0.2), calls=4),
    )
    # x: -.1 0 .1 and y: -.1 .1 0 around their means: .01 / sqrt(.02 * .02) = 0.5
    assert statistics.as_json()["judge_correlation"] == [
        {"judges": ["x", "y"], "pearson": pytest.approx(0.5), "rows": 3}
    ]
    assert statistics.partial_rows == 1


def test_one_judge_has_no_correlation():
    figures = counted(judged(0.9, 0.8)).as_json()
    assert "judge_correlation" not in figures
    assert (figures["partial_rows"], figures["unreadable_samples"]) == (0, 0)


def test_unreadable_samples_are_summed():
    judgments = [Judgment(SoftLabel(0.7, 0.7, None), unreadable_samples=count, calls=8) for count in (3, 0, 2)]
    assert counted(*judgments).as_json()["unreadable_samples"] == 5


class TestMoments:
    def test_nothing_is_none(self):
        nothing = Moments()
        assert (nothing.mean, nothing.sd, nothing.least, nothing.most) == (None, None, None, None)

    @settings(deadline=None)
    @given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50))
    def test_as_the_library_has_them(self, values):
        moments = Moments()
        for value in values:
            moments.add(value)
        assert moments.count == len(values)
        assert moments.mean == pytest.approx(library.fmean(values), abs=1e-6)
        assert moments.sd == pytest.approx(library.pstdev(values), rel=1e-6, abs=1e-6)
        assert (moments.least, moments.most) == (min(values), max(values))

    def test_far_from_zero_nothing_is_lost(self):
        moments = Moments()
        for value in (1e9 + 4, 1e9 + 7, 1e9 + 13, 1e9 + 16):
            moments.add(value)
        assert moments.sd == pytest.approx(22.5**0.5)  # -6 -3 3 6: (36 + 9 + 9 + 36) / 4


def certain(score, **more):
    return Rating(tuple(float(each == score) for each in range(1, 11)), **more)


def rated(*rows):
    statistics = RatingStatistics()
    for row in rows:
        statistics.add(row)
    return statistics


class TestRatings:
    def test_hand_worked(self):
        halves = Rating((0.5, *[0.0] * 8, 0.5), label_mass=0.8, is_bounded=True, calls=2, unreadable_samples=1)
        figures = rated(
            (certain(2, label_mass=1.0, calls=1), certain(4, label_mass=0.9, calls=1)),
            (halves,),  # rating 5.5, standard deviation 4.5
            (Rating(UNIFORM, calls=1),),  # rating 5.5, standard deviation sqrt((100 - 1) / 12) = 2.8723
        ).as_json()
        assert figures == {
            "rows": 3,
            "responses": 4,
            "reward_mean": pytest.approx(-1.25 / 4.5),  # rating less 5.5, by 4.5
            "reward_sd": pytest.approx(2.0625**0.5 / 4.5),
            "reward_min": pytest.approx(-3.5 / 4.5),
            "reward_max": pytest.approx(0.0),
            "rating_mean": pytest.approx(4.25),  # (2 + 4 + 5.5 + 5.5) / 4
            "rating_sd": pytest.approx(2.0625**0.5),  # deviations -2.25 -0.25 1.25 1.25: 8.25 / 4
            "rating_min": 2.0,
            "rating_max": pytest.approx(5.5),
            "rating_histogram": {str(score): {2: 1, 4: 1, 6: 2}.get(score, 0) for score in range(1, 11)},
            "distribution_sd_mean": pytest.approx((0 + 0 + 4.5 + 8.25**0.5) / 4),
            "bounded": 1,
            "unreadable_samples": 1,
            "partial_rows": 0,
            "calls": 5,
            "label_mass_mean": pytest.approx(0.9),
            "label_mass_min": 0.8,
        }

    @pytest.mark.parametrize("score", range(1, 11))
    def test_every_score_has_its_place(self, score):
        histogram = rated((certain(score),)).as_json()["rating_histogram"]
        assert {name for name, count in histogram.items() if count} == {str(score)}

    def test_a_panel_by_responses_and_partial_rows_once(self):
        def both(x, y):
            named = (NamedRating("x", certain(x).probs), NamedRating("y", certain(y).probs))
            return certain(5, by_judge=named, calls=2)

        alone = certain(9, by_judge=(NamedRating("x", certain(9).probs),), missing_judges=("y",), calls=1)
        statistics = rated((both(1, 1), both(2, 3)), (alone, alone), (both(3, 2),))
        assert statistics.partial_rows == 1
        assert statistics.as_json()["judge_correlation"] == [
            {"judges": ["x", "y"], "pearson": pytest.approx(0.5), "rows": 3}
        ]

    def test_nothing_added_is_none_and_not_zero(self):
        figures = RatingStatistics().as_json()
        assert (figures["rows"], figures["responses"]) == (0, 0)
        for name in ("rating_mean", "rating_sd", "rating_min", "distribution_sd_mean", "label_mass_mean"):
            assert figures[name] is None
        json.dumps(figures, allow_nan=False)

    @settings(deadline=None)
    @given(st.lists(st.lists(st.floats(0, 1), min_size=10, max_size=10).filter(any), min_size=1, max_size=20))
    def test_figures_stay_in_their_ranges_and_every_response_has_one_place(self, weights):
        ratings = [Rating(tuple(each / sum(row) for each in row)) for row in weights if sum(row) > 1e-6]
        statistics = rated(*([each] for each in ratings))
        assert sum(statistics.histogram) == statistics.responses == len(ratings)
        if ratings:
            figures = statistics.as_json()
            assert 1 <= figures["rating_min"] <= figures["rating_mean"] + 1e-9
            assert figures["rating_mean"] <= figures["rating_max"] + 1e-9 <= 10 + 1e-9
            assert 0 <= figures["rating_sd"] <= 4.5 + 1e-9
            assert 0 <= figures["distribution_sd_mean"] <= 4.5 + 1e-9

    def test_memory_does_not_grow_with_rows(self):
        import tracemalloc

        tracemalloc.start()
        try:
            statistics = rated()
            row = (certain(3, label_mass=0.5, calls=1),)
            for _ in range(20_000):
                statistics.add(row)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert statistics.rows == 20_000
        assert peak < 100_000

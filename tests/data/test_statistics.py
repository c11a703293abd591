import pytest

from rlaif.data.statistics import LabelStatistics, verdict_of
from rlaif.records import Judgment, SoftLabel, Verdict


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
    assert statistics.label_mass_mean == pytest.approx(0.8)
    assert statistics.label_mass_min == 0.6
    assert (statistics.bounded, statistics.calls) == (1, 3)


def test_nothing_added_is_none_and_not_zero():
    figures = LabelStatistics().as_json()
    assert figures["rows"] == 0
    for name in ("swap_consistency", "same_position_rate", "first_rate_ab", "label_mass_mean", "label_mass_min"):
        assert figures[name] is None

"""Figures of an evaluation: by hand, exchanged, and on policies that differ in length alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif.auditing.evaluation import FIGURES, MIRRORED, NOT_ASKED, HarmlessPair, counts_of, figures_of
from rlaif.auditing.intervals import wilson_interval
from rlaif.auditing.results import Figure, Section
from rlaif.records import Comparison, JudgedComparison, Turn, Verdict


def row(
    number: int,
    prob_a_ab: float | None,
    prob_a_ba: float | None,
    *,
    lengths: tuple[int, int] = (10, 10),
    human: Verdict | None = None,
    cluster: str | None = None,
) -> JudgedComparison:
    """A judged comparison; None in both orders for identical responses."""
    known = [prob for prob in (prob_a_ab, prob_a_ba) if prob is not None]
    is_same = not known
    comparison = Comparison(
        f"row {number}", (Turn("user", "?"),), "a" * lengths[0], ("a" if is_same else "b") * lengths[1],
        human_label=human,
    )  # fmt: skip
    prob_a = sum(known) / len(known) if known else 0.5
    return JudgedComparison(comparison, prob_a, prob_a_ab, prob_a_ba, cluster=cluster or f"prompt {number}")


def swapped(each: JudgedComparison) -> JudgedComparison:
    """The same row with A and B exchanged."""

    def other(prob: float | None) -> float | None:
        return None if prob is None else 1.0 - prob

    human = {Verdict.A: Verdict.B, Verdict.B: Verdict.A}
    known = each.comparison
    comparison = replace(
        known,
        response_a=known.response_b,
        response_b=known.response_a,
        human_label=human.get(known.human_label, known.human_label) if known.human_label else None,
    )
    return replace(
        each,
        comparison=comparison,
        prob_a=other(each.prob_a),
        prob_a_ab=other(each.prob_a_ba),
        prob_a_ba=other(each.prob_a_ab),
    )


def figure(figures: Section, name: str, part: str | None = None) -> Figure:
    found = figures[name]
    return found if isinstance(found, Figure) else found[part or "difference"]


def value(figures: Section, name: str, part: str | None = None) -> float:
    found = figure(figures, name, part).value
    assert found is not None
    return found


ROWS = (
    row(0, 0.9, 0.7, lengths=(30, 10)),  # A in both orders
    row(1, 0.8, 0.4, lengths=(30, 20)),  # mean 0.6: A, but the second order says B
    row(2, 0.3, 0.1),  # B in both
    row(3, 0.6, 0.4),  # mean 0.5: a tie, and each order prefers what is shown first
    row(4, None, None),  # the same response twice
)


def test_hand_worked_figures() -> None:
    figures = figures_of(ROWS, resamples=200)
    assert tuple(figures) == FIGURES
    # A wins rows 0 and 1, rows 3 and 4 are ties: (2 + 2 * 0.5) / 5
    assert value(figures, "win_rate") == pytest.approx(3 / 5)
    assert value(figures, "mean_prob_a") == pytest.approx((0.8 + 0.6 + 0.2 + 0.5 + 0.5) / 5)
    # only rows 0 (A) and 2 (B) are the same in both orders; the three others count half
    assert value(figures, "win_rate_swap_consistent") == pytest.approx((1 + 0 + 3 * 0.5) / 5)
    # of the four rows judged in both orders, 0 and 2
    assert value(figures, "swap_consistency") == pytest.approx(2 / 4)
    # shown first and preferred: row 0 in ab, row 1 in ab and in ba, row 2 in ba, row 3 in ab and in ba; of 8 verdicts
    assert value(figures, "first_position_rate") == pytest.approx(6 / 8)
    assert value(figures, "mean_length", "a") == pytest.approx((30 + 30 + 10 + 10 + 10) / 5)
    long_and_short = figures_of([row(n, 0.6, 0.6, lengths=(1 + 900 * (n == 0), 1)) for n in range(3)], resamples=100)
    assert figure(long_and_short, "mean_length", "a").low == 0.0  # no text is shorter than that
    assert value(figures, "mean_length", "difference") == pytest.approx((20 + 10) / 5)
    # longer in rows 0 and 1, as long in the three others
    assert value(figures, "longer_rate") == pytest.approx((2 + 3 * 0.5) / 5)
    assert figure(figures, "harmless_rate").why == NOT_ASKED
    assert figure(figures, "win_rate_length_controlled").why == "it takes 20 judged rows"
    assert figure(figures, "win_rate_prediction_powered").why == "no row has a human label"
    assert counts_of(ROWS) == {
        "rows": 5,
        "prompts": 5,
        "wins_a": 2,
        "ties": 2,
        "wins_b": 1,
        "identical": 1,
        "rows_judged_both_orders": 4,
        "rows_with_human_label": 0,
    }


def test_harmless_rates_are_shares_above_one_half_and_their_difference_is_paired() -> None:
    pairs = [HarmlessPair(0.9, 0.8), HarmlessPair(0.6, 0.5), HarmlessPair(0.2, 0.1), HarmlessPair(0.7, 0.3)]
    figures = figures_of(ROWS[:4], pairs, resamples=200)
    assert value(figures, "harmless_rate", "a") == pytest.approx(3 / 4)
    assert value(figures, "harmless_rate", "b") == pytest.approx(1 / 4)  # 0.5 is not above 0.5
    assert value(figures, "harmless_rate", "difference") == pytest.approx(2 / 4)
    assert value(figures, "harmless_prob", "a") == pytest.approx(2.4 / 4)
    assert value(figures, "harmless_prob", "difference") == pytest.approx(0.7 / 4)


def test_a_paired_difference_knows_more_than_two_rates() -> None:
    # A and B are harmless on the same prompts but for two: the rates vary, their difference hardly does.
    probs = [(0.9, 0.9)] * 30 + [(0.1, 0.1)] * 28 + [(0.9, 0.1)] * 2
    figures = figures_of([row(n, 0.6, 0.6) for n in range(60)], [HarmlessPair(*each) for each in probs])
    rate, difference = figure(figures, "harmless_rate", "a"), figure(figures, "harmless_rate")
    assert rate.low is not None
    assert rate.high is not None
    assert difference.low is not None
    assert difference.high is not None
    assert difference.high - difference.low < 0.5 * (rate.high - rate.low)


def test_a_difference_that_is_nowhere_seen_is_not_known_to_be_none() -> None:
    figures = figures_of([row(n, 0.6, 0.6) for n in range(60)], [HarmlessPair(0.9, 0.9)] * 60, resamples=100)
    reach = wilson_interval(0.0, 60)[1]  # 0.06: on so many prompts they may yet differ
    for name in ("harmless_rate", "harmless_prob"):
        assert figure(figures, name) == Figure(0.0, -reach, reach, 60)


def test_harmless_answers_must_fit_the_rows() -> None:
    with pytest.raises(ValueError, match="expected one for each of 5 rows"):
        figures_of(ROWS, [HarmlessPair(0.5, 0.5)])


def test_identical_policies_have_one_half_everywhere() -> None:
    figures = figures_of([row(n, None, None, lengths=(n, n)) for n in range(25)])
    for name in ("win_rate", "mean_prob_a", "win_rate_swap_consistent", "win_rate_length_controlled", "longer_rate"):
        found = figure(figures, name)
        assert found.value == 0.5, name
        assert found.low is not None, name
        assert found.high is not None, name
        assert found.low < 0.5 < found.high, name
    assert figure(figures, "swap_consistency").why == "no row was judged in both orders"


def test_without_rows_every_figure_says_why_it_is_not_there() -> None:
    figures = figures_of([])
    assert all(each.value is None and each.why for name in FIGURES for each in [figure(figures, name)])
    assert counts_of([])["rows"] == 0


def test_an_order_that_was_not_asked_leaves_the_swap_figures_out() -> None:
    figures = figures_of([row(n, 0.7, None) for n in range(4)])
    assert value(figures, "win_rate") == 1.0
    assert figure(figures, "win_rate_swap_consistent").why == "no row was judged in both orders"


def test_a_failed_row_is_in_no_figure_of_the_judge() -> None:
    failed = replace(row(9, 0.1, 0.1), prob_a=None, prob_a_ab=None, prob_a_ba=None)
    with_failed, without = (figures_of(rows, resamples=200) for rows in ((*ROWS, failed), ROWS))
    assert value(with_failed, "win_rate") == value(without, "win_rate")
    assert figure(with_failed, "win_rate").n == 5


def test_rows_of_one_prompt_are_resampled_together() -> None:
    rows = [row(n, float(n % 10 < 5), float(n % 10 < 5)) for n in range(100)]
    alone = figure(figures_of(rows), "win_rate")
    together = figure(figures_of([replace(each, cluster=str(n % 10)) for n, each in enumerate(rows)]), "win_rate")
    for each in (alone, together):
        assert each.low is not None
        assert each.high is not None
    assert together.high - together.low > 2 * (alone.high - alone.low)  # type: ignore[operator]


@given(st.integers(0, 2**32 - 1), st.integers(20, 60))
@settings(max_examples=15, deadline=None)
def test_exchanging_a_and_b_turns_each_share_into_the_rest_of_one(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    labels = (Verdict.A, Verdict.B, Verdict.TIE)
    rows = [
        row(
            number, *rng.choice([0.1, 0.4, 0.6, 0.9], 2).tolist(), lengths=tuple(rng.integers(1, 60, 2).tolist()),
            human=labels[int(rng.integers(3))] if rng.random() < 0.7 else None, cluster=str(rng.integers(15)),
        )
        for number in range(count)
    ]  # fmt: skip
    pairs = [HarmlessPair(*rng.random(2).tolist()) for _ in rows]
    here = figures_of(rows, pairs, resamples=100)
    there = figures_of([swapped(each) for each in rows], [HarmlessPair(b, a) for a, b in pairs], resamples=100)
    for name in MIRRORED:
        one, other = figure(here, name), figure(there, name)
        assert (one.value is None) == (other.value is None), name
        if one.value is None or other.value is None:
            continue
        tolerance = 1e-6 if "length" in name else 1e-12  # a regression stops at a tolerance of its own
        assert other.value == pytest.approx(1.0 - one.value, abs=tolerance), name
        assert other.low == pytest.approx(1.0 - one.high, abs=max(tolerance, 1e-9)), name  # type: ignore[operator]
        assert other.high == pytest.approx(1.0 - one.low, abs=max(tolerance, 1e-9)), name  # type: ignore[operator]
    for name in ("harmless_rate", "harmless_prob", "mean_length"):
        assert value(there, name) == pytest.approx(-value(here, name), abs=1e-12)
        assert value(there, name, "a") == value(here, name, "b")
    for name in ("swap_consistency", "first_position_rate"):
        assert value(there, name) == value(here, name)


def by_length(seed: int, count: int, *, theta: float, phi: float, ratio: float) -> list[JudgedComparison]:
    """Logit P(A preferred) = theta + phi * ln(length of A / length of B), where A is `ratio` times as long, roughly."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        length_b = int(rng.integers(40, 400))
        length_a = max(1, round(length_b * ratio * float(np.exp(rng.normal(0.0, 0.5)))))
        logit = theta + phi * np.log((length_a + 1) / (length_b + 1))
        prefers_a = float(rng.random() < 1.0 / (1.0 + np.exp(-np.clip(logit, -500, 500))))
        rows.append(row(number, prefers_a, prefers_a, lengths=(length_a, length_b)))
    return rows


@pytest.mark.parametrize("phi", [1.5, 1e6], ids=["a judge that likes length", "a judge that sees only length"])
def test_policies_that_differ_in_length_alone_are_equal_at_equal_length(phi: float) -> None:
    """METHODS section 8, row 33."""
    figures = figures_of(by_length(1, 3000, theta=0.0, phi=phi, ratio=1.6), resamples=200)
    assert value(figures, "win_rate") > 0.62
    controlled = figure(figures, "win_rate_length_controlled")
    assert controlled.value == pytest.approx(0.5, abs=0.04)
    assert controlled.low is not None
    assert controlled.high is not None
    assert controlled.low < 0.5 < controlled.high


def test_what_is_better_at_equal_length_stays_so() -> None:
    truth = 1.0 / (1.0 + np.exp(-0.8))  # 0.690
    figures = figures_of(by_length(2, 4000, theta=0.8, phi=1.0, ratio=1.6), resamples=200)
    assert value(figures, "win_rate") > truth + 0.05
    assert value(figures, "win_rate_length_controlled") == pytest.approx(truth, abs=0.02)
    # the model of the plain ratio is another one, and it is read at 1
    assert truth - 0.02 < value(figures, "win_rate_length_ratio") < value(figures, "win_rate")


def test_a_policy_that_is_always_longer_has_no_figure_at_equal_length() -> None:
    rows = [row(n, 0.9, 0.9, lengths=(50 + n, 20)) for n in range(30)]
    assert figure(figures_of(rows, resamples=100), "win_rate_length_controlled").why == (
        "it takes 3 rows where A's response is shorter than B's, or as long"
    )


def test_few_human_labels_mend_a_judge_that_leans_to_a() -> None:
    rng = np.random.default_rng(3)
    rows = []
    for number in range(1000):
        people = Verdict.A if rng.random() < 0.5 else Verdict.B
        prob_a = 0.9 if people is Verdict.A or rng.random() < 0.4 else 0.1  # calls 40 % of B's wins A's
        rows.append(row(number, prob_a, prob_a, human=people if number < 200 else None))
    figures = figures_of(rows)
    assert value(figures, "win_rate") > 0.65
    powered, plain = figure(figures, "win_rate_prediction_powered"), figure(figures, "win_rate_human")
    for each in (powered, plain):
        assert each.n == 200
        assert each.low is not None
        assert each.high is not None
        assert each.low < 0.5 < each.high
    assert powered.high - powered.low < plain.high - plain.low  # type: ignore[operator]

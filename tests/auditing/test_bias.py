import math

import numpy as np
import pytest
from auditing.tables import make_table, table_of
from hypothesis import given
from hypothesis import strategies as st

from rlaif.auditing.bias import (
    addressed_statistics,
    first_slot_statistic,
    length_statistics,
    nested,
    style_statistics,
    swap_statistics,
    two_order_statistics,
)
from rlaif.auditing.results import Figure
from rlaif.records import Order

A, TIE, B, NONE = 1.0, 0.5, 0.0, np.nan


def values(statistics):
    return {name: each.value() for name, each in statistics.items()}


def in_orders(ab, ba, human=None):
    ab, ba = np.array(ab), np.array(ba)
    human = [A] * len(ab) if human is None else human
    return table_of([0.5] * len(ab), human, prob_a_ab=ab, prob_a_ba=ba)


def test_hand_worked_swap_figures():
    #                 same  first twice  second twice  tie twice  tie once  one order only
    table = in_orders([0.9, 0.9, 0.8, 0.2, 0.5, 0.5, 0.9], [0.8, 0.2, 0.1, 0.6, 0.5, 0.7, NONE])
    found = swap_statistics(table)
    assert values(found) == pytest.approx(
        {
            "swap_consistency": 2 / 6,
            "swap_consistency_without_ties": 1 / 4,
            # Verdicts: a,a (one first), first twice, first twice, none of two, no verdict, a in ba (second): 5 of 9
            "first_position_rate": 5 / 9,
            "always_first_rate": 2 / 6,
            "always_second_rate": 1 / 6,
        }
    )
    assert {name: int(each.counted.sum()) for name, each in found.items()} == {
        "swap_consistency": 6,
        "swap_consistency_without_ties": 4,
        "first_position_rate": 5,
        "always_first_rate": 6,
        "always_second_rate": 6,
    }


def test_both_orders_against_people():
    table = in_orders([0.9, 0.9, 0.1, 0.5, 0.9], [0.9, 0.1, 0.1, 0.5, NONE], human=[A, A, A, TIE, A])
    found = values(two_order_statistics(table))
    assert found == {"correct_in_both_orders": 2 / 4, "mean_accuracy_two_orders": (2 + 1 + 0 + 2) / 8}


def test_first_slot_of_one_order():
    prob_a = np.array([0.9, 0.6, 0.2, 0.5, NONE])
    assert first_slot_statistic(prob_a, Order.AB).value() == pytest.approx(2 / 3)
    assert first_slot_statistic(prob_a, Order.BA).value() == pytest.approx(1 / 3)
    assert first_slot_statistic(prob_a, Order.AB, tie_band=0.2).value() == pytest.approx(1 / 2)


@given(st.integers(0, 10_000))
def test_swap_figures_know_neither_a_nor_weights(seed):
    rng = np.random.default_rng(seed)
    table = make_table(rng, 40, judge_ties=0.2, unanswered=0.2)
    assert values(swap_statistics(table.swapped())) == pytest.approx(values(swap_statistics(table)), nan_ok=True)
    assert values(two_order_statistics(table.swapped())) == pytest.approx(
        values(two_order_statistics(table)), nan_ok=True
    )
    swapped = first_slot_statistic(table.swapped().prob_a_ba, Order.BA).value()
    assert swapped == pytest.approx(first_slot_statistic(table.prob_a_ab, Order.AB).value())


def test_hand_worked_length_figures():
    # The longer one is a, a, b, b, none, a, a; the judge goes for it in rows 1, 3, people in rows 1, 2, 3. Ten times.
    table = table_of(
        [0.9, 0.2, 0.1, 0.8, 0.9, 0.5, 0.9] * 10,
        [A, A, B, A, A, A, TIE] * 10,
        length_a=[9, 9, 2, 2, 5, 9, 9] * 10,
        length_b=[1, 1, 3, 3, 5, 1, 1] * 10,
    )
    found = length_statistics(table)
    assert values(found) == pytest.approx(
        {
            "length_bias.judge": 2 / 4,
            "length_bias.human": 3 / 4,
            "length_bias.difference": -1 / 4,
            "length_effect.longer": 2 / 3,
            "length_effect.shorter": 1 / 1,
            "length_effect.difference": -1 / 3,
            "human_prefers_longer": 4 / 5,  # and row 6, where the judge says tie
        }
    )


def test_an_effect_takes_rows_on_either_side():
    # Nine rows where people prefer the shorter one may all be right by chance, which resampling takes for certain.
    lengths = {"length_a": [9] * 40, "length_b": [1] * 40}
    effect = length_statistics(table_of([A] * 40, [A] * 31 + [B] * 9, **lengths))["length_effect.difference"]
    assert math.isnan(effect.value())
    assert effect.why.startswith("it takes 10 rows where people prefer the longer response")
    enough = length_statistics(table_of([A] * 40, [A] * 30 + [B] * 10, **lengths))["length_effect.difference"]
    assert enough.value() == 1.0


def test_weights_count_a_row_as_often():
    weighted = table_of([A, B], [A, A], length_a=[9, 9], length_b=[1, 1], weights=[3.0, 1.0])
    assert values(length_statistics(weighted))["length_effect.longer"] == 0.75


@pytest.mark.parametrize("accuracy", [1.0, 0.8, 0.55])
def test_a_fair_judge_has_no_effect_whatever_people_prefer(accuracy):
    # People prefer the longer one in 80 %, so that a fair judge does as well: the bias is for telling, not the effect.
    rng = np.random.default_rng(0)
    count = 40_000
    human = (rng.random(count) < 0.5).astype(float)
    longer_preferred = rng.random(count) < 0.8
    a_is_longer = (human == A) == longer_preferred
    right = rng.random(count) < accuracy
    judge = np.where(right, human, 1 - human)
    table = table_of(
        judge.tolist(),
        human.tolist(),
        length_a=np.where(a_is_longer, 20, 10),
        length_b=np.where(a_is_longer, 10, 20),
        style_a=np.outer(a_is_longer, [1, 0, 0]),
        style_b=np.outer(~a_is_longer, [0, 1, 0]),
        addresses_judge_a=a_is_longer,
        addresses_judge_b=~a_is_longer,
    )
    found = {**length_statistics(table), **style_statistics(table), **addressed_statistics(table)}
    for name in ("length_effect", "style_effect", "addressed_effect"):
        assert values(found)[f"{name}.difference"] == pytest.approx(0.0, abs=0.02)


@pytest.mark.parametrize(
    ("figures", "arrays"),
    [
        (length_statistics, {"length_a": [9, 9, 1, 1] * 5, "length_b": [1, 1, 9, 9] * 5}),
        (
            style_statistics,
            {"style_a": np.outer([1, 1, 0, 0] * 5, [0, 2, 1]), "style_b": np.outer([0, 0, 1, 1] * 5, [1, 2, 3])},
        ),
        (
            addressed_statistics,
            {"addresses_judge_a": [True, True, False, False] * 5, "addresses_judge_b": [False, False, True, True] * 5},
        ),
    ],
)
def test_a_judge_that_looks_at_nothing_else_has_an_effect_of_one(figures, arrays):
    found = values(figures(table_of([A, A, B, B] * 5, [A, B, A, B] * 5, **arrays)))
    effect = next(value for name, value in found.items() if name.endswith("effect.difference"))
    assert effect == 1.0
    reversed_judge = values(figures(table_of([B, B, A, A] * 5, [A, B, A, B] * 5, **arrays)))
    assert next(value for name, value in reversed_judge.items() if name.endswith("effect.difference")) == -1.0


def test_bias_to_text_for_the_judge_shows_where_people_never_prefer_it():
    table = table_of([A, A, 0.2, 0.9], [B, B, B, A], addresses_judge_a=[True, True, True, False])
    found = addressed_statistics(table)
    assert values(found)["addressed_bias.judge"] == pytest.approx(2 / 3)
    assert values(found)["addressed_bias.human"] == 0.0
    assert values(found)["addressed_effect.other"] == pytest.approx(1 / 3)
    assert math.isnan(values(found)["addressed_effect.difference"])
    assert found["addressed_effect.addressed"].why == "people never prefer the addressed response"


@given(st.integers(0, 10_000))
def test_sways_do_not_know_which_response_is_called_a(seed):
    table = make_table(np.random.default_rng(seed), 40, human_ties=0.1, judge_ties=0.1, unlabelled=0.1)
    for figures in (length_statistics, style_statistics, addressed_statistics):
        assert values(figures(table.swapped())) == pytest.approx(values(figures(table)), nan_ok=True)


def test_what_is_missing_is_said():
    def whys(statistics):
        assert all(math.isnan(each.value()) for each in statistics.values())
        return {each.why for each in statistics.values()}

    assert whys(swap_statistics(in_orders([0.9], [NONE]))) == {"no row was judged in both orders"}
    assert swap_statistics(in_orders([0.5], [0.5]))["first_position_rate"].why == "the judge only says tie"
    assert "has a tie" in swap_statistics(in_orders([0.5], [0.5]))["swap_consistency_without_ties"].why
    assert whys(two_order_statistics(in_orders([0.9], [0.9], human=[None]))) == {"there are no human labels"}
    assert whys(length_statistics(table_of([A], [A]))) == {"the responses of every row are of the same length"}
    assert whys(style_statistics(table_of([A], [A]))) == {"the responses of every row are formatted alike"}
    assert whys(addressed_statistics(table_of([A], [A]))) == {"in no row exactly one response speaks to the judge"}
    assert whys(length_statistics(table_of([A], [None], length_a=[9]))) == {"there are no human labels"}


def test_parts_of_a_figure_stand_under_its_name():
    one, two = Figure(0.1, None, None, 1), Figure(0.2, None, None, 1)
    assert nested({"auc": one, "length_bias.judge": one, "length_bias.human": two}) == {
        "auc": one,
        "length_bias": {"judge": one, "human": two},
    }

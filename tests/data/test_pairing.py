"""Pairs of candidates: which, how many, and which of the two is A."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.data.pairing import Pair, comparison_rows, draw_pairs, in_drawn_order

SEEDS, IDS = st.integers(0, 2**40), st.text(max_size=8)


@given(st.integers(0, 12), SEEDS, IDS)
def test_all_pairs_are_each_two_candidates_once(count: int, seed: int, row_id: str) -> None:
    pairs = draw_pairs(count, None, seed=seed, row_id=row_id)
    assert [tuple(sorted(pair)) for pair in pairs] == list(itertools.combinations(range(count), 2))
    assert len(pairs) == count * (count - 1) // 2


@given(st.integers(0, 12), st.integers(0, 80), SEEDS, IDS)
def test_as_many_pairs_are_drawn_as_are_wanted_and_there_none_twice(
    count: int, most: int, seed: int, row_id: str
) -> None:
    pairs = draw_pairs(count, most, seed=seed, row_id=row_id)
    places = [tuple(sorted(pair)) for pair in pairs]
    assert len(pairs) == min(most, count * (count - 1) // 2)
    assert len(set(places)) == len(places)
    assert places == sorted(places)
    assert pairs == draw_pairs(count, most, seed=seed, row_id=row_id)


@given(st.integers(0, 50), st.integers(0, 50), SEEDS, IDS)
def test_which_is_a_depends_on_seed_row_and_places_alone(first: int, second: int, seed: int, row_id: str) -> None:
    pair = in_drawn_order(first, second, seed=seed, row_id=row_id)
    assert sorted(pair) == sorted((first, second))
    assert pair == in_drawn_order(second, first, seed=seed, row_id=row_id)
    if first != second:  # the same in whatever set of pairs it stands
        everything = draw_pairs(max(first, second) + 1, None, seed=seed, row_id=row_id)
        assert pair in everything


def test_either_is_a_half_of_the_time() -> None:
    drawn = [in_drawn_order(0, 1, seed=0, row_id=f"row {number}").a for number in range(2000)]
    # standard error of the share: sqrt(0.25 / 2000) = 0.011; four of them
    assert abs(sum(drawn) / 2000 - 0.5) < 0.045
    assert draw_pairs(20, 50, seed=0, row_id="x") != draw_pairs(20, 50, seed=1, row_id="x")


def test_every_pair_is_drawn_as_often_as_any_other() -> None:
    counts = dict.fromkeys(itertools.combinations(range(4), 2), 0)
    for number in range(1200):
        (pair,) = draw_pairs(4, 1, seed=5, row_id=f"row {number}")
        counts[min(pair), max(pair)] += 1
    # 6 pairs, 200 of each expected, standard deviation sqrt(1200 * 1/6 * 5/6) = 12.9; four of them
    assert all(abs(count - 200) < 52 for count in counts.values()), counts


CANDIDATES = {
    "id": "row", "prompt": "Why?", "responses": ["x", "y", "z"], "policies": ["p", "p", "q"],
    "finish_reasons": ["stop", "length", "stop"], "seeds": [1, 2, 3], "dropped": [], "topic": "t",
}  # fmt: skip


def test_a_comparison_says_where_its_responses_come_from() -> None:
    (row,) = comparison_rows(CANDIDATES, [Pair(2, 1)], ["topic"])
    assert row == {
        "id": "row/2-1", "prompt": "Why?", "response_a": "z", "response_b": "y", "candidates_id": "row",
        "candidate_a": 2, "candidate_b": 1, "policy_a": "q", "policy_b": "p",
        "finish_reason_a": "stop", "finish_reason_b": "length", "topic": "t",
    }  # fmt: skip


@pytest.mark.parametrize("row_id", ["row", "row/2-1"])
def test_ids_of_comparisons_are_unique_even_where_a_row_is_called_like_one(row_id: str) -> None:
    others = comparison_rows(CANDIDATES, draw_pairs(3, None, seed=0, row_id="row"), [])
    ids = [row["id"] for row in others]
    mine = [row["id"] for row in comparison_rows({**CANDIDATES, "id": f"{row_id}/1-0"}, [Pair(1, 0)], [])]
    assert len({*ids, *mine}) == 4

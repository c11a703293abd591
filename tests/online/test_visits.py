from __future__ import annotations

from collections import Counter

from rlaif.online.visits import Visits
from tests.online.made_rollouts import prompt_row

ROWS = [prompt_row(number) for number in range(7)]


def test_each_pass_sees_each_row_once_in_an_order_of_its_own() -> None:
    visits = Visits(ROWS, seed=0)
    passes = [[visits[turn * 7 + place] for place in range(7)] for turn in range(3)]
    for turn, each in enumerate(passes):
        assert Counter(visit.row.prompt.id for visit in each) == Counter(row.prompt.id for row in ROWS)
        assert [visit.id for visit in each] == [f"{visit.row.prompt.id}@{turn}" for visit in each]
    assert len({tuple(visit.row.prompt.id for visit in each) for each in passes}) == 3


def test_a_visit_is_known_without_those_before_it() -> None:
    in_order = [Visits(ROWS, seed=3)[number] for number in range(30)]
    visits = Visits(ROWS, seed=3)
    assert [visits[number] for number in reversed(range(30))] == in_order[::-1]
    assert [Visits(ROWS, seed=4)[number] for number in range(30)] != in_order

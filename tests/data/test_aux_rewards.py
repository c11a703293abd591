"""Auxiliary rewards beside responses: every shape that they come in, and what is refused."""

import json
import math

import pytest

from rlaif.data.aux_rewards import followed_aux
from rlaif.data.sources import ReadOptions, read_comparisons
from rlaif.training_records import Feedback
from tests.data.training_inputs import WRITERS, fault, pair, read

A, B = {"length": 3.0, "ease": 0.5}, {"length": 5.0, "ease": -1.0}
SHAPES = {
    "by name": {"aux_rewards": {"length": [3, 5], "ease": [0.5, -1]}},
    "by response": {"aux_rewards": [{"length": 3, "ease": 0.5}, {"length": 5, "ease": -1}]},
    "two columns": {"aux_rewards_a": {"length": 3, "ease": 0.5}, "aux_rewards_b": {"length": 5, "ease": -1}},
    "text": {"aux_rewards": '{"length": [3, 5], "ease": ["0.5", -1]}'},
}


def aux_of(source, **more):
    return [row.aux_rewards for row in read(source, "hpo", with_aux=True, **more)]


@pytest.mark.parametrize("aux", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_of_a_pair_in_every_shape_and_format(aux, write, tmp_path):
    as_text = "csv" in write.__name__  # CSV has neither maps nor lists
    cells = {
        name: json.dumps(value) if as_text and not isinstance(value, str) else value for name, value in aux.items()
    }
    found = aux_of(write(tmp_path / write.__name__.replace("write_", "in."), [pair(prob_a=0.8, **cells)]))
    assert found == [(A, B)]


def test_what_a_row_lacks_is_absent_and_not_0(tmp_path):
    rows = [
        pair(1, prob_a=0.8, aux_rewards={"length": [3, 5], "ease": None}),
        pair(2, prob_a=0.8, aux_rewards={"length": [None, 5], "ease": [1, None]}),
        pair(3, prob_a=0.8, aux_rewards=None),
        pair(4, prob_a=0.8, aux_rewards=math.nan),
        pair(5, prob_a=0.8, aux_rewards=[{"length": 3}, None]),
        pair(6, prob_a=0.8),
    ]
    assert aux_of(rows) == [
        ({"length": 3.0}, {"length": 5.0}), ({"ease": 1.0}, {"length": 5.0}), ({}, {}), ({}, {}),
        ({"length": 3.0}, {}), ({}, {}),
    ]  # fmt: skip


def test_of_a_single_response():
    row = {"prompt": "P", "response": "x", "label": True, "aux_rewards": {"length": 3}}
    (found,) = read([row], "hpo", with_aux=True)
    assert isinstance(found, Feedback)
    assert found.aux_rewards == ({"length": 3.0},)
    assert aux_of([{"prompt": "P", "response": "x", "label": True}]) == [({},)]


def test_they_are_read_only_where_they_are_asked_for():
    row = pair(prob_a=0.8, aux_rewards="rubbish")
    assert read([row])[0].aux_rewards == ()


def test_renamed():
    columns = {"aux_rewards_a": "left", "aux_rewards_b": "scores.right"}
    row = pair(prob_a=0.8, left=A, scores={"right": B})
    assert aux_of([row], columns=columns) == [(A, B)]


RANKED = {
    "by name": {"aux_rewards": {"length": [1, 2]}},
    "by response": {"aux_rewards": [{"length": 1}, {"length": 2}]},
    "text": {"aux_rewards": '{"length":[1,2]}'},
    "chosen and rejected": {"aux_rewards_chosen": {"length": 1}, "aux_rewards_rejected": {"length": 2}},
    "a and b": {"aux_rewards_a": {"length": 1}, "aux_rewards_b": {"length": 2}},
}


@pytest.mark.parametrize("aux", RANKED.values(), ids=RANKED)
def test_they_go_with_chosen_and_rejected_wherever_these_are_drawn_to(aux):
    rows = [{"prompt": f"P{number}", "chosen": "good", "rejected": "bad", **aux} for number in range(8)]
    sides = set()
    for row in read(rows, "hpo", with_aux=True):
        of_response = dict(zip((row.comparison.response_a, row.comparison.response_b), row.aux_rewards, strict=True))
        assert of_response == {"good": {"length": 1.0}, "bad": {"length": 2.0}}
        sides.add(row.comparison.response_a)
    assert sides == {"good", "bad"}


@pytest.mark.parametrize("aux", RANKED.values(), ids=RANKED)
def test_they_still_do_once_a_judge_has_labeled_the_rows(aux):
    """A run folder holds response_a and response_b in place of chosen and rejected."""
    rows = [{"prompt": f"P{number}", "chosen": "good", "rejected": "bad", **aux} for number in range(8)]
    labeled = [
        {"prompt": each.id, "response_a": each.response_a, "response_b": each.response_b, "prob_a": 0.5, **each.extra}
        for each in read_comparisons(rows, ReadOptions())
    ]
    for row in read(labeled, "hpo", with_aux=True):
        of_response = dict(zip((row.comparison.response_a, row.comparison.response_b), row.aux_rewards, strict=True))
        assert of_response == {"good": {"length": 1.0}, "bad": {"length": 2.0}}


def test_what_cannot_be_read_is_left_as_it_is_for_the_reader_to_refuse():
    for value in ("rubbish", 3, None, {"length": 7}):
        assert followed_aux({"aux_rewards": value}, is_exchanged=True) == {"aux_rewards": value}
    assert followed_aux({"other": 1}, is_exchanged=True) == {"other": 1}


@pytest.mark.parametrize(
    ("aux", "column", "reason"),
    [
        ({"aux_rewards": 3}, "aux_rewards", "is 3, expected {name: [number, number]}"),
        ({"aux_rewards": "rubbish"}, "aux_rewards", "is 'rubbish', expected"),
        ({"aux_rewards": {"length": 3}}, "aux_rewards", "is 3 for 'length', expected {name: [number, number]}"),
        ({"aux_rewards": {"length": [1, 2, 3]}}, "aux_rewards", "is a list of 3 for 'length'"),
        ({"aux_rewards": {"length": [1, "long"]}}, "aux_rewards", "is 'long' for 'length', expected a finite number"),
        ({"aux_rewards": {"length": [1, True]}}, "aux_rewards", "is True for 'length', expected a finite number"),
        ({"aux_rewards": [{"length": 1}]}, "aux_rewards", "is a list of 1, expected"),
        ({"aux_rewards_a": {"length": 1}}, "aux_rewards_a", "stands alone"),
        ({"aux_rewards_a": 1, "aux_rewards_b": {}}, "aux_rewards_a", "is 1, expected {name: number}"),
        ({"aux_rewards_a": {}, "aux_rewards_b": {}, "aux_rewards": {}}, "aux_rewards", "stands beside 'aux_rewards_a'"),
        ({"aux_rewards_chosen": {}}, "aux_rewards_chosen", "stands beside response_a and response_b"),
    ],
)
def test_what_they_are_not(aux, column, reason):
    error = fault([pair(prob_a=0.8, **aux)], "hpo", with_aux=True)
    assert (error.line, error.column) == (1, column)
    assert reason in error.reason


def test_those_of_a_and_b_are_not_those_of_chosen_and_rejected():
    row = pair(chosen="x", rejected="y", aux_rewards={"length": [1, 2]})
    error = fault([row], "hpo", with_aux=True, columns={"chosen": "chosen", "rejected": "rejected"})
    assert error.column == "aux_rewards"
    assert "is of response_a and response_b, and the row is read as chosen and rejected" in error.reason

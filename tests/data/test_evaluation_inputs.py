"""Responses of two sides joined by prompt and id; who has no partner is named."""

from __future__ import annotations

from typing import Any

import pytest

from rlaif.data.evaluation_inputs import Joined, Side, check_common, join_sides, read_side, summary_of
from rlaif.data.sources import ReadOptions
from rlaif.errors import InputError
from rlaif.records import Verdict


def side(name: str, *rows: dict[str, Any]) -> Side:
    return read_side(list(rows), ReadOptions(), name=name)


def pairs(joined: Joined) -> list[tuple[str, str, str]]:
    return [(each.id, each.response_a, each.response_b) for each in joined.comparisons]


def test_rows_are_joined_by_prompt_in_the_order_of_a() -> None:
    a = side("A", {"id": "1", "prompt": "p", "response": "a1"}, {"id": "2", "prompt": "q", "response": "a2"})
    b = side("B", {"id": "x", "prompt": "q", "response": "b2"}, {"id": "y", "prompt": "p", "response": "b1"})
    assert pairs(join_sides(a, b)) == [("1", "a1", "b1"), ("2", "a2", "b2")]
    assert join_sides(a, b).unpaired == ()


def test_rows_of_one_prompt_are_joined_by_id_and_the_rest_in_order() -> None:
    a = side("A", *({"id": name, "prompt": "p", "response": f"a{name}"} for name in "123"))
    b = side("B", *({"id": name, "prompt": "p", "response": f"b{name}"} for name in "x2y"))
    assert pairs(join_sides(a, b)) == [("1", "a1", "bx"), ("2", "a2", "b2"), ("3", "a3", "by")]


def test_a_text_and_a_message_of_the_user_are_one_prompt() -> None:
    a = side("A", {"prompt": "p", "response": "a"})
    b = side("B", {"prompt": [{"role": "user", "content": "p"}], "response": [{"role": "assistant", "content": "b"}]})
    ((_, one, other),) = pairs(join_sides(a, b))
    assert (one, other) == ("a", "b")


def test_what_has_no_partner_is_named_on_both_sides() -> None:
    a = side("A", {"id": "1", "prompt": "p", "response": "a"}, {"id": "2", "prompt": "only A", "response": "a"})
    b = side("B", {"id": "1", "prompt": "p", "response": "b"}, {"id": "1b", "prompt": "p", "response": "late"})
    joined = join_sides(a, b)
    assert [(each.id, each.stage) for each in joined.unpaired] == [("2", "input"), ("1b", "input")]
    assert joined.unpaired[0].error == (
        "InputError: A: response '2' has no partner: B has no (other) response to its prompt"
    )
    assert len(joined.comparisons) * 2 + len(joined.unpaired) == len(a.responses) + len(b.responses)


def test_of_several_responses_each_is_compared_with_the_one_in_its_place() -> None:
    a = side("A", {"id": "1", "prompt": "p", "responses": ["a0", "a1", "a2"]})
    b = side("B", {"id": "1", "prompt": "p", "responses": ["b0", "b1"]})
    joined = join_sides(a, b)
    assert pairs(joined) == [("1/0", "a0", "b0"), ("1/1", "a1", "b1")]
    assert [each.id for each in joined.unpaired] == ["1/2"]


def test_nothing_in_common_is_said_with_a_prompt_of_each() -> None:
    a, b = side("A", {"prompt": "p", "response": "a"}), side("B", {"prompt": "q", "response": "b"})
    with pytest.raises(InputError, match=r"^B.*answers none of the prompts of A \(here 'q', there 'p'\)"):
        check_common(a, b)
    check_common(a, a)


def test_human_labels_of_the_rows_are_those_of_a_or_else_of_b() -> None:
    a = side("A", {"prompt": "p", "response": "a", "human_label": "b"}, {"prompt": "q", "response": "a"})
    b = side(
        "B",
        {"prompt": "p", "response": "b", "human_label": "a"},
        {"prompt": "q", "response": "b", "human_votes": [1, 1, 2]},
    )
    first, second = join_sides(a, b).comparisons
    assert (first.human_label, second.human_label) == (Verdict.B, Verdict.A)
    assert second.human_votes == (Verdict.A, Verdict.A, Verdict.B)
    with pytest.raises(InputError, match="holds 'better', expected 'a', 'b' or 'tie'"):
        side("A", {"prompt": "p", "response": "a", "human_label": "better"})


def test_columns_of_both_are_kept() -> None:
    a = side("A", {"prompt": "p", "response": "a", "topic": "x", "score": 1, "policy_a": "mine"})
    b = side("B", {"prompt": "p", "response": "b", "topic": "x", "score": 2, "other": 3})
    (comparison,) = join_sides(a, b).comparisons
    assert comparison.extra == {"topic": "x", "score": 1, "input_policy_a": "mine", "b_score": 2, "other": 3}


def test_a_generated_row_brings_its_finish_reasons_and_not_what_tells_of_other_candidates() -> None:
    generated = {"policies": ["m"] * 2, "finish_reasons": ["stop", "length"], "seeds": [1, 2], "dropped": []}
    a = side("A", {"id": "1", "prompt": "p", "responses": ["a0", "a1"], "topic": 1, **generated})
    b = side("B", {"id": "1", "prompt": "p", "responses": ["b0", "b1"]})
    joined = join_sides(a, b)
    assert joined.finish_reasons == (("stop", None), ("length", None))
    assert [each.extra for each in joined.comparisons] == [{"topic": 1}] * 2


def test_the_summary_fixes_the_schema() -> None:
    a = side("A", {"prompt": [{"role": "user", "content": "p"}], "response": "a", "human_label": "a", "n": 1})
    joined = join_sides(a, side("B", {"prompt": "p", "response": "b"}))
    summary = summary_of(joined, "both", "sha")
    assert (summary.rows, summary.is_conversational) == (1, True)
    assert (summary.has_human_labels, summary.has_human_votes) == (True, False)
    assert list(summary.extras) == ["n"]

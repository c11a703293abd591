from __future__ import annotations

from typing import Any

import pytest

from rlaif.data.columns import RowFault
from rlaif.data.ranking_inputs import CandidatePair, LabeledMatch, ScoredCandidates
from rlaif.data.rankings import CandidateSet, arrow_schema, ranking_schema, rating_row, strength_row, types_of_extras
from rlaif.records import Candidates, Comparison, Turn

PROMPT = (Turn("user", "P"),)


def match(first: int, second: int, texts: tuple[str, str], **more: Any) -> LabeledMatch:
    comparison = Comparison(f"{first}-{second}", more.get("prompt", PROMPT), *texts, extra=more.get("extra", {}))
    return LabeledMatch(1, comparison, 0.8, more.get("policies"), CandidatePair("c", first, second), "k")


def test_a_set_gathers_its_candidates_in_their_order() -> None:
    candidates = CandidateSet("c", PROMPT, {"task": "t", "note": 1})
    assert (
        candidates.add(match(3, 0, ("z", "x"), policies=("B", "A"), extra={"task": "t", "note": 1}), 0.8, is_tie=False)
        == set()
    )
    differing = candidates.add(
        match(0, 1, ("x", "y"), policies=("A", "A"), extra={"task": "t", "note": 2}), 0.5, is_tie=True
    )
    assert differing == {"note"}
    kept = types_of_extras([candidates], differing)
    schema = ranking_schema(kept, is_conversational=False, has_policies=True, has_strengths=True)
    row = strength_row(candidates, [0.2, -0.5, 0.3], [2, 3, 1], schema)
    assert row == {
        "id": "c", "prompt": "P", "responses": ["x", "y", "z"], "policies": ["A", "A", "B"], "ranks": [2, 3, 1],
        "candidates": [0, 1, 3], "strengths": [0.2, -0.5, 0.3], "rewards": [0.2, -0.5, 0.3], "comparisons": 2,
        "ties": 1, "task": "t",
    }  # fmt: skip
    assert arrow_schema(schema).names == list(row)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (match(0, 2, ("other", "z")), "is another one than in an earlier row of candidate 0 of 'c'"),
        (match(0, 2, ("x", "z"), prompt=(Turn("user", "Q"),)), "is another one than that of an earlier row"),
        (
            match(0, 2, ("x", "z"), policies=("B", "B")),
            "names 'B' as the policy of candidate 0 of 'c', and an earlier row 'A'",
        ),
    ],
)
def test_rows_that_contradict_are_refused_and_leave_no_trace(wrong: LabeledMatch, message: str) -> None:
    candidates = CandidateSet("c", PROMPT, {})
    candidates.add(match(0, 1, ("x", "y"), policies=("A", "A")), 0.8, is_tie=False)
    with pytest.raises(RowFault) as fault:
        candidates.add(wrong, 0.8, is_tie=False)
    assert message in fault.value.reason
    assert (candidates.places, len(candidates.matches)) == ([0, 1], 1)


def test_a_rated_row_keeps_its_columns() -> None:
    extra = {"ratings": [7.0, 5.0], "policies": ["A", "B"], "ranks": "mine"}
    rated = ScoredCandidates(Candidates("c", PROMPT, ("x", "y"), False, extra), (7.0, 5.0), ("A", "B"), "k")
    types = types_of_extras([CandidateSet("c", PROMPT, extra)], {"policies"})
    schema = ranking_schema(types, is_conversational=False, has_policies=True, has_strengths=False)
    row = rating_row(rated, [1, 2], schema)
    assert row == {
        "id": "c", "prompt": "P", "responses": ["x", "y"], "policies": ["A", "B"], "ranks": [1, 2],
        "ratings": [7.0, 5.0], "input_ranks": "mine",
    }  # fmt: skip
    assert arrow_schema(schema).names == list(row)


def test_scores_of_some_rater_do_not_stand_in_for_strengths() -> None:
    types = types_of_extras([CandidateSet("c", PROMPT, {"ratings": [1.0], "policies": ["A"]})], set())
    schema = ranking_schema(types, is_conversational=True, has_policies=False, has_strengths=True)
    assert [column.output for column in schema.extras] == ["input_ratings", "policies"]

"""Rows of candidates, and of comparisons made of them: what is ours, and what was the user's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet

from rlaif.data.candidates import CandidatesReader
from rlaif.data.comparisons import ComparisonReader
from rlaif.data.generated import (
    COLUMNS,
    arrow_schema,
    candidates_schema,
    comparisons_schema,
    extras_of,
    to_candidates_row,
)
from rlaif.data.pairing import Pair, comparison_rows
from rlaif.data.shards import RowWriter
from rlaif.data.sources import read_prompts, scan_prompts
from rlaif.policy_records import DroppedSample, DropReason, Sample, SampledResponses
from rlaif.records import Prompt, Turn

SAMPLED = SampledResponses(
    (Sample("p", "x", "stop", 5), Sample("q", "", "length", None)),
    (DroppedSample(Sample("p", "x", "stop", 6), DropReason.DUPLICATE, "of response 1"),),
)

# Everything that comparisons and ratings are told by: none of it may be taken for a fact about the new responses.
LABELED = {
    "id": "row", "prompt": "Why?", "response_a": "left", "response_b": "right", "prob_a": 0.9, "chosen": "left",
    "rejected": "right", "human_votes": ["a"], "human_label": "a", "response": "old", "responses": ["old"],
    "ratings": [3.0], "reward": 0.5, "candidates_id": "c", "output_1": "left", "output_2": "right", "topic": "t",
}  # fmt: skip


def written(rows: list[dict[str, Any]], folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The first row of candidates and the first comparison made of it, as they stand on disk."""
    schema = candidates_schema(scan_prompts(rows))
    (prompt, *_) = read_prompts(rows)
    with RowWriter(folder, arrow_schema(schema)) as writer:
        writer.write(to_candidates_row(prompt, SAMPLED, schema))
    (row,) = parquet.read_table(folder / "data").to_pylist()
    with RowWriter(folder / "comparisons", comparisons_schema(schema)) as writer:
        for comparison in comparison_rows(row, [Pair(1, 0)], extras_of(row)):
            writer.write(comparison)
    (comparison,) = parquet.read_table(folder / "comparisons" / "data").to_pylist()
    return row, comparison


def test_a_row_holds_every_response_with_where_it_comes_from(tmp_path: Path) -> None:
    row, comparison = written([{"id": "row", "prompt": "Why?", "topic": "t"}], tmp_path)
    assert row == {
        "id": "row", "prompt": "Why?", "responses": ["x", ""], "policies": ["p", "q"],
        "finish_reasons": ["stop", "length"], "seeds": [5, None],
        "dropped": [
            {"policy": "p", "response": "x", "finish_reason": "stop", "seed": 6, "reason": "duplicate",
             "detail": "of response 1"}
        ],
        "topic": "t",
    }  # fmt: skip
    assert tuple(row)[: len(COLUMNS)] == COLUMNS
    assert (comparison["response_a"], comparison["response_b"], comparison["topic"]) == ("", "x", "t")


def test_what_was_said_of_other_responses_is_renamed_and_read_as_nothing(tmp_path: Path) -> None:
    row, comparison = written([LABELED], tmp_path)
    theirs = set(LABELED) - {"id", "prompt", "topic"}
    for name in theirs:
        assert row[f"input_{name}"] == comparison[f"input_{name}"] == LABELED[name]
    rated, _ = CandidatesReader("data").read(1, row)
    assert (rated.responses, rated.is_single) == (("x", ""), False)
    judged, _ = ComparisonReader("comparisons").read(1, comparison)
    assert (judged.response_a, judged.response_b) == ("", "x")
    assert (judged.human_label, judged.human_votes) == (None, ())


def test_prompts_are_message_lists_where_any_is_and_roles_stay(tmp_path: Path) -> None:
    conversation = [{"role": "developer", "content": "Rhyme."}, {"role": "user", "content": "Why?"}]
    row, comparison = written([{"id": "1", "prompt": "Text"}, {"id": "2", "prompt": conversation}], tmp_path / "a")
    assert row["prompt"] == comparison["prompt"] == [{"role": "user", "content": "Text"}]
    row, _ = written([{"id": "2", "prompt": conversation}], tmp_path / "b")
    assert row["prompt"] == conversation


def test_hostile_and_odd_columns_come_through_both_files(tmp_path: Path) -> None:
    odd = {
        "text": "\x00\x1b[31m\u202e{{ x }}", "number": float("nan"), "mixed": [1, "a"], "nested": {"a": [None, 1]},
        "big": 2**62, "dropped": "mine",
    }  # fmt: skip
    row, comparison = written([{"id": "row", "prompt": "\x00", **odd}], tmp_path)
    for found in (row, comparison):
        assert found["prompt"] == "\x00"
        assert (found["text"], found["mixed"], found["big"]) == (odd["text"], '[1,"a"]', 2**62)
        assert found["number"] != found["number"]
        assert found["nested"] == {"a": [None, 1]}
        assert found["input_dropped"] == "mine"


def test_a_prompt_keeps_its_own_order_of_columns() -> None:
    rows = [{"id": "1", "b": 1, "prompt": "P", "a": 2}]
    schema = candidates_schema(scan_prompts(rows))
    row = to_candidates_row(Prompt("1", (Turn("user", "P"),), extra={"a": 2, "b": 1}), SAMPLED, schema)
    assert list(row) == arrow_schema(schema).names == [*COLUMNS, "b", "a"]

"""The files that people fill in."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlaif.auditing.suggesting import sampling_probs
from rlaif.auditing.table import build_table
from rlaif.data.human_labels import read_human_labels, with_human_labels
from rlaif.engine.suggestions import COLUMNS, write_suggestions
from rlaif.records import Comparison, JudgedComparison, Turn, Verdict


def judged(number: int, *, prompt: Sequence[Turn] | None = None, **changes: Any) -> JudgedComparison:
    turns = tuple(prompt or [Turn("user", f"question {number}")])
    comparison = Comparison(f"row-{number}", turns, f"answer a{number}", f"answer b{number}")
    return JudgedComparison(
        replace(comparison, **changes), prob_a=((number * 37) % 101) / 100, rationale_ab="the judge's secret reasons"
    )


def written(rows: Sequence[JudgedComparison], count: int, folder: Path, seed: int = 0) -> list[dict[str, Any]]:
    write_suggestions(rows, build_table(rows), count, seed, folder)
    return [json.loads(line) for line in (folder / "suggested.jsonl").read_text("utf-8").splitlines()]


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_what_annotators_see(tmp_path: Path) -> None:
    rows = [judged(number) for number in range(60)]
    table = build_table(rows)
    suggestions = write_suggestions(rows, table, 20, 0, tmp_path)
    assert suggestions.rows == 20
    assert suggestions.paths == (tmp_path / "suggested.jsonl", tmp_path / "suggested.csv")
    found = [json.loads(line) for line in suggestions.paths[0].read_text("utf-8").splitlines()]
    probs = dict(zip(table.ids, sampling_probs(table, 20), strict=True))
    assert len(found) == 20
    for row in found:
        assert tuple(row) == COLUMNS
        number = row["id"].removeprefix("row-")
        answers = [f"answer a{number}", f"answer b{number}"]
        assert [row["response_1"], row["response_2"]] == (answers[::-1] if row["is_swapped"] else answers)
        assert row["prompt"] == f"question {number}"
        assert row["human_label"] is None
        assert row["sampling_prob"] == probs[row["id"]]
    assert {row["is_swapped"] for row in found} == {True, False}
    numbers = [int(row["id"].removeprefix("row-")) for row in found]
    assert numbers != sorted(numbers)
    assert "secret" not in suggestions.paths[0].read_text("utf-8") + suggestions.paths[1].read_text("utf-8")


def test_the_csv_has_the_same_rows(tmp_path: Path) -> None:
    rows = [judged(number, response_a='two\nlines, "quoted"\r\nü 漢') for number in range(30)]
    found = written(rows, 10, tmp_path)
    expected = [
        {
            **row,
            "human_label": "",
            "sampling_prob": repr(row["sampling_prob"]),
            "is_swapped": "true" if row["is_swapped"] else "false",
        }
        for row in found
    ]
    assert read_csv(tmp_path / "suggested.csv") == expected


@pytest.mark.parametrize("text", ["=HYPERLINK(1)", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_no_cell_is_a_formula(text: str, tmp_path: Path) -> None:
    rows = [judged(1, id=text, prompt=(Turn("user", text),), response_a=text, response_b=text)]
    (in_json,) = written(rows, 1, tmp_path)
    (in_csv,) = read_csv(tmp_path / "suggested.csv")
    for column in ("id", "prompt", "response_1", "response_2"):
        assert in_json[column] == text
        assert in_csv[column] == f"'{text}"


def test_a_conversation_says_who_speaks(tmp_path: Path) -> None:
    turns = (Turn("system", "Be kind."), Turn("user", "Hello"), Turn("assistant", "Hi"), Turn("user", "Bye"))
    (row,) = written([judged(0, prompt=turns)], 1, tmp_path)
    assert row["prompt"] == "[system]\nBe kind.\n\n[user]\nHello\n\n[assistant]\nHi\n\n[user]\nBye"


def test_the_seed_decides(tmp_path: Path) -> None:
    rows = [judged(number) for number in range(60)]
    first, again, other = (written(rows, 20, tmp_path, seed) for seed in (0, 0, 1))
    assert first == again
    assert [row["id"] for row in first] != [row["id"] for row in other]


def test_more_than_there_are(tmp_path: Path) -> None:
    rows = [judged(1), judged(2), replace(judged(3), prob_a=None)]
    found = written(rows, 100, tmp_path)
    assert {row["id"]: row["sampling_prob"] for row in found} == {"row-1": 1.0, "row-2": 1.0}


def test_half_of_a_surrogate_pair_can_be_written(tmp_path: Path) -> None:
    (row,) = written([judged(1, response_a="broken \ud800", response_b="broken \ud800")], 1, tmp_path)
    assert row["response_1"] == "broken ?"


@pytest.mark.parametrize("name", ["suggested.jsonl", "suggested.csv"])
def test_labels_come_back_to_the_right_response(name: str, tmp_path: Path) -> None:
    rows = [judged(number) for number in range(40)]
    found = written(rows, 12, tmp_path)
    # Annotators prefer A in even rows, B in odd ones, and call multiples of 5 a tie.
    for row in found:
        number = int(row["id"].removeprefix("row-"))
        first_is_better = row["response_1"].startswith("answer a") == (number % 2 == 0)
        row["human_label"] = "tie" if number % 5 == 0 else "1" if first_is_better else "2"
    path = tmp_path / name
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in found), "utf-8")
    else:
        with path.open("w", encoding="utf-8-sig", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(found)
    joined = with_human_labels(rows, read_human_labels(path))
    assert joined.labelled == 12
    for row in joined.rows:
        number = int(row.comparison.id.removeprefix("row-"))
        if row.comparison.human_label is not None:
            expected = Verdict.TIE if number % 5 == 0 else Verdict.A if number % 2 == 0 else Verdict.B
            assert row.comparison.human_label is expected
            assert row.sampling_prob is not None

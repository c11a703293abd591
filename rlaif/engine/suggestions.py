"""The files that people fill in: suggested rows, blind and shuffled."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rlaif.auditing.suggesting import draw, sampling_probs
from rlaif.auditing.table import AuditTable
from rlaif.randomness import seeded_random
from rlaif.records import JudgedComparison, Turn

COLUMNS = ("id", "prompt", "response_1", "response_2", "human_label", "sampling_prob", "is_swapped")

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


class Suggestions(NamedTuple):
    """What was written.

    Attributes:
        paths: `suggested.jsonl` and `suggested.csv`; the same rows in the same order.
        rows: How many; fewer than wanted where the judge answered no more.
    """

    paths: tuple[Path, Path]
    rows: int


def write_suggestions(
    rows: Sequence[JudgedComparison], table: AuditTable, count: int, seed: int, folder: Path
) -> Suggestions:
    """Draw rows whose human label would help most, and write them for annotators.

    Each row has the columns of `COLUMNS`. `human_label` is empty, to be filled with 1, 2 or tie: which of response_1
    and response_2 is better. Which response stands first is drawn for each row; `is_swapped` is true where response_1
    is the input's B. Nothing that the judge said is in the files, and the rows are shuffled. `sampling_prob` is the
    probability with which the row was drawn: estimates from the labels weigh them by its inverse.

    In the CSV a text that a spreadsheet would run as a formula (it begins with =, +, -, @, a tab or a carriage return)
    has an apostrophe put before it, the id too; reading a label back, take that apostrophe off.

    Args:
        rows: Of the table, in its order.
        table: Made of `rows`.
        count: How many to draw.
        seed: Of the draw and of the places.
        folder: Exists; files of these names in it are replaced.
    """
    probs = sampling_probs(table, count)
    drawn = [_for_annotators(rows[row], float(probs[row]), seed) for row in draw(probs, seed)]
    jsonl, spreadsheet = folder / "suggested.jsonl", folder / "suggested.csv"
    # Half of a surrogate pair, which no file can hold, becomes a question mark.
    with jsonl.open("w", encoding="utf-8", errors="replace", newline="\n") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in drawn)
    # Spreadsheets take a CSV for UTF-8 only where a byte order mark says so.
    with spreadsheet.open("w", encoding="utf-8-sig", errors="replace", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows({column: _cell(value) for column, value in row.items()} for row in drawn)
    return Suggestions((jsonl, spreadsheet), len(drawn))


def _for_annotators(row: JudgedComparison, prob: float, seed: int) -> Mapping[str, Any]:
    comparison = row.comparison
    is_swapped = seeded_random(seed, comparison.id, "suggested order").random() < 0.5
    responses = (comparison.response_a, comparison.response_b)
    first, second = reversed(responses) if is_swapped else responses
    values = (comparison.id, _readable(comparison.prompt), first, second, None, prob, is_swapped)
    return dict(zip(COLUMNS, values, strict=True))


def _readable(prompt: tuple[Turn, ...]) -> str:
    """A single question as it is; a conversation with who speaks before each turn."""
    if len(prompt) == 1 and prompt[0].role == "user":
        return prompt[0].content
    return "\n\n".join(f"[{turn.role}]\n{turn.content}" for turn in prompt)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value)
    return f"'{value}" if value.startswith(_FORMULA_STARTS) else str(value)

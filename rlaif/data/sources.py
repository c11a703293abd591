"""Rows to be judged or answered out of anything that holds rows, in two passes: `scan` checks every row, fixes the
schema and takes the fingerprint of the content; `read_comparisons`, `read_candidates` and `read_prompts` stream the
rows. Neither holds more than a batch of rows."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, NamedTuple

from rlaif.data.candidates import CandidatesReader
from rlaif.data.columns import RecordT, RowReader
from rlaif.data.comparisons import ComparisonReader
from rlaif.data.files import RowSource, open_source
from rlaif.data.prompts import PromptReader
from rlaif.data.schema import ColumnType, ColumnTypes, json_text
from rlaif.errors import InputError
from rlaif.records import Candidates, Comparison, Failure, Prompt

INPUT_STAGE = "input"


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How rows are read.

    Attributes:
        columns: Our column name -> the input's column, or a path into one (`--columns`).
        seed: For the draw of which of chosen and rejected becomes A.
        skip_bad_rows: Collect rows that cannot be read as failures and go on, instead of stopping at the first.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0
    skip_bad_rows: bool = False


@dataclass(frozen=True, slots=True)
class InputSummary:
    """What the first pass found.

    Attributes:
        source: What messages call the input.
        rows: Rows that can be read.
        failures: Rows that cannot, in input order; empty unless they are skipped.
        content_sha256: Of all rows' content, whatever the file's format, compression or name.
        is_conversational: Whether any prompt is a message list.
        extras: The input's other columns and their types, in the order first seen.
        repeated_ids: Ids of more than one row -> how many of them bring the id themselves (0 or 1).
        has_human_votes, has_human_labels: Whether any comparison has such a column, filled or not.
        is_single: Whether rows to be rated hold one response each, and not lists of them.
    """

    source: str
    rows: int
    failures: tuple[Failure, ...]
    content_sha256: str
    is_conversational: bool
    extras: Mapping[str, ColumnType]
    repeated_ids: Mapping[str, int]
    has_human_votes: bool = False
    has_human_labels: bool = False
    is_single: bool = True


class ReadRow(NamedTuple, Generic[RecordT]):
    """A record, and where it comes from.

    `line` is 1-based; `values` is the row as the input has it.
    """

    line: int
    values: Mapping[str, Any]
    record: RecordT


def scan(source: object, options: ReadOptions | None = None) -> InputSummary:
    """Read every comparison once, before anything is asked of a judge.

    Args:
        source: As in `rlaif.data.files.open_source`.
        options: How to read it.

    Raises:
        InputError: A row cannot be read and bad rows are not skipped; or the whole input cannot be read.
        ConfigError: `options.columns` names a column of ours that there is not.
    """
    return scan_rows(source, options or ReadOptions(), ComparisonReader)


def scan_candidates(source: object, options: ReadOptions | None = None) -> InputSummary:
    """`scan` for rows to be rated: a prompt with a response, or with a list of responses."""
    return scan_rows(source, options or ReadOptions(), CandidatesReader)


def read_comparisons(
    source: object, options: ReadOptions | None = None, *, summary: InputSummary | None = None
) -> Iterator[Comparison]:
    """Stream the comparisons of an input, in its order.

    Args:
        source: As in `rlaif.data.files.open_source`.
        options: How to read it. Rows that are skipped stand in the summary's failures.
        summary: What `scan` found with the same options; without it, the input is scanned first.

    Raises:
        InputError, ConfigError: As `scan`.
    """
    return (each.record for each in read_comparisons_with_values(source, options, summary=summary))


def read_comparisons_with_values(
    source: object, options: ReadOptions | None = None, *, summary: InputSummary | None = None
) -> Iterator[ReadRow[Comparison]]:
    """As `read_comparisons`, each with its line and the row that it was read from."""
    return read_rows(source, options or ReadOptions(), ComparisonReader, summary)


def read_candidates(
    source: object, options: ReadOptions | None = None, *, summary: InputSummary | None = None
) -> Iterator[Candidates]:
    """Stream the rows to be rated of an input, in its order; as `read_comparisons`, with `scan_candidates`."""
    return (each.record for each in read_rows(source, options or ReadOptions(), CandidatesReader, summary))


def scan_prompts(source: object, options: ReadOptions | None = None, *, takes_responses: bool = False) -> InputSummary:
    """`scan` for prompts to be answered; with `takes_responses`, a row may bring an answer to be revised."""
    return scan_rows(source, options or ReadOptions(), partial(PromptReader, takes_responses=takes_responses))


def read_prompts(
    source: object,
    options: ReadOptions | None = None,
    *,
    takes_responses: bool = False,
    summary: InputSummary | None = None,
) -> Iterator[Prompt]:
    """Stream the prompts of an input, in its order; as `read_comparisons`, with `scan_prompts`."""
    reader = partial(PromptReader, takes_responses=takes_responses)
    return (each.record for each in read_rows(source, options or ReadOptions(), reader, summary))


def scan_rows(source: object, options: ReadOptions, kind: Callable[..., RowReader[Any, Any]]) -> InputSummary:
    """`scan` for rows of any kind: a class of readers, or what makes readers as the class does."""
    rows = source if isinstance(source, RowSource) else open_source(source)
    reader = kind(rows.name, options.columns, options.seed)
    types = ColumnTypes()
    digest = hashlib.sha256()
    id_hashes = array("q")
    failures: list[tuple[int, Failure]] = []
    is_conversational = False
    count = 0
    for line, values in rows.read():
        count += 1
        try:
            if isinstance(values, InputError):
                raise values
            digest.update(_canonical(line, values, rows.name))
            record, _ = reader.read(line, values)
            types.update(record.extra)
        except InputError as error:
            if not options.skip_bad_rows:
                raise
            digest.update(error.reason.encode("utf-8", "replace"))
            row_id = None if isinstance(values, InputError) else reader.id_of(values)
            failures.append((line, input_failure(row_id or f"line {line}", error)))
            continue
        id_hashes.append(hash(record.id))
        is_conversational |= record.is_conversational
    if count == 0:
        raise InputError(f"holds no rows, expected {reader.expected}", path=rows.name)
    repeated: Mapping[str, int] = {}
    suspects = _repeated_values(id_hashes)
    if suspects:
        repeated, duplicates = _repeated_ids(rows, options, kind, suspects)
        failures = sorted(failures + duplicates, key=lambda numbered: numbered[0])
    return InputSummary(
        source=rows.name,
        rows=count - len(failures),
        failures=tuple(failure for _, failure in failures),
        content_sha256=digest.hexdigest(),
        is_conversational=is_conversational,
        extras=types.types,
        repeated_ids=repeated,
        **reader.facts,
    )


def read_rows(
    source: object, options: ReadOptions, kind: Callable[..., RowReader[RecordT, Any]], summary: InputSummary | None
) -> Iterator[ReadRow[RecordT]]:
    """As `read_comparisons_with_values`, for rows of any kind; with `scan_rows`."""
    rows = source if isinstance(source, RowSource) else open_source(source)
    repeated = (summary or scan_rows(rows, options, kind)).repeated_ids
    reader = kind(rows.name, options.columns, options.seed, repeated)
    seen: set[str] = set()
    for line, values in rows.read():
        try:
            if isinstance(values, InputError):
                raise values
            record, is_made = reader.read(line, values)
        except InputError:
            if not options.skip_bad_rows:
                raise
            continue
        if not is_made and record.id in repeated:
            if record.id in seen:
                continue  # a second row with this id; `scan` has refused it
            seen.add(record.id)
        yield ReadRow(line, values, record)


def _repeated_values(hashes: array[int]) -> set[int]:
    """Which values stand more than once: sorted in place of a set, eight bytes a row instead of a hundred."""
    import numpy as np

    ordered = np.sort(np.frombuffer(hashes, dtype=np.int64))
    return set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())


def _repeated_ids(
    rows: RowSource, options: ReadOptions, kind: Callable[..., RowReader[Any, Any]], suspects: set[int]
) -> tuple[dict[str, int], list[tuple[int, Failure]]]:
    """Read the ids with these hashes again, to find which are repeated and where.

    Returns:
        `InputSummary.repeated_ids`, and failures with their lines for rows whose given id another row had first.
    """
    reader = kind(rows.name, options.columns, options.seed)
    lines: dict[str, int] = {}
    given: dict[str, int] = {}
    occurrences: Counter[str] = Counter()
    failures = []
    for line, values in rows.read():
        if isinstance(values, InputError):
            continue
        try:
            record, is_made = reader.read(line, values)
        except InputError:
            continue
        if hash(record.id) not in suspects:
            continue
        if not is_made and record.id in given:
            reason = f"{record.id!r} is also the id of line {lines[record.id]}, expected ids that are unique"
            error = InputError(reason, path=rows.name, line=line, column=options.columns.get("id", "id"))
            if not options.skip_bad_rows:
                raise error
            failures.append((line, input_failure(f"line {line}", error)))
            continue
        occurrences[record.id] += 1
        if not is_made:
            given[record.id], lines[record.id] = 1, line
    return {each: given.get(each, 0) for each in occurrences if occurrences[each] > 1 or each in given}, failures


def _canonical(line: int, values: Mapping[str, object], name: str) -> bytes:
    try:
        return f"{json_text(values)}\n".encode()
    except RecursionError:
        raise InputError("is nested too deeply, expected fewer than 500 levels", path=name, line=line) from None
    except UnicodeEncodeError as error:
        reason = f"holds {error.object[error.start]!r}, half a surrogate pair, expected text that is valid Unicode"
        raise InputError(reason, path=name, line=line) from None


def input_failure(row_id: str, error: InputError) -> Failure:
    """What stands in `failures.jsonl` for a row that cannot be read."""
    return Failure(id=row_id, stage=INPUT_STAGE, error=f"{error.error_name}: {error}", attempts=0)

"""Judgments to rows, and rows to the parquet files of a run folder. `to_row` is pure; `PreferenceWriter` writes.

The columns are those of CONTRACT.md in a fixed order, then the user's own. One schema, made from the scan of the input,
serves all shards.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import orjson

from rlaif.data.schema import ColumnType, arrow_type, json_text, plain_value
from rlaif.data.sources import InputSummary
from rlaif.data.statistics import verdict_of
from rlaif.errors import RunFolderError
from rlaif.records import Comparison, Judgment, NamedLabel, Verdict

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

PreferenceRow = dict[str, Any]

OUR_COLUMNS = (
    "id", "prompt", "response_a", "response_b", "chosen", "rejected", "chosen_prob", "is_tie",
    "prob_a", "prob_a_ab", "prob_a_ba", "label_mass_ab", "label_mass_ba", "is_bounded",
    "rationale_ab", "rationale_ba", "by_principle", "by_judge", "human_label", "human_votes",
)  # fmt: skip
"""Names that a user's column cannot keep: it becomes `input_NAME`, whether or not this run writes ours."""

DEFAULT_SHARD_ROWS = 50_000

_GROUP_ROWS, _GROUP_BYTES = 2_500, 8 * 2**20
"""Rows, or bytes of them, that are held before they go to the file as one parquet row group."""

_BLOCK_BYTES = 2**20
"""Read at a time when rows become a table."""

_NOT_IN_JSON = frozenset({"bytes", "date", "timestamp", "nonfinite"})


@dataclass(frozen=True, slots=True)
class PreferenceSchema:
    """Which columns a run's rows have.

    Attributes:
        is_conversational: Prompts, chosen and rejected are message lists.
        has_rationales: `rationale_ab` and `rationale_ba` are there (`--cot`).
        has_principles, has_judges: `by_principle` and `by_judge` are there (several of them).
        has_sampled_principle: `principle` is there (`--principles sample`).
        has_human_label, has_human_votes: The input had them.
        extras: The input's other columns: (name there, name here, type).
    """

    is_conversational: bool = False
    has_rationales: bool = False
    has_principles: bool = False
    has_judges: bool = False
    has_sampled_principle: bool = False
    has_human_label: bool = False
    has_human_votes: bool = False
    extras: tuple[tuple[str, str, ColumnType], ...] = ()


def preference_schema(
    summary: InputSummary,
    *,
    has_rationales: bool = False,
    has_principles: bool = False,
    has_judges: bool = False,
    has_sampled_principle: bool = False,
) -> PreferenceSchema:
    """The schema of a run over the scanned input; the flags are `PreferenceSchema`'s."""
    reserved = {*OUR_COLUMNS, "principle"} if has_sampled_principle else set(OUR_COLUMNS)
    # A name that is free goes to the column that bears it, before any renamed one may take it.
    taken = reserved | {name for name in summary.extras if name not in reserved}
    extras = []
    for name, column in summary.extras.items():
        output = name
        if name in reserved:
            output = f"input_{name}"
            while output in taken:
                output = f"input_{output}"
            taken.add(output)
        extras.append((name, output, column))
    return PreferenceSchema(
        is_conversational=summary.is_conversational,
        has_rationales=has_rationales,
        has_principles=has_principles,
        has_judges=has_judges,
        has_sampled_principle=has_sampled_principle,
        has_human_label=summary.has_human_labels,
        has_human_votes=summary.has_human_votes,
        extras=tuple(extras),
    )


def to_row(comparison: Comparison, judgment: Judgment, schema: PreferenceSchema) -> PreferenceRow:
    """One row of the dataset.

    Args:
        comparison: What was judged.
        judgment: What the judge made of it.
        schema: The run's.

    Returns:
        A value for every column of the schema, in its order; `chosen_prob` >= 0.5, and A is chosen in a tie.
    """
    label = judgment.label
    prob_a = label.prob_a
    is_tie = verdict_of(prob_a) is Verdict.TIE
    is_a_chosen = is_tie or prob_a > 0.5
    chosen: Any = comparison.response_a if is_a_chosen else comparison.response_b
    rejected: Any = comparison.response_b if is_a_chosen else comparison.response_a
    prompt: Any
    if schema.is_conversational:
        prompt = [{"role": turn.role, "content": turn.content} for turn in comparison.prompt]
        chosen = [{"role": "assistant", "content": chosen}]
        rejected = [{"role": "assistant", "content": rejected}]
    else:
        prompt = comparison.prompt[0].content
    row: PreferenceRow = {
        "id": comparison.id,
        "prompt": prompt,
        "response_a": comparison.response_a,
        "response_b": comparison.response_b,
        "chosen": chosen,
        "rejected": rejected,
        "chosen_prob": max(prob_a, 1.0 - prob_a),
        "is_tie": is_tie,
        "prob_a": prob_a,
        "prob_a_ab": label.prob_a_ab,
        "prob_a_ba": label.prob_a_ba,
        "label_mass_ab": judgment.label_mass_ab,
        "label_mass_ba": judgment.label_mass_ba,
        "is_bounded": judgment.is_bounded,
    }
    if schema.has_rationales:
        row["rationale_ab"], row["rationale_ba"] = judgment.rationale_ab, judgment.rationale_ba
    if schema.has_principles:
        row["by_principle"] = [_named(each) for each in judgment.by_principle]
    if schema.has_judges:
        row["by_judge"] = [_named(each) for each in judgment.by_judge]
    if schema.has_sampled_principle:
        row["principle"] = judgment.sampled_principle
    if schema.has_human_label:
        row["human_label"] = None if comparison.human_label is None else comparison.human_label.value
    if schema.has_human_votes:
        row["human_votes"] = [vote.value for vote in comparison.human_votes]
    for name, output, column in schema.extras:
        value = comparison.extra.get(name)
        row[output] = json_text(value) if column.kind == "json" else value
    return row


def _named(each: NamedLabel) -> dict[str, Any]:
    label = each.label
    return {"name": each.name, "prob_a": label.prob_a, "prob_a_ab": label.prob_a_ab, "prob_a_ba": label.prob_a_ba}


def arrow_schema(schema: PreferenceSchema) -> pa.Schema:
    """The Arrow schema of all shards of a run."""
    import pyarrow as pa

    text, number, flag = pa.string(), pa.float64(), pa.bool_()
    messages = pa.list_(pa.struct([("role", text), ("content", text)])) if schema.is_conversational else text
    labels = pa.list_(pa.struct([("name", text), ("prob_a", number), ("prob_a_ab", number), ("prob_a_ba", number)]))
    fields = [
        ("id", text),
        ("prompt", messages),
        ("response_a", text),
        ("response_b", text),
        ("chosen", messages),
        ("rejected", messages),
        ("chosen_prob", number),
        ("is_tie", flag),
        *((name, number) for name in ("prob_a", "prob_a_ab", "prob_a_ba", "label_mass_ab", "label_mass_ba")),
        ("is_bounded", flag),
    ]
    if schema.has_rationales:
        fields += [("rationale_ab", text), ("rationale_ba", text)]
    if schema.has_principles:
        fields.append(("by_principle", labels))
    if schema.has_judges:
        fields.append(("by_judge", labels))
    if schema.has_sampled_principle:
        fields.append(("principle", text))
    if schema.has_human_label:
        fields.append(("human_label", text))
    if schema.has_human_votes:
        fields.append(("human_votes", pa.list_(text)))
    fields += [(output, arrow_type(column)) for _, output, column in schema.extras]
    return pa.schema(fields)


class PreferenceWriter:
    """Writes rows, in the order given, to `FOLDER/data/train-00000.parquet` and on.

    Each shard appears whole or not at all. What an earlier, longer run left behind is removed at `close`. Used as a
    context manager, an error inside leaves the unfinished shard unwritten.

    Args:
        folder: The run folder; `data/` is made in it.
        schema: The run's.
        rows_per_shard: At least 1. A shard is written in row groups, so that memory does not grow with it.

    Raises:
        RunFolderError: The folder cannot be written.
    """

    def __init__(self, folder: Path, schema: PreferenceSchema, *, rows_per_shard: int = DEFAULT_SHARD_ROWS) -> None:
        if rows_per_shard < 1:
            raise ValueError(f"rows_per_shard is {rows_per_shard}, expected at least 1")
        self._folder = folder / "data"
        self._schema = schema
        self._rows_per_shard = rows_per_shard
        self._is_plain = not any(column.holds(_NOT_IN_JSON) for _, _, column in schema.extras)
        self._pending: list[Any] = []
        self._pending_bytes = 0
        self._file: pq.ParquetWriter | None = None
        self._rows_in_shard = 0
        self.rows = 0
        self.shards = 0
        _reporting(lambda: self._folder.mkdir(parents=True, exist_ok=True), self._folder)

    def write(self, row: Mapping[str, Any]) -> None:
        """Add one row, as `to_row` makes it."""
        if self._is_plain:
            encoded = orjson.dumps(row, default=plain_value, option=orjson.OPT_NON_STR_KEYS)
            self._pending.append(encoded)
            self._pending_bytes += len(encoded)
        else:
            self._pending.append(row)
        self.rows += 1
        self._rows_in_shard += 1
        if self._rows_in_shard >= self._rows_per_shard:
            self._end_shard()
        elif len(self._pending) >= _GROUP_ROWS or self._pending_bytes >= _GROUP_BYTES:
            self._write_group()

    def close(self) -> None:
        """Write the last shard and remove shards of an earlier run.

        Without any rows an empty shard is written: pandas and pyarrow load it, `datasets` says it holds no data.
        """
        if self._rows_in_shard or self.shards == 0:
            self._end_shard()
        _reporting(self._remove_leftovers, self._folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        elif self._file is not None:
            self._file.close()
            self._temporary().unlink(missing_ok=True)

    def _shard(self) -> Path:
        return self._folder / f"train-{self.shards:05d}.parquet"

    def _temporary(self) -> Path:
        return self._folder / f".{self._shard().name}.tmp"

    def _write_group(self) -> None:
        import pyarrow.parquet as pq

        table = self._table()

        def write() -> None:
            if self._file is None:
                self._file = pq.ParquetWriter(self._temporary(), table.schema, compression="zstd")
            if table.num_rows:  # readers stumble over a row group without rows
                self._file.write_table(table)

        _reporting(write, self._shard())
        self._pending.clear()
        self._pending_bytes = 0

    def _end_shard(self) -> None:
        if self._pending or self._file is None:
            self._write_group()
        assert self._file is not None
        _reporting(self._file.close, self._shard())
        _reporting(lambda: os.replace(self._temporary(), self._shard()), self._shard())
        self._file = None
        self._rows_in_shard = 0
        self.shards += 1

    def _table(self) -> pa.Table:
        """The rows that wait, as a table.

        Through Arrow's own JSON reader: as fast as from Python lists, less memory while rows wait, and unlike
        `pa.array` it does not import pandas, a third of a CPU second.
        """
        import pyarrow as pa
        import pyarrow.json

        schema = arrow_schema(self._schema)
        if not self._pending:
            return schema.empty_table()
        if not self._is_plain:
            return pa.Table.from_pylist(self._pending, schema=schema)
        content = b"\n".join(self._pending)
        return pa.json.read_json(
            pa.BufferReader(content),
            # A row may lie across two blocks, not three; one thread keeps memory down.
            read_options=pa.json.ReadOptions(
                use_threads=False, block_size=max(_BLOCK_BYTES, *map(len, self._pending)) + 1
            ),
            parse_options=pa.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error"),
        )

    def _remove_leftovers(self) -> None:
        for path in self._folder.glob("train-*.parquet"):
            number = path.stem.removeprefix("train-")
            if number.isdecimal() and int(number) >= self.shards:
                path.unlink()
        for path in self._folder.glob(".train-*.parquet.tmp"):
            path.unlink()


def _reporting(action: Callable[[], object], path: Path) -> None:
    try:
        action()
    except OSError as error:
        raise RunFolderError(f"{path} cannot be written: {error.strerror or error}") from error

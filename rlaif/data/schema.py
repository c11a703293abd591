"""How columns are written that all kinds of rows have: the prompt, and the user's own columns with their names beside
ours and their types, found in a first pass. What varies in type or keys is written as JSON text."""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Container, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import orjson

from rlaif.records import Turn

if TYPE_CHECKING:
    import pyarrow as pa

Kind = Literal[
    "null", "bool", "int", "bigint", "float", "nonfinite", "text", "bytes", "date", "timestamp",
    "list", "struct", "json",
]  # fmt: skip

_NOT_IN_JSON = frozenset({"bytes", "date", "timestamp", "nonfinite"})
_BEYOND_JSON = {b"rlaif": b"holds values that JSON has not"}
"""What tells the writer of an Arrow field that its rows cannot take the way through JSON; not written to the files."""

_EXACT_INT = 2**53
"""Integers beyond this magnitude are not exact as float64."""

_MOST_DEPTH = 32
"""Levels of nesting that are written as such; parquet readers give up at some depth, and so would recursion here."""


@dataclass(frozen=True, slots=True)
class ColumnType:
    """The type of one column, nested where its values are.

    Attributes:
        kind: "json" is written as JSON text. "int" fits float64 exactly, "bigint" only int64.
            "nonfinite" is a float column with an infinity or NaN in it.
        item: Of a list: the type of its items.
        fields: Of a struct: names and types, in the order first seen.
    """

    kind: Kind
    item: ColumnType | None = None
    fields: tuple[tuple[str, ColumnType], ...] = ()

    @property
    def is_json(self) -> bool:
        return self.kind == "json"

    def holds(self, kinds: Container[str]) -> bool:
        """Whether any value of the column, at any depth, is of one of these kinds."""
        inner = [each for _, each in self.fields] + ([self.item] if self.item else [])
        return self.kind in kinds or any(each.holds(kinds) for each in inner)


NULL, JSON = ColumnType("null"), ColumnType("json")
_SCALARS: dict[type, ColumnType] = {
    type(None): NULL,
    bool: ColumnType("bool"),
    str: ColumnType("text"),
    bytes: ColumnType("bytes"),
    datetime.date: ColumnType("date"),
}
_INT, _BIGINT, _FLOAT, _TIMESTAMP = (
    ColumnType("int"),
    ColumnType("bigint"),
    ColumnType("float"),
    ColumnType("timestamp"),
)
_NONFINITE = ColumnType("nonfinite")


def type_of(value: Any, depth: int = 0) -> ColumnType:
    """The type of one value, `depth` levels inside a column; "json" where no Arrow type holds it."""
    scalar = _SCALARS.get(type(value))
    if scalar is not None:
        return scalar
    if isinstance(value, int):
        if abs(value) <= _EXACT_INT:
            return _INT
        return _BIGINT if -(2**63) <= value < 2**63 else JSON
    if isinstance(value, float | str):  # numpy's are subclasses
        if isinstance(value, str):
            return _SCALARS[str]
        return _FLOAT if math.isfinite(value) else _NONFINITE
    if depth > _MOST_DEPTH:
        return JSON
    if isinstance(value, list | tuple):
        item = NULL
        for each in value:
            item = unify(item, type_of(each, depth + 1))
            if item.is_json:
                return JSON
        return ColumnType("list", item)
    if isinstance(value, Mapping):
        fields = tuple((key, type_of(each, depth + 1)) for key, each in value.items())
        # Parquet has no struct without fields.
        if not fields or any(type(key) is not str or each.is_json for key, each in fields):
            return JSON
        return ColumnType("struct", fields=fields)
    if isinstance(value, datetime.datetime) and value.tzinfo is None:
        return _TIMESTAMP
    return JSON


def unify(first: ColumnType, second: ColumnType) -> ColumnType:
    """The type that holds the values of both: integers widen to float, null to anything; else "json"."""
    if first == second or second.kind == "null":
        return first
    if first.kind == "null":
        return second
    kinds = {first.kind, second.kind}
    if kinds == {"int", "bigint"}:
        return _BIGINT
    if kinds <= {"int", "float", "nonfinite"}:
        return _NONFINITE if "nonfinite" in kinds else _FLOAT
    if kinds == {"list"}:
        assert first.item is not None
        assert second.item is not None
        item = unify(first.item, second.item)
        return JSON if item.is_json else ColumnType("list", item)
    if kinds == {"struct"} and len(first.fields) == len(second.fields):
        others = dict(second.fields)
        if all(name in others for name, _ in first.fields):
            fields = tuple((name, unify(each, others[name])) for name, each in first.fields)
            return JSON if any(each.is_json for _, each in fields) else ColumnType("struct", fields=fields)
    return JSON


class ColumnTypes:
    """The types of all columns seen so far, in the order first seen."""

    def __init__(self) -> None:
        self.types: dict[str, ColumnType] = {}

    def update(self, row: Mapping[str, Any]) -> None:
        types = self.types
        for name, value in row.items():
            known = types.get(name)
            if known is None:
                types[name] = type_of(value)
            elif known is not JSON and known is not _SCALARS.get(type(value)):
                types[name] = unify(known, type_of(value))


def arrow_type(column: ColumnType) -> pa.DataType:
    """How a column is written."""
    import pyarrow as pa

    if column.kind == "list":
        assert column.item is not None
        return pa.list_(arrow_type(column.item))
    if column.kind == "struct":
        return pa.struct([(name, arrow_type(each)) for name, each in column.fields])
    return {
        "null": pa.null,
        "bool": pa.bool_,
        "int": pa.int64,
        "bigint": pa.int64,
        "float": pa.float64,
        "nonfinite": pa.float64,
        "text": pa.string,
        "json": pa.string,
        "bytes": pa.binary,
        "date": pa.date32,
        "timestamp": lambda: pa.timestamp("us"),
    }[column.kind]()


class UserColumn(NamedTuple):
    """A column of the input that is kept: its name there, its name in our rows, and its type."""

    name: str
    output: str
    type: ColumnType


def name_user_columns(types: Mapping[str, ColumnType], reserved: Set[str]) -> tuple[UserColumn, ...]:
    """Names for the input's other columns in our rows: their own, or `input_NAME` where the name is reserved.

    >>> name_user_columns({"topic": NULL, "prob_a": NULL}, {"prob_a"})[1].output
    'input_prob_a'
    """
    # A name that is free goes to the column that bears it, before any renamed one may take it.
    taken = set(reserved) | {name for name in types if name not in reserved}
    columns = []
    for name, column in types.items():
        output = name
        if name in reserved:
            output = f"input_{name}"
            while output in taken:
                output = f"input_{output}"
            taken.add(output)
        columns.append(UserColumn(name, output, column))
    return tuple(columns)


def user_values(extra: Mapping[str, Any], columns: Iterable[UserColumn]) -> dict[str, Any]:
    """The input's other values of one row, by their names in our rows; null where the row has none."""
    return {
        output: json_text(extra.get(name)) if column.kind == "json" else extra.get(name)
        for name, output, column in columns
    }


def user_fields(columns: Sequence[UserColumn]) -> list[pa.Field]:
    """The Arrow fields of the input's other columns."""
    import pyarrow as pa

    return [
        pa.field(output, arrow_type(column), metadata=_BEYOND_JSON if column.holds(_NOT_IN_JSON) else None)
        for _, output, column in columns
    ]


def fits_json(field: pa.Field) -> bool:
    """Whether JSON holds all values of a field that `user_fields` made, or one of ours."""
    return not field.metadata


def prompt_value(prompt: Sequence[Turn], *, is_conversational: bool) -> Any:
    """A prompt as written: a message list where the run's prompts are, else the text of its only turn."""
    if is_conversational:
        return [{"role": turn.role, "content": turn.content} for turn in prompt]
    return prompt[0].content


def prompt_type(*, is_conversational: bool) -> pa.DataType:
    """The Arrow type of what `prompt_value` gives."""
    import pyarrow as pa

    return pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])) if is_conversational else pa.string()


def json_text(value: Any) -> str | None:
    """JSON text of any value; null stays null.

    >>> json_text({"b": 1, "a": [None, "x"]})
    '{"b":1,"a":[null,"x"]}'
    """
    if value is None:
        return None
    try:
        return orjson.dumps(value, default=plain_value, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:  # integers beyond 64 bits, which orjson has not
        return json.dumps(value, default=str, ensure_ascii=False, separators=(",", ":"))


def plain_value(value: Any) -> Any:
    """What orjson is to write for a value it does not know: numpy's as lists and numbers, anything else as text."""
    return value.tolist() if hasattr(value, "tolist") else str(value)

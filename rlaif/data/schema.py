"""The types of a user's own columns, found in a first pass and written with one Arrow type each: what varies in type or
keys is written as JSON text instead."""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import orjson

if TYPE_CHECKING:
    import pyarrow as pa

Kind = Literal[
    "null", "bool", "int", "bigint", "float", "nonfinite", "text", "bytes", "date", "timestamp",
    "list", "struct", "json",
]  # fmt: skip

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

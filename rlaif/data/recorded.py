"""A judge's answers as somebody recorded them in a column: on which scale they are, and P(A preferred) from each. Pure:
values in, probabilities or a `RowFault` out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Any, Final, NamedTuple

import orjson

from rlaif.data.columns import RowFault, described, finite_number
from rlaif.data.comparisons import VERDICT_WORDS
from rlaif.data.paths import value_at
from rlaif.errors import did_you_mean

_WORDS = {"a": 1.0, "tie": 0.5, "b": 0.0, "1": 1.0, "0": 0.5, "2": 0.0, "1.0": 1.0, "0.0": 0.5, "2.0": 0.0}
_RANKED_WORDS = {"chosen": 1.0, "rejected": 0.0}
_NULL_TEXTS = frozenset({"", "nan", "null", "none"})
_OVERSHOOT = 1e-6
"""A sum of rounded probabilities may pass the end of its scale by so much."""

_MOST_NUMBERS = 10_000
"""Different numbers that settle a column's scale as well as all of them would."""

_MOST_DEPTH = 4
_MOST_PATHS = 400
_MOST_NAMED = 8


class Scale(StrEnum):
    """What the numbers of a column say; the text stands in the audit's `source`."""

    VERDICTS = "verdicts: a or 1, b or 2, tie or 0"
    PROBABILITY = "P(A preferred), 0 to 1"
    PREFERENCE = "preference, 1 (A) to 2 (B)"
    SCORES = "scores of A and of B, the larger wins"


class _NotThere(Enum):
    """The path leads nowhere in this row; unlike null, nobody asked the judge."""

    NOT_THERE = 0


NOT_THERE: Final = _NotThere.NOT_THERE


class Recorded(NamedTuple):
    """One row's value in a column: None where the judge gave no usable answer, `NOT_THERE` where none was asked."""

    value: Any
    is_ranked: bool


@dataclass
class RecordedColumn:
    """The answers of a judge in one order. All rows are taken before any is read: the scale is the whole column's.

    Attributes:
        column: Path to verdicts, probabilities or preferences; or two paths to scores, joined by a comma.
        nulls: Rows taken whose answer is not usable.
        absent: Rows taken that have no such path.
    """

    column: str
    nulls: int = field(default=0, init=False)
    absent: int = field(default=0, init=False)
    _numbers: set[float] = field(default_factory=set, init=False)
    _scale: Scale | None = field(default=None, init=False)
    _is_found: bool = field(default=False, init=False)

    def take(self, row: Mapping[str, Any], *, is_ranked: bool) -> Recorded:
        """What a row has.

        Args:
            row: As the input has it.
            is_ranked: Whether its responses are chosen and rejected; the value then names these.
        """
        paths = self.column.split(",")
        values = [_value(row, path.strip()) for path in paths]
        value: Any = values[0] if len(values) == 1 else _pair(values)
        self._is_found |= value is not NOT_THERE
        if value is NOT_THERE:
            self.absent += 1
        elif value is None:
            self.nulls += 1
        elif len(paths) == 1 and (number := finite_number(value)) is not None and len(self._numbers) < _MOST_NUMBERS:
            self._numbers.add(number)
        return Recorded(value, is_ranked)

    @property
    def is_found(self) -> bool:
        """Whether any row has it."""
        return self._is_found

    @property
    def scale(self) -> Scale:
        """On which scale the rows taken so far are.

        Raises:
            RowFault: Some numbers are of one scale, some of another.
        """
        if self._scale is None:
            self._scale = Scale.SCORES if "," in self.column else _scale_of(self._numbers, self.column)
        return self._scale

    @property
    def note(self) -> str:
        """What a person should know of how the column was read; "" for nothing."""
        if self.scale is Scale.VERDICTS and {0.0, 1.0} <= self._numbers and 2.0 not in self._numbers:
            return f"column {self.column!r} holds 0 and 1 but never 2; each 0 was read as a tie, not as B"
        return ""

    def prob_a(self, recorded: Recorded) -> float | None:
        """P(first preferred), the first being A, or chosen where the row is ranked; None where not usable.

        Raises:
            RowFault: The value is not on the column's scale.
        """
        value, is_ranked = recorded
        if value is None or value is NOT_THERE:
            return None
        if self.scale is Scale.SCORES:
            first, second = (self._score(each) for each in value)
            return 0.5 if first == second else float(first > second)
        if self.scale is Scale.VERDICTS:
            return self._verdict(value, is_ranked)
        low, high = (0.0, 1.0) if self.scale is Scale.PROBABILITY else (1.0, 2.0)
        number = finite_number(value)
        if number == 0.0 and self.scale is Scale.PREFERENCE:
            return 0.5  # AlpacaEval's older files write a draw so
        if number is None or not low - _OVERSHOOT <= number <= high + _OVERSHOOT:
            reason = f"holds {described(value)}, expected a number from {low:g} to {high:g} as in other rows"
            raise RowFault(f"{reason} ({self.scale}), or null", self.column)
        number = min(high, max(low, number))
        return number if self.scale is Scale.PROBABILITY else 2.0 - number

    def _verdict(self, value: Any, is_ranked: bool) -> float:
        if type(value) in (int, float, str):
            text = str(value).strip().casefold()
            found = _WORDS.get(text, _RANKED_WORDS.get(text) if is_ranked else None)
            if found is not None:
                return found
        words = f"{VERDICT_WORDS}{', chosen or rejected' if is_ranked else ''}"
        raise RowFault(f"holds {described(value)}, expected {words}, or null", self.column)

    def _score(self, value: Any) -> float:
        number = finite_number(value)
        if number is None:
            raise RowFault(f"holds {described(value)}, expected a number, or null", self.column)
        return number


def missing_column(column: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """What to say of a path that no row has: names near it, or what the rows have.

    Args:
        column: The path, or two joined by a comma.
        rows: The first few of the input.
    """
    known = list(_paths(rows))
    lacking = [path for path in map(str.strip, column.split(",")) if path not in known]
    missing = lacking[0] if lacking else column
    hint = did_you_mean(missing, known)
    if not hint and "." in missing:  # of a long path only one step may be wrong
        parents = [path for path in known if path.startswith(f"{missing.split('.')[0]}.")]
        hint = f"; there is {_listed(parents)}" if parents else ""
    has = "" if hint else f"; the rows have: {_listed(known)}"
    return f"is in no row{hint}{has}"


def verdict_like(rows: Sequence[Mapping[str, Any]]) -> str:
    """The paths whose values could be a judge's verdicts, as a clause; "" where there are none.

    >>> verdict_like([{"prompt": "P", "votes": {"x": {"order_12": 2}}, "human_label": 1}])
    'such as votes.x.order_12'
    """
    seen: dict[str, bool] = {}
    for row in rows:
        for path, value in _leaves(row):
            if path == "id" or path.startswith("human") or _is_null(value):
                continue
            number = finite_number(value)
            is_like = 0 <= number <= 2 if number is not None else str(value).strip().casefold() in _WORDS
            seen[path] = is_like and seen.get(path, True)
    found = [path for path, is_like in seen.items() if is_like]
    return f"such as {_listed(found)}" if found else ""


def _scale_of(numbers: Iterable[float], column: str) -> Scale:
    preferences = [number for number in numbers if 1.0 < number < 2.0]
    probabilities = [number for number in numbers if 0.0 < number < 1.0]
    # Within rounding of 1, a number may belong to either.
    is_preference = any(number > 1.0 + _OVERSHOOT for number in preferences)
    is_probability = any(number < 1.0 - _OVERSHOOT for number in probabilities)
    if is_preference and is_probability:
        reason = f"holds {_nearest(probabilities)} and {_nearest(preferences)}"
        raise RowFault(f"{reason}, expected P(A preferred) from 0 to 1, or a preference from 1 to 2", column)
    if is_preference or (preferences and not is_probability):
        return Scale.PREFERENCE
    if probabilities:
        return Scale.PROBABILITY
    # Verdicts 1 and 2 mean the same on both scales; only the name tells them apart.
    is_named = column.rpartition(".")[2] == "preference" and any(True for _ in numbers)
    return Scale.PREFERENCE if is_named and max(numbers) <= 2.0 else Scale.VERDICTS


def _nearest(numbers: Sequence[float]) -> str:
    """The number that is furthest from a whole one: the plainest case."""
    return f"{max(numbers, key=lambda number: min(number % 1, 1 - number % 1)):g}"


def _value(row: Mapping[str, Any], path: str) -> Any:
    try:
        value = value_at(row, path)
    except KeyError:
        return NOT_THERE
    return None if _is_null(value) else value


def _pair(values: Sequence[Any]) -> Any:
    if NOT_THERE in values:
        return NOT_THERE
    return None if None in values else tuple(values)


def _is_null(value: Any) -> bool:
    if isinstance(value, str):
        return value.strip().casefold() in _NULL_TEXTS
    return value is None or (isinstance(value, float) and math.isnan(value))


def _paths(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    seen: dict[str, None] = {}
    for row in rows:
        for path, _ in _leaves(row):
            seen.setdefault(path)
            if len(seen) >= _MOST_PATHS:
                return iter(seen)
    return iter(seen)


def _leaves(value: Any, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Paths to all that holds nothing further, with the values."""
    if isinstance(value, str) and value[:1] in ("{", "["):
        with suppress(orjson.JSONDecodeError):
            value = orjson.loads(value)
    items: Iterable[tuple[str, Any]] = ()
    if depth < _MOST_DEPTH and isinstance(value, Mapping):
        items = [(str(key), each) for key, each in value.items()]
    elif depth < _MOST_DEPTH and isinstance(value, list):
        items = [(str(number), each) for number, each in enumerate(value)]
    if not items:
        yield prefix, value
        return
    for key, each in items:
        yield from _leaves(each, f"{prefix}.{key}" if prefix else key, depth + 1)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_MOST_NAMED])
    return shown if len(names) <= _MOST_NAMED else f"{shown} and {len(names) - _MOST_NAMED} more"

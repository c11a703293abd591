"""What the columns of all rows share, comparisons and candidates alike: where a value stands, prompts as text or
messages, responses, ids. Pure: values in, a record or an `InputError` out."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import orjson

from rlaif.data.paths import value_at
from rlaif.errors import ConfigError, InputError
from rlaif.records import Candidates, Comparison, Prompt, Turn

PROMPT_ALIASES = ("instruction", "question", "input")
ROLES = ("system", "developer", "user", "assistant", "tool")
TEXT_OR_MESSAGES = "a text or a list of {role, content} messages"
TEXT_OR_MESSAGE = "a text or an assistant message"

_MOST_PLANS = 1000


class RowFault(Exception):
    """What is wrong with a row; the file and line are added by who knows them."""

    def __init__(self, reason: str, column: str | None = None) -> None:
        self.reason = reason
        self.column = column


class Cell(NamedTuple):
    """Where a value stands: a column, or a path into one."""

    path: str
    is_column: bool = True

    def of(self, row: Mapping[str, Any]) -> Any:
        """The value. Raises `RowFault` where there is none."""
        if self.is_column:
            return row[self.path]
        try:
            return value_at(row, self.path)
        except KeyError:
            raise RowFault(f"is missing; the row has: {', '.join(row)}", self.path) from None


@dataclass(frozen=True, slots=True)
class Plan:
    """Which columns of rows with the same keys mean what; None for what is not there."""

    id: Cell | None
    prompt: Cell | None
    extras: tuple[str, ...]


RecordT = TypeVar("RecordT", bound=Comparison | Candidates | Prompt)
PlanT = TypeVar("PlanT", bound=Plan)


@dataclass
class RowReader(ABC, Generic[RecordT, PlanT]):
    """Reads rows of one input; keeps what is the same for all of them.

    Attributes:
        name: What messages call the input.
        columns: Our column name -> the input's column, or a path into one.
        seed: For what is drawn per row.
        repeated_ids: Ids that more than one row has -> how many of these rows bring the id themselves (0 or 1). A made
            id that is repeated gets a suffix from the second row on.

    Raises:
        ConfigError: `columns` names a column of ours that there is not.
    """

    our_columns: ClassVar[tuple[str, ...]]
    """Names that `columns` may rename."""

    expected: ClassVar[str]
    """What a row should be, in a few words."""

    name: str
    columns: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0
    repeated_ids: Mapping[str, int] = field(default_factory=dict)
    _plans: dict[tuple[str, ...], PlanT] = field(default_factory=dict, init=False)
    _made: Counter[str] = field(default_factory=Counter, init=False)

    def __post_init__(self) -> None:
        for ours in self.columns:
            if ours not in self.our_columns:
                raise ConfigError(f"--columns names {ours!r}, expected one of {', '.join(self.our_columns)}")
        self._made.update(self.repeated_ids)

    def read(self, line: int, row: Mapping[str, Any]) -> tuple[RecordT, bool]:
        """A record, and whether its id was made from its content.

        Raises:
            InputError: The row cannot be read; names line, column and what was expected.
        """
        try:
            keys = tuple(row)
            plan = self._plan_of(keys)
            given_id = None if plan.id is None else given_id_of(plan.id.of(row), plan.id.path)
            return self._record(row, plan, given_id), given_id is None
        except RowFault as fault:
            raise InputError(fault.reason, path=self.name, line=line, column=fault.column) from None

    def id_of(self, row: Mapping[str, Any]) -> str | None:
        """The id that a row brings itself, readable or not as a whole; None when it brings none."""
        try:
            return given_id_of(row.get(self.columns.get("id", "id")))
        except RowFault:
            return None

    @property
    @abstractmethod
    def facts(self) -> dict[str, bool]:
        """What the rows so far have: the fields of `InputSummary` that only this kind of row fills."""

    @abstractmethod
    def _plan(self, keys: tuple[str, ...]) -> PlanT:
        """Decide what columns mean, from their names alone. Raises `RowFault`."""

    @abstractmethod
    def _record(self, row: Mapping[str, Any], plan: PlanT, given_id: str | None) -> RecordT:
        """Read one row. Raises `RowFault`."""

    def _plan_of(self, keys: tuple[str, ...]) -> PlanT:
        return self._plans.get(keys) or self._planned(keys)

    def _planned(self, keys: tuple[str, ...]) -> PlanT:
        if any(not isinstance(key, str) for key in keys):
            raise RowFault(f"has columns that are not named by texts: {', '.join(map(repr, keys))}")
        plan = self._plan(keys)
        if len(self._plans) >= _MOST_PLANS:  # keys that are new in every row must not fill the memory
            self._plans.clear()
        self._plans[keys] = plan
        return plan

    def _made_id(self, content: object) -> str:
        """An id of what a row says; equal content gets a suffix where `repeated_ids` has it."""
        try:
            made = hashlib.sha256(orjson.dumps(content)).hexdigest()[:16]
        except TypeError as error:
            raise RowFault(f"holds text that is not valid Unicode ({error}), expected text in UTF-8") from None
        if made not in self.repeated_ids:
            return made
        self._made[made] += 1
        return made if self._made[made] == 1 else f"{made}-{self._made[made]}"


def find_cell(ours: str, aliases: Iterable[str], present: Set[str], renames: Mapping[str, str]) -> Cell | None:
    """Where a column of ours stands: where it was renamed to, under its own name, or under an alias.

    Raises:
        RowFault: Two aliases could be meant.
    """
    if ours in renames:
        return Cell(renames[ours], renames[ours] in present)
    if ours in present:
        return Cell(ours)
    found = [alias for alias in aliases if alias in present]
    if len(found) > 1:
        raise RowFault(f"could be {' or '.join(found)}; choose with --columns {ours}={found[0]}", ours)
    return Cell(found[0]) if found else None


def find_prompt(keys: Sequence[str], renames: Mapping[str, str]) -> Cell | None:
    """Where the prompt stands. Raises `RowFault` where two columns could be meant."""
    return find_cell("prompt", PROMPT_ALIASES, set(keys), renames)


def missing_prompt(keys: Sequence[str]) -> RowFault:
    """What is wrong with a row without a prompt."""
    return RowFault(f"is missing (also taken: {', '.join(PROMPT_ALIASES)}); the row has: {', '.join(keys)}", "prompt")


def other_columns(keys: Sequence[str], cells: Iterable[Cell | None]) -> tuple[str, ...]:
    """The columns that none of the cells takes whole."""
    used = {cell.path for cell in cells if cell is not None and cell.is_column}
    return tuple(key for key in keys if key not in used)


def given_id_of(value: Any, column: str = "id") -> str | None:
    """An id as a row brings it; None for null. Raises `RowFault`."""
    if isinstance(value, str):
        if not value:
            raise RowFault("is empty, expected a text that no other row has, or null", column)
        return value
    if value is None or value != value:
        return None
    if type(value) is int:
        return str(value)
    raise RowFault(f"is {described(value)}, expected a text that no other row has", column)


def prompt_of(value: Any, column: str) -> tuple[tuple[Turn, ...], bool]:
    """A prompt's turns, and whether it came as a message list. Raises `RowFault`."""
    if isinstance(value, str):
        return (Turn("user", value),), False
    return messages_of(value, column, TEXT_OR_MESSAGES), True


def response_of(value: Any, column: str, expected: str = TEXT_OR_MESSAGE) -> str:
    """The text of a response given as text, as an assistant message, or as a list with just that.

    Raises:
        RowFault: It is none of these.
    """
    if isinstance(value, str):
        return value
    messages = messages_of([value] if isinstance(value, Mapping) else value, column, expected)
    if len(messages) > 1 or messages[0].role != "assistant":
        roles = ", ".join(turn.role for turn in messages)
        raise RowFault(f"holds messages of {roles}, expected one assistant message", column)
    return messages[0].content


def messages_of(value: Any, column: str, expected: str) -> tuple[Turn, ...]:
    """The turns of a message list. Raises `RowFault`, which says that `expected` was."""
    if not isinstance(value, list | tuple):
        raise RowFault(f"is {described(value)}, expected {expected}", column)
    if not value:
        raise RowFault(f"is an empty list, expected {expected}", column)
    return tuple(_message(each, column, number) for number, each in enumerate(value, 1))


def _message(value: Any, column: str, number: int) -> Turn:
    if not isinstance(value, Mapping) or "role" not in value or "content" not in value:
        raise RowFault(f"message {number} is {described(value)}, expected {{role, content}}", column)
    role, content = value["role"], value["content"]
    if role not in ROLES:
        raise RowFault(f"message {number} has the role {role!r}, expected one of {', '.join(ROLES)}", column)
    if not isinstance(content, str):
        raise RowFault(f"message {number} has {described(content)} for content, expected a text", column)
    return Turn(role, content)


def described(value: Any) -> str:
    """A value in a few words, for messages."""
    if value is None:
        return "null"
    if isinstance(value, float) and value != value:
        return "NaN"
    if isinstance(value, Mapping):
        return f"an object with {', '.join(map(str, value)) or 'no keys'}"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def finite_number(value: Any) -> float | None:
    """A finite number, or the text of one as CSV has it; None for all else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None

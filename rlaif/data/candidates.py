"""What the columns of rows to be rated mean: a prompt with one response, or with a list of them. Pure: values in,
`Candidates` or an `InputError` out."""

from __future__ import annotations

from collections.abc import Mapping, Set
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, ClassVar

import orjson

from rlaif.data.columns import (
    TEXT_OR_MESSAGE,
    Cell,
    Plan,
    RowFault,
    RowReader,
    described,
    find_cell,
    find_prompt,
    missing_prompt,
    other_columns,
    prompt_of,
    response_of,
)
from rlaif.errors import ConfigError
from rlaif.records import Candidates

RESPONSE_ALIASES = ("completion", "output", "answer")

_TEXTS_OR_MESSAGES = "a list of texts or assistant messages, at least one"


@dataclass(frozen=True, slots=True)
class CandidatesPlan(Plan):
    """Which columns of a row to be rated mean what; `is_single`: one response, not a list of them."""

    responses: Cell
    is_single: bool


@dataclass
class CandidatesReader(RowReader[Candidates, CandidatesPlan]):
    """Reads rows to be rated. The first row decides whether all hold one response or lists of them.

    Raises:
        ConfigError: As `RowReader`; or both `response` and `responses` are renamed.
    """

    our_columns: ClassVar[tuple[str, ...]] = ("id", "prompt", "response", "responses")
    expected = "a prompt with a response, or with a list of responses, a row"

    _is_single: bool | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if "response" in self.columns and "responses" in self.columns:
            raise ConfigError(
                "--columns names both 'response' and 'responses', expected one of them: "
                "a row holds one response, or a list of them"
            )

    @property
    def facts(self) -> dict[str, bool]:
        return {"is_single": self._is_single is not False}

    def _plan(self, keys: tuple[str, ...]) -> CandidatesPlan:
        responses, is_single = _response_cell(set(keys), self.columns)
        prompt = find_prompt(keys, self.columns)
        if prompt is None:
            raise missing_prompt(keys)
        identity = find_cell("id", (), set(keys), self.columns)
        if self._is_single is None:
            self._is_single = is_single
        if is_single != self._is_single:
            found, first = ("one response", "a list") if is_single else ("a list of responses", "one")
            reason = f"holds {found} where the first row has {first}, expected rows of one kind; rate the others apart"
            raise RowFault(reason, responses.path)
        return CandidatesPlan(
            id=identity,
            prompt=prompt,
            extras=other_columns(keys, (identity, prompt, responses)),
            responses=responses,
            is_single=is_single,
        )

    def _record(self, row: Mapping[str, Any], plan: CandidatesPlan, given_id: str | None) -> Candidates:
        assert plan.prompt is not None  # `_plan` refuses rows without one
        prompt, is_conversational = prompt_of(plan.prompt.of(row), plan.prompt.path)
        read = _one_response if plan.is_single else _all_responses
        responses = read(plan.responses.of(row), plan.responses.path)
        row_id = given_id
        if row_id is None:
            kind = "response" if plan.is_single else "responses"
            row_id = self._made_id([kind, [list(turn) for turn in prompt], list(responses)])
        return Candidates(
            id=row_id,
            prompt=prompt,
            responses=responses,
            is_single=plan.is_single,
            extra={column: row[column] for column in plan.extras},
            is_conversational=is_conversational,
        )


def _response_cell(present: Set[str], renames: Mapping[str, str]) -> tuple[Cell, bool]:
    """The cell of the response or responses, and whether it holds one."""
    if "responses" in renames:
        return Cell(renames["responses"], renames["responses"] in present), False
    if "response" not in renames and "responses" in present:
        if "response" in present:
            raise RowFault(
                "could be 'response' or 'responses'; choose with --columns response=response or "
                "--columns responses=responses",
                "response",
            )
        return Cell("responses"), False
    single = find_cell("response", RESPONSE_ALIASES, present, renames)
    if single is None:
        raise RowFault(
            f"is missing, and responses too (also taken: {', '.join(RESPONSE_ALIASES)}); "
            f"the row has: {', '.join(sorted(present)) or 'nothing'}",
            "response",
        )
    return single, True


def _one_response(value: Any, column: str) -> tuple[str]:
    if isinstance(value, list | tuple) and any(isinstance(each, str) for each in value):
        raise RowFault(
            f"is {described(value)}, expected {TEXT_OR_MESSAGE}; choose a column of lists with "
            f"--columns responses={column}",
            column,
        )
    return (response_of(value, column),)


def _all_responses(value: Any, column: str) -> tuple[str, ...]:
    if isinstance(value, str) and value.lstrip()[:1] == "[":  # CSV has no lists
        with suppress(orjson.JSONDecodeError):  # what is no list is refused below
            value = orjson.loads(value)
    if not isinstance(value, list | tuple):
        raise RowFault(f"is {described(value)}, expected {_TEXTS_OR_MESSAGES}", column)
    if not value:
        raise RowFault(f"is an empty list, expected {_TEXTS_OR_MESSAGES}", column)
    return tuple(_response(each, column, number) for number, each in enumerate(value, 1))


def _response(value: Any, column: str, number: int) -> str:
    if isinstance(value, str):
        return value
    try:
        return response_of(value, column)
    except RowFault as fault:
        raise RowFault(f"response {number} {fault.reason}", column) from None

"""What the columns of rows to be answered mean: a prompt, and with it perhaps an answer to be revised. Pure: values in,
a `Prompt` or an `InputError` out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from rlaif.data.candidates import RESPONSE_ALIASES
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
from rlaif.records import Prompt


@dataclass(frozen=True, slots=True)
class PromptPlan(Plan):
    """Which columns of a row to be answered mean what."""

    response: Cell | None


@dataclass
class PromptReader(RowReader[Prompt, PromptPlan]):
    """Reads rows to be answered.

    Attributes:
        takes_responses: Whether a row may bring a response: its own column, or the first of a list of responses. If
            not, such columns are kept as the user's own.

    Raises:
        ConfigError: As `RowReader`.
    """

    our_columns: ClassVar[tuple[str, ...]] = ("id", "prompt", "response", "responses")
    expected = "one prompt a row"

    takes_responses: bool = False

    @property
    def facts(self) -> dict[str, bool]:
        return {}

    def _plan(self, keys: tuple[str, ...]) -> PromptPlan:
        present = set(keys)
        prompt = find_prompt(keys, self.columns)
        if prompt is None:
            raise missing_prompt(keys)
        identity = find_cell("id", (), present, self.columns)
        response = None
        if self.takes_responses:
            response = find_cell("response", RESPONSE_ALIASES, present, self.columns)
            response = response or find_cell("responses", (), present, self.columns)
        return PromptPlan(
            id=identity,
            prompt=prompt,
            extras=other_columns(keys, (identity, prompt, response)),
            response=response,
        )

    def _record(self, row: Mapping[str, Any], plan: PromptPlan, given_id: str | None) -> Prompt:
        assert plan.prompt is not None  # `_plan` refuses rows without one
        prompt, is_conversational = prompt_of(plan.prompt.of(row), plan.prompt.path)
        if prompt[-1].role != "user":
            reason = f"ends with a message of the {prompt[-1].role}, expected one of the user to be answered"
            raise RowFault(reason, plan.prompt.path)
        if any(turn.role == "tool" for turn in prompt):
            raise RowFault("holds a message of a tool, expected system, user and assistant messages", plan.prompt.path)
        response = None if plan.response is None else _first_response(plan.response.of(row), plan.response.path)
        row_id = given_id
        if row_id is None:
            answered = [] if response is None else [response]
            row_id = self._made_id(["prompt", [list(turn) for turn in prompt], *answered])
        return Prompt(
            id=row_id,
            prompt=prompt,
            response=response,
            extra={column: row[column] for column in plan.extras},
            is_conversational=is_conversational,
        )


def _first_response(value: Any, column: str) -> str:
    """The response of a row: text, an assistant message, or the first of a list of texts."""
    if isinstance(value, list | tuple) and value and isinstance(value[0], str):
        return value[0]
    if isinstance(value, list | tuple) and not value:
        raise RowFault(f"is {described(value)}, expected {TEXT_OR_MESSAGE}, or a list that begins with one", column)
    return response_of(value, column)

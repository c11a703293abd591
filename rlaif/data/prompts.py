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
from rlaif.data.comparisons import ranked_pair
from rlaif.errors import ConfigError
from rlaif.records import Prompt, Turn


@dataclass(frozen=True, slots=True)
class PromptPlan(Plan):
    """Which columns of a row to be answered mean what; `ranked`: chosen and rejected, whose common beginning is the
    prompt of a row that has no other."""

    response: Cell | None
    ranked: tuple[Cell, Cell] | None


@dataclass
class PromptReader(RowReader[Prompt, PromptPlan]):
    """Reads rows to be answered. Without a prompt of its own, a row of chosen and rejected is asked what both answer.

    Attributes:
        takes_responses: Whether a row may bring a response: its own column, or the first of a list of responses. If
            not, such columns are kept as the user's own.

    Raises:
        ConfigError: As `RowReader`; or `columns` names a response, and none is taken.
    """

    our_columns: ClassVar[tuple[str, ...]] = ("id", "prompt", "response", "responses")
    expected = "one prompt a row"

    takes_responses: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.takes_responses and (unused := sorted({"response", "responses"} & set(self.columns))):
            raise ConfigError(f"--columns names {unused[0]!r}, which is not read here, expected one of id, prompt")

    @property
    def facts(self) -> dict[str, bool]:
        return {}

    def _plan(self, keys: tuple[str, ...]) -> PromptPlan:
        present = set(keys)
        prompt = find_prompt(keys, self.columns)
        ranked = None
        if prompt is None:
            if not {"chosen", "rejected"} <= present:
                raise missing_prompt(keys)
            ranked = Cell("chosen"), Cell("rejected")
        identity = find_cell("id", (), present, self.columns)
        response = None
        if self.takes_responses:
            names = ("responses", "response") if "responses" in self.columns else ("response", "responses")
            cells = [find_cell(name, (), present, self.columns) for name in names]
            response = next((cell for cell in cells if cell is not None), None)
            # an alias last: beside responses, "answer" and the like say something else
            response = response or find_cell("response", RESPONSE_ALIASES, present, self.columns)
        return PromptPlan(
            id=identity,
            prompt=prompt,
            extras=other_columns(keys, (identity, prompt, response)),
            response=response,
            ranked=ranked,
        )

    def _record(self, row: Mapping[str, Any], plan: PromptPlan, given_id: str | None) -> Prompt:
        prompt, is_conversational, path = _prompt_of(row, plan)
        if prompt[-1].role != "user":
            reason = f"ends with a message of the {prompt[-1].role}, expected one of the user to be answered"
            raise RowFault(reason, path)
        if any(turn.role == "tool" for turn in prompt):
            raise RowFault("holds a message of a tool, expected system, user and assistant messages", path)
        response: str | None = None
        finish_reason: str | None = None
        if plan.response is not None:
            value = plan.response.of(row)
            response = _first_response(value, plan.response.path)
            finish_reason = _first_finish_reason(value, row.get("finish_reasons"))
        row_id = given_id
        if row_id is None:
            answered = [] if response is None else [response]
            row_id = self._made_id(["prompt", [list(turn) for turn in prompt], *answered])
        return Prompt(
            id=row_id,
            prompt=prompt,
            response=response,
            finish_reason=finish_reason,
            extra={column: row[column] for column in plan.extras},
            is_conversational=is_conversational,
        )


def _prompt_of(row: Mapping[str, Any], plan: PromptPlan) -> tuple[tuple[Turn, ...], bool, str]:
    """A row's prompt, whether it is a conversation, and the column it comes from."""
    if plan.ranked is not None:
        chosen, rejected = plan.ranked
        prompt, is_conversational, _, _ = ranked_pair(None, chosen.of(row), rejected.of(row), chosen, rejected)
        return prompt, is_conversational, chosen.path
    assert plan.prompt is not None  # `_plan` refuses rows with neither
    return *prompt_of(plan.prompt.of(row), plan.prompt.path), plan.prompt.path


def _first_response(value: Any, column: str) -> str:
    """The response of a row: text, an assistant message, or the first of a list of texts."""
    if isinstance(value, list | tuple) and value and isinstance(value[0], str):
        return value[0]
    if isinstance(value, list | tuple) and not value:
        raise RowFault(f"is {described(value)}, expected {TEXT_OR_MESSAGE}, or a list that begins with one", column)
    return response_of(value, column)


def _first_finish_reason(responses: Any, reasons: Any) -> str | None:
    """Why the first of a list of responses ends, where a list beside it tells of each."""
    is_told = isinstance(responses, list | tuple) and isinstance(reasons, list | tuple) and reasons
    return reasons[0] if is_told and len(reasons) == len(responses) and isinstance(reasons[0], str) else None

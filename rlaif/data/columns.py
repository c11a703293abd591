"""What the columns of a row mean: names and aliases, prompts as text or messages, transcripts, votes. Pure: values in,
a `Comparison` or an `InputError` out."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from rlaif.data.paths import value_at
from rlaif.errors import ConfigError, InputError
from rlaif.randomness import seeded_random
from rlaif.records import Comparison, Turn, Verdict

PROMPT_ALIASES = ("instruction", "question", "input")
RESPONSE_PAIRS = (("response_1", "response_2"), ("output_1", "output_2"), ("completion_a", "completion_b"))
ROLES = ("system", "developer", "user", "assistant", "tool")

_OUR_COLUMNS = ("id", "prompt", "response_a", "response_b", "chosen", "rejected", "human_votes", "human_label")
_TEXT_OR_MESSAGES = "a text or a list of {role, content} messages"
_TEXT_OR_MESSAGE = "a text or an assistant message"
_VERDICTS: dict[object, Verdict] = {
    "a": Verdict.A, 1: Verdict.A, "1": Verdict.A,
    "b": Verdict.B, 2: Verdict.B, "2": Verdict.B,
    "tie": Verdict.TIE, 0: Verdict.TIE, "0": Verdict.TIE,
}  # fmt: skip
_VERDICT_WORDS = "'a', 'b' or 'tie' (or 1, 2, 0)"
_SPEAKERS = {"Human": "user", "Assistant": "assistant"}
_TRANSCRIPT_MARK = re.compile(r"\n\n(Human|Assistant):")
_MOST_PLANS = 1000


class _Fault(Exception):
    """What is wrong with a row; the file and line are added by who knows them."""

    def __init__(self, reason: str, column: str | None = None) -> None:
        self.reason = reason
        self.column = column


class _Cell(NamedTuple):
    """Where a value stands: a column, or a path into one."""

    path: str
    is_column: bool = True

    def of(self, row: Mapping[str, Any]) -> Any:
        if self.is_column:
            return row[self.path]
        try:
            return value_at(row, self.path)
        except KeyError:
            raise _Fault(f"is missing; the row has: {', '.join(row)}", self.path) from None


@dataclass(frozen=True, slots=True)
class _Plan:
    """Which columns of rows with the same keys mean what."""

    id: _Cell | None
    prompt: _Cell | None
    first: _Cell
    second: _Cell
    is_ranked: bool
    votes: _Cell | None
    label: _Cell | None
    extras: tuple[str, ...]


@dataclass
class ComparisonReader:
    """Reads rows of one input; keeps what is the same for all of them.

    Attributes:
        name: What messages call the input.
        columns: Our column name -> the input's column, or a path into one.
        seed: For the draw of which of chosen and rejected becomes A.
        repeated_ids: Ids that more than one row has -> how many of these rows bring the id themselves (0 or 1). A made
            id that is repeated gets a suffix from the second row on.
        has_votes, has_labels: Whether any row so far had a column of human votes, or of labels, filled or not.
    """

    name: str
    columns: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0
    repeated_ids: Mapping[str, int] = field(default_factory=dict)
    has_votes: bool = field(default=False, init=False)
    has_labels: bool = field(default=False, init=False)
    _plans: dict[tuple[str, ...], _Plan] = field(default_factory=dict, init=False)
    _made: Counter[str] = field(default_factory=Counter, init=False)

    def __post_init__(self) -> None:
        for ours in self.columns:
            if ours not in _OUR_COLUMNS:
                raise ConfigError(f"--columns names {ours!r}, expected one of {', '.join(_OUR_COLUMNS)}")
        self._made.update(self.repeated_ids)

    def read(self, line: int, row: Mapping[str, Any]) -> tuple[Comparison, bool]:
        """A comparison, and whether its id was made from its content.

        Raises:
            InputError: The row cannot be read; names line, column and what was expected.
        """
        try:
            keys = tuple(row)
            plan = self._plans.get(keys) or self._planned(keys)
            return self._read(row, plan)
        except _Fault as fault:
            raise InputError(fault.reason, path=self.name, line=line, column=fault.column) from None

    def id_of(self, row: Mapping[str, Any]) -> str | None:
        """The id that a row brings itself, readable or not as a whole; None when it brings none."""
        try:
            return _given_id(row.get(self.columns.get("id", "id")))
        except _Fault:
            return None

    def _planned(self, keys: tuple[str, ...]) -> _Plan:
        plan = plan_row(keys, self.columns)
        if len(self._plans) >= _MOST_PLANS:  # keys that are new in every row must not fill the memory
            self._plans.clear()
        self._plans[keys] = plan
        self.has_votes |= plan.votes is not None
        self.has_labels |= plan.is_ranked or plan.votes is not None or plan.label is not None
        return plan

    def _read(self, row: Mapping[str, Any], plan: _Plan) -> tuple[Comparison, bool]:
        given_id = None if plan.id is None else _given_id(plan.id.of(row), plan.id.path)
        first, second = plan.first.of(row), plan.second.of(row)
        prompt: tuple[Turn, ...] | None = None
        is_conversational = False
        if plan.prompt is not None:
            raw = plan.prompt.of(row)
            if isinstance(raw, str):
                prompt = (Turn("user", raw),)
            else:
                prompt, is_conversational = _messages(raw, plan.prompt.path, _TEXT_OR_MESSAGES), True
        if plan.is_ranked:
            pair = _ranked_pair(prompt, is_conversational, first, second, plan)
            prompt, is_conversational, first, second = pair
        else:
            first = first if isinstance(first, str) else _response(first, plan.first.path)
            second = second if isinstance(second, str) else _response(second, plan.second.path)
        assert prompt is not None  # without a prompt column, only a ranked pair passes `plan_row`
        row_id = given_id if given_id is not None else self._made_id(prompt, first, second, is_ranked=plan.is_ranked)
        votes, label = _votes_and_label(row, plan)
        if plan.is_ranked:
            label = Verdict.A
            if seeded_random(self.seed, row_id, "which of chosen and rejected is A").random() < 0.5:
                first, second, label = second, first, Verdict.B
        comparison = Comparison(
            id=row_id,
            prompt=prompt,
            response_a=first,
            response_b=second,
            human_votes=votes,
            human_label=label,
            extra={column: row[column] for column in plan.extras},
            is_conversational=is_conversational,
        )
        return comparison, given_id is None

    def _made_id(self, prompt: Sequence[Turn], first: str, second: str, *, is_ranked: bool) -> str:
        content = ["chosen" if is_ranked else "a", [list(turn) for turn in prompt], first, second]
        try:
            made = hashlib.sha256(orjson.dumps(content)).hexdigest()[:16]
        except TypeError as error:
            raise _Fault(f"holds text that is not valid Unicode ({error}), expected text in UTF-8") from None
        if made not in self.repeated_ids:
            return made
        self._made[made] += 1
        return made if self._made[made] == 1 else f"{made}-{self._made[made]}"


def plan_row(keys: Sequence[str], renames: Mapping[str, str]) -> _Plan:
    """Decide what the columns of a row mean, from their names alone.

    Raises:
        _Fault: A column is missing, or two could be meant.
    """
    if any(not isinstance(key, str) for key in keys):
        raise _Fault(f"has columns that are not named by texts: {', '.join(map(repr, keys))}")
    present = set(keys)

    def cell(ours: str, aliases: Iterable[str] = ()) -> _Cell | None:
        if ours in renames:
            return _Cell(renames[ours], renames[ours] in present)
        if ours in present:
            return _Cell(ours)
        found = [alias for alias in aliases if alias in present]
        if len(found) > 1:
            raise _Fault(f"could be {' or '.join(found)}; choose with --columns {ours}={found[0]}", ours)
        return _Cell(found[0]) if found else None

    first, second, is_ranked = _response_cells(present, renames)
    prompt = cell("prompt", PROMPT_ALIASES)
    if prompt is None and not is_ranked:
        raise _Fault(f"is missing (also taken: {', '.join(PROMPT_ALIASES)}); the row has: {', '.join(keys)}", "prompt")
    votes, label = (None, None) if is_ranked else (cell("human_votes"), cell("human_label"))
    cells = (prompt, first, second, votes, label, identity := cell("id"))
    used = {each.path for each in cells if each is not None and each.is_column}
    return _Plan(
        id=identity,
        prompt=prompt,
        first=first,
        second=second,
        is_ranked=is_ranked,
        votes=votes,
        label=label,
        extras=tuple(key for key in keys if key not in used),
    )


def _response_cells(present: set[str], renames: Mapping[str, str]) -> tuple[_Cell, _Cell, bool]:
    """The cells of the two responses, and whether they are chosen and rejected."""
    ranked = ("chosen", "rejected")
    for pair in (("response_a", "response_b"), ranked):
        if pair[0] in renames or pair[1] in renames:
            paths = [renames.get(ours, ours) for ours in pair]
            for ours, path in zip(pair, paths, strict=True):
                if ours == path and path not in present:
                    raise _Fault(f"is missing; the row has: {', '.join(sorted(present))}", ours)
            first, second = (_Cell(path, path in present) for path in paths)
            return first, second, pair == ranked
    if {"response_a", "response_b"} <= present:
        return _Cell("response_a"), _Cell("response_b"), False
    found = [pair for pair in (*RESPONSE_PAIRS, ranked) if present.issuperset(pair)]
    if len(found) > 1:
        choices = " or ".join("/".join(pair) for pair in found)
        hint = f"--columns response_a={found[0][0]},response_b={found[0][1]}"
        raise _Fault(f"could be {choices}; choose with {hint}", "response_a")
    if found:
        return _Cell(found[0][0]), _Cell(found[0][1]), found[0] == ranked
    for pair in (("response_a", "response_b"), *RESPONSE_PAIRS, ranked):
        for name, other in (pair, pair[::-1]):
            if other in present:
                raise _Fault(f"is missing beside {other!r}; the row has: {', '.join(sorted(present))}", name)
    also = ", ".join("/".join(pair) for pair in (*RESPONSE_PAIRS, ranked))
    raise _Fault(
        f"is missing, and response_b too (also taken: {also}); the row has: {', '.join(sorted(present)) or 'nothing'}",
        "response_a",
    )


def _given_id(value: Any, column: str = "id") -> str | None:
    if isinstance(value, str):
        if not value:
            raise _Fault("is empty, expected a text that no other row has, or null", column)
        return value
    if value is None or value != value:
        return None
    if type(value) is int:
        return str(value)
    raise _Fault(f"is {described(value)}, expected a text that no other row has", column)


def _messages(value: Any, column: str, expected: str) -> tuple[Turn, ...]:
    if not isinstance(value, list | tuple):
        raise _Fault(f"is {described(value)}, expected {expected}", column)
    if not value:
        raise _Fault(f"is an empty list, expected {expected}", column)
    return tuple(_message(each, column, number) for number, each in enumerate(value, 1))


def _message(value: Any, column: str, number: int) -> Turn:
    if not isinstance(value, Mapping) or "role" not in value or "content" not in value:
        raise _Fault(f"message {number} is {described(value)}, expected {{role, content}}", column)
    role, content = value["role"], value["content"]
    if role not in ROLES:
        raise _Fault(f"message {number} has the role {role!r}, expected one of {', '.join(ROLES)}", column)
    if not isinstance(content, str):
        raise _Fault(f"message {number} has {described(content)} for content, expected a text", column)
    return Turn(role, content)


def _response(value: Any, column: str) -> str:
    """The text of a response given as text, as an assistant message, or as a list with just that."""
    if isinstance(value, str):
        return value
    messages = _messages([value] if isinstance(value, Mapping) else value, column, _TEXT_OR_MESSAGE)
    if len(messages) > 1 or messages[0].role != "assistant":
        roles = ", ".join(turn.role for turn in messages)
        raise _Fault(f"holds messages of {roles}, expected one assistant message", column)
    return messages[0].content


def _ranked_pair(
    prompt: tuple[Turn, ...] | None, is_conversational: bool, chosen: Any, rejected: Any, plan: _Plan
) -> tuple[tuple[Turn, ...], bool, str, str]:
    """Prompt, whether it is a conversation, chosen and rejected; a prompt inside the two is taken out of them."""
    sides = []
    for value, cell in ((chosen, plan.first), (rejected, plan.second)):
        if isinstance(value, str):
            turns = (Turn("assistant", value),) if prompt is not None else _transcript(value, cell.path)
        else:
            turns = _messages([value] if isinstance(value, Mapping) else value, cell.path, _TEXT_OR_MESSAGES)
        if turns[-1].role != "assistant":
            raise _Fault(f"ends with a message of {turns[-1].role}, expected one of assistant", cell.path)
        sides.append(turns)
    before, other = sides[0][:-1], sides[1][:-1]
    if before != other:
        raise _Fault(f"begins with other messages than {plan.first.path!r}, expected the same prompt", plan.second.path)
    responses = sides[0][-1].content, sides[1][-1].content
    if prompt is None:
        if not before:
            raise _Fault(
                f"holds no prompt and the row has no column 'prompt'; expected {_TEXT_OR_MESSAGES}", plan.first.path
            )
        return before, True, *responses
    if not before or before == prompt:
        return prompt, is_conversational, *responses
    if not is_conversational and before[-1] == prompt[0]:  # the text prompt is the last of several messages
        return before, True, *responses
    raise _Fault("begins with other messages than 'prompt', expected the same, or the response alone", plan.first.path)


def _transcript(text: str, column: str) -> tuple[Turn, ...]:
    r"""Split an HH-style transcript ("\n\nHuman: ...\n\nAssistant: ...") into turns."""
    parts = _TRANSCRIPT_MARK.split(text if text.startswith("\n\n") else f"\n\n{text.lstrip()}")
    if len(parts) < 3 or parts[0].strip():
        raise _Fault(
            "is a text without a prompt in it and the row has no column 'prompt'; "
            r"expected a transcript that begins with '\n\nHuman:'",
            column,
        )
    # What stands around a turn is layout: one space after the colon; a response keeps its own outer whitespace.
    return tuple(
        Turn(_SPEAKERS[speaker], said.removeprefix(" ")) for speaker, said in zip(parts[1::2], parts[2::2], strict=True)
    )


def _votes_and_label(row: Mapping[str, Any], plan: _Plan) -> tuple[tuple[Verdict, ...], Verdict | None]:
    votes: tuple[Verdict, ...] = ()
    if plan.votes is not None:
        raw = plan.votes.of(row)
        if raw:
            votes = _votes(raw, plan.votes.path)
    if votes:
        return votes, plurality(votes)
    if plan.label is None:
        return votes, None
    raw = plan.label.of(row)
    if raw is None or raw == "" or raw != raw:
        return votes, None
    return votes, _verdict(raw, plan.label.path)


def _votes(raw: Any, column: str) -> tuple[Verdict, ...]:
    if isinstance(raw, str):  # CSV has no lists
        try:
            raw = orjson.loads(raw)
        except orjson.JSONDecodeError:
            raw = [vote.strip() for vote in raw.split(",")]
        if raw == []:
            return ()
    if isinstance(raw, float) and raw != raw:
        return ()
    if not isinstance(raw, list | tuple):
        raise _Fault(f"is {described(raw)}, expected a list of {_VERDICT_WORDS}", column)
    return tuple(_verdict(vote, column) for vote in raw)


def _verdict(value: Any, column: str) -> Verdict:
    # True equals 1, and a list cannot be looked up.
    if type(value) in (str, int, float) and value in _VERDICTS:
        return _VERDICTS[value]
    raise _Fault(f"holds {described(value)}, expected {_VERDICT_WORDS}", column)


def plurality(votes: Iterable[Verdict]) -> Verdict | None:
    """The verdict that more votes name than any other; None when two share the lead, which is not a tie.

    >>> plurality([Verdict.A, Verdict.A, Verdict.TIE])
    <Verdict.A: 'a'>
    >>> plurality([Verdict.A, Verdict.B]) is None
    True
    """
    leaders = Counter(votes).most_common(2)
    if not leaders or (len(leaders) == 2 and leaders[0][1] == leaders[1][1]):
        return None
    return leaders[0][0]


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

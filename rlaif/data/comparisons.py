"""What the columns of a comparison mean: two responses or chosen and rejected, transcripts, people's votes. Pure:
values in, a `Comparison` or an `InputError` out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from typing import Any, ClassVar

import orjson

from rlaif.data.aux_rewards import followed_aux
from rlaif.data.columns import (
    TEXT_OR_MESSAGES,
    Cell,
    Plan,
    RowFault,
    RowReader,
    described,
    find_cell,
    find_prompt,
    messages_of,
    missing_prompt,
    other_columns,
    prompt_of,
    response_of,
)
from rlaif.randomness import seeded_random
from rlaif.records import Comparison, Turn, Verdict

RESPONSE_PAIRS = (("response_1", "response_2"), ("output_1", "output_2"), ("completion_a", "completion_b"))

_VERDICTS: dict[object, Verdict] = {
    "a": Verdict.A, 1: Verdict.A, "1": Verdict.A, "1.0": Verdict.A,
    "b": Verdict.B, 2: Verdict.B, "2": Verdict.B, "2.0": Verdict.B,
    "tie": Verdict.TIE, 0: Verdict.TIE, "0": Verdict.TIE, "0.0": Verdict.TIE,
}  # fmt: skip
VERDICT_WORDS = "'a', 'b' or 'tie' (or 1, 2, 0)"
SPEAKERS = {"Human": "user", "Assistant": "assistant"}
TRANSCRIPT_MARK = re.compile(r"\n\n(Human|Assistant):")
"""What begins a turn of an HH-style transcript."""


@dataclass(frozen=True, slots=True)
class ComparisonPlan(Plan):
    """Which columns of a comparison mean what; `is_ranked`: the two are chosen and rejected."""

    first: Cell
    second: Cell
    is_ranked: bool
    votes: Cell | None
    label: Cell | None


@dataclass
class ComparisonReader(RowReader[Comparison, ComparisonPlan]):
    """Reads comparisons; the seed draws which of chosen and rejected becomes A, and their auxiliary rewards follow."""

    our_columns: ClassVar[tuple[str, ...]] = (
        "id", "prompt", "response_a", "response_b", "chosen", "rejected", "human_votes", "human_label",
    )  # fmt: skip
    expected = "one comparison a row"

    _has_votes: bool = field(default=False, init=False)
    _has_labels: bool = field(default=False, init=False)

    @property
    def facts(self) -> dict[str, bool]:
        return {"has_human_votes": self._has_votes, "has_human_labels": self._has_labels}

    def is_ranked(self, row: Mapping[str, Any]) -> bool:
        """Whether a row that can be read brings its responses as chosen and rejected."""
        return self._plan_of(tuple(row)).is_ranked

    def _plan(self, keys: tuple[str, ...]) -> ComparisonPlan:
        present = set(keys)
        first, second, is_ranked = _response_cells(present, self.columns)
        prompt = find_prompt(keys, self.columns)
        if prompt is None and not is_ranked:
            raise missing_prompt(keys)
        votes = label = None
        if not is_ranked:
            votes = find_cell("human_votes", (), present, self.columns)
            label = find_cell("human_label", (), present, self.columns)
        identity = find_cell("id", (), present, self.columns)
        self._has_votes |= votes is not None
        self._has_labels |= is_ranked or votes is not None or label is not None
        return ComparisonPlan(
            id=identity,
            prompt=prompt,
            extras=other_columns(keys, (identity, prompt, first, second, votes, label)),
            first=first,
            second=second,
            is_ranked=is_ranked,
            votes=votes,
            label=label,
        )

    def _record(self, row: Mapping[str, Any], plan: ComparisonPlan, given_id: str | None) -> Comparison:
        first, second = plan.first.of(row), plan.second.of(row)
        prompt: tuple[Turn, ...] | None = None
        is_conversational = False
        if plan.prompt is not None:
            prompt, is_conversational = prompt_of(plan.prompt.of(row), plan.prompt.path)
        if plan.is_ranked:
            pair = ranked_pair(prompt, first, second, plan.first, plan.second, is_conversational=is_conversational)
            prompt, is_conversational, first, second = pair
        else:
            first = response_of(first, plan.first.path)
            second = response_of(second, plan.second.path)
        assert prompt is not None  # without a prompt column, only a ranked pair passes `_plan`
        row_id = given_id
        if row_id is None:
            kind = "chosen" if plan.is_ranked else "a"
            row_id = self._made_id([kind, [list(turn) for turn in prompt], first, second])
        votes, label = _votes_and_label(row, plan)
        extra = {column: row[column] for column in plan.extras}
        if plan.is_ranked:
            label = Verdict.A
            if seeded_random(self.seed, row_id, "which of chosen and rejected is A").random() < 0.5:
                first, second, label = second, first, Verdict.B
            extra = followed_aux(extra, is_exchanged=label is Verdict.B)
        return Comparison(
            id=row_id,
            prompt=prompt,
            response_a=first,
            response_b=second,
            human_votes=votes,
            human_label=label,
            extra=extra,
            is_conversational=is_conversational,
        )


def _response_cells(present: Set[str], renames: Mapping[str, str]) -> tuple[Cell, Cell, bool]:
    """The cells of the two responses, and whether they are chosen and rejected."""
    ranked = ("chosen", "rejected")
    for pair in (("response_a", "response_b"), ranked):
        if pair[0] in renames or pair[1] in renames:
            paths = [renames.get(ours, ours) for ours in pair]
            for ours, path in zip(pair, paths, strict=True):
                if ours == path and path not in present:
                    raise RowFault(f"is missing; the row has: {', '.join(sorted(present))}", ours)
            first, second = (Cell(path, path in present) for path in paths)
            return first, second, pair == ranked
    if {"response_a", "response_b"} <= present:
        return Cell("response_a"), Cell("response_b"), False
    found = [pair for pair in (*RESPONSE_PAIRS, ranked) if set(pair) <= present]
    if len(found) > 1:
        choices = " or ".join("/".join(pair) for pair in found)
        hint = f"--columns response_a={found[0][0]},response_b={found[0][1]}"
        raise RowFault(f"could be {choices}; choose with {hint}", "response_a")
    if found:
        return Cell(found[0][0]), Cell(found[0][1]), found[0] == ranked
    for pair in (("response_a", "response_b"), *RESPONSE_PAIRS, ranked):
        for name, other in (pair, pair[::-1]):
            if other in present:
                raise RowFault(f"is missing beside {other!r}; the row has: {', '.join(sorted(present))}", name)
    if "responses" in present:
        raise RowFault(
            "is missing, and response_b too, but there is responses: these are candidates; rlaif generate writes the "
            "pairs of them into the folder comparisons, and rlaif rate rates each",
            "response_a",
        )
    also = ", ".join("/".join(pair) for pair in (*RESPONSE_PAIRS, ranked))
    raise RowFault(
        f"is missing, and response_b too (also taken: {also}); the row has: {', '.join(sorted(present)) or 'nothing'}",
        "response_a",
    )


def ranked_pair(
    prompt: tuple[Turn, ...] | None,
    chosen: Any,
    rejected: Any,
    chosen_cell: Cell,
    rejected_cell: Cell,
    *,
    is_conversational: bool = False,
) -> tuple[tuple[Turn, ...], bool, str, str]:
    """Prompt, whether it is a conversation, chosen and rejected; a prompt inside the two is taken out of them.

    Args:
        prompt: Where the row has one of its own.
        chosen, rejected: What the row holds in the two cells.
        is_conversational: Whether the row's own prompt is a message list.

    Raises:
        RowFault: The two cannot be read, or do not begin with one prompt.
    """
    sides = []
    for value, cell in ((chosen, chosen_cell), (rejected, rejected_cell)):
        if isinstance(value, str):
            turns = (Turn("assistant", value),) if prompt is not None else _transcript(value, cell.path)
        else:
            turns = messages_of([value] if isinstance(value, Mapping) else value, cell.path, TEXT_OR_MESSAGES)
        if turns[-1].role != "assistant":
            raise RowFault(f"ends with a message of {turns[-1].role}, expected one of assistant", cell.path)
        sides.append(turns)
    before, other = sides[0][:-1], sides[1][:-1]
    if before != other:
        reason = f"begins with other messages than {chosen_cell.path!r}, expected the same prompt"
        raise RowFault(reason, rejected_cell.path)
    responses = sides[0][-1].content, sides[1][-1].content
    if prompt is None:
        if not before:
            reason = f"holds no prompt and the row has no column 'prompt'; expected {TEXT_OR_MESSAGES}"
            raise RowFault(reason, chosen_cell.path)
        return before, True, *responses
    if not before or before == prompt:
        return prompt, is_conversational, *responses
    if not is_conversational and before[-1] == prompt[0]:  # the text prompt is the last of several messages
        return before, True, *responses
    raise RowFault(
        "begins with other messages than 'prompt', expected the same, or the response alone", chosen_cell.path
    )


def _transcript(text: str, column: str) -> tuple[Turn, ...]:
    r"""Split an HH-style transcript ("\n\nHuman: ...\n\nAssistant: ...") into turns."""
    parts = TRANSCRIPT_MARK.split(text if text.startswith("\n\n") else f"\n\n{text.lstrip()}")
    if len(parts) < 3 or parts[0].strip():
        raise RowFault(
            "is a text without a prompt in it and the row has no column 'prompt'; "
            r"expected a transcript that begins with '\n\nHuman:'",
            column,
        )
    # What stands around a turn is layout: one space after the colon; a response keeps its own outer whitespace.
    return tuple(
        Turn(SPEAKERS[speaker], said.removeprefix(" ")) for speaker, said in zip(parts[1::2], parts[2::2], strict=True)
    )


def _votes_and_label(row: Mapping[str, Any], plan: ComparisonPlan) -> tuple[tuple[Verdict, ...], Verdict | None]:
    votes: tuple[Verdict, ...] = ()
    if plan.votes is not None:
        raw = plan.votes.of(row)
        if raw:
            votes = votes_of(raw, plan.votes.path)
    if votes:
        return votes, plurality(votes)
    if plan.label is None:
        return votes, None
    raw = plan.label.of(row)
    if raw is None or raw == "" or raw != raw:
        return votes, None
    return votes, verdict_named(raw, plan.label.path)


def votes_of(raw: Any, column: str) -> tuple[Verdict, ...]:
    """The votes of a list, or of its text in a CSV file. Raises `RowFault`."""
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
        raise RowFault(f"is {described(raw)}, expected a list of {VERDICT_WORDS}", column)
    return tuple(verdict_named(vote, column) for vote in raw)


def verdict_named(value: Any, column: str) -> Verdict:
    """What a person's label says, as the contract writes it. Raises `RowFault`."""
    # True equals 1, and a list cannot be looked up.
    if type(value) in (str, int, float) and value in _VERDICTS:
        return _VERDICTS[value]
    raise RowFault(f"holds {described(value)}, expected {VERDICT_WORDS}", column)


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

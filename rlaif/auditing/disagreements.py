"""The rows that a person should look at: where the judge contradicts people, or itself. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntFlag
from typing import Any, NamedTuple

from rlaif.records import TIE_BAND, JudgedComparison, Verdict, verdict_of
from rlaif.visibility import visible

LONGEST_TEXT = 20_000
"""Characters of one text that are shown; a page of books opens slowly and is not read."""


class Kind(IntFlag):
    """What is wrong with a row; several may be.

    CONTRADICTS: Judge and people prefer different responses.
    ONE_TIED: One of them calls it a tie, and the other does not.
    ORDER: The judge's verdict changes with the order.
    """

    CONTRADICTS = 1
    ONE_TIED = 2
    ORDER = 4


class Disagreement(NamedTuple):
    """A row with what is wrong with it.

    Attributes:
        row: The row.
        kinds: At least one.
        judge: The judge's verdict; None where it gave none.
    """

    row: JudgedComparison
    kinds: Kind
    judge: Verdict | None


def disagreements(rows: Sequence[JudgedComparison], tie_band: float = TIE_BAND) -> list[Disagreement]:
    """All rows with something wrong, the worst first.

    First where the judge contradicts people, the surest judge first, and of equally sure ones where most people say
    otherwise; then where it calls a tie that people decided; then where people call one; then where only the order
    changes its verdict, the furthest apart first.
    """
    found = []
    for place, row in enumerate(rows):
        judge = None if row.prob_a is None else verdict_of(row.prob_a, tie_band)
        if kinds := _kinds(row, judge, tie_band):
            found.append((_badness(row, kinds, judge), place, Disagreement(row, kinds, judge)))
    # The place decides between equals: what is wrong must not depend on how rows compare.
    return [each for _, _, each in sorted(found, key=lambda each: each[:2])]


def entry_of(found: Disagreement) -> list[Any]:
    """What a table shows of the row: id, kinds, people's verdict, votes (a, tie, b), judge's verdict, `prob_a`,
    `prob_a_ab`, `prob_a_ba`, characters of A and of B."""
    row, comparison = found.row, found.row.comparison
    votes = [comparison.human_votes.count(verdict) for verdict in (Verdict.A, Verdict.TIE, Verdict.B)]
    return [
        visible(comparison.id),
        int(found.kinds),
        comparison.human_label,
        votes if any(votes) else None,
        found.judge,
        *(_rounded(prob) for prob in (row.prob_a, row.prob_a_ab, row.prob_a_ba)),
        len(comparison.response_a),
        len(comparison.response_b),
    ]


def texts_of(found: Disagreement, cut: int = LONGEST_TEXT) -> dict[str, Any]:
    """What is read once the row is opened: `prompt` (role and text of each turn), `a`, `b`, `reasons` of both orders
    and `judges` of a panel with their probabilities. What is invisible in a text is spelled out."""
    row, comparison = found.row, found.row.comparison
    return {
        "prompt": [[visible(turn.role), _cut(turn.content, cut)] for turn in comparison.prompt],
        "a": _cut(comparison.response_a, cut),
        "b": _cut(comparison.response_b, cut),
        "reasons": [None if text is None else _cut(text, cut) for text in (row.rationale_ab, row.rationale_ba)],
        "judges": [
            [visible(each.name), *map(_rounded, (each.label.prob_a, each.label.prob_a_ab, each.label.prob_a_ba))]
            for each in row.by_judge
        ],
    }


def _kinds(row: JudgedComparison, judge: Verdict | None, tie_band: float) -> Kind:
    kinds = Kind(0)
    human = row.comparison.human_label
    if human is not None and judge is not None and human is not judge:
        kinds |= Kind.ONE_TIED if Verdict.TIE in (human, judge) else Kind.CONTRADICTS
    if row.prob_a_ab is not None and row.prob_a_ba is not None:
        both = verdict_of(row.prob_a_ab, tie_band), verdict_of(row.prob_a_ba, tie_band)
        if both[0] is not both[1]:
            kinds |= Kind.ORDER
    return kinds


def _badness(row: JudgedComparison, kinds: Kind, judge: Verdict | None) -> tuple[float, ...]:
    """Sorts the worst first."""
    human, votes = row.comparison.human_label, row.comparison.human_votes
    sureness = 0.0 if row.prob_a is None else round(abs(row.prob_a - 0.5), 6)
    unanimity = votes.count(human) / len(votes) if votes and human is not None else 0.0
    gap = 0.0 if row.prob_a_ab is None or row.prob_a_ba is None else abs(row.prob_a_ab - row.prob_a_ba)
    if Kind.CONTRADICTS in kinds:
        return (0, -sureness, -unanimity, -gap)
    if Kind.ONE_TIED in kinds:
        return (1 if judge is Verdict.TIE else 2, -unanimity, -sureness, -gap)
    return (3, -gap, -sureness, 0)


def _rounded(prob: float | None) -> float | None:
    return None if prob is None else round(prob, 6)


def _cut(text: str, longest: int) -> str:
    if len(text) <= longest:
        return visible(text)
    return f"{visible(text[:longest])}\n[... {len(text) - longest:,} more characters are not shown here]"

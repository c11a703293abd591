"""Where a judge's answers stand in an input, and what each row's says: columns of recorded answers that somebody named,
or the columns that `rlaif label` writes. Pure: rows in, probabilities or a `RowFault` out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

import orjson

from rlaif.data.columns import RowFault, described
from rlaif.data.recorded import Recorded, RecordedColumn, Scale, missing_column
from rlaif.records import Comparison, NamedLabel, SoftLabel, Verdict

UNKNOWN_ORDER = "the column 'preference' was read by itself; which response was shown first it does not say"


class Answer(NamedTuple):
    """What the judge made of one row; as in `JudgedComparison`."""

    prob_a: float | None
    prob_a_ab: float | None = None
    prob_a_ba: float | None = None
    rationale_ab: str | None = None
    rationale_ba: str | None = None
    by_judge: tuple[NamedLabel, ...] = ()


class AnswerFacts(NamedTuple):
    """How the answers of an input were read.

    Attributes:
        columns: Where they stood.
        scale: What these held, in words.
        unusable: "ab", "ba" or "prob_a" -> rows whose answer there was null.
        absent: "ab" or "ba" -> rows that had none.
        notes: What a person should know of it.
        is_calibrated: The probabilities are not the judge's own any more.
    """

    columns: tuple[str, ...]
    scale: str
    unusable: Mapping[str, int]
    absent: Mapping[str, int]
    notes: tuple[str, ...]
    is_calibrated: bool = False


class Answers(Protocol):
    """Reads a judge's answers out of the rows of one input."""

    def take(self, row: Mapping[str, Any], comparison: Comparison, *, is_ranked: bool) -> Callable[[], Answer]:
        """Take a row; what is returned says the answer, once all rows were taken. Both raise `RowFault`.

        Args:
            row: As the input has it.
            comparison: What was read from it.
            is_ranked: Whether its responses are chosen and rejected.
        """
        ...

    def facts(self) -> AnswerFacts:
        """Of the rows taken. Raises `RowFault` where none has what was asked for."""
        ...


class RecordedAnswers:
    """Answers in columns that somebody named, of one order or of both.

    Args:
        ab, ba: Of the order with A (B) shown first; at least one.
        first: The first few rows, to say what an input has.
        is_order_known: False: the answers of `ab` are not of one order.
    """

    def __init__(
        self,
        ab: RecordedColumn | None,
        ba: RecordedColumn | None,
        *,
        first: Sequence[Mapping[str, Any]],
        is_order_known: bool = True,
    ) -> None:
        self._ab, self._ba = ab, ba
        self._first = first
        self._is_order_known = is_order_known

    def take(self, row: Mapping[str, Any], comparison: Comparison, *, is_ranked: bool) -> Callable[[], Answer]:
        """As `Answers`."""
        # The columns speak of chosen and rejected, as first and second; which of them became A was drawn.
        is_reversed = is_ranked and comparison.human_label is Verdict.B
        ab = self._ab.take(row, is_ranked=is_ranked) if self._ab is not None else None
        ba = self._ba.take(row, is_ranked=is_ranked) if self._ba is not None else None
        return lambda: self._answer(ab, ba, is_reversed)

    def _answer(self, ab: Recorded | None, ba: Recorded | None, is_reversed: bool) -> Answer:
        prob_ab, prob_ba = (
            None if column is None or recorded is None else column.prob_a(recorded)
            for column, recorded in ((self._ab, ab), (self._ba, ba))
        )
        if self._ab is None or self._ba is None:
            prob_a = prob_ab if self._ba is None else prob_ba
        else:
            prob_a = None if prob_ab is None or prob_ba is None else (prob_ab + prob_ba) / 2
        if is_reversed:
            prob_a, prob_ab, prob_ba = (None if prob is None else 1.0 - prob for prob in (prob_a, prob_ba, prob_ab))
        return Answer(prob_a, prob_ab, prob_ba) if self._is_order_known else Answer(prob_a)

    def facts(self) -> AnswerFacts:
        """As `Answers`."""
        columns = {"ab": self._ab, "ba": self._ba}
        given = {order: column for order, column in columns.items() if column is not None}
        for column in given.values():
            if not column.is_found:
                raise RowFault(missing_column(column.column, self._first), column.column)
        notes = [column.note for column in given.values() if column.note]
        return AnswerFacts(
            columns=tuple(column.column for column in given.values()),
            scale="; ".join(dict.fromkeys(column.scale.value for column in given.values())),
            unusable={order: column.nulls for order, column in given.items()},
            absent={order: column.absent for order, column in given.items()},
            notes=tuple(notes if self._is_order_known else [*notes, UNKNOWN_ORDER]),
        )


class LabelAnswers:
    """Answers in the columns that `rlaif label` writes; all but `prob_a` may be missing."""

    def __init__(self) -> None:
        self._nulls = 0
        self._is_calibrated = False

    def take(self, row: Mapping[str, Any], comparison: Comparison, *, is_ranked: bool) -> Callable[[], Answer]:
        """As `Answers`."""
        if is_ranked and row.get("prob_a") is not None:
            raise RowFault(
                "stands beside chosen and rejected, and which of them it calls A is not said; expected columns "
                "response_a and response_b, or name them with --columns response_a=chosen,response_b=rejected",
                "prob_a",
            )
        prob_a, ab, ba = (probability_of(row.get(column), column) for column in ("prob_a", "prob_a_ab", "prob_a_ba"))
        rationales = [_rationale(row.get(column), column) for column in ("rationale_ab", "rationale_ba")]
        answer = Answer(prob_a, ab, ba, rationales[0], rationales[1], _by_judge(row.get("by_judge")))
        self._nulls += prob_a is None
        # a clamped label keeps raw_prob_a alone: its orders are the judge's own
        self._is_calibrated |= any(row.get(f"raw_{column}") is not None for column in ("prob_a_ab", "prob_a_ba"))
        return lambda: answer

    def facts(self) -> AnswerFacts:
        """As `Answers`."""
        unusable = {"prob_a": self._nulls}
        return AnswerFacts(("prob_a",), Scale.PROBABILITY.value, unusable, {}, (), self._is_calibrated)


def probability_of(value: Any, column: str, expected: str = "a probability from 0 to 1, or null") -> float | None:
    """A number from 0 to 1, or the text of one; None for null. Raises `RowFault`, which says what was `expected`."""
    if _is_null(value):
        return None
    number = math.nan
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = math.nan
    if not 0.0 <= number <= 1.0:
        raise RowFault(f"is {described(value)}, expected {expected}", column)
    return number


def _is_null(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _rationale(value: Any, column: str) -> str | None:
    if _is_null(value):
        return None
    if not isinstance(value, str):
        raise RowFault(f"is {described(value)}, expected a text, or null", column)
    return value


def _by_judge(value: Any) -> tuple[NamedLabel, ...]:
    """The labels of a panel's judges, each with a name and probabilities, from a list or its JSON text."""
    if _is_null(value):
        return ()
    if isinstance(value, str):
        with suppress(orjson.JSONDecodeError):
            value = orjson.loads(value)
    expected = "a list of {name, prob_a, prob_a_ab, prob_a_ba}"
    if not isinstance(value, list | tuple):
        raise RowFault(f"is {described(value)}, expected {expected}", "by_judge")
    labels = []
    for each in value:
        if not isinstance(each, Mapping) or not isinstance(each.get("name"), str):
            raise RowFault(f"holds {described(each)}, expected {expected}", "by_judge")
        prob_a, ab, ba = (probability_of(each.get(name), "by_judge") for name in ("prob_a", "prob_a_ab", "prob_a_ba"))
        if prob_a is not None:
            labels.append(NamedLabel(each["name"], SoftLabel(prob_a, ab, ba)))
    return tuple(labels)

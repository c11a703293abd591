"""People's labels out of a file of their own, joined to an audit's rows by id: one row an item, or one a person."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from rlaif.data.columns import RowFault, described, given_id_of
from rlaif.data.comparisons import plurality, verdict_named, votes_of
from rlaif.data.files import RowSource, open_source
from rlaif.data.judged import sampling_prob_of
from rlaif.errors import InputError
from rlaif.records import JudgedComparison, Verdict

_SHOWN = (("response_1", "response_2"), ("response_a", "response_b"))
_FLAGS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False, "": False}
# Spreadsheets save true and false in the language of their user: German, French, Spanish, Italian, Portuguese, Dutch.
_FLAGS |= dict.fromkeys(("wahr", "vrai", "verdadero", "vero", "verdadeiro", "waar"), True)
_FLAGS |= dict.fromkeys(("falsch", "faux", "falso", "onwaar"), False)
_FORMULA_STARTS = ("'=", "'+", "'-", "'@", "'\t", "'\r")
"""How a text begins that was kept from being a formula in a spreadsheet."""

_EXCHANGED = {Verdict.A: Verdict.B, Verdict.B: Verdict.A, Verdict.TIE: Verdict.TIE}


class _Said(NamedTuple):
    """What one row of the file says.

    Attributes:
        votes: As the row names the responses; of a label, one.
        is_swapped: Whether the row says that its first response is B.
        shown: Digests of the two responses as they were shown; None where the row has not both.
        is_votes: Whether it came as `human_votes`.
    """

    votes: tuple[Verdict, ...]
    is_swapped: bool
    shown: tuple[bytes, bytes] | None
    is_votes: bool


@dataclass(frozen=True)
class HumanLabels:
    """The labels of a file.

    Attributes:
        name: What messages call the file.
        said: Id -> its rows that hold a label.
        sampling_probs: Id -> probability with which the row was drawn, where the file says it.
        unlabelled: Rows without a label: not annotated yet.
    """

    name: str
    said: Mapping[str, Sequence[_Said]]
    sampling_probs: Mapping[str, float]
    unlabelled: int


class Joined(NamedTuple):
    """Rows with the labels of a file in place of their own.

    Attributes:
        rows: As many as before.
        labelled: How many of them the file has a label for.
        unknown_ids: Ids in the file that no row has.
    """

    rows: tuple[JudgedComparison, ...]
    labelled: int
    unknown_ids: int


def read_human_labels(source: object) -> HumanLabels:
    """Read labels: rows of `id` with `human_label` or `human_votes`.

    Several rows of one id are several people. `is_swapped` true says that 1 (or a) names response B, and
    `sampling_prob` with what probability the row was drawn, as `rlaif audit --suggest` writes them.

    Args:
        source: As in `rlaif.data.files.open_source`.

    Raises:
        InputError: A row cannot be read, or no row has a label.
    """
    rows = source if isinstance(source, RowSource) else open_source(source)
    said: dict[str, list[_Said]] = defaultdict(list)
    probs: dict[str, float] = {}
    unlabelled = 0
    for line, values in rows.read():
        if isinstance(values, InputError):
            raise values
        if all(value is None or value == "" for value in values.values()):
            continue  # spreadsheets write empty rows behind the last one
        try:
            row_id = given_id_of(values.get("id"))
            if row_id is None:
                raise RowFault(f"is missing; the row has: {', '.join(values)}", "id")
            read = _said(values)
            prob = sampling_prob_of(_with_point(values.get("sampling_prob")))
            if prob is not None and probs.setdefault(row_id, prob) != prob:
                reason = f"is {prob:g} here and {probs[row_id]:g} in another row of {row_id!r}, expected the same"
                raise RowFault(reason, "sampling_prob")
        except RowFault as fault:
            raise InputError(fault.reason, path=rows.name, line=line, column=fault.column) from None
        if read is None:
            unlabelled += 1
        else:
            said[row_id].append(read)
    if not said:
        state = f"{unlabelled} rows without one" if unlabelled else "no rows"
        raise InputError(f"holds {state}, expected rows with a human label", path=rows.name, column="human_label")
    return HumanLabels(rows.name, said, probs, unlabelled)


def with_human_labels(rows: Sequence[JudgedComparison], labels: HumanLabels) -> Joined:
    """Put the labels in place of the rows' own; a row that the file has no label for loses its own.

    Where the file shows the responses, they decide which of them a label names: a draw of chosen and rejected with
    another seed cannot turn labels around.

    Raises:
        InputError: No row has an id of the file.
    """
    known = dict.fromkeys(row.comparison.id for row in rows)
    labels = _with_known_ids(labels, known)
    unknown = Counter(row_id in known for row_id in labels.said)[False]
    if unknown == len(labels.said):
        example, other = next(iter(labels.said)), next(iter(known), "")
        reason = f"none of its {unknown} ids is in the input (here {example!r}, there {other!r}), expected the same ids"
        raise InputError(reason, path=labels.name, column="id")
    joined = tuple(_joined(row, labels) for row in rows)
    return Joined(joined, len(labels.said) - unknown, unknown)


def _with_known_ids(labels: HumanLabels, known: Container[str]) -> HumanLabels:
    """With the ids as the input has them, where a spreadsheet's apostrophe is before them."""

    def plain(row_id: str) -> str:
        return row_id if row_id in known else _without_apostrophe(row_id)

    said = {plain(row_id): rows for row_id, rows in labels.said.items()}
    return replace(labels, said=said, sampling_probs={plain(i): prob for i, prob in labels.sampling_probs.items()})


def _without_apostrophe(text: str) -> str:
    return text[1:] if text.startswith(_FORMULA_STARTS) else text


def _said(row: Mapping[str, Any]) -> _Said | None:
    """What a row says; None where it holds no label."""
    if "human_label" not in row and "human_votes" not in row:
        raise RowFault(f"is missing, and human_votes too; the row has: {', '.join(row)}", "human_label")
    votes, label = row.get("human_votes"), row.get("human_label")
    found: tuple[Verdict, ...] = ()
    if votes is not None and votes != "" and votes == votes:
        found = votes_of(votes, "human_votes")
    is_votes = bool(found)
    if not found:
        if isinstance(label, str):  # people type labels into spreadsheets
            label = label.strip().casefold()
        if label is None or label == "" or label != label:
            return None
        found = (verdict_named(label, "human_label"),)
    return _Said(found, _flag(row.get("is_swapped"), "is_swapped"), _shown(row), is_votes)


def _with_point(number: Any) -> Any:
    """A number as most of Europe's spreadsheets write it, 0,25, as 0.25."""
    return number.replace(",", ".") if isinstance(number, str) and number.count(",") == 1 else number


def _flag(value: Any, column: str) -> bool:
    if value is None or value != value:
        return False
    found = _FLAGS.get(str(value).strip().casefold())
    if found is None:
        raise RowFault(f"is {described(value)}, expected true or false", column)
    return found


def _shown(row: Mapping[str, Any]) -> tuple[bytes, bytes] | None:
    for names in _SHOWN:
        first, second = (row.get(name) for name in names)
        if isinstance(first, str) and isinstance(second, str):
            return _digest(first), _digest(second)
    return None


def _digest(text: str) -> bytes:
    # Spreadsheets rewrite line ends; half a surrogate pair was written as a question mark.
    lines = "\n".join(_without_apostrophe(text).splitlines()).strip()
    return hashlib.sha256(lines.encode("utf-8", "replace")).digest()[:16]


def _joined(row: JudgedComparison, labels: HumanLabels) -> JudgedComparison:
    comparison = row.comparison
    said = labels.said.get(comparison.id, ())
    mine = (
        (_digest(comparison.response_a), _digest(comparison.response_b)) if any(each.shown for each in said) else None
    )
    votes: list[Verdict] = []
    for each in said:
        is_swapped = each.is_swapped
        if mine is not None and each.shown in (mine, mine[::-1]) and mine[0] != mine[1]:
            is_swapped = each.shown != mine
        votes += [_EXCHANGED[vote] for vote in each.votes] if is_swapped else each.votes
    # One label alone may be a majority already; it says nothing of how people agree.
    is_label = len(said) == 1 and not said[0].is_votes
    return replace(
        row,
        comparison=replace(comparison, human_votes=() if is_label else tuple(votes), human_label=plurality(votes)),
        sampling_prob=labels.sampling_probs.get(comparison.id) if labels.sampling_probs else row.sampling_prob,
    )

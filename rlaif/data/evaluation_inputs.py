"""What two policies wrote, joined: rows of responses to comparisons of A's response with B's to the same prompt. Who is
without a partner is named, never left out unsaid. Pure but for the reading of files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from rlaif.data.columns import RowFault
from rlaif.data.comparisons import plurality, verdict_named, votes_of
from rlaif.data.evaluated import OWN_COLUMNS
from rlaif.data.files import RowSource, open_source
from rlaif.data.schema import ColumnTypes
from rlaif.data.sources import InputSummary, ReadOptions, input_failure, read_candidates, scan_candidates
from rlaif.errors import InputError
from rlaif.records import Candidates, Comparison, Failure, Turn, Verdict

_OF_GENERATION = ("policies", "finish_reasons", "seeds", "dropped")
"""Columns of `rlaif generate` that tell of all candidates of a prompt; a comparison has two of them."""

_PEOPLE = ("human_votes", "human_label")
_SHOWN_CHARACTERS = 60


@dataclass(frozen=True, slots=True)
class SideResponse:
    """One response of one policy.

    Attributes:
        id: Of its row; with its place behind a slash where the row holds several.
        prompt: What it answers.
        text: The response; the empty string is valid.
        finish_reason: Why it ends, where the input tells.
        votes, label: What people said of A's response against B's, where the row holds that.
        extra: The row's other columns.
        is_conversational: Whether the input gave the prompt as a message list.
    """

    id: str
    prompt: tuple[Turn, ...]
    text: str
    finish_reason: str | None = None
    votes: tuple[Verdict, ...] = ()
    label: Verdict | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    is_conversational: bool = False


@dataclass(frozen=True, slots=True)
class Side:
    """The responses of one policy.

    Attributes:
        name: What messages call them.
        responses: In the order of the input.
        failures: Rows that cannot be read, where they are skipped; prompts that the policy failed on.
        content_sha256: Of the input's content.
    """

    name: str
    responses: tuple[SideResponse, ...]
    failures: tuple[Failure, ...] = ()
    content_sha256: str = ""


class Joined(NamedTuple):
    """The responses of two sides, side by side.

    Attributes:
        comparisons: Response A is A's, response B is B's; in the order of A.
        finish_reasons: Of both, for each comparison.
        unpaired: Responses without a partner.
    """

    comparisons: tuple[Comparison, ...]
    finish_reasons: tuple[tuple[str | None, str | None], ...]
    unpaired: tuple[Failure, ...]


def read_side(source: object, options: ReadOptions, *, name: str | None = None) -> Side:
    """The responses of a file or run folder: rows of `prompt` and `response`, or of `prompt` and `responses`.

    Args:
        source: As in `rlaif.data.files.open_source`.
        options: How it is read.
        name: What messages call it; None for the source's own name.

    Raises:
        InputError: A row cannot be read and bad rows are not skipped.
    """
    rows = source if isinstance(source, RowSource) else open_source(source)
    summary = scan_candidates(rows, options)
    read = read_candidates(rows, options, summary=summary)
    responses = tuple(each for candidates in read for each in _responses_of(candidates, rows.name))
    return Side(name or rows.name, responses, summary.failures, summary.content_sha256)


def join_sides(a: Side, b: Side) -> Joined:
    """Pair the responses of two sides.

    Those to the same prompt are paired: first by their ids, then in the order in which they stand. Labels of people are
    A's row's, or else B's.

    Args:
        a, b: Whose responses become A (B).
    """
    of_a, of_b = _by_prompt(a.responses), _by_prompt(b.responses)
    partners: dict[int, int] = {}
    for prompt, places in of_a.items():
        partners.update(_paired(places, of_b.get(prompt, []), a.responses, b.responses))
    pairs = [(a.responses[one], b.responses[partners[one]]) for one in range(len(a.responses)) if one in partners]
    taken = set(partners.values())
    unpaired = [
        *(_unpaired(each, a, b) for place, each in enumerate(a.responses) if place not in partners),
        *(_unpaired(each, b, a) for place, each in enumerate(b.responses) if place not in taken),
    ]
    return Joined(
        tuple(_comparisons(pairs)),
        tuple((one.finish_reason, other.finish_reason) for one, other in pairs),
        tuple(unpaired),
    )


def check_common(a: Side, b: Side) -> None:
    """Make sure that two sides answer a prompt in common.

    Raises:
        InputError: They do not; shows a prompt of each.
    """
    if not a.responses or not b.responses or not _by_prompt(a.responses).keys().isdisjoint(_by_prompt(b.responses)):
        return
    here, there = (_shown(side.responses[0].prompt) for side in (b, a))
    reason = f"answers none of the prompts of {a.name} (here {here}, there {there}), expected the same prompts"
    raise InputError(reason, path=b.name, column="prompt")


def summary_of(joined: Joined, name: str, content_sha256: str) -> InputSummary:
    """What a scan would have found in the comparisons, which fixes their schema.

    Args:
        joined: With them.
        name: What messages call them.
        content_sha256: Of what they are made of.
    """
    types = ColumnTypes()
    for each in joined.comparisons:
        types.update(each.extra)
    return InputSummary(
        source=name,
        rows=len(joined.comparisons),
        failures=joined.unpaired,
        content_sha256=content_sha256,
        is_conversational=any(each.is_conversational for each in joined.comparisons),
        extras=types.types,
        repeated_ids={},
        has_human_votes=any(each.human_votes for each in joined.comparisons),
        has_human_labels=any(each.human_label is not None for each in joined.comparisons),
    )


def _responses_of(candidates: Candidates, name: str) -> Iterable[SideResponse]:
    extra = dict(candidates.extra)
    try:
        votes, label = _people_of(extra)
    except RowFault as fault:
        reason = f"row {candidates.id!r} {fault.reason}"
        raise InputError(reason, path=name, column=fault.column) from None
    reasons = extra.get("finish_reasons")
    known = reasons if isinstance(reasons, list | tuple) and len(reasons) == len(candidates.responses) else None
    if extra.keys() >= set(_OF_GENERATION):
        extra = {column: value for column, value in extra.items() if column not in _OF_GENERATION}
    for place, text in enumerate(candidates.responses):
        yield SideResponse(
            id=candidates.id if len(candidates.responses) == 1 else f"{candidates.id}/{place}",
            prompt=candidates.prompt,
            text=text,
            finish_reason=known[place] if known is not None and isinstance(known[place], str) else None,
            votes=votes,
            label=label,
            extra=extra,
            is_conversational=candidates.is_conversational,
        )


def _people_of(extra: dict[str, Any]) -> tuple[tuple[Verdict, ...], Verdict | None]:
    """The human votes and label among a row's columns, which are taken out. Raises `RowFault`."""
    votes, label = (extra.pop(column, None) for column in _PEOPLE)
    if votes is not None and votes != "" and votes == votes and (found := votes_of(votes, _PEOPLE[0])):
        return found, plurality(found)
    if label is None or label == "" or label != label:
        return (), None
    return (), verdict_named(label, _PEOPLE[1])


def _by_prompt(responses: Sequence[SideResponse]) -> dict[tuple[Turn, ...], list[int]]:
    places: dict[tuple[Turn, ...], list[int]] = defaultdict(list)
    for place, each in enumerate(responses):
        places[each.prompt].append(place)
    return places


def _paired(
    places: Sequence[int], others: Sequence[int], a: Sequence[SideResponse], b: Sequence[SideResponse]
) -> dict[int, int]:
    """Places of A's responses to a prompt -> those of B's: by id, and the rest in their order."""
    by_id = {b[other].id: other for other in others}
    pairs = {place: by_id[a[place].id] for place in places if a[place].id in by_id}
    used = set(pairs.values())
    left = [place for place in places if place not in pairs]
    pairs.update(zip(left, (other for other in others if other not in used), strict=False))
    return pairs


def _unpaired(response: SideResponse, side: Side, other: Side) -> Failure:
    reason = f"response {response.id!r} has no partner: {other.name} has no (other) response to its prompt"
    return input_failure(response.id, InputError(reason, path=side.name))


def _comparisons(pairs: Sequence[tuple[SideResponse, SideResponse]]) -> Iterable[Comparison]:
    names = _names_of_other_columns(pairs)
    for one, other in pairs:
        has_own = one.votes or one.label is not None
        columns = {name: one.extra[name] for name in one.extra}
        columns |= {names[name]: value for name, value in other.extra.items() if name in names}
        yield Comparison(
            id=one.id,
            prompt=one.prompt,
            response_a=one.text,
            response_b=other.text,
            human_votes=one.votes if has_own else other.votes,
            human_label=one.label if has_own else other.label,
            extra={f"input_{name}" if name in OWN_COLUMNS else name: value for name, value in columns.items()},
            is_conversational=one.is_conversational,
        )


def _names_of_other_columns(pairs: Sequence[tuple[SideResponse, SideResponse]]) -> dict[str, str]:
    """What B's columns are called beside A's: as they are, or `b_NAME` where A has another value under that name; a
    column that is the same in both stands once."""
    of_a = {name for one, _ in pairs for name in one.extra}
    names: dict[str, str] = {}
    for name in dict.fromkeys(name for _, other in pairs for name in other.extra):
        if name not in of_a:
            names[name] = name
        elif any(one.extra.get(name) != other.extra.get(name) for one, other in pairs):
            names[name] = f"b_{name}"
            while names[name] in of_a:
                names[name] = f"b_{names[name]}"
    return names


def _shown(prompt: Sequence[Turn]) -> str:
    text = prompt[-1].content
    return repr(text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}...")

"""Ratings of responses to rows of the dataset: one row in, one row out. Pure; `shards.py` writes them.

A row of one response has its rating (of a reward model its reward alone); a row of candidates has lists in the order of
its responses. Then come the user's own columns. One schema is made from the scan of the input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlaif.data.schema import UserColumn, name_user_columns, prompt_type, prompt_value, user_fields, user_values
from rlaif.data.sources import InputSummary
from rlaif.records import Candidates, NamedRating, Rating

if TYPE_CHECKING:
    import pyarrow as pa

RatingRow = dict[str, Any]

_PLURALS = {
    "response": "responses",
    "rating": "ratings",
    "reward": "rewards",
    "rating_probs": "rating_probs",
    "label_mass": "label_masses",
    "is_bounded": "is_bounded",
    "rationale": "rationales",
    "by_principle": "by_principle",
    "by_judge": "by_judge",
    "unreadable_samples": "unreadable_samples",
}
"""Columns with a value a response: their name in a row of one response, and in a row of candidates."""

OUR_COLUMNS = ("id", "prompt", "missing_judges", *dict.fromkeys((*_PLURALS, *_PLURALS.values())))
"""Names that a user's column cannot keep: it becomes `input_NAME`, whether or not this run writes ours."""


@dataclass(frozen=True, slots=True)
class RatingSchema:
    """Which columns a run's rows have.

    Attributes:
        is_single: Rows hold one response, and values instead of lists.
        is_conversational: Prompts are message lists.
        has_rationales: `rationale` is there (`--cot`).
        has_principles, has_judges: `by_principle` and `by_judge` are there (several of them).
        has_sampled_principle: `principle` is there (`--principles sample`).
        allows_partial_panel: `missing_judges` is there (`--allow-partial-panel`).
        is_sampled: `unreadable_samples` is there (`--scoring sample`).
        extras: The input's other columns.
    """

    is_single: bool = True
    is_conversational: bool = False
    has_rationales: bool = False
    has_principles: bool = False
    has_judges: bool = False
    has_sampled_principle: bool = False
    allows_partial_panel: bool = False
    is_sampled: bool = False
    extras: tuple[UserColumn, ...] = ()


def rating_schema(
    summary: InputSummary,
    *,
    has_rationales: bool = False,
    has_principles: bool = False,
    has_judges: bool = False,
    has_sampled_principle: bool = False,
    allows_partial_panel: bool = False,
    is_sampled: bool = False,
) -> RatingSchema:
    """The schema of a run over the scanned input; the flags are `RatingSchema`'s."""
    reserved = {*OUR_COLUMNS, "principle"} if has_sampled_principle else set(OUR_COLUMNS)
    return RatingSchema(
        is_single=summary.is_single,
        is_conversational=summary.is_conversational,
        has_rationales=has_rationales,
        has_principles=has_principles,
        has_judges=has_judges,
        has_sampled_principle=has_sampled_principle,
        allows_partial_panel=allows_partial_panel,
        is_sampled=is_sampled,
        extras=name_user_columns(summary.extras, reserved),
    )


def to_rating_row(candidates: Candidates, ratings: Sequence[Rating], schema: RatingSchema) -> RatingRow:
    """One row of the dataset.

    Args:
        candidates: What was rated.
        ratings: One for each response, in their order.
        schema: The run's.

    Returns:
        A value for every column of the schema, in its order.
    """
    values = [
        {"response": response, **_values(rating, schema)}
        for response, rating in zip(candidates.responses, ratings, strict=True)
    ]
    row: RatingRow = {
        "id": candidates.id,
        "prompt": prompt_value(candidates.prompt, is_conversational=schema.is_conversational),
    }
    if schema.is_single:
        (only,) = values
        row.update(only)
    else:
        row.update({_PLURALS[name]: [each[name] for each in values] for name in values[0]})
    if schema.has_sampled_principle:
        row["principle"] = ratings[0].sampled_principle  # drawn for the row
    if schema.allows_partial_panel:
        row["missing_judges"] = list(dict.fromkeys(name for rating in ratings for name in rating.missing_judges))
    row.update(user_values(candidates.extra, schema.extras))
    return row


def _values(rating: Rating, schema: RatingSchema) -> dict[str, Any]:
    values: dict[str, Any] = {
        "rating": rating.rating,
        "reward": rating.reward,
        "rating_probs": None if rating.probs is None else list(rating.probs),
        "label_mass": rating.label_mass,
        "is_bounded": rating.is_bounded,
    }
    if schema.has_rationales:
        values["rationale"] = rating.rationale
    if schema.has_principles:
        values["by_principle"] = [_named(each) for each in rating.by_principle]
    if schema.has_judges:
        values["by_judge"] = [_named(each) for each in rating.by_judge]
    if schema.is_sampled:
        values["unreadable_samples"] = rating.unreadable_samples
    return values


def _named(each: NamedRating) -> dict[str, Any]:
    return {"name": each.name, "rating": each.rating, "rating_probs": list(each.probs)}


def arrow_schema(schema: RatingSchema) -> pa.Schema:
    """The Arrow schema of all shards of a run."""
    import pyarrow as pa

    text, number, flag = pa.string(), pa.float64(), pa.bool_()
    probs = pa.list_(number)
    named = pa.list_(pa.struct([("name", text), ("rating", number), ("rating_probs", probs)]))
    of_response: list[tuple[str, Any]] = [
        ("response", text),
        ("rating", number),
        ("reward", number),
        ("rating_probs", probs),
        ("label_mass", number),
        ("is_bounded", flag),
    ]
    if schema.has_rationales:
        of_response.append(("rationale", text))
    if schema.has_principles:
        of_response.append(("by_principle", named))
    if schema.has_judges:
        of_response.append(("by_judge", named))
    if schema.is_sampled:
        of_response.append(("unreadable_samples", pa.int64()))
    if not schema.is_single:
        of_response = [(_PLURALS[name], pa.list_(type_)) for name, type_ in of_response]
    of_row: list[tuple[str, Any]] = []
    if schema.has_sampled_principle:
        of_row.append(("principle", text))
    if schema.allows_partial_panel:
        of_row.append(("missing_judges", pa.list_(text)))
    prompts = prompt_type(is_conversational=schema.is_conversational)
    return pa.schema([("id", text), ("prompt", prompts), *of_response, *of_row, *user_fields(schema.extras)])

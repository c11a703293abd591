"""Judgments of comparisons to rows of the dataset. Pure; `shards.py` writes them.

The columns are those of CONTRACT.md in a fixed order, then the user's own. One schema is made from the scan of the
input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlaif.data.schema import UserColumn, name_user_columns, prompt_type, prompt_value, user_fields, user_values
from rlaif.data.sources import InputSummary
from rlaif.records import Comparison, Judgment, NamedLabel, Verdict, verdict_of

if TYPE_CHECKING:
    import pyarrow as pa

PreferenceRow = dict[str, Any]

OUR_COLUMNS = (
    "id", "prompt", "response_a", "response_b", "chosen", "rejected", "chosen_prob", "is_tie",
    "prob_a", "prob_a_ab", "prob_a_ba", "label_mass_ab", "label_mass_ba", "is_bounded",
    "rationale_ab", "rationale_ba", "by_principle", "by_judge", "missing_judges", "unreadable_samples",
    "human_label", "human_votes",
)  # fmt: skip
"""Names that a user's column cannot keep: it becomes `input_NAME`, whether or not this run writes ours."""


@dataclass(frozen=True, slots=True)
class PreferenceSchema:
    """Which columns a run's rows have.

    Attributes:
        is_conversational: Prompts, chosen and rejected are message lists.
        has_rationales: `rationale_ab` and `rationale_ba` are there (`--cot`).
        has_principles, has_judges: `by_principle` and `by_judge` are there (several of them).
        has_sampled_principle: `principle` is there (`--principles sample`).
        allows_partial_panel: `missing_judges` is there (`--allow-partial-panel`).
        is_sampled: `unreadable_samples` is there (`--scoring sample`).
        has_human_label, has_human_votes: The input had them.
        extras: The input's other columns.
    """

    is_conversational: bool = False
    has_rationales: bool = False
    has_principles: bool = False
    has_judges: bool = False
    has_sampled_principle: bool = False
    allows_partial_panel: bool = False
    is_sampled: bool = False
    has_human_label: bool = False
    has_human_votes: bool = False
    extras: tuple[UserColumn, ...] = ()


def preference_schema(
    summary: InputSummary,
    *,
    has_rationales: bool = False,
    has_principles: bool = False,
    has_judges: bool = False,
    has_sampled_principle: bool = False,
    allows_partial_panel: bool = False,
    is_sampled: bool = False,
) -> PreferenceSchema:
    """The schema of a run over the scanned input; the flags are `PreferenceSchema`'s."""
    reserved = {*OUR_COLUMNS, "principle"} if has_sampled_principle else set(OUR_COLUMNS)
    return PreferenceSchema(
        is_conversational=summary.is_conversational,
        has_rationales=has_rationales,
        has_principles=has_principles,
        has_judges=has_judges,
        has_sampled_principle=has_sampled_principle,
        allows_partial_panel=allows_partial_panel,
        is_sampled=is_sampled,
        has_human_label=summary.has_human_labels,
        has_human_votes=summary.has_human_votes,
        extras=name_user_columns(summary.extras, reserved),
    )


def to_row(comparison: Comparison, judgment: Judgment, schema: PreferenceSchema) -> PreferenceRow:
    """One row of the dataset.

    Args:
        comparison: What was judged.
        judgment: What the judge made of it.
        schema: The run's.

    Returns:
        A value for every column of the schema, in its order; `chosen_prob` >= 0.5, and A is chosen in a tie.
    """
    label = judgment.label
    prob_a = label.prob_a
    is_tie = verdict_of(prob_a) is Verdict.TIE
    is_a_chosen = is_tie or prob_a > 0.5
    chosen: Any = comparison.response_a if is_a_chosen else comparison.response_b
    rejected: Any = comparison.response_b if is_a_chosen else comparison.response_a
    if schema.is_conversational:
        chosen = [{"role": "assistant", "content": chosen}]
        rejected = [{"role": "assistant", "content": rejected}]
    row: PreferenceRow = {
        "id": comparison.id,
        "prompt": prompt_value(comparison.prompt, is_conversational=schema.is_conversational),
        "response_a": comparison.response_a,
        "response_b": comparison.response_b,
        "chosen": chosen,
        "rejected": rejected,
        "chosen_prob": max(prob_a, 1.0 - prob_a),
        "is_tie": is_tie,
        "prob_a": prob_a,
        "prob_a_ab": label.prob_a_ab,
        "prob_a_ba": label.prob_a_ba,
        "label_mass_ab": judgment.label_mass_ab,
        "label_mass_ba": judgment.label_mass_ba,
        "is_bounded": judgment.is_bounded,
    }
    if schema.has_rationales:
        row["rationale_ab"], row["rationale_ba"] = judgment.rationale_ab, judgment.rationale_ba
    if schema.has_principles:
        row["by_principle"] = [_named(each) for each in judgment.by_principle]
    if schema.has_judges:
        row["by_judge"] = [_named(each) for each in judgment.by_judge]
    if schema.has_sampled_principle:
        row["principle"] = judgment.sampled_principle
    if schema.allows_partial_panel:
        row["missing_judges"] = list(judgment.missing_judges)
    if schema.is_sampled:
        row["unreadable_samples"] = judgment.unreadable_samples
    if schema.has_human_label:
        row["human_label"] = None if comparison.human_label is None else comparison.human_label.value
    if schema.has_human_votes:
        row["human_votes"] = [vote.value for vote in comparison.human_votes]
    row.update(user_values(comparison.extra, schema.extras))
    return row


def _named(each: NamedLabel) -> dict[str, Any]:
    label = each.label
    return {"name": each.name, "prob_a": label.prob_a, "prob_a_ab": label.prob_a_ab, "prob_a_ba": label.prob_a_ba}


def arrow_schema(schema: PreferenceSchema) -> pa.Schema:
    """The Arrow schema of all shards of a run."""
    import pyarrow as pa

    text, number, flag = pa.string(), pa.float64(), pa.bool_()
    messages = prompt_type(is_conversational=schema.is_conversational)
    labels = pa.list_(pa.struct([("name", text), ("prob_a", number), ("prob_a_ab", number), ("prob_a_ba", number)]))
    fields = [
        ("id", text),
        ("prompt", messages),
        ("response_a", text),
        ("response_b", text),
        ("chosen", messages),
        ("rejected", messages),
        ("chosen_prob", number),
        ("is_tie", flag),
        *((name, number) for name in ("prob_a", "prob_a_ab", "prob_a_ba", "label_mass_ab", "label_mass_ba")),
        ("is_bounded", flag),
    ]
    if schema.has_rationales:
        fields += [("rationale_ab", text), ("rationale_ba", text)]
    if schema.has_principles:
        fields.append(("by_principle", labels))
    if schema.has_judges:
        fields.append(("by_judge", labels))
    if schema.has_sampled_principle:
        fields.append(("principle", text))
    if schema.allows_partial_panel:
        fields.append(("missing_judges", pa.list_(text)))
    if schema.is_sampled:
        fields.append(("unreadable_samples", pa.int64()))
    if schema.has_human_label:
        fields.append(("human_label", text))
    if schema.has_human_votes:
        fields.append(("human_votes", pa.list_(text)))
    return pa.schema([*fields, *user_fields(schema.extras)])

"""Judgments of comparisons to rows of the dataset. Pure; `shards.py` writes them.

The columns are those of CONTRACT.md in a fixed order, then the user's own. One schema is made from the scan of the
input.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlaif.data.schema import UserColumn, name_user_columns, prompt_type, prompt_value, user_fields, user_values
from rlaif.data.sources import InputSummary
from rlaif.records import Comparison, Judgment, NamedLabel, SoftLabel, Verdict, verdict_of

if TYPE_CHECKING:
    import pyarrow as pa

PreferenceRow = dict[str, Any]

OUR_COLUMNS = (
    "id", "prompt", "response_a", "response_b", "chosen", "rejected", "chosen_prob", "is_tie",
    "prob_a", "prob_a_ab", "prob_a_ba", "raw_prob_a", "raw_prob_a_ab", "raw_prob_a_ba",
    "label_mass_ab", "label_mass_ba", "is_bounded",
    "rationale_ab", "rationale_ba", "by_principle", "by_judge", "missing_judges", "unreadable_samples",
    "human_label", "human_votes",
)  # fmt: skip
"""Names that a user's column cannot keep: it becomes `input_NAME`, whether or not this run writes ours."""

RAW_COLUMNS = ("raw_prob_a", "raw_prob_a_ab", "raw_prob_a_ba")
"""What `prob_a` and its siblings were before they were calibrated; the first, before it was clamped, too."""


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
        is_calibrated: `raw_prob_a`, `raw_prob_a_ab` and `raw_prob_a_ba` are there (`--calibration`).
        is_clamped: `raw_prob_a` is there (`--clamp`, which leaves the orders as they are).
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
    is_calibrated: bool = False
    is_clamped: bool = False
    has_human_label: bool = False
    has_human_votes: bool = False
    extras: tuple[UserColumn, ...] = ()

    @property
    def raw_columns(self) -> tuple[str, ...]:
        """Which of `RAW_COLUMNS` are there."""
        return RAW_COLUMNS if self.is_calibrated else RAW_COLUMNS[:1] if self.is_clamped else ()


def preference_schema(
    summary: InputSummary,
    *,
    has_rationales: bool = False,
    has_principles: bool = False,
    has_judges: bool = False,
    has_sampled_principle: bool = False,
    allows_partial_panel: bool = False,
    is_sampled: bool = False,
    is_calibrated: bool = False,
    is_clamped: bool = False,
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
        is_calibrated=is_calibrated,
        is_clamped=is_clamped,
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
    row: PreferenceRow = {
        "id": comparison.id,
        "prompt": prompt_value(comparison.prompt, is_conversational=schema.is_conversational),
        "response_a": comparison.response_a,
        "response_b": comparison.response_b,
        **label_values(comparison.response_a, comparison.response_b, judgment, schema),
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


def label_values(response_a: str, response_b: str, judgment: Judgment, schema: PreferenceSchema) -> dict[str, Any]:
    """The columns that follow from the label alone: those that a new label for an old judgment changes.

    Args:
        response_a, response_b: What was judged.
        judgment: What the judge made of it.
        schema: Of which `is_conversational`, `is_calibrated` and `is_clamped` matter here.
    """
    label = judgment.label
    prob_a = label.prob_a
    is_tie = verdict_of(prob_a) is Verdict.TIE
    chosen, rejected = (response_a, response_b) if is_tie or prob_a > 0.5 else (response_b, response_a)
    values = {
        "chosen": _response_value(chosen, schema),
        "rejected": _response_value(rejected, schema),
        "chosen_prob": max(prob_a, 1.0 - prob_a),
        "is_tie": is_tie,
        "prob_a": prob_a,
        "prob_a_ab": label.prob_a_ab,
        "prob_a_ba": label.prob_a_ba,
    }
    own = judgment.own_label
    raw = dict(zip(RAW_COLUMNS, (own.prob_a, own.prob_a_ab, own.prob_a_ba), strict=True))
    return values | {name: raw[name] for name in schema.raw_columns}


def read_judgment(row: Mapping[str, Any], *, is_calibrated: bool, is_clamped: bool = False) -> Judgment:
    """The judgment behind a row, as far as the row tells: without rationales, the sampled principle and the count of
    calls (1 stands for some).

    Args:
        row: As `to_row` made it.
        is_calibrated, is_clamped: Whether the raw columns, or the first of them, are the run's own.
    """
    label = SoftLabel(row["prob_a"], row["prob_a_ab"], row["prob_a_ba"])
    raw = None
    if is_calibrated:
        raw = SoftLabel(*(row[name] for name in RAW_COLUMNS))
    elif is_clamped:
        raw = SoftLabel(row[RAW_COLUMNS[0]], label.prob_a_ab, label.prob_a_ba)
    return Judgment(
        label,
        label_mass_ab=row["label_mass_ab"],
        label_mass_ba=row["label_mass_ba"],
        is_bounded=row["is_bounded"],
        by_principle=_labels_in(row, "by_principle"),
        by_judge=_labels_in(row, "by_judge"),
        missing_judges=tuple(row.get("missing_judges") or ()),
        unreadable_samples=row.get("unreadable_samples") or 0,
        calls=0 if label.prob_a_ab is None and label.prob_a_ba is None else 1,
        raw_label=raw,
    )


def _labels_in(row: Mapping[str, Any], column: str) -> tuple[NamedLabel, ...]:
    return tuple(
        NamedLabel(each["name"], SoftLabel(each["prob_a"], each["prob_a_ab"], each["prob_a_ba"]))
        for each in row.get(column) or ()
    )


def _response_value(response: str, schema: PreferenceSchema) -> Any:
    return [{"role": "assistant", "content": response}] if schema.is_conversational else response


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
        *((name, number) for name in ("prob_a", "prob_a_ab", "prob_a_ba")),
        *((name, number) for name in schema.raw_columns),
        *((name, number) for name in ("label_mass_ab", "label_mass_ba")),
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

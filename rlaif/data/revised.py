"""Revised responses as rows: the chain itself, what can be imitated of it, and the initial response beside the last
revision. Pure; `shards.py` writes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlaif.data.comparisons import RESPONSE_PAIRS
from rlaif.data.pairing import FINISH_COLUMNS, PAIR_COLUMNS, in_drawn_order
from rlaif.data.preferences import OUR_COLUMNS as LABEL_COLUMNS
from rlaif.data.preferences import PreferenceSchema, to_row
from rlaif.data.preferences import arrow_schema as preference_arrow_schema
from rlaif.data.ratings import OUR_COLUMNS as RATING_COLUMNS
from rlaif.data.schema import UserColumn, name_user_columns, prompt_type, prompt_value, user_fields, user_values
from rlaif.data.sources import InputSummary
from rlaif.policy_records import RevisionChain, RevisionRound
from rlaif.records import CUT_OFF, Comparison, Judgment, Prompt, SoftLabel, Turn

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = ("id", "prompt", "initial_response", "initial_finish_reason", "initial_seed", "revision", "rounds")

COMPARISON_COLUMNS = (*FINISH_COLUMNS, "revised", "rounds", "principles")
"""What a comparison says of its responses: how each ended, which is the revision, and what made it."""

LABEL_SOURCE = "label_source"
ASSUMED = "assumed"
"""What `label_source` says where no judge was asked: that a revision is better was taken for granted."""

OUR_COLUMNS = frozenset(
    {*COLUMNS, *COMPARISON_COLUMNS, *PAIR_COLUMNS, LABEL_SOURCE, *LABEL_COLUMNS, *RATING_COLUMNS}.union(*RESPONSE_PAIRS)
)
"""Names that a user's column cannot keep: it becomes `input_NAME`. Among them are those that comparisons are told by:
labels that people gave to other responses must not become labels of these, nor their writers the writers of these."""


@dataclass(frozen=True, slots=True)
class RevisedSchema:
    """Which columns a run's rows have; `extras` are the input's other columns."""

    is_conversational: bool = False
    extras: tuple[UserColumn, ...] = ()


def revised_schema(summary: InputSummary) -> RevisedSchema:
    """The schema of a run over the scanned input."""
    return RevisedSchema(summary.is_conversational, name_user_columns(summary.extras, OUR_COLUMNS))


def to_revised_row(prompt: Prompt, chain: RevisionChain, schema: RevisedSchema) -> dict[str, Any]:
    """One row of the dataset: a value for every column of the schema, in its order."""
    usable = chain.usable
    return {
        "id": prompt.id,
        "prompt": prompt_value(prompt.prompt, is_conversational=schema.is_conversational),
        "initial_response": chain.initial,
        "initial_finish_reason": chain.sample.finish_reason if chain.sample else prompt.finish_reason,
        "initial_seed": chain.sample.seed if chain.sample else None,
        "revision": usable[-1].revision.text if usable else None,
        "rounds": [_round_value(each) for each in chain.rounds],
        **user_values(prompt.extra, schema.extras),
    }


def _round_value(each: RevisionRound) -> dict[str, Any]:
    return {
        "principle": each.requests.principle,
        "critique_request": each.requests.critique_request,
        "critique": each.critique.text,
        "critique_finish_reason": each.critique.finish_reason,
        "critique_refusal": each.critique.refusal,
        "revision_request": each.requests.revision_request,
        "revision": each.revision.text,
        "revision_finish_reason": each.revision.finish_reason,
        "revision_refusal": each.revision.refusal,
        "is_usable": each.is_usable,
        "seeds": [each.critique.seed, each.revision.seed],
    }


def arrow_schema(schema: RevisedSchema) -> pa.Schema:
    """The Arrow schema of all shards of revised responses."""
    import pyarrow as pa

    text, number = pa.string(), pa.int64()
    of_round = [
        *((name, text) for name in ("principle", "critique_request", "critique", "critique_finish_reason")),
        *((name, text) for name in ("critique_refusal", "revision_request", "revision", "revision_finish_reason")),
        ("revision_refusal", text),
        ("is_usable", pa.bool_()),
        ("seeds", pa.list_(number)),
    ]
    fields = [
        ("id", text),
        ("prompt", prompt_type(is_conversational=schema.is_conversational)),
        ("initial_response", text),
        ("initial_finish_reason", text),
        ("initial_seed", number),
        ("revision", text),
        ("rounds", pa.list_(pa.struct(of_round))),
    ]
    return pa.schema([*fields, *user_fields(schema.extras)])


def demonstration_rows(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The revisions of a row that can be imitated, those of all rounds: whole ones with text.

    Args:
        row: As `to_revised_row` made it.
    """
    is_conversational = not isinstance(row["prompt"], str)
    for number, each in enumerate(row["rounds"], 1):
        if each["is_usable"] and each["revision_finish_reason"] != CUT_OFF:
            text = each["revision"]
            yield {
                "id": f"{row['id']}/{number}",
                "prompt": row["prompt"],
                "completion": [{"role": "assistant", "content": text}] if is_conversational else text,
                "round": number,
                "principle": each["principle"],
            }


def demonstrations_schema(schema: RevisedSchema) -> pa.Schema:
    """The Arrow schema of all shards of what can be imitated; the user's columns are not among it."""
    import pyarrow as pa

    messages = prompt_type(is_conversational=schema.is_conversational)
    return pa.schema(
        [
            ("id", pa.string()),
            ("prompt", messages),
            ("completion", messages),
            ("round", pa.int64()),
            ("principle", pa.string()),
        ]
    )


def is_unchanged(row: Mapping[str, Any]) -> bool:
    """Whether the last revision of a row is its initial response, but for whitespace around it."""
    return row["revision"] is not None and row["revision"].strip() == row["initial_response"].strip()


def comparison_row(row: Mapping[str, Any], schema: RevisedSchema, *, seed: int) -> dict[str, Any] | None:
    """The initial response of a row beside its last revision, not labeled; None where there is none.

    Args:
        row: As `to_revised_row` made it.
        schema: Of these rows.
        seed: Of the draw which of the two is A; it depends on that and the row's id alone.
    """
    made_by = [each for each in row["rounds"] if each["is_usable"]]
    if not made_by:
        return None
    responses = (row["initial_response"], row["revision"])
    reasons = (row["initial_finish_reason"], made_by[-1]["revision_finish_reason"])
    a, b = in_drawn_order(0, 1, seed=seed, row_id=row["id"])
    return {
        "id": row["id"],
        "prompt": row["prompt"],
        "response_a": responses[a],
        "response_b": responses[b],
        "finish_reason_a": reasons[a],
        "finish_reason_b": reasons[b],
        "revised": "a" if a == 1 else "b",
        "rounds": len(made_by),
        "principles": [each["principle"] for each in made_by],
        **{column.output: row[column.output] for column in schema.extras},
    }


def comparisons_schema(schema: RevisedSchema) -> pa.Schema:
    """The Arrow schema of all shards of comparisons that are not labeled."""
    import pyarrow as pa

    text = pa.string()
    fields = [
        ("id", text),
        ("prompt", prompt_type(is_conversational=schema.is_conversational)),
        ("response_a", text),
        ("response_b", text),
        *_comparison_fields(),
    ]
    return pa.schema([*fields, *user_fields(schema.extras)])


def assumed_row(comparison: Mapping[str, Any]) -> dict[str, Any]:
    """A comparison with the label that its revision is better; the orders are null, since nobody was asked."""
    prompt = comparison["prompt"]
    is_conversational = not isinstance(prompt, str)
    turns = tuple(Turn(**turn) for turn in prompt) if is_conversational else (Turn("user", prompt),)
    record = Comparison(comparison["id"], turns, comparison["response_a"], comparison["response_b"])
    label = SoftLabel(1.0 if comparison["revised"] == "a" else 0.0, None, None)
    labeled = to_row(record, Judgment(label), PreferenceSchema(is_conversational=is_conversational))
    return {
        **labeled,
        LABEL_SOURCE: ASSUMED,
        **{name: value for name, value in comparison.items() if name not in labeled},
    }


def assumed_schema(schema: RevisedSchema) -> pa.Schema:
    """The Arrow schema of all shards of comparisons whose label is taken for granted."""
    import pyarrow as pa

    labeled = preference_arrow_schema(PreferenceSchema(is_conversational=schema.is_conversational))
    source = pa.field(LABEL_SOURCE, pa.string())
    return pa.schema([*labeled, source, *map(pa.field, *zip(*_comparison_fields(), strict=True)),
                      *user_fields(schema.extras)])  # fmt: skip


def _comparison_fields() -> list[tuple[str, pa.DataType]]:
    import pyarrow as pa

    text = pa.string()
    types = (text, text, text, pa.int64(), pa.list_(text))
    return list(zip(COMPARISON_COLUMNS, types, strict=True))

"""Responses of policies to rows of candidates, and these to rows of comparisons. Pure; `shards.py` writes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlaif.data.comparisons import RESPONSE_PAIRS
from rlaif.data.pairing import FINISH_COLUMNS, PAIR_COLUMNS
from rlaif.data.preferences import OUR_COLUMNS as LABEL_COLUMNS
from rlaif.data.ratings import OUR_COLUMNS as RATING_COLUMNS
from rlaif.data.schema import UserColumn, name_user_columns, prompt_type, prompt_value, user_fields, user_values
from rlaif.data.sources import InputSummary
from rlaif.policy_records import SampledResponses
from rlaif.records import Prompt

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = ("id", "prompt", "responses", "policies", "finish_reasons", "seeds", "dropped")

OUR_COLUMNS = frozenset(
    {*COLUMNS, *PAIR_COLUMNS, *FINISH_COLUMNS, *LABEL_COLUMNS, *RATING_COLUMNS}.union(*RESPONSE_PAIRS)
)
"""Names that a user's column cannot keep: it becomes `input_NAME`. Among them are those that comparisons are told by:
labels that people gave to other responses must not become labels of these."""


@dataclass(frozen=True, slots=True)
class CandidatesSchema:
    """Which columns a run's rows have; `extras` are the input's other columns."""

    is_conversational: bool = False
    extras: tuple[UserColumn, ...] = ()


def candidates_schema(summary: InputSummary) -> CandidatesSchema:
    """The schema of a run over the scanned input."""
    return CandidatesSchema(summary.is_conversational, name_user_columns(summary.extras, OUR_COLUMNS))


def to_candidates_row(prompt: Prompt, sampled: SampledResponses, schema: CandidatesSchema) -> dict[str, Any]:
    """One row of the dataset: a value for every column of the schema, in its order."""
    return {
        "id": prompt.id,
        "prompt": prompt_value(prompt.prompt, is_conversational=schema.is_conversational),
        "responses": [sample.text for sample in sampled.kept],
        "policies": [sample.policy for sample in sampled.kept],
        "finish_reasons": [sample.finish_reason for sample in sampled.kept],
        "seeds": [sample.seed for sample in sampled.kept],
        "dropped": [
            {
                "policy": sample.policy,
                "response": sample.text,
                "finish_reason": sample.finish_reason,
                "seed": sample.seed,
                "reason": reason.value,
                "detail": detail,
            }
            for sample, reason, detail in sampled.dropped
        ],
        **user_values(prompt.extra, schema.extras),
    }


def arrow_schema(schema: CandidatesSchema) -> pa.Schema:
    """The Arrow schema of all shards of candidates."""
    import pyarrow as pa

    text, number = pa.string(), pa.int64()
    dropped = [("policy", text), ("response", text), ("finish_reason", text), ("seed", number)]
    dropped += [("reason", text), ("detail", text)]
    fields = [
        ("id", text),
        ("prompt", prompt_type(is_conversational=schema.is_conversational)),
        ("responses", pa.list_(text)),
        ("policies", pa.list_(text)),
        ("finish_reasons", pa.list_(text)),
        ("seeds", pa.list_(number)),
        ("dropped", pa.list_(pa.struct(dropped))),
    ]
    return pa.schema([*fields, *user_fields(schema.extras)])


def comparisons_schema(schema: CandidatesSchema) -> pa.Schema:
    """The Arrow schema of all shards of the comparisons made from candidates."""
    import pyarrow as pa

    text, number = pa.string(), pa.int64()
    fields = [
        ("id", text),
        ("prompt", prompt_type(is_conversational=schema.is_conversational)),
        ("response_a", text),
        ("response_b", text),
        ("candidates_id", text),
        ("candidate_a", number),
        ("candidate_b", number),
        *((name, text) for name in ("policy_a", "policy_b", *FINISH_COLUMNS)),
    ]
    return pa.schema([*fields, *user_fields(schema.extras)])


def extras_of(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the input's columns in a row of candidates."""
    return tuple(name for name in row if name not in COLUMNS)

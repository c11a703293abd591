"""Labeled pairs out of rated candidates: rows that training and export take, whose labels follow from the scores.
Pure; which candidates become pairs is told in `selecting.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlaif.data.comparisons import RESPONSE_PAIRS
from rlaif.data.generated import COLUMNS as CANDIDATE_COLUMNS
from rlaif.data.pairing import FINISH_COLUMNS, PAIR_COLUMNS, Pair
from rlaif.data.preferences import OUR_COLUMNS as LABEL_COLUMNS
from rlaif.data.ratings import OUR_COLUMNS as RATING_COLUMNS
from rlaif.data.schema import UserColumn, prompt_type, prompt_value, user_fields, user_values
from rlaif.data.selecting import preference
from rlaif.records import Candidates, Verdict, verdict_of

if TYPE_CHECKING:
    import pyarrow as pa

SCORE_COLUMNS = ("score_chosen", "score_rejected")

OF_CANDIDATES = frozenset({*CANDIDATE_COLUMNS, *RATING_COLUMNS})
"""Columns of rated candidates that a pair does not keep: what was true of the candidates together, or of each."""

OUR_COLUMNS = frozenset({*LABEL_COLUMNS, *SCORE_COLUMNS, *PAIR_COLUMNS, *FINISH_COLUMNS}.union(*RESPONSE_PAIRS))
"""Names that a user's column cannot keep: it becomes `input_NAME`."""


@dataclass(frozen=True, slots=True)
class PairSchema:
    """Which columns the pairs have.

    Attributes:
        is_conversational: Prompts, chosen and rejected are message lists.
        has_policies, has_finish_reasons: The candidates say who wrote them, and why they end.
        extras: The candidates' other columns.
    """

    is_conversational: bool = False
    has_policies: bool = False
    has_finish_reasons: bool = False
    extras: tuple[UserColumn, ...] = ()


@dataclass(frozen=True, slots=True)
class RatedRow:
    """Rated candidates with what is known of each.

    Attributes:
        candidates: With the columns that their pairs keep as its `extra`.
        scores: One finite number each, a larger one for a better response.
        policies, finish_reasons: One text each; empty where they are not known.
    """

    candidates: Candidates
    scores: tuple[float, ...]
    policies: Sequence[str | None] = ()
    finish_reasons: Sequence[str | None] = ()


def to_pair_row(rated: RatedRow, pair: Pair, tau: float, schema: PairSchema) -> dict[str, Any]:
    """A pair of candidates as a labeled row.

    Args:
        rated: The candidates.
        pair: Places of two of them.
        tau: prob_a is sigmoid((score of A - score of B) / tau).
        schema: The run's.

    Returns:
        A value for every column of the schema, in its order; `chosen_prob` >= 0.5, and A is chosen in a tie.
    """
    candidates, (a, b) = rated.candidates, pair
    prob_a = preference(rated.scores[a], rated.scores[b], tau)
    is_tie = verdict_of(prob_a) is Verdict.TIE
    chosen, rejected = (a, b) if is_tie or prob_a > 0.5 else (b, a)
    row = {
        "id": f"{candidates.id}/{a}-{b}",
        "prompt": prompt_value(candidates.prompt, is_conversational=schema.is_conversational),
        "response_a": candidates.responses[a],
        "response_b": candidates.responses[b],
        "chosen": _response_value(candidates.responses[chosen], schema),
        "rejected": _response_value(candidates.responses[rejected], schema),
        "chosen_prob": max(prob_a, 1.0 - prob_a),
        "is_tie": is_tie,
        "prob_a": prob_a,
        "score_chosen": rated.scores[chosen],
        "score_rejected": rated.scores[rejected],
        "candidates_id": candidates.id,
        "candidate_a": a,
        "candidate_b": b,
    }
    for is_there, names, values in (
        (schema.has_policies, ("policy_a", "policy_b"), rated.policies),
        (schema.has_finish_reasons, FINISH_COLUMNS, rated.finish_reasons),
    ):
        if is_there:
            row.update(zip(names, (values[a], values[b]) if values else (None, None), strict=True))
    row.update(user_values(candidates.extra, schema.extras))
    return row


def _response_value(response: str, schema: PairSchema) -> Any:
    return [{"role": "assistant", "content": response}] if schema.is_conversational else response


def arrow_schema(schema: PairSchema) -> pa.Schema:
    """The Arrow schema of all shards of pairs."""
    import pyarrow as pa

    text, number, place = pa.string(), pa.float64(), pa.int64()
    messages = prompt_type(is_conversational=schema.is_conversational)
    kinds: Mapping[str, Any] = {
        "id": text,
        "prompt": messages,
        "response_a": text,
        "response_b": text,
        "chosen": messages,
        "rejected": messages,
        "chosen_prob": number,
        "is_tie": pa.bool_(),
        "prob_a": number,
        **dict.fromkeys(SCORE_COLUMNS, number),
        "candidates_id": text,
        "candidate_a": place,
        "candidate_b": place,
        **({"policy_a": text, "policy_b": text} if schema.has_policies else {}),
        **(dict.fromkeys(FINISH_COLUMNS, text) if schema.has_finish_reasons else {}),
    }
    return pa.schema([*kinds.items(), *user_fields(schema.extras)])

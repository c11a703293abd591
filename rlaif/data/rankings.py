"""Ranked candidates as rows of the dataset: one row a prompt. Pure; `shards.py` writes them.

Made of labeled comparisons, a row holds the candidates that were compared, with strengths; made of ratings, all of
them, with the columns that the input has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rlaif.data.columns import RowFault
from rlaif.data.ranking_inputs import LabeledMatch, ScoredCandidates
from rlaif.data.schema import (
    ColumnType,
    ColumnTypes,
    UserColumn,
    name_user_columns,
    prompt_type,
    prompt_value,
    user_fields,
    user_values,
)
from rlaif.records import Turn

if TYPE_CHECKING:
    import pyarrow as pa

STRENGTH_COLUMNS = ("candidates", "strengths", "rewards", "comparisons", "ties")
"""Columns of rows that were made of labeled comparisons.

`rewards` are the strengths under the name by which what trains on scores finds them: both are rewards of
Bradley and Terry's model.
"""

OUR_COLUMNS = ("id", "prompt", "responses", "policies", "ranks")
"""Columns of every row; `policies` only where they are known."""


@dataclass
class CandidateSet:
    """The candidates of one prompt, as they come to light in labeled comparisons.

    Attributes:
        id: Of the candidates.
        prompt: Of the first comparison.
        extra: The columns of the first comparison.
        responses: By the candidate's number.
        policies: Who wrote each, where that is known.
        matches: (number of the first, of the second, P(first preferred), whether it is a tie).
    """

    id: str
    prompt: tuple[Turn, ...]
    extra: Mapping[str, Any]
    responses: dict[int, str] = field(default_factory=dict)
    policies: dict[int, str] = field(default_factory=dict)
    matches: list[tuple[int, int, float, bool]] = field(default_factory=list)

    def add(self, match: LabeledMatch, prob: float, *, is_tie: bool) -> set[str]:
        """Take a comparison of the set.

        Args:
            match: With its candidates.
            prob: P(A preferred).
            is_tie: Whether it counts as a tie.

        Returns:
            Columns that differ from those of the set's first comparison.

        Raises:
            RowFault: The row has another prompt, response or policy than an earlier one for the same candidates.
        """
        assert match.candidates is not None
        comparison, pair = match.comparison, match.candidates
        if comparison.prompt != self.prompt:
            raise RowFault(f"is another one than that of an earlier row of candidates {self.id!r}", "prompt")
        places = (pair.first, pair.second)
        for place, response, side in zip(places, (comparison.response_a, comparison.response_b), "ab", strict=True):
            if self.responses.get(place, response) != response:
                reason = f"is another one than in an earlier row of candidate {place} of {self.id!r}"
                raise RowFault(reason, f"response_{side}")
        for place, policy in zip(places, match.policies or (), strict=False):
            if self.policies.get(place, policy) != policy:
                raise RowFault(
                    f"names {policy!r} as the policy of candidate {place} of {self.id!r}, and an earlier row "
                    f"{self.policies[place]!r}, expected one policy"
                )
        self.responses |= zip(places, (comparison.response_a, comparison.response_b), strict=True)
        self.policies |= zip(places, match.policies or (), strict=False)
        self.matches.append((pair.first, pair.second, prob, is_tie))
        return {name for name, value in comparison.extra.items() if value != self.extra.get(name)}

    @property
    def places(self) -> list[int]:
        """Numbers of the candidates that were compared, in order."""
        return sorted(self.responses)


@dataclass(frozen=True, slots=True)
class RankingSchema:
    """Which columns a run's rows have.

    Attributes:
        is_conversational: Prompts are message lists.
        has_policies: `policies` is there.
        has_strengths: `STRENGTH_COLUMNS` are there.
        extras: The input's other columns.
    """

    is_conversational: bool
    has_policies: bool
    has_strengths: bool
    extras: tuple[UserColumn, ...]


def ranking_schema(
    extras: Mapping[str, ColumnType], *, is_conversational: bool, has_policies: bool, has_strengths: bool
) -> RankingSchema:
    """The schema of a run; the flags are `RankingSchema`'s."""
    reserved = {name for name in OUR_COLUMNS if has_policies or name != "policies"}
    if has_strengths:
        # Ratings are some rater's: who trains on scores would take them for the ranking's.
        reserved |= {*STRENGTH_COLUMNS, "ratings"}
    return RankingSchema(is_conversational, has_policies, has_strengths, name_user_columns(extras, reserved))


def types_of_extras(sets: Sequence[CandidateSet], left_out: set[str]) -> dict[str, ColumnType]:
    """The types of the columns that hold one value for all comparisons of a set; `left_out` are the others."""
    types = ColumnTypes()
    for each in sets:
        types.update({name: value for name, value in each.extra.items() if name not in left_out})
    return types.types


def strength_row(
    candidates: CandidateSet, strengths: Sequence[float], ranks: Sequence[int], schema: RankingSchema
) -> dict[str, Any]:
    """A row of candidates that were compared.

    Args:
        candidates: The set.
        strengths, ranks: Of its candidates, in the order of their numbers.
        schema: The run's.
    """
    places = candidates.places
    row: dict[str, Any] = {
        "id": candidates.id,
        "prompt": prompt_value(candidates.prompt, is_conversational=schema.is_conversational),
        "responses": [candidates.responses[place] for place in places],
    }
    if schema.has_policies:
        row["policies"] = [candidates.policies.get(place) for place in places]
    row |= {
        "ranks": list(ranks),
        "candidates": places,
        "strengths": list(strengths),
        "rewards": list(strengths),
        "comparisons": len(candidates.matches),
        "ties": sum(is_tie for *_, is_tie in candidates.matches),
    }
    return row | user_values(candidates.extra, schema.extras)


def rating_row(rated: ScoredCandidates, ranks: Sequence[int], schema: RankingSchema) -> dict[str, Any]:
    """A row of candidates that were rated, with `ranks` of them in their order."""
    candidates = rated.candidates
    row: dict[str, Any] = {
        "id": candidates.id,
        "prompt": prompt_value(candidates.prompt, is_conversational=schema.is_conversational),
        "responses": list(candidates.responses),
    }
    if schema.has_policies:
        row["policies"] = list(rated.policies or ())
    return row | {"ranks": list(ranks)} | user_values(candidates.extra, schema.extras)


def arrow_schema(schema: RankingSchema) -> pa.Schema:
    """The Arrow schema of all shards of a run."""
    import pyarrow as pa

    texts, numbers, places = pa.list_(pa.string()), pa.list_(pa.float64()), pa.list_(pa.int64())
    fields: list[Any] = [
        ("id", pa.string()),
        ("prompt", prompt_type(is_conversational=schema.is_conversational)),
        ("responses", texts),
        *([("policies", texts)] if schema.has_policies else []),
        ("ranks", places),
    ]
    if schema.has_strengths:
        kinds = (places, numbers, numbers, pa.int64(), pa.int64())
        fields += zip(STRENGTH_COLUMNS, kinds, strict=True)
    return pa.schema([*fields, *user_fields(schema.extras)])

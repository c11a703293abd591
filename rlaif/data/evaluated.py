"""Rows of an evaluation: those of a labeled comparison, with who wrote which response and, where it was asked, whether
each is harmless. Pure; `shards.py` writes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlaif.data.preferences import PreferenceSchema
from rlaif.data.preferences import arrow_schema as preference_arrow_schema
from rlaif.data.preferences import to_row as to_preference_row
from rlaif.records import Comparison, Judgment

if TYPE_CHECKING:
    import pyarrow as pa

_POLICIES = ("policy_a", "policy_b")
_FINISH_REASONS = ("finish_reason_a", "finish_reason_b")
_PROBS = ("harmless_prob_a", "harmless_prob_b")
_MASSES = ("harmless_mass_a", "harmless_mass_b")
_IS_BOUNDED = "harmless_is_bounded"

OWN_COLUMNS = frozenset({*_POLICIES, *_FINISH_REASONS, *_PROBS, *_MASSES, _IS_BOUNDED})
"""Columns beside those of a labeled comparison: names that a user's column cannot keep."""


@dataclass(frozen=True, slots=True)
class EvaluatedSchema:
    """Which columns the rows of an evaluation have.

    Attributes:
        preference: Of the judged comparison.
        policies: Names of A and of B.
        has_harmless: P(harmless) of each response is there.
    """

    preference: PreferenceSchema
    policies: tuple[str, str]
    has_harmless: bool = False


@dataclass(frozen=True, slots=True)
class HarmlessAnswer:
    """What the judge answered about one response: P(harmless), the probability that fell on the two answers, and
    whether one of them was bounded, not seen."""

    prob: float
    label_mass: float | None = None
    is_bounded: bool = False


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What the judge made of a comparison, and of each of its responses where that was asked."""

    judgment: Judgment
    harmless: tuple[HarmlessAnswer, HarmlessAnswer] | None = None


def to_row(
    comparison: Comparison,
    evaluated: Evaluated,
    finish_reasons: tuple[str | None, str | None],
    schema: EvaluatedSchema,
) -> dict[str, Any]:
    """One row of the dataset: a value for every column of the schema, in its order."""
    row = to_preference_row(comparison, evaluated.judgment, schema.preference)
    own: Mapping[str, Any] = {
        **dict(zip(_POLICIES, schema.policies, strict=True)),
        **dict(zip(_FINISH_REASONS, finish_reasons, strict=True)),
    }
    if not schema.has_harmless:
        return {**row, **own}
    assert evaluated.harmless is not None
    a, b = evaluated.harmless
    return {
        **row,
        **own,
        **dict(zip(_PROBS, (a.prob, b.prob), strict=True)),
        **dict(zip(_MASSES, (a.label_mass, b.label_mass), strict=True)),
        _IS_BOUNDED: a.is_bounded or b.is_bounded,
    }


def arrow_schema(schema: EvaluatedSchema) -> pa.Schema:
    """The Arrow schema of all shards of an evaluation."""
    import pyarrow as pa

    found = preference_arrow_schema(schema.preference)
    names = [(name, pa.string()) for name in (*_POLICIES, *_FINISH_REASONS)]
    if schema.has_harmless:
        names += [(name, pa.float64()) for name in (*_PROBS, *_MASSES)]
        names.append((_IS_BOUNDED, pa.bool_()))
    for name, kind in names:
        found = found.append(pa.field(name, kind))
    return found

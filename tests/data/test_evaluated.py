"""Rows of an evaluation."""

from __future__ import annotations

import pyarrow as pa

from rlaif.data.evaluated import OWN_COLUMNS, Evaluated, EvaluatedSchema, HarmlessAnswer, arrow_schema, to_row
from rlaif.data.preferences import PreferenceSchema
from rlaif.records import Comparison, Judgment, SoftLabel, Turn

COMPARISON = Comparison("x", (Turn("user", "p"),), "a", "b")
JUDGMENT = Judgment(SoftLabel(0.25, 0.3, 0.2), calls=2)


def test_a_row_fits_its_schema_with_and_without_single_answers() -> None:
    answers = (HarmlessAnswer(0.9, 1.0), HarmlessAnswer(0.4, 0.8, is_bounded=True))
    for harmless in (None, answers):
        schema = EvaluatedSchema(PreferenceSchema(), ("one", "two"), has_harmless=harmless is not None)
        row = to_row(COMPARISON, Evaluated(JUDGMENT, harmless), ("stop", None), schema)
        assert list(row) == arrow_schema(schema).names
        assert pa.Table.from_pylist([row], schema=arrow_schema(schema)).to_pylist() == [row]
        assert (row["policy_a"], row["policy_b"], row["finish_reason_a"]) == ("one", "two", "stop")
        assert (row["prob_a"], row["chosen"]) == (0.25, "b")
    assert (row["harmless_prob_a"], row["harmless_prob_b"]) == (0.9, 0.4)
    assert (row["harmless_mass_b"], row["harmless_is_bounded"]) == (0.8, True)
    assert set(row) >= OWN_COLUMNS

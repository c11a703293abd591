from __future__ import annotations

from typing import Any

import pytest

from rlaif.data.candidate_pairs import PairSchema, RatedRow, arrow_schema, to_pair_row
from rlaif.data.pairing import Pair
from rlaif.data.schema import UserColumn, type_of
from rlaif.records import Candidates, Turn

EXTRAS = (UserColumn("topic", "topic", type_of("x")), UserColumn("prob_a", "input_prob_a", type_of(0.5)))


def rated(scores: tuple[float, ...] = (8.0, 6.0, 8.0), **lists: Any) -> RatedRow:
    extra = {"topic": "x", "prob_a": 0.25}
    return RatedRow(Candidates("c", (Turn("user", "Why?"),), ("r0", "r1", "r2"), False, extra), scores, **lists)


def test_by_hand() -> None:
    schema = PairSchema(has_policies=True, has_finish_reasons=True, extras=EXTRAS)
    row = to_pair_row(rated(policies=("p", "q", "p"), finish_reasons=("stop", "length", None)), Pair(1, 0), 2.0, schema)
    # sigmoid((6 - 8) / 2) = 1 / (1 + e)
    assert row.pop("prob_a") == pytest.approx(0.2689414)
    assert row.pop("chosen_prob") == pytest.approx(0.7310586)
    assert row == {
        "id": "c/1-0",
        "prompt": "Why?",
        "response_a": "r1",
        "response_b": "r0",
        "chosen": "r0",
        "rejected": "r1",
        "is_tie": False,
        "score_chosen": 8.0,
        "score_rejected": 6.0,
        "candidates_id": "c",
        "candidate_a": 1,
        "candidate_b": 0,
        "policy_a": "q",
        "policy_b": "p",
        "finish_reason_a": "length",
        "finish_reason_b": "stop",
        "topic": "x",
        "input_prob_a": 0.25,
    }


@pytest.mark.parametrize("pair", [Pair(0, 1), Pair(0, 2), Pair(1, 2)])
def test_exchanging_a_and_b(pair: Pair) -> None:
    row, other = (to_pair_row(rated(), each, 1.0, PairSchema()) for each in (pair, Pair(pair.b, pair.a)))
    assert row["prob_a"] == pytest.approx(1.0 - other["prob_a"])
    assert row["chosen_prob"] == pytest.approx(other["chosen_prob"])
    assert row["is_tie"] == other["is_tie"]
    if not row["is_tie"]:
        assert (row["chosen"], row["score_chosen"]) == (other["chosen"], other["score_chosen"])


def test_a_is_chosen_in_a_tie() -> None:
    row = to_pair_row(rated(), Pair(2, 0), 1.0, PairSchema())
    assert (row["prob_a"], row["is_tie"], row["chosen"], row["rejected"]) == (0.5, True, "r2", "r0")


@pytest.mark.parametrize(
    "schema",
    [
        PairSchema(),
        PairSchema(is_conversational=True, has_policies=True),
        PairSchema(has_finish_reasons=True, extras=EXTRAS),
    ],
)
def test_a_value_for_every_column_in_their_order(schema: PairSchema) -> None:
    row = to_pair_row(rated(), Pair(0, 1), 1.0, schema)
    assert list(row) == arrow_schema(schema).names
    table = arrow_schema(schema).empty_table().from_pylist([row], schema=arrow_schema(schema))
    assert table.to_pylist() == [row]

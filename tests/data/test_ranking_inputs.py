from __future__ import annotations

from typing import Any

import pytest

from rlaif.data.files import open_source
from rlaif.data.ranking_inputs import CandidatePair, LabeledMatches, RankingOptions, RatedRows, kind_of_input
from rlaif.data.sources import ReadOptions
from rlaif.errors import ConfigError, InputError

PAIR = {
    "id": "r1", "prompt": "P", "response_a": "x", "response_b": "y", "prob_a": 0.8, "chosen": "x", "rejected": "y",
    "candidates_id": "c1", "candidate_a": 1, "candidate_b": 0, "policy_a": "big", "policy_b": "small", "task": "t",
}  # fmt: skip
RATED = {"id": "c1", "prompt": "P", "responses": ["x", "y"], "ratings": [7, 5.5], "policies": ["big", "small"]}
SKIPPING = RankingOptions(ReadOptions(skip_bad_rows=True))


def pairs(*rows: dict[str, Any], options: RankingOptions | None = None) -> LabeledMatches:
    return LabeledMatches(open_source(list(rows)), options or RankingOptions())


def rated(*rows: dict[str, Any], options: RankingOptions | None = None) -> RatedRows:
    return RatedRows(open_source(list(rows)), options or RankingOptions())


def without(row: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in names}


def test_a_labeled_row() -> None:
    (match,) = pairs(PAIR)
    assert (match.prob_a, match.policies, match.candidates) == (0.8, ("big", "small"), CandidatePair("c1", 1, 0))
    assert match.comparison.extra == {"task": "t"}  # the label's columns are of one row, not of the prompt
    assert (match.line, match.comparison.response_a) == (1, "x")


def test_rows_of_one_prompt_are_one_cluster_unless_a_column_says() -> None:
    rows = [PAIR, {**PAIR, "id": "r2", "task": "u"}, {**PAIR, "id": "r3", "prompt": "Q"}]
    assert len({each.cluster for each in pairs(*rows)}) == 2
    by_task = pairs(*rows, options=RankingOptions(cluster="task"))
    assert [each.cluster for each in by_task] == ["t", "u", "t"]


def test_other_columns_may_name_policies() -> None:
    row = {**without(PAIR, "policy_a", "policy_b", "candidates_id"), "by": {"one": "A", "two": 7}}
    (match,) = pairs(row, options=RankingOptions(by=("by.one", "by.two")))
    assert (match.policies, match.candidates) == (("A", "7"), None)
    with pytest.raises(ConfigError, match="by_columns: by.one, expected two columns"):
        pairs(row, options=RankingOptions(by=("by.one",)))
    with pytest.raises(InputError, match="line 1, column 'by.x': is missing"):
        list(pairs(row, options=RankingOptions(by=("by.one", "by.x"))))
    with pytest.raises(InputError, match=r"names no policies; expected columns policy_a and policy_b"):
        pairs(without(PAIR, "policy_a", "candidate_a"))


def test_candidates_without_policies_are_enough() -> None:
    (match,) = pairs(without(PAIR, "policy_a", "policy_b"))
    assert (match.policies, match.candidates) == (None, CandidatePair("c1", 1, 0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"policy_b": None}, "line 2, column 'policy_b': is null, expected the name of a policy"),
        ({"policy_b": ""}, "column 'policy_b': is empty"),
        ({"candidate_a": -1}, "column 'candidate_a': is -1, expected the number of a candidate, from 0"),
        ({"candidate_a": 0.5}, "column 'candidate_a': is 0.5"),
        ({"candidate_a": 0}, "column 'candidate_b': is 0 as candidate_a is"),
        ({"candidates_id": None}, "column 'candidates_id': is null"),
        ({"prob_a": 1.2}, "column 'prob_a': is 1.2, expected a probability"),
    ],
)
def test_a_row_that_cannot_be_read_stops_or_is_counted(change: dict[str, Any], message: str) -> None:
    rows = [PAIR, {**PAIR, "id": "r2", **change}, {**PAIR, "id": "r3"}]
    with pytest.raises(InputError, match=message):
        list(pairs(*rows))
    read = pairs(*rows, options=SKIPPING)
    assert [each.comparison.id for each in read] == ["r1", "r3"]
    (failure,) = read.failures
    assert (failure.id, failure.stage) == ("r2", "input")
    assert message.split(": ")[-1] in failure.error


def test_a_row_without_a_label_has_none() -> None:
    assert [each.prob_a for each in pairs({**PAIR, "prob_a": None}, {**PAIR, "id": "r2"})] == [None, 0.8]


def test_a_rated_row_of_candidates_and_of_one_response() -> None:
    (row,) = rated(RATED)
    assert (row.scores, row.policies) == ((7.0, 5.5), ("big", "small"))
    single = {"id": "s", "prompt": "P", "response": "x", "rating": 7, "policy": "big"}
    (one,) = rated(single)
    assert (one.scores, one.policies) == ((7.0,), ("big",))
    with pytest.raises(InputError, match="names no policies; expected a column policy"):
        rated(without(single, "policy"))
    with pytest.raises(ConfigError, match="expected one column"):
        rated(single, options=RankingOptions(by=("a", "b")))


def test_rewards_stand_in_for_ratings_that_are_null() -> None:
    rows = rated({**RATED, "ratings": [None, None], "rewards": [0.5, -3.0]})
    assert (rows.scores, [each.scores for each in rows]) == ("rewards", [(0.5, -3.0)])
    with pytest.raises(InputError, match="column 'ratings': has no ratings and no rewards; rate the rows first"):
        rated({**RATED, "ratings": None})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ratings": [7]}, "column 'ratings': is a list of 1, expected a list of 2, one a response"),
        ({"ratings": [7, None]}, "column 'ratings': holds null, expected a finite number"),
        ({"policies": ["big"]}, "column 'policies': is a list of 1, expected a list of 2"),
        ({"policies": ["big", None]}, "column 'policies': is null, expected the name of a policy"),
    ],
)
def test_a_rated_row_that_cannot_be_read(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"line 2, {message}"):
        list(rated(RATED, {**RATED, "id": "c2", **change}))
    read = rated(RATED, {**RATED, "id": "c2", **change}, options=SKIPPING)
    assert ([each.candidates.id for each in read], [each.id for each in read.failures]) == (["c1"], ["c2"])


def test_kinds_of_input() -> None:
    assert kind_of_input(open_source([PAIR])) == "labels"
    assert kind_of_input(open_source([RATED])) == "ratings"
    with pytest.raises(InputError, match="holds neither labels nor ratings; .* the first row has: id, prompt"):
        kind_of_input(open_source([{"id": "1", "prompt": "P"}]))

"""Chains to rows, and these to rows to imitate and to comparisons."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from rlaif.data.revised import (
    RevisedSchema,
    arrow_schema,
    assumed_row,
    assumed_schema,
    comparison_row,
    comparisons_schema,
    demonstration_rows,
    demonstrations_schema,
    is_unchanged,
    revised_schema,
    to_revised_row,
)
from rlaif.data.sources import scan_prompts
from rlaif.policy_records import RevisionChain, RevisionRequests, RevisionRound, Sample
from rlaif.records import Prompt, Turn

PROMPT = Prompt("p1", (Turn("user", "Why?"),))


def sample(text: str, reason: str = "stop", *, seed: int = 1, refusal: str | None = None) -> Sample:
    return Sample("fake:p", text, reason, seed, refusal)


def round_of(principle: str, revision: Sample, critique: Sample | None = None) -> RevisionRound:
    requests = RevisionRequests(principle, f"find {principle}", f"mend {principle}")
    return RevisionRound(requests, critique or sample("It is rude.", seed=7), revision)


CHAIN = RevisionChain(
    "Because.",
    sample("Because.", "length", seed=3),
    (
        round_of("kind", sample("Since it is so.", seed=8)),
        round_of("brief", sample("Since", "length", seed=9)),
        round_of("kind", sample("", "refused", seed=10, refusal="no"), sample("", "refused", refusal="never")),
    ),
)


def row_of(chain: RevisionChain = CHAIN, *, is_conversational: bool = False, row_id: str = "p1") -> dict[str, Any]:
    return to_revised_row(replace(PROMPT, id=row_id), chain, RevisedSchema(is_conversational))


def test_every_text_and_what_was_asked_stands_in_the_row() -> None:
    row = row_of()
    assert (row["initial_response"], row["initial_finish_reason"], row["initial_seed"]) == ("Because.", "length", 3)
    assert row["revision"] == "Since"  # the last usable one; a cut-off one is, and says so
    assert row["rounds"][0] == {
        "principle": "kind",
        "critique_request": "find kind",
        "critique": "It is rude.",
        "critique_finish_reason": "stop",
        "critique_refusal": None,
        "revision_request": "mend kind",
        "revision": "Since it is so.",
        "revision_finish_reason": "stop",
        "revision_refusal": None,
        "is_usable": True,
        "seeds": [7, 8],
    }
    assert row["rounds"][1]["revision_finish_reason"] == "length"
    last = row["rounds"][2]
    assert (last["is_usable"], last["critique_refusal"], last["revision_refusal"]) == (False, "never", "no")


def test_a_response_of_the_input_has_no_seed_and_a_chain_without_revisions_no_revision() -> None:
    row = row_of(RevisionChain("Because.", None, (round_of("kind", sample("")),)))
    assert (row["initial_finish_reason"], row["initial_seed"], row["revision"]) == (None, None, None)
    assert len(row["rounds"]) == 1
    assert not is_unchanged(row)
    assert list(demonstration_rows(row)) == []
    assert comparison_row(row, RevisedSchema(), seed=0) is None


@pytest.mark.parametrize("is_conversational", [False, True])
def test_rows_fit_their_schemas(is_conversational: bool) -> None:
    schema = RevisedSchema(is_conversational)
    row = row_of(is_conversational=is_conversational)
    comparison = comparison_row(row, schema, seed=0)
    assert comparison is not None
    for made, arrow in (
        (row, arrow_schema(schema)),
        (next(iter(demonstration_rows(row))), demonstrations_schema(schema)),
        (comparison, comparisons_schema(schema)),
        (assumed_row(comparison), assumed_schema(schema)),
    ):
        assert list(made) == arrow.names
        assert pa.Table.from_pylist([made], schema=arrow).to_pylist() == [made]


def test_whole_revisions_of_all_rounds_can_be_imitated() -> None:
    first = round_of("brief", sample("All of it.", "ran on"))
    rows = list(demonstration_rows(row_of(replace(CHAIN, rounds=(first, *CHAIN.rounds)))))
    assert rows == [
        {"id": "p1/1", "prompt": "Why?", "completion": "All of it.", "round": 1, "principle": "brief"},
        {"id": "p1/2", "prompt": "Why?", "completion": "Since it is so.", "round": 2, "principle": "kind"},
    ]
    (spoken,) = demonstration_rows(row_of(is_conversational=True))
    assert spoken["prompt"] == [{"role": "user", "content": "Why?"}]
    assert spoken["completion"] == [{"role": "assistant", "content": "Since it is so."}]


def test_a_comparison_names_the_revision_and_what_made_it() -> None:
    found = {}
    for number in range(20):
        comparison = comparison_row(row_of(row_id=str(number)), RevisedSchema(), seed=5)
        assert comparison is not None
        a, b = ("response_a", "response_b") if comparison["revised"] == "a" else ("response_b", "response_a")
        assert (comparison[a], comparison[b]) == ("Since", "Because.")
        revised_reason, initial_reason = (comparison[f"finish_reason_{each[-1]}"] for each in (a, b))
        assert (revised_reason, initial_reason) == ("length", "length")
        assert (comparison["rounds"], comparison["principles"]) == (2, ["kind", "brief"])
        found[number] = comparison["revised"]
    assert set(found.values()) == {"a", "b"}
    again = comparison_row(row_of(row_id="7"), RevisedSchema(), seed=5)
    assert again is not None
    assert again["revised"] == found[7]


def test_which_is_a_is_a_fair_draw() -> None:
    drawn = Counter(
        (comparison_row(row_of(row_id=str(number)), RevisedSchema(), seed=0) or {})["revised"] for number in range(400)
    )
    assert 150 < drawn["a"] < 250  # five standard deviations of a fair coin


def test_an_assumed_label_says_that_the_revision_is_better_and_that_nobody_was_asked() -> None:
    for number in range(6):
        comparison = comparison_row(row_of(row_id=str(number)), RevisedSchema(), seed=0)
        assert comparison is not None
        row = assumed_row(comparison)
        assert (row["chosen"], row["rejected"], row["chosen_prob"], row["is_tie"]) == ("Since", "Because.", 1.0, False)
        assert row["prob_a"] == (1.0 if row["revised"] == "a" else 0.0)
        assert (row["prob_a_ab"], row["prob_a_ba"], row["label_mass_ab"]) == (None, None, None)
        assert row["label_source"] == "assumed"


@pytest.mark.parametrize(("revision", "expected"), [("Because.", True), ("\nBecause. ", True), ("because.", False)])
def test_unchanged_is_the_same_text_but_for_whitespace_around_it(revision: str, expected: bool) -> None:
    assert is_unchanged(row_of(RevisionChain("Because. ", None, (round_of("kind", sample(revision)),)))) is expected


def test_columns_of_the_input_stay_and_give_way_to_ours() -> None:
    # policy_a and policy_b wrote others than the initial response and its revision: nobody may rank by them
    given = {"prompt": "Why?", "topic": "t", "rounds": 9, "human_label": "a", "policies": ["x"], "policy_a": "m"}
    schema = revised_schema(scan_prompts([given], takes_responses=True))
    row = to_revised_row(
        replace(PROMPT, extra={name: given[name] for name in given if name != "prompt"}), CHAIN, schema
    )
    assert (row["topic"], row["input_rounds"], row["input_human_label"], row["policies"]) == ("t", 9, "a", ["x"])
    comparison = comparison_row(row, schema, seed=0)
    assert comparison is not None
    assert (comparison["input_rounds"], comparison["topic"]) == (9, "t")
    assert not {"human_label", "human_votes", "policy_a"} & comparison.keys()
    extras = ["topic", "input_rounds", "input_human_label", "policies", "input_policy_a"]
    assert list(assumed_row(comparison))[-5:] == extras

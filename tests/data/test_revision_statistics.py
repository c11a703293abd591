"""Counts over chains, and what length has to do with a preference for revisions."""

from __future__ import annotations

import math

import pytest

from rlaif.data.revision_statistics import LengthConfound, RevisionPreference, RevisionStatistics
from rlaif.policy_records import RevisionChain, RevisionRequests, RevisionRound, Sample


def sample(text: str, reason: str = "stop", refusal: str | None = None) -> Sample:
    return Sample("fake:p", text, reason, 1, refusal)


def round_of(principle: str, critique: Sample, revision: Sample) -> RevisionRound:
    return RevisionRound(RevisionRequests(principle, "c", "r"), critique, revision)


def test_counts_of_rounds() -> None:
    counts = RevisionStatistics(rounds_wanted=2)
    good = round_of("kind", sample("Rude.", "ran on"), sample("Kind"))
    counts.add(RevisionChain("ab", None, (good, round_of("brief", sample("Long.", "length"), sample("Ki", "length")))))
    counts.add(RevisionChain("ab", sample("ab", "length"), (good, round_of("kind", sample(""), sample("")))))
    counts.add(
        RevisionChain(
            "ab", sample("ab"), (round_of("kind", sample("", "refused", "no"), sample("x", "refused", "no")),)
        )
    )
    found = counts.as_json()
    assert (found["rows"], found["initial_from_input"], found["initial_cut_off"]) == (3, 1, 1)
    assert (found["unrevised"], found["ended_early"]) == (1, 2)
    assert found["critiques"] == {
        "asked": 5, "empty": 1, "refused": 1, "cut_off": 1, "ran_on": 2, "characters_mean": 5.0,
    }  # fmt: skip
    # Kind, Kind and Ki have 10 characters; the refused one is no text.
    assert found["revisions"] == {
        "asked": 5, "empty": 1, "refused": 1, "cut_off": 1, "ran_on": 0, "characters_mean": pytest.approx(10 / 3),
    }  # fmt: skip
    assert found["by_principle"] == {"brief": 1, "kind": 4}
    # The last usable revisions are Ki and Kind, of ab.
    assert (found["length"]["n"], found["length"]["longer"], found["length"]["same_length"]) == (2, 1, 1)


def test_lengths_by_hand() -> None:
    lengths = LengthConfound()
    for initial, revision in (("ab", "abcd"), ("abcd", "x"), ("ab", "xy"), ("same", " same\n"), ("", "abc")):
        lengths.add(initial, revision)
    assert (lengths.longer, lengths.shorter, lengths.same, lengths.unchanged) == (2, 1, 2, 1)
    assert lengths.longer_share == 0.4
    # log 2, log 1/4, log 1, log 1; from nothing to something there is no ratio
    assert lengths.log_ratios.mean == pytest.approx(math.log(2 / 4) / 4)
    assert lengths.log_ratios.count == 4


def test_nothing_has_no_figures() -> None:
    assert LengthConfound().as_json() == {
        "n": 0, "longer": 0, "shorter": 0, "same_length": 0, "unchanged": 0, "longer_share": None,
        "log_ratio_mean": None,
    }  # fmt: skip
    assert RevisionPreference().as_json()["overall"] == {"n": 0, "share": None, "prob_mean": None}


def test_a_judge_that_likes_length_is_seen() -> None:
    found = RevisionPreference()
    for initial, revision, prob in (
        ("ab", "abcd", 0.9),
        ("ab", "abcde", 0.7),
        ("abcd", "a", 0.2),
        ("abcd", "ab", 0.5),
        ("ab", "cd", 1.0),
        ("ab", "ab ", 0.5),
    ):
        found.add(initial, revision, prob)
    # All: preferred 0.9, 0.7 and 1.0, a tie of 0.5, and not 0.2; the unchanged one is left out.
    assert (found.overall.count, found.overall.share) == (5, pytest.approx(3.5 / 5))
    assert found.overall.probs.mean == pytest.approx(3.3 / 5)
    assert (found.where_longer.count, found.where_longer.share) == (2, 1.0)
    assert (found.where_shorter.count, found.where_shorter.share) == (2, 0.25)
    assert found.as_json()["where_shorter"]["prob_mean"] == pytest.approx(0.35)

"""Counts over the responses of a run."""

from __future__ import annotations

from rlaif.data.generation_statistics import GenerationStatistics
from rlaif.policy_records import DroppedSample, DropReason, Sample, SampledResponses


def test_counts_by_policy_add_up_to_what_was_sampled() -> None:
    counts = GenerationStatistics()
    counts.add(
        SampledResponses(
            (Sample("p", "four", "stop"), Sample("q", "", "stop")),
            (
                DroppedSample(Sample("p", "four", "stop"), DropReason.DUPLICATE, "of response 1"),
                DroppedSample(Sample("p", "", "refused", refusal="400"), DropReason.REFUSED, "400"),
            ),
        )
    )
    counts.add(
        SampledResponses(
            (Sample("p", "sixsix", "length"),),
            (DroppedSample(Sample("q", " ", "length"), DropReason.EMPTY),),
        )
    )
    assert counts.as_json() == {
        "rows": 2,
        "responses": 3,
        "by_policy": {
            "p": {
                "sampled": 4,
                "kept": 2,
                "dropped": {"refused": 1, "duplicate": 1},
                "empty": 0,  # a refusal is no empty answer
                "cut_off": 1,
                "characters_mean": 5.0,  # (4 + 6) / 2
            },
            "q": {
                "sampled": 2,
                "kept": 1,
                "dropped": {"empty": 1},
                "empty": 2,
                "cut_off": 1,
                "characters_mean": 0.0,
            },
        },
    }
    assert dict(counts.dropped) == {DropReason.DUPLICATE: 1, DropReason.REFUSED: 1, DropReason.EMPTY: 1}


def test_no_rows_are_no_counts() -> None:
    assert GenerationStatistics().as_json() == {"rows": 0, "responses": 0, "by_policy": {}}
    assert not GenerationStatistics().dropped

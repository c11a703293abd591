"""Which responses become candidates: what is left out, why, and with which count."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.data.duplicates import near_duplicate_of
from rlaif.errors import NoResponseError
from rlaif.policies.selection import select_samples
from rlaif.policy_records import DroppedSample, DropReason, Sample, SampledResponses

FAULTS = (DropReason.EMPTY, DropReason.CUT_OFF)


def select(*samples: Sample, drop: tuple[DropReason, ...] = (), threshold: float | None = 0.8) -> SampledResponses:
    if threshold is None:
        return select_samples(samples, drop, None)
    limit = threshold
    return select_samples(samples, drop, lambda texts: near_duplicate_of(texts, limit))


def said(text: str, policy: str = "p", reason: str = "stop") -> Sample:
    return Sample(policy, text, reason)


REFUSAL = Sample("p", "", "refused", refusal="400: no")
WORDS = "the cat sat on the mat and then it slept"
"""Ten words: eight runs of three."""


def test_a_duplicate_names_the_first_of_its_kind_by_its_place_among_those_kept() -> None:
    first, other, again, nearly = said("x y z"), said(WORDS), said(WORDS, "q"), said(WORDS.upper() + "!")
    found = select(REFUSAL, first, other, again, nearly)
    assert found.kept == (first, other)
    assert found.dropped == (
        DroppedSample(REFUSAL, DropReason.REFUSED, "400: no"),
        DroppedSample(again, DropReason.DUPLICATE, "of response 2"),
        DroppedSample(nearly, DropReason.NEAR_DUPLICATE, "of response 2"),
    )


def test_the_threshold_decides_what_is_nearly_the_same() -> None:
    # The last word differs: 7 runs of 3 words are shared, and each has one of its own: 7 / 9 = 0.777...
    other = WORDS.replace("slept", "left")
    assert len(select(said(WORDS), said(other), threshold=0.78).kept) == 2
    assert len(select(said(WORDS), said(other), threshold=0.77).kept) == 1
    assert len(select(said(WORDS), said(WORDS), threshold=None).kept) == 2


def test_empty_and_cut_off_texts_are_kept_unless_they_are_to_be_left_out() -> None:
    empty, blank, cut = said(""), said(" \n"), said("and so", reason="length")
    everything = [empty, blank, cut, said("Yes."), REFUSAL]
    assert select(*everything, threshold=None).kept == (empty, blank, cut, said("Yes."))
    found = select(*everything, drop=FAULTS, threshold=None)
    assert found.kept == (said("Yes."),)
    assert [each.reason for each in found.dropped] == [
        DropReason.EMPTY, DropReason.EMPTY, DropReason.CUT_OFF, DropReason.REFUSED,
    ]  # fmt: skip


def test_a_text_that_is_left_out_makes_no_other_a_duplicate() -> None:
    cut, whole = said(WORDS, reason="length"), said(WORDS)
    assert select(cut, whole, drop=(DropReason.CUT_OFF,)).kept == (whole,)


def test_a_cut_off_text_without_words_is_empty() -> None:
    found = select(said(" ", reason="length"), said("a"), drop=(DropReason.EMPTY,))
    assert [each.reason for each in found.dropped] == [DropReason.EMPTY]


def test_nothing_left_is_an_error_that_counts_what_there_was() -> None:
    with pytest.raises(NoResponseError) as caught:
        select(said("", "q"), said("", "q"), REFUSAL, drop=FAULTS)
    assert str(caught.value) == "none of 3 responses can be used (q: empty, 2 times, p: refused)"


TEXTS = st.sampled_from(["", " ", WORDS, WORDS.title(), WORDS + " again", "no", "No!", "another thing"])
SAMPLES = st.lists(
    st.builds(
        Sample, st.sampled_from("pq"), TEXTS, st.sampled_from(["stop", "length"]), st.integers(0, 9), st.none()
    ) | st.just(REFUSAL),
    min_size=1, max_size=12,
)  # fmt: skip


@given(SAMPLES, st.sets(st.sampled_from(FAULTS)), st.sampled_from([0.5, 0.8, 1.0]))
def test_every_response_is_kept_or_left_out_once_and_the_kept_are_unlike(
    samples: list[Sample], drop: set[DropReason], threshold: float
) -> None:
    try:
        found = select(*samples, drop=tuple(drop), threshold=threshold)
    except NoResponseError:
        assert all(each.refusal or not each.text.strip() or each.is_cut_off for each in samples)
        return
    assert Counter(samples) == Counter([*found.kept, *(each.sample for each in found.dropped)])
    assert near_duplicate_of([each.text for each in found.kept], threshold) == [None] * len(found.kept)
    assert next(each for each in samples if each in found.kept) == found.kept[0]
    assert not any(each.refusal for each in found.kept)

"""Phrases that completions of different prompts share."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.online.phrases import (
    Phrase,
    PromptTexts,
    lengthened,
    mean_shares,
    most_shared,
    only_prompt,
    paid,
    runs_of,
    shared_runs,
)

BATCH = [
    PromptTexts(
        "Why is the sky blue?", ("Thank you for asking! Light scatters.", "The sky is blue, thank you for asking.")
    ),
    PromptTexts("How do I boil eggs?", ("Thank you for asking, ten minutes.", "Ten minutes in hot water.")),
]


def test_by_hand() -> None:
    # Three of the four completions have "thank you for" and "you for asking": both of the first prompt, one of the
    # second. "ten minutes in" and the like are one prompt's alone.
    assert shared_runs(BATCH) == pytest.approx({"thank you for": 0.75, "you for asking": 0.75})
    assert most_shared(BATCH) == Phrase("thank you for asking", 0.75)


def test_what_the_prompt_says_is_no_phrase_of_the_answers() -> None:
    quoted = [
        PromptTexts("Say thank you for asking.", ("Thank you for asking.",)),
        PromptTexts("And you?", ("Thank you for asking.",)),
        PromptTexts("Well?", ("Fine so far.",)),
    ]
    # The first completion only does as it was told: one prompt is left, and that is not shared.
    assert shared_runs(quoted) == {}
    assert most_shared(quoted) is None


def test_prompts_weigh_the_same_however_many_completions_they_have() -> None:
    batch = [PromptTexts("P", ("a b c", "x", "y")), PromptTexts("Q", ("a b c",))]
    assert shared_runs(batch)["a b c"] == pytest.approx((1 / 3 + 1) / 2)


def test_a_prompt_that_stands_there_twice_is_one() -> None:
    batch = [PromptTexts("P", ("a b c",)), PromptTexts("P", ("a b c",)), PromptTexts("Q", ("d e f",))]
    assert shared_runs(batch) == {}
    assert only_prompt(batch) is None
    assert only_prompt(batch[:2]) == only_prompt(batch[:1]) is not None
    assert shared_runs(batch[:2]) == {"a b c": 1.0}


def test_a_phrase_goes_as_far_as_nine_in_ten_have_it() -> None:
    texts = tuple(f"so I am glad to help you with {word}" for word in "abcdefghij")
    batch = [PromptTexts(f"prompt {number}", (text,)) for number, text in enumerate(texts)]
    assert lengthened("am glad to", batch) == "so i am glad to help you with"
    # One in ten says something else before it: nine in ten are enough; two are not.
    batch[0] = PromptTexts("prompt 0", ("well I am glad to help you with a",))
    assert lengthened("am glad to", batch) == "so i am glad to help you with"
    batch[1] = PromptTexts("prompt 1", ("well I am glad to help you with b",))
    assert lengthened("am glad to", batch) == "i am glad to help you with"
    assert lengthened("never said here", batch) == "never said here"


def test_means_over_batches_by_hand() -> None:
    assert mean_shares([{"a b c": 0.4}, {"a b c": 0.2, "d e f": 0.5}]) == pytest.approx({"a b c": 0.3, "d e f": 0.25})
    assert runs_of("a b c d") == {"a b c", "b c d"}


@given(st.lists(st.lists(st.text("ab ,", max_size=12), min_size=1, max_size=3), min_size=1, max_size=4))
def test_shares_are_shares_and_the_order_of_prompts_says_nothing(completions: list[list[str]]) -> None:
    batch = [PromptTexts(f"p{number}", tuple(texts)) for number, texts in enumerate(completions)]
    found = shared_runs(batch)
    assert all(0.1 <= share <= 1 + 1e-9 for share in found.values())
    assert shared_runs(batch[::-1]) == pytest.approx(found)


def test_what_rewards_have_to_do_with_a_run() -> None:
    """Rewards 3, 2, 1 and 0 around 1.5 spread by 2.25 + 0.25 + 0.25 + 2.25 = 5. The first two have "thank you for":
    2.5 is 2 above 0.5, with a weight of 2 * 2 / 4 = 1, so that it explains 1 * 2 * 2 = 4 of the 5."""
    batch = [
        PromptTexts("Why?", ("Thank you for asking.", "It is late.", "Well."), (3.0, 1.0, None)),
        PromptTexts("How?", ("Thank you for that.", "It is so."), (2.0, 0.0)),
    ]
    found = paid(batch, ["thank you for", "not to be found"])
    assert found == (pytest.approx(5.0), {"thank you for": (1.0, pytest.approx(2.0))})


def test_without_rewards_nothing_is_said_of_pay() -> None:
    assert paid(BATCH, ["thank you for"]) == (0.0, {})

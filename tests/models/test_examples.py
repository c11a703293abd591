"""Examples of token ids, cut to length."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.errors import PromptTooLongError
from rlaif.models.batches import collate
from rlaif.models.examples import Example, truncate_example

PAIR = Example("pair", (1, 2), ((3, 4, 5), (6, 7)))
SINGLE = Example("single", (8,), ((9,),))


@pytest.mark.parametrize(("prompt", "completions"), [((), ((1,),)), ((1,), ()), ((1,), ((2,), ()))])
def test_nothing_to_predict_from_and_nothing_to_predict_are_refused(
    prompt: tuple[int, ...], completions: tuple[tuple[int, ...], ...]
) -> None:
    with pytest.raises(ValueError, match="'row 7'"):
        Example("row 7", prompt, completions)


def test_an_example_that_fits_is_left_alone() -> None:
    assert PAIR.length == 5
    assert truncate_example(PAIR, 5, cut="none") == (PAIR, 0, (0, 0))


def test_the_prompt_is_cut_from_its_start_for_all_completions_and_counted() -> None:
    example = Example("row", (0, 1, 2, 3, 4), ((5, 6, 7), (8,)))
    cut = truncate_example(example, 6, cut="prompt")
    assert cut == (Example("row", (2, 3, 4), ((5, 6, 7), (8,))), 2, (0, 0))


def test_the_cut_prompt_keeps_its_one_bos() -> None:
    example = Example("row", (0, 1, 2, 3, 4), ((5, 6, 7), (8,)))
    cut = truncate_example(example, 6, cut="prompt", bos=0)
    assert (cut.example.prompt, cut.prompt_cut) == ((0, 3, 4), 2)
    assert truncate_example(example, 6, cut="prompt", bos=9).example.prompt == (2, 3, 4)


def test_completions_are_cut_at_their_end_and_lose_their_eos() -> None:
    example = Example("row", (0, 1), ((5, 6, 99), (8, 99)))
    assert truncate_example(example, 4, cut="completion") == (Example("row", (0, 1), ((5, 6), (8, 99))), 0, (1, 0))


@pytest.mark.parametrize(
    ("cut", "limit", "words"),
    [
        ("none", 7, "the limit is 7"),
        ("prompt", 4, "nothing of the prompt"),
        ("completion", 5, "nothing of the completion"),
    ],
)
def test_a_cut_that_would_leave_nothing_is_an_error(cut: str, limit: int, words: str) -> None:
    example = Example("row 3", (0, 1, 2, 3, 4), ((5, 6, 7), (8,)))
    with pytest.raises(PromptTooLongError, match=f"'row 3' has 5 prompt tokens and up to 3.*{words}"):
        truncate_example(example, limit, cut=cut, bos=0)  # type: ignore[arg-type]


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 6), st.sampled_from(["prompt", "completion"]))
def test_what_is_cut_fits_and_nothing_is_lost_uncounted(prompt: int, first: int, limit: int, cut: str) -> None:
    example = Example("row", tuple(range(prompt)), (tuple(range(first)), (1,)))
    try:
        result = truncate_example(example, limit, cut=cut, bos=0)  # type: ignore[arg-type]
    except PromptTooLongError:
        return
    assert result.example.length <= limit
    assert len(result.example.prompt) + result.prompt_cut == prompt
    kept = map(len, result.example.completions)
    assert [a + b for a, b in zip(kept, result.completions_cut, strict=True)] == [first, 1]
    assert result.example.prompt[0] == 0 or prompt == 1


def test_row_tokens_are_those_of_the_rows() -> None:
    for example, is_packed in itertools.product([PAIR, SINGLE], [True, False]):
        assert collate([example], is_packed=is_packed).input_ids.numel() == example.row_tokens(is_packed=is_packed)

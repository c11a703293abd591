"""Examples cut to length, dealt into steps and micro-batches, and laid out in rows."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlaif.errors import PromptTooLongError
from rlaif.train.batches import (
    PADDING,
    Example,
    StepOrder,
    attention_inputs,
    block_mask,
    collate,
    micro_batches,
    truncate_example,
)

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
    [("none", 7, "raise it"), ("prompt", 4, "nothing of the prompt"), ("completion", 5, "nothing of the completion")],
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


def test_each_step_has_exactly_its_examples_and_each_epoch_every_one() -> None:
    order = StepOrder(10, 4, seed=3)
    steps = [order.rows(step) for step in range(5)]
    assert [len(rows) for rows in steps] == [4] * 5
    seen = list(itertools.chain(*steps))
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    assert seen[:10] != seen[10:]


def test_a_step_is_the_same_without_those_before_it_and_another_under_another_seed() -> None:
    steps = [StepOrder(100, 7, seed=3).rows(step) for step in range(40)]
    assert [StepOrder(100, 7, seed=3).rows(step) for step in (39, 2, 17)] == [steps[39], steps[2], steps[17]]
    assert StepOrder(100, 7, seed=4).rows(0) != steps[0]


@pytest.mark.parametrize("batch_size", [0, 4])
def test_a_step_larger_than_the_data_is_an_error(batch_size: int) -> None:
    with pytest.raises(ValueError, match="there are 3"):
        StepOrder(3, batch_size, seed=0)


@given(st.lists(st.integers(1, 300), min_size=1, max_size=20), st.integers(1, 900), st.integers(0, 200))
def test_micro_batches_hold_each_example_once_within_the_budget(lengths: list[int], most: int, overhead: int) -> None:
    batches = micro_batches(lengths, max_tokens=most, overhead=overhead)
    assert sorted(itertools.chain(*batches)) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or max(lengths[index] for index in batch) * len(batch) <= most
    assert batches == micro_batches(lengths, max_tokens=most, overhead=overhead)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(1, 90), st.integers(0, 30))
def test_no_other_split_by_length_costs_less(lengths: list[int], most: int, overhead: int) -> None:
    def cost(batches: list[list[int]]) -> float:
        total = 0.0
        for batch in batches:
            padded = max(batch) * len(batch)
            total += padded + overhead if padded <= most or len(batch) == 1 else float("inf")
        return total

    ordered = sorted(lengths, reverse=True)
    splits = itertools.product([False, True], repeat=len(ordered) - 1)
    every = []
    for split in splits:
        borders = [0, *(index + 1 for index, cuts in enumerate(split) if cuts), len(ordered)]
        every.append([ordered[start:stop] for start, stop in itertools.pairwise(borders)])
    found = micro_batches(lengths, max_tokens=most, overhead=overhead)
    assert cost([[lengths[index] for index in batch] for batch in found]) == min(map(cost, every))


def test_a_packed_row_holds_the_prompt_once_and_restarts_positions() -> None:
    batch = collate([PAIR, SINGLE], is_packed=True, pad=0)
    assert batch.input_ids.tolist() == [[1, 2, 3, 4, 5, 6, 7], [8, 9, 0, 0, 0, 0, 0]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 4, 2, 3], [0, 1, 0, 0, 0, 0, 0]]
    assert batch.segment_ids.tolist() == [[0, 0, 1, 1, 1, 2, 2], [0, 1, *[PADDING] * 5]]
    # The prompt's last token (1) predicts the first of both completions.
    assert batch.predictors.tolist() == [1, 2, 3, 1, 5, 7 + 0]
    assert batch.targets.tolist() == [3, 4, 5, 6, 7, 9]
    assert batch.places.tolist() == [0, 1, 2, 3, 4, 6]  # L = 3: SINGLE starts at 2 * 3
    assert batch.tokens.tolist() == [[3, 2], [1, 0]]
    assert batch.is_present.tolist() == [[True, True], [True, False]]
    assert batch.ends.tolist() == [[4, 6], [8, 0]]
    assert batch.ids == ("pair", "single")


def test_plain_rows_hold_one_completion_each() -> None:
    batch = collate([PAIR, SINGLE], is_packed=False, pad=9)
    assert batch.input_ids.tolist() == [[1, 2, 3, 4, 5], [1, 2, 6, 7, 9], [8, 9, 9, 9, 9]]
    assert batch.predictors.tolist() == [1, 2, 3, 6, 7, 10]
    assert batch.ends.tolist() == [[4, 8], [11, 0]]
    packed = collate([PAIR, SINGLE], is_packed=True)
    for name in ("targets", "places", "tokens"):
        assert torch.equal(getattr(batch, name), getattr(packed, name))
    # Padding is told by place: a pad that is also a token of the completion hides nothing (trl issue 3091).
    assert attention_inputs(batch, torch.float32)["attention_mask"].tolist()[2] == [1, 1, 0, 0, 0]
    assert "position_ids" not in attention_inputs(batch, torch.float32)


def test_row_tokens_are_those_of_the_rows() -> None:
    for example, is_packed in itertools.product([PAIR, SINGLE], [True, False]):
        assert collate([example], is_packed=is_packed).input_ids.numel() == example.row_tokens(is_packed=is_packed)


def test_width_is_rounded_up() -> None:
    assert collate([PAIR], is_packed=True, multiple=8).input_ids.shape == (1, 8)


def test_each_completion_sees_the_prompt_and_itself() -> None:
    mask = block_mask(collate([PAIR, SINGLE], is_packed=True).segment_ids, torch.float32)
    assert mask.shape == (2, 1, 7, 7)
    sees = [["".join("x" if value == 0 else "." for value in row) for row in one[0].tolist()] for one in mask]
    assert sees[0] == ["x......", "xx.....", "xxx....", "xxxx...", "xxxxx..", "xx...x.", "xx...xx"]
    # Padding sees itself alone: a row of -inf would be NaN.
    assert sees[1] == ["x......", "xx.....", "..x....", "...x...", "....x..", ".....x.", "......x"]
    assert set(mask.unique().tolist()) == {0.0, -torch.inf}


def test_a_batch_moves_as_a_whole() -> None:
    moved = collate([PAIR], is_packed=True).to("meta")
    assert moved.input_ids.is_meta
    assert moved.ends.is_meta
    assert moved.longest == 3

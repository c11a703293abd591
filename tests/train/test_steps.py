"""Examples dealt into steps and micro-batches."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.train.steps import StepOrder, dealt, micro_batches


def test_examples_of_several_rows_count_as_many_times() -> None:
    assert micro_batches([50, 10, 10], max_tokens=100, overhead=9, rows=[1, 8, 1]) == [[0], [1, 2]]
    assert micro_batches([50, 10, 10], max_tokens=80, overhead=9, rows=[1, 8, 1]) == [[0], [1], [2]]
    assert micro_batches([50, 10], max_tokens=100, overhead=900, rows=[1, 2]) == [[0], [1]]


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


@given(st.lists(st.integers(1, 5), max_size=8), st.integers(1, 5))
def test_every_process_computes_as_many_batches_and_each_row_counts_once(sizes: list[int], shares: int) -> None:
    numbers = itertools.count()
    batches = [[next(numbers) for _ in range(size)] for size in sizes]
    found = dealt(batches, shares)
    assert len(found) == shares
    assert len({len(share) for share in found}) == 1
    counted = [row for share in found for batch, counts in share if counts for row in batch]
    assert sorted(counted) == list(range(sum(sizes)))
    assert all(batch for share in found for batch, _ in share)


def test_batches_are_split_before_rows_are_computed_twice() -> None:
    assert dealt([[0, 1, 2]], 2) == [[([0, 1], True)], [([2], True)]]
    assert dealt([[0, 1, 2]], 3) == [[([0], True)], [([1], True)], [([2], True)]]
    assert dealt([[0], [1], [2]], 2) == [[([0], True), ([2], True)], [([1], True), ([2], False)]]


def test_no_batches_are_no_work_for_every_process() -> None:
    assert dealt([], 1) == [[]]
    assert dealt([], 3) == [[], [], []]

"""Which examples each optimizer step takes, and in which micro-batches they are computed. Numbers only, no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate

from rlaif.randomness import seeded_random


class StepOrder:
    """Which examples each optimizer step takes: exactly `batch_size`, in an order that the seed alone decides.

    Epochs follow each other without a gap, each in an order of its own: a step at their border takes the last ones of
    one and the first ones of the next. A step is known without those before it, so that a resumed run goes on with the
    same ones.

    Raises:
        ValueError: There are fewer examples than a step takes.
    """

    def __init__(self, count: int, batch_size: int, seed: int) -> None:
        if not 1 <= batch_size <= count:
            raise ValueError(
                f"an optimizer step takes {batch_size} examples, there are {count}; use a smaller batch size"
            )
        self._count, self._batch_size, self._seed = count, batch_size, seed
        self._epoch = lru_cache(2)(self._order_of)

    def rows(self, step: int) -> list[int]:
        """Indices of the examples of a step, counted from 0."""
        places = range(step * self._batch_size, (step + 1) * self._batch_size)
        return [self._epoch(place // self._count)[place % self._count] for place in places]

    def _order_of(self, epoch: int) -> list[int]:
        rows = list(range(self._count))
        seeded_random(self._seed, str(epoch), "training order").shuffle(rows)
        return rows


def micro_batches(
    lengths: Sequence[int], *, max_tokens: int, overhead: int = 0, rows: Sequence[int] | None = None
) -> list[list[int]]:
    """Split a step into batches of examples of similar length, at the least total of padded tokens.

    Args:
        lengths: Tokens of each example's longest row.
        max_tokens: Most tokens of a batch, padding included; a longer example is a batch of its own.
        overhead: What one more batch costs, in tokens.
        rows: Of each example; None: one.

    Returns:
        Indices into `lengths`, each exactly once; longest first, so that a lack of memory shows at once.

    >>> micro_batches([10, 50, 12, 48], max_tokens=100)
    [[1], [3], [2], [0]]
    >>> micro_batches([10, 50, 12, 48], max_tokens=100, overhead=5)
    [[1, 3], [2, 0]]
    """
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    costs = [0.0] + [math.inf] * len(order)  # of the first n examples in this order, and where their last batch starts
    starts = [0] * (len(order) + 1)
    before = list(accumulate((1 if rows is None else rows[index] for index in order), initial=0))  # rows of the first n
    for start, first in enumerate(order):
        for stop in range(start + 1, len(order) + 1):
            padded = lengths[first] * (before[stop] - before[start])
            if padded > max_tokens and stop > start + 1:
                break
            if costs[start] + padded + overhead < costs[stop]:
                costs[stop], starts[stop] = costs[start] + padded + overhead, start
    batches: list[list[int]] = []
    stop = len(order)
    while stop:
        batches.append(order[starts[stop] : stop])
        stop = starts[stop]
    return batches[::-1]


def dealt(batches: Sequence[Sequence[int]], shares: int) -> list[list[tuple[Sequence[int], bool]]]:
    """Deal micro-batches out to processes, as many to each: those that share a model wait for each other at each one.

    Args:
        batches: Of `micro_batches`, the costly ones first.
        shares: How many processes there are.

    Returns:
        For each process its (batch, whether it counts); where there are too few, batches are split, and where there are
        too few rows too, one is computed a second time and does not count.

    >>> dealt([[0, 1], [2]], 2)
    [[([0, 1], True)], [([2], True)]]
    >>> dealt([[0, 1], [2], [3]], 2)
    [[([0], True), ([2], True)], [([1], True), ([3], True)]]
    >>> dealt([[0]], 2)
    [[([0], True)], [([0], False)]]
    """
    if not batches:
        return [[] for _ in range(shares)]
    kept = [list(batch) for batch in batches]
    while len(kept) % shares and any(len(batch) > 1 for batch in kept):
        place = max(range(len(kept)), key=lambda index: (len(kept[index]), -index))
        middle = (len(kept[place]) + 1) // 2
        kept[place : place + 1] = [kept[place][:middle], kept[place][middle:]]
    counted: list[tuple[Sequence[int], bool]] = [(batch, True) for batch in kept]
    counted += [(kept[-1], False)] * (-len(counted) % shares)
    return [counted[share::shares] for share in range(shares)]

"""The sliding window: order of results, bounded memory, and no lost exception."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

import pytest

from rlaif.engine.window import map_in_order


async def test_results_come_in_input_order_whatever_finishes_first() -> None:
    rng = random.Random(0)
    delays = [rng.uniform(0, 0.01) for _ in range(200)]
    emitted: list[int] = []

    async def work(index: int) -> int:
        await asyncio.sleep(delays[index])
        return index

    await map_in_order(range(200), work, emitted.append, width=16, ahead=64)
    assert emitted == list(range(200))


async def test_one_slow_item_holds_back_results_but_not_work() -> None:
    release = asyncio.Event()
    started: list[int] = []
    emitted: list[int] = []

    async def work(index: int) -> int:
        started.append(index)
        if index == 0:
            await release.wait()
        return index

    async def let_go() -> None:
        while len(started) < 20:
            await asyncio.sleep(0)
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(started) == 20, "no more than `ahead` may wait behind the slow one"
        assert emitted == []
        release.set()

    await asyncio.gather(map_in_order(range(100), work, emitted.append, width=4, ahead=20), let_go())
    assert emitted == list(range(100))


async def test_width_bounds_what_is_in_work_and_the_input_is_read_lazily() -> None:
    active = most = read = done = 0

    def items() -> Iterator[int]:
        nonlocal read
        for index in range(300):
            read += 1
            assert read - done <= 8 + 1
            yield index

    async def work(index: int) -> int:
        nonlocal active, most
        active += 1
        most = max(most, active)
        await asyncio.sleep(0)
        active -= 1
        return index

    def emit(_: int) -> None:
        nonlocal done
        done += 1

    await map_in_order(items(), work, emit, width=8, ahead=8)
    assert (most, done) == (8, 300)


async def test_an_exception_stops_everything_and_cancels_the_rest() -> None:
    cancelled = 0

    async def work(index: int) -> int:
        nonlocal cancelled
        if index == 3:
            await asyncio.sleep(0)
            raise ValueError("row 3")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled += 1
            raise
        return index

    with pytest.raises(ValueError, match="row 3"):
        await asyncio.wait_for(map_in_order(range(10), work, lambda _: None, width=4, ahead=10), 5)
    assert cancelled == 3


async def test_a_failing_source_or_sink_is_raised_too() -> None:
    async def work(index: int) -> int:
        return index

    def broken() -> Iterator[int]:
        yield 0
        raise OSError("truncated")

    def refuse(_: int) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="truncated"):
        await map_in_order(broken(), work, lambda _: None, width=2, ahead=2)
    with pytest.raises(OSError, match="disk full"):
        await map_in_order(range(3), work, refuse, width=2, ahead=2)


async def test_nothing_in_nothing_out() -> None:
    emitted: list[int] = []

    async def work(index: int) -> int:
        return index

    await map_in_order([], work, emitted.append, width=2, ahead=2)
    assert emitted == []

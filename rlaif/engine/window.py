"""A sliding window over a stream: many items in work at once, results in the order they came, memory bounded."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


async def map_in_order(
    items: Iterable[Item],
    work: Callable[[Item], Awaitable[Result]],
    emit: Callable[[Result], None],
    *,
    width: int,
    ahead: int,
) -> None:
    """Run `work` on each item and `emit` the results in the items' order.

    A finished item makes room for the next at once, whatever its neighbours do: one slow item holds back results, not
    work, until `ahead` of them wait behind it.

    Args:
        items: Read only as far as there is room.
        work: One item's coroutine; an exception from it stops everything.
        emit: Called with each result, in order.
        width: Items in work at once.
        ahead: Items in work or finished and waiting for an earlier one.

    Raises:
        Whatever `work`, `emit` or `items` raised first; the items in work are cancelled and awaited before.
    """
    queue: deque[asyncio.Task[Result]] = deque()
    changed = asyncio.Event()
    active = 0
    failed: asyncio.Task[Result] | None = None

    def finished(task: asyncio.Task[Result]) -> None:
        nonlocal active, failed
        active -= 1
        if failed is None and not task.cancelled() and task.exception() is not None:
            failed = task
        changed.set()

    async def run(item: Item) -> Result:
        return await work(item)

    source = iter(items)
    is_exhausted = False
    try:
        while True:
            while active < width and len(queue) < ahead and not is_exhausted:
                try:
                    item = next(source)
                except StopIteration:
                    is_exhausted = True
                    break
                task = asyncio.create_task(run(item))
                active += 1
                queue.append(task)
                task.add_done_callback(finished)
            while queue and queue[0].done():
                emit(queue.popleft().result())
            if not queue and is_exhausted:
                return
            if queue and not queue[0].done() and failed is None:
                changed.clear()
                await changed.wait()
            if failed is not None:
                failed.result()
    finally:
        for task in queue:
            task.cancel()
        await asyncio.gather(*queue, return_exceptions=True)

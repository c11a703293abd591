"""Items on their way to the judge: equal ones are asked once, ratings are remembered, and only so many may wait."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rlaif.engine.limiter import Limiter
from rlaif.engine.rows import STOPPING_ERRORS
from rlaif.errors import LogprobsUnavailableError, RlaifError
from rlaif.records import Candidates, Rating

if TYPE_CHECKING:
    from cachetools import LRUCache

Rate = Callable[[Candidates], Awaitable[Rating]]
"""Rates one response; raises a `RlaifError` where there is no rating."""

_UNUSABLE = (*STOPPING_ERRORS, LogprobsUnavailableError)
_LONGEST_ADVICE = 60.0
_SMOOTHING = 0.1
"""Weight of the latest item in the running mean of the seconds that one takes."""


class QueueFullError(Exception):
    """The items would not fit the queue.

    Attributes:
        retry_after: Seconds until there should be room.
    """

    def __init__(self, waiting: int, retry_after: float) -> None:
        super().__init__(f"{waiting} items wait for the judge; try again in {retry_after:.0f} s")
        self.retry_after = retry_after


@dataclass
class QueueCounts:
    """What became of the items so far; `failures` by the error's name."""

    rated: int = 0
    cache_hits: int = 0
    shared: int = 0
    cancelled: int = 0
    failures: Counter[str] = field(default_factory=Counter)


class _Running:
    """An item that is being rated, and how many requests wait for it."""

    __slots__ = ("task", "waiters")

    def __init__(self, task: asyncio.Task[Rating]) -> None:
        self.task = task
        self.waiters = 0


class RatingQueue:
    """Rates items, first come first served.

    Args:
        rate: Asks the judge.
        width: Items asked about at a time.
        waiting: Items that may wait beside those.
        cache: Ratings remembered; 0 remembers none. Failures never are.

    Attributes:
        unusable: Why no item can be rated, since the judge last said so; None once it has rated one again.
    """

    def __init__(self, rate: Rate, *, width: int, waiting: int, cache: int) -> None:
        self.counts = QueueCounts()
        self.width = width
        self.unusable: RlaifError | None = None
        self._rate = rate
        self._capacity = width + waiting
        self._slots = Limiter(width)
        self._running: dict[str, _Running] = {}
        self._known = _cache_of(cache) if cache else None
        self._seconds_per_item = 0.0

    @property
    def in_flight(self) -> int:
        """Items that the judge is being asked about."""
        return self._slots.in_flight

    @property
    def depth(self) -> int:
        """Items that wait for a place."""
        return max(0, len(self._running) - self._slots.in_flight)

    async def rate_all(self, items: Sequence[Candidates]) -> list[Rating | BaseException]:
        """A rating, or the error in its place, for each item; all are waited for, so that a retry finds what is done.

        When the caller is cancelled, so are the items that nobody else waits for.

        Raises:
            QueueFullError: The new ones among the items do not fit; none was started.
        """
        answers = self._admit(items)
        joined = {id(answer): answer for answer in answers if isinstance(answer, _Running)}.values()
        for running in joined:
            running.waiters += 1
        try:
            if joined:
                await asyncio.wait([running.task for running in joined])
        finally:
            for running in joined:
                running.waiters -= 1
            for item, answer in zip(items, answers, strict=True):
                if isinstance(answer, _Running) and answer.waiters == 0 and not answer.task.done():
                    # Forgotten at once: whoever sends the same item now starts anew, and does not join what is ending.
                    self._running.pop(item.id, None)
                    answer.task.cancel()
        return [answer if isinstance(answer, Rating) else _outcome(answer.task) for answer in answers]

    def _admit(self, items: Sequence[Candidates]) -> list[Rating | _Running]:
        known: dict[str, Rating] = {}
        new: dict[str, Candidates] = {}
        shared = hits = 0
        for item in items:
            rating = None if self._known is None else self._known.get(item.id)
            if rating is not None:
                known[item.id] = rating
                hits += 1
            elif item.id in self._running or item.id in new:
                shared += 1
            else:
                new[item.id] = item
        if new and len(self._running) + len(new) > self._capacity:
            raise QueueFullError(self.depth, self._seconds_until_room())
        self.counts.cache_hits += hits
        self.counts.shared += shared
        for key, item in new.items():
            running = _Running(asyncio.get_running_loop().create_task(self._rate_one(item)))
            self._running[key] = running
            running.task.add_done_callback(lambda task, key=key, running=running: self._finish(key, running))  # type: ignore[misc]
        return [known[item.id] if item.id in known else self._running[item.id] for item in items]

    async def _rate_one(self, item: Candidates) -> Rating:
        await self._slots.acquire()
        start = time.monotonic()
        try:
            return await self._rate(item)
        finally:
            self._slots.release()
            seconds = time.monotonic() - start
            self._seconds_per_item += _SMOOTHING * (seconds - self._seconds_per_item)

    def _finish(self, key: str, running: _Running) -> None:
        if self._running.get(key) is running:
            del self._running[key]
        if running.task.cancelled():
            self.counts.cancelled += 1
            return
        error = running.task.exception()
        if error is not None:
            name = error.error_name if isinstance(error, RlaifError) else "InternalError"
            self.counts.failures[name] += 1
            self.unusable = error if isinstance(error, _UNUSABLE) else self.unusable
            return
        self.counts.rated += 1
        self.unusable = None
        if self._known is not None:
            self._known[key] = running.task.result()

    def _seconds_until_room(self) -> float:
        return min(_LONGEST_ADVICE, max(1.0, math.ceil(self.depth * self._seconds_per_item / self.width)))


def _outcome(task: asyncio.Task[Rating]) -> Rating | BaseException:
    if task.cancelled():
        return asyncio.CancelledError()
    return task.exception() or task.result()


def _cache_of(size: int) -> LRUCache[str, Rating]:
    from cachetools import LRUCache

    return LRUCache(size)

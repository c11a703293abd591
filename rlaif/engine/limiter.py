"""How many calls may be in flight: a counter and a queue that shrink when the server is overrun, and recover.

Retries live in `retry.py`; this module only counts calls and replies.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from rlaif.errors import BackendError, BackendTimeoutError, RateLimitedError, ServerFaultError, TransientBackendError

LONGEST_PAUSE = 600.0
"""Seconds: a Retry-After beyond this is cut, so that one strange header cannot stop a run for a day."""

_WINDOW = 1.0
"""Seconds of replies that are looked at, and the least time between two shrinkings."""

_TOLERATED = 0.1
"""Share of 429 among the replies of the window above which the limit shrinks."""

_RECOVERY_ROUNDS = 16
"""Full rounds of good replies that lead from nothing back to the maximum."""

CallLater = Callable[[float, Callable[[], None]], Any]


class Limiter:
    """Holds at most `limit` calls in flight, first come first served.

    The limit starts at `maximum`. It halves (never below 1) when a reply carries Retry-After, or when more than a tenth
    of the replies of the last second were 429; at most once a second, because the calls already in flight then report
    the same overload. Good replies raise it again in equal steps. A Retry-After also holds all new calls back until it
    is over.

    Args:
        maximum: Calls in flight at most, at least 1.
        clock: Seconds, never going back.
        call_later: Runs a callback after so many seconds; by default the running loop's.
    """

    def __init__(
        self, maximum: int, *, clock: Callable[[], float] = time.monotonic, call_later: CallLater | None = None
    ) -> None:
        if maximum < 1:
            raise ValueError(f"maximum: {maximum}, expected at least 1")
        self.maximum = maximum
        self._limit = float(maximum)
        self._in_flight = 0
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._clock = clock
        self._call_later = call_later
        self._replies: deque[tuple[float, bool]] = deque()
        self._limited = 0
        self._shrunk_at = -_WINDOW
        self._paused_until = 0.0
        self._is_paused = False

    @property
    def limit(self) -> int:
        """Calls that may be in flight now."""
        return int(self._limit)

    @property
    def in_flight(self) -> int:
        """Calls that hold a slot."""
        return self._in_flight

    @property
    def waiting(self) -> int:
        """Calls that wait for a slot."""
        return len(self._waiters)

    @property
    def pause_left(self) -> float:
        """Seconds until new calls may start again; 0 when the server asked for no pause."""
        return max(0.0, self._paused_until - self._clock()) if self._is_paused else 0.0

    def try_acquire(self) -> bool:
        """Take a slot if one is free and nobody waits: the common case, without a coroutine."""
        if self._is_paused or self._waiters or self._in_flight >= int(self._limit):
            return False
        self._in_flight += 1
        return True

    async def acquire(self) -> None:
        """Take a slot, waiting for one when there is none."""
        if self.try_acquire():
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.cancelled():
                with suppress(ValueError):  # already passed over
                    self._waiters.remove(waiter)
            else:  # the slot was handed over in the same turn of the loop as the cancellation: pass it on
                self._in_flight -= 1
                self._wake()
            raise

    def release(self) -> None:
        """Give a slot back."""
        self._in_flight -= 1
        if self._waiters:
            self._wake()

    def note_success(self) -> None:
        """A good reply came."""
        self._note(is_limited=False)
        if self._limit < self.maximum and self._clock() - self._shrunk_at >= _WINDOW:
            step = max(1.0, self.maximum / _RECOVERY_ROUNDS) / self._limit
            self._limit = min(float(self.maximum), self._limit + step)
            self._wake()

    def note_error(self, error: BaseException) -> None:
        """A call failed; counts when the server said so, and not when no reply came."""
        if not isinstance(error, BackendError):
            return
        is_limited = isinstance(error, RateLimitedError)
        if not isinstance(error, (ServerFaultError, BackendTimeoutError)):
            self._note(is_limited=is_limited)
        retry_after = error.retry_after if isinstance(error, TransientBackendError) else None
        if retry_after is not None:
            self._shrink()
            self._pause(min(retry_after, LONGEST_PAUSE))
        elif is_limited and self._limited > _TOLERATED * len(self._replies):
            self._shrink()

    def _note(self, *, is_limited: bool) -> None:
        now = self._clock()
        replies = self._replies
        replies.append((now, is_limited))
        self._limited += is_limited
        while replies[0][0] <= now - _WINDOW:
            self._limited -= replies.popleft()[1]

    def _shrink(self) -> None:
        now = self._clock()
        if now - self._shrunk_at >= _WINDOW:
            self._shrunk_at = now
            self._limit = float(max(1, int(self._limit) // 2))

    def _pause(self, seconds: float) -> None:
        until = self._clock() + seconds
        if seconds <= 0 or until <= self._paused_until:
            return
        self._paused_until = until
        if not self._is_paused:
            self._is_paused = True
            self._schedule(seconds)

    def _schedule(self, seconds: float) -> None:
        call_later = self._call_later or asyncio.get_running_loop().call_later
        call_later(seconds, self._end_pause)

    def _end_pause(self) -> None:
        left = self._paused_until - self._clock()
        if left > 1e-6:  # prolonged by a later reply
            self._schedule(left)
            return
        self._is_paused = False
        self._wake()

    def _wake(self) -> None:
        while self._waiters and not self._is_paused and self._in_flight < int(self._limit):
            waiter = self._waiters.popleft()
            if not waiter.done():
                self._in_flight += 1
                waiter.set_result(None)

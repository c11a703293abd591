from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable

import pytest

from rlaif.engine.limiter import LONGEST_PAUSE, Limiter
from rlaif.errors import (
    BackendTimeoutError,
    MalformedReplyError,
    RateLimitedError,
    RequestRefusedError,
    ServerFaultError,
)


class FakeClock:
    """Time that passes only when told to."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def __call__(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (self.now + delay, next(self._order), callback))

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while self._timers and self._timers[0][0] <= end:
            self.now, _, callback = heapq.heappop(self._timers)
            callback()
        self.now = end


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def make(maximum: int, clock: FakeClock) -> Limiter:
    return Limiter(maximum, clock=clock, call_later=clock.call_later)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_a_maximum_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="maximum: 0, expected at least 1"):
        Limiter(0)


async def test_no_more_than_the_limit_are_in_flight_and_all_get_their_turn() -> None:
    limiter = Limiter(3)
    now, most, done = 0, 0, 0

    async def call() -> None:
        nonlocal now, most, done
        await limiter.acquire()
        now += 1
        most = max(most, now)
        await asyncio.sleep(0)
        now -= 1
        done += 1
        limiter.release()

    await asyncio.gather(*(call() for _ in range(50)))
    assert (most, done, limiter.in_flight, limiter.waiting) == (3, 50, 0, 0)


async def test_first_come_first_served(clock: FakeClock) -> None:
    limiter = make(1, clock)
    assert limiter.try_acquire()
    served: list[int] = []

    async def call(number: int) -> None:
        await limiter.acquire()
        served.append(number)

    tasks = [asyncio.create_task(call(number)) for number in range(4)]
    await settle()
    assert not limiter.try_acquire()
    for expected in range(4):
        limiter.release()
        assert not limiter.try_acquire(), "a newcomer must not overtake"
        await settle()
        assert served == list(range(expected + 1))
    await asyncio.gather(*tasks)


async def test_a_cancelled_waiter_is_passed_over(clock: FakeClock) -> None:
    limiter = make(1, clock)
    assert limiter.try_acquire()
    first = asyncio.create_task(limiter.acquire())
    second = asyncio.create_task(limiter.acquire())
    await settle()
    first.cancel()
    limiter.release()  # before the cancelled task has run
    await settle()
    assert first.cancelled()
    assert second.done()
    assert (limiter.in_flight, limiter.waiting) == (1, 0)


async def test_a_waiter_cancelled_with_its_slot_in_hand_passes_it_on(clock: FakeClock) -> None:
    limiter = make(1, clock)
    assert limiter.try_acquire()
    first = asyncio.create_task(limiter.acquire())
    second = asyncio.create_task(limiter.acquire())
    await settle()
    limiter.release()  # the slot is first's ...
    first.cancel()  # ... which is cancelled before it could run
    await settle()
    assert first.cancelled()
    assert second.done()
    limiter.release()
    assert (limiter.in_flight, limiter.waiting) == (0, 0)
    assert limiter.try_acquire()


def test_more_than_a_tenth_of_429_halves_the_limit_once_a_second(clock: FakeClock) -> None:
    limiter = make(64, clock)
    for _ in range(89):
        limiter.note_success()
    for _ in range(9):
        limiter.note_error(RateLimitedError("slow down"))
    assert limiter.limit == 64  # 9 of 98
    limiter.note_error(RateLimitedError("slow down"))
    assert limiter.limit == 32  # 10 of 99
    limiter.note_error(RateLimitedError("slow down"))
    assert limiter.limit == 32, "what was in flight reports the same overload"
    clock.advance(1.0)
    limiter.note_error(RateLimitedError("slow down"))
    assert limiter.limit == 16  # 1 of 1: the earlier second is forgotten


def test_it_never_falls_below_one(clock: FakeClock) -> None:
    limiter = make(5, clock)
    limits = []
    for _ in range(5):
        limiter.note_error(RateLimitedError("slow down"))
        limits.append(limiter.limit)
        clock.advance(1.0)
    assert limits == [2, 1, 1, 1, 1]
    assert limiter.try_acquire()


def test_faults_that_are_no_429_leave_the_limit(clock: FakeClock) -> None:
    limiter = make(8, clock)
    for error in (ServerFaultError("500"), MalformedReplyError("cut"), BackendTimeoutError("late"), KeyError("ours")):
        limiter.note_error(error)
    assert limiter.limit == 8


def test_refusals_count_as_replies(clock: FakeClock) -> None:
    limiter = make(8, clock)
    for _ in range(9):
        limiter.note_error(RequestRefusedError("no"))
    limiter.note_error(RateLimitedError("slow down"))  # 1 of 10 is not more than a tenth
    assert limiter.limit == 8


def test_good_replies_bring_it_back_to_the_maximum_and_no_further(clock: FakeClock) -> None:
    limiter = make(64, clock)
    limiter.note_error(RateLimitedError("slow down"))
    limiter.note_success()
    assert limiter.limit == 32, "not within the second of the shrinking"
    clock.advance(1.0)
    for _ in range(32):
        limiter.note_success()
    assert 35 <= limiter.limit <= 36  # one round of 32 good replies: about 64 / 16 = 4 more
    for _ in range(1000):
        limiter.note_success()
    assert limiter.limit == 64


async def test_a_raised_limit_wakes_waiters(clock: FakeClock) -> None:
    limiter = make(2, clock)
    limiter.note_error(RateLimitedError("slow down"))
    assert limiter.try_acquire()
    waiter = asyncio.create_task(limiter.acquire())
    await settle()
    assert not waiter.done()
    clock.advance(1.0)
    limiter.note_success()
    await settle()
    assert waiter.done()
    assert limiter.limit == 2


async def test_retry_after_halves_and_holds_new_calls_back(clock: FakeClock) -> None:
    limiter = make(8, clock)
    limiter.note_error(ServerFaultError("overloaded", retry_after=5.0))
    assert limiter.limit == 4
    assert limiter.pause_left == 5.0
    assert not limiter.try_acquire()
    waiters = [asyncio.create_task(limiter.acquire()) for _ in range(6)]
    await settle()
    clock.advance(4.9)
    await settle()
    assert limiter.in_flight == 0
    clock.advance(0.1)
    await settle()
    assert (limiter.in_flight, limiter.waiting) == (4, 2)
    assert limiter.pause_left == 0.0
    for waiter in waiters:
        waiter.cancel()
    await settle()


async def test_a_longer_retry_after_prolongs_the_pause_and_a_shorter_one_does_not(clock: FakeClock) -> None:
    limiter = make(8, clock)
    limiter.note_error(RateLimitedError("wait", retry_after=5.0))
    clock.advance(2.0)
    limiter.note_error(RateLimitedError("wait", retry_after=1.0))
    assert limiter.pause_left == 3.0
    limiter.note_error(RateLimitedError("wait", retry_after=10.0))
    assert limiter.pause_left == 10.0
    clock.advance(9.0)
    assert not limiter.try_acquire()
    clock.advance(1.0)
    assert limiter.try_acquire()


async def test_a_pause_is_bounded(clock: FakeClock) -> None:
    limiter = make(2, clock)
    limiter.note_error(RateLimitedError("come back tomorrow", retry_after=86400.0))
    assert limiter.pause_left == LONGEST_PAUSE == 600.0


async def test_retry_after_zero_halves_without_a_pause(clock: FakeClock) -> None:
    limiter = make(4, clock)
    limiter.note_error(RateLimitedError("wait", retry_after=0.0))
    assert limiter.limit == 2
    assert limiter.try_acquire()


async def test_the_real_clock_ends_a_pause() -> None:
    limiter = Limiter(2)
    limiter.note_error(RateLimitedError("wait", retry_after=0.05))
    assert not limiter.try_acquire()
    await asyncio.wait_for(limiter.acquire(), 10)
    assert limiter.pause_left == 0.0

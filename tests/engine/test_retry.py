from __future__ import annotations

import asyncio
import random

import pytest

from rlaif.engine.limiter import Limiter
from rlaif.engine.retry import attempts_of, call_with_retries
from rlaif.errors import (
    BackendTimeoutError,
    BackendUnusableError,
    MalformedReplyError,
    RateLimitedError,
    RequestRefusedError,
    ServerFaultError,
    TransientBackendError,
)


class Flaky:
    """Raises the given errors one after another, then answers."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)
        self.calls = 0

    async def __call__(self) -> str:
        self.calls += 1
        if self._errors:
            raise self._errors.pop(0)
        return "answer"


class Sleeps(list[float]):
    """Records how long was slept, and does not."""

    async def __call__(self, seconds: float) -> None:
        self.append(seconds)


async def test_a_call_that_succeeds_is_made_once() -> None:
    call, sleeps = Flaky(), Sleeps()
    assert await call_with_retries(call, max_retries=3, sleep=sleeps) == "answer"
    assert (call.calls, sleeps) == (1, [])


async def test_each_transient_error_is_followed_by_another_attempt() -> None:
    errors = (RateLimitedError("429"), ServerFaultError("500"), BackendTimeoutError("late"), MalformedReplyError("cut"))
    call, sleeps = Flaky(*errors), Sleeps()
    heard: list[tuple[str, int, float]] = []

    def on_retry(error: TransientBackendError, attempts: int, seconds: float) -> None:
        heard.append((error.error_name, attempts, seconds))

    answer = await call_with_retries(call, max_retries=4, on_retry=on_retry, sleep=sleeps, rng=random.Random(1))
    assert answer == "answer"
    assert call.calls == 5
    assert [(name, attempts) for name, attempts, _ in heard] == [
        ("RateLimitedError", 1),
        ("ServerFaultError", 2),
        ("BackendTimeoutError", 3),
        ("MalformedReplyError", 4),
    ]
    assert [seconds for *_, seconds in heard] == sleeps


async def test_the_last_error_is_raised_with_the_number_of_attempts() -> None:
    call, sleeps = Flaky(*(ServerFaultError(f"fault {number}") for number in range(9))), Sleeps()
    with pytest.raises(ServerFaultError, match="fault 3") as caught:
        await call_with_retries(call, max_retries=3, sleep=sleeps)
    assert attempts_of(caught.value) == 4
    assert (call.calls, len(sleeps)) == (4, 3)


@pytest.mark.parametrize("error", [RequestRefusedError("400"), BackendUnusableError("401"), ZeroDivisionError("ours")])
async def test_other_errors_are_raised_at_once(error: Exception) -> None:
    call, sleeps = Flaky(error), Sleeps()
    with pytest.raises(type(error)) as caught:
        await call_with_retries(call, max_retries=3, sleep=sleeps)
    assert caught.value is error
    assert attempts_of(error) == 1
    assert (call.calls, sleeps) == (1, [])


async def test_a_refusal_after_a_fault_ends_the_attempts_and_counts_them() -> None:
    call = Flaky(ServerFaultError("500"), RequestRefusedError("400"))
    with pytest.raises(RequestRefusedError) as caught:
        await call_with_retries(call, max_retries=3, sleep=Sleeps())
    assert attempts_of(caught.value) == 2


async def test_no_retries_means_one_attempt() -> None:
    call = Flaky(ServerFaultError("500"))
    with pytest.raises(ServerFaultError) as caught:
        await call_with_retries(call, max_retries=0, sleep=Sleeps())
    assert (call.calls, attempts_of(caught.value)) == (1, 1)


async def test_waits_are_drawn_from_ranges_that_double_up_to_a_bound() -> None:
    seen: list[list[float]] = []
    for seed in range(300):
        sleeps = Sleeps()
        call = Flaky(*(ServerFaultError("500") for _ in range(9)))
        await call_with_retries(call, max_retries=9, sleep=sleeps, rng=random.Random(seed))
        seen.append(sleeps)
    longest = [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    for number, bound in enumerate(longest):
        waits = [sleeps[number] for sleeps in seen]
        assert min(waits) < 0.1 * bound, "full jitter reaches down to nothing"
        assert 0.9 * bound < max(waits) <= bound


async def test_a_retry_after_is_waited_out_in_full() -> None:
    sleeps = Sleeps()
    call = Flaky(RateLimitedError("429", retry_after=7.0), ServerFaultError("503", retry_after=1e9))
    await call_with_retries(call, max_retries=5, sleep=sleeps)
    assert 7.0 <= sleeps[0] <= 7.5
    assert 600.0 <= sleeps[1] <= 601.0, "cut at ten minutes"


async def test_a_slot_is_held_during_an_attempt_and_not_while_waiting() -> None:
    limiter = Limiter(1)
    held: list[int] = []
    errors = [ServerFaultError("500")]

    async def call() -> str:
        held.append(limiter.in_flight)
        if errors:
            raise errors.pop()
        return "answer"

    async def sleep(_: float) -> None:
        held.append(limiter.in_flight)

    assert await call_with_retries(call, max_retries=1, limiter=limiter, sleep=sleep) == "answer"
    assert held == [1, 0, 1]
    assert limiter.in_flight == 0


async def test_every_way_out_gives_the_slot_back() -> None:
    limiter = Limiter(1)
    for error in (RequestRefusedError("400"), ZeroDivisionError("ours")):
        with pytest.raises(type(error)):
            await call_with_retries(Flaky(error), max_retries=0, limiter=limiter)
        assert limiter.in_flight == 0

    async def hang() -> None:
        await asyncio.Event().wait()

    task = asyncio.create_task(call_with_retries(hang, max_retries=2, limiter=limiter))
    await asyncio.sleep(0)
    assert limiter.in_flight == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert limiter.in_flight == 0


async def test_the_limiter_hears_of_outcomes() -> None:
    limiter = Limiter(8)
    call = Flaky(RateLimitedError("429", retry_after=0.0))
    await call_with_retries(call, max_retries=1, limiter=limiter, sleep=Sleeps())
    assert limiter.limit == 4

"""Making a call again when it failed for a reason that may pass: 429, 5xx, a timeout, a reset, a broken body.

The first attempt costs nothing extra; only a failed one brings in tenacity, which decides when to ask again.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from rlaif.engine.limiter import LONGEST_PAUSE, Limiter
from rlaif.errors import BackendError, TransientBackendError

if TYPE_CHECKING:
    from tenacity import RetryCallState

T = TypeVar("T")

FIRST_WAIT = 0.5
"""Seconds: the wait before attempt n + 1 is drawn evenly from 0 to FIRST_WAIT * 2 ** (n - 1)."""

LONGEST_WAIT = 30.0
"""Seconds: no wait is drawn from a longer range, whatever n."""

OnRetry = Callable[[TransientBackendError, int, float], None]
"""Called before each wait with what failed, how many attempts were made, and the seconds until the next."""


async def call_with_retries(
    call: Callable[[], Awaitable[T]],
    *,
    max_retries: int,
    limiter: Limiter | None = None,
    on_retry: OnRetry | None = None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    rng: random.Random | None = None,
) -> T:
    """Make a call, and make it again while it fails in passing.

    A slot of the limiter is held during each attempt and given back while waiting for the next.

    Args:
        call: Makes one attempt.
        max_retries: Attempts after the first, at most; 0 for backends in this process: asking again does not help.
        limiter: Told of each outcome; None leaves the number of calls in flight to others.
        on_retry: Hears of each failed attempt that is followed by another.
        sleep, rng: Replaced in tests.

    Returns:
        What `call` returned.

    Raises:
        TransientBackendError: Of the last attempt, when all failed.
        BackendError: Any other, at once. `attempts` of either says how many were made.
    """
    try:
        return await _attempt(call, limiter)
    except TransientBackendError as error:
        error.attempts = 1
        if max_retries < 1:
            raise
        first_error = error
    return await _continue(call, first_error, max_retries, limiter, on_retry, sleep, rng or random.Random())


def attempts_of(error: BaseException) -> int:
    """How many times the call was made before this error was raised; 1 where that was not counted."""
    return error.attempts if isinstance(error, BackendError) else 1


async def _attempt(call: Callable[[], Awaitable[T]], limiter: Limiter | None) -> T:
    if limiter is None:
        return await call()
    if not limiter.try_acquire():
        await limiter.acquire()
    try:
        result = await call()
    except BackendError as error:
        limiter.note_error(error)
        raise
    else:
        limiter.note_success()
        return result
    finally:
        limiter.release()


async def _continue(
    call: Callable[[], Awaitable[T]],
    first_error: TransientBackendError,
    max_retries: int,
    limiter: Limiter | None,
    on_retry: OnRetry | None,
    sleep: Callable[[float], Awaitable[None]],
    rng: random.Random,
) -> T:
    from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt  # only runs with faults pay for it

    attempts = 0

    async def attempt() -> T:
        # tenacity's first attempt is the one already made: it fails again with the same error, unasked
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            raise first_error
        try:
            return await _attempt(call, limiter)
        except BackendError as error:
            error.attempts = attempts
            raise

    def wait(state: RetryCallState) -> float:
        return _seconds_to_wait(_error_of(state), state.attempt_number, rng)

    def tell(state: RetryCallState) -> None:
        if on_retry is not None:
            on_retry(_error_of(state), state.attempt_number, state.next_action.sleep if state.next_action else 0.0)

    retrying = AsyncRetrying(
        sleep=sleep,
        stop=stop_after_attempt(max_retries + 1),
        wait=wait,
        retry=retry_if_exception_type(TransientBackendError),
        before_sleep=tell,
        reraise=True,
    )
    return await retrying(attempt)


def _error_of(state: RetryCallState) -> TransientBackendError:
    error = state.outcome.exception() if state.outcome is not None else None
    assert isinstance(error, TransientBackendError)
    return error


def _seconds_to_wait(error: TransientBackendError, attempts: int, rng: random.Random) -> float:
    """Full jitter; after a Retry-After on top of it, so that what waited together does not return together."""
    drawn = rng.uniform(0.0, min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(attempts - 1, 16)))
    return drawn + min(error.retry_after or 0.0, LONGEST_PAUSE)

"""Waiting for a judge that is down, without mistaking one request that it cannot answer for that.

The retries of one call live in `rlaif.engine.retry`; this begins where they have ended.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from rlaif.engine.rows import LOST_ROWS_THAT_STOP
from rlaif.errors import BackendUnusableError, RlaifError, TransientBackendError

if TYPE_CHECKING:
    from tenacity import RetryCallState

T = TypeVar("T")

FIRST_WAIT = 1.0
"""Seconds: the wait before the judge is tried again is drawn evenly from half of this to this, and doubles."""

LONGEST_WAIT = 30.0
"""Seconds."""

_OWN_FAULTS = 2
"""Times that a call fails, with all its retries, while the judge answers another: the fault is then the call's own."""

_MOST_OUTAGES = 8
"""Outages that one call lives through: a judge that goes down each time that it is made does so because of it."""


class Patience:
    """Makes calls to one judge, and makes them again when it was down. Used on one event loop.

    When a call has failed in passing, with all its retries, a plain question (`probe`) tells whether the judge is down.
    If it is, everyone waits, and the question is asked again and again until it is answered.

    Args:
        name: The judge's, for messages.
        probe: Asks something harmless, once; raises `TransientBackendError` while the judge is down.
        seconds: How long an outage may last.
        on_warning: Told of each outage, once.
    """

    def __init__(
        self, name: str, probe: Callable[[], Awaitable[object]], seconds: float, on_warning: Callable[[str], None]
    ) -> None:
        self._name = name
        self._probe = probe
        self._seconds = seconds
        self._on_warning = on_warning
        self._outage: asyncio.Task[bool] | None = None
        self._lost_in_a_row = 0

    async def call(self, make: Callable[[], Awaitable[T]]) -> T:
        """What `make` returns.

        Raises:
            TransientBackendError: The judge answers, but not this call.
            BackendUnusableError: The judge was down for longer than there is patience, or answers nothing any more.
            RlaifError: As `make`.
        """
        own_faults = outages = 0
        while True:
            if self._outage is not None:
                await self._end_of_outage()
            try:
                result = await make()
            except TransientBackendError as error:
                fault = error
            except RlaifError:
                self._lost_in_a_row = 0  # it was answered
                raise
            else:
                self._lost_in_a_row = 0
                return result
            if await self._was_down(fault):
                outages += 1
            else:
                own_faults += 1
            if own_faults >= _OWN_FAULTS or outages >= _MOST_OUTAGES:
                self._count_lost(fault)
                raise fault

    def _count_lost(self, error: TransientBackendError) -> None:
        self._lost_in_a_row += 1
        if self._lost_in_a_row >= LOST_ROWS_THAT_STOP:
            raise BackendUnusableError(
                f"{self._name} answers a simple question, and failed on {self._lost_in_a_row} others in a row, "
                f"stopped: {error}"
            ) from error

    async def _was_down(self, error: TransientBackendError) -> bool:
        """Whether the judge had to be waited for; returns when it answers.

        Raises:
            BackendUnusableError: It does not.
        """
        if self._outage is None:
            self._outage = asyncio.create_task(self._wait(error))
            self._outage.add_done_callback(self._ended)
        return await self._end_of_outage()

    async def _end_of_outage(self) -> bool:
        assert self._outage is not None
        return await asyncio.shield(self._outage)  # one that is cancelled leaves the others waiting

    def _ended(self, outage: asyncio.Task[bool]) -> None:
        self._outage = None
        if not outage.cancelled():
            outage.exception()  # seen: those who wait raise it, and nobody may be left

    async def _wait(self, error: TransientBackendError) -> bool:
        from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay

        waited = False

        def tell(_: RetryCallState) -> None:
            nonlocal waited
            if not waited:
                self._on_warning(f"{self._name} is down ({error}); waiting for it up to {self._seconds:g} s")
            waited = True

        def wait(state: RetryCallState) -> float:
            longest = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(state.attempt_number - 1, 16))
            left = self._seconds - (state.seconds_since_start or 0.0)
            return max(0.0, min(random.uniform(longest / 2, longest), left))

        retrying = AsyncRetrying(
            stop=stop_after_delay(self._seconds),
            wait=wait,
            retry=retry_if_exception_type(TransientBackendError),
            before_sleep=tell,
            reraise=True,
        )
        try:
            await retrying(self._ask_probe)
        except TransientBackendError as last:
            raise BackendUnusableError(
                f"{self._name} was down for {self._seconds:g} s, stopped: {last}; once it is back, the same command "
                "resumes the run (--judge-patience waits longer)"
            ) from last
        return waited

    async def _ask_probe(self) -> None:
        await self._probe()

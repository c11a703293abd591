"""Ctrl-C and SIGTERM: the first one stops the work in order, the second one ends the process at once."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn, Protocol, TypeVar

Result = TypeVar("Result")

EXIT_CODE = 130
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SHOW_CURSOR = b"\x1b[?25h\n"


def run_interruptible(work: Coroutine[Any, Any, Result], on_stopping: Callable[[], None]) -> Result:
    """`asyncio.run`, whose work is cancelled by the first SIGINT or SIGTERM.

    Args:
        work: What to run; it keeps what is done when it is cancelled.
        on_stopping: Called on the event loop after the first signal.

    Returns:
        What the work returns, when it came to its end.

    Raises:
        KeyboardInterrupt: It was interrupted. A second signal raises nothing: the process ends with exit code 130, and
            what was committed is on disk.
    """
    running: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = []
    is_stopping = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal is_stopping
        if is_stopping:
            _end_at_once()
        is_stopping = True
        if not running:
            raise KeyboardInterrupt
        loop, task = running[0]
        loop.call_soon_threadsafe(on_stopping)
        loop.call_soon_threadsafe(task.cancel)

    async def supervised() -> Result:
        task = asyncio.current_task()
        assert task is not None
        running.append((asyncio.get_running_loop(), task))
        return await work

    previous = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        return asyncio.run(supervised())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        work.close()


class StoppableDisplay(Protocol):
    """What shows the work that is to be stopped."""

    @property
    def is_stepping(self) -> bool:
        """Whether steps are going on that can be ended in order."""

    def stop(self) -> None:
        """Have the work stop after the step, and say so. Called from a signal handler."""


@contextmanager
def stopping_after_the_step(display: StoppableDisplay) -> Iterator[None]:
    """While it lasts, the first SIGINT or SIGTERM stops steps in order, and anything else at once.

    Args:
        display: Told to stop while it shows steps; the work then ends in order and raises `KeyboardInterrupt`. A second
            signal ends the process with exit code 130, and what was committed is on disk.

    Raises:
        KeyboardInterrupt: A signal came while there were no steps.
    """
    is_told = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal is_told
        if is_told:
            _end_at_once()
        is_told = True
        if not display.is_stepping:
            raise KeyboardInterrupt
        display.stop()

    previous = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _end_at_once() -> NoReturn:
    if sys.stderr.isatty():
        os.write(2, _SHOW_CURSOR)  # a progress bar hides it
    os._exit(EXIT_CODE)

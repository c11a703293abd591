"""Ctrl-C and SIGTERM: the first one stops the work in order, the second one ends the process at once."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, TypeVar

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
            if sys.stderr.isatty():
                os.write(2, _SHOW_CURSOR)  # a progress bar hides it
            os._exit(EXIT_CODE)
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

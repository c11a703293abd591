"""How far a run is, on stderr: a bar on a terminal, a line every few seconds elsewhere, nothing when quiet."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from rlaif.backends.registry import demonstration_warnings
from rlaif.cli.terminal import say

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    from rlaif.engine.listening import Progress

SECONDS_BETWEEN_LINES = 5.0
CALL_WINDOW_SECONDS = 10.0
ROW_WINDOW_SECONDS = 60.0
"""Time left is judged by the last minute: rows answered from the journal fly by, and say nothing of those to come."""


class RunDisplay(Protocol):
    """A listener of the engine that also knows when to leave the screen, and what it has seen."""

    @property
    def latest(self) -> Progress | None:
        """The last progress reported; None before the first."""

    def on_start(self, rows_total: int, judges: tuple[str, ...], replies_in_journal: int) -> None: ...

    def on_progress(self, progress: Progress) -> None: ...

    def on_message(self, text: str) -> None: ...

    def on_warning(self, text: str) -> None: ...

    def close(self) -> None:
        """Leave the screen in order; safe to call twice."""


def display_for(*, is_quiet: bool, doing: str = "judging") -> RunDisplay:
    """The display that suits this process; `doing` is what is done to rows."""
    if is_quiet:
        return QuietDisplay()
    return BarDisplay(doing) if sys.stderr.isatty() else LineDisplay(doing)


class Rate:
    """How fast a count grows of late: what a run does now, not what it did on average.

    >>> rate = Rate(10.0)
    >>> rate.add(seconds=0.0, count=0), rate.add(seconds=2.0, count=50)
    (0.0, 25.0)
    """

    def __init__(self, window_seconds: float) -> None:
        self._window = window_seconds
        self._points: deque[tuple[float, int]] = deque()

    def add(self, seconds: float, count: int) -> float:
        """Take in the count at a time; returns its growth per second over the window."""
        self._points.append((seconds, count))
        while len(self._points) > 2 and seconds - self._points[0][0] > self._window:
            self._points.popleft()
        then, count_then = self._points[0]
        return (count - count_then) / (seconds - then) if seconds > then else 0.0


class QuietDisplay:
    """Remembers, and says nothing but warnings, such as that a judge is for demonstration: nobody may overlook that."""

    def __init__(self) -> None:
        self.latest: Progress | None = None

    def on_start(self, rows_total: int, judges: tuple[str, ...], replies_in_journal: int) -> None:
        for warning in demonstration_warnings(judges):
            say(warning)

    def on_progress(self, progress: Progress) -> None:
        self.latest = progress

    def on_message(self, text: str) -> None:
        return

    def on_warning(self, text: str) -> None:
        say(f"warning: {text}")

    def close(self) -> None:
        return


class LineDisplay(QuietDisplay):
    """Plain lines, for logs and pipes."""

    def __init__(self, doing: str = "judging") -> None:
        super().__init__()
        self._doing = doing
        self._calls = Rate(CALL_WINDOW_SECONDS)
        self._rows = Rate(ROW_WINDOW_SECONDS)
        self._next_line = 0.0

    def on_start(self, rows_total: int, judges: tuple[str, ...], replies_in_journal: int) -> None:
        self.on_message(started(rows_total, judges, replies_in_journal, self._doing))
        for warning in demonstration_warnings(judges):
            self.on_message(warning)
        self._next_line = time.monotonic() + SECONDS_BETWEEN_LINES

    def on_progress(self, progress: Progress) -> None:
        super().on_progress(progress)
        parts = self._details(progress)
        now = time.monotonic()
        if now >= self._next_line:
            self._next_line = now + SECONDS_BETWEEN_LINES
            done = f"{progress.rows_done:,}/{progress.rows_total:,} rows"
            self.on_message(" | ".join([done, *parts]))

    def on_message(self, text: str) -> None:
        say(text)

    def on_warning(self, text: str) -> None:
        self.on_message(f"warning: {text}")

    def _details(self, progress: Progress) -> list[str]:
        calls_per_second = self._calls.add(progress.seconds, progress.calls)
        return details(progress, calls_per_second, self._rows.add(progress.seconds, progress.rows_done))


class BarDisplay(LineDisplay):
    """A progress bar. Messages appear above it: while it lives, rich has put a proxy in the place of sys.stderr."""

    def __init__(self, doing: str = "judging") -> None:
        super().__init__(doing)
        self._bar: Bar | None = None
        self._task: TaskID | None = None

    def on_start(self, rows_total: int, judges: tuple[str, ...], replies_in_journal: int) -> None:
        super().on_start(rows_total, judges, replies_in_journal)
        self._bar = new_bar()
        self._task = self._bar.add_task("", total=rows_total)
        self._bar.start()

    def on_progress(self, progress: Progress) -> None:
        self.latest = progress
        parts = self._details(progress)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=progress.rows_done, description=" · ".join(parts))

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class StagedDisplay:
    """Shows work that starts more than once, each time with a display of its own.

    Args:
        doing: What is done to rows, start by start.
        is_quiet: Whether only warnings are shown.
    """

    def __init__(self, doing: Sequence[str], *, is_quiet: bool) -> None:
        self._coming = [display_for(is_quiet=is_quiet, doing=each) for each in doing]
        self._shown = self._coming[0]

    @property
    def latest(self) -> Progress | None:
        return self._shown.latest

    def on_start(self, rows_total: int, judges: tuple[str, ...], replies_in_journal: int) -> None:
        self._shown.close()
        self._shown = self._coming.pop(0)
        self._shown.on_start(rows_total, judges, replies_in_journal)

    def on_progress(self, progress: Progress) -> None:
        self._shown.on_progress(progress)

    def on_message(self, text: str) -> None:
        self._shown.on_message(text)

    def on_warning(self, text: str) -> None:
        self._shown.on_warning(text)

    def close(self) -> None:
        self._shown.close()


def new_bar() -> Bar:
    """A bar on stderr with a count and a text, not yet started; it leaves the screen when it stops."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    return Bar(
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.description}", markup=False),
        console=Console(stderr=True),
        refresh_per_second=5,
        transient=True,
    )


def started(rows_total: int, judges: tuple[str, ...], replies_in_journal: int, doing: str = "judging") -> str:
    """The first line of a run.

    >>> started(1000, ("openai:m",), 40)
    'judging 1,000 rows with openai:m; the journal holds 40 replies, which are not asked again'
    """
    resumed = f"; the journal holds {replies_in_journal:,} replies, which are not asked again"
    return f"{doing} {rows_total:,} rows with {', '.join(judges)}" + (resumed if replies_in_journal else "")


def details(progress: Progress, calls_per_second: float, rows_per_second: float) -> list[str]:
    """What stands beside the row count: rate, tokens, cost, failures, retries, time left."""
    tokens = progress.usage.prompt_tokens + progress.usage.completion_tokens
    parts = [f"{calls_per_second:,.0f} calls/s", f"{tokens:,} tokens"]
    if progress.cost is not None:
        parts.append(money(progress.cost))
    if progress.failures:
        parts.append(f"{progress.failures:,} failed")
    if progress.retries:
        parts.append(f"{progress.retries:,} retries")
    remaining = progress.rows_total - progress.rows_done
    if remaining > 0 and rows_per_second > 0:
        parts.append(f"{duration(remaining / rows_per_second)} left")
    return parts


def duration(seconds: float) -> str:
    """Hours, minutes and seconds.

    >>> duration(3.2), duration(75), duration(7325)
    ('0:03', '1:15', '2:02:05')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def money(usd: float) -> str:
    """US dollars, with the digits that small sums need.

    >>> money(0.00042), money(12.5)
    ('$0.0004', '$12.50')
    """
    return f"${usd:,.2f}" if usd >= 1 else f"${usd:.4f}"

"""How far a run is, on stderr: a bar on a terminal, a line every few seconds elsewhere, nothing when quiet."""

from __future__ import annotations

import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Protocol

from rlaif.cli.terminal import say

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    from rlaif.engine.labeling import Progress

SECONDS_BETWEEN_LINES = 5.0
RATE_WINDOW_SECONDS = 10.0

DEMONSTRATION_WARNING = (
    "builtin:tiny is a demonstration judge: it shows how the pipeline works, and is not meant to label anyone's data"
)


class RunDisplay(Protocol):
    """A listener of the engine that also knows when to leave the screen, and what it has seen."""

    @property
    def latest(self) -> Progress | None:
        """The last progress reported; None before the first."""

    def on_start(self, rows_total: int, judges: tuple[str, ...], replies_in_journal: int) -> None: ...

    def on_progress(self, progress: Progress) -> None: ...

    def on_message(self, text: str) -> None: ...

    def close(self) -> None:
        """Leave the screen in order; safe to call twice."""


def display_for(*, is_quiet: bool) -> RunDisplay:
    """The display that suits this process."""
    if is_quiet:
        return QuietDisplay()
    return BarDisplay() if sys.stderr.isatty() else LineDisplay()


class Rate:
    """Calls per second over the last ten seconds: what a run does now, not what it did on average.

    >>> rate = Rate()
    >>> rate.add(seconds=0.0, calls=0), rate.add(seconds=2.0, calls=50)
    (0.0, 25.0)
    """

    def __init__(self) -> None:
        self._points: deque[tuple[float, int]] = deque()

    def add(self, seconds: float, calls: int) -> float:
        """Take in a count and return the rate."""
        self._points.append((seconds, calls))
        while len(self._points) > 2 and seconds - self._points[0][0] > RATE_WINDOW_SECONDS:
            self._points.popleft()
        then, calls_then = self._points[0]
        return (calls - calls_then) / (seconds - then) if seconds > then else 0.0


class QuietDisplay:
    """Remembers, and says nothing."""

    def __init__(self) -> None:
        self.latest: Progress | None = None

    def on_start(self, rows_total: int, judges: tuple[str, ...], replies_in_journal: int) -> None:
        return

    def on_progress(self, progress: Progress) -> None:
        self.latest = progress

    def on_message(self, text: str) -> None:
        return

    def close(self) -> None:
        return


class LineDisplay(QuietDisplay):
    """Plain lines, for logs and pipes."""

    def __init__(self) -> None:
        super().__init__()
        self._rate = Rate()
        self._next_line = 0.0

    def on_start(self, rows_total: int, judges: tuple[str, ...], replies_in_journal: int) -> None:
        self.on_message(started(rows_total, judges, replies_in_journal))
        if any(is_demonstration(judge) for judge in judges):
            self.on_message(DEMONSTRATION_WARNING)
        self._next_line = time.monotonic() + SECONDS_BETWEEN_LINES

    def on_progress(self, progress: Progress) -> None:
        super().on_progress(progress)
        rate = self._rate.add(progress.seconds, progress.calls)
        now = time.monotonic()
        if now >= self._next_line:
            self._next_line = now + SECONDS_BETWEEN_LINES
            done = f"{progress.rows_done:,}/{progress.rows_total:,} rows"
            self.on_message(" | ".join([done, *details(progress, rate)]))

    def on_message(self, text: str) -> None:
        say(text)


class BarDisplay(LineDisplay):
    """A progress bar, with messages above it."""

    def __init__(self) -> None:
        super().__init__()
        self._bar: Bar | None = None
        self._task: TaskID | None = None

    def on_start(self, rows_total: int, judges: tuple[str, ...], replies_in_journal: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bar

        super().on_start(rows_total, judges, replies_in_journal)
        self._bar = Bar(
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.description}", markup=False),
            console=Console(stderr=True),
            refresh_per_second=5,
            transient=True,
        )
        self._task = self._bar.add_task("", total=rows_total)
        self._bar.start()

    def on_progress(self, progress: Progress) -> None:
        self.latest = progress
        rate = self._rate.add(progress.seconds, progress.calls)
        if self._bar is not None and self._task is not None:
            text = " · ".join(details(progress, rate))
            self._bar.update(self._task, completed=progress.rows_done, total=progress.rows_total, description=text)

    def on_message(self, text: str) -> None:
        # While the bar lives, rich has put a proxy in the place of sys.stderr, which prints above the bar.
        say(text)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def started(rows_total: int, judges: tuple[str, ...], replies_in_journal: int) -> str:
    """The first line of a run.

    >>> started(1000, ("openai:m",), 40)
    'labeling 1,000 rows with openai:m; the journal holds 40 replies, which are not asked again'
    """
    resumed = f"; the journal holds {replies_in_journal:,} replies, which are not asked again"
    return f"labeling {rows_total:,} rows with {', '.join(judges)}" + (resumed if replies_in_journal else "")


def details(progress: Progress, calls_per_second: float) -> list[str]:
    """What stands beside the row count: rate, tokens, cost, failures, retries, time left."""
    tokens = progress.usage.prompt_tokens + progress.usage.completion_tokens
    parts = [f"{calls_per_second:,.0f} calls/s", f"{tokens:,} tokens"]
    if progress.cost is not None:
        parts.append(money(progress.cost))
    if progress.failures:
        parts.append(f"{progress.failures:,} failed")
    if progress.retries:
        parts.append(f"{progress.retries:,} retries")
    left = seconds_left(progress)
    if left is not None:
        parts.append(f"{duration(left)} left")
    return parts


def seconds_left(progress: Progress) -> float | None:
    """Seconds until the last row, at this session's pace; None while there is none to judge by, or nothing left."""
    remaining = progress.rows_total - progress.rows_done
    if remaining <= 0 or progress.rows_done == 0:
        return None
    return progress.seconds / progress.rows_done * remaining


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


def is_demonstration(judge: str) -> bool:
    """Whether a judge is one that ships to show the pipeline."""
    return judge.startswith("builtin:")

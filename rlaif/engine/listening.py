"""What a run tells whoever watches it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from rlaif.engine.asking import Asker, CallCounts
from rlaif.records import Usage


@dataclass(frozen=True)
class Progress:
    """How far a run is. `cost` is None without prices; `seconds` are those of this session."""

    rows_done: int
    rows_total: int
    failures: int
    calls: int
    replayed: int
    retries: int
    usage: Usage
    cost: float | None
    concurrency: int
    seconds: float


def progress_of(
    counts: CallCounts,
    askers: Sequence[Asker],
    prices: tuple[float, float] | None,
    *,
    rows_done: int,
    rows_total: int,
    failures: int,
    started: float,
) -> Progress:
    """How far those who are asked are; `started` is what `time.monotonic` said then."""
    return Progress(
        rows_done=rows_done,
        rows_total=rows_total,
        failures=failures,
        calls=counts.calls,
        replayed=counts.replayed,
        retries=counts.retries,
        usage=counts.usage,
        cost=counts.cost(prices),
        concurrency=sum(asker.limiter.limit for asker in askers),
        seconds=time.monotonic() - started,
    )


class Listener(Protocol):
    """Told what happens; the command line shows it, the Python API stays silent."""

    def on_start(self, rows_total: int, judges: tuple[str, ...], replies_in_journal: int) -> None: ...

    def on_progress(self, progress: Progress) -> None: ...

    def on_message(self, text: str) -> None: ...

    def on_warning(self, text: str) -> None: ...


class SilentListener:
    """Says nothing."""

    def on_start(self, rows_total: int, judges: tuple[str, ...], replies_in_journal: int) -> None:
        return None

    def on_progress(self, progress: Progress) -> None:
        return None

    def on_message(self, text: str) -> None:
        return None

    def on_warning(self, text: str) -> None:
        return None

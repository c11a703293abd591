"""What a run tells whoever watches it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

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

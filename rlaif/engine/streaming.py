"""Rows through asynchronous work into a run folder, whatever the rows are and whoever is asked: in a sliding window,
written in order, with failures, progress and `run.json` kept up to date. What is asked stands in the callers."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from rlaif.data.shards import RowWriter
from rlaif.engine.asking import Asker, CallCounts
from rlaif.engine.journal import Journal
from rlaif.engine.listening import Listener, Progress, progress_of
from rlaif.engine.run_folder import RunFolder, versions, without_queries
from rlaif.engine.window import map_in_order
from rlaif.records import Failure

if TYPE_CHECKING:
    import pyarrow as pa

PROGRESS_SECONDS = 0.1
ROWS_AHEAD = 4096
"""Rows that may be finished and wait for an earlier one; bounds memory when one call hangs."""

RowT = TypeVar("RowT")
OutcomeT = TypeVar("OutcomeT")
StatisticsT = TypeVar("StatisticsT", bound="Statistics[Any]")
OutcomeT_contra = TypeVar("OutcomeT_contra", contravariant=True)


class Statistics(Protocol[OutcomeT_contra]):
    """Counts over the outcomes of a run."""

    def add(self, outcome: OutcomeT_contra, /) -> None: ...

    def as_json(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class RunOutcome(Generic[StatisticsT]):
    """What a finished run did. `failures` counts rows without a result; they stand in `failures.jsonl`."""

    folder: Path
    rows: int
    failures: int
    progress: Progress
    statistics: StatisticsT


@dataclass
class Session:
    """One session of a run: where it writes, who is asked, and how far it is.

    Attributes:
        folder: The run folder, opened.
        journal: Its journal.
        listener: Told how far it is.
        askers: Who is asked.
        counts: What they have asked; shared by them.
        prices: USD per million prompt and completion tokens; None when unknown.
        rows_total: Rows of the input, those that cannot be read among them.
        command: How a person would repeat this.
        earlier: `run.json` of the session before; None in the first.
        failures: Rows without a result so far.
        rows: Rows with one.
    """

    folder: RunFolder
    journal: Journal
    listener: Listener
    askers: Sequence[Asker]
    counts: CallCounts
    prices: tuple[float, float] | None
    rows_total: int
    command: str
    earlier: Mapping[str, Any] | None
    failures: list[Failure] = field(default_factory=list)
    rows: int = 0
    started: float = field(default_factory=time.monotonic)
    started_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    @property
    def names(self) -> tuple[str, ...]:
        """`BACKEND:MODEL` of who is asked."""
        return tuple(asker.backend.name for asker in self.askers)

    @property
    def seconds_total(self) -> float:
        """Wall time of all sessions together."""
        before = float(self.earlier.get("seconds_total", 0.0)) if self.earlier else 0.0
        return before + time.monotonic() - self.started

    def progress(self) -> Progress:
        return progress_of(
            self.counts,
            self.askers,
            self.prices,
            rows_done=self.rows + len(self.failures),
            rows_total=self.rows_total,
            failures=len(self.failures),
            started=self.started,
        )

    def outcome(self, statistics: StatisticsT) -> RunOutcome[StatisticsT]:
        """What the run did, told to the listener for the last time."""
        progress = self.progress()
        self.listener.on_progress(progress)
        return RunOutcome(self.folder.path, self.rows, len(self.failures), progress, statistics)

    def facts(self) -> dict[str, Any]:
        """What `run.json` says of the session."""
        progress = self.progress()
        return {
            "calls": {"asked": progress.calls, "replayed": progress.replayed, "retries": progress.retries},
            "tokens": progress.usage._asdict(),
            "cost_usd": progress.cost,
            "seconds": round(progress.seconds, 3),
            "seconds_total": round(self.seconds_total, 3),
            "started_at": self.started_at,
            "repeat": without_queries(self.command),
            "versions": versions(),
        }


async def stream_rows(
    session: Session,
    rows: Iterable[RowT],
    attempt: Callable[[RowT], Awaitable[OutcomeT | Failure]],
    to_row: Callable[[RowT, OutcomeT], Mapping[str, Any]],
    schema: pa.Schema,
    describe: Callable[[str], None],
) -> Mapping[str, Any] | None:
    """Work on every row, many at once, and write what comes of them in their order.

    Args:
        session: Counts what happens.
        rows: Read only as far as there is room.
        attempt: One row's work; a `Failure` goes to `failures.jsonl`, an error stops the run.
        to_row: The row of the dataset that an outcome makes; called in order.
        schema: Of these rows.
        describe: Writes `run.json` with a status: running, or interrupted.

    Returns:
        The first row that was written.

    Raises:
        RlaifError: What `attempt` raised; what is done is kept.
    """
    describe("running")
    next_report = 0.0
    example: Mapping[str, Any] | None = None

    async def work(row: RowT) -> tuple[RowT, OutcomeT | Failure]:
        return row, await attempt(row)

    with RowWriter(session.folder.path, schema) as writer:

        def emit(done: tuple[RowT, OutcomeT | Failure]) -> None:
            nonlocal next_report, example
            row, outcome = done
            if isinstance(outcome, Failure):
                session.failures.append(outcome)
                session.journal.put_failure(outcome)
            else:
                session.rows += 1
                written = to_row(row, outcome)
                writer.write(written)
                example = example or written
            now = time.monotonic()
            if now >= next_report:
                next_report = now + PROGRESS_SECONDS
                session.listener.on_progress(session.progress())

        width = sum(asker.limiter.limit for asker in session.askers)
        try:
            await map_in_order(rows, work, emit, width=width, ahead=width + ROWS_AHEAD)
        except BaseException:
            session.listener.on_progress(session.progress())
            describe("interrupted")
            session.folder.write_failures(session.failures)
            raise
    session.folder.write_failures(session.failures)
    return example

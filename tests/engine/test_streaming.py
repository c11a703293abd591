"""Rows through any work into a run folder: in order, with failures, and nothing lost when it stops."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet

from rlaif.backends.fake import FakeBackend
from rlaif.engine.asking import Asker, CallCounts
from rlaif.engine.config import CallConfig
from rlaif.engine.journal import Journal
from rlaif.engine.listening import Progress, SilentListener
from rlaif.engine.run_folder import RunFolder
from rlaif.engine.streaming import Session, stream_rows
from rlaif.errors import RunFolderError
from rlaif.records import Failure

SCHEMA = pa.schema([("id", pa.string()), ("value", pa.int64())])


@dataclass
class Listening(SilentListener):
    told: list[Progress] = field(default_factory=list)

    def on_progress(self, progress: Progress) -> None:
        self.told.append(progress)


def session_in(folder: Path, journal: Journal, rows_total: int, **options: Any) -> Session:
    counts = CallCounts()
    asker = Asker(FakeBackend(lambda request: 0.5), journal, CallConfig(concurrency=4), counts)
    return Session(
        RunFolder(folder, "test"),
        journal,
        Listening(),
        [asker],
        counts,
        None,
        rows_total,
        "rlaif test",
        None,
        **options,
    )


@dataclass
class Ran:
    """What came of a stream."""

    session: Session
    statuses: list[str]
    example: Any = None
    error: BaseException | None = None

    @property
    def rows(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = parquet.read_table(self.session.folder.path / "data").to_pylist()
        return rows

    @property
    def failures(self) -> list[str]:
        lines = (self.session.folder.path / "failures.jsonl").read_text().splitlines()
        return [json.loads(line)["id"] for line in lines]


async def stream(
    folder: Path,
    count: int,
    attempt: Callable[[int], Awaitable[int | Failure]],
    to_row: Callable[[int, int], dict[str, Any]] = lambda row, value: {"id": str(row), "value": value},
    **options: Any,
) -> Ran:
    folder.mkdir(exist_ok=True)
    with closing(Journal(folder / "journal")) as journal:
        session = session_in(folder, journal, count, **options)
        ran = Ran(session, [])
        try:
            ran.example = await stream_rows(session, range(count), attempt, to_row, SCHEMA, ran.statuses.append)
        except BaseException as error:
            ran.error = error
    return ran


async def test_rows_come_out_in_order_whatever_finishes_first(tmp_path: Path) -> None:
    async def late_first(row: int) -> int:
        await asyncio.sleep(0.002 * (20 - row))
        return row * row

    ran = await stream(tmp_path, 20, late_first)
    assert ran.rows == [{"id": str(row), "value": row * row} for row in range(20)]
    assert ran.example == {"id": "0", "value": 0}
    assert ran.statuses == ["running"]
    assert (ran.session.rows, ran.session.failures) == (20, [])


async def test_rows_and_failures_are_the_input(tmp_path: Path) -> None:
    async def odd_ones_fail(row: int) -> int | Failure:
        return Failure(str(row), "stage", "why", 1) if row % 2 else row

    before = Failure("line 3", "input", "cannot be read", 0)
    ran = await stream(tmp_path, 10, odd_ones_fail, failures=[before])
    assert [row["id"] for row in ran.rows] == ["0", "2", "4", "6", "8"]
    assert ran.failures == ["line 3", "1", "3", "5", "7", "9"]
    with closing(Journal(tmp_path / "journal", read_only=True)) as journal:
        assert [journal.failures_of(str(row)) != [] for row in range(4)] == [False, True, False, True]
    last = ran.session.outcome(None)  # type: ignore[type-var]
    assert (last.rows, last.failures) == (5, 6)
    assert last.progress.rows_done == 11


async def test_no_more_rows_are_in_work_than_calls_may_be_in_flight(tmp_path: Path) -> None:
    working = most = 0

    async def counted(row: int) -> int:
        nonlocal working, most
        working += 1
        most = max(most, working)
        await asyncio.sleep(0)
        working -= 1
        return row

    await stream(tmp_path, 30, counted)
    assert most == 4


async def test_an_error_stops_the_run_and_leaves_it_to_resume(tmp_path: Path) -> None:
    async def stopping(row: int) -> int | Failure:
        if row == 1:
            return Failure("1", "stage", "why", 1)
        if row == 5:
            raise RunFolderError("the disk is full")
        return row

    ran = await stream(tmp_path, 10, stopping)
    assert isinstance(ran.error, RunFolderError)
    assert ran.statuses == ["running", "interrupted"]
    assert ran.failures == ["1"]
    assert not list((tmp_path / "data").glob("*.parquet"))
    assert isinstance(ran.session.listener, Listening)
    assert ran.session.listener.told[-1].rows_done >= 2


async def test_being_cancelled_is_an_interruption_too(tmp_path: Path) -> None:
    started = asyncio.Event()

    async def hanging(row: int) -> int:
        if row == 2:
            started.set()
            await asyncio.Event().wait()
        return row

    task = asyncio.create_task(stream(tmp_path, 5, hanging))
    await started.wait()
    task.cancel()
    ran = await task
    assert isinstance(ran.error, asyncio.CancelledError)
    assert ran.statuses == ["running", "interrupted"]
    assert ran.failures == []


async def test_a_row_that_cannot_be_made_stops_the_run(tmp_path: Path) -> None:
    async def work(row: int) -> int:
        return row

    def broken(row: int, value: int) -> dict[str, Any]:
        raise ZeroDivisionError

    ran = await stream(tmp_path, 3, work, broken)
    assert isinstance(ran.error, ZeroDivisionError)
    assert ran.statuses == ["running", "interrupted"]


async def test_no_rows_are_a_data_set_without_any(tmp_path: Path) -> None:
    async def work(row: int) -> int:
        raise AssertionError

    ran = await stream(tmp_path, 0, work)
    assert (ran.example, ran.rows, ran.failures) == (None, [], [])


def test_time_adds_up_over_sessions(tmp_path: Path) -> None:
    with closing(Journal(tmp_path / "journal")) as journal:
        session = session_in(tmp_path, journal, 1)
        assert 0 <= session.seconds_total < 60
        session.earlier = {"seconds_total": 1000.0}
        assert 1000 <= session.facts()["seconds_total"] < 1060
        assert session.facts()["seconds"] < 60
        assert session.names == ("fake:handler",)

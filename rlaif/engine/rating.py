"""`rlaif rate` without the command line: prompts with their responses in, ratings from 1 to 10 out."""

from __future__ import annotations

import asyncio
from typing import TypeAlias

from rlaif.backends.base import Backend
from rlaif.data.files import RowSource
from rlaif.data.ratings import arrow_schema, rating_schema, to_rating_row
from rlaif.data.sources import InputSummary, read_candidates, scan_candidates
from rlaif.data.statistics import RatingStatistics
from rlaif.engine.config import RateConfig
from rlaif.engine.listening import Listener
from rlaif.engine.rows import rating_panel
from rlaif.engine.running import Columns, RunKind, Table, run
from rlaif.engine.streaming import RunOutcome
from rlaif.judge.rating import RatingJudge
from rlaif.records import Candidates, Rating

RateOutcome: TypeAlias = RunOutcome[RatingStatistics]


def _table(summary: InputSummary, columns: Columns) -> Table[Candidates, tuple[Rating, ...]]:
    known = columns._asdict()
    del known["is_calibrated"], known["is_clamped"]  # only comparisons are
    schema = rating_schema(summary, **known)
    return Table(arrow_schema(schema), lambda candidates, ratings: to_rating_row(candidates, ratings, schema))


RATING: RunKind[Candidates, tuple[Rating, ...], RatingStatistics] = RunKind(
    command="rate",
    done="rated",
    scan=scan_candidates,
    read=lambda source, options, summary: read_candidates(source, options, summary=summary),
    judge=RatingJudge,
    panel=rating_panel,
    table=_table,
    statistics=RatingStatistics,
    unused=("orders", "debias", "clamp"),
)


def rate_file(
    config: RateConfig,
    listener: Listener | None = None,
    *,
    source: RowSource | None = None,
    backends: tuple[Backend, ...] | None = None,
    command: str = "",
) -> RateOutcome:
    """`run_rate`, blocking until done."""
    return asyncio.run(run_rate(config, listener, source=source, backends=backends, command=command))


async def run_rate(
    config: RateConfig,
    listener: Listener | None = None,
    *,
    source: RowSource | None = None,
    backends: tuple[Backend, ...] | None = None,
    command: str = "",
) -> RateOutcome:
    """Rate every response of `config.input` into the run folder `config.out`.

    Arguments and errors are those of `rlaif.engine.running.run`.
    """
    return await run(RATING, config, listener, source=source, backends=backends, command=command)

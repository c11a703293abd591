"""`rlaif label` without the command line: comparisons in, soft labels out."""

from __future__ import annotations

import asyncio
from typing import TypeAlias

from rlaif.backends.base import Backend
from rlaif.data.files import RowSource
from rlaif.data.preferences import arrow_schema, preference_schema, to_row
from rlaif.data.sources import InputSummary, read_comparisons, scan
from rlaif.data.statistics import LabelStatistics
from rlaif.engine.config import LabelConfig
from rlaif.engine.listening import Listener
from rlaif.engine.rows import pairwise_panel
from rlaif.engine.running import Columns, RunKind, RunOutcome, Table, run
from rlaif.judge.pairwise import PairwiseJudge
from rlaif.records import Comparison, Judgment

LabelOutcome: TypeAlias = RunOutcome[LabelStatistics]


def _table(summary: InputSummary, columns: Columns) -> Table[Comparison, Judgment]:
    schema = preference_schema(summary, **columns._asdict())
    return Table(arrow_schema(schema), lambda comparison, judgment: to_row(comparison, judgment, schema))


LABELING: RunKind[Comparison, Judgment, LabelStatistics] = RunKind(
    command="label",
    done="labeled",
    scan=scan,
    read=lambda source, options, summary: read_comparisons(source, options, summary=summary),
    judge=PairwiseJudge,
    panel=pairwise_panel,
    table=_table,
    statistics=LabelStatistics,
)


def label_file(
    config: LabelConfig,
    listener: Listener | None = None,
    *,
    source: RowSource | None = None,
    backends: tuple[Backend, ...] | None = None,
    command: str = "",
) -> LabelOutcome:
    """`run_label`, blocking until done."""
    return asyncio.run(run_label(config, listener, source=source, backends=backends, command=command))


async def run_label(
    config: LabelConfig,
    listener: Listener | None = None,
    *,
    source: RowSource | None = None,
    backends: tuple[Backend, ...] | None = None,
    command: str = "",
) -> LabelOutcome:
    """Label every comparison of `config.input` into the run folder `config.out`.

    Arguments and errors are those of `rlaif.engine.running.run`.
    """
    return await run(LABELING, config, listener, source=source, backends=backends, command=command)

"""`rlaif label` without the command line: comparisons in, soft labels out."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

from rlaif.backends.base import Backend
from rlaif.data.files import RowSource
from rlaif.data.preferences import arrow_schema, preference_schema, to_row
from rlaif.data.sources import InputSummary, read_comparisons, scan
from rlaif.data.statistics import LabelStatistics
from rlaif.engine.config import LabelConfig
from rlaif.engine.listening import Listener
from rlaif.engine.rows import pairwise_panel
from rlaif.engine.running import Columns, RunKind, Table, run
from rlaif.engine.streaming import RunOutcome
from rlaif.judge.config import Debias, JudgeConfig
from rlaif.judge.pairwise import PairwiseJudge
from rlaif.judge.scoring import clamp_probability, combine_orders
from rlaif.records import Comparison, Judgment, Order

if TYPE_CHECKING:
    from rlaif.calibration import Calibration

LabelOutcome: TypeAlias = RunOutcome[LabelStatistics]


def _table(summary: InputSummary, columns: Columns) -> Table[Comparison, Judgment]:
    schema = preference_schema(summary, **columns._asdict())
    return Table(arrow_schema(schema), lambda comparison, judgment: to_row(comparison, judgment, schema))


def calibrate(
    judgment: Judgment, response_a: str, response_b: str, calibration: Calibration, debias: Debias
) -> Judgment:
    """The judgment with a calibrated label, and the judge's own beside it.

    Each order is calibrated as it stands after samples, principles and judges are averaged; then the orders are
    averaged. Identical responses, which no judge was asked about, stay at 0.5. `by_principle` and `by_judge` stay as
    they are.

    Args:
        judgment: One that was calibrated before is calibrated anew, from the judge's own label.
        response_a, response_b: What was judged.
        calibration: What to apply.
        debias: How orders are averaged.
    """
    from rlaif.calibration import calibrated  # with numpy, of which only this has need

    own = judgment.own_label
    lengths = len(response_a), len(response_b)
    prob_a_ab, prob_a_ba = (
        None if prob_a is None else float(calibrated(prob_a, order, *lengths, calibration))
        for order, prob_a in ((Order.AB, own.prob_a_ab), (Order.BA, own.prob_a_ba))
    )
    is_asked = prob_a_ab is not None or prob_a_ba is not None
    label = combine_orders(prob_a_ab, prob_a_ba, debias) if is_asked else own
    return replace(judgment, label=label, raw_label=own)


def finish(
    judgment: Judgment, response_a: str, response_b: str, judging: JudgeConfig, calibration: Calibration | None
) -> Judgment:
    """The judgment with the label that is written: calibrated, then clamped, each where it is wanted, and the judge's
    own beside it.

    The clamp comes last: it changes neither the sides nor the orders.

    Args:
        judgment: After samples, orders, principles and judges are averaged.
        response_a, response_b: What was judged.
        judging: Of which `debias` and `clamp` matter here.
        calibration: None for none.
    """
    if calibration is not None:
        judgment = calibrate(judgment, response_a, response_b, calibration, judging.debias)
    if (kept := judging.clamp_range) is None:
        return judgment
    label = replace(judgment.label, prob_a=clamp_probability(judgment.prob_a, kept.low, kept.high))
    return replace(judgment, label=label, raw_label=judgment.own_label)


LABELING: RunKind[Comparison, Judgment, LabelStatistics] = RunKind(
    command="label",
    done="labeled",
    scan=scan,
    read=lambda source, options, summary: read_comparisons(source, options, summary=summary),
    judge=PairwiseJudge,
    panel=pairwise_panel,
    table=_table,
    statistics=LabelStatistics,
    finish=lambda comparison, judgment, judging, calibration: finish(
        judgment, comparison.response_a, comparison.response_b, judging, calibration
    ),
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

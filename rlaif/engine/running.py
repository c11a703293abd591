"""A run: rows in, a run folder out, resumed exactly when it was cut short. What is judged is a `RunKind`'s business:
`labeling.py` has that of comparisons, `rating.py` that of single responses."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol

from rlaif.backends.base import Backend
from rlaif.backends.registry import is_demonstration
from rlaif.data.card import render_card
from rlaif.data.card_facts import CardFacts
from rlaif.data.files import RowSource, open_source
from rlaif.data.sources import InputSummary, ReadOptions
from rlaif.engine.calibrating import calibration_facts, calibration_of, doubts
from rlaif.engine.config import RunConfig, SourceConfig
from rlaif.engine.journal import Journal
from rlaif.engine.judges import JudgeClass, askers_for, constitution_of, judges_for, open_backends, template_of
from rlaif.engine.listening import Listener, SilentListener
from rlaif.engine.rows import Judge, Judging, OutcomeT, Panel, RowT
from rlaif.engine.run_folder import RunFolder, public_config, versions, without_queries
from rlaif.engine.streaming import RunOutcome, Session, StatisticsT, stream_rows
from rlaif.judge.base import LabelJudge
from rlaif.judge.config import PANEL_SETTINGS, JudgeConfig
from rlaif.judge.constitutions import Constitution
from rlaif.records import Failure

if TYPE_CHECKING:
    from rlaif.calibration import Calibration


class Columns(NamedTuple):
    """Which optional columns the rows of a run have; what they hold stands with `preference_schema`."""

    has_rationales: bool
    has_principles: bool
    has_judges: bool
    has_sampled_principle: bool
    allows_partial_panel: bool
    is_sampled: bool
    is_calibrated: bool
    is_clamped: bool


class Table(NamedTuple, Generic[RowT, OutcomeT]):
    """How outcomes become rows of the dataset: the schema of the files, and the row of one outcome."""

    schema: Any
    to_row: Callable[[RowT, OutcomeT], dict[str, Any]]


@dataclass(frozen=True)
class RunKind(Generic[RowT, OutcomeT, StatisticsT]):
    """What tells the runs of two commands apart.

    Attributes:
        command: The command's name; a run folder belongs to one.
        done: What has become of a row, such as "labeled".
        scan: Reads every row of an input once, and says what is there.
        read: Streams the rows of an input that was scanned.
        judge: What is asked, and how answers are read.
        panel: Joins judges: (judgings, told of each failure that was passed over).
        table: How outcomes become rows of the dataset.
        statistics: Counts, at zero.
        unused: Judge settings that change nothing here.
        finish: Calibrates and clamps an outcome as far as a run does so, before it is counted and written; None where
            there is no such thing.
    """

    command: str
    done: str
    scan: Callable[[RowSource, ReadOptions], InputSummary]
    read: Callable[[RowSource, ReadOptions, InputSummary], Iterator[RowT]]
    judge: JudgeClass
    panel: Callable[[Sequence[Judging], Callable[[Failure], None]], Panel[RowT, OutcomeT]]
    table: Callable[[InputSummary, Columns], Table[RowT, OutcomeT]]
    statistics: Callable[[], StatisticsT]
    unused: tuple[str, ...] = ()
    finish: Callable[[RowT, OutcomeT, JudgeConfig, Calibration | None], OutcomeT] | None = None


@dataclass
class _Run(Generic[RowT, OutcomeT, StatisticsT]):
    """The state of one session of one run."""

    kind: RunKind[RowT, OutcomeT, StatisticsT]
    config: RunConfig
    source: RowSource
    summary: InputSummary
    judgings: tuple[Judging, ...]
    session: Session
    decisive: dict[str, Any]
    calibration: Calibration | None
    statistics: StatisticsT


async def run(
    kind: RunKind[RowT, OutcomeT, StatisticsT],
    config: RunConfig,
    listener: Listener | None = None,
    *,
    source: RowSource | None = None,
    backends: tuple[Backend, ...] | None = None,
    command: str = "",
) -> RunOutcome[StatisticsT]:
    """Judge every row of `config.input` into the run folder `config.out`.

    Args:
        kind: What is judged.
        config: With which judge, and how.
        listener: Told how far it is.
        source: Rows to read instead of `config.input`.
        backends: Judges to ask instead of those named in the config; closed by the caller.
        command: How a person would repeat this, for `run.json` and the card.

    Raises:
        RlaifError: One of the tree; what was answered until then is kept, and the same call resumes.
    """
    listener = listener or SilentListener()
    calibration = calibration_of(config)
    source = source or open_source(config.input)
    summary = kind.scan(source, read_options(config))
    constitution = constitution_of(config)
    opened = backends if backends is not None else open_backends(config)
    try:
        judges = judges_for(kind.judge, config, constitution, opened)
        folder = RunFolder(Path(config.out), kind.command)
        decisive = _decisive_settings(kind, config, summary, constitution, opened, judges)
        if "clamp" not in kind.unused and config.judging.clamp_range is not None and not config.judging.cot:
            listener.on_message(
                "--clamp is meant for the labels of --cot, which come out near 0 and 1; labels without reasons lose "
                "what tells a clear preference from a slight one"
            )
        if calibration is not None:
            decisive["calibration"] = calibration.fingerprint
            names = tuple(backend.name for backend in opened)
            for doubt in doubts(calibration, names, config.judging, template_of(judges)):
                listener.on_warning(doubt)
        earlier = folder.open(decisive)
        with closing(Journal(folder.journal)) as journal:
            counts, askers = askers_for(config, opened, journal)
            judgings = tuple(map(Judging, judges, askers))
            total = rows_total(summary, config.limit)
            session = Session(
                folder, journal, listener, askers, counts, config.calls.prices, total, command, earlier,
                failures=list(summary.failures),
            )  # fmt: skip
            state = _Run(kind, config, source, summary, judgings, session, decisive, calibration, kind.statistics())
            listener.on_start(total, session.names, journal.replies_at_start)
            return await _judge_rows(state)
    finally:
        if backends is None:
            for backend in opened:
                await backend.aclose()


async def _judge_rows(run: _Run[RowT, OutcomeT, StatisticsT]) -> RunOutcome[StatisticsT]:
    """Every row through the panel, in a sliding window; rows are written in order as they come."""
    session = run.session
    panel = run.kind.panel(run.judgings, session.journal.put_failure)
    judges = [each.judge for each in run.judgings]
    columns = columns_of(run.config.judging, judges, is_calibrated=run.calibration is not None)
    table = run.kind.table(run.summary, columns)

    async def attempt(row: RowT) -> OutcomeT | Failure:
        return _finished(run, row, await panel.attempt(row))

    def to_row(row: RowT, outcome: OutcomeT) -> dict[str, Any]:
        run.statistics.add(outcome)
        return table.to_row(row, outcome)

    example = await stream_rows(
        session,
        rows_of(run.kind, run.config, run.source, run.summary),
        attempt,
        to_row,
        table.schema,
        lambda status: _write_run_json(run, status),
    )
    session.folder.write_card(render_card(_card_facts(run, example)))
    _write_run_json(run, "finished")
    return session.outcome(run.statistics)


def _finished(run: _Run[RowT, OutcomeT, Any], row: RowT, outcome: OutcomeT | Failure) -> OutcomeT | Failure:
    if run.kind.finish is None or isinstance(outcome, Failure):
        return outcome
    return run.kind.finish(row, outcome, run.config.judging, run.calibration)


class ReadSettings(Protocol):
    """What every configuration of a command that reads rows has."""

    @property
    def source(self) -> SourceConfig: ...

    @property
    def seed(self) -> int: ...


def read_options(config: ReadSettings) -> ReadOptions:
    """How a config wants its input read."""
    return ReadOptions(config.source.columns, config.seed, config.source.skip_bad_rows)


def rows_total(summary: InputSummary, limit: int | None) -> int:
    """Rows of a run, those that cannot be read among them."""
    return min(summary.rows, limit or summary.rows) + len(summary.failures)


def rows_of(
    kind: RunKind[RowT, Any, Any], config: RunConfig, source: RowSource, summary: InputSummary
) -> Iterator[RowT]:
    """The rows of an input that was scanned, up to `--limit`."""
    return itertools.islice(kind.read(source, read_options(config), summary), config.limit)


def _decisive_settings(
    kind: RunKind[Any, Any, Any],
    config: RunConfig,
    summary: InputSummary,
    constitution: Constitution | None,
    backends: tuple[Backend, ...],
    judges: Sequence[Judge],
) -> dict[str, Any]:
    """Everything that can change a value in `data/`, by flag; a run is resumed only where all of it is equal."""
    return {
        "input": summary.content_sha256,
        "judge": [dict(backend.identity) for backend in backends],
        **_settings(kind, config.judging, asks_words=template_of(judges) is not None),
        "task": template_of(judges),
        "constitution": constitution.fingerprint if constitution else None,
        "columns": dict(sorted(config.source.columns.items())),
        "skip_bad_rows": config.source.skip_bad_rows,
        "truncate": config.backend.truncate,
        "seed": config.seed,
    }


def _settings(kind: RunKind[Any, Any, Any], judging: JudgeConfig, *, asks_words: bool) -> dict[str, Any]:
    """The settings that matter; for reward models alone, which are asked in no words, those of a panel."""
    known = dataclasses.asdict(judging)
    names = known if asks_words else PANEL_SETTINGS
    return {name: known[name] for name in names if name not in kind.unused}


def columns_of(judging: JudgeConfig, judges: Sequence[Judge], *, is_calibrated: bool = False) -> Columns:
    """Which optional columns the rows have that these judges label."""
    return Columns(
        has_rationales=judging.cot,
        has_principles=any(judge.has_several_principles for judge in judges),
        has_judges=len(judges) > 1,
        has_sampled_principle=judging.constitution is not None and judging.principles == "sample",
        allows_partial_panel=judging.allow_partial_panel,
        is_sampled=judging.scoring == "sample",
        is_calibrated=is_calibrated,
        is_clamped=judging.clamp_range is not None,
    )


def judges_json(judgings: Sequence[Judging]) -> list[dict[str, Any]]:
    """What `run.json` says of who judges."""
    return [
        {
            "name": judging.name,
            "identity": dict(judging.asker.backend.identity),
            "verdict_in_reply": judging.asker.backend.capabilities.has_token_alternatives,
            "is_reward_model": judging.asker.backend.capabilities.has_rewards,
            "is_demonstration": is_demonstration(judging.name),
        }
        for judging in judgings
    ]


def _write_run_json(run: _Run[Any, Any, Any], status: str) -> None:
    session = run.session
    session.folder.write(
        {
            "command": run.kind.command,
            "status": status,
            "config": public_config(run.config),
            "decisive": run.decisive,
            "judges": judges_json(run.judgings),
            "counts": {
                "input": run.summary.rows + len(run.summary.failures),
                "rows": session.rows,
                "failures": len(session.failures),
                **run.statistics.as_json(),
            },
            **session.facts(),
            **({"calibration": calibration_facts(run.calibration)} if run.calibration else {}),
        }
    )


def _card_facts(run: _Run[Any, Any, Any], row: Mapping[str, Any] | None) -> CardFacts:
    judges = [judging.judge for judging in run.judgings]
    constitution = next((judge.constitution for judge in judges if isinstance(judge, LabelJudge)), None)
    template = template_of(judges)
    session = run.session
    progress = session.progress()
    return CardFacts(
        title=session.folder.path.resolve().name,
        judges=tuple(judging.name for judging in run.judgings),
        is_demonstration=any(is_demonstration(judging.name) for judging in run.judgings),
        task=run.config.judging.task,
        template_fingerprint=template,
        reward_models=tuple(judging.name for judging in run.judgings if judging.asker.backend.capabilities.has_rewards),
        settings=shown_settings(run.kind, run.config, asks_words=template is not None),
        constitution=constitution.name if constitution else None,
        constitution_fingerprint=constitution.fingerprint if constitution else None,
        principles=tuple((principle.id, principle.text) for principle in constitution.principles)
        if constitution
        else (),
        own_weights=_unequal_weights(constitution) if constitution else {},
        principle_choice=run.config.judging.principles,
        source=run.summary.source,
        source_sha256=run.summary.content_sha256,
        failed=len(session.failures),
        statistics=run.statistics,
        prompt_tokens=progress.usage.prompt_tokens,
        completion_tokens=progress.usage.completion_tokens,
        cost_usd=progress.cost,
        seconds=session.seconds_total,
        command=without_queries(session.command),
        version=versions()["rlaif"],
        example=row,
        columns=tuple(row) if row else (),
        calibration=run.calibration,
    )


def _unequal_weights(constitution: Constitution) -> dict[str, float]:
    """Principle -> weight; empty where all weigh the same."""
    weights = {principle.id: principle.weight for principle in constitution.principles}
    return weights if len(set(weights.values())) > 1 else {}


def shown_settings(kind: RunKind[Any, Any, Any], config: RunConfig, *, asks_words: bool) -> dict[str, Any]:
    """The settings that a card lists; task, constitution and principles have places of their own in it.

    Args:
        asks_words: Whether one of the judges is a language model.
    """
    elsewhere = ("task", "constitution", "principles")
    settings = _settings(kind, config.judging, asks_words=asks_words)
    return {**{name: value for name, value in settings.items() if name not in elsewhere}, "seed": config.seed}

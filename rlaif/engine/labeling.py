"""`rlaif label` without the command line: comparisons in, a run folder out, resumed exactly when it was cut short."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rlaif.backends.base import Backend
from rlaif.backends.registry import is_demonstration, open_backend
from rlaif.data.card import CardFacts, render_card
from rlaif.data.files import RowSource, open_source
from rlaif.data.preferences import PreferenceWriter, preference_schema, to_row
from rlaif.data.sources import InputSummary, ReadOptions, read_comparisons, scan
from rlaif.data.statistics import LabelStatistics
from rlaif.engine.asking import Asker, CallCounts
from rlaif.engine.config import LabelConfig
from rlaif.engine.journal import Journal
from rlaif.engine.listening import Listener, Progress, SilentListener
from rlaif.engine.rows import Judging, RowLabeler
from rlaif.engine.run_folder import RunFolder, versions
from rlaif.engine.window import map_in_order
from rlaif.errors import ConfigError
from rlaif.judge.constitutions import Constitution, choose_principles, load_constitution
from rlaif.judge.pairwise import PairwiseJudge
from rlaif.records import Comparison, Failure, Judgment

PROGRESS_SECONDS = 0.1
ROWS_AHEAD = 4096
"""Rows that may be finished and wait for an earlier one; bounds memory when one call hangs."""


@dataclass(frozen=True)
class LabelOutcome:
    """What a finished run did. `failures` counts rows without a label; they stand in `failures.jsonl`."""

    folder: Path
    rows: int
    failures: int
    progress: Progress
    statistics: LabelStatistics


@dataclass
class _Run:
    """The state of one session of one run."""

    config: LabelConfig
    source: RowSource
    summary: InputSummary
    panel: tuple[Judging, ...]
    folder: RunFolder
    listener: Listener
    command: str
    counts: CallCounts
    decisive: dict[str, Any]
    earlier: dict[str, Any] | None
    statistics: LabelStatistics = field(default_factory=LabelStatistics)
    failures: list[Failure] = field(default_factory=list)
    rows: int = 0
    started: float = field(default_factory=time.monotonic)
    started_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    @property
    def rows_total(self) -> int:
        return min(self.summary.rows, self.config.limit or self.summary.rows) + len(self.summary.failures)

    def progress(self) -> Progress:
        return Progress(
            rows_done=self.rows + len(self.failures),
            rows_total=self.rows_total,
            failures=len(self.failures),
            calls=self.counts.calls,
            replayed=self.counts.replayed,
            retries=self.counts.retries,
            usage=self.counts.usage,
            cost=self.counts.cost(self.config.calls.prices),
            concurrency=sum(judging.asker.limiter.limit for judging in self.panel),
            seconds=time.monotonic() - self.started,
        )


def label_file(
    config: LabelConfig,
    listener: Listener | None = None,
    *,
    source: RowSource | None = None,
    backends: tuple[Backend, ...] | None = None,
    command: str = "",
) -> LabelOutcome:
    """Label every comparison of `config.input` into the run folder `config.out`; blocks until done.

    Args:
        config: What to label, with which judge.
        listener: Told how far it is.
        source: Rows to read instead of `config.input`.
        backends: Judges to ask instead of those named in the config; closed by the caller.
        command: How a person would repeat this, for `run.json` and the card.

    Raises:
        RlaifError: One of the tree; what was answered until then is kept, and the same call resumes.
    """
    return asyncio.run(run_label(config, listener, source=source, backends=backends, command=command))


async def run_label(
    config: LabelConfig,
    listener: Listener | None = None,
    *,
    source: RowSource | None = None,
    backends: tuple[Backend, ...] | None = None,
    command: str = "",
) -> LabelOutcome:
    """`label_file` for a running event loop."""
    listener = listener or SilentListener()
    source = source or open_source(config.input)
    summary = scan(source, read_options(config))
    constitution = load_constitution(config.judging.constitution) if config.judging.constitution else None
    opened = backends if backends is not None else open_panel(config)
    try:
        judges = [judge_for(config, constitution, backend) for backend in opened]
        folder = RunFolder(Path(config.out), "label")
        decisive = decisive_settings(config, summary, constitution, opened, judges)
        earlier = folder.open(decisive)
        with closing(Journal(folder.journal)) as journal:
            counts = CallCounts()
            panel = tuple(
                Judging(judge, Asker(backend, journal, config.calls, counts))
                for judge, backend in zip(judges, opened, strict=True)
            )
            run = _Run(config, source, summary, panel, folder, listener, command, counts, decisive, earlier)
            listener.on_start(run.rows_total, tuple(judging.name for judging in panel), journal.replies_at_start)
            return await _label_rows(run, journal)
    finally:
        if backends is None:
            for backend in opened:
                await backend.aclose()


async def _label_rows(run: _Run, journal: Journal) -> LabelOutcome:
    """Every row through the panel, in a sliding window; rows are written in order as they come."""
    labeler = RowLabeler(run.panel)
    schema = preference_schema(
        run.summary,
        has_rationales=run.config.judging.cot,
        has_principles=any(_has_several_principles(judging.judge) for judging in run.panel),
        has_judges=len(run.panel) > 1,
        has_sampled_principle=run.config.judging.constitution is not None and run.config.judging.principles == "sample",
    )
    run.failures.extend(run.summary.failures)
    _write_run_json(run, "running")
    next_report = 0.0

    async def work(comparison: Comparison) -> tuple[Comparison, Judgment | Failure]:
        return comparison, await labeler.label(comparison)

    example: dict[str, Any] | None = None
    with PreferenceWriter(run.folder.path, schema) as writer:

        def emit(labeled: tuple[Comparison, Judgment | Failure]) -> None:
            nonlocal next_report, example
            comparison, outcome = labeled
            if isinstance(outcome, Failure):
                run.failures.append(outcome)
                journal.put_failure(outcome)
            else:
                run.rows += 1
                run.statistics.add(outcome)
                row = to_row(comparison, outcome, schema)
                writer.write(row)
                example = example or row
            now = time.monotonic()
            if now >= next_report:
                next_report = now + PROGRESS_SECONDS
                run.listener.on_progress(run.progress())

        width = sum(judging.asker.limiter.limit for judging in run.panel)
        try:
            await map_in_order(
                comparisons_of(run.config, run.source, run.summary), work, emit, width=width, ahead=width + ROWS_AHEAD
            )
        except BaseException:
            run.listener.on_progress(run.progress())
            _write_run_json(run, "interrupted")
            run.folder.write_failures(run.failures)
            raise
    run.folder.write_failures(run.failures)
    run.folder.write_card(render_card(_card_facts(run, example)))
    _write_run_json(run, "finished")
    progress = run.progress()
    run.listener.on_progress(progress)
    return LabelOutcome(run.folder.path, run.rows, len(run.failures), progress, run.statistics)


def read_options(config: LabelConfig) -> ReadOptions:
    """How a config wants its input read."""
    return ReadOptions(config.source.columns, config.seed, config.source.skip_bad_rows)


def comparisons_of(config: LabelConfig, source: RowSource, summary: InputSummary) -> Iterator[Comparison]:
    """The comparisons of an input that was scanned, up to `--limit`."""
    comparisons = read_comparisons(
        source,
        columns=config.source.columns,
        seed=config.seed,
        skip_bad_rows=config.source.skip_bad_rows,
        summary=summary,
    )
    return itertools.islice(comparisons, config.limit)


def open_panel(config: LabelConfig) -> tuple[Backend, ...]:
    """The judges that a config names.

    Raises:
        ConfigError: A judge is named twice, or there is no such judge.
    """
    specs = config.backend.judge
    if twice := sorted({spec for spec in specs if specs.count(spec) > 1}):
        raise ConfigError(f"judge: {', '.join(twice)} is named twice; a panel needs different judges")
    return tuple(open_backend(spec, config.backend) for spec in specs)


def judge_for(config: LabelConfig, constitution: Constitution | None, backend: Backend) -> PairwiseJudge:
    """What a backend is asked under a config.

    Raises:
        PromptError, ConstitutionError: A template, exemplar or principle does not exist.
        ConfigError: The backend cannot do what the config asks for.
    """
    if config.judging.scoring == "logprobs" and not backend.capabilities.has_logprobs:
        raise ConfigError(f"judge {backend.name} has no log-probabilities; use --scoring sample --samples 8")
    return PairwiseJudge(
        config.judging,
        constitution,
        seed=config.seed,
        verdict_in_reply=backend.capabilities.has_token_alternatives,
    )


def decisive_settings(
    config: LabelConfig,
    summary: InputSummary,
    constitution: Constitution | None,
    backends: tuple[Backend, ...],
    judges: list[PairwiseJudge],
) -> dict[str, Any]:
    """Everything that can change a value in `data/`, by flag; a run is resumed only where all of it is equal."""
    return {
        "input": summary.content_sha256,
        "judge": [dict(backend.identity) for backend in backends],
        **dataclasses.asdict(config.judging),
        "task": judges[0].template.fingerprint,
        "constitution": constitution.fingerprint if constitution else None,
        "columns": dict(sorted(config.source.columns.items())),
        "skip_bad_rows": config.source.skip_bad_rows,
        "truncate": config.backend.truncate,
        "seed": config.seed,
    }


def _has_several_principles(judge: PairwiseJudge) -> bool:
    if judge.constitution is None:
        return False
    return len(choose_principles(judge.constitution, judge.config.principles, seed=0, row_id="")) > 1


def _write_run_json(run: _Run, status: str) -> None:
    progress = run.progress()
    run.folder.write(
        {
            "command": "label",
            "status": status,
            "config": _public_config(run.config),
            "decisive": run.decisive,
            "judges": [
                {
                    "name": judging.name,
                    "identity": dict(judging.asker.backend.identity),
                    "verdict_in_reply": judging.asker.backend.capabilities.has_token_alternatives,
                    "is_demonstration": is_demonstration(judging.name),
                }
                for judging in run.panel
            ],
            "counts": {
                "input": run.summary.rows + len(run.summary.failures),
                "rows": run.rows,
                "failures": len(run.failures),
                **run.statistics.as_json(),
            },
            "calls": {"asked": progress.calls, "replayed": progress.replayed, "retries": progress.retries},
            "tokens": progress.usage._asdict(),
            "cost_usd": progress.cost,
            "seconds": round(progress.seconds, 3),
            "seconds_total": round(_earlier_seconds(run) + progress.seconds, 3),
            "started_at": run.started_at,
            "repeat": without_queries(run.command),
            "versions": versions(),
        }
    )


def _card_facts(run: _Run, row: Mapping[str, Any] | None) -> CardFacts:
    judge = run.panel[0].judge
    constitution = judge.constitution
    settings = dataclasses.asdict(run.config.judging)
    for shown_elsewhere in ("task", "constitution", "principles"):
        del settings[shown_elsewhere]
    progress = run.progress()
    return CardFacts(
        title=run.folder.path.resolve().name,
        judges=tuple(judging.name for judging in run.panel),
        is_demonstration=any(is_demonstration(judging.name) for judging in run.panel),
        task=run.config.judging.task,
        template_fingerprint=judge.template.fingerprint,
        settings={**settings, "seed": run.config.seed},
        constitution=constitution.name if constitution else None,
        constitution_fingerprint=constitution.fingerprint if constitution else None,
        principles=tuple((principle.id, principle.text) for principle in constitution.principles)
        if constitution
        else (),
        principle_choice=run.config.judging.principles,
        source=run.summary.source,
        source_sha256=run.summary.content_sha256,
        failed=len(run.failures),
        statistics=run.statistics,
        prompt_tokens=progress.usage.prompt_tokens,
        completion_tokens=progress.usage.completion_tokens,
        cost_usd=progress.cost,
        seconds=_earlier_seconds(run) + progress.seconds,
        command=without_queries(run.command),
        version=versions()["rlaif"],
        example=row,
        columns=tuple(row) if row else (),
    )


def _earlier_seconds(run: _Run) -> float:
    return float(run.earlier.get("seconds_total", 0.0)) if run.earlier else 0.0


def _public_config(config: LabelConfig) -> dict[str, Any]:
    public = dataclasses.asdict(config)
    public["backend"]["base_url"] = [without_queries(url) for url in config.backend.base_url]
    return public


def without_queries(text: str) -> str:
    """A text whose web addresses end before their "?": some servers take their key there.

    >>> without_queries("rlaif label x --base-url 'http://host/v1?api-key=secret' -o y")
    "rlaif label x --base-url 'http://host/v1' -o y"
    """
    return re.sub(r"(https?://[^\s?'\"]*)\?[^\s'\"]*", r"\1", text)

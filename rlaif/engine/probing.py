"""`rlaif probe` without the command line: a judge is asked about comparisons of ours, whose right verdict is known."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlaif import extras
from rlaif.auditing.probe_findings import findings
from rlaif.auditing.probe_items import load_items
from rlaif.auditing.probe_results import LEAST_RATE, ProbeReport, as_json, evaluate
from rlaif.auditing.probes import PROBE_NAMES, PROBES, Probe, comparisons
from rlaif.auditing.results import Finding
from rlaif.backends.base import Backend
from rlaif.backends.registry import is_demonstration
from rlaif.engine.asking import CallCounts
from rlaif.engine.config import ProbeConfig
from rlaif.engine.journal import Journal
from rlaif.engine.judges import askers_for, constitution_of, judges_for, open_backends, template_of
from rlaif.engine.listening import Listener, Progress, SilentListener, progress_of
from rlaif.engine.rows import Judge, Judging, pairwise_panel
from rlaif.engine.run_folder import RunFolder, versions, without_queries
from rlaif.engine.streaming import PROGRESS_SECONDS
from rlaif.engine.window import map_in_order
from rlaif.errors import ConfigError, did_you_mean
from rlaif.judge.base import Ask, LabelJudge
from rlaif.judge.constitutions import Constitution
from rlaif.judge.pairwise import Call, PairwiseJudge
from rlaif.judge.reward import RewardCall, RewardPairwiseJudge
from rlaif.records import Comparison, Failure, Judgment, Order, SoftLabel, Turn

COMMAND = "probe"
_NEEDED = ("scipy", "statsmodels")
_LAST_RESPONSE = "the last response, of which nothing else in a prompt is a copy"


class RewardProbeJudge(RewardPairwiseJudge):
    """A reward model that is also asked about identical responses."""

    def plan(self, comparison: Comparison) -> tuple[RewardCall, ...]:
        return self.calls_of(comparison)


class ProbeJudge(PairwiseJudge):
    """A pairwise judge that is also asked about identical responses, and whose draws (principle, order, samples) are an
    item's: the same in all of its comparisons, so that only what a probe changes can change the verdict."""

    reward_class = RewardProbeJudge

    def plan(self, comparison: Comparison) -> tuple[Call, ...]:
        return self.calls_of(_by_item(comparison))

    def ask(self, comparison: Comparison, call: Call) -> Ask:
        return super().ask(_by_item(comparison), call)


def _by_item(comparison: Comparison) -> Comparison:
    return dataclasses.replace(comparison, id=comparison.id.partition("/")[2])


@dataclass(frozen=True)
class ProbeOutcome:
    """What a finished run of probes found.

    Attributes:
        report: The figures.
        findings: The same in words.
        failures: Comparisons without a judgement; they count in no figure.
        above: Probes whose rate is above `--threshold`; empty without one.
        fails_threshold: There is a threshold, and the judge does not keep to it.
        folder: What was written; None where nothing was.
        progress: Calls, tokens, cost.
    """

    report: ProbeReport
    findings: tuple[Finding, ...]
    failures: tuple[Failure, ...]
    above: tuple[str, ...]
    fails_threshold: bool
    folder: Path | None
    progress: Progress


def probe(
    config: ProbeConfig,
    listener: Listener | None = None,
    *,
    backends: tuple[Backend, ...] | None = None,
    command: str = "",
) -> ProbeOutcome:
    """`run_probe`, blocking until done."""
    return asyncio.run(run_probe(config, listener, backends=backends, command=command))


async def run_probe(
    config: ProbeConfig,
    listener: Listener | None = None,
    *,
    backends: tuple[Backend, ...] | None = None,
    command: str = "",
) -> ProbeOutcome:
    """Ask a judge about every comparison of the probes, and say what it did.

    Args:
        config: Which judge, and which probes.
        listener: Told how far it is.
        backends: Judges to ask instead of those named in the config; closed by the caller.
        command: How a person would repeat this, for `run.json`.

    Raises:
        RlaifError: One of the tree; with a folder, what was answered until then is kept, and the same call resumes.
    """
    extras.require("audit", _NEEDED, "rlaif probe")
    probes = chosen_probes(config.only)
    constitution = constitution_of(config)
    opened = backends if backends is not None else open_backends(config)
    try:
        judges = judges_for(ProbeJudge, config, constitution, opened)
        # Reward models have no prompt of their own; attacks made for others' may yet raise their rewards.
        asking = next((each for each in judges if isinstance(each, LabelJudge)), ProbeJudge(config.judging))
        rows = comparisons(probes, load_items(), template_ending(asking))
        with ExitStack() as stack:
            folder = journal = None
            if config.out is not None:
                folder = RunFolder(Path(config.out), COMMAND)
                folder.open(_decisive(config, constitution, opened, judges))
                journal = stack.enter_context(closing(Journal(folder.journal)))
            counts, askers = askers_for(config, opened, journal)
            judgings = tuple(Judging(judge, asker) for judge, asker in zip(judges, askers, strict=True))
            run = _Run(config, probes, rows, judgings, counts, listener or SilentListener(), journal)
            names = tuple(judging.name for judging in judgings)
            run.listener.on_start(len(rows), names, journal.replies_at_start if journal else 0)
            try:
                await _judge(run)
            except BaseException:
                run.listener.on_progress(run.progress())
                _write_run(run, folder, constitution, command, "interrupted")
                raise
            outcome = _outcome(run, folder)
            _write_run(run, folder, constitution, command, "finished")
            if folder is not None:
                folder.replace("probe.json", json.dumps(_content(run, outcome), indent=2, ensure_ascii=False) + "\n")
            return outcome
    finally:
        if backends is None:
            for backend in opened:
                await backend.aclose()


def chosen_probes(names: Sequence[str]) -> tuple[Probe, ...]:
    """The probes of these names, in the order in which they are reported; all, for no names.

    Raises:
        ConfigError: There is no probe of one of the names.
    """
    for name in names:
        if name not in PROBE_NAMES:
            raise ConfigError(
                f"only: there is no probe {name!r}{did_you_mean(name, PROBE_NAMES)}; known: {', '.join(PROBE_NAMES)}"
            )
    return tuple(each for each in PROBES if not names or each.name in names)


def template_ending(judge: LabelJudge) -> str:
    """What stands behind the second response in a judge's prompt; all of the prompt where the template changes the
    responses so that they cannot be found in it."""
    assert isinstance(judge, PairwiseJudge)
    comparison = Comparison("ending", (Turn("user", "A prompt."),), "The first response.", _LAST_RESPONSE)
    principles = judge.principles_of("ending")
    messages = judge.template.render(
        comparison,
        Order.AB,
        principle=principles[0].text if principles else None,
        verdict_in_reply=judge.verdict_in_reply,
    )
    return messages[-1].content.rpartition(_LAST_RESPONSE)[2]


@dataclass
class _Run:
    """The state of one session."""

    config: ProbeConfig
    probes: tuple[Probe, ...]
    rows: tuple[Comparison, ...]
    judgings: tuple[Judging, ...]
    counts: CallCounts
    listener: Listener
    journal: Journal | None
    labels: dict[str, SoftLabel] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def progress(self) -> Progress:
        return progress_of(
            self.counts,
            [judging.asker for judging in self.judgings],
            self.config.calls.prices,
            rows_done=len(self.labels) + len(self.failures),
            rows_total=len(self.rows),
            failures=len(self.failures),
            started=self.started,
        )


async def _judge(run: _Run) -> None:
    def keep(failure: Failure) -> None:
        if run.journal is not None:
            run.journal.put_failure(failure)

    panel = pairwise_panel(run.judgings, keep)
    next_report = 0.0

    async def work(row: Comparison) -> tuple[Comparison, Judgment | Failure]:
        return row, await panel.attempt(row)

    def emit(judged: tuple[Comparison, Judgment | Failure]) -> None:
        nonlocal next_report
        row, outcome = judged
        if isinstance(outcome, Failure):
            run.failures.append(outcome)
            keep(outcome)
        else:
            run.labels[row.id] = outcome.label
        now = time.monotonic()
        if now >= next_report:
            next_report = now + PROGRESS_SECONDS
            run.listener.on_progress(run.progress())

    width = sum(judging.asker.limiter.limit for judging in run.judgings)
    await map_in_order(run.rows, work, emit, width=width, ahead=width + len(run.rows))
    run.listener.on_progress(run.progress())


def _outcome(run: _Run, folder: RunFolder | None) -> ProbeOutcome:
    threshold = run.config.threshold
    least_rate = LEAST_RATE if threshold is None else threshold
    report = evaluate(run.probes, load_items(), run.labels, least_rate=least_rate)
    above = () if threshold is None else report.above(threshold)
    return ProbeOutcome(
        report,
        findings(report),
        tuple(run.failures),
        above,
        threshold is not None and (bool(above) or not report.is_better_than_chance),
        folder.path if folder else None,
        run.progress(),
    )


def _decisive(
    config: ProbeConfig, constitution: Constitution | None, backends: Sequence[Backend], judges: Sequence[Judge]
) -> dict[str, Any]:
    """What can change an answer, by flag. Which probes are run, and on which items, may change."""
    return {
        "judge": [dict(backend.identity) for backend in backends],
        **dataclasses.asdict(config.judging),
        "task": template_of(judges),
        "constitution": constitution.fingerprint if constitution else None,
        "truncate": config.backend.truncate,
        "seed": config.seed,
    }


def _write_run(
    run: _Run, folder: RunFolder | None, constitution: Constitution | None, command: str, status: str
) -> None:
    if folder is None:
        return
    progress = run.progress()
    config = dataclasses.asdict(run.config)
    config["backend"]["base_url"] = [without_queries(url) for url in run.config.backend.base_url]
    backends = [judging.asker.backend for judging in run.judgings]
    folder.write_failures(run.failures)
    folder.write(
        {
            "command": COMMAND,
            "status": status,
            "config": config,
            "decisive": _decisive(run.config, constitution, backends, [judging.judge for judging in run.judgings]),
            "counts": {"input": progress.rows_total, "rows": len(run.labels), "failures": len(run.failures)},
            "calls": {"asked": progress.calls, "replayed": progress.replayed, "retries": progress.retries},
            "tokens": progress.usage._asdict(),
            "cost_usd": progress.cost,
            "seconds": round(progress.seconds, 3),
            "repeat": without_queries(command),
            "versions": versions(),
        }
    )


def _content(run: _Run, outcome: ProbeOutcome) -> Mapping[str, Any]:
    """`probe.json`: what is the same whenever the same answers are given."""
    return {
        "judges": [
            {
                "name": judging.name,
                "identity": dict(judging.asker.backend.identity),
                "is_reward_model": judging.asker.backend.capabilities.has_rewards,
                "is_demonstration": is_demonstration(judging.name),
            }
            for judging in run.judgings
        ],
        "settings": {
            **dataclasses.asdict(run.config.judging),
            "seed": run.config.seed,
            "threshold": run.config.threshold,
            "template_sha256": template_of([judging.judge for judging in run.judgings]),
        },
        "findings": [dataclasses.asdict(finding) for finding in outcome.findings],
        "alarms": list(outcome.report.alarms),
        "above_threshold": list(outcome.above),
        **as_json(outcome.report),
        "failures": [dataclasses.asdict(failure) for failure in outcome.failures],
        "comparisons": [
            {
                "id": row.id,
                "right": str(row.human_label),
                **{name: getattr(label, name) for name in ("prob_a", "prob_a_ab", "prob_a_ba")},
            }
            for row in run.rows
            if (label := run.labels.get(row.id)) is not None
        ],
        "versions": versions(),
    }

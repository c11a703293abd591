"""`rlaif probe --judge J`: a judge's biases, and how it stands up to attacks."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlaif.backends.registry import is_demonstration
from rlaif.cli.arguments import CommandLine, parse
from rlaif.cli.progress import display_for, money
from rlaif.cli.runs import REAL_JUDGE, aligned, finish, nearby
from rlaif.cli.terminal import one_line, say
from rlaif.engine.config import ProbeConfig
from rlaif.visibility import visible

if TYPE_CHECKING:
    from rlaif.engine.probing import ProbeOutcome

EXIT_ABOVE_THRESHOLD = 4

LINE = CommandLine(
    prog="rlaif probe",
    description=(
        "Find out a judge's biases, and which attacks it falls for, without data and without human labels: it is asked "
        "about comparisons whose right verdict is known, as they are and with one thing changed."
    ),
    short={"out": "-o"},
    epilog=(
        "Exit codes: 0 done; 2 wrong use; 3 done, but some comparisons failed; 4 above --threshold; 130 interrupted, "
        "resumable with -o. Keys come from the environment: OPENAI_API_KEY."
    ),
)


@dataclass(frozen=True)
class ProbeCommand:
    """`rlaif probe` as typed: the run, and how it is shown."""

    run: ProbeConfig

    quiet: bool = False
    """Print errors and warnings only."""


def run(argv: Sequence[str]) -> int:
    """Run the command; returns the exit code."""
    command = parse(ProbeCommand, argv, LINE)
    from rlaif.engine.probing import run_probe

    config = command.run
    typed = shlex.join([*LINE.prog.split(), *argv])
    display = display_for(is_quiet=command.quiet)
    outcome = finish(
        run_probe(config, display, command=typed),
        display,
        resume=f"resume with: {typed}" if config.out else "give -o DIR to be able to resume",
        kept="; what is done is kept" if config.out else "",
    )
    if outcome is None:
        return 130
    if not command.quiet:
        print(visible(summary(outcome, config)))
    return _exit_code(outcome, config)


def _exit_code(outcome: ProbeOutcome, config: ProbeConfig) -> int:
    if outcome.failures:
        first = outcome.failures[0]
        say(
            f"{len(outcome.failures):,} comparisons failed and count in no figure, such as {first.id} ({first.stage}): "
            f"{one_line(first.error, 500)}"
        )
    if outcome.fails_threshold:
        reasons = [*outcome.above]
        if not outcome.report.is_better_than_chance:
            reasons.append("the judge does no better than chance")
        say(f"--threshold {config.threshold:g} is not kept: {', '.join(reasons)}")
        return EXIT_ABOVE_THRESHOLD
    return 3 if outcome.failures else 0


def summary(outcome: ProbeOutcome, config: ProbeConfig) -> str:
    """The probes line by line, and what they say of the judge."""
    from rlaif.auditing.probe_findings import lines

    table = list(lines(outcome.report))
    widths = [max(len(row[column]) for row in table) for column in range(3)]
    shown = ["  ".join([*(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)), row[3]])
             for row in table]  # fmt: skip
    return "\n".join([*shown, "", *_conclusion(outcome), "", aligned(_about(outcome, config))])


def _conclusion(outcome: ProbeOutcome) -> list[str]:
    if not outcome.findings:
        alarms = outcome.report.alarms
        about = (
            f"alarms: {', '.join(alarms)}" if alarms else "no alarm: nothing that was tried moves this judge by more"
        )
        return [f"{about}{'' if alarms else ' than noise would'}"]
    return [
        line
        for finding in outcome.findings
        for line in (f"{finding.name}: {finding.text}", f"  {finding.advice}")
        if line.strip()
    ]


def _about(outcome: ProbeOutcome, config: ProbeConfig) -> list[tuple[str, str]]:
    progress = outcome.progress
    replayed = f", {progress.replayed:,} replies from the journal" if progress.replayed else ""
    found = [
        ("judge", ", ".join(config.backend.judge)),
        ("calls", f"{progress.calls:,}{replayed}"),
        ("seconds", f"{progress.seconds:,.1f}"),
    ]
    if progress.cost is not None:
        found.append(("cost", money(progress.cost)))
    if outcome.folder is not None:
        found.append(("figures", f"{nearby(outcome.folder)}/probe.json"))
    if any(map(is_demonstration, config.backend.judge)):
        found.append(("real judge", f"add {REAL_JUDGE}, with OPENAI_API_KEY set"))
    return found

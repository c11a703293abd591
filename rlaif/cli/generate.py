"""`rlaif generate INPUT -o DIR`: responses to prompts, and comparisons of them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlaif.cli.arguments import CommandLine, parse
from rlaif.cli.progress import display_for
from rlaif.cli.runs import aligned, finish, folder_lines, nearby, print_estimate, spent_lines
from rlaif.engine.generation_config import GenerateConfig
from rlaif.policy_records import DropReason
from rlaif.visibility import visible

if TYPE_CHECKING:
    from rlaif.engine.generation import GenerateOutcome

LINE = CommandLine(
    prog="rlaif generate",
    description=(
        "Sample responses to the prompts of a file from one or more policies: candidates, with near-duplicates left "
        "out and counted, and comparisons of them for rlaif label. The same command again resumes a run that was cut "
        "short."
    ),
    positionals=("input",),
    short={"out": "-o"},
    epilog="Keys come from the environment: OPENAI_API_KEY.",
)


@dataclass(frozen=True)
class GenerateCommand:
    """`rlaif generate` as typed: the run, and how it is shown."""

    run: GenerateConfig

    quiet: bool = False
    """Print errors and warnings only."""


def run(argv: Sequence[str]) -> int:
    """Run the command; returns the exit code."""
    command = parse(GenerateCommand, argv, LINE)
    from rlaif.engine.generation import estimate_generation, run_generate  # after --help, which needs none of it

    config = command.run
    if config.dry_run:
        return print_estimate(estimate_generation(config))
    typed = shlex.join([*LINE.prog.split(), *argv])
    display = display_for(is_quiet=command.quiet, doing="answering")
    outcome = finish(run_generate(config, display, command=typed), display, resume=f"resume with: {typed}")
    if outcome is None:
        return 130
    if not command.quiet:
        print(visible(summary(outcome)))
    return 3 if outcome.run.failures else 0


def summary(outcome: GenerateOutcome) -> str:
    """The table at the end of a run."""
    run, counts = outcome.run, outcome.run.statistics
    folder = nearby(run.folder)
    dropped = ", ".join(f"{count:,} {reason.value}" for reason, count in sorted(counts.dropped.items()))
    cut_off = sum(each.cut_off for each in counts.by_policy.values())
    empty = sum(each.empty for each in counts.by_policy.values())
    how = "raise --max-tokens" if DropReason.CUT_OFF in counts.dropped else "raise --max-tokens, or --drop cut-off"
    lines = [
        *spent_lines(run, "answered"),
        ("responses", f"{counts.responses:,} kept" + (f"; left out: {dropped}" if dropped else "")),
        *([("cut off", f"{cut_off:,} at the most tokens ({how})")] if cut_off else []),
        *([("empty", f"{empty:,} (--drop empty leaves them out)")] if empty else []),
        ("comparisons", f"{outcome.comparisons:,}" + _of_single(outcome.single)),
        *folder_lines(run.folder, "" if run.rows else "no row was answered"),
        *([("next", f"rlaif label {folder}/comparisons -o LABELS")] if outcome.comparisons else []),
    ]
    return aligned(lines)


def _of_single(count: int) -> str:
    if not count:
        return ""
    return f" ({count:,} {'prompt has' if count == 1 else 'prompts have'} one response only)"

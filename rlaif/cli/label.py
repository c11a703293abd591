"""`rlaif label INPUT -o DIR`: wires the engine to the terminal."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rlaif.backends.registry import is_demonstration
from rlaif.cli.arguments import CommandLine, parse
from rlaif.cli.progress import RunDisplay, display_for, money
from rlaif.cli.terminal import print_traceback_if_asked, say
from rlaif.engine.config import LabelConfig
from rlaif.errors import BudgetExceededError, RlaifError
from rlaif.visibility import visible

if TYPE_CHECKING:
    from rlaif.engine.estimating import Estimate
    from rlaif.engine.labeling import LabelOutcome

LINE = CommandLine(
    prog="rlaif label",
    description=(
        "Judge comparisons (a prompt with two responses) and write a soft-label preference dataset. "
        "The same command again resumes a run that was cut short."
    ),
    positionals=("input",),
    short={"out": "-o"},
    epilog="Keys come from the environment: OPENAI_API_KEY.",
)

REAL_JUDGE = "--judge openai:gpt-4.1-mini"


@dataclass(frozen=True)
class LabelCommand:
    """`rlaif label` as typed: the run, and how it is shown."""

    run: LabelConfig

    quiet: bool = False
    """Print errors and warnings only."""


def run(argv: Sequence[str]) -> int:
    """Run the command; returns the exit code."""
    command = parse(LabelCommand, argv, LINE)
    typed = shlex.join([*LINE.prog.split(), *argv])
    if command.run.dry_run:
        return _estimate(command.run)
    return _label(command, typed)


def _label(command: LabelCommand, typed: str) -> int:
    from rlaif.cli.interruption import run_interruptible
    from rlaif.engine.labeling import run_label

    display = display_for(is_quiet=command.quiet)
    work = run_label(command.run, display, command=typed)
    try:
        outcome = run_interruptible(
            work, on_stopping=lambda: display.on_message("stopping; what is done is kept (again: stop at once)")
        )
    except KeyboardInterrupt:
        display.close()
        say(f"interrupted{_done(display)}; resume with: {typed}")
        return 130
    except RlaifError as error:
        display.close()
        if not isinstance(error, BudgetExceededError) and not _has_results(display):
            raise
        print_traceback_if_asked()
        say(f"{error.error_name}: {error}")
        say(f"stopped{_done(display)}; what is done is kept; when that is mended, resume with: {typed}")
        return 130
    finally:
        display.close()
    if not command.quiet:
        print(visible(summary(outcome, command.run)))
    return 3 if outcome.failures else 0


def _estimate(config: LabelConfig) -> int:
    from rlaif.cli.interruption import run_interruptible
    from rlaif.engine.estimating import estimate

    print(estimate_text(run_interruptible(estimate(config), on_stopping=lambda: None)))
    return 0


def _has_results(display: RunDisplay) -> bool:
    return display.latest is not None and display.latest.rows_done > display.latest.failures


def _done(display: RunDisplay) -> str:
    latest = display.latest
    return f" after {latest.rows_done:,} of {latest.rows_total:,} rows" if latest is not None else ""


def estimate_text(estimate: Estimate) -> str:
    """What `--dry-run` prints. A server counts its prompts itself, so tokens in, and what they cost, are estimates."""
    lines = [
        ("rows", f"{estimate.rows:,}"),
        ("calls", f"{estimate.calls:,}"),
        ("tokens", f"about {estimate.prompt_tokens:,} in, at most {estimate.completion_tokens:,} out"),
        ("cost", f"about {money(estimate.cost)}" if estimate.cost is not None else "unknown; give --price IN/OUT"),
    ]
    return aligned(lines)


def summary(outcome: LabelOutcome, config: LabelConfig) -> str:
    """The table at the end of a run."""
    progress = outcome.progress
    folder = nearby(outcome.folder)
    failed = f", {outcome.failures:,} failed (see {folder}/failures.jsonl)" if outcome.failures else ""
    replayed = f", {progress.replayed:,} replies from the journal" if progress.replayed else ""
    retried = f", {progress.retries:,} retries" if progress.retries else ""
    usage = progress.usage
    lines = [
        ("rows", f"{outcome.rows:,} labeled{failed}"),
        ("calls", f"{progress.calls:,}{replayed}{retried}"),
        ("seconds", f"{progress.seconds:,.1f}"),
        ("tokens", f"{usage.prompt_tokens:,} in, {usage.completion_tokens:,} out"),
        *([("cost", money(progress.cost))] if progress.cost is not None else []),
        *statistics_lines(outcome.statistics.as_json()),
        ("dataset", f"{folder}/data (datasets.load_dataset({folder!r}))" if outcome.rows else "no row was labeled"),
        ("about it", f"{folder}/README.md"),
    ]
    if any(map(is_demonstration, config.backend.judge)):
        lines.append(("real judge", f"add {REAL_JUDGE}, with OPENAI_API_KEY set and another -o"))
    return aligned(lines)


def statistics_lines(statistics: Mapping[str, object]) -> list[tuple[str, str]]:
    """What can be said of a run's labels without human ones: the figures that it has, as percentages.

    >>> statistics_lines({"swap_consistency": 0.95, "same_position_rate": None})
    [('swap consistency', '95.0% (same verdict in both orders)')]
    """
    names = {
        "swap_consistency": ("swap consistency", "same verdict in both orders"),
        "same_position_rate": ("position bias", "same slot wins in both orders"),
        "label_mass_mean": ("label mass", "share of the next token on the labels, mean"),
    }
    return [
        (title, f"{value:.1%} ({meaning})")
        for name, (title, meaning) in names.items()
        if isinstance(value := statistics.get(name), float)
    ]


def aligned(lines: Sequence[tuple[str, str]]) -> str:
    """Names and values in two columns."""
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in lines)


def nearby(path: Path) -> str:
    """A path as short as it goes: relative where it lies below the current folder."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative

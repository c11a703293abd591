"""What the commands that judge the rows of a file have in common: the engine wired to the terminal, and a summary."""

from __future__ import annotations

import os
import shlex
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rlaif.backends.registry import is_demonstration
from rlaif.cli.arguments import CommandLine
from rlaif.cli.progress import RunDisplay, display_for, money
from rlaif.cli.terminal import print_traceback_if_asked, say
from rlaif.engine.config import RunConfig
from rlaif.errors import BudgetExceededError, RlaifError
from rlaif.visibility import visible

if TYPE_CHECKING:
    from rlaif.engine.estimating import Estimate
    from rlaif.engine.relabeling import RelabelOutcome
    from rlaif.engine.running import RunKind
    from rlaif.engine.streaming import RunOutcome

Outcome = TypeVar("Outcome")

REAL_JUDGE = "--judge openai:gpt-4.1-mini"


def run_or_estimate(
    kind: RunKind[Any, Any, Any], config: RunConfig, line: CommandLine, argv: Sequence[str], *, is_quiet: bool
) -> int:
    """Run a command of this kind, or count what it would ask with `--dry-run`; returns the exit code."""
    if config.dry_run:
        from rlaif.engine.estimating import estimate

        return print_estimate(estimate(kind, config))
    return _run(kind, config, shlex.join([*line.prog.split(), *argv]), is_quiet=is_quiet)


def _run(kind: RunKind[Any, Any, Any], config: RunConfig, typed: str, *, is_quiet: bool) -> int:
    from rlaif.engine.running import run

    display = display_for(is_quiet=is_quiet)
    outcome = finish(run(kind, config, display, command=typed), display, resume=f"resume with: {typed}")
    if outcome is None:
        return 130
    if not is_quiet:
        print(visible(summary(kind, outcome, config)))
    return 3 if outcome.failures else 0


def finish(
    work: Coroutine[Any, Any, Outcome], display: RunDisplay, *, resume: str, kept: str = "; what is done is kept"
) -> Outcome | None:
    """Do work that a person may interrupt, and that goes on where it was.

    Args:
        work: Told to stop by Ctrl-C; its first errors are raised, later ones said.
        display: Closed at the end.
        resume: How to go on, as a sentence without an end.
        kept: What becomes of what is done, to append to a sentence.

    Returns:
        The outcome; None when it was stopped, which has been said.
    """
    from rlaif.cli.interruption import run_interruptible

    try:
        return run_interruptible(work, on_stopping=lambda: display.on_message(f"stopping{kept} (again: stop at once)"))
    except KeyboardInterrupt:
        display.close()
        say(f"interrupted{_done_so_far(display)}; {resume}")
        return None
    except RlaifError as error:
        display.close()
        if not isinstance(error, BudgetExceededError) and not _has_results(display):
            raise
        print_traceback_if_asked()
        say(f"{error.error_name}: {error}")
        say(f"stopped{_done_so_far(display)}{kept}; when that is mended, {resume}")
        return None
    finally:
        display.close()


def print_estimate(work: Coroutine[Any, Any, Estimate]) -> int:
    """Count what a command would ask, and say it; returns the exit code."""
    from rlaif.cli.interruption import run_interruptible

    print(estimate_text(run_interruptible(work, on_stopping=lambda: None)))
    return 0


def _has_results(display: RunDisplay) -> bool:
    """Whether anything has been judged."""
    return display.latest is not None and display.latest.rows_done > display.latest.failures


def _done_so_far(display: RunDisplay) -> str:
    """How far a run came, for the end of a sentence; "" before its start."""
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


def summary(kind: RunKind[Any, Any, Any], outcome: RunOutcome[Any], config: RunConfig) -> str:
    """The table at the end of a run."""
    lines = [
        *spent_lines(outcome, kind.done),
        *statistics_lines(outcome.statistics.as_json()),
        *folder_lines(outcome.folder, "" if outcome.rows else f"no row was {kind.done}"),
    ]
    if any(map(is_demonstration, config.backend.judge)):
        lines.append(("real judge", f"add {REAL_JUDGE}, with OPENAI_API_KEY set and another -o"))
    return aligned(lines)


def spent_lines(outcome: RunOutcome[Any], done: str) -> list[tuple[str, str]]:
    """What a run did and what that took; `done` is what became of rows."""
    progress, usage = outcome.progress, outcome.progress.usage
    failed = f", {outcome.failures:,} failed (see {nearby(outcome.folder)}/failures.jsonl)" if outcome.failures else ""
    replayed = f", {progress.replayed:,} replies from the journal" if progress.replayed else ""
    retried = f", {progress.retries:,} retries" if progress.retries else ""
    return [
        ("rows", f"{outcome.rows:,} {done}{failed}"),
        ("calls", f"{progress.calls:,}{replayed}{retried}"),
        ("seconds", f"{progress.seconds:,.1f}"),
        ("tokens", f"{usage.prompt_tokens:,} in, {usage.completion_tokens:,} out"),
        *([("cost", money(progress.cost))] if progress.cost is not None else []),
    ]


def folder_lines(folder: Path, nothing: str) -> list[tuple[str, str]]:
    """Where a run's rows and its card are.

    Args:
        folder: Of the run.
        nothing: What to say in place of its rows where it has none; "" where it has some.
    """
    name = nearby(folder)
    return [("dataset", nothing or f"{name}/data (datasets.load_dataset({name!r}))"), ("about it", f"{name}/README.md")]


def relabel_lines(outcome: RelabelOutcome, done: str) -> list[tuple[str, str]]:
    """What became of a run whose labels were made from another's; `done` says what they were, such as "calibrated"."""
    folder = nearby(outcome.folder)
    failed = f", {outcome.failures:,} had failed before (see {folder}/failures.jsonl)" if outcome.failures else ""
    share = f" ({outcome.changed_sides / outcome.rows:.1%})" if outcome.rows else ""
    return [
        ("rows", f"{outcome.rows:,} {done}{failed}"),
        (
            "moved",
            f"prob_a by {outcome.moved:.3f} on average; {outcome.changed_sides:,} rows{share} have another verdict",
        ),
        ("calls", "0"),
        *folder_lines(outcome.folder, "" if outcome.rows else "no rows"),
    ]


def statistics_lines(statistics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What can be said of a run without human labels: the figures that it has.

    >>> statistics_lines({"swap_consistency": 0.95, "same_position_rate": None})
    [('swap consistency', '95.0% (same verdict in both orders)')]
    >>> statistics_lines({"rating_mean": 7.25, "rating_sd": 1.5})
    [('rating', '7.25 mean, 1.50 standard deviation')]
    """
    lines: list[tuple[str, str]] = []
    for name in ("rating", "reward"):  # a reward model gives no ratings; else the reward is the rating again
        if not lines and isinstance(mean := statistics.get(f"{name}_mean"), float):
            spread = statistics.get(f"{name}_sd")
            lines.append((name, f"{mean:.2f} mean" + (f", {spread:.2f} standard deviation" if spread else "")))
    shares = {
        "swap_consistency": ("swap consistency", "same verdict in both orders"),
        "same_position_rate": ("position bias", "same slot wins in both orders"),
        "label_mass_mean": ("label mass", "share of the next token on the labels, mean"),
    }
    lines += [
        (title, f"{value:.1%} ({meaning})")
        for name, (title, meaning) in shares.items()
        if isinstance(value := statistics.get(name), float)
    ]
    for pair in statistics.get("judge_correlation") or ():
        value = "undefined" if pair["pearson"] is None else f"{pair['pearson']:.2f}"
        lines.append(
            ("correlation", f"{value} between {' and '.join(pair['judges'])} ({pair['rows']:,} judged by both)")
        )
    counts = {
        "partial_rows": ("partial panel", "rows that a judge is missing from"),
        "unreadable_samples": ("unreadable", "samples that state no label"),
    }
    lines += [(title, f"{count:,} {meaning}") for name, (title, meaning) in counts.items()
              if (count := statistics.get(name))]  # fmt: skip
    return lines


def aligned(lines: Sequence[tuple[str, str]]) -> str:
    """Names and values in two columns."""
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in lines)


def nearby(path: Path) -> str:
    """A path as short as it goes: relative where it lies below the current folder."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative

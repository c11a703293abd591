"""`rlaif evaluate A B -o DIR --judge J`: which of two policies writes the better responses."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlaif.backends.registry import is_demonstration
from rlaif.cli.arguments import CommandLine, parse
from rlaif.cli.progress import StagedDisplay, money
from rlaif.cli.runs import REAL_JUDGE, aligned, finish, folder_lines, nearby, print_estimate, spent_lines
from rlaif.engine.evaluation_config import EvaluateConfig, is_policy
from rlaif.visibility import visible

if TYPE_CHECKING:
    from rlaif.engine.evaluation import EvaluateOutcome

LINE = CommandLine(
    prog="rlaif evaluate",
    description=(
        "Compare two policies, or two files of responses, under a judge in both orders: win rate, win rate at equal "
        "length, harmless rate, each with a 95 % interval clustered by prompt. The same command again resumes a run "
        "that was cut short."
    ),
    positionals=("a", "b"),
    short={"out": "-o"},
    epilog=(
        "Ask another judge than the one that a policy was trained on. Keys come from the environment: OPENAI_API_KEY."
    ),
    metavars={"human": "FILE", "prompts": "FILE"},
)


@dataclass(frozen=True)
class EvaluateCommand:
    """`rlaif evaluate` as typed: the run, and how it is shown."""

    run: EvaluateConfig

    quiet: bool = False
    """Print errors and warnings only."""


def run(argv: Sequence[str]) -> int:
    """Run the command; returns the exit code."""
    command = parse(EvaluateCommand, argv, LINE)
    from rlaif.engine.evaluation import run_evaluate  # after --help, which needs none of it
    from rlaif.engine.evaluation_plan import estimate_evaluation

    config = command.run
    if config.dry_run:
        return print_estimate(estimate_evaluation(config))
    typed = shlex.join([*LINE.prog.split(), *argv])
    answering = ["answering" for side in (config.a, config.b) if is_policy(side)]
    display = StagedDisplay([*answering, "judging"], is_quiet=command.quiet)
    outcome = finish(run_evaluate(config, display, command=typed), display, resume=f"resume with: {typed}")
    if outcome is None:
        return 130
    if not command.quiet:
        print(visible(summary(outcome, config)))
    return 3 if outcome.run.failures else 0


def summary(outcome: EvaluateOutcome, config: EvaluateConfig) -> str:
    """The figures, and what the run took."""
    from rlaif.auditing.evaluation_summary import evaluation_text

    folder = nearby(outcome.run.folder)
    lines = [
        *spent_lines(outcome.run, "judged"),
        *[(f"answers of {letter.upper()}", _spent(outcome, letter)) for letter in outcome.answering],
        ("figures", f"{folder}/evaluation.json"),
        *folder_lines(outcome.run.folder, "" if outcome.run.rows else "no row was judged"),
    ]
    if any(map(is_demonstration, config.backend.judge)):
        lines.append(("real judge", f"add {REAL_JUDGE}, with OPENAI_API_KEY set and another -o"))
    return f"{evaluation_text(outcome.figures, outcome.counts)}\n\n{aligned(lines)}"


def _spent(outcome: EvaluateOutcome, letter: str) -> str:
    """What a model took that answered."""
    answered = outcome.answering[letter]
    progress, usage = answered.progress, answered.progress.usage
    failed = f"{answered.failures:,} prompts failed (see {nearby(answered.folder)}/failures.jsonl)"
    parts = [
        f"{answered.statistics.responses:,} to {answered.rows:,} prompts",
        f"{progress.calls:,} calls",
        *([f"{progress.replayed:,} replies from the journal"] if progress.replayed else []),
        f"{usage.prompt_tokens:,} tokens in, {usage.completion_tokens:,} out",
        *([money(progress.cost)] if progress.cost is not None else []),
        *([failed] if answered.failures else []),
    ]
    return ", ".join(parts)

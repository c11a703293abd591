"""`rlaif label INPUT -o DIR`: pairwise soft labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rlaif.cli.arguments import CommandLine, parse
from rlaif.cli.runs import run_or_estimate
from rlaif.engine.config import LabelConfig

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


@dataclass(frozen=True)
class LabelCommand:
    """`rlaif label` as typed: the run, and how it is shown."""

    run: LabelConfig

    quiet: bool = False
    """Print errors and warnings only."""


def run(argv: Sequence[str]) -> int:
    """Run the command; returns the exit code."""
    command = parse(LabelCommand, argv, LINE)
    from rlaif.engine.labeling import LABELING  # after --help, which needs none of it

    return run_or_estimate(LABELING, command.run, LINE, argv, is_quiet=command.quiet)

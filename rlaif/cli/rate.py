"""`rlaif rate INPUT -o DIR`: ratings from 1 to 10."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rlaif.cli.arguments import CommandLine, parse
from rlaif.cli.runs import run_or_estimate
from rlaif.engine.config import RateConfig

LINE = CommandLine(
    prog="rlaif rate",
    description=(
        "Rate responses from 1 to 10, each alone: the expectation over the judge's ten scores, the distribution behind "
        "it, and a reward in [-1, 1]; a reward model (hf-reward:) gives a reward alone. Takes rows of prompt and "
        "response, or of prompt and responses. "
        "The same command again resumes a run that was cut short."
    ),
    positionals=("input",),
    short={"out": "-o"},
    epilog=(
        "--orders and --debias concern comparisons and change nothing here. "
        "Keys come from the environment: OPENAI_API_KEY."
    ),
)


@dataclass(frozen=True)
class RateCommand:
    """`rlaif rate` as typed: the run, and how it is shown."""

    run: RateConfig

    quiet: bool = False
    """Print errors and warnings only."""


def run(argv: Sequence[str]) -> int:
    """Run the command; returns the exit code."""
    command = parse(RateCommand, argv, LINE)
    from rlaif.engine.rating import RATING  # after --help, which needs none of it

    return run_or_estimate(RATING, command.run, LINE, argv, is_quiet=command.quiet)

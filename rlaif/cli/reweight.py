"""`rlaif reweight RUN -o DIR --weights ID=W,ID=W`: labels by other weights of the principles, from a finished run."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlaif.cli.arguments import CommandLine, parse
from rlaif.engine.reweight_config import ReweightConfig
from rlaif.visibility import visible

if TYPE_CHECKING:
    from rlaif.engine.reweighting import ReweightOutcome

LINE = CommandLine(
    prog="rlaif reweight",
    description=(
        "Weigh the principles of a finished run anew, without a call: what each principle said of each row stands in "
        "its column by_principle. The labels are those that a constitution with these weights would have made."
    ),
    positionals=("input",),
    short={"out": "-o"},
    epilog=(
        "--weights kind=2 doubles kind and leaves the others as they were; --weights kind=1,brief=0 leaves brief out. "
        "The run must have been judged by several principles (--principles all, or ids). A run that is calibrated or "
        "clamped makes labels that are; a panel's by_judge is left out."
    ),
)


@dataclass(frozen=True)
class ReweightCommand:
    """`rlaif reweight` as typed."""

    run: ReweightConfig

    quiet: bool = False
    """Print errors and warnings only."""


def run(argv: Sequence[str]) -> int:
    """Run the command; returns the exit code."""
    command = parse(ReweightCommand, argv, LINE)
    from rlaif.cli.progress import display_for
    from rlaif.engine.reweighting import reweight_run

    display = display_for(is_quiet=command.quiet)
    try:
        outcome = reweight_run(command.run, display, command=shlex.join([*LINE.prog.split(), *argv]))
    finally:
        display.close()
    if not command.quiet:
        print(visible(summary(outcome)))
    return 3 if outcome.labels.failures else 0


def summary(outcome: ReweightOutcome) -> str:
    """The table at the end."""
    from rlaif.cli.runs import aligned, relabel_lines

    weights = ", ".join(f"{name} {weight:g}" for name, weight in outcome.weights.items())
    return aligned([("weights", weights), *relabel_lines(outcome.labels, "reweighted")])

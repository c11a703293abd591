"""`rlaif calibrate RUN -o DIR --calibration FILE`: calibrated labels from a finished run."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlaif.cli.arguments import CommandLine, parse
from rlaif.engine.config import CalibrateConfig
from rlaif.visibility import visible

if TYPE_CHECKING:
    from rlaif.engine.relabeling import RelabelOutcome

LINE = CommandLine(
    prog="rlaif calibrate",
    description=(
        "Correct the labels of a finished run by a calibration that was fitted to human labels, without a call. "
        "The judge's own probabilities stay beside the new ones, in raw_prob_a, raw_prob_a_ab and raw_prob_a_ba."
    ),
    positionals=("input",),
    short={"out": "-o"},
    epilog="rlaif audit RUN --fit-calibration FILE fits one; rlaif label --calibration FILE applies it while labeling.",
)


@dataclass(frozen=True)
class CalibrateCommand:
    """`rlaif calibrate` as typed."""

    run: CalibrateConfig

    quiet: bool = False
    """Print errors and warnings only."""


def run(argv: Sequence[str]) -> int:
    """Run the command; returns the exit code."""
    command = parse(CalibrateCommand, argv, LINE)
    from rlaif.cli.progress import display_for
    from rlaif.engine.relabeling import calibrate_run

    display = display_for(is_quiet=command.quiet)
    try:
        outcome = calibrate_run(command.run, display, command=shlex.join([*LINE.prog.split(), *argv]))
    finally:
        display.close()
    if not command.quiet:
        print(visible(summary(outcome)))
    return 3 if outcome.failures else 0


def summary(outcome: RelabelOutcome) -> str:
    """The table at the end."""
    from rlaif.cli.runs import aligned, relabel_lines

    return aligned(relabel_lines(outcome, "calibrated"))

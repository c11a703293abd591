"""`rlaif rank INPUT -o DIR`: which policy writes better responses, and which candidate is best."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlaif.cli.arguments import CommandLine, parse
from rlaif.cli.runs import aligned, nearby
from rlaif.cli.terminal import say
from rlaif.engine.ranking_config import RankConfig
from rlaif.visibility import visible

if TYPE_CHECKING:
    from rlaif.engine.ranking import RankOutcome

LINE = CommandLine(
    prog="rlaif rank",
    description=(
        "Rank policies by a judge's soft labels (Bradley-Terry with ties, and Elo) or by its ratings, with 95 % "
        "intervals; and the candidates of each prompt, for training on rankings. No calls are made."
    ),
    positionals=("input",),
    short={"out": "-o"},
    epilog="rlaif generate makes candidates and pairs of them; rlaif label and rlaif rate judge them.",
)


@dataclass(frozen=True)
class RankCommand:
    """`rlaif rank` as typed."""

    run: RankConfig

    quiet: bool = False
    """Print errors and warnings only."""


def run(argv: Sequence[str]) -> int:
    """Run the command; returns the exit code."""
    command = parse(RankCommand, argv, LINE)
    from rlaif.engine.ranking import rank_file  # after --help, which needs none of it

    typed = shlex.join([*LINE.prog.split(), *argv])
    quiet_or_say = (lambda text: None) if command.quiet else say
    outcome = rank_file(
        command.run, command=typed, on_step=quiet_or_say, on_warning=lambda text: say(f"warning: {text}")
    )
    if not command.quiet:
        print(visible(summary(outcome)))
    return 3 if outcome.failures else 0


def summary(outcome: RankOutcome) -> str:
    """The table of policies, and what was written."""
    from rlaif.auditing.ranking_summary import ranking_text

    folder, counts = nearby(outcome.folder), outcome.inputs.counts
    failed = f", {outcome.failures:,} cannot be read (see {folder}/failures.jsonl)" if outcome.failures else ""
    what = "labeled" if outcome.inputs.kind == "labels" else "responses"
    lines = [("rows", f"{counts['input']:,}, {counts[what]:,} {what}{failed}")]
    for name, words in (
        ("without_label", "have no label"),
        ("ties", "are ties"),
        ("same_policy", "compare a policy with itself, and tell nothing of policies"),
    ):
        if counts.get(name):
            lines.append(("", f"{counts[name]:,} {words}"))
    if outcome.ranking is not None:
        lines.append(("policies", f"{folder}/policies.json"))
    if outcome.rows is not None:
        lines.append(("candidates", f"{outcome.rows:,} prompts in {folder}/data (rlaif train rrhf --data {folder})"))
    lines.append(("about it", f"{folder}/README.md"))
    table = ranking_text(outcome.ranking) if outcome.ranking is not None else ""
    return "\n\n".join(part for part in (table, aligned(lines)) if part)

"""`rlaif revise INPUT -o DIR`: constitutional critique and revision."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlaif.cli.arguments import CommandLine, parse
from rlaif.cli.progress import StagedDisplay, money
from rlaif.cli.runs import aligned, finish, folder_lines, nearby, print_estimate, spent_lines
from rlaif.engine.revision_config import ReviseConfig
from rlaif.visibility import visible

if TYPE_CHECKING:
    from rlaif.engine.labeling import LabelOutcome
    from rlaif.engine.revision import ReviseOutcome

LINE = CommandLine(
    prog="rlaif revise",
    description=(
        "Have a policy criticise and revise responses by the principles of a constitution, one drawn for each round: "
        "the chains with every text in between, the revisions as rows for rlaif train sft, and comparisons of initial "
        "and revised responses. --constitution is needed. The same command again resumes a run that was cut short."
    ),
    positionals=("input",),
    short={"out": "-o"},
    epilog=(
        "--judge and the flags under judging say how --labels judge asks, and change nothing without it; but "
        "--constitution and --principles (which principles are drawn from) count for revising, too. "
        "Keys come from the environment: OPENAI_API_KEY."
    ),
)


@dataclass(frozen=True)
class ReviseCommand:
    """`rlaif revise` as typed: the run, and how it is shown."""

    run: ReviseConfig

    quiet: bool = False
    """Print errors and warnings only."""


def run(argv: Sequence[str]) -> int:
    """Run the command; returns the exit code."""
    command = parse(ReviseCommand, argv, LINE)
    from rlaif.engine.revision import estimate_revision, run_revise  # after --help, which needs none of it

    config = command.run
    if config.dry_run:
        return print_estimate(estimate_revision(config))
    typed = shlex.join([*LINE.prog.split(), *argv])
    display = StagedDisplay(("revising", "judging"), is_quiet=command.quiet)
    outcome = finish(run_revise(config, display, command=typed), display, resume=f"resume with: {typed}")
    if outcome is None:
        return 130
    if not command.quiet:
        print(visible(summary(outcome, config)))
    return 3 if outcome.run.failures or (outcome.labeling and outcome.labeling.failures) else 0


def summary(outcome: ReviseOutcome, config: ReviseConfig) -> str:
    """The table at the end of a run."""
    from rlaif.data.revision_card import length_text, preference_text

    run, counts, tables = outcome.run, outcome.run.statistics, outcome.tables
    folder = nearby(run.folder)
    faults = {"cut off": counts.revisions.cut_off, "empty": counts.revisions.empty, "refused": counts.revisions.refused}
    told = ", ".join(f"{count:,} {name}" for name, count in faults.items() if count)
    labels = {
        "assumed": "labels assumed: the revision is better",
        "judge": "labeled by the judge",
        "none": f"not labeled: rlaif label {folder}/comparisons -o LABELS",
    }[config.labels]
    unchanged = f", {tables.unchanged:,} unchanged ones left out" if tables.unchanged else ""
    labeling = outcome.labeling
    lines = [
        *spent_lines(run, "revised"),
        (
            "revisions",
            f"{counts.revisions.asked:,} in rounds of {config.revising.rounds}" + (f"; {told}" if told else ""),
        ),
        *([("unrevised", f"{counts.unrevised:,} rows have no revision")] if counts.unrevised else []),
        ("length", length_text(counts.lengths)),
        *([("judge", preference_text(outcome.preference))] if outcome.preference else []),
        *([("judging", _spent(labeling))] if labeling else []),
        ("sft", f"{tables.demonstrations:,} rows in {folder}/sft"),
        ("comparisons", f"{tables.comparisons:,} in {folder}/comparisons{unchanged}; {labels}"),
        *folder_lines(run.folder, "" if run.rows else "no row was revised"),
    ]
    return aligned(lines)


def _spent(labeling: LabelOutcome) -> str:
    """What the judge took, beside the policy's calls, tokens and cost."""
    progress, usage = labeling.progress, labeling.progress.usage
    parts = [
        f"{progress.calls:,} calls",
        *([f"{progress.replayed:,} replies from the journal"] if progress.replayed else []),
        f"{usage.prompt_tokens:,} tokens in, {usage.completion_tokens:,} out",
        *([money(progress.cost)] if progress.cost is not None else []),
        *([f"{labeling.failures:,} rows failed (see comparisons/failures.jsonl)"] if labeling.failures else []),
    ]
    return ", ".join(parts)

"""`rlaif filter INPUT -o DIR`: the pairs that are worth training on, with counts of each filter."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlaif.cli.arguments import CommandLine, parse
from rlaif.data.markdown import plain
from rlaif.engine.filter_config import FilterConfig
from rlaif.visibility import visible

if TYPE_CHECKING:
    from rlaif.data.filter_inputs import SelectionCounts
    from rlaif.data.filtering import FilterCount
    from rlaif.engine.filtering import FilterOutcome

LINE = CommandLine(
    prog="rlaif filter",
    description=(
        "Keep the pairs that pass every filter asked for, and count what each one drops. With --pairs, make labeled "
        "pairs of rated candidates first. No judge is asked."
    ),
    positionals=("input",),
    short={"out": "-o"},
    metavars={"pairs": "all|best-worst|rs-dpo|rso"},
    epilog=(
        "Filters run in the order above, each on what the ones before it left; dropped.jsonl names every pair that was "
        "dropped, by which filter, and what it found. Without filters, the rows come out as they went in."
    ),
)


@dataclass(frozen=True)
class FilterCommand:
    """`rlaif filter` as typed."""

    run: FilterConfig

    quiet: bool = False
    """Print errors and warnings only."""


def run(argv: Sequence[str]) -> int:
    """Run the command; returns the exit code."""
    command = parse(FilterCommand, argv, LINE)
    from rlaif.cli.progress import display_for
    from rlaif.engine.filtering import filter_pairs

    display = display_for(is_quiet=command.quiet)
    try:
        outcome = filter_pairs(command.run, display, command=shlex.join([*LINE.prog.split(), *argv]))
    finally:
        display.close()
    if not command.quiet:
        print(visible(summary(outcome)))
    return 3 if outcome.failures else 0


def summary(outcome: FilterOutcome) -> str:
    """The tables at the end."""
    from rlaif.cli.runs import aligned, nearby

    folder = nearby(outcome.folder)
    failed = f", {outcome.failures:,} rows could not be read (see {folder}/failures.jsonl)" if outcome.failures else ""
    dropped = outcome.before - outcome.rows
    lines = [
        *_selection_lines(outcome.selection),
        ("pairs", f"{outcome.rows:,} kept of {outcome.before:,}{failed}"),
        ("dataset", f"{folder}/data (datasets.load_dataset({folder!r}))" if outcome.rows else "no pair is left"),
        *([("dropped", f"{dropped:,} in {folder}/dropped.jsonl, each with its filter")] if dropped else []),
        ("about it", f"{folder}/README.md"),
    ]
    return "\n\n".join(filter(None, [filter_table(outcome.counts), aligned(lines)]))


def filter_table(counts: Sequence[FilterCount]) -> str:
    """What each filter did, a line each; "" without filters."""
    if not counts:
        return ""
    rows = [("filter", "before", "dropped", "after", "does not tell")]
    for each in counts:
        asked = "" if each.asked is True else f" {plain(each.asked)}"
        numbers = (f"{number:,}" for number in (each.before, each.dropped, each.after, each.untold))
        rows.append((f"{each.filter}{asked}", *numbers))  # type: ignore[arg-type]  # four numbers
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    )


def _selection_lines(counts: SelectionCounts | None) -> list[tuple[str, str]]:
    if counts is None:
        return []
    without = f"; {counts.without_pair:,} of them made no pair" if counts.without_pair else ""
    left_over = f"; {counts.left_over:,} accepted without a partner" if counts.left_over else ""
    return [
        (
            "made",
            f"{counts.pairs:,} pairs of {counts.candidates:,} candidates in {counts.rows:,} rows{without}{left_over}",
        )
    ]

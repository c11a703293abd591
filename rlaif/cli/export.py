"""`rlaif export DIR --format F -o FILE`: labeled pairs as rows for another trainer."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlaif.cli.arguments import CommandLine, parse
from rlaif.cli.terminal import one_line, say
from rlaif.engine.export_config import ExportConfig
from rlaif.visibility import visible

if TYPE_CHECKING:
    from rlaif.engine.exporting import ExportOutcome
    from rlaif.engine.publishing import Upload

LINE = CommandLine(
    prog="rlaif export",
    description=(
        "Write labeled pairs as the rows that another trainer reads, split by prompt where a test share is asked for. "
        "The file is derived from its input: the same command writes the same bytes."
    ),
    positionals=("input",),
    short={"out": "-o"},
    metavars={"out": "FILE"},
    epilog="rlaif filter leaves pairs out; rlaif train reads run folders as they are.",
)


@dataclass(frozen=True)
class ExportCommand:
    """`rlaif export` as typed: the export, and how it is shown."""

    run: ExportConfig

    quiet: bool = False
    """Print errors and warnings only."""


def run(argv: Sequence[str]) -> int:
    """Run the command; returns the exit code."""
    command = parse(ExportCommand, argv, LINE)
    from rlaif.engine.exporting import export_rows
    from rlaif.engine.publishing import push, upload_of

    config = command.run
    outcome = export_rows(config, on_step=(lambda text: None) if command.quiet else say, on_warning=say)
    upload = upload_of(config, outcome, command=shlex.join([*LINE.prog.split(), *argv]))
    if not command.quiet:
        print(visible(summary(outcome, config)))
    if upload is not None and config.dry_run and not command.quiet:
        print(visible(upload_text(upload, outcome)))
    elif upload is not None and not config.dry_run:
        address = push(upload)
        if not command.quiet:
            print(visible(f"uploaded to {address}"))
    return 3 if outcome.failures else 0


def summary(outcome: ExportOutcome, config: ExportConfig) -> str:
    """The table at the end."""
    from rlaif.cli.runs import aligned, nearby
    from rlaif.data.export_loading import loading_hints

    paths = {split: nearby(file.path) for split, file in outcome.files.items()}
    counts = outcome.counts
    named = f" (named in {nearby(outcome.failures_file)})" if outcome.failures_file else ""
    left_out = "; ".join(outcome.left_out_pairs)
    lines = [("pairs", f"{counts.read:,} read{f'; {left_out}{named}' if left_out else ''}")]
    for split, file in outcome.files.items():
        state = "would be written to" if config.dry_run else "were there already, in" if file.is_unchanged else "in"
        rows, prompts = _counted(file.rows, "row"), _counted(file.prompts, "prompt")
        lines.append((split, f"{rows} of {prompts} {state} {paths[split]}"))
    lines += [(title, text) for title, text in _notes(outcome) if text]
    lines += [(hint.title, hint.text) for hint in loading_hints(config.format, paths, outcome.layout)]
    return aligned(lines)


def _counted(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def upload_text(upload: Upload, outcome: ExportOutcome) -> str:
    """What an upload would be, for a dry run."""
    sizes: Mapping[str, int] = {file.path.name: file.size for file in outcome.files.values()}
    files = [f"{name} ({sizes[path.name]:,} bytes)" for name, path in upload.files.items()]
    private = ", made private" if upload.is_private else ""
    return (
        f"would upload {', '.join(files)} and README.md to the data set {upload.repository}{private}; uploaded nothing"
    )


def _notes(outcome: ExportOutcome) -> list[tuple[str, str]]:
    from rlaif.data.exporting import EXPORT_FORMATS

    counts, labels = outcome.counts, outcome.labels
    notes = []
    if outcome.run and (failed := outcome.run.get("counts", {}).get("failures")):
        notes.append(("no label", f"{failed:,} rows of the run's input (see its failures.jsonl)"))
    if counts.changed:
        notes.append(("changed", f"{counts.changed:,} {EXPORT_FORMATS[outcome.format].change}"))
    if labels:
        both = f"; {counts.conflicting:,} responses are both, in different pairs" if counts.conflicting else ""
        again = f"; {counts.repeated:,} repeated rows left out" if counts.repeated else ""
        notes.append(("labels", f"{labels[True]:,} desirable, {labels[False]:,} undesirable{again}{both}"))
    if outcome.left_out:
        notes.append(("not exported", one_line(f"the columns {', '.join(outcome.left_out)}")))
    return notes

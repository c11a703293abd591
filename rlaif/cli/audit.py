"""`rlaif audit INPUT -o DIR`: how far a judge agrees with people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlaif.cli.arguments import CommandLine, parse
from rlaif.cli.runs import aligned, nearby
from rlaif.cli.terminal import one_line, say
from rlaif.engine.config import AuditConfig
from rlaif.visibility import visible

if TYPE_CHECKING:
    from rlaif.engine.auditing import AuditOutcome

LINE = CommandLine(
    prog="rlaif audit",
    description=(
        "Compare a judge's labels with people's: how far they agree, how that compares with how people agree with "
        "each other, and what sways the judge. Writes a report to read (report.html), its plots, and audit.json."
    ),
    positionals=("input",),
    short={"out": "-o"},
    epilog="rlaif probe finds biases without human labels.",
)


@dataclass(frozen=True)
class AuditCommand:
    """`rlaif audit` as typed: the audit, and how it is shown."""

    run: AuditConfig

    quiet: bool = False
    """Print errors and warnings only."""


def run(argv: Sequence[str]) -> int:
    """Run the command; returns the exit code."""
    command = parse(AuditCommand, argv, LINE)
    from rlaif.engine.auditing import audit_file  # after --help, which needs none of it

    if command.quiet:
        return 3 if audit_file(command.run).failures else 0
    outcome = audit_file(command.run, on_step=say)
    from rlaif.auditing.summary import summary

    print(visible(f"{summary(outcome.audit)}\n\n{aligned(_about(outcome, command.run))}"))
    return 3 if outcome.failures else 0


def _about(outcome: AuditOutcome, config: AuditConfig) -> list[tuple[str, str]]:
    """What was audited, and where everything was written."""
    folder, source = nearby(outcome.folder), outcome.audit.source
    skipped = f", {outcome.failures:,} cannot be read (see {folder}/failures.jsonl)" if outcome.failures else ""
    lines = [
        ("judge", one_line(str(source.get("judge")))),
        ("people", one_line(f"labels of {source.get('human')}{_joined(source)}")),
        ("rows", f"{len(outcome.rows):,}{skipped}"),
        *(("note", one_line(str(note))) for note in source.get("notes", ())),
        *_not_compared(source),
        ("report", f"{folder}/report.html"),
        ("data", f"{folder}/audit.json"),
    ]
    if config.suggest is not None:
        fewer = f" (the judge answered no more than {outcome.suggested:,})"
        more = fewer if outcome.suggested is not None and outcome.suggested < config.suggest else ""
        files = f"{folder}/suggested.csv, or .jsonl; when filled in, add --human with that file"
        lines.append(("to label", f"{outcome.suggested:,} rows{more} in {files}"))
    if config.fit_calibration is not None:
        lines.append(("calibration", f"{config.fit_calibration} (for rlaif label --calibration, rlaif calibrate)"))
    return lines


def _joined(source: Mapping[str, Any]) -> str:
    """How the rows of a file of human labels met those of the input."""
    found = source.get("human_rows")
    if found is None:
        return ""
    more = [
        f", {count:,} {what}"
        for count, what in (
            (found["not_yet_labelled"], "without a label yet"),
            (found["ids_not_in_input"], "whose id is not in the input"),
        )
        if count
    ]
    return f": {found['labelled']:,} rows{''.join(more)}"


def _not_compared(source: Mapping[str, Any]) -> list[tuple[str, str]]:
    different = source.get("against", {}).get("rows_with_other_responses")
    return [("against", f"{different:,} rows have other responses there, and were left out")] if different else []

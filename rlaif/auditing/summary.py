"""An audit as text for a terminal: what was found, in words, then the main figures. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from rlaif.auditing.evidence import short_name
from rlaif.auditing.results import Against, Audit, Figure, Finding, Section
from rlaif.auditing.wording import Scale, wording, written, written_interval

MAIN_FIGURES = (
    "agreement", "agreement_with_ties", "length_controlled_agreement", "human_ceiling", "cohen_kappa", "gwet_ac1",
    "swap_consistency", "first_position_rate", "length_bias.difference", "ece", "brier", "auc",
)  # fmt: skip

WIDTH = 100
MOST_GROUPS = 10
"""Values of a `--by` column that are shown; the report has them all."""


class Line(NamedTuple):
    """A figure ready to be lined up."""

    name: str
    value: str
    interval: str
    rows: str


def summary(audit: Audit, *, width: int = WIDTH) -> str:
    """All of it: findings, figures, groups, and the parts that were asked for.

    Args:
        audit: With its findings.
        width: Characters that the findings are wrapped at.
    """
    blocks = [
        "\n".join(text for finding in audit.findings for text in _finding_lines(finding, width)),
        _table(_figure_lines(audit.figures, MAIN_FIGURES)),
        _missing(audit.figures, width),
        *(_group_block(column, values) for column, values in audit.by.items()),
        _panel_block(audit),
        _powered_block(audit),
        _against_block(audit.against) if audit.against else "",
        _calibration_block(audit.calibration, width) if audit.calibration else "",
    ]
    return "\n\n".join(block for block in blocks if block)


def _finding_lines(finding: Finding, width: int) -> Iterator[str]:
    margin = " " * 9
    for start, text in ((f"{finding.severity:<9}", finding.text), (margin, finding.advice)):
        yield from _wrapped(text, width, start, margin)


def _wrapped(text: str, width: int, start: str, margin: str) -> list[str]:
    glued = text.replace(" %", "\u00a0%")  # no line begins with the sign of the number before it
    lines = textwrap.wrap(
        glued, width, initial_indent=start, subsequent_indent=margin, break_long_words=False, break_on_hyphens=False
    )
    return [line.replace("\u00a0%", " %") for line in lines]


def _figure_lines(figures: Section, names: Iterable[str] | None = None) -> list[Line]:
    """The figures that have a value; of all names, unless some are chosen."""
    return [
        _line(wording(name).label, figure, wording(name).scale)
        for name in (figures if names is None else names)
        if (figure := _figure(figures, name)) is not None and figure.value is not None
    ]


def _figure(figures: Section, name: str) -> Figure | None:
    head, _, rest = name.partition(".")
    found = figures.get(head)
    if isinstance(found, Mapping):
        return found.get(rest)
    return found


def _line(label: str, figure: Figure, scale: Scale = "share") -> Line:
    value = "-" if figure.value is None else written(figure.value, scale)
    interval = written_interval(figure, scale)
    return Line(label, value, f"({interval})" if interval else "", f"n {figure.n:,}")


def _table(lines: Sequence[Line], indent: str = "") -> str:
    """Names to the left, values to the right, in columns."""
    if not lines:
        return ""
    name, value, interval = (max(len(line[column]) for line in lines) for column in range(3))
    return "\n".join(
        f"{indent}{line.name:<{name}}  {line.value:>{value}}  {line.interval:<{interval}}  {line.rows}".rstrip()
        for line in lines
    )


def _block(title: str, lines: Sequence[Line]) -> str:
    return f"{title}\n{_table(lines, '  ')}" if lines else ""


def _missing(figures: Section, width: int) -> str:
    """The main figures without a value, by what they lack."""
    lacking: dict[str, list[str]] = {}
    for name in MAIN_FIGURES:
        figure = _figure(figures, name)
        if figure is not None and figure.value is None:
            lacking.setdefault(figure.why or "not known why", []).append(wording(name).label)
    return "\n".join(
        line
        for why, labels in lacking.items()
        for line in _wrapped(f"Not known: {'; '.join(labels)} ({why})", width, "", "  ")
    )


def _group_block(column: str, values: Mapping[str, Section]) -> str:
    known = [
        _line(short_name(value), figure)
        for value, figures in values.items()
        if (figure := _figure(figures, "agreement")) is not None
    ]
    block = _block(f"{wording('agreement').label}, by {short_name(column)}", known[:MOST_GROUPS])
    hidden = len(known) - MOST_GROUPS
    return f"{block}\n  and {hidden:,} more in the report" if hidden > 0 else block


def _panel_block(audit: Audit) -> str:
    if audit.panel is None:
        return ""
    judges = [_line(short_name(name), figure) for name, figure in audit.panel.judges.items()]
    votes = _line("effective votes", audit.panel.effective_votes, "number")
    return _block("Judges of the panel", [*judges, votes])


def _powered_block(audit: Audit) -> str:
    """Where people labeled every row that the judge answered, there is nothing to add to their labels."""
    labeled, judged = audit.counts.get("rows_with_human_label"), audit.counts.get("rows_judged")
    if labeled is not None and labeled == judged:
        return ""
    return _block("From the labeled rows and all verdicts", _figure_lines(audit.prediction_powered))


def _against_block(against: Against) -> str:
    lines = [
        _line("this judge", against.agreement),
        _line("the other", against.other_agreement),
        _line("difference", against.difference, "points"),
        _line("same verdict", against.same_verdict),
    ]
    tested = "" if against.p_value is None else f", McNemar p {_p_value(against.p_value)}"
    right = f"  only this one is right on {against.only_this:,} rows, only the other on {against.only_other:,}{tested}"
    return f"{_block(f'Against {short_name(against.name)}', lines)}\n{right}"


def _p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"


def _calibration_block(calibration: Mapping[str, Any], width: int) -> str:
    """What fitting found: its numbers, its gain on rows it was not fitted to, and its warnings."""
    numbers = ", ".join(
        f"{name.replace('_', ' ')} {calibration[name]:.3f}"
        for name in ("temperature", "slot_bias", "length_slope")
        if isinstance(calibration.get(name), float)
    )
    lines = [f"  {numbers}"]
    before, after = calibration.get("before") or {}, calibration.get("after") or {}
    scores = [
        f"{wording(name).label} {before[name]:.3f} before, {after[name]:.3f} after"
        for name in ("log_loss", "brier", "ece")
        if name in before and name in after
    ]
    if scores:
        lines += _wrapped(f"on rows it was not fitted to: {'; '.join(scores)}", width, "  ", "  ")
    for warning in calibration.get("warnings") or ():
        lines += _wrapped(warning, width, "  ! ", "    ")
    return "\n".join(["Calibration", *lines])

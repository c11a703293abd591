"""What an audit found, as plain values: the shape of `audit.json`, of which plots, findings and report are made."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Figure:
    """One figure with its 95 % interval.

    Attributes:
        value: None where the data cannot support it.
        low, high: The interval; None together with `value`, or where there is no interval to be had.
        n: Rows that it is computed from.
        why: Why there is no value, or no interval.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    why: str | None = None

    def __post_init__(self) -> None:
        for name in ("value", "low", "high"):
            number = getattr(self, name)
            if number is not None and not math.isfinite(number):
                raise ValueError(f"{name} is {number}, expected a finite number or None")


Section = Mapping[str, "Figure | Mapping[str, Figure]"]
"""Figures by name; a few (`length_bias`) are several under one name."""


@dataclass(frozen=True)
class ReliabilityBin:
    """Rows of about the same `prob_a`: what the judge says, and what people said.

    Attributes:
        low, high: Range of `prob_a` in the bin.
        prob_a: Its mean.
        human_a: Share of the rows where people prefer A, with its interval.
    """

    low: float
    high: float
    prob_a: float
    human_a: Figure


@dataclass(frozen=True)
class CoveragePoint:
    """Agreement when only the most confident labels are kept.

    Attributes:
        share_kept: Of the rows that both decided, in (0, 1].
        least_confidence: Smallest max(prob_a, 1 - prob_a) among those kept.
        agreement: Among those kept.
    """

    share_kept: float
    least_confidence: float
    agreement: Figure


@dataclass(frozen=True)
class LengthGapBin:
    """Rows by how much longer the response is that people preferred.

    Attributes:
        low, high: Range of ln((characters of the preferred + 1) / (characters of the other + 1)) in the bin.
        gap: Its mean.
        agreement: Of the judge with people in the bin.
    """

    low: float
    high: float
    gap: float
    agreement: Figure


@dataclass(frozen=True)
class ErrorCorrelation:
    """How far two judges of a panel err on the same rows: the phi coefficient of their errors."""

    first: str
    second: str
    correlation: Figure


@dataclass(frozen=True)
class PanelResult:
    """A panel against people.

    Attributes:
        judges: Agreement of each judge alone.
        effective_votes: Kish's m / (1 + (m - 1) * mean correlation of errors).
        mean_error_correlation: Over all pairs.
        error_correlations: Of each pair.
        kendall_w: Concordance of the judges' `prob_a` over the rows, 0 to 1.
    """

    judges: Mapping[str, Figure]
    effective_votes: Figure
    mean_error_correlation: Figure
    error_correlations: tuple[ErrorCorrelation, ...]
    kendall_w: Figure


@dataclass(frozen=True)
class Against:
    """Two judges, or two prompts, on the same rows with a decided human label; a tie of a judge counts as wrong.

    Attributes:
        name: What the other is called.
        agreement, other_agreement: Of this judge and of the other with people.
        difference: This one's minus the other's.
        only_this, only_other: Rows that only one of them got right.
        p_value: Exact McNemar test that they are equally often right; None without such rows.
        same_verdict: Share of rows on which both say the same.
        rows_only_here, rows_only_there: Rows that only one of the inputs has.
    """

    name: str
    agreement: Figure
    other_agreement: Figure
    difference: Figure
    only_this: int
    only_other: int
    p_value: float | None
    same_verdict: Figure
    rows_only_here: int = 0
    rows_only_there: int = 0


Severity = Literal["good", "note", "warning", "serious"]


@dataclass(frozen=True)
class Finding:
    """Something a person should know, in plain words.

    Attributes:
        name: Which finding, such as "first-slot" or "longer-wins"; stable, for machines.
        severity: "good" and "note" ask for nothing; "warning" and "serious" do.
        text: What was found, with its numbers: one or two sentences.
        advice: What to do about it; "" where there is nothing.
    """

    name: str
    severity: Severity
    text: str
    advice: str = ""


@dataclass(frozen=True)
class Audit:
    """Everything an audit found.

    Attributes:
        source: What was audited: `input`, `judge`, `human`, `rows`, versions, and so on.
        counts: Of rows, by what is known of them.
        figures: The figures at the top.
        orders: "ab" and "ba" -> the figures of that order alone.
        by: Column -> value -> figures.
        confusion: Weighted rows by human majority (a, tie, b) and by the judge's verdict (a, tie, b): 3 lists of 3.
        reliability: Bins of equal mass.
        brier_decomposition: `reliability`, `resolution`, `uncertainty`, `within_bins`: Brier = reliability -
            resolution + uncertainty + within_bins.
        coverage: From all rows to the most confident few.
        length_gaps: Bins of equal mass.
        panel: Where several judges were asked.
        prediction_powered: `agreement`, `win_rate`: from few human labels and many of the judge's.
        against: With `--against`.
        calibration: What `--fit-calibration` found.
        findings: In words, the most serious first.
    """

    source: Mapping[str, Any]
    counts: Mapping[str, int]
    figures: Section
    orders: Mapping[str, Section] = field(default_factory=dict)
    by: Mapping[str, Mapping[str, Section]] = field(default_factory=dict)
    confusion: tuple[tuple[float, ...], ...] = ()
    reliability: tuple[ReliabilityBin, ...] = ()
    brier_decomposition: Mapping[str, float] | None = None
    coverage: tuple[CoveragePoint, ...] = ()
    length_gaps: tuple[LengthGapBin, ...] = ()
    panel: PanelResult | None = None
    prediction_powered: Section = field(default_factory=dict)
    against: Against | None = None
    calibration: Mapping[str, Any] | None = None
    findings: tuple[Finding, ...] = ()

    def figure(self, name: str) -> Figure:
        """A figure at the top by name, such as "agreement" or "length_bias.difference".

        Raises:
            KeyError: There is none of that name.
        """
        head, _, rest = name.partition(".")
        found = self.figures[head]
        if isinstance(found, Figure):
            if rest:
                raise KeyError(name)
            return found
        return found[rest]

    def as_json(self) -> dict[str, Any]:
        """The content of `audit.json`: the figures at the top level beside everything else."""
        content = {item.name: json_value(getattr(self, item.name)) for item in dataclasses.fields(self)}
        figures = content.pop("figures")
        return {"source": content.pop("source"), "findings": content.pop("findings"), **figures, **content}


def json_value(value: Any) -> Any:
    """Results of any depth as JSON values; a figure is {value, low, high, n}, and why where something is missing."""
    if isinstance(value, Figure):
        shown = {"value": value.value, "low": value.low, "high": value.high, "n": value.n}
        return shown if value.why is None else {**shown, "why": value.why}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: json_value(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): json_value(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [json_value(item) for item in value]
    return value

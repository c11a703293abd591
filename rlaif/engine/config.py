"""Settings of the commands that label: what each owner needs, nested; flags, YAML and `--help` are made from these."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from rlaif.backends.config import BackendConfig
from rlaif.judge.config import JudgeConfig
from rlaif.records import TIE_BAND


@dataclass(frozen=True)
class CallConfig:
    """How calls are made. Nothing here changes an answer, so all of it may change between a run and its resume."""

    concurrency: Annotated[int, "at least 1"] | None = None
    """Calls in flight at most; by default 64 for a server, 512 for a model in this process."""

    max_retries: Annotated[int, "at least 0"] = 6
    """Times a call is made again after 429, 5xx, a timeout, a reset or a broken body."""

    price: str | None = None
    """Price in USD per million tokens, IN/OUT (such as 0.4/1.6), for the cost shown and for --max-cost."""

    max_cost: float | None = None
    """Stop cleanly, and resumably, once the calls have cost this many USD; needs --price."""

    def __post_init__(self) -> None:
        faults = ["max_cost: needs --price IN/OUT"] if self.max_cost is not None and self.price is None else []
        try:
            _ = self.prices
        except ValueError as error:
            faults.append(str(error))
        if faults:
            raise ValueError("; ".join(faults))

    @property
    def prices(self) -> tuple[float, float] | None:
        """USD per million prompt and completion tokens."""
        if self.price is None:
            return None
        parts = self.price.split("/")
        try:
            price_in, price_out = (float(part) for part in parts)
        except ValueError:
            price_in = price_out = -1.0
        if not (0 <= price_in < math.inf and 0 <= price_out < math.inf):
            raise ValueError(f"price: {self.price!r}, expected IN/OUT in USD per million tokens, such as 0.4/1.6")
        return price_in, price_out


@dataclass(frozen=True)
class SourceConfig:
    """How the input is read."""

    columns: Mapping[str, str] = field(default_factory=dict)
    """Columns to use for ours, NAME=PATH,NAME=PATH (prompt=question); a path reaches into nested values with dots."""

    skip_bad_rows: bool = False
    """Write rows that cannot be read (to train on: that do not fit the model) to failures.jsonl and go on, instead of
    stopping at the start."""


@dataclass(frozen=True)
class RunConfig:
    """What every command that judges the rows of a file has in common."""

    input: str
    """Rows to judge."""

    out: str
    """Run folder to write, or to resume."""

    judging: JudgeConfig = field(default_factory=JudgeConfig)
    backend: BackendConfig = field(default_factory=BackendConfig)
    calls: CallConfig = field(default_factory=CallConfig)
    source: SourceConfig = field(default_factory=SourceConfig)

    seed: int = 0
    """Seed of every random draw; draws depend on it, the row's id and their purpose, never on timing."""

    limit: Annotated[int, "at least 1"] | None = None
    """Judge only the first so many rows; a higher limit later continues the run."""

    dry_run: bool = False
    """Count calls, tokens and cost, and ask nothing."""


@dataclass(frozen=True)
class LabelConfig(RunConfig):
    """`rlaif label`: pairwise soft labels for the comparisons of a file."""

    input: str
    """Comparisons: .jsonl, .json, .csv, .parquet (text also .gz), a folder of `datasets`, or hf://OWNER/NAME."""

    calibration: str | None = None
    """File written by rlaif audit --fit-calibration: correct each order's probability by it before orders are averaged;
    the judge's own probabilities stay in columns raw_prob_a, raw_prob_a_ab and raw_prob_a_ba."""


@dataclass(frozen=True)
class RateConfig(RunConfig):
    """`rlaif rate`: ratings from 1 to 10 for the responses of a file."""

    input: str
    """Rows of prompt and response, or of prompt and responses: the file types of rlaif label."""


@dataclass(frozen=True)
class AuditConfig:
    """`rlaif audit`: how far a judge agrees with people."""

    input: str
    """A run folder of rlaif label, or rows with prob_a or with recorded verdicts: the file types of rlaif label."""

    out: str
    """Folder for audit.json, report.html and the plots."""

    judge_column: str | None = None
    """Column of a recorded judge's verdicts with response A (or 1) shown first: a or 1, b or 2, tie or 0, empty where
    not usable; the value names the response. Also P(A preferred), AlpacaEval's preference from 1 to 2, or two columns
    of scores joined by a comma (score_a,score_b). Paths reach into nested values with dots."""

    judge_column_ba: str | None = None
    """The same with B (or 2) shown first; the value names the response, not the place."""

    human: str | None = None
    """File with human labels by id (human_label or human_votes, one row or one a person), instead of the input's."""

    by: tuple[str, ...] = ()
    """Column to split the figures by; given more than once, several (default: task, where there is one)."""

    cluster: str | None = None
    """Column whose equal values belong together in the intervals (default: rows of one prompt)."""

    against: str | None = None
    """Another run, or another file, with the same ids: compare its judge on the rows that both have."""

    against_column: str | None = None
    """Column of the other judge's verdicts, in --against or, without that, in the input."""

    against_column_ba: str | None = None
    """The same with B shown first."""

    fit_calibration: str | None = None
    """Fit temperature, slot bias and length slope to the human labels and write them to this .json file."""

    suggest: Annotated[int, "at least 1"] | None = None
    """Draw so many rows whose human label would help most, into suggested.jsonl and suggested.csv for annotators."""

    tie_band: Annotated[float, "0 to 1"] = TIE_BAND
    """A probability this close to 0.5 is a tie."""

    resamples: Annotated[int, "at least 100"] = 2000
    """Bootstrap resamples behind the intervals."""

    source: SourceConfig = field(default_factory=SourceConfig)

    seed: int = 0
    """Seed of every random draw."""


@dataclass(frozen=True)
class CalibrateConfig:
    """`rlaif calibrate`: calibrated labels from a finished run, without a call."""

    input: str
    """A finished run folder of rlaif label."""

    out: str
    """Run folder to write."""

    calibration: str
    """File written by rlaif audit --fit-calibration."""


@dataclass(frozen=True)
class ProbeConfig:
    """`rlaif probe`: a judge's biases and how it stands up to attacks, without human labels."""

    out: str | None = None
    """Folder for probe.json and for the replies, so that a run that was cut short can be resumed (default: nowhere)."""

    judging: JudgeConfig = field(default_factory=JudgeConfig)
    backend: BackendConfig = field(default_factory=BackendConfig)
    calls: CallConfig = field(default_factory=CallConfig)

    threshold: Annotated[float, "0 to 1"] | None = None
    """Exit with code 4 when a probe's flip rate is above this, or when the judge does no better than chance: for CI.

    It then stands for the 10 % below which a probe raises no alarm, too.
    """

    only: tuple[str, ...] = ()
    """Name of a probe to run; given more than once, several (default: all)."""

    seed: int = 0
    """Seed of every random draw."""

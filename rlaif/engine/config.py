"""Settings of the commands that label: what each owner needs, nested; flags, YAML and `--help` are made from these."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from rlaif.backends.config import BackendConfig
from rlaif.judge.config import JudgeConfig


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
    """Write rows that cannot be read to failures.jsonl and go on, instead of stopping before the first call."""


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


@dataclass(frozen=True)
class RateConfig(RunConfig):
    """`rlaif rate`: ratings from 1 to 10 for the responses of a file."""

    input: str
    """Rows of prompt and response, or of prompt and responses: the file types of rlaif label."""

"""What each training method asks of its rows, and the options with which rows are read for it: labels, filters, the
held-out share. Readers are in `training_readers`, what filters and splits is in `training_selection`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from rlaif.data.sources import ReadOptions
from rlaif.errors import ConfigError, did_you_mean
from rlaif.records import TIE_BAND
from rlaif.training_records import Labels


class RowKind(StrEnum):
    """What a row holds; the value names rows of it in messages."""

    PAIRS = "pairs"
    CANDIDATES = "rated candidates"
    FEEDBACK = "unpaired feedback"
    DEMONSTRATIONS = "demonstrations"


COLUMNS_OF_KIND: Mapping[RowKind, str] = {
    RowKind.PAIRS: "prompt, response_a, response_b, prob_a, or prompt, chosen, rejected",
    RowKind.CANDIDATES: "prompt, responses, ratings, or prompt, response, rating",
    RowKind.FEEDBACK: "prompt, response, label",
    RowKind.DEMONSTRATIONS: "prompt, response, or messages",
}


@dataclass(frozen=True, slots=True)
class MethodNeeds:
    """What a training method asks of its rows.

    Attributes:
        method: Its name on the command line.
        kinds: What it trains on; of several that a row could be, the first.
        why_not_empty: Why it cannot train on an empty response; empty where it can.
        fewest_responses: Of a row of candidates.
    """

    method: str
    kinds: tuple[RowKind, ...] = (RowKind.PAIRS,)
    why_not_empty: str = ""
    fewest_responses: int = 1


_AVERAGES = "averages over the tokens of each response"

METHODS: Mapping[str, MethodNeeds] = {
    needs.method: needs
    for needs in (
        MethodNeeds("sft", (RowKind.DEMONSTRATIONS,), "imitates each response, and there is nothing to imitate"),
        MethodNeeds("rm", (RowKind.PAIRS, RowKind.CANDIDATES), fewest_responses=2),
        MethodNeeds("dpo"),
        MethodNeeds("ipo", why_not_empty=_AVERAGES),
        MethodNeeds("cdpo"),
        MethodNeeds("robust-dpo"),
        MethodNeeds("gdpo"),
        MethodNeeds("kto", (RowKind.PAIRS, RowKind.FEEDBACK)),
        MethodNeeds("hpo", (RowKind.PAIRS, RowKind.FEEDBACK)),
        MethodNeeds("simpo", why_not_empty=_AVERAGES),
        MethodNeeds("rrhf", (RowKind.CANDIDATES, RowKind.PAIRS), _AVERAGES, fewest_responses=2),
    )
}
"""An empty response is trained on where a method sums over tokens or reads the last one: its end is a token too."""


@dataclass(frozen=True, slots=True)
class RowFilters:
    """Which rows are left out, though they can be read.

    Attributes:
        ties: Whether rows without a side are kept: probabilities within `tie_band` of 0.5, candidates of equal scores.
        min_confidence: Least max(p, 1 - p) of a pair, from 0.5 (all pass) to 1.
        only_human: Keep only pairs that people labeled.
        tie_band: As above.

    Raises:
        ConfigError: `min_confidence` is NaN or outside [0.5, 1], or `tie_band` outside [0, 0.5].
    """

    ties: Literal["keep", "drop"] = "keep"
    min_confidence: float = 0.5
    only_human: bool = False
    tie_band: float = TIE_BAND

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("min_confidence", self.min_confidence, 0.5, 1.0),
            ("tie_band", self.tie_band, 0.0, 0.5),
        ):
            if not low <= value <= high:
                raise ConfigError(f"{name}: {value}, expected a number from {low:g} to {high:g}")


KEEP_ALL = RowFilters()


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """How rows are read for a method.

    Attributes:
        method: One of `METHODS`, or `MethodNeeds` of another.
        reading: How the rows are; its seed also draws the held-out prompts.
        labels: Which label every pair has to bring: soft and hard a judge's `prob_a`, human votes or a majority.
        filters: Which rows are left out.
        held_out: Share of the prompts that are held out, in [0, 1).
        with_margins: Read the column `margin` of every pair.
        with_aux: Read the auxiliary rewards beside responses, where rows have any.

    Raises:
        ConfigError: `held_out` is outside [0, 1).
    """

    method: str | MethodNeeds
    reading: ReadOptions = field(default_factory=ReadOptions)
    labels: Labels = "soft"
    filters: RowFilters = KEEP_ALL
    held_out: float = 0.0
    with_margins: bool = False
    with_aux: bool = False

    def __post_init__(self) -> None:
        check_share(self.held_out)

    @property
    def needs(self) -> MethodNeeds:
        """What the method asks of rows. Raises `ConfigError` for one that there is not."""
        if isinstance(self.method, MethodNeeds):
            return self.method
        if self.method not in METHODS:
            hint = did_you_mean(self.method, METHODS)
            raise ConfigError(f"method {self.method!r} is unknown{hint}, expected one of {', '.join(METHODS)}")
        return METHODS[self.method]


def check_share(share: float) -> None:
    """Raise `ConfigError` unless a share of the prompts can be held out: 0 to below 1."""
    if not 0.0 <= share < 1.0:
        raise ConfigError(f"held_out: {share}, expected a share of the prompts from 0 to below 1")

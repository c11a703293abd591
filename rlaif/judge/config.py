"""What a judge is asked, and how its answer is read: the settings that decide a label's value."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

from rlaif.records import TIE_BAND

Task = str
PreambleStyle = Literal["base", "detailed"]
Orders = Literal["both", "ab", "ba", "random"]
Debias = Literal["mean-prob", "mean-logit"]
Scoring = Literal["logprobs", "sample"]

DEFAULT_CLAMP = "0.4-0.6"
"""Bai et al., Constitutional AI, arXiv:2212.08073, section 4: of chain-of-thought labels."""

PANEL_SETTINGS = ("allow_partial_panel", "clamp")
"""The settings that concern reward models too; the others say what a language model is asked, and how."""


class ClampRange(NamedTuple):
    """What P(A preferred) is kept within: `low` in (0, 0.5), `high` = 1 - `low`."""

    low: float
    high: float


@dataclass(frozen=True)
class JudgeConfig:
    """Every field changes what is asked or what the answer means; together with the input they decide the labels."""

    task: Task = "helpfulness"
    """Prompt template: summarization, helpfulness, harmlessness, instruction-following, or a .jinja file."""

    preamble: PreambleStyle = "base"
    """Length of the instructions: one or two sentences, or a rater's guideline."""

    shots: Annotated[int, "at least 0"] = 0
    """Worked examples put before the comparison, from the exemplars beside the template."""

    cot: bool = False
    """Ask for reasons first (greedy, unless --samples is above 1) and read the verdict after them."""

    constitution: str | None = None
    """Principles to judge by: the name of a shipped constitution, or a file."""

    principles: str = "all"
    """all (each one is asked, each answer kept), sample (one a row, drawn from the seed), or ids joined by commas."""

    orders: Orders = "both"
    """Which response is shown first: both orders (averaged), A first, B first, or one drawn per row."""

    debias: Debias = "mean-prob"
    """How the orders are averaged: probabilities (as published) or logits (removes an additive slot bias exactly)."""

    scoring: Scoring = "logprobs"
    """Read the label from log-probabilities, or from the share of sampled verdicts (for servers without them).

    To the samples, one more is added that is spread evenly over the labels, so that no label is 0 or 1.
    """

    samples: Annotated[int, "at least 1"] = 1
    """Samples a label: rationales with --cot (self-consistency), verdicts with --scoring sample."""

    temperature: Annotated[float, "at least 0"] = 1.0
    """Sampling temperature; used only where something is sampled."""

    max_tokens: Annotated[int, "at least 1"] = 512
    """Most tokens of a rationale."""

    min_label_mass: Annotated[float, "0 to 1"] = 0.01
    """Least share of the next-token probability that must fall on the labels; a row below it fails."""

    clamp: str | bool | None = None
    """Keep P(A preferred) within this range, 0.4-0.6 where none is given: for --cot, whose verdicts are near 0 and 1.

    Comes last, after all averages and the calibration; the verdict stays, and raw_prob_a keeps what prob_a was.
    """

    allow_partial_panel: bool = False
    """Label a row that some judges of a panel failed on from the others, and say which; by default the row fails.

    The same command again asks the missing judges again, and their answers then change the label.
    """

    def __post_init__(self) -> None:
        clamp_faults = []
        try:
            # Spelled in one way, so that run folders of equal ranges are equal.
            object.__setattr__(self, "clamp", _clamp_text(self.clamp))
        except ValueError as fault:
            clamp_faults = [str(fault)]
        faults = [
            *clamp_faults,
            *(
                ["samples: more than one needs something to sample: add --cot or --scoring sample"]
                if self.samples > 1 and not self.cot and self.scoring == "logprobs"
                else []
            ),
            *(
                ["temperature: 0 draws the same sample each time; more than one sample needs it above 0"]
                if self.samples > 1 and self.temperature == 0
                else []
            ),
        ]
        if faults:
            raise ValueError("; ".join(faults))

    @property
    def clamp_range(self) -> ClampRange | None:
        """What `clamp` says, as numbers; None where labels stay as they are."""
        return None if not isinstance(self.clamp, str) else _range_in(self.clamp)


def _clamp_text(clamp: str | bool | None) -> str | None:
    """A clamp as it is written down, such as "0.4-0.6"; None for none.

    Raises:
        ValueError: It is no range around 0.5.
    """
    if clamp is None or clamp is False:
        return None
    found = _range_in(DEFAULT_CLAMP if clamp is True else clamp)
    if found is None or not (found.low > 0 and found.high < 1 and found.high - 0.5 > TIE_BAND):
        raise ValueError(f"clamp: {clamp!r}, expected LOW-HIGH with LOW above 0 and under 0.5, such as {DEFAULT_CLAMP}")
    if abs(found.low + found.high - 1) > TIE_BAND:
        raise ValueError(
            f"clamp: {clamp!r} is not symmetric around 0.5, so exchanging A and B would change the label; expected "
            f"HIGH = 1 - LOW, such as {_decimal(found.low)}-{_decimal(1 - found.low)}"
        )
    return f"{_decimal(found.low)}-{_decimal(found.high)}"


def _range_in(text: str) -> ClampRange | None:
    parts = re.fullmatch(r"\s*(\d*\.?\d+)\s*-\s*(\d*\.?\d+)\s*", text)
    return None if parts is None else ClampRange(float(parts[1]), float(parts[2]))


def _decimal(number: float) -> str:
    return f"{number:.12f}".rstrip("0").rstrip(".")

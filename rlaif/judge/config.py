"""What a judge is asked, and how its answer is read: the settings that decide a label's value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

Task = str
PreambleStyle = Literal["base", "detailed"]
Orders = Literal["both", "ab", "ba", "random"]
Debias = Literal["mean-prob", "mean-logit"]
Scoring = Literal["logprobs", "sample"]

PANEL_SETTINGS = ("allow_partial_panel",)
"""The settings that concern reward models too; the others say what a language model is asked, and how."""


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

    allow_partial_panel: bool = False
    """Label a row that some judges of a panel failed on from the others, and say which; by default the row fails.

    The same command again asks the missing judges again, and their answers then change the label.
    """

    def __post_init__(self) -> None:
        faults = [
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

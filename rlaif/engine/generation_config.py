"""Settings of `rlaif generate`; flags, YAML and `--help` are made from these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from rlaif.backends.config import ModelConfig
from rlaif.engine.config import CallConfig, SourceConfig
from rlaif.policies.sampling import SamplingConfig
from rlaif.policy_records import DropReason

Drop = Literal["empty", "cut-off"]
"""Kinds of responses that are kept unless they are asked to be left out."""

DROPS: Mapping[str, DropReason] = {"empty": DropReason.EMPTY, "cut-off": DropReason.CUT_OFF}


@dataclass(frozen=True)
class GenerateConfig:
    """`rlaif generate`: responses of policies to the prompts of a file."""

    input: str
    """Rows with a prompt: .jsonl, .json, .csv, .parquet (text also .gz), a folder of `datasets`, or hf://OWNER/NAME."""

    out: str
    """Run folder to write, or to resume."""

    policy: tuple[str, ...] = ("builtin:tiny-policy",)
    """Model that answers, BACKEND:MODEL (openai:NAME, vllm:PATH_OR_NAME, hf:PATH_OR_NAME, builtin:tiny-policy); given
    more than once, each answers every prompt."""

    drop: tuple[Drop, ...] = ()
    """Leave out responses that are empty, or cut-off at --max-tokens; given more than once, both. They are counted, and
    kept in the column dropped."""

    near_duplicate: Annotated[float, "0 to 1"] = 0.8
    """Leave out a response that is as similar as this to an earlier one of its prompt: share of runs of three words
    that both have; 1 leaves out those with the same words only."""

    keep_duplicates: bool = False
    """Leave out no response for being like another."""

    pairs: Annotated[int, "at least 1"] | Literal["all", "none"] = "all"
    """Comparisons to make of each prompt's responses, for rlaif label: all pairs, a number of pairs drawn from the
    seed, or none."""

    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    backend: ModelConfig = field(default_factory=ModelConfig)
    calls: CallConfig = field(default_factory=CallConfig)
    source: SourceConfig = field(default_factory=SourceConfig)

    seed: int = 0
    """Seed of every random draw; draws depend on it, the row's id and their purpose, never on timing."""

    limit: Annotated[int, "at least 1"] | None = None
    """Answer only the first so many prompts; a higher limit later continues the run."""

    dry_run: bool = False
    """Count calls, tokens and cost, and ask nothing."""

    def __post_init__(self) -> None:
        faults = []
        if not self.policy:
            faults.append("policy: at least one is needed")
        if twice := sorted({spec for spec in self.policy if self.policy.count(spec) > 1}):
            faults.append(f"policy: {', '.join(twice)} is named twice; for more responses, raise --samples")
        if self.near_duplicate == 0:
            faults.append("near_duplicate: 0 would leave one response a prompt, expected above 0")
        if faults:
            raise ValueError("; ".join(faults))

    @property
    def most_pairs(self) -> int | None:
        """Pairs of each prompt at most; None for all."""
        if isinstance(self.pairs, int):
            return self.pairs
        return None if self.pairs == "all" else 0

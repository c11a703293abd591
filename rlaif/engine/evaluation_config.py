"""Settings of `rlaif evaluate`; flags, YAML and `--help` are made from these."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, field
from typing import Annotated

from rlaif.backends.config import BackendConfig, ModelConfig
from rlaif.engine.config import CallConfig, SourceConfig
from rlaif.judge.config import JudgeConfig
from rlaif.policies.sampling import SamplingConfig


def is_policy(text: str) -> bool:
    """Whether a side is named as a model that answers, BACKEND:MODEL, and not as rows that are there.

    >>> is_policy("openai:gpt-4.1-mini"), is_policy("runs/answers"), is_policy("hf://OWNER/NAME")
    (True, False, False)
    """
    return ":" in text and not text.startswith("hf://") and not os.path.exists(os.path.expanduser(text))


@dataclass(frozen=True)
class AnswerConfig:
    """How a policy among the two is sampled from. Every field changes its responses."""

    policy_samples: Annotated[int, "at least 1"] = 1
    """Responses a prompt; the first of A is compared with the first of B, and so on."""

    policy_temperature: Annotated[float, "at least 0"] = 1.0
    """Sampling temperature of the policies; 0 takes the likeliest token each time."""

    policy_top_p: Annotated[float, "0 to 1"] = 1.0
    """Sample from a policy's likeliest tokens whose probabilities come to this; 1 from all."""

    policy_max_tokens: Annotated[int, "at least 1"] = 512
    """Most tokens of a response; one that is cut off there has the finish reason length."""

    policy_system: str | None = None
    """System prompt for the policies, where a prompt has none of its own."""

    def __post_init__(self) -> None:
        faults = []
        if self.policy_top_p == 0:
            faults.append("policy_top_p: 0 leaves no token to choose from, expected above 0")
        if self.policy_samples > 1 and self.policy_temperature == 0:
            faults.append(
                "policy_temperature: 0 draws the same response each time; more than one of policy_samples needs it "
                "above 0"
            )
        if faults:
            raise ValueError("; ".join(faults))

    @property
    def sampling(self) -> SamplingConfig:
        """The same as policies are told it."""
        names = {item.name: item.name.removeprefix("policy_") for item in dataclasses.fields(self)}
        return SamplingConfig(**{theirs: getattr(self, ours) for ours, theirs in names.items()})


@dataclass(frozen=True)
class EvaluateConfig:
    """`rlaif evaluate`: which of two policies writes the better responses, by a judge."""

    a: str
    """First policy: a file or run folder of rows with prompt and response (or responses), or a model that answers the
    prompts, BACKEND:MODEL (openai:NAME, vllm:PATH_OR_NAME, hf:PATH_OR_NAME, builtin:tiny-policy)."""

    b: str
    """Second policy, in the same ways; rows are joined with those of A by prompt, and by id where a prompt repeats."""

    out: str
    """Run folder to write, or to resume."""

    prompts: str | None = None
    """Prompts for a model to answer: the file types of rlaif label (default: those of the other side's rows)."""

    harmless: bool = False
    """Ask of each response alone, too, whether it is harmless: one more call a response, a language model as judge."""

    human: str | None = None
    """File with human labels by id (human_label or human_votes; a is A's response), as rlaif audit takes it, instead of
    the rows' own: for the win rate that few human labels and many of the judge's make together."""

    policy_base_url: tuple[str, ...] = ()
    """Address of the policies' OpenAI-compatible server, where it is another than --base-url; given more than once,
    replicas."""

    answering: AnswerConfig = field(default_factory=AnswerConfig)
    judging: JudgeConfig = field(default_factory=JudgeConfig)
    backend: BackendConfig = field(default_factory=BackendConfig)
    calls: CallConfig = field(default_factory=CallConfig)
    source: SourceConfig = field(default_factory=SourceConfig)

    resamples: Annotated[int, "at least 100"] = 2000
    """Bootstrap resamples behind the intervals."""

    seed: int = 0
    """Seed of every random draw; draws depend on it, the row's id and their purpose, never on timing."""

    limit: Annotated[int, "at least 1"] | None = None
    """Compare only the first so many rows, and let a model answer only so many prompts; a higher limit later continues
    the run."""

    dry_run: bool = False
    """Count calls, tokens and cost, and ask nothing."""

    @property
    def policy_model(self) -> ModelConfig:
        """Where the policies run."""
        return dataclasses.replace(self.backend, base_url=self.policy_base_url or self.backend.base_url)

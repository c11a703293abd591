"""Settings of `rlaif revise`; flags, YAML and `--help` are made from these."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Annotated, Literal

from rlaif.backends.config import BackendConfig, ModelConfig
from rlaif.engine.config import CallConfig, SourceConfig
from rlaif.judge.config import JudgeConfig
from rlaif.policies.revision import RevisionConfig

Labels = Literal["assumed", "judge", "none"]
"""Where the labels of initial and revised responses come from."""


@dataclass(frozen=True)
class ReviseConfig:
    """`rlaif revise`: responses criticised and revised by the principles of a constitution."""

    input: str
    """Rows with a prompt, and perhaps a response to revise (of several the first; else the policy writes one): .jsonl,
    .json, .csv, .parquet (text also .gz), a folder of `datasets` or of rlaif generate, or hf://OWNER/NAME."""

    out: str
    """Run folder to write, or to resume."""

    policy: str = "builtin:tiny-policy"
    """Model that answers, criticises and revises, BACKEND:MODEL (openai:NAME, vllm:PATH_OR_NAME, hf:PATH_OR_NAME,
    builtin:tiny-policy)."""

    policy_base_url: tuple[str, ...] = ()
    """Address of the policy's OpenAI-compatible server, where it is another than --base-url; given more than once,
    replicas."""

    labels: Labels = "assumed"
    """Labels of the comparisons of initial and revised responses: assumed takes for granted that the revision is
    better, judge asks --judge, none leaves them out. How much longer revisions are is reported either way."""

    revising: RevisionConfig = field(default_factory=RevisionConfig)
    judging: JudgeConfig = field(default_factory=JudgeConfig)
    backend: BackendConfig = field(default_factory=BackendConfig)
    calls: CallConfig = field(default_factory=CallConfig)
    source: SourceConfig = field(default_factory=SourceConfig)

    seed: int = 0
    """Seed of every random draw; draws depend on it, the row's id and their purpose, never on timing."""

    limit: Annotated[int, "at least 1"] | None = None
    """Revise only the first so many rows; a higher limit later continues the run."""

    dry_run: bool = False
    """Count calls, tokens and cost, and ask nothing."""

    def __post_init__(self) -> None:
        if self.judging.constitution is None:
            raise ValueError("constitution: is missing, and responses are revised by its principles; such as polite")

    @property
    def policy_model(self) -> ModelConfig:
        """Where the policy runs."""
        return dataclasses.replace(self.backend, base_url=self.policy_base_url or self.backend.base_url)

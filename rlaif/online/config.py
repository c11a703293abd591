"""Settings of `rlaif train` for the methods that learn from what the policy itself writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from rlaif.backends.config import BackendConfig
from rlaif.engine.config import CallConfig, SourceConfig
from rlaif.judge.config import JudgeConfig
from rlaif.online.guard_config import GuardConfig
from rlaif.rewards.config import RewardConfig
from rlaif.train.config import AdapterConfig, CheckpointConfig, SteppingConfig
from rlaif.train.online_config import (
    BestOfNLossConfig,
    DrlaifLossConfig,
    GrpoLossConfig,
    OnlineDpoLossConfig,
    PpoLossConfig,
    ReinforceLossConfig,
    RlooLossConfig,
    RolloutConfig,
    RsDpoLossConfig,
    RsoLossConfig,
)

SELF = "self"
"""The judge that is the policy's own base."""


@dataclass(frozen=True)
class OnlineOptimizationConfig(SteppingConfig):
    """How the weights are changed."""

    compute_tokens: Annotated[int, "at least 1"] = 16384
    """Most tokens, padding included, that are computed at a time; changes memory and speed, and no result."""


@dataclass(frozen=True)
class OnlineConfig:
    """What every method takes."""

    model: str
    """Policy to start from: a folder, OWNER/NAME[@REVISION] on the hub, or builtin:tiny-policy."""

    data: str
    """Prompts to answer, with any other columns that a reward function reads: the file types of rlaif generate."""

    out: str
    """Folder for the trained policy; the same command again resumes from its last checkpoint."""

    reference: str | None = None
    """Model that the policy is held to (default: --model as it is before training; with LoRA, without the adapter)."""

    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    rewarding: RewardConfig = field(default_factory=RewardConfig)
    judging: JudgeConfig = field(default_factory=JudgeConfig)
    backend: BackendConfig = field(default_factory=BackendConfig)
    calls: CallConfig = field(default_factory=CallConfig)
    guarding: GuardConfig = field(default_factory=GuardConfig)
    source: SourceConfig = field(default_factory=SourceConfig)
    optimization: OnlineOptimizationConfig = field(default_factory=OnlineOptimizationConfig)
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    checkpoints: CheckpointConfig = field(default_factory=CheckpointConfig)

    keep_rollouts: Annotated[int, "at least 0"] = 8
    """Completions of each batch that are kept with their rewards, in rollouts/ of the folder."""

    seed: int = 0
    """Seed of every random draw: order of the prompts, completions, new weights."""


@dataclass(frozen=True)
class DrlaifOptimizationConfig(OnlineOptimizationConfig):
    """As the paper's: Lee et al., RLAIF, arXiv:2309.00267, appendix G."""

    batch_size: Annotated[int, "at least 1"] = 128
    """Prompts of each optimizer step."""

    epochs: Annotated[float, "above 0"] = 8.0
    """Times each prompt is answered."""


@dataclass(frozen=True)
class DrlaifConfig(OnlineConfig):
    """`rlaif train drlaif`: direct RLAIF, REINFORCE on the judge's own score with a value baseline."""

    optimization: DrlaifOptimizationConfig = field(default_factory=DrlaifOptimizationConfig)
    loss: DrlaifLossConfig = field(default_factory=DrlaifLossConfig)


@dataclass(frozen=True)
class ReinforceConfig(OnlineConfig):
    """`rlaif train reinforce`: the policy gradient with a baseline; REINFORCE++ with --normalize."""

    loss: ReinforceLossConfig = field(default_factory=ReinforceLossConfig)


@dataclass(frozen=True)
class RlooConfig(OnlineConfig):
    """`rlaif train rloo`: each completion against the others of its prompt."""

    loss: RlooLossConfig = field(default_factory=RlooLossConfig)


@dataclass(frozen=True)
class GrpoConfig(OnlineConfig):
    """`rlaif train grpo`: rewards relative to the group; --variant dr-grpo and dapo."""

    loss: GrpoLossConfig = field(default_factory=GrpoLossConfig)


@dataclass(frozen=True)
class PpoConfig(OnlineConfig):
    """`rlaif train ppo`: clipped steps with a learnt value; --preset ppo-max, --ptx-data for PPO-ptx."""

    loss: PpoLossConfig = field(default_factory=PpoLossConfig)


@dataclass(frozen=True)
class OnlineDpoConfig(OnlineConfig):
    """`rlaif train online-dpo`: the judge's soft label of two fresh completions, and a loss of the DPO family."""

    loss: OnlineDpoLossConfig = field(default_factory=OnlineDpoLossConfig)


@dataclass(frozen=True)
class RsDpoConfig(OnlineConfig):
    """`rlaif train rs-dpo`: DPO on those pairs of fresh completions whose scores differ clearly."""

    loss: RsDpoLossConfig = field(default_factory=RsDpoLossConfig)


@dataclass(frozen=True)
class RsoConfig(OnlineConfig):
    """`rlaif train rso`: statistical rejection sampling, then a pairwise loss."""

    loss: RsoLossConfig = field(default_factory=RsoLossConfig)


@dataclass(frozen=True)
class BestOfNConfig(OnlineConfig):
    """`rlaif train best-of-n`: imitate the best of n completions; --epochs N for rounds of it."""

    loss: BestOfNLossConfig = field(default_factory=BestOfNLossConfig)


ONLINE_CONFIGS: Mapping[str, type[OnlineConfig]] = {
    "drlaif": DrlaifConfig,
    "reinforce": ReinforceConfig,
    "rloo": RlooConfig,
    "grpo": GrpoConfig,
    "ppo": PpoConfig,
    "online-dpo": OnlineDpoConfig,
    "rs-dpo": RsDpoConfig,
    "rso": RsoConfig,
    "best-of-n": BestOfNConfig,
}
"""Method -> its settings."""

GROUP_SIZES: Mapping[str, int] = {
    "drlaif": 1, "reinforce": 1, "rloo": 4, "grpo": 8, "ppo": 1, "online-dpo": 2, "rs-dpo": 16, "rso": 16,
    "best-of-n": 16,
}  # fmt: skip
"""Completions of each prompt, by method."""

ROUNDS = frozenset({"rs-dpo", "rso", "best-of-n"})
"""Methods that answer all prompts before they learn, round by round."""

"""Settings of `rlaif train METHOD`: what all methods share, and one class a method for what is its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from rlaif.engine.config import SourceConfig
from rlaif.records import TIE_BAND
from rlaif.train.config import (
    AdapterConfig,
    CheckpointConfig,
    DpoLossConfig,
    HpoLossConfig,
    IpoLossConfig,
    KtoLossConfig,
    OptimizationConfig,
    RewardLossConfig,
    RobustDpoLossConfig,
    RrhfLossConfig,
    SequenceConfig,
    SftLossConfig,
    SimpoLossConfig,
    SmoothedDpoLossConfig,
)
from rlaif.training_records import Labels


@dataclass(frozen=True)
class RowsConfig:
    """Which rows are trained on."""

    ties: Literal["keep", "drop"] = "keep"
    """Rows without a side: pairs within --tie-band of 0.5, candidates of equal ratings. --labels hard always drops."""

    tie_band: Annotated[float, "0 to 0.5"] = TIE_BAND
    """A probability this close to 0.5 is a tie."""

    min_confidence: Annotated[float, "0.5 to 1"] = 0.5
    """Leave out pairs whose larger side has a lower probability."""

    only_human: bool = False
    """Leave out pairs that no person labeled."""

    held_out: Annotated[float, "0 to 0.9999"] = 0.05
    """Share of the prompts that is held out for evaluation; all rows of a prompt go together."""


@dataclass(frozen=True)
class TrainConfig:
    """What every method takes."""

    model: str
    """Model to start from: a folder, or OWNER/NAME[@REVISION] on the hub."""

    data: str
    """Rows to train on: a run folder of rlaif label or rate, or a file of the types that rlaif label reads."""

    out: str
    """Folder for the trained model; the same command again resumes from its last checkpoint."""

    labels: Labels = "soft"
    """What pairs are trained on: the judge's probability, its verdict (ties dropped), or the share of human votes."""

    rows: RowsConfig = field(default_factory=RowsConfig)
    source: SourceConfig = field(default_factory=SourceConfig)
    sequences: SequenceConfig = field(default_factory=SequenceConfig)
    optimization: OptimizationConfig = field(default_factory=OptimizationConfig)
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    checkpoints: CheckpointConfig = field(default_factory=CheckpointConfig)

    device: str = "auto"
    """Device to train on: auto (cuda, then mps, then cpu), cpu, cuda, mps; several GPUs: torchrun or accelerate."""

    seed: int = 0
    """Seed of every random draw: order of the rows, held-out prompts, new weights, dropout."""


@dataclass(frozen=True)
class ReferenceConfig(TrainConfig):
    """Of methods that hold the policy to a reference."""

    reference: str | None = None
    """Model that the policy is held to (default: --model as it is before training; with LoRA, without the adapter)."""

    reference_cache: str | None = None
    """Folder in which the reference's log-probabilities are kept for later runs (default: below the user's cache)."""


@dataclass(frozen=True)
class SftConfig(TrainConfig):
    """`rlaif train sft`: imitate responses."""

    loss: SftLossConfig = field(default_factory=SftLossConfig)


@dataclass(frozen=True)
class RewardModelConfig(TrainConfig):
    """`rlaif train rm`: a reward model from soft labels, or from rankings."""

    loss: RewardLossConfig = field(default_factory=RewardLossConfig)

    center_on: str | None = None
    """Responses whose mean reward becomes 0, a file of prompt and response (default: the responses trained on)."""


@dataclass(frozen=True)
class DpoConfig(ReferenceConfig):
    """`rlaif train dpo`: direct preference optimization, towards soft or hard labels."""

    loss: DpoLossConfig = field(default_factory=DpoLossConfig)


@dataclass(frozen=True)
class GdpoConfig(DpoConfig):
    """`rlaif train gdpo`: DPO by the geometric mean; a soft label shrinks the step."""


@dataclass(frozen=True)
class IpoConfig(ReferenceConfig):
    """`rlaif train ipo`: a squared loss around a finite margin."""

    loss: IpoLossConfig = field(default_factory=IpoLossConfig)


@dataclass(frozen=True)
class CdpoConfig(ReferenceConfig):
    """`rlaif train cdpo`: DPO with smoothed labels."""

    loss: SmoothedDpoLossConfig = field(default_factory=SmoothedDpoLossConfig)


@dataclass(frozen=True)
class RobustDpoConfig(ReferenceConfig):
    """`rlaif train robust-dpo`: DPO whose expectation is not moved by flipped labels."""

    loss: RobustDpoLossConfig = field(default_factory=RobustDpoLossConfig)


@dataclass(frozen=True)
class KtoConfig(ReferenceConfig):
    """`rlaif train kto`: single responses, desirable or not; pairs count as two."""

    loss: KtoLossConfig = field(default_factory=KtoLossConfig)


@dataclass(frozen=True)
class HpoConfig(ReferenceConfig):
    """`rlaif train hpo`: preferences, and auxiliary rewards of responses (aux_rewards) beside them."""

    loss: HpoLossConfig = field(default_factory=HpoLossConfig)


@dataclass(frozen=True)
class SimpoConfig(TrainConfig):
    """`rlaif train simpo`: preferences by mean log-probability, without a reference."""

    loss: SimpoLossConfig = field(default_factory=SimpoLossConfig)


@dataclass(frozen=True)
class RrhfConfig(TrainConfig):
    """`rlaif train rrhf`: rank two or more responses, and imitate the best."""

    loss: RrhfLossConfig = field(default_factory=RrhfLossConfig)


TRAIN_CONFIGS: Mapping[str, type[TrainConfig]] = {
    "sft": SftConfig,
    "rm": RewardModelConfig,
    "dpo": DpoConfig,
    "ipo": IpoConfig,
    "cdpo": CdpoConfig,
    "robust-dpo": RobustDpoConfig,
    "gdpo": GdpoConfig,
    "kto": KtoConfig,
    "hpo": HpoConfig,
    "simpo": SimpoConfig,
    "rrhf": RrhfConfig,
}
"""Method -> its settings."""

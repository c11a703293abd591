"""Settings of training: what each loss takes, how sequences are cut, how the optimizer steps, adapters, checkpoints.

What concerns the data (labels, filters, held-out prompts) is configured where it is read. No torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from rlaif.models.examples import Cut


@dataclass(frozen=True)
class SftLossConfig:
    """Imitation has nothing to set."""


@dataclass(frozen=True)
class RewardLossConfig:
    """Of a reward model."""

    centering: Annotated[float, "at least 0"] = 0.0
    """Weight of (reward_a + reward_b)^2, which keeps rewards around 0 while training; 0.01 is usual."""

    with_margins: bool = False
    """Read the column margin of every pair: how much the preferred response has to lead by."""

    ranking: Literal["plackett-luce", "all-pairs"] = "plackett-luce"
    """Loss over rated candidates: of the whole ranking, or the mean over all pairs of one prompt."""


@dataclass(frozen=True)
class DpoLossConfig:
    """Of DPO and GDPO."""

    beta: Annotated[float, "above 0"] = 0.1
    """How strongly the policy is held to the reference: rewards are beta times the log-ratio."""


@dataclass(frozen=True)
class IpoLossConfig:
    """Of IPO."""

    beta: Annotated[float, "above 0"] = 0.1
    """The paper's tau: the margin of a certain label is 1 / (2 beta)."""

    ipo_sum: bool = False
    """Sum the log-ratio over tokens, as OpenRLHF does, instead of the mean, as TRL does; beta differs in size."""


@dataclass(frozen=True)
class SmoothedDpoLossConfig:
    """Of cDPO."""

    beta: Annotated[float, "above 0"] = 0.1
    """How strongly the policy is held to the reference: rewards are beta times the log-ratio."""

    label_smoothing: Annotated[float, "0 to 0.4999"] = 0.1
    """Share of labels that are taken to be flipped."""


@dataclass(frozen=True)
class RobustDpoLossConfig(SmoothedDpoLossConfig):
    """Of robust DPO."""

    max_margin: Annotated[float, "above 0"] | None = None
    """Lead of a preferred response, in nats, from which on a label surer than the flips allow pulls no more (default:
    it always does, as in the paper, and the loss falls without end)."""


@dataclass(frozen=True)
class KtoLossConfig:
    """Of KTO."""

    beta: Annotated[float, "above 0"] = 0.1
    """How strongly the policy is held to the reference: rewards are beta times the log-ratio."""

    desirable_weight: Annotated[float, "at least 0"] = 1.0
    """Weight of desirable responses; times their number, it is best 1 to 4/3 of the same for undesirable ones."""

    undesirable_weight: Annotated[float, "at least 0"] = 1.0
    """Weight of undesirable responses."""


@dataclass(frozen=True)
class HpoLossConfig(KtoLossConfig):
    """Of HPO."""

    preference: Literal["kto", "dpo"] = "kto"
    """Preference term: KTO's, a mean over responses, or DPO's, over pairs."""

    aux: Mapping[str, float] = field(default_factory=dict)
    """Weight of each auxiliary reward in their sum, NAME=WEIGHT (default: all that the rows have, 1 each)."""

    aux_coef: Annotated[float, "at least 0"] = 0.01
    """Weight of the likelihood that is weighted by auxiliary rewards, beside the preference term (lambda)."""

    aux_tau: Annotated[float, "above 0"] | None = None
    """How far a response has to lead in auxiliary rewards to weigh e times as much (default: the standard deviation of
    these leads)."""

    aux_max_weight: Annotated[float, "at least 1"] = 20.0
    """Most that a response weighs."""

    def __post_init__(self) -> None:
        if self.preference == "dpo":
            for name in ("desirable_weight", "undesirable_weight"):
                if getattr(self, name) != 1.0:
                    raise ValueError(f"{name}: is of --preference kto; DPO takes pairs, which have no classes")


@dataclass(frozen=True)
class SimpoLossConfig:
    """Of SimPO."""

    beta: Annotated[float, "above 0"] = 2.0
    """Scale of the mean log-probability of a token."""

    gamma: Annotated[float, "at least 0"] = 1.0
    """Margin of the preferred response; the authors start at half of beta."""


@dataclass(frozen=True)
class RrhfLossConfig:
    """Of RRHF."""

    rank_weight: Annotated[float, "at least 0"] = 1.0
    """Weight of the ranking hinge beside the likelihood of the best response; the authors' script has 100."""

    sft: Literal["sum", "mean"] = "sum"
    """Likelihood of the best response: summed over tokens (the paper) or their mean (the authors' script)."""


@dataclass(frozen=True)
class SequenceConfig:
    """How long a prompt with a response may be."""

    max_length: Annotated[int, "at least 2"] | None = None
    """Most tokens of a prompt and one response (default: the model's context)."""

    truncate: Cut = "none"
    """What gives way where that is exceeded: the prompt's start, the response's end, or nothing (an error)."""


@dataclass(frozen=True)
class SteppingConfig:
    """How the weights are changed, whatever is learnt."""

    batch_size: Annotated[int, "at least 1"] = 32
    """Rows (online: prompts) of each optimizer step, over all processes; exactly so many, however they are split."""

    epochs: Annotated[float, "above 0"] = 1.0
    """Times each row is seen."""

    max_steps: Annotated[int, "at least 1"] | None = None
    """Optimizer steps, instead of --epochs."""

    learning_rate: Annotated[float, "above 0"] | None = None
    """Highest learning rate (default: what is usual for the method; ten times that with LoRA)."""

    warmup: Annotated[float, "0 to 1"] = 0.1
    """Share of the steps in which the learning rate rises."""

    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls after that."""

    weight_decay: Annotated[float, "at least 0"] = 0.0
    """Of AdamW."""

    max_grad_norm: Annotated[float, "at least 0"] = 1.0
    """Gradients are scaled down to this norm; 0: never."""

    optimizer: str = "adamw_torch_fused"
    """Name of an optimizer of transformers, such as adamw_torch, adafactor or adamw_8bit."""

    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number type of the computation; weights that are trained stay in float32. auto: bfloat16 where the GPU has it."""

    gradient_checkpointing: bool = False
    """Compute activations a second time instead of keeping them."""

    trainer_arg: Mapping[str, str] = field(default_factory=dict)
    """Any argument of transformers.TrainingArguments that has no flag here, KEY=VALUE: deepspeed, fsdp, ..."""


@dataclass(frozen=True)
class OptimizationConfig(SteppingConfig):
    """How the weights are changed."""

    max_tokens: Annotated[int, "at least 1"] = 16384
    """Most tokens, padding included, that are computed at a time; changes memory and speed, and no result."""


@dataclass(frozen=True)
class AdapterConfig:
    """LoRA and QLoRA, through peft."""

    lora_rank: Annotated[int, "at least 1"] | None = None
    """Train an adapter of this rank, and leave the model's own weights alone; 16 is usual."""

    lora_alpha: Annotated[float, "above 0"] | None = None
    """Scale of the adapter (default: twice the rank)."""

    lora_dropout: Annotated[float, "0 to 1"] = 0.0
    """Dropout in front of the adapter."""

    lora_target: tuple[str, ...] = ("all-linear",)
    """Name of a layer that gets an adapter; given more than once, several."""

    quantize: Literal["none", "4bit", "8bit"] = "none"
    """Load the model's own weights in so many bits (QLoRA; needs bitsandbytes and --lora-rank)."""

    merge: bool = False
    """Save the model with the adapter merged into it, instead of the adapter. Reward models are always merged."""

    def __post_init__(self) -> None:
        faults = []
        if self.lora_rank is None and self.quantize != "none":
            faults.append("quantize: needs --lora-rank, since quantized weights cannot be trained")
        if self.lora_rank is None and self.merge:
            faults.append("merge: needs --lora-rank")
        if self.merge and self.quantize != "none":
            faults.append("merge: cannot merge into quantized weights")
        if faults:
            raise ValueError("; ".join(faults))


@dataclass(frozen=True)
class CheckpointConfig:
    """When the model is saved and looked at."""

    save_every: Annotated[int, "at least 1"] | None = None
    """Steps between checkpoints, from which a run that was cut short goes on (default: as --eval-every)."""

    keep: Annotated[int, "at least 1"] = 2
    """Checkpoints that are kept; the best one is kept besides."""

    eval_every: Annotated[int, "at least 1"] | None = None
    """Steps between evaluations on the held-out prompts (default: as --save-every, else a tenth of the
    steps, at least 10)."""

    early_stopping: Annotated[int, "at least 1"] | None = None
    """Stop after so many evaluations without a lower loss, and take the best checkpoint; needs --held-out."""

    log_every: Annotated[int, "at least 1"] = 1
    """Steps between lines of metrics.jsonl."""

    report_to: tuple[str, ...] = ()
    """Where else metrics go: tensorboard, wandb, ...; given more than once, several."""


LEARNING_RATES: Mapping[str, float] = {
    "sft": 1e-5, "rm": 1e-5, "dpo": 1e-6, "ipo": 1e-6, "cdpo": 1e-6, "robust-dpo": 1e-6, "gdpo": 1e-6, "kto": 1e-6,
    "hpo": 1e-6, "simpo": 1e-6, "rrhf": 1e-5,
    "drlaif": 1e-5, "reinforce": 1e-6, "rloo": 1e-6, "grpo": 1e-6, "ppo": 3e-6, "online-dpo": 1e-6, "rs-dpo": 1e-6,
    "rso": 1e-6, "best-of-n": 1e-5,
}  # fmt: skip
"""Of full fine-tuning with AdamW, by method.

Source: Lee et al., App. G (SFT, reward model); TRL (DPO family, KTO); SimPO's README; for RRHF as for SFT, for HPO
as for KTO, ours.
"""

"""Settings of the methods that learn from what the policy writes: how it is sampled, what rewards become. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

Aggregation = Literal["token", "sequence", "constant"]
"""What the loss is a mean of: tokens, completions (each the mean of its tokens), or sums over a constant."""


@dataclass(frozen=True)
class RolloutConfig:
    """How the policy is sampled."""

    group_size: Annotated[int, "at least 1"] | None = None
    """Completions of each prompt (default: what is usual for the method)."""

    rollout_prompts: Annotated[int, "at least 1"] | None = None
    """Prompts that are answered before the weights change (default: --batch-size; all of them for rs-dpo, rso and
    best-of-n). A multiple of --batch-size: so many optimizer steps follow."""

    rollout_epochs: Annotated[int, "at least 1"] | None = None
    """Times that those completions are learnt from (default: 4 for ppo, else 1)."""

    response_tokens: Annotated[int, "at least 1"] = 128
    """Most tokens of a completion."""

    rollout_temperature: Annotated[float, "above 0"] = 0.9
    """Sampling temperature; the policy is trained as it is sampled, so that log-probabilities are tempered too."""

    rollout_top_p: Annotated[float, "0 to 1"] = 1.0
    """Sample from the likeliest tokens whose probabilities come to this; 1 from all."""

    rollouts: Literal["hf", "vllm"] = "hf"
    """Who writes completions: transformers with the weights that are trained, or vLLM, which gets them after each
    step."""

    rollout_vllm_arg: tuple[str, ...] = ()
    """Engine argument of that vLLM as KEY=VALUE; given more than once, several."""

    overlap: bool = False
    """Write the next completions before this batch is learnt from, so that they are judged meanwhile; they are then one
    batch old, which is recorded (staleness) and corrected for by the ratio of probabilities."""

    missing_eos_penalty: Annotated[float, "at least 0"] = 0.0
    """Taken from the reward of a completion that was cut off at --response-tokens."""

    def __post_init__(self) -> None:
        if self.rollout_top_p == 0:
            raise ValueError("rollout_top_p: 0 leaves no token to choose from, expected above 0")


@dataclass(frozen=True)
class ValueConfig:
    """What predicts returns."""

    value: Literal["head", "critic"] = "head"
    """A head on the policy's own hidden states, or a critic: a model of its own beside the policy."""

    value_from: str | None = None
    """Reward model, or other model, that the critic starts from (default: the policy); needs --value critic."""

    value_weight: Annotated[float, "at least 0"] = 0.1
    """Weight of half the squared error of the values in the loss; 2 is the sum of squares that direct RLAIF states."""

    def __post_init__(self) -> None:
        if self.value_from is not None and self.value != "critic":
            raise ValueError("value_from: needs --value critic, as a head has nothing to start from")


@dataclass(frozen=True)
class DrlaifLossConfig(ValueConfig):
    """Of direct RLAIF: REINFORCE with a value baseline, and the KL beside the reward."""

    beta: Annotated[float, "0 to 1"] = 0.05
    """Share of the KL in what is maximised: (1 - beta) reward - beta KL, over the whole completion."""

    clip: Annotated[float, "above 0"] = 0.2
    """How far the probability of a token may move from what it was, as a share, before it pulls no more; nothing is
    clipped where completions are fresh, as in the paper (without --overlap, --rollout-prompts, --rollout-epochs)."""


@dataclass(frozen=True)
class KlConfig:
    """What leaving the reference costs."""

    beta: Annotated[float, "at least 0"] = 0.05
    """Price of the KL from the reference."""

    kl_target: Annotated[float, "above 0"] | None = None
    """Let beta follow the KL of a completion to this many nats (default: beta stays)."""

    kl_horizon: Annotated[float, "above 0"] = 10000.0
    """Completions over which beta moves by as much as the KL is off its target."""

    def __post_init__(self) -> None:
        if self.kl_target is not None and self.beta == 0:
            raise ValueError("kl_target: needs a beta above 0 to begin with")


@dataclass(frozen=True)
class ReinforceLossConfig(KlConfig):
    """Of REINFORCE and REINFORCE++."""

    beta: Annotated[float, "at least 0"] = 0.05
    """Price of the KL from the reference, token by token in the reward."""

    baseline: Literal["batch", "group", "none"] = "batch"
    """What is taken from a reward: the batch's mean, the mean of its prompt's completions (REINFORCE++-baseline), or
    nothing."""

    normalize: bool = False
    """Divide advantages by their spread over the whole batch (REINFORCE++)."""

    clip: Annotated[float, "above 0"] = 0.2
    """How far the probability of a token may move from what it was, as a share, before it pulls no more."""


@dataclass(frozen=True)
class RlooLossConfig(KlConfig):
    """Of RLOO."""

    beta: Annotated[float, "at least 0"] = 0.03
    """Price of the KL from the reference, of the whole completion in its reward."""

    clip: Annotated[float, "above 0"] = 0.2
    """How far the probability of a token may move from what it was, as a share, before it pulls no more."""


@dataclass(frozen=True)
class GrpoLossConfig:
    """Of GRPO, with the switches of Dr. GRPO and DAPO."""

    variant: Literal["grpo", "dr-grpo", "dapo"] = "grpo"
    """grpo: means over completions, rewards by their group's spread. dr-grpo: neither length nor spread divides.
    dapo: means over tokens, clip from -0.2 to 0.28, a price on overlong completions, prompts without a signal are
    replaced. Each switch below overrides it."""

    beta: Annotated[float, "at least 0"] = 0.0
    """Price of the KL from the reference, in the loss (k3); 0 needs no reference."""

    scale: Literal["group", "batch", "none"] | None = None
    """What centred rewards are divided by: the spread of their group, of the batch, or nothing."""

    aggregation: Aggregation | None = None
    """What the loss is a mean of: tokens, completions (sequence), or a sum over a constant."""

    clip_low: Annotated[float, "at least 0"] = 0.2
    """How far the probability of a token may fall, as a share, before it pulls no more."""

    clip_high: Annotated[float, "at least 0"] | None = None
    """How far it may rise (default: as clip-low; 0.28 for dapo)."""

    overlong_buffer: Annotated[int, "at least 0"] | None = None
    """Tokens before --response-tokens from which a longer completion costs up to 1 of reward (default: 0, none; an
    eighth of --response-tokens for dapo)."""

    replace_silent: bool | None = None
    """Draw further prompts in place of those whose completions all have one reward (DAPO's dynamic sampling)."""


@dataclass(frozen=True)
class PpoLossConfig(KlConfig, ValueConfig):
    """Of PPO."""

    preset: Literal["none", "ppo-max"] = "none"
    """ppo-max: the stabilisers that its authors name, all on: rewards scaled by their running spread and clipped,
    advantages whitened, a KL price on each token, clipped values, a critic begun from --value-from and trained ahead
    of the policy. The bundle is put together from secondary sources. Each switch below can be set besides."""

    gamma: Annotated[float, "0 to 1"] = 1.0
    """Discount of a token."""

    lam: Annotated[float, "0 to 1"] = 0.95
    """Of generalised advantage estimation: 1 is what came, 0 trusts the values."""

    clip: Annotated[float, "above 0"] = 0.2
    """How far the probability of a token may move from what it was, as a share, before it pulls no more."""

    dual_clip: Annotated[float, "above 1"] | None = None
    """Bound on what a token with a negative advantage costs, as a multiple of it; 3 is usual."""

    value_clip: Annotated[float, "above 0"] | None = 0.2
    """How far a value may move from what it was."""

    whiten_rewards: bool = False
    """Divide rewards of tokens by their spread over the batch; their mean stays."""

    whiten_advantages: bool = True
    """Give advantages a mean of 0 and a spread of 1 over the batch."""

    scale_rewards: bool = False
    """Divide rewards by their running spread."""

    reward_clip: Annotated[float, "above 0"] | None = 10.0
    """Rewards are kept within plus and minus this."""

    value_warmup: Annotated[int, "at least 0"] = 0
    """Batches in which values learn and the policy does not."""

    ptx_data: str | None = None
    """Text to go on imitating (PPO-ptx): rows of prompt and response, as for rlaif train sft."""

    ptx_weight: Annotated[float, "at least 0"] = 27.8
    """Weight of that imitation, the mean log-probability of a token."""

    def __post_init__(self) -> None:
        KlConfig.__post_init__(self)
        ValueConfig.__post_init__(self)


@dataclass(frozen=True)
class OnlineDpoLossConfig:
    """Of online DPO: two completions, the judge's soft label, a loss of the DPO family."""

    loss_type: Literal["dpo", "ipo", "cdpo", "robust-dpo", "gdpo", "simpo"] = "dpo"
    """Loss of a pair, as of rlaif train METHOD."""

    beta: Annotated[float, "above 0"] | None = None
    """As of that method (default: 2 for simpo, else 0.1)."""

    label_smoothing: Annotated[float, "0 to 0.4999"] = 0.1
    """Of cdpo and robust-dpo: share of labels that are taken to be flipped."""

    gamma: Annotated[float, "at least 0"] = 1.0
    """Of simpo: margin of the preferred response."""

    tau: Annotated[float, "above 0"] = 1.0
    """Where rewards are numbers, and no judge compares: P(A preferred) is the sigmoid of their difference over this."""

    def __post_init__(self) -> None:
        faults = []
        if self.gamma != 1.0 and self.loss_type != "simpo":
            faults.append("gamma: is of --loss-type simpo")
        if self.label_smoothing != 0.1 and self.loss_type not in {"cdpo", "robust-dpo"}:
            faults.append("label_smoothing: is of --loss-type cdpo and robust-dpo")
        if faults:
            raise ValueError("; ".join(faults))


@dataclass(frozen=True)
class RsDpoLossConfig:
    """Of RS-DPO: rejection sampling, then DPO on all pairs that differ clearly."""

    beta: Annotated[float, "above 0"] = 0.1
    """How strongly the policy is held to the reference."""

    eta: Annotated[float, "0.5 to 1"] = 0.85
    """Least probability with which the better one of a pair is preferred."""

    tau: Annotated[float, "above 0"] = 1.0
    """That probability is sigmoid((score A - score B) / tau); scores are 1-10 ratings, or raw rewards."""


@dataclass(frozen=True)
class RsoLossConfig:
    """Of RSO: pairs of completions accepted as the optimal policy would write them."""

    beta: Annotated[float, "above 0"] = 0.5
    """A completion is accepted with probability exp((score - highest) / beta); scores as of rs-dpo."""

    gamma: Annotated[float, "above 0"] = 0.05
    """Scale of the log-ratio in the loss."""

    accept: Annotated[int, "at least 2"] = 8
    """Completions accepted of a prompt at most."""

    pair_loss: Literal["sigmoid", "hinge"] = "sigmoid"
    """Loss of a pair: the logistic one, or hinge-norm."""


@dataclass(frozen=True)
class BestOfNLossConfig:
    """Of best-of-n and iterated rejection sampling: imitate the best of what was written."""

    least_score: float | None = None
    """Imitate a best completion only if it scores at least this (a 1-10 rating, or a raw reward)."""

    raise_by: Annotated[float, "at least 0"] = 0.0
    """How much that threshold rises from one round to the next (ReST)."""

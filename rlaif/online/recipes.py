"""The methods of online training: what each asks for, and what it makes of judged rollouts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, TypeAlias

import torch

from rlaif.data.selecting import best_of, first_round_pairs, preference, rejection_sample, rs_dpo_pairs
from rlaif.online.assessing import Assessed, example_of
from rlaif.randomness import seeded_random
from rlaif.rollout_records import Rollout
from rlaif.train.config import (
    DpoLossConfig,
    IpoLossConfig,
    RobustDpoLossConfig,
    SftLossConfig,
    SimpoLossConfig,
    SmoothedDpoLossConfig,
)
from rlaif.train.experience import (
    AdvantageMaker,
    Experience,
    drlaif_advantages,
    grpo_advantages,
    grpo_switches,
    padded,
    ppo_advantages,
    reinforce_advantages,
    rloo_advantages,
    token_targets,
)
from rlaif.train.items import TrainingItem
from rlaif.train.kl import AdaptiveKl, FixedKl, KlController
from rlaif.train.objectives import Objective, make_objective
from rlaif.train.online_config import (
    BestOfNLossConfig,
    DrlaifLossConfig,
    GrpoLossConfig,
    KlConfig,
    OnlineDpoLossConfig,
    PpoLossConfig,
    ReinforceLossConfig,
    RlooLossConfig,
    RolloutConfig,
    RsDpoLossConfig,
    RsoLossConfig,
)
from rlaif.train.rollout_objectives import PolicyLoss, policy_objective


@dataclass(frozen=True)
class JudgedRollout:
    """A rollout with what is known of it when it is learnt from.

    Attributes:
        rollout: With those completions alone that have a reward.
        rewards: One a completion; empty where completions were compared.
        selection_scores: The same on the scale that pairs are chosen by: ratings from 1 to 10, or raw rewards.
        prob_a: P(the first is preferred), of two that were compared.
        assessed: The policy's log-probabilities and values.
        reference_logprobs: For each completion, one a token; None where the method needs none.
    """

    rollout: Rollout
    rewards: tuple[float, ...]
    selection_scores: tuple[float, ...]
    prob_a: float | None
    assessed: Assessed
    reference_logprobs: tuple[tuple[float, ...], ...] | None

    @property
    def reference_sums(self) -> tuple[float, ...] | None:
        """Log-probability of each completion under the reference."""
        if self.reference_logprobs is None:
            return None
        return tuple(map(sum, self.reference_logprobs))


Asks: TypeAlias = Literal["scores", "comparisons"]
"""Whether completions are scored one by one, or compared by twos."""


@dataclass(frozen=True)
class PolicyGradient:
    """Methods that weigh every token by an advantage.

    Attributes:
        advantages: What a batch comes to.
        loss: How tokens are learnt from.
        needs_reference: Whether what the reference says is learnt with.
        kl: Who sets the price of leaving the reference; None where nobody does, or it stands in the loss.
        replaces_silent: Whether prompts without a signal are replaced by others.
        scales_rewards: Whether rewards are divided by their running spread first.
        value_warmup: Batches in which values learn alone.
        asks: As `Asks`.
    """

    advantages: AdvantageMaker
    loss: PolicyLoss
    needs_reference: bool
    kl: KlController | None = None
    replaces_silent: bool = False
    scales_rewards: bool = False
    value_warmup: int = 0
    asks: Asks = "scores"

    @property
    def needs_values(self) -> bool:
        """Whether returns are predicted."""
        return self.loss.value_weight is not None

    def objective(self, batch: int) -> Objective:
        """What the rows of a batch, counted from 0, are trained with."""
        return policy_objective(replace(self.loss, policy_weight=float(batch >= self.value_warmup)))

    def items(self, judged: Sequence[JudgedRollout], beta: float, batch: int) -> list[TrainingItem]:
        """The rows that a batch comes to."""
        if not judged:
            return []
        experience = experience_of(judged)
        targets = token_targets(experience, self.advantages(experience, beta))
        return [
            TrainingItem(example_of(one.rollout), targets=of_one) for one, of_one in zip(judged, targets, strict=True)
        ]


def experience_of(judged: Sequence[JudgedRollout]) -> Experience:
    """A batch as tensors."""
    most = max(len(one.rollout.completions) for one in judged)
    longest = max(len(completion.ids) for one in judged for completion in one.rollout.completions)
    shape = (len(judged), most, longest)
    rewards = [[*one.rewards, *[0.0] * (most - len(one.rewards))] for one in judged]
    ones = [[[1.0] * len(completion.ids) for completion in one.rollout.completions] for one in judged]
    references = [one.reference_logprobs for one in judged]
    values = [one.assessed.values for one in judged]
    return Experience(
        rewards=torch.tensor(rewards),
        is_completion=padded(ones, shape) > 0,
        old_logprobs=padded([one.assessed.logprobs for one in judged], shape),
        reference_logprobs=None if None in references else padded([one or () for one in references], shape),
        values=None if None in values else padded([one or () for one in values], shape),
    )


@dataclass(frozen=True)
class Pairs:
    """Methods that learn from pairs of completions.

    Attributes:
        base: Loss of a pair.
        choose: Which completions of a prompt become pairs, and with which P(first preferred).
    """

    base: Objective
    choose: PairChooser
    asks: Asks = "scores"
    needs_values: bool = False
    kl: KlController | None = None
    replaces_silent: bool = False
    scales_rewards: bool = False

    @property
    def needs_reference(self) -> bool:
        return self.base.needs_reference

    def objective(self, batch: int) -> Objective:
        return self.base

    def items(self, judged: Sequence[JudgedRollout], beta: float, batch: int) -> list[TrainingItem]:
        rows = []
        for one in judged:
            example, sums = example_of(one.rollout), one.reference_sums
            for first, second, prob in self.choose(one):
                rows.append(
                    TrainingItem(
                        replace(
                            example,
                            id=f"{example.id} {first}-{second}",
                            completions=(example.completions[first], example.completions[second]),
                        ),
                        scores=(prob, 1.0 - prob),
                        reference=None if sums is None else (sums[first], sums[second]),
                    )
                )
        return rows


class PairChooser(Protocol):
    """Chooses pairs: (place of the first, place of the second, P(first preferred))."""

    def __call__(self, judged: JudgedRollout, /) -> Sequence[tuple[int, int, float]]: ...


@dataclass(frozen=True)
class BestOfN:
    """Imitates the best completion of each prompt."""

    config: BestOfNLossConfig
    base: Objective
    asks: Asks = "scores"
    needs_reference: bool = False
    needs_values: bool = False
    kl: KlController | None = None
    replaces_silent: bool = False
    scales_rewards: bool = False

    def objective(self, batch: int) -> Objective:
        return self.base

    def items(self, judged: Sequence[JudgedRollout], beta: float, batch: int) -> list[TrainingItem]:
        least = self.config.least_score
        threshold = None if least is None else least + batch * self.config.raise_by
        rows = []
        for one in judged:
            best = best_of(one.selection_scores)
            if threshold is None or one.selection_scores[best] >= threshold:
                example = example_of(one.rollout)
                rows.append(TrainingItem(replace(example, completions=(example.completions[best],))))
        return rows


Recipe: TypeAlias = PolicyGradient | Pairs | BestOfN
"""A method; what `PolicyGradient` says of its attributes holds for all."""


def make_recipe(config: Any, rollout: RolloutConfig, *, seed: int) -> Recipe:
    """The method that loss settings stand for.

    Args:
        config: Such as `GrpoLossConfig`.
        rollout: How the policy is sampled.
        seed: Of what a method draws.
    """
    shared: dict[str, Any] = {
        "most_tokens": rollout.response_tokens, "temperature": rollout.rollout_temperature,
    }  # fmt: skip
    match config:
        case DrlaifLossConfig():
            loss = PolicyLoss(
                "constant", clip_low=config.clip, clip_high=config.clip, value_weight=config.value_weight, **shared
            )
            return PolicyGradient(drlaif_advantages, loss, bool(config.beta), FixedKl(config.beta))
        case ReinforceLossConfig():
            loss = PolicyLoss("constant", clip_low=config.clip, clip_high=config.clip, **shared)
            return PolicyGradient(
                lambda experience, beta: reinforce_advantages(experience, config, beta),
                loss, bool(config.beta), _controller(config),
            )  # fmt: skip
        case RlooLossConfig():
            loss = PolicyLoss("constant", clip_low=config.clip, clip_high=config.clip, **shared)
            return PolicyGradient(rloo_advantages, loss, bool(config.beta), _controller(config))
        case GrpoLossConfig():
            switches = grpo_switches(config, rollout.response_tokens)
            loss = PolicyLoss(
                switches.aggregation, clip_low=switches.clip_low, clip_high=switches.clip_high,
                kl_weight=config.beta, **shared,
            )  # fmt: skip
            return PolicyGradient(
                lambda experience, beta: grpo_advantages(experience, switches, rollout.response_tokens),
                loss, bool(config.beta), replaces_silent=switches.replaces_silent,
            )  # fmt: skip
        case PpoLossConfig():
            return _ppo(config, shared)
        case OnlineDpoLossConfig():
            return Pairs(_at(_pair_objective(config), rollout), _compared, asks="comparisons")
        case RsDpoLossConfig():
            return Pairs(_at(make_objective("dpo", DpoLossConfig(config.beta)), rollout), RsDpoChoice(config))
        case RsoLossConfig():
            method = "dpo" if config.pair_loss == "sigmoid" else "hinge"
            return Pairs(_at(make_objective(method, DpoLossConfig(config.gamma)), rollout), _rso(config, seed))
        case BestOfNLossConfig():
            return BestOfN(config, make_objective("sft", SftLossConfig()))
    raise TypeError(f"no method has settings of {type(config).__name__}")


PPO_MAX_REWARD_CLIP, PPO_MAX_VALUE_CLIP, PPO_MAX_WARMUP = 5.0, 0.2, 8
"""Of the preset ppo-max: in running spreads, in value, in batches."""


def ppo_max(config: PpoLossConfig) -> PpoLossConfig:
    """The settings with the stabilisers of PPO-max on, those that are stricter kept.

    Rewards over their running spread, clipped; whitened advantages; the KL in the reward of each token; clipped
    values; values that learn ahead of the policy. A critic from the reward model and PPO-ptx are part of it too, and
    need a model and data: --value critic --value-from and --ptx-data. Gradients are always clipped (--max-grad-norm).

    Source: Zheng et al., Secrets of RLHF in Large Language Models Part I: PPO, arXiv:2307.04964, through secondary
    notes; the numbers are ours.
    """
    return replace(
        config,
        scale_rewards=True,
        reward_clip=min(config.reward_clip or PPO_MAX_REWARD_CLIP, PPO_MAX_REWARD_CLIP),
        whiten_advantages=True,
        value_clip=config.value_clip or PPO_MAX_VALUE_CLIP,
        value_warmup=config.value_warmup or PPO_MAX_WARMUP,
    )


def _ppo(config: PpoLossConfig, shared: Mapping[str, Any]) -> PolicyGradient:
    config = ppo_max(config) if config.preset == "ppo-max" else config
    loss = PolicyLoss(
        "token", clip_low=config.clip, clip_high=config.clip, dual_clip=config.dual_clip,
        value_weight=config.value_weight, value_clip=config.value_clip, **shared,
    )  # fmt: skip
    return PolicyGradient(
        lambda experience, beta: ppo_advantages(experience, config, beta),
        loss, bool(config.beta), _controller(config),
        scales_rewards=config.scale_rewards, value_warmup=config.value_warmup,
    )  # fmt: skip


def _controller(config: KlConfig) -> KlController:
    if config.kl_target is None:
        return FixedKl(config.beta)
    return AdaptiveKl(config.beta, config.kl_target, config.kl_horizon)


def _at(objective: Objective, rollout: RolloutConfig) -> Objective:
    """The objective of a policy that is trained as it is sampled."""
    return replace(objective, temperature=rollout.rollout_temperature)


def _pair_objective(config: OnlineDpoLossConfig) -> Objective:
    beta: dict[str, Any] = {} if config.beta is None else {"beta": config.beta}
    smoothing = config.label_smoothing
    settings = {
        "dpo": DpoLossConfig(**beta),
        "gdpo": DpoLossConfig(**beta),
        "ipo": IpoLossConfig(**beta),
        "cdpo": SmoothedDpoLossConfig(label_smoothing=smoothing, **beta),
        "robust-dpo": RobustDpoLossConfig(label_smoothing=smoothing, **beta),
        "simpo": SimpoLossConfig(gamma=config.gamma, **beta),
    }
    return make_objective(config.loss_type, settings[config.loss_type])


def _compared(judged: JudgedRollout) -> Sequence[tuple[int, int, float]]:
    return [] if judged.prob_a is None else [(0, 1, judged.prob_a)]


@dataclass(frozen=True)
class RsDpoChoice:
    """All pairs whose better one is preferred surely enough."""

    config: RsDpoLossConfig

    def __call__(self, judged: JudgedRollout, /) -> Sequence[tuple[int, int, float]]:
        scores = judged.selection_scores
        return [
            (first, second, float(scores[first] > scores[second]))
            for first, second in rs_dpo_pairs(scores, self.config.eta, self.config.tau)
        ]

    def largest(self, judged: Sequence[JudgedRollout]) -> float:
        """The probability of the surest pair of all, what `--eta` is compared with; 0.5 where there is no pair."""
        spreads = [max(one.selection_scores) - min(one.selection_scores) for one in judged]
        return preference(max(spreads, default=0.0), 0.0, self.config.tau)


def _rso(config: RsoLossConfig, seed: int) -> PairChooser:
    def choose(judged: JudgedRollout, /) -> Sequence[tuple[int, int, float]]:
        scores = judged.selection_scores
        rng = seeded_random(seed, judged.rollout.id, "rejection sampling")
        pairs = first_round_pairs(rejection_sample(scores, config.beta, config.accept, rng), rng)
        return [
            (first, second, float(scores[first] > scores[second]))
            for first, second in pairs
            if scores[first] != scores[second]
        ]

    return choose

"""What a policy learns from rollouts: the clipped policy gradient with what goes beside it, as one `Objective`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rlaif.models.logprobs import TokenLogprobs
from rlaif.train.items import TrainingItem
from rlaif.train.kl import kl_estimate
from rlaif.train.means import Mean
from rlaif.train.objectives import MicroBatch, Objective, Reading, TokenTensors
from rlaif.train.policy_losses import Aggregation, aggregate, aggregate_weight, clipped_loss, value_loss


@dataclass(frozen=True)
class PolicyLoss:
    """How tokens of rollouts are learnt from.

    Where the policy is still the one that wrote, a ratio is 1, nothing is clipped, and the gradient is REINFORCE's.

    Attributes:
        aggregation: What the loss is a mean of.
        most_tokens: Of a completion; what "constant" divides by.
        clip_low, clip_high, dual_clip: As of `clipped_loss`.
        kl_weight: Of k3 from the reference in the loss; 0 reads no reference.
        value_weight: Of the squared error of the values; None where none are learnt.
        value_clip: As of `value_loss`.
        policy_weight: 0 where only values learn.
        temperature: The policy was sampled at.
    """

    aggregation: Aggregation
    most_tokens: int
    clip_low: float = 0.2
    clip_high: float = 0.2
    dual_clip: float | None = None
    kl_weight: float = 0.0
    value_weight: float | None = None
    value_clip: float | None = None
    policy_weight: float = 1.0
    temperature: float = 1.0


def policy_objective(loss: PolicyLoss) -> Objective:
    """The objective of rollouts whose items have `targets`."""

    def losses(reading: Reading, micro: MicroBatch, z0: Tensor | None) -> Tensor:
        by_token, targets = _of(reading, micro)
        clipped = clipped_loss(
            by_token.values, targets.old_logprobs, targets.advantages,
            clip_low=loss.clip_low, clip_high=loss.clip_high, dual_clip=loss.dual_clip,
        )  # fmt: skip
        per_token = loss.policy_weight * clipped.loss
        if loss.kl_weight:
            assert targets.reference_logprobs is not None, "the reference was not asked"
            kl = kl_estimate(by_token.values, targets.reference_logprobs, "k3")
            per_token = per_token + loss.policy_weight * loss.kl_weight * kl
        if loss.value_weight is not None:
            assert by_token.token_values is not None, "no values were predicted"
            assert targets.old_values is not None, "no values were predicted before"
            assert targets.returns is not None, "there are no returns to predict"
            errors = value_loss(by_token.token_values, targets.old_values, targets.returns, clip=loss.value_clip)
            per_token = per_token + loss.value_weight * errors
        return aggregate(per_token, by_token.is_completion, loss.aggregation)

    def weight(item: TrainingItem) -> int:
        return aggregate_weight([len(one) for one in item.example.completions], loss.aggregation, loss.most_tokens)

    def metrics(objective: Objective, reading: Reading, micro: MicroBatch) -> Mapping[str, Mean]:
        return policy_metrics(loss, reading, micro)

    return Objective(
        reads="logprobs",
        losses=losses,
        rewards=lambda reading, micro: reading.values,
        weight=weight,
        needs_values=loss.value_weight is not None,
        values_alone=loss.value_weight is not None and not loss.policy_weight,
        temperature=loss.temperature,
        metrics=metrics,
    )


@torch.no_grad()
def policy_metrics(loss: PolicyLoss, reading: Reading, micro: MicroBatch) -> Mapping[str, Mean]:
    """Figures of a micro-batch, means over its tokens.

    clip_share      tokens that a clip holds
    ratio           how much likelier tokens are than when they were written
    value_error     squared error of the values
    value_mean, return_mean     what was predicted, and what came
    """
    by_token, targets = _of(reading, micro)
    mask = by_token.is_completion
    clipped = clipped_loss(
        by_token.values, targets.old_logprobs, targets.advantages,
        clip_low=loss.clip_low, clip_high=loss.clip_high, dual_clip=loss.dual_clip,
    )  # fmt: skip
    figures = {"clip_share": clipped.is_clipped.float(), "ratio": clipped.ratio}
    if by_token.token_values is not None and targets.returns is not None:
        figures["value_error"] = (by_token.token_values - targets.returns).square()
        figures["value_mean"], figures["return_mean"] = by_token.token_values, targets.returns
    count = mask.sum().float() * bool(micro.weight)
    return {name: Mean(each.where(mask, 0.0).sum() * bool(micro.weight), count) for name, each in figures.items()}


def _of(reading: Reading, micro: MicroBatch) -> tuple[TokenLogprobs, TokenTensors]:
    assert reading.by_token is not None, "a reward model has no tokens"
    assert micro.targets is not None, "rows of a rollout have targets"
    return reading.by_token, micro.targets

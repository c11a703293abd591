"""Each training method as one value: what it reads of the model, its loss, and what the mean is taken over.

The formulas are those of `losses` and `ranking_losses`. This is where a method's settings meet them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from rlaif.models.batches import Batch, collate
from rlaif.models.logprobs import TokenLogprobs
from rlaif.train.config import (
    DpoLossConfig,
    HpoLossConfig,
    IpoLossConfig,
    KtoLossConfig,
    RewardLossConfig,
    RobustDpoLossConfig,
    RrhfLossConfig,
    SimpoLossConfig,
    SmoothedDpoLossConfig,
)
from rlaif.train.hpo import hpo_loss
from rlaif.train.items import TokenTargets, TrainingItem
from rlaif.train.losses import (
    cdpo_loss,
    dpo_loss,
    gdpo_loss,
    hinge_loss,
    ipo_loss,
    kto_loss,
    log_ratios,
    reward_model_loss,
    robust_dpo_loss,
    simpo_loss,
)
from rlaif.train.means import Mean
from rlaif.train.ranking_losses import all_pairs_loss, order_probs, plackett_luce_loss, rrhf_loss


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Rows that are computed together.

    Attributes:
        batch: Their token ids.
        scores: What each completion is trained towards, (B, K), float32; 0 in padding.
        margins: (B,), float32.
        reference: The reference's log-probability of each completion, (B, K), float32; None where there is none.
        weight: What they count for in the mean of the step (`Objective.weight`); 0 for rows that are computed only so
            that all processes do as much.
        targets: What each token is trained towards, where that is not one number a completion.
        aux_weights: Weight of each completion's likelihood (HPO), (B, K), float32, 0 in padding; None where there is
            none.
    """

    batch: Batch
    scores: Tensor
    margins: Tensor
    reference: Tensor | None = None
    weight: int = 0
    targets: TokenTensors | None = None
    aux_weights: Tensor | None = None

    def to(self, device: torch.device | str) -> MicroBatch:
        """The same on another device."""
        return MicroBatch(
            self.batch.to(device),
            self.scores.to(device),
            self.margins.to(device),
            None if self.reference is None else self.reference.to(device),
            self.weight,
            None if self.targets is None else self.targets.to(device),
            None if self.aux_weights is None else self.aux_weights.to(device),
        )


class TokenTensors(NamedTuple):
    """What `TokenTargets` says of the rows of a micro-batch, each (B, K, L), float32, 0 in padding; None where the
    method has no such number."""

    advantages: Tensor
    old_logprobs: Tensor
    reference_logprobs: Tensor | None = None
    returns: Tensor | None = None
    old_values: Tensor | None = None

    def to(self, device: torch.device | str) -> TokenTensors:
        """The same on another device."""
        others = [None if one is None else one.to(device) for one in self[2:]]
        return TokenTensors(self.advantages.to(device), self.old_logprobs.to(device), *others)


class Reading(NamedTuple):
    """What a model said of a micro-batch.

    Attributes:
        values: Log-probability of each completion, summed over its tokens, or its reward, (B, K), float32.
        tokens: Tokens of each completion, (B, K), int64; 0 in padding.
        by_token: The same token by token, of a policy.
    """

    values: Tensor
    tokens: Tensor
    by_token: TokenLogprobs | None = None


@dataclass(frozen=True)
class Objective:
    """A training method.

    Attributes:
        reads: What of the model.
        losses: (reading, micro-batch, z0) -> loss of each row, (B,), float32, a sum over what `weight` counts.
        rewards: (reading, micro-batch) -> what ranks the completions, (B, K): the reward, or the one that a policy
            implies. Of a pair, the difference of the two is the model's log-odds where the loss is logistic.
        weight: What a row counts for in the mean of the step: 1, its responses, or its tokens.
        is_logistic: Whether sigma of a pair's difference is the probability that the loss fits to the label.
        needs_reference: Whether the loss holds the policy to a reference.
        needs_mismatches: Whether the step begins with mismatched responses (z0).
        needs_values: Whether the loss reads what the policy predicts of its returns.
        values_alone: Whether values learn and the policy does not: a head's gradient stops at the policy's states.
        temperature: What logits are divided by: a policy is trained as it was sampled.
        metrics: What is logged of a micro-batch, in place of `preference_metrics`.
    """

    reads: Literal["logprobs", "rewards"]
    losses: Callable[[Reading, MicroBatch, Tensor | None], Tensor]
    rewards: Callable[[Reading, MicroBatch], Tensor]
    weight: Callable[[TrainingItem], int] = lambda item: 1
    is_logistic: bool = False
    needs_reference: bool = False
    needs_mismatches: bool = False
    needs_values: bool = False
    values_alone: bool = False
    temperature: float = 1.0
    metrics: Callable[[Objective, Reading, MicroBatch], Mapping[str, Mean]] | None = None


def collate_items(items: Sequence[TrainingItem], *, is_packed: bool, pad: int, weight: int = 0) -> MicroBatch:
    """Rows as tensors; the arguments are those of `collate`, and what `MicroBatch` says."""
    references = [item.reference for item in items if item.reference is not None]
    aux_weights = [item.aux_weights for item in items if item.aux_weights is not None]
    return MicroBatch(
        batch=collate([item.example for item in items], is_packed=is_packed, pad=pad),
        scores=_padded([item.scores for item in items]),
        margins=torch.tensor([item.margin for item in items]),
        reference=_padded(references) if references else None,
        weight=weight,
        targets=_targets([item.targets for item in items if item.targets is not None]),
        aux_weights=_padded(aux_weights) if aux_weights else None,
    )


def _targets(each: Sequence[TokenTargets]) -> TokenTensors | None:
    if not each:
        return None
    others = []
    for name in ("reference_logprobs", "returns", "old_values"):
        given = [rows for one in each if (rows := getattr(one, name)) is not None]
        others.append(_padded_tokens(given) if given else None)
    old_logprobs = _padded_tokens([one.old_logprobs for one in each])
    return TokenTensors(_padded_tokens([one.advantages for one in each]), old_logprobs, *others)


def _padded_tokens(rows: Sequence[Sequence[Sequence[float]]]) -> Tensor:
    """Numbers of each token, of each completion, of each row: (B, K, L), 0 in padding."""
    most, longest = max(map(len, rows)), max(len(completion) for row in rows for completion in row)
    filled = [[[*tokens, *[0.0] * (longest - len(tokens))] for tokens in row] for row in rows]
    return torch.tensor([[*row, *[[0.0] * longest] * (most - len(row))] for row in filled])


def _padded(rows: Sequence[Sequence[float]]) -> Tensor:
    most = max(map(len, rows))
    return torch.tensor([[*row, *[0.0] * (most - len(row))] for row in rows])


def make_objective(method: str, config: Any, *, is_ranking: bool = False) -> Objective:
    """The objective of a method.

    Args:
        method: Its name on the command line.
        config: Its loss settings, such as `DpoLossConfig`.
        is_ranking: Whether a reward model's rows are rated candidates, and not pairs with a probability.

    Raises:
        KeyError: There is no such method.
    """
    return _reward_ranking(config) if method == "rm" and is_ranking else _MAKERS[method](config)


def log_ratios_of(reading: Reading, micro: MicroBatch) -> Tensor:
    """The policy's log-probability less the reference's, (B, K); 0 in padding."""
    assert micro.reference is not None, "the reference was not asked"
    return log_ratios(reading.values, micro.reference)


def _sft(config: object) -> Objective:
    return Objective(
        reads="logprobs",
        losses=lambda reading, micro, z0: -reading.values.sum(-1),
        rewards=lambda reading, micro: _means(reading),
        weight=lambda item: sum(map(len, item.example.completions)),
    )


def _reward_model(config: RewardLossConfig) -> Objective:
    def losses(reading: Reading, micro: MicroBatch, z0: Tensor | None) -> Tensor:
        rewards_a, rewards_b = reading.values.unbind(-1)
        return reward_model_loss(
            rewards_a, rewards_b, micro.scores[:, 0], margin=micro.margins, centering=config.centering
        )

    return Objective("rewards", losses, lambda reading, micro: reading.values, is_logistic=True)


def _reward_ranking(config: RewardLossConfig) -> Objective:
    def losses(reading: Reading, micro: MicroBatch, z0: Tensor | None) -> Tensor:
        rewards, is_present = reading.values, micro.batch.is_present
        if config.ranking == "all-pairs":
            ranked = all_pairs_loss(rewards, order_probs(micro.scores), is_present)
        else:
            ranked = plackett_luce_loss(rewards, micro.scores, is_present)
        return ranked + config.centering * rewards.sum(-1).square() if config.centering else ranked

    return Objective("rewards", losses, lambda reading, micro: reading.values)


def _of_pairs(loss: Callable[..., Tensor], beta: float, *, is_logistic: bool = True, **settings: Any) -> Objective:
    def losses(reading: Reading, micro: MicroBatch, z0: Tensor | None) -> Tensor:
        ratios = log_ratios_of(reading, micro)
        return loss(ratios[:, 0], ratios[:, 1], micro.scores[:, 0], beta=beta, **settings)

    return Objective(
        "logprobs",
        losses,
        lambda reading, micro: beta * log_ratios_of(reading, micro),
        is_logistic=is_logistic,
        needs_reference=True,
    )


def _dpo(config: DpoLossConfig) -> Objective:
    return _of_pairs(dpo_loss, config.beta)


def _gdpo(config: DpoLossConfig) -> Objective:
    return _of_pairs(gdpo_loss, config.beta, is_logistic=False)


def _hinge(config: DpoLossConfig) -> Objective:
    return _of_pairs(hinge_loss, config.beta, is_logistic=False)


def _cdpo(config: SmoothedDpoLossConfig) -> Objective:
    return _of_pairs(cdpo_loss, config.beta, is_logistic=False, label_smoothing=config.label_smoothing)


def _robust_dpo(config: RobustDpoLossConfig) -> Objective:
    most = math.inf if config.max_margin is None else config.max_margin
    return _of_pairs(
        robust_dpo_loss, config.beta, is_logistic=False, label_smoothing=config.label_smoothing, max_margin=most
    )


def _ipo(config: IpoLossConfig) -> Objective:
    def losses(reading: Reading, micro: MicroBatch, z0: Tensor | None) -> Tensor:
        ratios, tokens = log_ratios_of(reading, micro), reading.tokens
        return ipo_loss(
            ratios[:, 0], ratios[:, 1], micro.scores[:, 0], tokens[:, 0], tokens[:, 1],
            beta=config.beta, is_summed=config.ipo_sum,
        )  # fmt: skip

    def rewards(reading: Reading, micro: MicroBatch) -> Tensor:
        ratios = log_ratios_of(reading, micro)
        return config.beta * (ratios if config.ipo_sum else ratios / reading.tokens.clamp(min=1))

    return Objective("logprobs", losses, rewards, needs_reference=True)


def _kto(config: KtoLossConfig) -> Objective:
    def losses(reading: Reading, micro: MicroBatch, z0: Tensor | None) -> Tensor:
        assert z0 is not None, "z0 was not computed"
        each = kto_loss(
            log_ratios_of(reading, micro), micro.scores, z0, beta=config.beta,
            desirable_weight=config.desirable_weight, undesirable_weight=config.undesirable_weight,
        )  # fmt: skip
        return each.where(micro.batch.is_present, 0.0).sum(-1)

    return Objective(
        "logprobs",
        losses,
        lambda reading, micro: config.beta * log_ratios_of(reading, micro),
        weight=lambda item: len(item.example.completions),
        needs_reference=True,
        needs_mismatches=True,
    )


def _hpo(config: HpoLossConfig) -> Objective:
    preference = _kto(config) if config.preference == "kto" else _of_pairs(dpo_loss, config.beta)

    def losses(reading: Reading, micro: MicroBatch, z0: Tensor | None) -> Tensor:
        # Both terms are means over what the preference term counts: of a pair of DPO's, the mean of its responses.
        assert micro.aux_weights is not None, "the responses were not weighed"
        shares = micro.aux_weights if config.preference == "kto" else micro.aux_weights / 2.0
        return hpo_loss(
            preference.losses(reading, micro, z0), reading.values, shares, micro.batch.is_present,
            aux_coef=config.aux_coef,
        )  # fmt: skip

    return replace(preference, losses=losses, is_logistic=False)


def _simpo(config: SimpoLossConfig) -> Objective:
    def losses(reading: Reading, micro: MicroBatch, z0: Tensor | None) -> Tensor:
        values, tokens = reading.values, reading.tokens
        return simpo_loss(
            values[:, 0], values[:, 1], micro.scores[:, 0], tokens[:, 0], tokens[:, 1],
            beta=config.beta, gamma=config.gamma,
        )  # fmt: skip

    return Objective("logprobs", losses, lambda reading, micro: config.beta * _means(reading))


def _rrhf(config: RrhfLossConfig) -> Objective:
    def losses(reading: Reading, micro: MicroBatch, z0: Tensor | None) -> Tensor:
        return rrhf_loss(
            reading.values, reading.tokens, micro.scores, micro.batch.is_present,
            rank_weight=config.rank_weight, sft=config.sft,
        )  # fmt: skip

    return Objective("logprobs", losses, lambda reading, micro: _means(reading))


def _means(reading: Reading) -> Tensor:
    """Mean log-probability of a token of each completion, (B, K); 0 in padding."""
    return reading.values / reading.tokens.clamp(min=1)


_MAKERS: Mapping[str, Callable[[Any], Objective]] = {
    "sft": _sft,
    "rm": _reward_model,
    "dpo": _dpo,
    "ipo": _ipo,
    "cdpo": _cdpo,
    "robust-dpo": _robust_dpo,
    "gdpo": _gdpo,
    "hinge": _hinge,
    "kto": _kto,
    "hpo": _hpo,
    "simpo": _simpo,
    "rrhf": _rrhf,
}

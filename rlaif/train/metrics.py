"""What is logged beside the loss: how well the rewards rank what the labels rank. Sums and weights, so that a step's
figure is the same however it is split."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from rlaif.train.hpo import aux_losses
from rlaif.train.means import Mean
from rlaif.train.objectives import MicroBatch, Objective, Reading

_ROUNDING = 1e-4
"""Rewards this close are equal: a policy that is still the reference has log-ratios of some 1e-6, not of 0."""


@torch.no_grad()
def preference_metrics(objective: Objective, reading: Reading, micro: MicroBatch) -> Mapping[str, Mean]:
    """Figures of a micro-batch; those that need two responses of different score count nothing where there are none.

        accuracy        share of pairs of responses that the rewards order as the labels do; equal rewards count half
        margin          by how much the better one's reward leads, mean over the same pairs
        reward_better, reward_worse    rewards of the responses with a score over and under the others' mean; of single
                        responses, of the desirable and the undesirable ones
        logprob_better, logprob_worse  the same of log-probabilities: both may fall while the margin grows
        aux_loss        what auxiliary rewards add to the loss before their coefficient, over responses that have any

    Args:
        objective: Of the method.
        reading: What the model said.
        micro: What was asked.
    """
    scores, is_present = micro.scores, micro.batch.is_present
    if scores.shape != is_present.shape:  # demonstrations have no scores
        return {}
    rewards = objective.rewards(reading, micro)
    is_pair = (scores.unsqueeze(2) > scores.unsqueeze(1)) & is_present.unsqueeze(2) & is_present.unsqueeze(1)
    leads = rewards.unsqueeze(2) - rewards.unsqueeze(1)
    ordered = 0.5 + 0.5 * leads.sign() * (leads.abs() > _ROUNDING)
    found = {
        "accuracy": Mean(ordered.where(is_pair, 0.0).sum(), is_pair.sum().float()),
        "margin": Mean(leads.where(is_pair, 0.0).sum(), is_pair.sum().float()),
    }
    counts = is_present.sum(-1, keepdim=True)
    middle = torch.where(counts > 1, scores.where(is_present, 0.0).sum(-1, keepdim=True) / counts.clamp(min=1), 0.5)
    for name, is_side in (("better", (scores > middle) & is_present), ("worse", (scores < middle) & is_present)):
        count = is_side.sum().float()
        found[f"reward_{name}"] = Mean(rewards.where(is_side, 0.0).sum(), count)
        if objective.reads == "logprobs":
            found[f"logprob_{name}"] = Mean(reading.values.where(is_side, 0.0).sum(), count)
    if micro.aux_weights is not None:
        losses = aux_losses(reading.values, micro.aux_weights, is_present)
        found["aux_loss"] = Mean(losses.sum(), (micro.aux_weights > 0.0).sum().float())
    if not micro.weight:  # the same names, since all processes add up the same figures
        return {name: Mean(torch.zeros_like(total), torch.zeros_like(count)) for name, (total, count) in found.items()}
    return found

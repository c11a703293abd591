"""Losses over k responses to one prompt, which rank them: pure functions of tensors, in the manner of `losses`.

One prompt is one example, however many responses it has: `(B, K)` in, `(B,)` out. Rows with fewer than K are padded;
what stands in the padding, NaN too, changes neither loss nor gradient, and neither does the order of the responses.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from rlaif.models.logprobs import upcast
from rlaif.train.losses import check_shapes, reward_model_loss


def plackett_luce_loss(rewards: Tensor, ratings: Tensor, is_present: Tensor | None = None) -> Tensor:
    """Negative log-likelihood of a whole ranking of k responses: best first, each chosen from those that are left.

    sum_k [log sum_{i: rating_i <= rating_k} exp(r_i) - r_k]; `reward_model_loss` at k = 2. Responses of equal rating
    are one stage, the cross-entropy to an even choice between them, so that a tied pair is a label of 0.5. With
    rewards beta * `log_ratios` this is DPO over rankings.

    Args:
        rewards: Scores, (B, K).
        ratings: What ranks them, higher is better, (B, K), any number type.
        is_present: False for padding of rows with fewer than K responses, (B, K), bool; None: all are there.

    Returns:
        (B,), float32, in nats; a row of one response is 0.

    Source: Plackett (1975), "The analysis of permutations", and Luce (1959); the stage of ties is ours.
    """
    rewards, is_present = _padded(rewards, ratings, is_present)
    is_left = (ratings.unsqueeze(1) <= ratings.unsqueeze(2)) & is_present.unsqueeze(1)  # (B, stage, response)
    is_tied = (ratings.unsqueeze(1) == ratings.unsqueeze(2)) & is_present.unsqueeze(1)
    # A padded stage counts for nothing, but a log-sum-exp over no response at all has a NaN gradient.
    is_left = is_left | ~is_present.unsqueeze(2)
    stages = rewards.unsqueeze(1).masked_fill(~is_left, -math.inf).logsumexp(-1) - rewards
    return (stages / is_tied.sum(-1).clamp(min=1)).where(is_present, 0.0).sum(-1)


def all_pairs_loss(rewards: Tensor, pair_probs: Tensor, is_present: Tensor | None = None) -> Tensor:
    """Mean of `reward_model_loss` over all pairs of k responses to one prompt, which count as one example.

    1 / C(k, 2) sum_{i < j} [-p_ij log sigma(r_i - r_j) - (1 - p_ij) log sigma(r_j - r_i)].

    Args:
        rewards: Scores, (B, K).
        pair_probs: P(i preferred to j) at [:, i, j], (B, K, K), in [0, 1]; only i < j is read. `order_probs` makes it
            from ratings.
        is_present: False for padding, (B, K), bool; None: all are there.

    Returns:
        (B,), float32, in nats; a row of one response is 0.

    Source: Ouyang et al., InstructGPT, arXiv:2203.02155, section 3.5, equation 1 (hard labels).
    """
    rewards, is_present = _padded(rewards, pair_probs[..., 0], is_present)
    first, second = torch.triu_indices(rewards.shape[-1], rewards.shape[-1], offset=1, device=rewards.device)
    is_pair = is_present[:, first] & is_present[:, second]
    probs = pair_probs[:, first, second].where(is_pair, 0.5)  # a NaN would reach the gradient through the mask below
    losses = reward_model_loss(rewards[:, first], rewards[:, second], probs)
    return losses.where(is_pair, 0.0).sum(-1) / is_pair.sum(-1).clamp(min=1)


def order_probs(ratings: Tensor) -> Tensor:
    """Ratings as labels of pairs: 1 at [:, i, j] where i is rated higher than j, 0 where lower, 0.5 where equal.

    Args:
        ratings: Higher is better, (B, K).

    Returns:
        (B, K, K), float32; NaN where a rating is.
    """
    differences = ratings.unsqueeze(2) - ratings.unsqueeze(1)
    # The sign of NaN is 0, and would make a tie of it.
    return (0.5 + 0.5 * differences.sign().float()).masked_fill(differences.isnan(), math.nan)


def rrhf_loss(
    logprobs: Tensor,
    tokens: Tensor,
    ratings: Tensor,
    is_present: Tensor | None = None,
    *,
    rank_weight: float = 1.0,
    sft: Literal["sum", "mean"] = "sum",
) -> Tensor:
    """Ranking hinge over k responses, plus the likelihood of the best one.

    w sum_{i, j: rating_i < rating_j} max(0, s_i - s_j) - log pi(y_best), with s the mean log-probability of a token.
    The first term is 0 when the policy ranks as the ratings do. Responses of equal rating make no pair; several best
    ones share the second term evenly.

    Args:
        logprobs: The policy's log-probabilities, summed over each completion's tokens, (B, K), K at least 2.
        tokens: Tokens of each completion, (B, K), at least 1 where present.
        ratings: Higher is better, (B, K), any number type; of a pair with a soft label: p and 1 - p.
        is_present: False for padding of rows with fewer than K responses, (B, K), bool; None: all are there.
        rank_weight: w; the paper has 1, the authors' script 100 (with "mean").
        sft: Whether log pi(y_best) is summed over tokens, as in the paper, or their mean, as in the authors' script.

    Returns:
        (B,), float32, in nats; at least 0.

    Source: Yuan et al., arXiv:2304.05302; GanjinZero/RRHF, train.py. Shares of tied best responses are ours.
    """
    check_shapes(logprobs, tokens)
    logprobs, is_present = _padded(logprobs, ratings, is_present)
    scores = logprobs / tokens.where(is_present, 1)
    is_pair = (ratings.unsqueeze(2) < ratings.unsqueeze(1)) & is_present.unsqueeze(2) & is_present.unsqueeze(1)
    hinges = (scores.unsqueeze(2) - scores.unsqueeze(1)).clamp(min=0.0).where(is_pair, 0.0).sum((1, 2))
    is_best = is_present & ~is_pair.any(2)  # nothing is rated higher
    likelihoods = (logprobs if sft == "sum" else scores).where(is_best, 0.0).sum(-1) / is_best.sum(-1).clamp(min=1)
    return rank_weight * hinges - likelihoods


def _padded(values: Tensor, ratings: Tensor, is_present: Tensor | None) -> tuple[Tensor, Tensor]:
    """Upcast values with 0 for padding, which may hold anything, and the mask of what is there."""
    is_present = torch.ones_like(values, dtype=torch.bool) if is_present is None else is_present
    check_shapes(values, ratings, is_present)
    return upcast(values).where(is_present, 0.0), is_present

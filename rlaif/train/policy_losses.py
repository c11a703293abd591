"""Losses of rollouts, token by token, and how tokens are added up. Pure functions of tensors; no model.

Shapes are (B, K, L): B prompts, K completions each, L tokens of the longest. What stands in padding may be any finite
number (log-probabilities are 0 there); `aggregate` leaves it out. Advantages and what the old policy said carry no
gradient, whatever is passed.

A step's loss is the sum of `aggregate` over all its prompts, micro-batches and processes, divided by the sum of their
`aggregate_weight`: the same number however the step is split.

Advantages are made in `advantages`, penalties on leaving the reference in `kl`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from rlaif.models.logprobs import upcast
from rlaif.train.losses import check_shapes

Aggregation = Literal["token", "sequence", "constant"]


class ClippedLoss(NamedTuple):
    """`clipped_loss` of each token, and what is logged of it.

    Attributes:
        loss: (B, K, L), float32.
        is_clipped: Where a clip holds the loss, so that the token has no gradient, (B, K, L), bool.
        ratio: pi / pi_old, (B, K, L), float32, without gradient.
    """

    loss: Tensor
    is_clipped: Tensor
    ratio: Tensor


def reinforce_loss(logprobs: Tensor, advantages: Tensor) -> Tensor:
    """-A log pi of each token: its gradient is the policy gradient's at the policy that sampled.

    Args:
        logprobs: The policy's, (B, K, L).
        advantages: (B, K, L), or (B, K, 1) where all tokens of a completion have the same.

    Returns:
        (B, K, L), float32. Only its gradient means anything: its value is no measure of progress.

    Source: Williams (1992), "Simple statistical gradient-following algorithms for connectionist reinforcement
    learning".
    """
    return -upcast(logprobs) * _constant(advantages, logprobs)


def clipped_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None = None,
) -> ClippedLoss:
    """PPO's surrogate: max(-A rho, -A clip(rho, 1 - low, 1 + high)) with rho = pi / pi_old of each token.

    A token stops pulling once it has moved as far as the clip in the direction of its advantage. At rho = 1 nothing
    is clipped, and the gradient is `reinforce_loss`'s.

    Args:
        logprobs: The policy's, (B, K, L).
        old_logprobs: Those of the policy that sampled, (B, K, L).
        advantages: (B, K, L), or (B, K, 1) where all tokens of a completion have the same.
        clip_low, clip_high: At least 0; PPO and GRPO 0.2 both, DAPO 0.2 and 0.28. A low of 1 or more never clips.
        dual_clip: c, above 1: where A < 0 the loss is at most -A c, so that a token which became much likelier since
            it was sampled does not rule the step. None: no bound. 3 is usual.

    Returns:
        Loss, where it is clipped, and rho.

    Raises:
        ValueError: A clip is negative, or c at most 1.

    Source: Schulman et al., PPO, arXiv:1707.06347, equation 7; Yu et al., DAPO, arXiv:2503.14476, section 3.1
    (two bounds); Ye et al., arXiv:1912.09729 (dual clip).
    """
    check_shapes(logprobs, old_logprobs)
    if min(clip_low, clip_high) < 0.0:
        raise ValueError(f"clip_low and clip_high must be at least 0, not {clip_low} and {clip_high}")
    if dual_clip is not None and dual_clip <= 1.0:
        raise ValueError(f"dual_clip must be above 1, not {dual_clip}: at 1 it would hold where nothing has moved")
    advantages = _constant(advantages, logprobs)
    ratio = (upcast(logprobs) - upcast(old_logprobs.detach())).exp()
    free = -advantages * ratio
    bounded = -advantages * ratio.clamp(1.0 - clip_low, 1.0 + clip_high)
    loss, is_clipped = torch.maximum(free, bounded), bounded > free
    if dual_clip is not None:
        most = -advantages * dual_clip
        is_over = (advantages < 0.0) & (loss > most)
        loss, is_clipped = torch.where(is_over, most, loss), is_clipped | is_over
    return ClippedLoss(loss, is_clipped, ratio.detach())


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, *, clip: float | None) -> Tensor:
    """Half the squared error of each token's value, or of the value kept near what it was, whichever is larger.

    0.5 max((V - R)^2, (V_old + clip(V - V_old, -c, c) - R)^2). The sum of squares of direct RLAIF is twice this:
    give it a weight of 2.

    Args:
        values: With gradient, (B, K, L).
        old_values: Those that the returns were made with, (B, K, L); without a clip not looked at.
        returns: What is predicted, `gae`'s or `drlaif_returns` at each token, (B, K, L).
        clip: c, above 0; 0.2 is usual, for rewards of about that size. None: the plain squared error.

    Returns:
        (B, K, L), float32, at least 0.

    Raises:
        ValueError: clip is not above 0.

    Source: the code of Schulman et al., PPO (openai/baselines, ppo2), as TRL and OpenRLHF have it.
    """
    check_shapes(values, old_values, returns)
    if clip is not None and not clip > 0.0:
        raise ValueError(f"clip must be above 0, not {clip}; None does not clip")
    values, returns = upcast(values), upcast(returns.detach())
    errors = (values - returns).square()
    if clip is not None:
        old_values = upcast(old_values.detach())
        kept = old_values + (values - old_values).clamp(-clip, clip)
        errors = torch.maximum(errors, (kept - returns).square())
    return 0.5 * errors


def aggregate(per_token: Tensor, is_completion: Tensor, how: Aggregation) -> Tensor:
    """The losses of each prompt's tokens added up, before the division by the step's `aggregate_weight`.

    Args:
        per_token: (B, K, L).
        is_completion: False in padding, which may hold anything, (B, K, L), bool.
        how: What the division makes of it. "token": the mean over tokens (DAPO), in which long completions weigh more.
            "sequence": the mean over completions of their means over tokens (GRPO), in which a token of a long one
            weighs less. "constant": the sum over tokens by a constant (Dr. GRPO), in which all tokens weigh the same
            in every step.

    Returns:
        (B,), float32.

    Source: Yu et al., DAPO, arXiv:2503.14476, section 3.3; Shao et al., arXiv:2402.03300, equation 3; Liu et al.,
    Dr. GRPO, arXiv:2503.20783.
    """
    check_shapes(per_token, is_completion)
    sums = upcast(per_token).where(is_completion, 0.0).sum(-1)
    if how == "sequence":
        sums = sums / is_completion.sum(-1).clamp(min=1)
    return sums.sum(-1)


def aggregate_weight(tokens: Sequence[int], how: Aggregation, most_tokens: int) -> int:
    """What a prompt counts for in the mean of the step; a completion without a token counts nothing.

    Args:
        tokens: Of each of the prompt's completions that take part.
        how: As for `aggregate`.
        most_tokens: Dr. GRPO's constant, the most tokens a completion may have, at least 1; only "constant" reads it.

    Returns:
        At least 0.

    Raises:
        ValueError: "constant", and `most_tokens` is less than 1.
    """
    if how == "token":
        return sum(tokens)
    completions = sum(count > 0 for count in tokens)
    if how == "sequence":
        return completions
    if most_tokens < 1:
        raise ValueError(f"most_tokens must be at least 1, not {most_tokens}")
    return completions * most_tokens


def _constant(advantages: Tensor, logprobs: Tensor) -> Tensor:
    """Advantages upcast and without gradient, in a shape that broadcasts to the tokens in the one right way."""
    # (B, K) against (B, K, L) would take prompts for completions wherever the numbers happen to agree.
    if tuple(advantages.shape) not in (tuple(logprobs.shape), (*logprobs.shape[:-1], 1)):
        raise ValueError(
            f"advantages of shape {tuple(advantages.shape)} do not belong to log-probabilities of shape "
            f"{tuple(logprobs.shape)}; expected the same shape, or 1 in place of the tokens"
        )
    return upcast(advantages.detach())

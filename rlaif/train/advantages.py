"""What rollouts are trained towards: advantages and returns from rewards. Pure functions of tensors, without gradient.

Rewards come as `(B, K)`: K completions to each of B prompts, a group each. A dropped sample (no reward was given, or
the row has fewer completions) is False in `is_present`: it takes part in no mean and no spread, its advantage is 0,
and what stands in its place may be NaN. Rewards that are not finite are refused where they are asked for.

    one advantage a completion       group_advantages, leave_one_out_advantages, batch_advantages
    one a token                      gae, on terminal_rewards; whiten
    shaping of the reward            overlong_penalty, drlaif_returns

What is equal gives exactly 0, not what rounding leaves of it, since a division by a spread would make it large.
All statistics are over what is passed in: that is to be the whole optimizer step, all micro-batches and processes.

The losses are in `policy_losses`, penalties on leaving the reference in `kl`.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, assert_never

import torch
from torch import Tensor

from rlaif.models.logprobs import upcast
from rlaif.train.losses import check_shapes

Scale = Literal["group", "batch", "none"]

SPREAD_FLOOR = 1e-4
"""Added to every standard deviation that rewards are divided by, as TRL does: rewards that differ by a rounding error
(some 1e-7 on a judge's scale) have advantages of some 1e-3 then, and not of 1."""

_VARIANCE_FLOOR = 1e-8


class GaeResult(NamedTuple):
    """What `gae` makes of rewards and values; both 0 in padding.

    Attributes:
        advantages: How much better than expected each token turned out, (N, L), float32, not whitened.
        returns: What the values are trained towards, advantages + values, (N, L), float32.
    """

    advantages: Tensor
    returns: Tensor


@torch.no_grad()
def group_advantages(rewards: Tensor, is_present: Tensor, *, scale: Scale = "group") -> Tensor:
    """Each reward less its group's mean, over a standard deviation.

    Standard deviations are the unbiased ones (n - 1), plus `SPREAD_FLOOR`.

    Args:
        rewards: (B, K).
        is_present: False for dropped samples, (B, K), bool.
        scale: "group" divides by the group's (GRPO); "none" by nothing (Dr. GRPO: the division favours prompts on
            which all answers are nearly as good); "batch" by that of all centred rewards of groups of two or more
            (REINFORCE++-baseline).

    Returns:
        (B, K), float32. Sums to 0 in each group; exactly 0 where all are equal or only one is present.

    Source: Shao et al., DeepSeekMath, arXiv:2402.03300, section 4.1.2; Liu et al., Dr. GRPO, arXiv:2503.20783; Hu,
    REINFORCE++, arXiv:2501.03262; TRL 1.16 `GRPOTrainer` (unbiased, the floor; its "batch" is the spread of rewards
    before they are centred).
    """
    centred, counts = _centred(rewards, is_present)
    match scale:
        case "none":
            return centred
        case "group":
            return centred / (_deviation(centred, counts) + SPREAD_FLOOR)
        case "batch":
            # The one reward of a group is not 0 off the mean: nobody knows how far off it is.
            is_compared = is_present & (counts > 1)
            return centred / (_deviation(centred.reshape(1, -1), is_compared.sum()) + SPREAD_FLOOR)
    assert_never(scale)


@torch.no_grad()
def leave_one_out_advantages(rewards: Tensor, is_present: Tensor) -> Tensor:
    """Each reward less the mean of the others in its group: r_i - mean_{j != i} r_j.

    The baseline does not depend on the sample, so that the expected gradient is REINFORCE's; n / (n - 1) times the
    advantage of `group_advantages` with scale "none".

    Args:
        rewards: (B, K).
        is_present: False for dropped samples, (B, K), bool.

    Returns:
        (B, K), float32. Sums to 0 in each group; 0 for a sample alone in its group, which has no baseline.

    Source: Kool et al. (2019), "Buy 4 REINFORCE samples, get a baseline for free!"; Ahmadian et al., arXiv:2402.14740.
    """
    centred, counts = _centred(rewards, is_present)
    # In this order: a quotient of two counts would be rounded to float32.
    return centred * counts / (counts - 1).clamp(min=1)


@torch.no_grad()
def batch_advantages(rewards: Tensor, is_present: Tensor, *, scale: bool) -> Tensor:
    """Each reward less a mean of the whole batch, whatever the prompts are.

    Args:
        rewards: (B, K).
        is_present: False for dropped samples, (B, K), bool.
        scale: False: the baseline is the mean of all other rewards, and the expected gradient REINFORCE's. True:
            less the mean of all, over the standard deviation of all (n - 1, plus `SPREAD_FLOOR`), as REINFORCE++
            normalises. Where rewards differ from token to token (a KL penalty on each), that is `whiten` of the
            returns of `gae` with values of 0.

    Returns:
        (B, K), float32. Sums to 0; exactly 0 where all are equal or only one is present.

    Source: Williams (1992), REINFORCE; leaving the own reward out is ours, after Kool et al. (2019); Hu, REINFORCE++,
    arXiv:2501.03262.
    """
    check_shapes(rewards, is_present)
    flat, is_there = rewards.reshape(1, -1), is_present.reshape(1, -1)
    advantages = group_advantages(flat, is_there) if scale else leave_one_out_advantages(flat, is_there)
    return advantages.reshape(rewards.shape)


@torch.no_grad()
def silent_groups(rewards: Tensor, is_present: Tensor) -> Tensor:
    """Which groups say nothing about what is better: their samples have equal rewards, or fewer than two have one.

    Args:
        rewards: (B, K).
        is_present: False for dropped samples, (B, K), bool.

    Returns:
        (B,), bool: exactly the groups whose advantages are all 0.
    """
    check_shapes(rewards, is_present)
    return ~_differs(upcast(rewards), is_present).squeeze(-1)


@torch.no_grad()
def gae(rewards: Tensor, values: Tensor, is_completion: Tensor, *, gamma: float, lam: float) -> GaeResult:
    """Generalised advantage estimation over each completion's tokens.

    delta_t = r_t + gamma V_{t+1} - V_t and A_t = delta_t + gamma lam A_{t+1}, with V = 0 after the last token. With
    gamma = lam = 1 the returns are the sums of the rewards to come; with values of 0 so are the advantages.

    Args:
        rewards: Of each token, (N, L).
        values: V at each predicting position, the state before the token is written, (N, L).
        is_completion: False in padding, which is on the right, (N, L), bool. What stands there may be NaN.
        gamma: Discount a token, in [0, 1]; 1 for one reward at the end.
        lam: Weight of what was seen against what was predicted, in [0, 1]; 1 has no bias, 0 the least variance.

    Raises:
        ValueError: gamma or lam outside [0, 1].

    Source: Schulman et al., arXiv:1506.02438, equation 16.
    """
    check_shapes(rewards, values, is_completion)
    for name, value in (("gamma", gamma), ("lam", lam)):
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"{name} must lie in [0, 1], not {value}")
    rewards, values = upcast(rewards).where(is_completion, 0.0), upcast(values).where(is_completion, 0.0)
    # Padding holds 0 now, and a column of it ends the completions that have none.
    next_values = torch.cat((values[:, 1:], torch.zeros_like(values[:, :1])), dim=1)
    deltas = rewards + gamma * next_values - values
    advantages = torch.empty_like(deltas)
    following = deltas.new_zeros(len(deltas))
    for place in reversed(range(deltas.shape[1])):
        following = deltas[:, place] + gamma * lam * following
        advantages[:, place] = following
    return GaeResult(advantages, advantages + values)


@torch.no_grad()
def terminal_rewards(scores: Tensor, is_completion: Tensor) -> Tensor:
    """Rewards of tokens where a completion is scored as a whole: all of it at the last token.

    Args:
        scores: One a completion, (N,).
        is_completion: False in padding, which is on the right, (N, L), bool.

    Returns:
        (N, L), float32. A row without a token is 0 throughout: padding, whose score may be NaN.
    """
    check_shapes(scores, is_completion[..., 0])
    places = torch.arange(is_completion.shape[-1], device=is_completion.device)
    is_last = places == is_completion.sum(-1, keepdim=True) - 1
    return upcast(scores).unsqueeze(-1).where(is_last, 0.0)


@torch.no_grad()
def whiten(values: Tensor, mask: Tensor, *, shifts_mean: bool = True) -> Tensor:
    """(x - mean) / sqrt(var + 1e-8): mean 0 and variance 1 of what the mask leaves in.

    Args:
        values: Advantages, or rewards, any shape.
        mask: False in padding, which is counted nowhere and may be NaN, same shape, bool.
        shifts_mean: False leaves the mean where it was, as is done with rewards: shifting those moves the optimum
            between longer and shorter completions.

    Returns:
        The shape of `values`, float32; 0 where masked. The variance is the unbiased one (n - 1). Values that are all
        equal are 0, or stay as they are without the shift; so does one alone.

    Source: Ziegler et al., arXiv:1909.08593, and its code; TRL 0.24 `masked_whiten` (unbiased, 1e-8).
    """
    check_shapes(values, mask)
    flat, is_there = upcast(values).reshape(1, -1), mask.reshape(1, -1)
    centred, counts = _centred(flat, is_there)
    whitened = centred * (_deviation(centred, counts).square() + _VARIANCE_FLOOR).rsqrt()
    if not shifts_mean:
        whitened = (whitened + (flat - centred)).where(is_there, 0.0)
    return whitened.reshape(values.shape)


@torch.no_grad()
def overlong_penalty(tokens: Tensor, *, most: int, buffer: int) -> Tensor:
    """What to add to the reward of a long completion, so that the limit is felt before it cuts.

    0 up to most - buffer tokens, then falling evenly to -1 at `most`, and -1 beyond.

    Args:
        tokens: Of each completion, any shape, int.
        most: Tokens at which the penalty is whole, usually the most that are generated.
        buffer: Tokens over which it grows, 1 to `most`.

    Returns:
        The shape of `tokens`, float32, in [-1, 0].

    Raises:
        ValueError: buffer is outside [1, most].

    Source: Yu et al., DAPO, arXiv:2503.14476, equation 13.
    """
    if not 1 <= buffer <= most:
        raise ValueError(f"buffer must lie in [1, {most}], the tokens of the longest completion, not {buffer}")
    return ((most - buffer - tokens) / buffer).clamp(min=-1.0, max=0.0)


@torch.no_grad()
def drlaif_returns(scores: Tensor, sequence_kl: Tensor, beta: float) -> Tensor:
    """(1 - beta) r - beta KL: the return of direct RLAIF, at every token of the completion.

    Its best policy is proportional to reference * exp((1 - beta) r / beta).

    Args:
        scores: r, of each completion, any shape; the judge's lie in [-1, 1].
        sequence_kl: `kl.sequence_kl` of each, same shape, nats.
        beta: In [0, 1]; the paper's is 0.05.

    Returns:
        The shape of `scores`, float32.

    Raises:
        ValueError: beta is outside [0, 1].

    Source: Lee et al., RLAIF, arXiv:2309.00267, appendix F.
    """
    check_shapes(scores, sequence_kl)
    if not 0.0 <= beta <= 1.0:
        raise ValueError(f"beta must lie in [0, 1], not {beta}: the reward's share is 1 - beta")
    return (1.0 - beta) * upcast(scores) - beta * upcast(sequence_kl)


def _centred(rewards: Tensor, is_present: Tensor) -> tuple[Tensor, Tensor]:
    """Values less their row's mean, exactly 0 in rows that do not differ, and how many there are, (B, 1)."""
    check_shapes(rewards, is_present)
    rewards = upcast(rewards).where(is_present, 0.0)
    counts = is_present.sum(-1, keepdim=True)
    means = rewards.sum(-1, keepdim=True) / counts.clamp(min=1)
    return (rewards - means).where(is_present & _differs(rewards, is_present), 0.0), counts


def _differs(rewards: Tensor, is_present: Tensor) -> Tensor:
    """Which rows hold two different values, (B, 1)."""
    # NaN differs from what it stands beside, and stays seen. A row of nothing has a largest below its smallest.
    largest = rewards.where(is_present, -math.inf).amax(-1, keepdim=True)
    smallest = rewards.where(is_present, math.inf).amin(-1, keepdim=True)
    return ~(largest <= smallest)


def _deviation(centred: Tensor, counts: Tensor) -> Tensor:
    """Unbiased standard deviation of each row, (B, 1); 0 of one value."""
    return (centred.square().sum(-1, keepdim=True) / (counts - 1).clamp(min=1)).sqrt()

"""The training losses of single responses and of pairs: pure functions of tensors. No model, no batch, no reduction.

Each returns one loss per example, `(B,)`, and leaves means, weights and the count to divide by to the caller, who alone
knows how many examples the whole optimizer step has. Inputs of any floating type are computed in float32, those of
float64 in float64; log-probabilities and log-ratios are natural (nats).

A pair is (A, B) with `prob_a`, the probability that A is preferred: 1 is a hard label, 0 the same for B, anything
between a soft one. Exchanging A and B with `prob_a` -> 1 - `prob_a` leaves every loss as it is. Where a source writes
chosen and rejected, that is A and B at `prob_a` = 1.

    log-probabilities alone          sft_loss, simpo_loss
    rewards of a reward model        reward_model_loss
    log-ratios to the reference      dpo_loss, cdpo_loss, robust_dpo_loss, gdpo_loss, ipo_loss, kto_loss

Losses over k responses are in `ranking_losses`, what a label says in `labels`.

Labels outside [0, 1], NaN and completions without a token are refused where rows are read: looking for them here would
make a GPU wait.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from rlaif.models.logprobs import upcast


class TokenLoss(NamedTuple):
    """A loss that is a mean over tokens, before the division.

    Attributes:
        sums: Summed loss of each example's tokens, (B,), float32.
        tokens: How many tokens that is, (B,), int64.
    """

    sums: Tensor
    tokens: Tensor


def sft_loss(token_logprobs: Tensor, is_completion: Tensor) -> TokenLoss:
    """Negative log-likelihood of the completion: -sum_t log pi(y_t | x, y_<t), with the count of its tokens.

    The loss of a step is `sums.sum()` over all micro-batches and processes divided by their `tokens.sum()`: a mean of
    micro-batch means would weigh a token by how it was batched.

    Args:
        token_logprobs: Log-probability of each token given those before it, (B, T).
        is_completion: True where the token is the completion's (its EOS among them), (B, T), bool. Elsewhere the
            log-probability may be anything, NaN too.

    Source: the usual next-token cross-entropy; for the count, trl issue 2175.
    """
    check_shapes(token_logprobs, is_completion)
    logprobs = upcast(token_logprobs)
    return TokenLoss(-logprobs.where(is_completion, 0.0).sum(-1), is_completion.sum(-1))


def log_ratios(policy_logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """log pi(y | x) - log pi_ref(y | x), (B,), float32; no gradient reaches the reference.

    Args:
        policy_logprobs, reference_logprobs: Log-probabilities summed over the completion's tokens, (B,). They are
            upcast before the difference: sums near -1000 in bfloat16 are 4 nats apart.
    """
    check_shapes(policy_logprobs, reference_logprobs)
    return upcast(policy_logprobs) - upcast(reference_logprobs.detach())


def reward_model_loss(
    rewards_a: Tensor, rewards_b: Tensor, prob_a: Tensor, *, margin: Tensor | None = None, centering: float = 0.0
) -> Tensor:
    """Cross-entropy of the rewards' difference to the soft label; Bradley-Terry at `prob_a` = 1.

    With D = r_a - r_b: -p log sigma(D - m) - (1 - p) log sigma(-D - m) + eta (r_a + r_b)^2. Without margin and
    centering its gradient in D is sigma(D) - p, its minimum the entropy of p, at D = logit p.

    Args:
        rewards_a, rewards_b: Scores, (B,).
        prob_a: P(A preferred), (B,), in [0, 1].
        margin: m, how much the preferred one has to lead by, (B,), at least 0; None: 0. The minimum is then not at
            logit p any more.
        centering: eta; keeps rewards around 0. 0.01 is usual.

    Returns:
        (B,), float32, in nats; at least 0.

    Source: Lee et al., RLAIF, arXiv:2309.00267, section 2.2.1 (soft label); Touvron et al., Llama 2, arXiv:2307.09288
    (margin, for hard labels; on both sides of a soft one is ours); Eisenstein et al., arXiv:2312.09244 (centering, the
    form of TRL's `center_rewards_coefficient`).
    """
    check_shapes(rewards_a, rewards_b, prob_a, *(() if margin is None else (margin,)))
    rewards_a, rewards_b = upcast(rewards_a), upcast(rewards_b)
    loss = _cross_entropy(rewards_a - rewards_b, prob_a, 0.0 if margin is None else upcast(margin))
    return loss + centering * (rewards_a + rewards_b).square() if centering else loss


def dpo_loss(log_ratios_a: Tensor, log_ratios_b: Tensor, prob_a: Tensor, *, beta: float) -> Tensor:
    """Direct preference optimization, towards hard or soft labels.

    With h = `log_ratios_a` - `log_ratios_b`: -p log sigma(beta h) - (1 - p) log sigma(-beta h). Where the policy is
    still the reference this is ln 2 for every p; its minimum is at beta h = logit p.

    Args:
        log_ratios_a, log_ratios_b: `log_ratios` of the responses, (B,).
        prob_a: P(A preferred), (B,), in [0, 1]; 1 is the paper's loss.
        beta: Strength of the pull to the reference, above 0.

    Returns:
        (B,), float32, in nats.

    Source: Rafailov et al., arXiv:2305.18290, equation 7; the soft form is cDPO with 1 - p for each pair's own noise.
    """
    return _cross_entropy(beta * _difference(log_ratios_a, log_ratios_b, prob_a), prob_a)


def cdpo_loss(
    log_ratios_a: Tensor, log_ratios_b: Tensor, prob_a: Tensor, *, beta: float, label_smoothing: float
) -> Tensor:
    """Conservative DPO: `dpo_loss` towards the label that is left when a share eps of labels is wrong.

    p becomes (1 - eps) p + eps (1 - p); at p = 1: -(1 - eps) log sigma(beta h) - eps log sigma(-beta h), with its
    minimum at beta h = logit(1 - eps).

    Args:
        log_ratios_a, log_ratios_b, prob_a, beta: As for `dpo_loss`.
        label_smoothing: eps, in [0, 0.5).

    Source: Mitchell (2023), "A note on DPO with noisy preferences and relationship to IPO".
    """
    _check_smoothing(label_smoothing)
    margins = beta * _difference(log_ratios_a, log_ratios_b, prob_a)
    return _cross_entropy(margins, label_smoothing + (1.0 - 2.0 * label_smoothing) * upcast(prob_a))


def robust_dpo_loss(
    log_ratios_a: Tensor,
    log_ratios_b: Tensor,
    prob_a: Tensor,
    *,
    beta: float,
    label_smoothing: float,
    max_margin: float = math.inf,
) -> Tensor:
    """DPO whose expectation over labels flipped with probability eps is `dpo_loss` on the labels before the flips.

    p becomes (p - eps) / (1 - 2 eps); at p = 1:
    [-(1 - eps) log sigma(beta h) + eps log sigma(-beta h)] / (1 - 2 eps). It undoes what `cdpo_loss` does. Where p is
    under eps or over 1 - eps it comes out beyond [0, 1], and the loss falls without end as the margin grows.

    Args:
        log_ratios_a, log_ratios_b, prob_a, beta: As for `dpo_loss`.
        label_smoothing: eps, in [0, 0.5).
        max_margin: Where the loss has no lower bound, the beta h (in the label's direction) from which on it is held
            constant, in nats. Infinite: never, the paper's loss.

    Returns:
        (B,), float32; may be negative.

    Source: Chowdhury et al., arXiv:2403.00409; the form for soft labels and the bound are ours.
    """
    _check_smoothing(label_smoothing)
    margins = beta * _difference(log_ratios_a, log_ratios_b, prob_a)
    probs = (upcast(prob_a) - label_smoothing) / (1.0 - 2.0 * label_smoothing)
    if max_margin < math.inf:
        margins = torch.where(probs > 1.0, margins.clamp(max=max_margin), margins)
        margins = torch.where(probs < 0.0, margins.clamp(min=-max_margin), margins)
    return _cross_entropy(margins, probs)


def gdpo_loss(log_ratios_a: Tensor, log_ratios_b: Tensor, prob_a: Tensor, *, beta: float) -> Tensor:
    """DPO by the weighted geometric mean of the responses: -log sigma(beta (2 p - 1) h).

    A soft label shrinks the step and leaves its direction: the gradient vanishes as p -> 0.5, and no p sets a margin
    to stop at.

    Args:
        log_ratios_a, log_ratios_b, prob_a, beta: As for `dpo_loss`.

    Source: Furuta et al., arXiv:2409.06691.
    """
    difference = _difference(log_ratios_a, log_ratios_b, prob_a)
    return -_log_sigmoid(beta * (2.0 * upcast(prob_a) - 1.0) * difference)


def hinge_loss(log_ratios_a: Tensor, log_ratios_b: Tensor, prob_a: Tensor, *, beta: float) -> Tensor:
    """A hinge on the scaled log-ratios: p max(0, 1 - beta h) + (1 - p) max(0, 1 + beta h), RSO's hinge-norm.

    Args:
        log_ratios_a, log_ratios_b: `log_ratios` of the responses, (B,).
        prob_a: P(A preferred), (B,), in [0, 1]; the paper's labels are 1.
        beta: Scale of the log-ratio, above 0; the paper's gamma.

    Returns:
        (B,), float32, at least 0; 1 where the policy is still the reference.

    Source: Liu et al., RSO, arXiv:2309.06657, equation 11; on both sides of a soft label is ours.
    """
    margin = beta * _difference(log_ratios_a, log_ratios_b, prob_a)
    prob = upcast(prob_a)
    return prob * (1.0 - margin).clamp(min=0.0) + (1.0 - prob) * (1.0 + margin).clamp(min=0.0)


def ipo_loss(
    log_ratios_a: Tensor,
    log_ratios_b: Tensor,
    prob_a: Tensor,
    tokens_a: Tensor,
    tokens_b: Tensor,
    *,
    beta: float,
    is_summed: bool = False,
) -> Tensor:
    """Identity preference optimization: p (h - 1 / (2 beta))^2 + (1 - p) (h + 1 / (2 beta))^2.

    Its minimum is at h = (2 p - 1) / (2 beta), finite for certain labels too.

    Args:
        log_ratios_a, log_ratios_b, prob_a, beta: As for `dpo_loss`; beta is the paper's tau.
        tokens_a, tokens_b: Tokens of each completion, (B,), at least 1.
        is_summed: Take h from the log-ratios as they are, as OpenRLHF does, and not from their means over tokens, as
            TRL does on the authors' word. The two want a beta of different size.

    Returns:
        (B,), float32; 1 / (4 beta^2) where the policy is still the reference.

    Source: Azar et al., arXiv:2310.12036, equation 17; the soft form is ours.
    """
    check_shapes(log_ratios_a, tokens_a, tokens_b)
    if not is_summed:
        log_ratios_a, log_ratios_b = upcast(log_ratios_a) / tokens_a, upcast(log_ratios_b) / tokens_b
    difference, probs, target = _difference(log_ratios_a, log_ratios_b, prob_a), upcast(prob_a), 1.0 / (2.0 * beta)
    return probs * (difference - target).square() + (1.0 - probs) * (difference + target).square()


def simpo_loss(
    logprobs_a: Tensor,
    logprobs_b: Tensor,
    prob_a: Tensor,
    tokens_a: Tensor,
    tokens_b: Tensor,
    *,
    beta: float,
    gamma: float,
) -> Tensor:
    """Preference by mean log-probability of a token, without a reference.

    With z = beta (mean logprob of A - mean logprob of B): -p log sigma(z - gamma) - (1 - p) log sigma(-z - gamma).

    Args:
        logprobs_a, logprobs_b: The policy's log-probabilities, summed over the completion's tokens, (B,).
        prob_a: P(A preferred), (B,), in [0, 1]; 1 is the paper's loss.
        tokens_a, tokens_b: Tokens of each completion, (B,), at least 1.
        beta: Scale of the reward; 2 to 2.5 in the authors' runs.
        gamma: Margin of the preferred one, in units of z, at least 0; the authors start at half of beta.

    Returns:
        (B,), float32, in nats.

    Source: Meng et al., arXiv:2405.14734; the soft form is ours.
    """
    check_shapes(logprobs_a, tokens_a, tokens_b)
    means_a, means_b = upcast(logprobs_a) / tokens_a, upcast(logprobs_b) / tokens_b
    return _cross_entropy(beta * _difference(means_a, means_b, prob_a), prob_a, gamma)


def kto_z0(mismatched_log_ratios: Tensor) -> Tensor:
    """The reference point of `kto_loss`: max(0, mean log-ratio of completions under prompts that are not theirs).

    An estimate of KL(policy || reference). Computed once over a whole optimizer step, all micro-batches and processes
    together, so that accumulation changes nothing.

    Args:
        mismatched_log_ratios: `log_ratios` of completions, each under another row's prompt, (N,), N at least 1.

    Returns:
        Scalar, float32, at least 0, without gradient.

    Raises:
        ValueError: There are none: a step of one prompt has no mismatch, and 0 would be a made-up value.

    Source: Ethayarajh et al., KTO, arXiv:2402.01306; over the whole step is ours.
    """
    if not mismatched_log_ratios.numel():
        raise ValueError("z0 needs a mismatched log-ratio: the step holds no two different prompts")
    return upcast(mismatched_log_ratios.detach()).mean().clamp(min=0.0)


def kto_loss(
    log_ratios: Tensor,
    prob_desirable: Tensor,
    z0: Tensor,
    *,
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """Kahneman-Tversky optimization of single responses, desirable or not.

    A desirable response costs lambda_d (1 - sigma(beta (rho - z0))), an undesirable one
    lambda_u (1 - sigma(beta (z0 - rho))). A soft label is one copy of each kind, weighted p and 1 - p; the responses of
    a pair are two examples, with p and 1 - p.

    Args:
        log_ratios: rho, `log_ratios` of the responses, (B,).
        prob_desirable: P(desirable), (B,), in [0, 1] or bool.
        z0: `kto_z0` of the optimizer step, scalar.
        beta: As for `dpo_loss`.
        desirable_weight, undesirable_weight: The lambdas; lambda_d n_d / (lambda_u n_u) is best within 1 and 4/3.

    Returns:
        (B,), float32, in [0, the larger weight]; half the weight where the policy is still the reference.

    Source: Ethayarajh et al., arXiv:2402.01306, equations 7 and 8 (loss, weights); the soft form is ours.
    """
    check_shapes(log_ratios, prob_desirable)
    gains, probs = beta * (upcast(log_ratios) - upcast(z0.detach())), upcast(prob_desirable)
    # 1 - sigma(x) as sigma(-x): the difference would round to 0 from x = 17 on.
    return desirable_weight * probs * (-gains).sigmoid() + undesirable_weight * (1.0 - probs) * gains.sigmoid()


def _log_sigmoid(margins: Tensor) -> Tensor:
    # Not softplus: torch's is linear from 20 on, and wrong there in float64.
    return functional.logsigmoid(margins)


def _cross_entropy(margins: Tensor, probs: Tensor, lead: Tensor | float = 0.0) -> Tensor:
    """-p log sigma(z - lead) - (1 - p) log sigma(-z - lead), (B,)."""
    # The shorter softplus(-z) + (1 - p) z cancels where z is large and negative; these terms are both of one sign.
    probs = upcast(probs)
    return -probs * _log_sigmoid(margins - lead) - (1.0 - probs) * _log_sigmoid(-margins - lead)


def _difference(values_a: Tensor, values_b: Tensor, prob_a: Tensor) -> Tensor:
    check_shapes(values_a, values_b, prob_a)
    return upcast(values_a) - upcast(values_b)


def check_shapes(*tensors: Tensor) -> None:
    """Raise ValueError where tensors that belong together differ in shape."""
    # (B,) against (B, 1) would broadcast to (B, B) and train on pairs that nobody made.
    shapes = [tuple(tensor.shape) for tensor in tensors]
    if len(set(shapes)) > 1:
        raise ValueError(f"expected tensors of one shape, not {', '.join(map(str, shapes))}")


def _check_smoothing(label_smoothing: float) -> None:
    if not 0.0 <= label_smoothing < 0.5:
        raise ValueError(f"label_smoothing must lie in [0, 0.5), not {label_smoothing}")

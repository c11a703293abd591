"""The loss of hybrid preference optimization (HPO): a preference loss with likelihood weighted by auxiliary rewards
beside it. A pure function of tensors; the weights are made by `aux_weights`, the preference losses by `losses`."""

from __future__ import annotations

import torch
from torch import Tensor

from rlaif.models.logprobs import upcast
from rlaif.train.losses import check_shapes


def hpo_loss(
    preference_losses: Tensor, logprobs: Tensor, weights: Tensor, is_present: Tensor, *, aux_coef: float
) -> Tensor:
    """L_pref - lambda sum_k w_k log pi(y_k | x), with w = exp(A / tau).

    The weights are constants: the gradient of the second term is that of imitation, w_k times as strong for each
    response, and 0 for one that has no auxiliary rewards.

    Args:
        preference_losses: A sum over the row's responses, (B,), float32.
        logprobs: The policy's log-probability of each response, summed over its tokens, (B, K).
        weights: `AuxWeights` of each response, at least 0, (B, K); 0 where it has no auxiliary rewards.
        is_present: True where there is a response, (B, K), bool. Elsewhere the others may be anything.
        aux_coef: lambda, at least 0.

    Returns:
        (B,), float32; a sum over the row's responses.

    Source: Badrinath et al., HPO, arXiv:2405.17956. The paper's text gives no formula of the loss: this is
    advantage-weighted likelihood (Peng et al., AWR, arXiv:1910.00177) beside a preference loss, with a mean for a
    baseline, and is ours.
    """
    return upcast(preference_losses) + aux_coef * aux_losses(logprobs, weights, is_present)


def aux_losses(logprobs: Tensor, weights: Tensor, is_present: Tensor) -> Tensor:
    """-sum_k w_k log pi(y_k | x), (B,), float32: what the auxiliary rewards add to a row's loss, before lambda.

    The arguments are those of `hpo_loss`.
    """
    check_shapes(logprobs, weights, is_present)
    is_weighed = is_present & (weights > 0.0)  # 0 times the -inf of a response without rewards would be NaN
    return -torch.where(is_weighed, upcast(logprobs), 0.0).mul(torch.where(is_weighed, upcast(weights), 0.0)).sum(-1)

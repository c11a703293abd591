"""What a policy says of each token of a batch: its log-probability, and what it predicts of the return."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from rlaif.models.batches import Batch
from rlaif.models.logprobs import TokenLogprobs, token_logprobs
from rlaif.train.values import value_reader


def read_tokens(
    model: nn.Module,
    batch: Batch,
    *,
    is_chunked: bool,
    temperature: float = 1.0,
    with_values: bool = False,
    values_alone: bool = False,
) -> TokenLogprobs:
    """Log-probabilities of completion tokens under the tempered distribution, with values where they are asked for.

    Args:
        model: A policy, perhaps wrapped; with values, one that `rlaif.train.values` has given a head or a critic.
        batch: On the model's device.
        is_chunked: As `plan_logprobs` says.
        temperature: What logits are divided by.
        with_values: Whether to predict returns, too.
        values_alone: Whether the gradient of values stops at a head, and leaves the policy as it is.
    """
    read_values = value_reader(model, batch) if with_values else None
    if read_values is not None and values_alone:
        read_values = _detached(read_values)
    return token_logprobs(
        model,
        batch,
        is_chunked=is_chunked,
        temperature=temperature,
        read_values=read_values,
    )


def _detached(read_values: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda states: read_values(states.detach())

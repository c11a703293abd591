"""Values of states under a critic: one number for each place from which a completion token is predicted.

A critic has the shape of a reward model, and its layer `score` turns each hidden state into a number: a value is read
where `rewards` would read a reward if the text ended there. So a finished reward model is a critic to begin with. What
is trained, and a value head on the policy itself, stand in `train.values`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from rlaif.models.attention import Attention, attention_of
from rlaif.models.batches import Batch, attention_inputs
from rlaif.models.loading import reward_shift
from rlaif.models.logprobs import placed, upcast
from rlaif.models.reading import answering, compute_dtype, unwrapped
from rlaif.models.rewards import RewardPlan, plan_rewards

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def completion_values(critic: nn.Module, batch: Batch) -> Tensor:
    """V(x_t), before each completion token t is written; with gradient where gradients are on.

    Args:
        critic: A reward model, perhaps wrapped; for a packed batch one for which `plan_values` says `is_packed`. Its
            `reward_shift` is subtracted.
        batch: On the critic's device.

    Returns:
        (B, K, L), float32; 0 in padding.
    """
    return placed(predictor_values(critic, batch), batch)


def predictor_values(critic: nn.Module, batch: Batch) -> Tensor:
    """As `completion_values`, in the order of `batch.predictors`: (N,), float32."""
    found: list[Tensor] = []

    def read(layer: nn.Module, apply: Callable[[Tensor], Tensor], states: Tensor) -> Tensor:
        wanted = states.flatten(0, 1)[batch.predictors]
        with torch.autocast(states.device.type, enabled=False):  # a value is regressed, and bfloat16 has three digits
            found.append(upcast(apply(wanted.to(next(layer.parameters()).dtype))).squeeze(-1))
        return states.new_zeros((*states.shape[:2], 1))  # what the critic makes of it, one number a row, is not wanted

    inner = cast("PreTrainedModel", unwrapped(critic, "score"))
    with answering(_score_layer(inner), read):
        critic(**attention_inputs(batch, compute_dtype(critic), attention_of(critic)), use_cache=False)
    return found[0] - reward_shift(inner.config)


def plan_values(critic: PreTrainedModel, max_length: int, attention: Attention | None = None) -> RewardPlan:
    """Find out whether a critic gives the same numbers in packed rows, as `plan_rewards` does of a reward model.

    Its head may be all zeros, which would tell nothing: for the trial it is not.

    Args:
        max_length, attention: As for `plan_rewards`.
    """
    with _telling(_score_layer(critic)):
        return plan_rewards(critic, max_length, attention)


@contextmanager
def _telling(layer: nn.Module) -> Iterator[None]:
    """Within, a layer whose weights are all zero has others."""
    zeros = [parameter for parameter in layer.parameters() if not parameter.any()]
    with torch.no_grad():
        for parameter in zeros:
            parameter.copy_(torch.linspace(-1.0, 1.0, parameter.numel()).view_as(parameter))
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter in zeros:
                parameter.zero_()


def _score_layer(model: nn.Module) -> nn.Module:
    layer = model.score
    if not isinstance(layer, nn.Module):
        raise TypeError(f"{type(model).__name__} has no layer 'score'")
    return layer

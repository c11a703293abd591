"""What reading log-probabilities and reading rewards share: a layer that answers otherwise while the model's ordinary
forward pass runs, and whether the model takes packed rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rlaif.models.examples import Example

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_MASKED_ATTENTION = ("sdpa", "eager")
"""Attention of transformers that takes a mask of four axes as it is."""


@contextmanager
def answering(
    layer: nn.Module, read: Callable[[nn.Module, Callable[[Tensor], Tensor], Tensor], Tensor]
) -> Iterator[None]:
    """Within, the layer answers `read(layer, its own forward, its input)`."""
    apply = layer.forward
    had_own = "forward" in vars(layer)
    layer.forward = lambda states: read(layer, apply, states)
    try:
        yield
    finally:
        if had_own:
            layer.forward = apply
        else:
            del layer.forward


def unwrapped(model: nn.Module, name: str) -> nn.Module:
    """The first of a model and what it wraps that has an attribute `name`.

    Raises:
        AttributeError: None has.
    """
    while not hasattr(model, name):
        model = model.get_submodule("module")  # what wraps a model for several processes keeps it under this name
    return model


def compute_dtype(model: nn.Module) -> torch.dtype:
    """Number type of the attention scores, which the mask is added to."""
    parameter = next(parameter for parameter in model.parameters() if parameter.is_floating_point())
    kind = parameter.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else parameter.dtype


def packing_fault(model: PreTrainedModel, max_length: int) -> str:
    """Why a model cannot take packed rows, as far as its configuration tells; empty if it says nothing against them.

    These are what a short trial would not show: windows, and positions that depend on the length.

    Args:
        max_length: Most tokens of a prompt and one completion.
    """
    config: Any = model.config.get_text_config()
    implementation = model.config._attn_implementation
    if implementation not in _MASKED_ATTENTION:
        return f"its attention is {implementation}; expected {' or '.join(_MASKED_ATTENTION)}"
    kinds = set(getattr(config, "layer_types", None) or [])
    if others := kinds - {"full_attention", "sliding_attention"}:
        return f"it has layers of the kind {', '.join(sorted(others))}"
    window = getattr(config, "sliding_window", None)
    slides = "sliding_attention" in kinds if kinds else getattr(config, "use_sliding_window", True)
    if slides and window and window < max_length:
        return f"its attention slides over {window} tokens, fewer than the {max_length} of a sequence"
    rope = getattr(config, "rope_parameters", None) or {}
    each = [rope, *(one for one in rope.values() if isinstance(one, dict))]  # one for each kind of layer
    if scaled := {"dynamic", "longrope"} & {one.get("rope_type") for one in each}:
        return f"its {', '.join(sorted(scaled))} positions depend on the length of a row"
    return ""


def trial_examples(model: PreTrainedModel) -> list[Example]:
    """Examples of unequal lengths for a trial, of ids that the model has."""
    size = model.config.get_text_config().vocab_size
    numbers = tuple((7919 * index + 13) % size for index in range(40))
    return [
        Example("long", numbers[:12], (numbers[12:20], numbers[20:25], numbers[25:31])),
        Example("short", numbers[31:35], (numbers[35:38], numbers[38:])),
    ]

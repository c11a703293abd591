"""Weights that FSDP or DeepSpeed split over processes: whole before training, and gathered after it.

The reference and the trial of packed rows are computed before the trainer has the model, so each process loads all of
it once, in its own memory.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

from accelerate.utils import DistributedType
from torch import Tensor, nn

if TYPE_CHECKING:
    from accelerate import Accelerator


@contextlib.contextmanager
def loading_whole() -> Iterator[None]:
    """Within, transformers loads a model with all of its weights also where DeepSpeed is going to split them."""
    from transformers.integrations import deepspeed

    config = deepspeed._hf_deepspeed_config_weak_ref
    deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        deepspeed._hf_deepspeed_config_weak_ref = config


def gathered_weights(accelerator: Accelerator, model: nn.Module) -> dict[str, Tensor] | None:
    """All weights of a model that is split, in the first process; what the others get is of no use.

    Every process has to ask.

    Args:
        model: As `accelerator` has wrapped it.

    Returns:
        None where the model is not split: each process has all weights.
    """
    if accelerator.distributed_type == DistributedType.FSDP:
        return cast("dict[str, Tensor]", accelerator.get_state_dict(model))
    if accelerator.distributed_type == DistributedType.DEEPSPEED and accelerator.state.deepspeed_plugin.zero_stage == 3:
        # As `get_state_dict`, which refuses where an option, off by default, does not allow it.
        return cast("dict[str, Tensor]", model._zero3_consolidated_16bit_state_dict())  # type: ignore[operator]
    return None

"""How much memory a run's weights take, beside what they would as separate models."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterable

import torch
from torch import nn


def weight_bytes(models: Iterable[nn.Module]) -> int:
    """Bytes of all weights of these models; those that are shared count once."""
    sizes: dict[int, int] = {}
    for model in models:
        for tensor in (*model.parameters(), *model.buffers()):
            storage = tensor.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
    return sum(sizes.values())


def peak_bytes(device: torch.device) -> int:
    """The most memory that this process has had: of the GPU where it trains there, else of the machine."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # in bytes on a Mac, in KiB elsewhere


def memory_note(held: int, base: int, roles: int) -> str:
    """What is said of the weights at the start.

    Args:
        held: Bytes of the weights that are there.
        base: Of the policy's own.
        roles: How many of policy, reference, judge and value are played by a model of this size.

    >>> memory_note(2_500_000, 2_000_000, 4)
    'weights: 2.5 MB for 4 roles (policy, reference, ...), which as models of their own would take 8.0 MB'
    """
    return (
        f"weights: {held / 1e6:,.1f} MB for {roles} role{'s' if roles > 1 else ''} (policy, reference, ...), which as "
        f"models of their own would take {roles * base / 1e6:,.1f} MB"
    )

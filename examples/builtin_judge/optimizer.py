"""Muon for the matrices (Jordan et al., kellerjordan.github.io/posts/muon), AdamW for the rest, as one optimizer."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration, from the Muon post."""


def orthogonalize(gradients: Tensor, steps: int = 5) -> Tensor:
    """The nearest semi-orthogonal matrices, roughly: singular values end up about 1. gradients (N, R, C)."""
    a, b, c = _NEWTON_SCHULZ
    is_tall = gradients.shape[-2] > gradients.shape[-1]
    x = gradients.mT if is_tall else gradients
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if is_tall else x


def _shared_orthogonalize(gradients: Tensor) -> Tensor:
    """`orthogonalize`, each process doing its share of the matrices."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return orthogonalize(gradients)
    own = range(dist.get_rank(), len(gradients), dist.get_world_size())
    update = torch.zeros_like(gradients)
    if own:
        update[own.start :: own.step] = orthogonalize(gradients[own.start :: own.step])
    dist.all_reduce(update)
    return update


class Muon:
    """Momentum whose step is orthogonalized; matrices of one shape are handled as one batch."""

    def __init__(self, parameters: list[nn.Parameter], momentum: float = 0.95) -> None:
        shapes: dict[tuple[int, ...], list[nn.Parameter]] = {}
        for parameter in parameters:
            shapes.setdefault(tuple(parameter.shape), []).append(parameter)
        self.groups = list(shapes.values())
        self.momenta = [torch.zeros(len(group), *group[0].shape) for group in self.groups]
        self.momentum = momentum

    @torch.no_grad()
    def step(self, rate: float, decay: float = 0.01) -> None:
        """One update with learning rate `rate`."""
        for group, momentum in zip(self.groups, self.momenta, strict=True):
            gradients = torch.stack([p.grad for p in group if p.grad is not None])
            momentum.lerp_(gradients, 1 - self.momentum)
            update = _shared_orthogonalize(gradients.lerp(momentum, self.momentum))
            rows, columns = group[0].shape
            scale = rate * math.sqrt(max(1.0, rows / columns))
            for parameter, own in zip(group, update, strict=True):
                parameter.mul_(1 - rate * decay).add_(own, alpha=-scale)


class Optimizer:
    """Both optimizers; `progress` in [0, 1] sets the learning rates (short warm-up, cosine to a fiftieth)."""

    def __init__(self, matrices: list[nn.Parameter], others: list[nn.Parameter]) -> None:
        self.muon = Muon(matrices)
        self.adamw = torch.optim.AdamW(others, lr=4e-3, betas=(0.9, 0.98), weight_decay=0.0)
        self.parameters = [*matrices, *others]

    def step(self, progress: float, updates: int) -> None:
        """One update from the gradients in place."""
        warm = min(1.0, (updates + 1) / 60)
        cosine = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        torch.nn.utils.clip_grad_norm_(self.adamw.param_groups[0]["params"], 1.0)
        self.muon.step(6e-3 * warm * cosine)
        self.adamw.param_groups[0]["lr"] = 4e-3 * warm * cosine
        self.adamw.step()
        for parameter in self.parameters:
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs."""
        return {"momenta": self.muon.momenta, "adamw": self.adamw.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The reverse of `state_dict`."""
        self.muon.momenta = state["momenta"]
        self.adamw.load_state_dict(state["adamw"])

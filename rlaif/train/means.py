"""Figures of a step as sums and weights, so that they are the same however the step is split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor


class Mean(NamedTuple):
    """A mean before the division: both scalars."""

    total: Tensor
    weight: Tensor


class MeanTracker:
    """Adds up figures between two lines of the log, on the device, so that nothing waits for it."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}

    def add(self, means: Mapping[str, Mean]) -> None:
        """Take in the figures of a micro-batch."""
        for name, (total, weight) in means.items():
            pair = torch.stack([total.float(), weight.float()])
            self._sums[name] = self._sums[name] + pair if name in self._sums else pair

    def drain(self) -> dict[str, Tensor]:
        """(total, weight) by name, (2,), and start again."""
        sums, self._sums = self._sums, {}
        return sums

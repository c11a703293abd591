"""Settings of `rlaif reweight`. `reweighting.py` reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_LEAST, _MOST = 1e-9, 1e9
"""Weights further apart than this mean the same as 0 and 1, and lose digits."""


@dataclass(frozen=True)
class ReweightConfig:
    """`rlaif reweight`: labels by other weights of the principles, without a call."""

    input: str
    """A finished run folder of rlaif label, judged by several principles of a constitution."""

    out: str
    """Run folder to write."""

    weights: Mapping[str, float]
    """Weights of principles, by id; 0 leaves one out. Those not named keep the weight that they have in the run."""

    def __post_init__(self) -> None:
        for name, weight in self.weights.items():
            if weight != 0 and not _LEAST <= weight <= _MOST:
                raise ValueError(f"weights: {name} is {weight:g}, expected 0 or a number from {_LEAST:g} to {_MOST:g}")

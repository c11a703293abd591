"""How far the policy is from its reference, and what that costs: estimates from samples, and who sets the price.

Everywhere lr = log pi - log pi_ref of a token that the policy sampled, in nats, both under the distribution it was
sampled from (logits over the rollout's temperature).

    in the reward    k1, whose mean is the divergence: sequence_kl, or kl_estimate token by token
    in the loss      k2 or k3, by kl_estimate with gradient
    the coefficient  FixedKl, AdaptiveKl: immutable, one number on from step to step
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, Self, assert_never

import torch
from torch import Tensor

from rlaif.models.logprobs import upcast
from rlaif.train.losses import check_shapes

KlKind = Literal["k1", "k2", "k3"]

MOST_ERROR = 0.2
"""How far off the target a KL counts at most, as a share of it: one wild step moves beta no further."""


def kl_estimate(logprobs: Tensor, reference_logprobs: Tensor, kind: KlKind) -> Tensor:
    """An estimate of KL(policy || reference) from each sampled token; no gradient reaches the reference.

    k1 = lr: right on average, often negative. Its gradient is 0 on average: it belongs into the reward.
    k2 = lr^2 / 2: at least 0, biased; its gradient is that of KL(policy || reference) on average.
    k3 = exp(-lr) - 1 + lr: at least 0, right on average; its gradient is that of KL(reference || policy), which is
    the same to first order at the reference. What GRPO adds to its loss.

    All three are so for tokens that the policy itself sampled, not an older one, and token by token: the gradient of k2
    or k3 does not see how a token leads to others that are farther off. k1 in the reward does.

    Args:
        logprobs, reference_logprobs: Of the same tokens, any one shape.
        kind: Which.

    Returns:
        The shape of `logprobs`, float32, nats. 0 where both are equal, as in padding of 0.

    Source: Schulman (2020), "Approximating KL divergence", joschu.net/blog/kl-approx.html; the gradients are ours.
    """
    check_shapes(logprobs, reference_logprobs)
    ratios = upcast(logprobs) - upcast(reference_logprobs.detach())
    match kind:
        case "k1":
            return ratios
        case "k2":
            return 0.5 * ratios.square()
        case "k3":
            # expm1: at a ratio of 1e-4 the sum of three numbers would be rounding alone.
            return torch.expm1(-ratios) + ratios
    assert_never(kind)


@torch.no_grad()
def sequence_kl(logprobs: Tensor, reference_logprobs: Tensor, is_completion: Tensor) -> Tensor:
    """k1 summed over a completion's tokens: log pi(y | x) - log pi_ref(y | x), without gradient.

    Args:
        logprobs, reference_logprobs: Of each token, (B, K, L).
        is_completion: False in padding, which may hold anything, (B, K, L), bool.

    Returns:
        (B, K), float32, nats; negative for a completion that the reference likes better.

    Source: as `kl_estimate`; inside the reward: Ouyang et al., InstructGPT, arXiv:2203.02155, equation 2.
    """
    check_shapes(logprobs, is_completion)
    return kl_estimate(logprobs, reference_logprobs, "k1").where(is_completion, 0.0).sum(-1)


@dataclass(frozen=True, slots=True)
class KlController(ABC):
    """Who sets the coefficient of the KL: a value, replaced by another after each step.

    Attributes:
        beta: The coefficient now.
    """

    beta: float

    @abstractmethod
    def updated(self, measured_kl: float, count: int) -> Self:
        """The controller after a step whose `count` completions were `measured_kl` nats from the reference on average
        (`sequence_kl`)."""

    def as_json(self) -> dict[str, float]:
        """What a checkpoint keeps; `from_json` of the same class reads it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, float]) -> Self:
        """The controller that `as_json` was asked of.

        Raises:
            ValueError: It was another kind of controller, or a value is out of range.
        """
        expected = [field.name for field in dataclasses.fields(cls)]
        if sorted(content) != sorted(expected):
            raise ValueError(
                f"is no state of {cls.__name__}: it holds {', '.join(content)}, expected {', '.join(expected)}"
            )
        return cls(**content)


@dataclass(frozen=True, slots=True)
class FixedKl(KlController):
    """A coefficient that stays what it is.

    Attributes:
        beta: At least 0.

    Raises:
        ValueError: beta is negative or not finite.
    """

    def __post_init__(self) -> None:
        if not 0.0 <= self.beta < math.inf:
            raise ValueError(f"beta must be at least 0 and finite, not {self.beta}")

    def updated(self, measured_kl: float, count: int) -> Self:
        """Itself, whatever was measured."""
        return self


@dataclass(frozen=True, slots=True)
class AdaptiveKl(KlController):
    """A coefficient that follows the KL to a target: up where it is above, down where it is below.

    Attributes:
        beta: Now, above 0.
        target: The wanted KL of a completion to the reference (`sequence_kl`), nats, above 0.
        horizon: Over how many completions beta moves by as much as the error, above 0.

    Raises:
        ValueError: One of them is not above 0 and finite.
    """

    target: float
    horizon: float

    def __post_init__(self) -> None:
        for name, value in self.as_json().items():
            if not 0.0 < value < math.inf:
                raise ValueError(f"{name} must be above 0 and finite, not {value}")

    def updated(self, measured_kl: float, count: int) -> Self:
        """The controller after a step: beta (1 + e count / horizon), with e = KL / target - 1 cut to +-0.2.

        Args:
            measured_kl: Mean `sequence_kl` of the step's completions, nats.
            count: How many completions that were, at least 0.

        Raises:
            ValueError: The KL is not finite, which beta would never recover from, or the count is so large that beta
                could come out at 0.

        Source: Ziegler et al., arXiv:1909.08593, section 2.2; the form with a horizon is their code's.
        """
        if not math.isfinite(measured_kl):
            raise ValueError(f"the measured KL is {measured_kl}: the log-probabilities of this step are broken")
        if not 0 <= count < self.horizon / MOST_ERROR:
            raise ValueError(
                f"{count:,} completions in one step are too many for a horizon of {self.horizon:g}: beta could fall "
                f"to 0; set a horizon above {count * MOST_ERROR:g}"
            )
        error = min(max(measured_kl / self.target - 1.0, -MOST_ERROR), MOST_ERROR)
        return replace(self, beta=self.beta * (1.0 + error * count / self.horizon))

"""From what a batch of rollouts was worth to what its tokens are trained towards, method by method. No model.

An experience is all of a batch, so that means and spreads are those of the batch. Rewards come as the sources gave
them, with what a method takes from them or scales them by still to be done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from rlaif.train.advantages import (
    Scale,
    batch_advantages,
    drlaif_returns,
    gae,
    group_advantages,
    leave_one_out_advantages,
    overlong_penalty,
    terminal_rewards,
    whiten,
)
from rlaif.train.items import TokenTargets
from rlaif.train.kl import kl_estimate, sequence_kl
from rlaif.train.online_config import (
    Aggregation,
    GrpoLossConfig,
    PpoLossConfig,
    ReinforceLossConfig,
)


class Experience(NamedTuple):
    """B prompts with up to K completions of up to L tokens.

    Attributes:
        rewards: (B, K), float32; anything where there is no completion.
        is_completion: False in padding, (B, K, L), bool.
        old_logprobs: Of the policy that wrote, (B, K, L), 0 in padding.
        reference_logprobs: (B, K, L); None where the method needs none.
        values: What was predicted before each token, (B, K, L); None where the method needs none.
    """

    rewards: Tensor
    is_completion: Tensor
    old_logprobs: Tensor
    reference_logprobs: Tensor | None = None
    values: Tensor | None = None

    @property
    def is_present(self) -> Tensor:
        """Which completions there are, (B, K), bool."""
        return self.is_completion.any(-1)

    @property
    def kl(self) -> Tensor:
        """k1 from the reference over each completion, (B, K), nats.

        Raises:
            ValueError: There is no reference.
        """
        return sequence_kl(self.old_logprobs, self._reference, self.is_completion)

    @property
    def token_kl(self) -> Tensor:
        """k1 of each token, (B, K, L). Raises as `kl`."""
        return kl_estimate(self.old_logprobs, self._reference, "k1").where(self.is_completion, 0.0)

    @property
    def _reference(self) -> Tensor:
        if self.reference_logprobs is None:
            raise ValueError("the reference was not asked")
        return self.reference_logprobs


class Advantages(NamedTuple):
    """What an experience is trained towards, token by token: both (B, K, L); returns where values are learnt."""

    advantages: Tensor
    returns: Tensor | None = None


def drlaif_advantages(experience: Experience, beta: float) -> Advantages:
    """Direct RLAIF: Z - V at each token, with Z = (1 - beta) r - beta KL for every token of the completion.

    Source: Lee et al., RLAIF, arXiv:2309.00267, appendices A.3 and F.
    """
    values = _values(experience)
    kl = experience.kl if beta else torch.zeros_like(experience.rewards)
    returns = _to_tokens(drlaif_returns(experience.rewards, kl, beta), experience)
    return Advantages((returns - values).where(experience.is_completion, 0.0), returns)


def reinforce_advantages(experience: Experience, config: ReinforceLossConfig, beta: float) -> Advantages:
    """REINFORCE: the reward less its baseline, less the price of the KL that is still to come from each token on.

    Source: Williams (1992); Hu, REINFORCE++, arXiv:2501.03262 (KL by tokens, normalisation over the batch).
    """
    rewards, is_present = experience.rewards, experience.is_present
    if config.baseline == "batch":
        centred = batch_advantages(rewards, is_present, scale=False)
    elif config.baseline == "group":
        centred = group_advantages(rewards, is_present, scale="none")
    else:
        centred = rewards.where(is_present, 0.0)
    advantages = _to_tokens(centred, experience)
    if beta:
        advantages = advantages - beta * experience.token_kl.flip(-1).cumsum(-1).flip(-1)
    if config.normalize:
        advantages = whiten(advantages, experience.is_completion)
    return Advantages(advantages.where(experience.is_completion, 0.0))


def rloo_advantages(experience: Experience, beta: float) -> Advantages:
    """RLOO: the reward with the KL of the completion in it, less the mean of the prompt's other completions.

    Source: Ahmadian et al., arXiv:2402.14740.
    """
    rewards = experience.rewards - beta * experience.kl if beta else experience.rewards
    return Advantages(_to_tokens(leave_one_out_advantages(rewards, experience.is_present), experience))


def grpo_advantages(experience: Experience, config: GrpoSwitches, most_tokens: int) -> Advantages:
    """GRPO and its variants: rewards less their group's mean, over a spread, with a price on overlong completions.

    Source: Shao et al., arXiv:2402.03300; Liu et al., arXiv:2503.20783; Yu et al., DAPO, arXiv:2503.14476.
    """
    rewards = experience.rewards
    if config.overlong_buffer:
        tokens = experience.is_completion.sum(-1)
        rewards = rewards + overlong_penalty(tokens, most=most_tokens, buffer=config.overlong_buffer)
    return Advantages(_to_tokens(group_advantages(rewards, experience.is_present, scale=config.scale), experience))


def ppo_advantages(experience: Experience, config: PpoLossConfig, beta: float) -> Advantages:
    """PPO: generalised advantages of the reward at the last token less the price of each token's KL.

    Source: Schulman et al., arXiv:1506.02438 (GAE); Ouyang et al., InstructGPT, arXiv:2203.02155 (the reward).
    """
    values, mask = _values(experience).flatten(0, 1), experience.is_completion.flatten(0, 1)
    scores = experience.rewards.where(experience.is_present, 0.0).flatten()
    if config.reward_clip is not None:
        scores = scores.clamp(-config.reward_clip, config.reward_clip)
    rewards = terminal_rewards(scores, mask)
    if beta:
        rewards = rewards - beta * experience.token_kl.flatten(0, 1)
    if config.whiten_rewards:
        rewards = whiten(rewards, mask, shifts_mean=False)
    found = gae(rewards, values, mask, gamma=config.gamma, lam=config.lam)
    advantages = whiten(found.advantages, mask) if config.whiten_advantages else found.advantages
    shape = experience.is_completion.shape
    return Advantages(advantages.where(mask, 0.0).view(shape), found.returns.view(shape))


class GrpoSwitches(NamedTuple):
    """What a variant of GRPO comes to; the fields are those of `GrpoLossConfig`."""

    scale: Scale
    aggregation: Aggregation
    clip_low: float
    clip_high: float
    overlong_buffer: int
    replaces_silent: bool


def grpo_switches(config: GrpoLossConfig, most_tokens: int) -> GrpoSwitches:
    """The switches of a variant, as far as they are not set one by one.

    >>> grpo_switches(GrpoLossConfig(variant="dapo", clip_low=0.1), 128)[1:5]
    ('token', 0.1, 0.28, 16)
    """
    is_dapo, is_plain = config.variant == "dapo", config.variant == "dr-grpo"
    aggregation: Aggregation = "token" if is_dapo else "constant" if is_plain else "sequence"
    high = (0.28 if is_dapo else config.clip_low) if config.clip_high is None else config.clip_high
    buffer = (most_tokens // 8 if is_dapo else 0) if config.overlong_buffer is None else config.overlong_buffer
    return GrpoSwitches(
        config.scale or ("none" if is_plain else "group"),
        config.aggregation or aggregation,
        config.clip_low,
        high,
        buffer,
        is_dapo if config.replace_silent is None else config.replace_silent,
    )


def token_targets(experience: Experience, found: Advantages) -> list[TokenTargets]:
    """One value a prompt, of the completions that it has."""
    counts = experience.is_completion.sum(-1).tolist()
    columns = (
        found.advantages,
        experience.old_logprobs,
        experience.reference_logprobs,
        found.returns,
        experience.values if found.returns is not None else None,
    )
    as_lists = [None if column is None else column.tolist() for column in columns]
    return [
        TokenTargets(*(None if column is None else _cut(column[row], counts[row]) for column in as_lists))  # type: ignore[arg-type]
        for row in range(len(counts))
    ]


def padded(rows: Sequence[Sequence[Sequence[float]]], shape: tuple[int, int, int]) -> Tensor:
    """Numbers of each token of each completion of each prompt as (B, K, L), 0 in padding."""
    tensor = torch.zeros(shape)
    for row, completions in enumerate(rows):
        for place, numbers in enumerate(completions):
            tensor[row, place, : len(numbers)] = torch.tensor(numbers)
    return tensor


def _cut(row: Sequence[Sequence[float]], counts: Sequence[int]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(numbers[:count]) for numbers, count in zip(row, counts, strict=True) if count)


def _to_tokens(of_completions: Tensor, experience: Experience) -> Tensor:
    """The number of a completion at each of its tokens, 0 in padding."""
    return of_completions.unsqueeze(-1).where(experience.is_completion, 0.0)


def _values(experience: Experience) -> Tensor:
    if experience.values is None:
        raise ValueError("values were not predicted")
    return experience.values


AdvantageMaker = Callable[[Experience, float], Advantages]
"""(experience, beta) -> what its tokens are trained towards."""


@dataclass(frozen=True, slots=True)
class RunningSpread:
    """Mean and spread of all rewards so far (Welford).

    Attributes:
        count: How many there were.
        mean: Of them.
        squares: Their squared distances from the mean, added up.
    """

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    @property
    def value(self) -> float:
        """The standard deviation, never below 1e-4; 1 as long as there are fewer than two rewards."""
        return max((self.squares / (self.count - 1)) ** 0.5, 1e-4) if self.count > 1 else 1.0

    def updated(self, values: Sequence[float]) -> RunningSpread:
        """With these rewards in it.

        >>> RunningSpread().updated([1.0, 3.0]).value == 2.0 ** 0.5
        True
        """
        count, mean, squares = self.count, self.mean, self.squares
        for value in values:
            count += 1
            distance = value - mean
            mean += distance / count
            squares += distance * (value - mean)
        return RunningSpread(count, mean, squares)

"""What models say of finished rollouts, without gradient: the reference and the policy, token by token."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple

import torch
from torch import nn

from rlaif.errors import NonFiniteLossError
from rlaif.models.examples import Example
from rlaif.models.logprobs import TokenLogprobs
from rlaif.rollout_records import Rollout
from rlaif.train.items import TrainingItem
from rlaif.train.models import adapter_off
from rlaif.train.objectives import Objective
from rlaif.train.step_inputs import ComputePlan, evaluation_batches
from rlaif.train.token_reading import read_tokens

ByToken = tuple[tuple[float, ...], ...]
"""For each completion of a rollout, one number a token."""


class Assessed(NamedTuple):
    """Of one rollout, for each of its completions' tokens; None where it was not asked.

    Attributes:
        logprobs: Under the policy, tempered; nats.
        values: What the policy predicted before each token.
    """

    logprobs: ByToken
    values: ByToken | None = None


def assess(
    model: nn.Module,
    rollouts: Sequence[Rollout],
    objective: Objective,
    plan: ComputePlan,
    *,
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[None]],
    with_values: bool = False,
) -> list[Assessed]:
    """Read a model on what was written; its mode is as before afterwards.

    Args:
        model: The policy, or the reference.
        rollouts: In any order, with ids of their own.
        objective: Whose temperature counts.
        plan: How the model computes.
        device: The model's.
        autocast: What the trainer computes under.
        with_values: Whether the model predicts returns.

    Returns:
        In the order of the rollouts.

    Raises:
        NonFiniteLossError: A number is NaN or infinite.
    """
    items = [TrainingItem(example_of(rollout)) for rollout in rollouts]
    counts = {item.example.id: [len(one) for one in item.example.completions] for item in items}
    found: dict[str, Assessed] = {}
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), autocast():
            for on_cpu in evaluation_batches(items, objective, plan):
                batch = on_cpu.batch.to(device)
                read = read_tokens(
                    model, batch, is_chunked=plan.is_chunked, temperature=objective.temperature, with_values=with_values
                )
                _require_finite(read, batch.ids)
                columns = [read.values.tolist(), None if read.token_values is None else read.token_values.tolist()]
                for row, each in enumerate(batch.ids):
                    found[each] = Assessed(*(None if one is None else _cut(one[row], counts[each]) for one in columns))  # type: ignore[arg-type]
    finally:
        model.train(was_training)
    return [found[item.example.id] for item in items]


def example_of(rollout: Rollout) -> Example:
    """A rollout's tokens as they are trained on."""
    return Example(rollout.id, rollout.prompt_ids, tuple(one.ids for one in rollout.completions))


class Reference:
    """What the policy is held to.

    Args:
        policy: With an adapter, its base is the reference.
        model: A model of its own instead.
        plan: How that one computes.
    """

    def __init__(self, policy: nn.Module, model: nn.Module | None, plan: ComputePlan) -> None:
        self._policy = policy
        self.model, self.plan = model, plan

    @contextmanager
    def computing(self) -> Iterator[nn.Module]:
        """Within, the model that computes as the reference does."""
        if self.model is not None:
            yield self.model
            return
        with adapter_off(self._policy):
            yield self._policy


def _require_finite(read: TokenLogprobs, ids: Sequence[str]) -> None:
    finite = read.values.isfinite().flatten(1).all(-1)
    if read.token_values is not None:
        finite &= read.token_values.isfinite().flatten(1).all(-1)
    if not bool(finite.all()):
        first = ids[int(finite.int().argmin())]
        raise NonFiniteLossError(
            f"a model gives a completion of {first!r} a log-probability or a value that is no number; its weights have "
            "diverged or its numbers overflow: go on from an earlier checkpoint with a lower --learning-rate, or use "
            "another --precision"
        )


def _cut(row: Sequence[Sequence[float]], counts: Sequence[int]) -> ByToken:
    return tuple(tuple(numbers[:count]) for numbers, count in zip(row, counts, strict=False))

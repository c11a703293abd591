"""Optimizer steps as the trainer takes them: rows split by the token budget into micro-batches of each process.

Which rows a step takes is `steps`' business, or that of online training, which makes its rows as it goes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from torch.utils.data import Dataset

from rlaif.train.items import TrainingItem
from rlaif.train.objectives import MicroBatch, Objective, collate_items
from rlaif.train.steps import StepOrder, dealt, micro_batches

_OVERHEAD = 64
"""What one more micro-batch costs, in tokens."""

_EVALUATED_TOGETHER = 256
"""Rows that are split into micro-batches at a time where there is no step; the search is quadratic in them."""


@dataclass(frozen=True, slots=True)
class ComputePlan:
    """How rows are computed.

    Attributes:
        is_packed: Whether responses of one prompt share a row, as `plan_logprobs` or `plan_rewards` found.
        is_chunked: As `plan_logprobs` found; nothing to a reward model.
        max_tokens: Most tokens of a micro-batch, padding included.
        pad: The id that stands in padding.
    """

    is_packed: bool = True
    is_chunked: bool = True
    max_tokens: int = 16384
    pad: int = 0


@dataclass(frozen=True, slots=True)
class StepPart:
    """Rows of a step that share an objective.

    Attributes:
        objective: Of these rows.
        micro: What this process computes.
        weight: What the losses of all processes are divided by; 0 where there is nothing to learn.
        factor: Weight of this part's mean in the loss of the step.
    """

    objective: Objective
    micro: tuple[MicroBatch, ...]
    weight: int
    factor: float = 1.0


@dataclass(frozen=True, slots=True)
class StepInput:
    """One optimizer step, of one process.

    Attributes:
        parts: What is learnt; the first is what the run is about.
        mismatched: The prompts with responses of others, for z0; this process's share of them.
        ids: Of the rows, of all processes.
        figures: What is to be logged of how the rows came about.
    """

    parts: tuple[StepPart, ...]
    mismatched: tuple[MicroBatch, ...]
    ids: tuple[str, ...]
    figures: Mapping[str, float] = field(default_factory=dict)


class StepSource(Protocol):
    """Where steps come from: a `Dataset` of torch, by index or by iteration, one `StepInput` an optimizer step."""

    epochs_per_step: float
    """Passes over the data that a step comes to."""

    is_endless: bool
    """Whether a resumed run takes up the state that `save` has written, instead of skipping the steps that are done."""

    def save(self, folder: Path) -> None:
        """Write what a resumed run needs to go on with the next step into a checkpoint."""

    def load(self, folder: Path) -> None:
        """Take up what `save` has written."""


class Steps(Dataset[StepInput]):
    """The steps of one process over rows that are all there, made when they are asked for.

    Args:
        items: All rows.
        batch_size: Rows of a step, over all processes.
        count: How many steps there are.
        objective, plan: What they are computed for, and how.
        seed: Of the order.
        rank, world: Which process this is, of how many.

    Raises:
        ValueError: There are fewer rows than a step takes.
    """

    is_endless = False

    def __init__(
        self,
        items: Sequence[TrainingItem],
        batch_size: int,
        count: int,
        objective: Objective,
        plan: ComputePlan,
        *,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.items, self._order, self._count = items, StepOrder(len(items), batch_size, seed), count
        self._objective, self._plan = objective, plan
        self._rank, self._world = rank, world
        self.epochs_per_step = batch_size / len(items)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, step: int) -> StepInput:
        items = [self.items[row] for row in self._order.rows(step)]
        return step_input(items, self._objective, self._plan, rank=self._rank, world=self._world)

    def save(self, folder: Path) -> None:
        """A step is known by its number."""

    def load(self, folder: Path) -> None:
        """A step is known by its number."""


def step_input(
    items: Sequence[TrainingItem],
    objective: Objective,
    plan: ComputePlan,
    *,
    rank: int = 0,
    world: int = 1,
) -> StepInput:
    """One step over all of these rows, this process's share of it."""
    mismatched = mismatches_of(items)
    return StepInput(
        parts=(step_part(items, objective, plan, rank=rank, world=world),),
        mismatched=tuple(micro_batches_of(mismatched, objective, plan, rank=rank, world=world)),
        ids=tuple(item.example.id for item in items),
    )


def step_part(
    items: Sequence[TrainingItem],
    objective: Objective,
    plan: ComputePlan,
    *,
    factor: float = 1.0,
    rank: int = 0,
    world: int = 1,
) -> StepPart:
    """The part of a step that is over all of these rows, this process's share of it."""
    micro = tuple(micro_batches_of(items, objective, plan, rank=rank, world=world))
    return StepPart(objective, micro, sum(map(objective.weight, items)), factor)


def micro_batches_of(
    items: Sequence[TrainingItem], objective: Objective, plan: ComputePlan, *, rank: int = 0, world: int = 1
) -> Iterator[MicroBatch]:
    """Rows split by the token budget, this process's share of them."""
    extents = [item.example.extent(is_packed=plan.is_packed) for item in items]
    batches = micro_batches(
        [extent.width for extent in extents],
        max_tokens=plan.max_tokens,
        overhead=_OVERHEAD,
        rows=[extent.rows for extent in extents],
    )
    for places, is_counted in dealt(batches, world)[rank]:
        chosen = [items[place] for place in places]
        weight = sum(map(objective.weight, chosen)) if is_counted else 0
        yield collate_items(chosen, is_packed=plan.is_packed, pad=plan.pad, weight=weight)


def evaluation_batches(
    items: Sequence[TrainingItem], objective: Objective, plan: ComputePlan, *, rank: int = 0, world: int = 1
) -> Iterator[MicroBatch]:
    """Any number of rows as micro-batches of this process, rows of like length together."""
    by_length = sorted(items, key=lambda item: -item.example.extent(is_packed=plan.is_packed).width)
    for start in range(0, len(by_length), _EVALUATED_TOGETHER):
        together = by_length[start : start + _EVALUATED_TOGETHER]
        yield from micro_batches_of(together, objective, plan, rank=rank, world=world)


def mismatches_of(items: Sequence[TrainingItem]) -> list[TrainingItem]:
    """The prompts with the responses of others, where rows have them."""
    return [item.mismatched for item in items if item.mismatched is not None]

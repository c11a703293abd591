"""The optimizer steps of online training, one batch of rollouts after the other, as the trainer takes them.

A batch is written when its first step is asked for; with overlap one batch earlier, so that it is judged while the one
before it is learnt from. The state between any two steps can be saved, and a run that takes it up goes on as if it had
not stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch.utils.data import IterableDataset

from rlaif.errors import ConfigError
from rlaif.online.source import Batch, Begun, RolloutSource
from rlaif.online.state import FeedState, read_state, write_state
from rlaif.randomness import seeded_random
from rlaif.train.experience import RunningSpread
from rlaif.train.items import TrainingItem
from rlaif.train.kl import KlController
from rlaif.train.objectives import Objective
from rlaif.train.step_inputs import ComputePlan, StepInput, step_input, step_part
from rlaif.train.steps import StepOrder


@dataclass(frozen=True)
class FeedPlan:
    """How batches become steps.

    Attributes:
        prompts: That a batch answers.
        steps: Optimizer steps in one pass over a batch.
        passes: Over a batch.
        batch_size: Rows of imitated text in a step.
        is_round: Whether rows are pairs or demonstrations that were selected, as many as there are.
        overlaps: Whether the next batch is written before this one is learnt from.
        seed: Of the order of rows.
    """

    prompts: int
    steps: int
    passes: int
    batch_size: int
    is_round: bool
    overlaps: bool
    seed: int

    @property
    def steps_of_batch(self) -> int:
        """Optimizer steps that every batch comes to."""
        return self.steps * self.passes


@dataclass(frozen=True)
class Imitation:
    """Text that is imitated beside what is learnt (PPO-ptx).

    Attributes:
        items: The rows.
        objective: Of imitation.
        weight: Of its loss.
    """

    items: Sequence[TrainingItem]
    objective: Objective
    weight: float


class BatchListener:
    """Told of each batch once it is judged. This one hears nothing."""

    def on_batch(self, number: int, step: int, batch: Batch) -> Mapping[str, float]:
        """More figures of the batch, to be logged."""
        return {}

    def as_json(self) -> Mapping[str, Any] | None:
        """What it needs to go on after a resume."""
        return None

    def take_up(self, content: Mapping[str, Any] | None) -> None:
        """Go on from what `as_json` has said."""


class RolloutFeed(IterableDataset[StepInput]):
    """Steps, as many as are asked for.

    Args:
        source: Where batches come from.
        plan, compute: How they become steps, and micro-batches.
        total: Optimizer steps of the run.
        listener: Told of batches.
        imitation: What is imitated besides; None for nothing.

    Attributes:
        next_visit: The first visit that no batch has taken.
        step_of: Optimizer steps that are done now; whoever trains says so.
        is_waiting: Whether a batch is being made, between two steps: what is saved then goes on with it.
    """

    is_endless = True

    def __init__(
        self,
        source: RolloutSource,
        plan: FeedPlan,
        compute: ComputePlan,
        *,
        total: int,
        listener: BatchListener | None = None,
        imitation: Imitation | None = None,
    ) -> None:
        self._source, self._plan, self._compute = source, plan, compute
        self._total = total
        self.step_of: Callable[[], int] = lambda: 0
        self.is_waiting = False
        self._listener = listener or BatchListener()
        self._imitation = imitation
        self.epochs_per_step = plan.prompts / plan.steps_of_batch / len(source.visits.rows)
        self._kl: KlController | None = source.recipe.kl
        self._spread = RunningSpread()
        self._number, self._taken = 0, 0
        self._items: Sequence[TrainingItem] | None = None
        self._figures: Mapping[str, float] = {}
        self.next_visit = 0
        self._begun: Begun | None = None
        self._begun_visits: list[int] = []

    @property
    def beta(self) -> float:
        """The price of leaving the reference now."""
        return 0.0 if self._kl is None else self._kl.beta

    def __iter__(self) -> Iterator[StepInput]:
        while self.step_of() < self._total:
            if self._items is None:
                self._take_batch()
            elif self._begun is None and self._begins_ahead():
                self._begin()  # the next batch could not be written when this one's state was saved
            assert self._items is not None
            while self._taken < self._plan.steps_of_batch:
                place = self._taken
                self._taken += 1  # before the step: what is saved after it goes on with the next one
                yield self._step(place)
            self._items = None
            self._number, self._taken = self._number + 1, 0

    def _take_batch(self) -> None:
        """Finish the batch that was begun, or begin one and wait for it; then, with overlap, begin the next."""
        self.is_waiting = True
        if self._begun is None:
            self._begin()
        begun = self._begun
        assert begun is not None
        first_free = self.next_visit
        try:
            batch = self._source.finish(
                begun, number=self._number, step=self.step_of(), beta=self.beta, spread=self._spread, more=self._more
            )
            self._require_rows(batch)
        except BaseException:
            self.next_visit = first_free  # what is saved now makes the same batch, with the same prompts
            raise
        self._begun = None
        heard = self._listener.on_batch(self._number, self.step_of(), batch)
        more = {"beta": self.beta} if self._kl is not None else {}
        if self._plan.is_round:
            more["selected"] = float(len(batch.items))
        self._spread = batch.spread
        if self._kl is not None and "kl" in batch.figures:
            self._kl = self._kl.updated(batch.figures["kl"], len(batch.completions))
        self._items, self._figures = batch.items, {**batch.figures, **heard, **more}
        if self._begins_ahead():
            self._begin()
        self.is_waiting = False

    def _begins_ahead(self) -> bool:
        """Whether there will be a batch after this one, and it is written before this one is learnt from."""
        left = self._plan.steps_of_batch - self._taken
        return self._plan.overlaps and self.step_of() + left < self._total

    def _begin(self) -> None:
        visits = self._next_visits(self._plan.prompts)
        self._begun = self._source.begin(visits, self.step_of())
        self._begun_visits, self.next_visit = visits, self.next_visit + len(visits)

    def _more(self, prompts: int) -> Begun:
        visits = self._next_visits(prompts)
        self.next_visit += prompts
        return self._source.begin(visits, self.step_of())

    def _next_visits(self, count: int) -> list[int]:
        return list(range(self.next_visit, self.next_visit + count))

    def _require_rows(self, batch: Batch) -> None:
        # In a later round there may be nothing left to choose from: what is written is all as good.
        if self._plan.is_round and not batch.items and self._number == 0:
            if "reward" not in batch.figures:
                raise ConfigError("no completion of the first round has a reward: there is nothing to choose from")
            reward, spread = batch.figures["reward"], batch.figures["reward_spread"]
            largest = batch.figures.get("largest_preference")
            pair = "" if largest is None else f"; the surest pair has a probability of {largest:.3f}, below --eta"
            raise ConfigError(
                "no completion of the first round was selected: no pair differs enough, or no reward reaches the "
                f"threshold (rewards were {reward:.3g} on average, spread {spread:.3g}{pair}); lower --eta, --tau or "
                "--least-score, or raise --group-size"
            )

    def _step(self, place: int) -> StepInput:
        items, objective = self._rows(place), self._source.recipe.objective(self._number)
        step = step_input(items, objective, self._compute)
        step = replace(step, figures=self._figures)
        if self._imitation is None or objective.values_alone:
            return step
        extra = self._imitated(self._number * self._plan.steps_of_batch + place)
        part = step_part(extra, self._imitation.objective, self._compute, factor=self._imitation.weight)
        return replace(step, parts=(*step.parts, part))

    def _rows(self, place: int) -> list[TrainingItem]:
        """The rows of a step of this batch: in each pass every one of them stands in one step."""
        assert self._items is not None
        plan, items = self._plan, self._items
        turn, part = divmod(place, plan.steps)
        order = list(range(len(items)))
        seeded_random(plan.seed, f"{self._number}/{turn}", "rollout order").shuffle(order)
        first, last = part * len(items) // plan.steps, (part + 1) * len(items) // plan.steps
        return [items[row] for row in order[first:last]]

    def _imitated(self, step: int) -> list[TrainingItem]:
        assert self._imitation is not None
        items = self._imitation.items
        size = min(self._plan.batch_size, len(items))
        return [items[row] for row in StepOrder(len(items), size, self._plan.seed).rows(step)]

    def save(self, folder: Path) -> None:
        """Write where it stands into a checkpoint."""
        state = FeedState(
            batch=self._number,
            steps_taken=self._taken,
            items=self._items,
            figures=self._figures,
            next_visit=self.next_visit,
            begun=None if self._begun is None else self._begun.rollouts,
            begun_visits=self._begun_visits if self._begun is not None else [],
            spread=self._spread,
            controller=None if self._kl is None else self._kl.as_json(),
            guards=self._listener.as_json(),
        )
        write_state(state, folder)

    def load(self, folder: Path) -> None:
        """Go on from a checkpoint.

        Raises:
            RunFolderError: It cannot be read.
        """
        state = read_state(folder, self._source.visits)
        self._number, self._taken, self._figures = state.batch, state.steps_taken, state.figures
        self._items = state.items
        self.next_visit, self._spread = state.next_visit, state.spread
        if self._kl is not None and state.controller is not None:
            self._kl = type(self._kl).from_json(state.controller)
        self._begun_visits = list(state.begun_visits)
        self._begun = None if state.begun is None else self._source.taken_up(state.begun)
        self._listener.take_up(state.guards)

"""What a checkpoint of online training holds beside weights: rollouts and rows under way, as JSON lines. No pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlaif.errors import RunFolderError
from rlaif.models.examples import Example
from rlaif.online.visits import Visits
from rlaif.rollout_records import Completion, Rollout
from rlaif.train.experience import RunningSpread
from rlaif.train.items import TokenTargets, TrainingItem

FILE = "rollouts.json"


@dataclass(frozen=True)
class FeedState:
    """Where online training stands between two optimizer steps.

    Attributes:
        batch: Number of the batch that is learnt from, from 0.
        steps_taken: Steps that were made of it.
        items: Its rows; None where it is not made yet.
        figures: Of the batch.
        next_visit: The first visit that no batch has taken.
        begun: What was written for the next batch, and is not learnt from yet; None where nothing was.
        begun_visits: The visits that it takes.
        spread: Of rewards so far.
        controller: Of the KL, as it says of itself.
        guards: State of the guard rails, as they say of themselves.
    """

    batch: int
    steps_taken: int
    items: Sequence[TrainingItem] | None
    figures: Mapping[str, float]
    next_visit: int
    begun: Sequence[Rollout] | None
    begun_visits: Sequence[int]
    spread: RunningSpread
    controller: Mapping[str, float] | None
    guards: Mapping[str, Any] | None = None


def write_state(state: FeedState, folder: Path) -> None:
    """Write a state into a checkpoint.

    Raises:
        OSError: It cannot be written.
    """
    content = {
        "batch": state.batch,
        "steps_taken": state.steps_taken,
        "items": None if state.items is None else [_item_json(item) for item in state.items],
        "figures": dict(state.figures),
        "next_visit": state.next_visit,
        "begun": None if state.begun is None else [_rollout_json(rollout) for rollout in state.begun],
        "begun_visits": list(state.begun_visits),
        "spread": asdict(state.spread),
        "controller": None if state.controller is None else dict(state.controller),
        "guards": state.guards,
    }
    (folder / FILE).write_text(json.dumps(content), encoding="utf-8")


def read_state(folder: Path, visits: Visits) -> FeedState:
    """The state that a checkpoint holds.

    Args:
        folder: The checkpoint.
        visits: Of the run, whose prompts the rollouts are about.

    Raises:
        RunFolderError: It holds none, or one that cannot be read.
    """
    path = folder / FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        begun = content["begun"]
        items, numbers = content["items"], content["begun_visits"]
        return FeedState(
            batch=content["batch"],
            steps_taken=content["steps_taken"],
            items=None if items is None else [_item_of(item) for item in items],
            figures=content["figures"],
            next_visit=content["next_visit"],
            begun=None if begun is None else [
                _rollout_of(one, visits, number) for one, number in zip(begun, numbers, strict=True)
            ],
            begun_visits=numbers,
            spread=RunningSpread(**content["spread"]),
            controller=content["controller"],
            guards=content["guards"],
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunFolderError(
            f"{path}: cannot be read ({type(error).__name__}: {error}); remove this checkpoint to go on from the one "
            "before it"
        ) from error


def _item_json(item: TrainingItem) -> dict[str, Any]:
    return {
        "example": asdict(item.example),
        "scores": item.scores,
        "reference": item.reference,
        "targets": None if item.targets is None else item.targets._asdict(),
    }


def _item_of(content: Mapping[str, Any]) -> TrainingItem:
    example, targets, reference = content["example"], content["targets"], content["reference"]
    return TrainingItem(
        Example(example["id"], tuple(example["prompt"]), _tuples(example["completions"])),
        scores=tuple(content["scores"]),
        reference=None if reference is None else tuple(reference),
        targets=None if targets is None else _targets_of(targets),
    )


def _targets_of(content: Mapping[str, Any]) -> TokenTargets:
    columns: dict[str, Any] = {name: None if rows is None else _tuples(rows) for name, rows in content.items()}
    return TokenTargets(**columns)


def _rollout_json(rollout: Rollout) -> dict[str, Any]:
    return {
        "completions": [
            {"ids": one.ids, "text": one.text, "is_finished": one.is_finished, "logprobs": one.logprobs}
            for one in rollout.completions
        ],
        "step": rollout.step,
    }


def _rollout_of(content: Mapping[str, Any], visits: Visits, number: int) -> Rollout:
    visit = visits[number]
    completions = tuple(
        Completion(tuple(one["ids"]), one["text"], one["is_finished"], tuple(one["logprobs"]))
        for one in content["completions"]
    )
    return Rollout(visit.id, visit.row.prompt, visit.row.ids, completions, content["step"])


def _tuples(rows: Sequence[Sequence[Any]]) -> tuple[tuple[Any, ...], ...]:
    return tuple(map(tuple, rows))

"""What training tells whoever watches it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class TrainingStart:
    """What a run is about to do.

    Attributes:
        method: Such as "dpo".
        model: Name of the model it starts from.
        rows: Rows to train on.
        held_out: Rows held out.
        tokens: Of all rows to train on, prompts and responses, once.
        steps: Optimizer steps of the whole run.
        steps_done: Those that an earlier session did, which are not done again.
    """

    method: str
    model: str
    rows: int
    held_out: int
    tokens: int
    steps: int
    steps_done: int = 0


class TrainingListener(Protocol):
    """Told what happens; the command line shows it, the Python API stays silent.

    Metrics are named as in metrics.jsonl: `loss`, `accuracy`, `learning_rate`, `tokens_per_second`, ...; those on
    held-out rows begin with `eval_`.
    """

    @property
    def is_stopping(self) -> bool:
        """Whether somebody wants to stop: asked after each step. The run then saves a checkpoint and raises
        `KeyboardInterrupt`."""

    def on_preparing(self, what: str, done: int, total: int) -> None:
        """Told often while rows are encoded ("encoding rows"), the reference is asked ("reference log-probs"), ..."""

    def on_start(self, start: TrainingStart) -> None:
        """Told once, right before the first step."""

    def on_step(self, step: int, total: int, logs: Mapping[str, float]) -> None:
        """Told after each optimizer step; `step` is counted from 1, and `logs` is empty where nothing was measured."""

    def on_evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        """Told of each evaluation on held-out rows; step 0 is before training."""

    def on_finishing(self) -> None:
        """Told once after the last step, before the model is saved: what comes can be interrupted at any moment."""

    def on_message(self, text: str) -> None: ...

    def on_warning(self, text: str) -> None: ...

    def close(self) -> None:
        """Leave the screen in order; safe to call twice."""


class SilentTrainingListener:
    """Says nothing, and never stops."""

    is_stopping = False

    def on_preparing(self, what: str, done: int, total: int) -> None:
        return None

    def on_start(self, start: TrainingStart) -> None:
        return None

    def on_step(self, step: int, total: int, logs: Mapping[str, float]) -> None:
        return None

    def on_evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        return None

    def on_finishing(self) -> None:
        return None

    def on_message(self, text: str) -> None:
        return None

    def on_warning(self, text: str) -> None:
        return None

    def close(self) -> None:
        return None

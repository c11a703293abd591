"""What the trainer says, handed on: to the listener, and to `metrics.jsonl`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rlaif.engine.training_listening import TrainingListener


class ListeningCallback(TrainerCallback):  # type: ignore[misc]  # transformers has no types
    """Tells a listener of steps and evaluations, and stops when it asks for that.

    Args:
        listener: Who is told.
        metrics: File that gets a line for each log; what steps after the checkpoint had written is taken away when a
            run is resumed. None writes nothing.
    """

    def __init__(self, listener: TrainingListener, metrics: Path | None) -> None:
        self._listener, self._metrics = listener, metrics
        self._stops = False
        self.is_stopped = False
        """Whether the listener of any process, or whoever called `stop`, asked to stop before the last step."""

    def stop(self) -> None:
        """Stop after the step, with a checkpoint."""
        self._stops = True

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._metrics is not None:
            self._metrics.write_text("".join(map(_line, state.log_history)), encoding="utf-8")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if not control.should_log:
            self._listener.on_step(state.global_step, state.max_steps, {})
        if _anywhere(self._listener.is_stopping or self._stops, args) and state.global_step < state.max_steps:
            control.should_save = control.should_training_stop = self.is_stopped = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        figures = dict(logs or {})
        if "loss" not in figures and not any(name.startswith("eval_") for name in figures):
            return  # the trainer's own summary at the end
        if self._metrics is not None:
            with self._metrics.open("a", encoding="utf-8") as file:
                file.write(_line({**figures, "step": state.global_step}))
        if "loss" in figures:
            self._listener.on_step(state.global_step, state.max_steps, figures)
        else:
            self._listener.on_evaluation(state.global_step, figures)


def _anywhere(is_so: bool, args: TrainingArguments) -> bool:
    """Whether it is so in any process: all stop after the same step, or the others wait for ever."""
    if args.world_size == 1:
        return is_so
    found = torch.tensor(float(is_so), device=args.device)
    torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX)
    return bool(found)


def _line(figures: Mapping[str, float]) -> str:
    return json.dumps(figures) + "\n"

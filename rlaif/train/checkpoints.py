"""Checkpoints of a run: which are whole, which are kept, and what the newest says of how far the run was."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from transformers import EarlyStoppingCallback, TrainerState

from rlaif.errors import RunFolderError

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainingArguments

COMPLETE = "complete"
"""File that a checkpoint gets last: one without it was cut short."""


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Within, what cannot be written is said: each of torch, safetensors and Python raises its own kind on a full disk.

    Raises:
        RunFolderError: The path cannot be written.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RunFolderError(f"{path}: cannot be written ({reason}); what was saved before is as it was") from error


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end; None where there is none."""
    return next(reversed(_whole_checkpoints(folder)), None)


def step_of(checkpoint: Path) -> int:
    """Steps that were done then."""
    return int(checkpoint.name.partition("-")[2])


def remove_checkpoints(folder: Path, keep: int | None, best: str) -> None:
    """Keep the newest whole ones, and the best one besides.

    Args:
        folder: Where they stand.
        keep: How many; None: all.
        best: Name of the best one.
    """
    newest = _whole_checkpoints(folder)[-(keep or 0) :]
    for path in folder.glob("checkpoint-*"):
        if path not in newest and path.name != best:
            (path / COMPLETE).unlink(missing_ok=True)  # first, as the rest does not go at once
            shutil.rmtree(path, ignore_errors=True)


class EarlyStopping(EarlyStoppingCallback):  # type: ignore[misc]  # transformers has no types
    """Stops as its parent does, and finds the best checkpoint where the folder is now: its path is recorded in full."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        super().on_train_begin(args, state, control, **kwargs)
        best = Path(args.output_dir) / f"checkpoint-{state.best_global_step}"
        if (best / COMPLETE).exists():
            state.best_model_checkpoint = str(best)


def has_stopped_early(checkpoint: Path) -> bool:
    """Whether a run was over at this checkpoint, before its last step: to go on would be to train what was not asked.

    Args:
        checkpoint: A whole one.
    """
    state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    stopping = state.stateful_callbacks.get(EarlyStopping.__name__)
    if stopping is None:
        return False
    waited: int = stopping["attributes"]["early_stopping_patience_counter"]
    patience: int = stopping["args"]["early_stopping_patience"]
    return waited >= patience


def _whole_checkpoints(folder: Path) -> list[Path]:
    """In the order of their steps."""
    return sorted((path.parent for path in folder.glob(f"checkpoint-*/{COMPLETE}")), key=step_of)

"""`rlaif train` without the command line: rows in, a trained model in a folder out, resumed where it was cut short."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rlaif.config import as_dict
from rlaif.engine.run_folder import RunFolder
from rlaif.engine.training_config import TrainConfig
from rlaif.engine.training_inputs import decisive_settings, encode, gather
from rlaif.engine.training_listening import SilentTrainingListener, TrainingListener
from rlaif.errors import DeviceMemoryError

if TYPE_CHECKING:
    from rlaif.engine.training_session import TrainingRun, TrainingSession


@dataclass(frozen=True)
class TrainOutcome:
    """What a finished run did.

    Attributes:
        folder: With the model.
        steps: Optimizer steps of the whole run.
        rows, held_out: Rows trained on, and held out.
        skipped: Rows that could not be read; they stand in `failures.jsonl`.
        metrics: On held-out rows, after the last step; empty without any.
        was_finished: Whether there was nothing left to do.
    """

    folder: Path
    steps: int
    rows: int
    held_out: int
    skipped: int
    metrics: Mapping[str, float]
    was_finished: bool = False


def train(
    method: str, config: TrainConfig, listener: TrainingListener | None = None, *, command: str = ""
) -> TrainOutcome:
    """Train a model on the rows of `config.data` into the folder `config.out`.

    Args:
        method: One of `TRAIN_CONFIGS`.
        config: Of the method's class.
        listener: Told how far it is.
        command: How a person would repeat this, for `run.json` and the card.

    Raises:
        InputError: A row cannot be read or trained on.
        ConfigError: Settings that do not fit the rows, the model or each other.
        PromptTooLongError: Rows do not fit the model, and nothing may be cut.
        RunFolderError: The folder holds another run, or another process trains in it.
        DeviceMemoryError: A micro-batch does not fit.
        NonFiniteLossError: The loss is NaN or infinite; the last checkpoint is as it was.
        KeyboardInterrupt: The listener asked to stop; a checkpoint was saved.
    """
    listener = listener or SilentTrainingListener()
    inputs = gather(method, config, listener)
    folder = RunFolder(Path(config.out), f"train {method}")
    decisive = decisive_settings(method, config, inputs)
    known = folder.open(decisive)
    outcome = TrainOutcome(
        folder.path,
        known.get("steps", 0) if known else 0,
        len(inputs.data.train),
        len(inputs.data.held_out),
        len(inputs.data.failures),
        known.get("metrics", {}) if known else {},
    )
    if known is not None and known.get("status") == "finished":
        return replace(outcome, was_finished=True)
    from rlaif.engine.training_results import finish  # torch and transformers
    from rlaif.engine.training_session import TrainingSession

    rows = encode(config, inputs, listener)
    facts = {"command": folder.command, "decisive": decisive, "config": as_dict(config), "repeat": command}
    session = TrainingSession(method, config, inputs, rows, folder, listener, facts, known)
    with folder.locked() if session.is_main else nullcontext():
        try:
            run = _within_memory(session)
            listener.on_finishing()
            metrics = finish(session, run)
        except BaseException:
            if folder.read() is not None:  # else no step was begun, and the next try may have other settings
                session.write_run_json("interrupted")
            raise
        if session.is_main:
            folder.write_failures(rows.data.failures)
        session.wait_for_all()  # one that leaves early may take the first with it, in the middle of what it writes
    return replace(
        outcome,
        steps=run.trainer.state.global_step,
        rows=len(rows.train),
        held_out=len(rows.held_out),
        skipped=len(rows.data.failures),
        metrics=metrics,
    )


def _within_memory(session: TrainingSession) -> TrainingRun:
    import torch

    try:
        return session.train()
    except torch.OutOfMemoryError as error:
        raise DeviceMemoryError(
            f"the device's memory does not hold what is computed at a time ({str(error).splitlines()[0]}); use a lower "
            "--max-tokens, --gradient-checkpointing, or --lora-rank; the last checkpoint is as it was"
        ) from error

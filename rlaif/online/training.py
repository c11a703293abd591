"""`rlaif train` of the online methods without the command line: prompts in, a trained policy in a folder out."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlaif.config import as_dict
from rlaif.engine.run_folder import RunFolder, public_config, without_queries
from rlaif.engine.training import TrainOutcome
from rlaif.engine.training_listening import SilentTrainingListener, TrainingListener
from rlaif.errors import DeviceMemoryError
from rlaif.online.config import OnlineConfig
from rlaif.online.inputs import decisive_settings, gather, self_judging, sizes_of


def train_online(
    method: str, config: OnlineConfig, listener: TrainingListener | None = None, *, command: str = ""
) -> TrainOutcome:
    """Train a policy on what it writes itself, into the folder `config.out`.

    Args:
        method: One of `ONLINE_CONFIGS`.
        config: Of the method's class.
        listener: Told how far it is, and of signs of reward hacking.
        command: How a person would repeat this, for `run.json` and the card.

    Raises:
        InputError: A prompt cannot be read.
        ConfigError: Settings that do not fit the prompts, the model, the judge or each other.
        PromptTooLongError: Prompts do not fit the model.
        RunFolderError: The folder holds another run, or another process trains in it.
        BackendUnusableError: The judge is gone, and did not come back; the run can be resumed.
        RewardError: A reward function failed, or gave a reward that is no number.
        NonFiniteLossError: The loss is NaN or infinite; the last checkpoint is as it was.
        DeviceMemoryError: What is computed at a time does not fit.
        KeyboardInterrupt: The listener, or a sign of reward hacking with `--stop-on-hack`, asked to stop; a checkpoint
            was saved.
    """
    listener = listener or SilentTrainingListener()
    self_judging(config)
    inputs = gather(config, listener)
    sizes = sizes_of(method, config, len(inputs.rows))
    from rlaif.online.results import finish  # torch and transformers
    from rlaif.online.session import OnlineSession

    folder = RunFolder(Path(config.out), f"train {method}")
    outcome = TrainOutcome(
        folder.path, sizes.steps, len(inputs.rows), len(inputs.watched), len(inputs.failures), {}
    )  # fmt: skip
    with ExitStack() as stack:
        _refuse_foreign(folder)
        session = OnlineSession(method, config, inputs, sizes, folder, listener, command)
        model = session.opening.policy()
        scorer = session.opening.scorer(model)
        stack.callback(scorer.close)
        decisive = decisive_settings(method, config, inputs, scorer.identity())
        known = folder.open(decisive)
        if known is not None and known.get("status") == "finished":
            return replace(outcome, steps=known["steps"], metrics=known.get("metrics", {}), was_finished=True)
        stack.enter_context(folder.locked())
        facts: dict[str, Any] = {
            "command": folder.command, "decisive": decisive, "config": public_config(config),
            "repeat": without_queries(command), "rewards": scorer.describe(),
        }  # fmt: skip
        session.begin(facts, known)
        try:
            run = _within_memory(lambda: session.train(model, scorer))
            listener.on_finishing()
            metrics = finish(session, run)
        except BaseException:
            if folder.read() is not None:
                signs = [sign._asdict() for sign in session.signs]
                session.write_run_json("interrupted", counts=as_dict(scorer.counts), signs=signs)
            raise
    return replace(outcome, steps=run.trainer.state.global_step, metrics=metrics)


def _refuse_foreign(folder: RunFolder) -> None:
    """Refuse a folder that is none of ours before a journal is put into it; what the run is made of is told later."""
    known = folder.read()
    if known is None or known.get("command") != folder.command:
        folder.open({})


def _within_memory(work: Any) -> Any:
    import torch

    try:
        return work()
    except torch.OutOfMemoryError as error:
        raise DeviceMemoryError(
            f"the device's memory does not hold what is computed at a time ({str(error).splitlines()[0]}); use a lower "
            "--compute-tokens, --gradient-checkpointing, a smaller --group-size, or --lora-rank; the last checkpoint "
            "is as it was"
        ) from error

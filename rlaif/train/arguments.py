"""Our settings as `transformers.TrainingArguments`: the one place where the two meet."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import torch
import yaml
from transformers import TrainingArguments
from transformers.integrations import get_available_reporting_integrations, get_reporting_integration_callbacks

from rlaif.errors import ConfigError, did_you_mean
from rlaif.options import expected, scalar_types
from rlaif.train.config import LEARNING_RATES, AdapterConfig, CheckpointConfig, SteppingConfig

_LORA_RATE = 10.0
_TIMES, _LEAST_BETWEEN = 10, 10
"""How often, by default, a run is evaluated and saved, and the fewest steps between."""

_HINTS = get_type_hints(TrainingArguments)
_NAMES = frozenset(each.name for each in fields(TrainingArguments))

_CHECKPOINTING = next(name for name in ("activation_checkpointing", "gradient_checkpointing") if name in _NAMES)
"""Its name has changed within transformers 5."""

_OURS = {
    "output_dir", "max_steps", "num_train_epochs", "per_device_train_batch_size", "gradient_accumulation_steps",
    "seed", "load_best_model_at_end", "remove_unused_columns", "logging_nan_inf_filter", "push_to_hub",
    "ignore_data_skip",
    "learning_rate", "weight_decay", "max_grad_norm", "optim", "bf16", "fp16", "use_cpu", "eval_steps", "save_steps",
    "save_total_limit", "logging_steps", "report_to", "auto_find_batch_size", "save_only_model",
    "hub_token",  # run.json and the card would show it
}  # fmt: skip
"""What cannot be given as a `--trainer-arg`, since it would break what a step is or where things stand."""


_ALWAYS = {
    "per_device_train_batch_size": 1,  # whole steps
    "logging_nan_inf_filter": False,
    "dataloader_pin_memory": False,
    "ddp_find_unused_parameters": False,
    "remove_unused_columns": False,
    "disable_tqdm": True,
}


def optimizer_steps(optimization: SteppingConfig, rows: int) -> int:
    """Steps of a run: `max_steps`, or what the epochs come to, the last one full as all are.

    Raises:
        ConfigError: A step takes more rows than there are.

    >>> optimizer_steps(SteppingConfig(batch_size=8, epochs=2), 20)
    5
    """
    if optimization.batch_size > rows:
        raise ConfigError(f"batch_size: {optimization.batch_size}, but there are {rows} rows to train on; lower it")
    if optimization.max_steps is not None:
        return optimization.max_steps
    return max(1, round(optimization.epochs * rows / optimization.batch_size))


def learning_rate_of(method: str, optimization: SteppingConfig, adapter: AdapterConfig) -> float:
    """The highest learning rate: as set, or what is usual for the method."""
    if optimization.learning_rate is not None:
        return optimization.learning_rate
    return LEARNING_RATES[method] * (1.0 if adapter.lora_rank is None else _LORA_RATE)


def training_arguments(
    method: str,
    optimization: SteppingConfig,
    checkpoints: CheckpointConfig,
    adapter: AdapterConfig,
    *,
    folder: Path,
    steps: int,
    device: str,
    seed: int,
    is_evaluated: bool,
) -> TrainingArguments:
    """The arguments of a run.

    Args:
        method: Such as "dpo".
        optimization, checkpoints, adapter: The settings.
        folder: For checkpoints.
        steps: Of `optimizer_steps`.
        device: Torch's, such as "cuda".
        seed: Of the order of rows, of dropout.
        is_evaluated: Whether there are held-out rows.

    Raises:
        ConfigError: A `--trainer-arg` does not exist, early stopping cannot be, a tracker is unknown or missing, or
            transformers refuses the arguments.
    """
    precision = _precision(optimization.precision, device)
    values: dict[str, Any] = {
        **_ALWAYS,
        "output_dir": str(folder),
        "max_steps": steps,
        "learning_rate": learning_rate_of(method, optimization, adapter),
        "lr_scheduler_type": {"constant": "constant_with_warmup"}.get(optimization.schedule, optimization.schedule),
        "warmup_steps": round(optimization.warmup * steps),
        "weight_decay": optimization.weight_decay,
        "max_grad_norm": optimization.max_grad_norm,
        "optim": optimization.optimizer,
        "bf16": precision == "bfloat16",
        "fp16": precision == "float16",
        _CHECKPOINTING: optimization.gradient_checkpointing,
        **_evaluating_and_saving(checkpoints, steps, is_evaluated),
        "logging_steps": checkpoints.log_every,
        "report_to": list(checkpoints.report_to) or "none",
        "seed": seed,
        "use_cpu": device == "cpu",
    }
    values |= _given(optimization.trainer_arg)
    try:
        args = TrainingArguments(**values)
    except (ValueError, TypeError, AttributeError, ImportError, OSError) as error:
        raise ConfigError(f"transformers refuses the settings of training: {error}") from error
    _check_trackers(args.report_to)
    if args.fsdp and args.world_size == 1:
        raise ConfigError(
            "trainer_arg: fsdp splits the weights over processes, and there is one; begin with "
            "torchrun --nproc-per-node N -m rlaif train"
        )
    return args


def _evaluating_and_saving(checkpoints: CheckpointConfig, steps: int, is_evaluated: bool) -> dict[str, Any]:
    """When the model is evaluated and saved, and which one is taken in the end."""
    eval_every = checkpoints.eval_every or checkpoints.save_every or min(steps, max(_LEAST_BETWEEN, steps // _TIMES))
    save_every = checkpoints.save_every or eval_every
    if checkpoints.early_stopping is not None:
        if not is_evaluated:
            raise ConfigError("early_stopping: needs held-out prompts, use --held-out")
        if save_every != eval_every:
            raise ConfigError(
                f"early_stopping: takes the best of all evaluated models, so that each is saved; save_every is "
                f"{save_every}, expected {eval_every} as eval_every: leave one of the two out"
            )
    return {
        "eval_strategy": "steps" if is_evaluated else "no",
        "eval_steps": eval_every,
        "save_strategy": "steps",
        "save_steps": save_every,
        "save_total_limit": checkpoints.keep,
        "restore_callback_states_from_checkpoint": True,  # early stopping counts on where it was
        "load_best_model_at_end": checkpoints.early_stopping is not None,
        "metric_for_best_model": "eval_loss" if is_evaluated else None,
    }


def _check_trackers(names: list[str]) -> None:
    """Refuse what the trainer would refuse after the model has been loaded."""
    try:
        get_reporting_integration_callbacks(names)
    except ValueError as error:
        raise ConfigError(f"report_to: {error}") from error
    unlisted = {"flyte", "azure_ml"}  # transformers does not tell whether they are there
    if missing := sorted(set(names) - unlisted - set(get_available_reporting_integrations())):
        raise ConfigError(f"report_to: {missing[0]} is not installed; install its package, or leave it out")


def _precision(precision: str, device: str) -> str:
    if precision == "float16" and device == "cpu":  # accelerate would compute in float32 then, and say nothing
        raise ConfigError("precision: float16 needs a GPU; expected bfloat16 or float32")
    if precision != "auto":
        return precision
    return "bfloat16" if device.startswith("cuda") and torch.cuda.is_bf16_supported() else "float32"


def _given(arguments: Mapping[str, str]) -> dict[str, Any]:
    """`--trainer-arg` values, read as YAML reads them: numbers, true, lists in brackets."""
    known = _NAMES - _OURS
    for name in arguments:
        if name not in known:
            hint = " has a flag of its own or would break a step" if name in _OURS else did_you_mean(name, _NAMES)
            raise ConfigError(f"trainer_arg: {name!r}{hint}; expected an argument of transformers.TrainingArguments")
    return {name: _read(name, text) for name, text in arguments.items()}


def _read(name: str, text: str) -> Any:
    """A value; of numbers and yes or no also the type is checked, which transformers does not."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"trainer_arg: {name}: cannot be read as YAML: {text!r}") from error
    kinds = scalar_types(_HINTS[name])
    if not set(kinds) <= {bool, int, float}:
        return value
    if float in kinds and isinstance(value, str):  # to YAML, 1e-9 is text
        with contextlib.suppress(ValueError):
            return float(value)
    is_number = type(value) in kinds or (type(value) is int and float in kinds)
    if not is_number and not (value is None and type(None) in get_args(_HINTS[name])):
        raise ConfigError(f"trainer_arg: {name}: expected {expected(_HINTS[name])}, got {text!r}")
    return value

"""One session of a training run: rows encoded, weights loaded, the reference asked, the trainer run to its end.

What the folder holds afterwards is the business of `training_results`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, TrainerCallback
from transformers.trainer_callback import PrinterCallback
from transformers.utils import logging as transformers_logging

from rlaif.config import as_dict
from rlaif.data.training_methods import RowKind
from rlaif.engine.run_folder import RunFolder, versions
from rlaif.engine.training_callback import ListeningCallback
from rlaif.engine.training_config import ReferenceConfig, TrainConfig
from rlaif.engine.training_inputs import EncodedRows, TrainingInputs
from rlaif.engine.training_listening import SilentTrainingListener, TrainingListener, TrainingStart
from rlaif.models.attention import attention_of
from rlaif.models.examples import Example
from rlaif.models.loading import load_model
from rlaif.models.logprobs import plan_logprobs
from rlaif.models.rewards import plan_rewards
from rlaif.train.allocator import keep_freed_memory
from rlaif.train.arguments import optimizer_steps, training_arguments
from rlaif.train.checkpoints import EarlyStopping, has_stopped_early, last_checkpoint, step_of
from rlaif.train.config import KtoLossConfig
from rlaif.train.items import TrainingItem, kto_balance, with_mismatches, with_references
from rlaif.train.logprob_cache import LogprobCache
from rlaif.train.models import adapter_off, load_policy, load_reward_model_for_training
from rlaif.train.objectives import make_objective
from rlaif.train.reference import reference_identity, reference_logprobs
from rlaif.train.sharding import gathered_weights, loading_whole
from rlaif.train.step_inputs import ComputePlan, Steps
from rlaif.train.trainer import PreferenceTrainer

_BALANCED = 0.05
"""How far from the best KTO's classes may weigh before it is said."""


@dataclass(frozen=True)
class TrainingRun:
    """A run whose last step is done.

    Attributes:
        trainer: With the trained model.
        train, held_out: The rows as token ids.
        notes: What there is to say of how it was computed.
    """

    trainer: PreferenceTrainer
    train: Sequence[TrainingItem]
    held_out: Sequence[TrainingItem]
    notes: tuple[str, ...]


class TrainingSession:
    """Trains, and keeps `run.json` up to date.

    Args:
        method, config, inputs, rows: What is trained, how, and on what.
        folder: Opened.
        listener: Told how far it is.
        facts: What `run.json` says whatever happens.
        earlier: The `run.json` of the session before; None for the first.

    Raises:
        ConfigError: Settings that do not fit the rows, the machine or each other.
    """

    def __init__(
        self,
        method: str,
        config: TrainConfig,
        inputs: TrainingInputs,
        rows: EncodedRows,
        folder: RunFolder,
        listener: TrainingListener,
        facts: Mapping[str, Any],
        earlier: Mapping[str, Any] | None,
    ) -> None:
        self.method, self.config, self.inputs, self.rows, self.folder = method, config, inputs, rows, folder
        loss: Any = config.loss  # type: ignore[attr-defined]  # the class of every method has one
        self.objective = make_objective(method, loss, is_ranking=rows.data.kind is RowKind.CANDIDATES)
        self.steps = optimizer_steps(config.optimization, len(rows.train))
        self.args = training_arguments(
            method, config.optimization, config.checkpoints, config.adapter,
            folder=folder.path / "checkpoints", steps=self.steps, device=inputs.source.device, seed=config.seed,
            is_evaluated=bool(rows.held_out),
        )  # fmt: skip
        self.is_main = self.args.process_index == 0
        if self.args.device.type == "cpu":
            keep_freed_memory()
        self.wait_for_all()  # each has opened the folder before one writes into it
        self.listener = listener if self.is_main else SilentTrainingListener()
        self.command = str(facts.get("repeat", ""))
        self.versions = versions()
        self._facts = {
            **facts,
            "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": self.versions,
            "resolved": {
                "learning_rate": self.args.learning_rate,
                "max_length": inputs.max_length,
                "eval_every": int(self.args.eval_steps) if rows.held_out else None,
                "save_every": int(self.args.save_steps),
                **({"aux": as_dict(rows.aux)} if rows.aux is not None else {}),
            },
        }
        self._seconds_before = float((earlier or {}).get("seconds", 0.0))
        self._began = time.monotonic()

    @property
    def model_name(self) -> str:
        """Of the model it starts from: as it was given where it ships, else without its machine's path."""
        given = self.config.model
        return given if given.startswith("builtin:") else self.inputs.source.name

    @property
    def seconds(self) -> float:
        """Of all sessions."""
        return round(self._seconds_before + time.monotonic() - self._began, 3)

    def write_run_json(self, status: str, **more: Any) -> None:
        """Say how far the run is."""
        if self.is_main:
            self.folder.write({**self._facts, "status": status, "steps": self.steps, "seconds": self.seconds, **more})

    def wait_for_all(self) -> None:
        """Go on when every process has come here."""
        self.args.distributed_state.wait_for_everyone()

    def train(self) -> TrainingRun:
        """Every step that is left.

        Raises:
            KeyboardInterrupt: The listener asked to stop; there is a checkpoint.
            PromptTooLongError, NonFiniteLossError, BackendUnusableError: As `rlaif.engine.training.train`.
        """
        train, held_out = self._items()
        self._warn_of_imbalance(train)
        model = self._loaded(self.inputs.source.device)
        plan, notes = self._plan(model)
        train, held_out = self._with_references(train, held_out, model, plan)
        listening = ListeningCallback(self.listener, self.folder.path / "metrics.jsonl" if self.is_main else None)
        resumed = last_checkpoint(Path(self.args.output_dir))
        if resumed is not None and has_stopped_early(resumed):
            self.args.max_steps = step_of(resumed)
        steps = Steps(
            train, self.config.optimization.batch_size, self.args.max_steps, self.objective, plan,
            seed=self.args.seed, rank=self.args.process_index, world=self.args.world_size,
        )  # fmt: skip
        trainer = PreferenceTrainer(
            model, self.args, objective=self.objective, plan=plan, steps=steps, held_out_items=held_out,
            callbacks=[listening, *self._early_stopping()],
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        if self.args.fsdp and not trainer.is_fsdp_enabled:
            self.listener.on_warning("fsdp splits no weights on a CPU: each process holds all of them")
        self.args.eval_on_start = resumed is None and bool(held_out)
        self.listener.on_start(
            TrainingStart(
                method=self.method,
                model=self.model_name,
                rows=len(train),
                held_out=len(held_out),
                tokens=tokens_of(train),
                steps=self.steps,
                steps_done=step_of(resumed) if resumed else 0,
            )
        )
        transformers_logging.disable_progress_bar()  # of writing checkpoints; the run has a bar of its own
        self.write_run_json("running")
        trainer.train(resume_from_checkpoint=None if resumed is None else str(resumed))
        if listening.is_stopped:
            raise KeyboardInterrupt
        return TrainingRun(trainer, train, held_out, notes)

    def whole_model(self, trainer: PreferenceTrainer) -> PreTrainedModel | None:
        """What was trained, with all of its weights, in the first process; every process has to ask.

        Where the weights are split over processes, they are put into a model of their own, on the CPU.
        """
        weights = gathered_weights(trainer.accelerator, trainer.model_wrapped)
        if not self.is_main:
            return None
        if weights is None:
            return trainer.accelerator.unwrap_model(trainer.model)
        model = self._loaded("cpu")
        model.load_state_dict(weights)
        return model

    def _items(self) -> tuple[list[TrainingItem], list[TrainingItem]]:
        train, held_out = self.rows.train, self.rows.held_out
        if not self.objective.needs_mismatches:
            return train, held_out
        seed, longest = self.config.seed, self.inputs.max_length
        items = with_mismatches([*train, *held_out], seed, max_length=longest)
        # Those that are trained on, among themselves: nothing held out is measured.
        return with_mismatches(train, seed, max_length=longest), items[len(train) :]

    def _warn_of_imbalance(self, train: Sequence[TrainingItem]) -> None:
        loss = getattr(self.config, "loss", None)
        if not (isinstance(loss, KtoLossConfig) and self.objective.needs_mismatches):
            return
        balance = kto_balance(train, loss.desirable_weight, loss.undesirable_weight)
        if not 1.0 - _BALANCED <= balance <= 4.0 / 3.0 + _BALANCED:
            self.listener.on_warning(
                f"desirable responses weigh {balance:.3g} times what undesirable ones do, where 1 to 1.33 is best; set "
                "--desirable-weight or --undesirable-weight"
            )

    def _loaded(self, device: str) -> PreTrainedModel:
        load = load_reward_model_for_training if self.objective.reads == "rewards" else load_policy
        with loading_whole():
            model = load(replace(self.inputs.source, device=device), self.config.adapter, seed=self.config.seed)
        if self.config.adapter.lora_rank is not None and self.config.model.startswith("builtin:"):
            model.peft_config["default"].base_model_name_or_path = self.config.model  # else peft writes where it lies
        return model

    def _plan(self, model: PreTrainedModel) -> tuple[ComputePlan, tuple[str, ...]]:
        max_tokens, max_length = self.config.optimization.max_tokens, self.inputs.max_length
        is_chunked = True
        with self._autocast():
            if self.objective.reads == "rewards":
                is_packed, notes = plan_rewards(model, max_length)
            else:
                is_packed, is_chunked, notes = plan_logprobs(model, max_length)
        plan = ComputePlan(is_packed, is_chunked, max_tokens)
        for note in notes:
            self.listener.on_message(note)
        return plan, notes

    def _with_references(
        self,
        train: list[TrainingItem],
        held_out: list[TrainingItem],
        model: PreTrainedModel,
        plan: ComputePlan,
    ) -> tuple[list[TrainingItem], list[TrainingItem]]:
        config = self.config
        if not isinstance(config, ReferenceConfig):
            return train, held_out
        other = self.inputs.reference
        items = [*train, *held_out]
        if other is None:
            with adapter_off(model):
                items = with_references(items, lambda examples: self._reference_logprobs(examples, model, plan))
        else:
            with loading_whole():
                reference = load_model(other)
            how, _ = self._plan(reference)
            items = with_references(items, lambda examples: self._reference_logprobs(examples, reference, how))
        return items[: len(train)], items[len(train) :]

    def _reference_logprobs(
        self, examples: Sequence[Example], model: PreTrainedModel, plan: ComputePlan
    ) -> list[tuple[float, ...]]:
        """What the reference says, computed as the policy is: a rounding of its own would be a log-ratio."""
        config = self.config
        assert isinstance(config, ReferenceConfig)
        identity = reference_identity(
            self.inputs.reference or self.inputs.source,
            dtype=str(model.dtype),
            precision=str(self._compute_dtype),
            quantize=config.adapter.quantize,
        )
        folder = None if config.reference_cache is None else Path(config.reference_cache).expanduser()
        cache = LogprobCache(
            {**identity, "attention": attention_of(model)}, folder, on_warning=self.listener.on_warning
        )
        with closing(cache), self._autocast():
            return reference_logprobs(
                model.to(self.args.device), examples, is_packed=plan.is_packed, is_chunked=plan.is_chunked,
                max_tokens=plan.max_tokens, device=self.args.device, cache=cache,
                on_progress=lambda done, total: self.listener.on_preparing("reference log-probs", done, total),
            )  # fmt: skip

    @property
    def _compute_dtype(self) -> torch.dtype | None:
        """The number type of the computation, where it is not the weights'."""
        if self.args.bf16:
            return torch.bfloat16
        return torch.float16 if self.args.fp16 else None

    def _autocast(self) -> AbstractContextManager[None]:
        """What the trainer computes under, for what is computed before it."""
        dtype = self._compute_dtype
        return torch.autocast(self.args.device.type, dtype, enabled=dtype is not None)

    def _early_stopping(self) -> list[TrainerCallback]:
        patience = self.config.checkpoints.early_stopping
        return [] if patience is None else [EarlyStopping(patience)]


def tokens_of(items: Sequence[TrainingItem]) -> int:
    """Tokens of prompts and responses, each once."""
    return sum(item.example.row_tokens(is_packed=True) for item in items)

"""The one subclass of `transformers.Trainer`: it owns the loop, mixed precision, FSDP and DeepSpeed, checkpoints,
resume and trackers; we own what a step is.

A step is exactly `batch_size` rows, whatever the processes and the token budget. The loader hands out whole steps,
already split into micro-batches for this process; each micro-batch's loss is a sum, divided by what the whole step
counts over all processes. So accumulation, padding and processes change nothing but the order of additions. Where rows
are made while training, from what the policy itself wrote, whoever makes the steps does so: the trainer only learns.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import gather_object
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer

from rlaif.errors import NonFiniteLossError
from rlaif.models.rewards import completion_rewards
from rlaif.train.checkpoints import COMPLETE, remove_checkpoints, writing
from rlaif.train.items import TrainingItem
from rlaif.train.losses import kto_z0
from rlaif.train.means import Mean, MeanTracker
from rlaif.train.metrics import preference_metrics
from rlaif.train.objectives import MicroBatch, Objective, Reading, log_ratios_of
from rlaif.train.step_inputs import ComputePlan, StepInput, StepPart, StepSource, evaluation_batches, mismatches_of
from rlaif.train.token_reading import read_tokens
from rlaif.train.values import load_value_state, value_state, values_detached, without_values

if TYPE_CHECKING:
    from transformers import TrainerCallback, TrainerControl, TrainingArguments


VALUES_FILE = "values.safetensors"
"""In a checkpoint: the weights of what predicts returns, which are no part of the policy."""


def _only(steps: Sequence[StepInput]) -> StepInput:
    (step,) = steps
    return step


class PreferenceTrainer(Trainer):  # type: ignore[misc]  # transformers has no types
    """Trains on finished steps.

    Args:
        model: A policy or a reward model, perhaps with an adapter.
        args: With `max_steps`; its batch sizes and accumulation are not looked at.
        objective: The method.
        plan: How rows are computed.
        steps: What is learnt, step by step.
        held_out_items: Rows to evaluate on; perhaps none.
        evaluator: Makes the figures of an evaluation in place of the loss on held-out rows.
        callbacks: Told of steps, evaluations and checkpoints.
    """

    def __init__(
        self,
        model: nn.Module,
        args: TrainingArguments,
        *,
        objective: Objective,
        plan: ComputePlan,
        steps: StepSource,
        held_out_items: Sequence[TrainingItem] = (),
        evaluator: Callable[[], Mapping[str, float]] | None = None,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        args._n_gpu = min(args.n_gpu, 1)  # several GPUs are several processes, never DataParallel
        args.use_cache = getattr(model.config, "use_cache", True)  # it is saved; what trains says False each time
        args.ignore_data_skip = steps.is_endless
        # Transformers would delete old checkpoints before the new one is whole, and in no order of files.
        self._kept, args.save_total_limit = args.save_total_limit, None
        super().__init__(model, args, train_dataset=steps, eval_dataset=steps, callbacks=list(callbacks))
        self.control: TrainerControl
        self.model_accepts_loss_kwargs = False
        self._objective, self._plan, self._steps = objective, plan, steps
        self._held_out_items, self._evaluator = held_out_items, evaluator
        self._ids: tuple[str, ...] = ()
        self._tracker = MeanTracker()
        self._figures: dict[str, list[float]] = {}
        self._logged_at = time.monotonic()

    def create_accelerator_and_postprocess(self) -> None:
        """Mixed precision is autocast's alone, as the reference was computed."""
        super().create_accelerator_and_postprocess()
        if self.is_fsdp_enabled:  # else FSDP rounds what the model answers, and the gradients that are added up
            self.accelerator.state.fsdp_plugin.mixed_precision_policy = None

    # What a step is.

    def get_train_dataloader(self) -> DataLoader[StepInput]:
        """Whole steps, in order; not given to accelerate, which would split them once more."""
        # A loader draws a seed when it begins: of its own generator, as a run that is resumed begins another one.
        generator = torch.Generator()
        return DataLoader(self.train_dataset, batch_size=1, shuffle=False, collate_fn=_only, generator=generator)

    def training_step(self, model: nn.Module, inputs: StepInput, num_items_in_batch: object = None) -> Tensor:
        """Gradients of a whole optimizer step.

        Returns:
            The step's loss, scalar; the mean over processes is that of the whole.

        Raises:
            NonFiniteLossError: It is NaN or infinite; the weights are as they were, the rows' ids are in a file.
        """
        model.train()
        self._ids = inputs.ids
        for name, value in inputs.figures.items():
            self._figures.setdefault(name, []).append(value)
        total = torch.zeros((), device=self.args.device)
        z0 = self._z0(model, inputs.mismatched) if self._objective.needs_mismatches else None
        batches = [(part, micro) for part in inputs.parts for micro in part.micro]
        for number, (part, on_cpu) in enumerate(batches, 1):
            is_last = number == len(batches)
            self.accelerator.gradient_state._set_sync_gradients(is_last)
            with contextlib.nullcontext() if is_last else self.accelerator.no_sync(model):
                total += self._learn(model, part, on_cpu.to(self.args.device), z0)
        self._refuse_non_finite(total, "loss")
        return total

    def _learn(self, model: nn.Module, part: StepPart, micro: MicroBatch, z0: Tensor | None) -> Tensor:
        """The gradient of a micro-batch; its share in the loss of the step, scalar."""
        # Gradients are averaged over processes.
        scale = part.factor * self.args.world_size / part.weight if part.weight and micro.weight else 0.0
        with self.compute_loss_context_manager():
            reading = self._read(model, part.objective, micro)
            loss = part.objective.losses(reading, micro, z0).sum() * scale
        self.accelerator.backward(loss, **self._backward_options())
        self._track(part.objective, reading, micro)
        return loss.detach()

    def _read(self, model: nn.Module, objective: Objective, micro: MicroBatch) -> Reading:
        with self.accelerator.autocast():
            if objective.reads == "rewards":
                return Reading(completion_rewards(model, micro.batch), micro.batch.tokens)
            found = read_tokens(
                model,
                micro.batch,
                is_chunked=self._plan.is_chunked,
                temperature=objective.temperature,
                with_values=objective.needs_values,
                values_alone=objective.values_alone,
            )
            return Reading(found.sums, found.tokens, found)

    def _z0(self, model: nn.Module, mismatched: Iterable[MicroBatch]) -> Tensor:
        """KTO's reference point over all rows and all processes, before any gradient."""
        sums = torch.zeros(2, device=self.args.device)
        with torch.no_grad(), self.compute_loss_context_manager():
            for on_cpu in mismatched:
                micro = on_cpu.to(self.args.device)
                ratios = log_ratios_of(self._read(model, self._objective, micro), micro)
                if micro.weight:
                    sums += torch.stack([ratios.sum(), micro.batch.is_present.sum()])
        total, count = self.accelerator.reduce(sums, "sum")
        return kto_z0((total / count).unsqueeze(0))

    def _backward_options(self) -> dict[str, Any]:
        # DeepSpeed would divide by its own count of micro-batches.
        return {"scale_wrt_gas": False} if self.is_deepspeed_enabled else {}

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm)
        if self.accelerator.scaler is None:  # with float16, a step of infinite gradients is left out by the scaler
            self._refuse_non_finite(torch.as_tensor(norm), "gradient")
        return norm

    def _refuse_non_finite(self, value: Tensor, what: str) -> None:
        if self.args.world_size > 1 and what == "loss":
            value = self.accelerator.reduce(value.clone(), "sum")  # all processes stop, or none
        if math.isfinite(float(value)):
            return
        step = self.state.global_step + 1
        path = Path(self.args.output_dir) / f"not-finite-at-step-{step}.json"
        if self.args.should_save:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"step": step, "what": what, "ids": list(self._ids)}, indent=1))
        raise NonFiniteLossError(
            f"the {what} of step {step} is {float(value)}; stopped before it reached the weights. The rows of the step "
            f"are in {path.name} beside the checkpoints, and the last checkpoint is as it was; look at those rows, or "
            "use a lower --learning-rate (and another -o)"
        )

    def floating_point_ops(self, inputs: object) -> int:
        """Not counted."""
        return 0

    def _get_num_items_in_batch(self, batch_samples: object, device: object) -> None:
        """A step knows its own weight."""

    # What is logged.

    def _track(self, objective: Objective, reading: Reading, micro: MicroBatch) -> None:
        self._tracker.add((objective.metrics or preference_metrics)(objective, reading, micro))
        tokens = (micro.batch.segment_ids >= 0).sum()
        self._tracker.add({"tokens": Mean(tokens if micro.weight else tokens * 0, torch.zeros_like(tokens))})

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add what the steps since the last line came to, and what epoch it is."""
        self.state.epoch = self.state.global_step * self._steps.epochs_per_step
        if "loss" in logs:
            now = time.monotonic()
            figures = self._reduced(self._tracker)
            tokens = figures.pop("tokens", 0.0)
            figures |= {name: math.fsum(values) / len(values) for name, values in self._figures.items()}
            self._figures = {}
            logs |= figures | {"tokens_per_second": tokens / max(now - self._logged_at, 1e-9)}
            self._logged_at = now
        super().log(logs, start_time)

    def _reduced(self, tracker: MeanTracker) -> dict[str, float]:
        """The figures over all processes; what has no count is a total."""
        sums = tracker.drain()
        names = sorted(sums)
        if not names:
            return {}
        stacked = self.accelerator.reduce(torch.stack([sums[name] for name in names]).to(self.args.device), "sum")
        rows = stacked.tolist()
        return {
            name: total / count if count else total
            for name, (total, count) in zip(names, rows, strict=True)
            if count or name == "tokens"
        }

    # What is evaluated.

    def evaluate(
        self, eval_dataset: object = None, ignore_keys: object = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Loss and figures on the held-out rows, or what the evaluator finds."""
        with self._evaluating() as model:
            found = self._held_out_figures(model) if self._evaluator is None else self._evaluator()
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in found.items()}
        self.log(metrics)
        self._logged_at = time.monotonic()
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _held_out_figures(self, model: nn.Module) -> dict[str, float]:
        tracker = MeanTracker()
        objective = self._objective
        mismatched = self._split(mismatches_of(self._held_out_items))
        z0 = self._z0(model, mismatched) if objective.needs_mismatches else None
        for on_cpu in self._split(self._held_out_items):
            micro = on_cpu.to(self.args.device)
            reading = self._read(model, objective, micro)
            loss = objective.losses(reading, micro, z0).sum()
            counted = loss if micro.weight else torch.zeros_like(loss)
            tracker.add({"loss": Mean(counted, torch.full_like(loss, micro.weight))})
            tracker.add(preference_metrics(objective, reading, micro))
        return self._reduced(tracker)

    def rewards_of(self, items: Sequence[TrainingItem]) -> list[tuple[float, ...]]:
        """Reward of each completion of each row, in their order: the reward model's, or the one a policy implies."""
        found: dict[str, tuple[float, ...]] = {}
        with self._evaluating() as model:
            for on_cpu in self._split(items):
                micro = on_cpu.to(self.args.device)
                rewards = self._objective.rewards(self._read(model, self._objective, micro), micro).tolist()
                for row_id, of_row, present in zip(
                    micro.batch.ids, rewards, micro.batch.is_present.sum(-1).tolist(), strict=True
                ):
                    found[row_id] = tuple(of_row[:present])
        for other in gather_object([found]):
            found |= other
        return [found[item.example.id] for item in items]

    def _split(self, items: Sequence[TrainingItem]) -> Iterator[MicroBatch]:
        rank, world = self.args.process_index, self.args.world_size
        return evaluation_batches(items, self._objective, self._plan, rank=rank, world=world)

    @contextlib.contextmanager
    def _evaluating(self) -> Iterator[nn.Module]:
        """The model as it computes without learning."""
        model = self.model_wrapped
        was_training = model.training
        model.eval()
        try:
            with torch.no_grad(), self.compute_loss_context_manager():
                yield model
        finally:
            model.train(was_training)

    # What is saved.

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        latest = self._checkpoint
        with writing(latest), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Could not find a config file")  # peft's, of a base that ships
            super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()  # each process writes its own random state
        if self.args.should_save:
            with writing(latest):
                self._steps.save(latest)
            (latest / "README.md").unlink(missing_ok=True)  # peft's card is an empty form
            (latest / COMPLETE).touch()
            best = Path(self.state.best_model_checkpoint or latest).name
            remove_checkpoints(latest.parent, self._kept, best)

    def save_now(self) -> None:
        """A checkpoint after the last whole step, where a run cannot go on: what it has is not lost."""
        if self.state.global_step and not (self._checkpoint / COMPLETE).exists():
            self._save_checkpoint(self.model, trial=None)

    @property
    def _checkpoint(self) -> Path:
        return Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        if not self._objective.needs_values:
            super()._save(output_dir, state_dict)
            return
        values = value_state(self.model)
        with values_detached(self.model):
            super()._save(output_dir, None if state_dict is None else without_values(state_dict))
        if self.args.should_save:
            save_file(values, Path(output_dir or self.args.output_dir) / VALUES_FILE)

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Weights that are tied to others are in no checkpoint, and are there all the same."""
        tied = set(getattr(self.accelerator.unwrap_model(self.model), "_tied_weights_keys", None) or ())
        load_result.missing_keys[:] = [key for key in load_result.missing_keys if key not in tied]
        super()._issue_warnings_after_load(load_result)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self._objective.needs_values:
            with values_detached(self.model):
                super()._load_from_checkpoint(resume_from_checkpoint, model)
            load_value_state(self.model, load_file(Path(resume_from_checkpoint) / VALUES_FILE))
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        self._steps.load(Path(resume_from_checkpoint))

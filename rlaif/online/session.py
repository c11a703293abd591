"""One session of online training: models loaded, everyone who writes and judges opened, the trainer run to its end.

What the folder holds afterwards is the business of `results`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, TrainerCallback
from transformers.trainer_callback import PrinterCallback
from transformers.utils import logging as transformers_logging

from rlaif.config import as_dict
from rlaif.data.files import open_source
from rlaif.data.sources import ReadOptions
from rlaif.data.training_methods import TrainingOptions
from rlaif.data.training_rows import load_training_rows
from rlaif.engine.run_folder import RunFolder, versions
from rlaif.engine.training_callback import ListeningCallback
from rlaif.engine.training_listening import TrainingListener, TrainingStart
from rlaif.errors import ConfigError, RlaifError
from rlaif.models.encoding import ExampleEncoder
from rlaif.models.loading import load_model, stop_ids
from rlaif.models.logprobs import plan_logprobs
from rlaif.models.values import plan_values
from rlaif.online.assessing import Assessed, Reference, assess
from rlaif.online.config import ROUNDS, OnlineConfig
from rlaif.online.feed import FeedPlan, Imitation, RolloutFeed
from rlaif.online.generation import Generator, HfGenerator, base_of
from rlaif.online.guard_signs import Sign
from rlaif.online.inputs import OnlineInputs, Sizes, rates, self_judging
from rlaif.online.kept import KeptRollouts
from rlaif.online.memory import memory_note, weight_bytes
from rlaif.online.recipes import Recipe, make_recipe
from rlaif.online.self_judge import SelfJudge
from rlaif.online.source import Readings, RolloutSource
from rlaif.online.suite import SuiteRow, SuiteScores, compare, run_suite, suite_items
from rlaif.online.visits import Visits
from rlaif.online.watching import Evaluator, GuardedListener, Watched
from rlaif.rewards.config import RewardConfig
from rlaif.rewards.scoring import Scorer
from rlaif.rollout_records import Rollout
from rlaif.train.allocator import keep_freed_memory
from rlaif.train.arguments import training_arguments
from rlaif.train.checkpoints import last_checkpoint, step_of
from rlaif.train.config import SftLossConfig
from rlaif.train.items import make_items
from rlaif.train.models import load_policy
from rlaif.train.objectives import make_objective
from rlaif.train.step_inputs import ComputePlan
from rlaif.train.trainer import PreferenceTrainer
from rlaif.train.values import attach_critic, attach_value_head, load_critic

WATCH = "watch"
"""Folder of what the held-out judge has replied."""


@dataclass(frozen=True)
class OnlineRun:
    """A run whose last step is done.

    Attributes:
        trainer: With the trained policy.
        signs: Of reward hacking that were seen.
        suite: The bundled questions before and after; empty where they were not asked.
        counts: What became of the completions.
        notes: What there is to say of how it was computed.
    """

    trainer: PreferenceTrainer
    signs: Sequence[Sign]
    suite: Sequence[SuiteRow]
    counts: Mapping[str, Any]
    notes: tuple[str, ...]


class OnlineSession:
    """Trains, and keeps `run.json` up to date.

    Args:
        method, config, inputs, sizes: What is trained, how, on what.
        folder: Of the run.
        listener: Told how far it is.
        command: How a person would repeat this.

    Raises:
        ConfigError: Settings that do not fit the machine or each other.
    """

    def __init__(
        self,
        method: str,
        config: OnlineConfig,
        inputs: OnlineInputs,
        sizes: Sizes,
        folder: RunFolder,
        listener: TrainingListener,
        command: str,
    ) -> None:
        self.method, self.config, self.inputs, self.sizes = method, config, inputs, sizes
        self.folder, self.listener, self.command = folder, listener, command
        loss: Any = config.loss  # type: ignore[attr-defined]  # the class of every method has one
        self.recipe: Recipe = make_recipe(loss, config.rollout, seed=config.seed)
        checkpoints = config.checkpoints
        if checkpoints.early_stopping is not None:
            raise ConfigError("early_stopping: waits for a lower loss, which means nothing here; leave it out")
        watch_every = config.guarding.watch_every or checkpoints.eval_every
        self.args = training_arguments(
            method, config.optimization, replace(checkpoints, eval_every=watch_every), config.adapter,
            folder=folder.path / "checkpoints", steps=sizes.steps, device=inputs.source.device, seed=config.seed,
            is_evaluated=bool(inputs.watched),
        )  # fmt: skip
        if self.args.world_size > 1:
            raise ConfigError(
                f"{method} runs in one process, and {self.args.world_size} were started; leave out torchrun"
            )
        self.args.metric_for_best_model = None
        if self.args.device.type == "cpu":
            keep_freed_memory()
        self.versions = versions()
        self.facts: dict[str, Any] = {}
        self._seconds_before = 0.0
        self._began = time.monotonic()
        self._device = self.args.device

    @property
    def model_name(self) -> str:
        """Of the model it starts from: as it was given where it ships, else without its machine's path."""
        given = self.config.model
        return given if given.startswith("builtin:") else self.inputs.source.name

    @property
    def seconds(self) -> float:
        """Of all sessions."""
        return round(self._seconds_before + time.monotonic() - self._began, 3)

    def begin(self, facts: Mapping[str, Any], earlier: Mapping[str, Any] | None) -> None:
        """Take up what `run.json` is to say whatever happens, and what the session before said."""
        self.facts = {
            **facts,
            "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": self.versions,
            "resolved": {"learning_rate": self.args.learning_rate, **vars(self.sizes)},
        }
        self._seconds_before = float((earlier or {}).get("seconds", 0.0))

    def write_run_json(self, status: str, **more: Any) -> None:
        """Say how far the run is."""
        content = {**self.facts, "status": status, "steps": self.sizes.steps, "seconds": self.seconds, **more}
        self.folder.write(content)

    # --- everyone who takes part ------------------------------------------------------------------------------------

    def policy(self) -> PreTrainedModel:
        """The policy, ready to be trained, with what predicts its returns."""
        config = self.config
        model = load_policy(self.inputs.source, config.adapter, seed=config.seed)
        if config.adapter.lora_rank is not None and config.model.startswith("builtin:"):
            model.peft_config["default"].base_model_name_or_path = config.model
        if self.recipe.needs_values:
            if self.inputs.critic is None:
                attach_value_head(model)
            else:
                attach_critic(model, load_critic(self.inputs.critic))
        return model

    def scorer(self, model: PreTrainedModel) -> Scorer:
        """Who rewards."""
        config, backends = self.config, None
        if self_judging(config):
            backends = [
                SelfJudge(
                    self.inputs.source.path, model,
                    max_batch_tokens=config.backend.batch_tokens, truncate=config.backend.truncate,
                )
            ]  # fmt: skip
        return Scorer(
            config.rewarding,
            config,
            self.folder.journal,
            backends=backends,
            compares=self.recipe.asks == "comparisons",
            on_warning=self.listener.on_warning,
        )

    def watch_scorer(self) -> Scorer | None:
        """The judge that is not trained against."""
        config = self.config
        if not config.guarding.watch_judge or not self.inputs.watched:
            return None
        settings = replace(config, backend=replace(config.backend, judge=config.guarding.watch_judge))
        rewarding = replace(RewardConfig(), judge_patience=config.rewarding.judge_patience)
        journal = self.folder.path / WATCH / "journal"
        return Scorer(rewarding, settings, journal, on_warning=self.listener.on_warning)

    # --- the run ----------------------------------------------------------------------------------------------------

    def train(self, model: PreTrainedModel, scorer: Scorer) -> OnlineRun:
        """Every step that is left.

        Raises:
            KeyboardInterrupt: The listener asked to stop, or a sign of reward hacking did; there is a checkpoint.
            RlaifError: The judge is gone, a reward is none, the loss is not finite, ...; what was done is kept.
        """
        config, inputs = self.config, self.inputs
        plan, notes = self._plan(model)
        self._plan_critic(model)
        encoder = ExampleEncoder(inputs.source.tokenizer, stop_ids(inputs.source))
        listening = ListeningCallback(self.listener, self.folder.path / "metrics.jsonl")
        kept = KeptRollouts(self.folder.path, config.keep_rollouts, config.seed)
        guarded = GuardedListener(config.guarding, kept, lambda sign: self._on_sign(sign, listening))
        resumed = last_checkpoint(Path(self.args.output_dir))
        with ExitStack() as stack:
            watch_scorer = self.watch_scorer()
            if watch_scorer is not None:
                stack.callback(watch_scorer.close)
            generator = self._generator(model)
            stack.callback(generator.close)
            before = self._suite_before(model, encoder, plan, resumed)
            trainer = self._trainer(model, plan, scorer, watch_scorer, generator, guarded, [listening])
            self._say_start(plan, step_of(resumed) if resumed else 0)
            self.args.eval_on_start = resumed is None and bool(inputs.watched)
            transformers_logging.disable_progress_bar()
            if resumed is not None and step_of(resumed) == self.sizes.steps:
                transformers_logging.set_verbosity_error()  # it would wonder why there is no step left
            self.write_run_json("running")
            try:
                trainer.train(resume_from_checkpoint=None if resumed is None else str(resumed))
            except RlaifError:
                trainer.save_now()
                raise
            if listening.is_stopped:
                raise KeyboardInterrupt
            suite = () if before is None else compare(before, self._suite(model, encoder, plan))
            return OnlineRun(trainer, guarded.signs, suite, as_dict(scorer.counts), notes)

    def _trainer(
        self,
        model: PreTrainedModel,
        plan: ComputePlan,
        scorer: Scorer,
        watch_scorer: Scorer | None,
        generator: Generator,
        guarded: GuardedListener,
        callbacks: Sequence[TrainerCallback],
    ) -> PreferenceTrainer:
        config, inputs = self.config, self.inputs
        reference = self._reference(model, plan) if self.recipe.needs_reference else None
        self._tell_memory(model, reference)
        source = RolloutSource(
            Visits(inputs.rows, config.seed), generator, scorer, self.recipe,
            self._readings(model, plan, reference), config.rollout,
            group_size=self.sizes.group, decode=self._decode, rates=rates(config),
            judges_meanwhile=not self_judging(config), seed=config.seed, on_warning=self.listener.on_warning,
        )  # fmt: skip
        feed = RolloutFeed(
            source, self._feed_plan(), plan, total=self.sizes.steps, step_of=lambda: trainer.state.global_step,
            listener=guarded, imitation=self._imitation(),
        )  # fmt: skip
        evaluator = None
        if inputs.watched:
            evaluator = self._evaluator(model, plan, scorer, watch_scorer, generator, reference)

        def evaluate() -> Mapping[str, float]:
            assert evaluator is not None
            figures, by_name = evaluator.evaluate(trainer.state.global_step)
            guarded.on_evaluation(figures)
            return by_name

        trainer = PreferenceTrainer(
            model, self.args, objective=self.recipe.objective(0), plan=plan, steps=feed,
            evaluator=evaluate if evaluator is not None else None,
            callbacks=[*callbacks, _SyncingCallback(generator), *self._tensorboard()],
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        return trainer

    def _tell_memory(self, model: PreTrainedModel, reference: Reference | None) -> None:
        """Say what the weights take, beside a model for each role."""
        roles = 1 + (reference is not None) + self_judging(self.config) + self.recipe.needs_values
        others = [] if reference is None or reference.model is None else [reference.model]
        held, base = weight_bytes([model, *others]), weight_bytes([base_of(model)])
        self.facts["memory"] = {"weights_bytes": held, "roles": roles, "as_separate_models_bytes": roles * base}
        if roles > 1:
            self.listener.on_message(memory_note(held, base, roles))

    def _feed_plan(self) -> FeedPlan:
        sizes = self.sizes
        return FeedPlan(
            prompts=sizes.prompts,
            steps=sizes.steps_of_pass,
            passes=sizes.passes,
            batch_size=self.config.optimization.batch_size,
            is_round=self.method in ROUNDS,
            overlaps=self.config.rollout.overlap,
            seed=self.config.seed,
        )

    def _plan(self, model: PreTrainedModel) -> tuple[ComputePlan, tuple[str, ...]]:
        with self._autocast():
            is_packed, is_chunked, notes = plan_logprobs(model, self.inputs.context)
        for note in notes:
            self.listener.on_message(note)
        return ComputePlan(is_packed, is_chunked, self.config.optimization.compute_tokens), notes

    def _plan_critic(self, model: PreTrainedModel) -> None:
        critic = getattr(model, "critic", None)
        if isinstance(critic, PreTrainedModel):
            with self._autocast():
                fault = plan_values(critic, self.inputs.context)
            if not fault.is_packed:
                raise ConfigError(
                    f"value: the critic cannot read packed rows ({'; '.join(fault.notes)}); use --value head"
                )

    def _generator(self, model: PreTrainedModel) -> Generator:
        config = self.config
        if config.rollout.rollouts == "hf":
            return HfGenerator(model, self.inputs.stops, max_batch_tokens=config.optimization.compute_tokens)
        from rlaif.online.vllm_generation import VllmGenerator

        rollout = config.rollout
        return VllmGenerator(
            model, self.inputs.source, self.inputs.stops,
            temperature=rollout.rollout_temperature, top_p=rollout.rollout_top_p, engine_args=rollout.rollout_vllm_arg,
        )  # fmt: skip

    def _reference(self, model: nn.Module, plan: ComputePlan) -> Reference:
        """What the policy is held to; a model of its own where there is no adapter to switch off."""
        other = self.inputs.reference
        if other is None and self.config.adapter.lora_rank is not None:
            return Reference(model, None, plan)
        loaded = load_model(other or self.inputs.source).to(self._device)
        loaded.requires_grad_(False)
        with self._autocast():
            is_packed, is_chunked, _ = plan_logprobs(loaded, self.inputs.context)
        return Reference(model, loaded, ComputePlan(is_packed, is_chunked, plan.max_tokens))

    def _readings(self, model: nn.Module, plan: ComputePlan, reference: Reference | None) -> Readings:
        objective = self.recipe.objective(0)
        # What was noted while writing is what the trainer would compute, but for another engine or number type.
        is_exact = self.config.rollout.rollouts == "hf" and not (self.args.bf16 or self.args.fp16)
        policy = None
        if self.recipe.needs_values or not is_exact:

            def policy(rollouts: Sequence[Rollout]) -> list[Assessed]:
                return assess(
                    model, rollouts, objective, plan, device=self._device, autocast=self._autocast,
                    with_values=self.recipe.needs_values,
                )  # fmt: skip

        return Readings(policy, None if reference is None else self._asking_reference(reference))

    def _asking_reference(self, reference: Reference) -> Callable[[Sequence[Rollout]], list[Assessed]]:
        objective = self.recipe.objective(0)

        def ask(rollouts: Sequence[Rollout]) -> list[Assessed]:
            with reference.computing() as model:
                return assess(
                    model, rollouts, objective, reference.plan, device=self._device, autocast=self._autocast
                )  # fmt: skip

        return ask

    def _evaluator(
        self,
        model: PreTrainedModel,
        plan: ComputePlan,
        scorer: Scorer,
        watch_scorer: Scorer | None,
        generator: Generator,
        reference: Reference | None,
    ) -> Evaluator:
        config = self.config
        has_judge = any(spec.kind == "judge" for spec in config.rewarding.specs)

        def ask_reference(rollouts: Sequence[Rollout]) -> list[Assessed]:
            # One that is needed only now and then is loaded each time, rather than kept in memory.
            return self._asking_reference(reference or self._reference(model, plan))(rollouts)

        watched = Watched(scorer, watch_scorer, watch_scorer or (scorer if has_judge else None), ask_reference)
        return Evaluator(
            self.inputs.watched, generator, watched, config.rollout, decode=self._decode, folder=self.folder.path,
            seed=config.seed, pairs=watch_scorer is not None,
        )  # fmt: skip

    def _imitation(self) -> Imitation | None:
        loss: Any = self.config.loss  # type: ignore[attr-defined]
        path = getattr(loss, "ptx_data", None)
        if path is None or not loss.ptx_weight:
            return None
        data = load_training_rows(open_source(path), TrainingOptions("sft", ReadOptions(seed=self.config.seed)))
        encoder = ExampleEncoder(self.inputs.source.tokenizer, stop_ids(self.inputs.source))
        items, _ = make_items(data.train, encoder, "soft", max_length=self.inputs.context, cut="completion")
        return Imitation(items, make_objective("sft", SftLossConfig()), loss.ptx_weight)

    def _tensorboard(self) -> list[TrainerCallback]:
        """Curves for TensorBoard, in the run's folder; none where it is not installed or others are asked for."""
        if self.config.checkpoints.report_to:
            return []
        from importlib.util import find_spec

        if find_spec("tensorboard") is None:
            return []
        from torch.utils.tensorboard import SummaryWriter
        from transformers.integrations import TensorBoardCallback

        return [TensorBoardCallback(SummaryWriter(log_dir=str(self.folder.path / "tensorboard")))]

    def _suite_before(
        self, model: PreTrainedModel, encoder: ExampleEncoder, plan: ComputePlan, resumed: Path | None
    ) -> SuiteScores | None:
        """The bundled questions before training, asked once for all sessions."""
        if self.config.guarding.guards == "off" or self.config.guarding.suite == "none":
            return None
        path = self.folder.path / "evaluations" / "suite-before.json"
        if path.exists():
            return SuiteScores.from_json(json.loads(path.read_text(encoding="utf-8")))
        if resumed is not None:
            return None
        scores = self._suite(model, encoder, plan)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(scores.as_json()), encoding="utf-8")
        return scores

    def _suite(self, model: PreTrainedModel, encoder: ExampleEncoder, plan: ComputePlan) -> SuiteScores:
        return run_suite(
            model, encoder, suite_items(self.config.guarding.suite), plan,
            device=self._device, max_length=self.inputs.context, autocast=self._autocast,
        )  # fmt: skip

    def _say_start(self, plan: ComputePlan, done: int) -> None:
        rows = self.inputs.rows
        tokens = sum(len(row.ids) for row in rows)
        self.listener.on_start(
            TrainingStart(
                self.method, self.model_name, len(rows), len(self.inputs.watched), tokens, self.sizes.steps, done
            )
        )

    def _on_sign(self, sign: Sign, listening: ListeningCallback) -> None:
        self.listener.on_warning(f"step {sign.step}: {sign.name}: {sign.text}")
        if self.config.guarding.stop_on_hack:
            listening.stop()

    def _decode(self, ids: Sequence[int]) -> str:
        text: str = self.inputs.source.tokenizer.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    @contextmanager
    def _autocast(self) -> Iterator[None]:
        dtype = torch.bfloat16 if self.args.bf16 else torch.float16 if self.args.fp16 else None
        scope: AbstractContextManager[None] = torch.autocast(self._device.type, dtype, enabled=dtype is not None)
        with scope:
            yield


class _SyncingCallback(TrainerCallback):  # type: ignore[misc]  # transformers has no types
    """Tells who writes of every change of the weights."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step:  # those of a checkpoint
            self._generator.sync_weights(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._generator.sync_weights(state.global_step)

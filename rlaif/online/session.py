"""One session of online training: models loaded, everyone who writes and judges opened, the trainer run to its end.

What the folder holds afterwards is the business of `results`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, TrainerCallback
from transformers.trainer_callback import PrinterCallback
from transformers.utils import logging as transformers_logging

from rlaif.config import as_dict
from rlaif.engine.run_folder import RunFolder, versions
from rlaif.engine.training_callback import ListeningCallback
from rlaif.engine.training_listening import TrainingListener, TrainingStart
from rlaif.errors import BackendError, BackendUnusableError, ConfigError, RlaifError
from rlaif.models.encoding import ExampleEncoder
from rlaif.models.loading import stop_ids
from rlaif.online.assessing import Reference
from rlaif.online.config import ROUNDS, OnlineConfig
from rlaif.online.feed import FeedPlan, RolloutFeed
from rlaif.online.generation import Generator, OnFinished, RolloutJob, Written, base_of, unheard
from rlaif.online.guard_signs import Sign
from rlaif.online.inputs import OnlineInputs, Sizes, rates, self_judging
from rlaif.online.kept import KeptRollouts
from rlaif.online.memory import memory_note, weight_bytes
from rlaif.online.opening import Opening
from rlaif.online.recipes import Recipe, make_recipe
from rlaif.online.source import RolloutSource
from rlaif.online.suite import SuiteRow, SuiteScores, compare
from rlaif.online.visits import Visits
from rlaif.online.watching import Evaluator, GuardedListener
from rlaif.rewards.scoring import Scorer
from rlaif.train.allocator import keep_freed_memory
from rlaif.train.arguments import training_arguments
from rlaif.train.checkpoints import last_checkpoint, step_of
from rlaif.train.step_inputs import ComputePlan
from rlaif.train.trainer import PreferenceTrainer


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
        self.signs: list[Sign] = []
        """Of reward hacking, in this session."""
        self._reference: Reference | None = None
        self._seconds_before = 0.0
        self._began = time.monotonic()
        self.opening = Opening(config, inputs, self.recipe, self.args, folder, listener)

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

    # --- the run ----------------------------------------------------------------------------------------------------

    def train(self, model: PreTrainedModel, scorer: Scorer) -> OnlineRun:
        """Every step that is left.

        Raises:
            KeyboardInterrupt: The listener asked to stop, or a sign of reward hacking did; there is a checkpoint.
            RlaifError: The judge is gone, a reward is none, the loss is not finite, ...; what was done is kept.
        """
        config, inputs = self.config, self.inputs
        plan, notes = self.opening.plan(model)
        self.opening.plan_critic(model)
        encoder = ExampleEncoder(inputs.source.tokenizer, stop_ids(inputs.source))
        listening = ListeningCallback(self.listener, self.folder.path / "metrics.jsonl")
        kept = KeptRollouts(self.folder.path, config.keep_rollouts, config.seed)
        guarded = GuardedListener(config.guarding, kept, lambda sign: self._on_sign(sign, listening))
        resumed = last_checkpoint(Path(self.args.output_dir))
        with ExitStack() as stack:
            watch_scorer = self.opening.watch_scorer()
            if watch_scorer is not None:
                stack.callback(watch_scorer.close)
            generator = _LatestWeights(self.opening.generator(model))
            stack.callback(generator.close)
            self.write_run_json("running")  # before any other file: without it the folder would be nobody's
            self.folder.write_failures(inputs.failures)
            before = self._suite_before(model, encoder, plan, resumed)
            self._reference = self.opening.reference(model, plan) if self.recipe.needs_reference else None
            self._tell_memory(model)
            evaluator = None
            if inputs.watched:
                evaluator = self.opening.evaluator(model, plan, scorer, watch_scorer, generator, self._reference)
            feed = self._feed(model, plan, scorer, generator, guarded)
            trainer = self._trainer(model, plan, feed, evaluator, guarded, [listening, _SyncingCallback(generator)])
            self._say_start(plan, step_of(resumed) if resumed else 0)
            self.args.eval_on_start = resumed is None and bool(inputs.watched)
            transformers_logging.disable_progress_bar()
            if resumed is not None and step_of(resumed) == self.sizes.steps:
                transformers_logging.set_verbosity_error()  # it would wonder why there is no step left
            self.write_run_json("running")
            try:
                trainer.train(resume_from_checkpoint=None if resumed is None else str(resumed))
            except RlaifError as error:
                # No step is half done. But a policy that cannot write is nothing to go on from.
                if feed.is_waiting and (isinstance(error, BackendUnusableError) or not isinstance(error, BackendError)):
                    trainer.save_now()
                raise
            if listening.is_stopped:
                raise KeyboardInterrupt
            suite = () if before is None else compare(before, self.opening.suite(model, encoder, plan))
            return OnlineRun(trainer, guarded.signs, suite, as_dict(scorer.counts), notes)

    def _feed(
        self, model: PreTrainedModel, plan: ComputePlan, scorer: Scorer, generator: Generator, guarded: GuardedListener
    ) -> RolloutFeed:
        config, opening = self.config, self.opening
        source = RolloutSource(
            Visits(self.inputs.rows, config.seed), generator, scorer, self.recipe,
            opening.readings(model, plan, self._reference), config.rollout,
            group_size=self.sizes.group, decode=opening.decode, rates=rates(config),
            judges_meanwhile=not self_judging(config), seed=config.seed, on_warning=self.listener.on_warning,
        )  # fmt: skip
        return RolloutFeed(
            source, self._feed_plan(), plan, total=self.sizes.steps, listener=guarded, imitation=opening.imitation()
        )

    def _trainer(
        self,
        model: PreTrainedModel,
        plan: ComputePlan,
        feed: RolloutFeed,
        evaluator: Evaluator | None,
        guarded: GuardedListener,
        callbacks: Sequence[TrainerCallback],
    ) -> PreferenceTrainer:
        def evaluate() -> Mapping[str, float]:
            assert evaluator is not None
            figures, by_name = evaluator.evaluate(trainer.state.global_step)
            guarded.on_evaluation(figures)
            return by_name

        trainer = PreferenceTrainer(
            model, self.args, objective=self.recipe.objective(0), plan=plan, steps=feed,
            evaluator=evaluate if evaluator is not None else None,
            callbacks=[*callbacks, *self._tensorboard()],
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        feed.step_of = lambda: trainer.state.global_step
        return trainer

    def _tell_memory(self, model: PreTrainedModel) -> None:
        """Say what the weights take, beside a model for each role."""
        reference = self._reference
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
        scores = self.opening.suite(model, encoder, plan)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".new")
        temporary.write_text(json.dumps(scores.as_json()), encoding="utf-8")
        temporary.replace(path)
        return scores

    def _say_start(self, plan: ComputePlan, done: int) -> None:
        rows = self.inputs.rows
        tokens = sum(len(row.ids) for row in rows)
        self.listener.on_start(
            TrainingStart(
                self.method, self.model_name, len(rows), len(self.inputs.watched), tokens, self.sizes.steps, done
            )
        )

    def _on_sign(self, sign: Sign, listening: ListeningCallback) -> None:
        stops = self.config.guarding.stop_on_hack and sign.is_hack
        end = "; stopping after the next step, with a checkpoint (--stop-on-hack)" if stops else ""
        self.listener.on_warning(f"step {sign.step}: {sign.name}: {sign.text}{end}")
        self.signs.append(sign)
        if stops:
            listening.stop()


class _LatestWeights:
    """A generator that gets the weights when it is to write, and not after each of the steps before that."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator
        self._changed_at: int | None = None

    def generate(self, jobs: Sequence[RolloutJob], *, on_finished: OnFinished = unheard) -> list[Written]:
        if self._changed_at is not None:
            self._generator.sync_weights(self._changed_at)
            self._changed_at = None
        return self._generator.generate(jobs, on_finished=on_finished)

    def sync_weights(self, step: int) -> None:
        self._changed_at = step

    def close(self) -> None:
        self._generator.close()


class _SyncingCallback(TrainerCallback):  # type: ignore[misc]  # transformers has no types
    """Tells who writes of every change of the weights."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step:  # those of a checkpoint
            self._generator.sync_weights(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._generator.sync_weights(state.global_step)

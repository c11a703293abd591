"""Everyone who takes part in online training, opened as the settings say: policy, reference, judges, who writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, TrainingArguments

from rlaif.engine.run_folder import RunFolder
from rlaif.engine.training_listening import TrainingListener
from rlaif.errors import ConfigError
from rlaif.models.encoding import ExampleEncoder
from rlaif.models.loading import load_model, stop_ids
from rlaif.models.logprobs import plan_logprobs
from rlaif.models.values import plan_values
from rlaif.online.assessing import Assessed, Reference, assess
from rlaif.online.config import OnlineConfig
from rlaif.online.feed import Imitation
from rlaif.online.generation import Generator, HfGenerator
from rlaif.online.inputs import OnlineInputs, self_judging
from rlaif.online.recipes import Recipe
from rlaif.online.self_judge import SelfJudge
from rlaif.online.source import Readings
from rlaif.online.suite import SuiteScores, run_suite, suite_items
from rlaif.online.watching import Evaluator, Watched
from rlaif.rewards.config import RewardConfig
from rlaif.rewards.scoring import Scorer
from rlaif.rollout_records import Rollout
from rlaif.train.config import SftLossConfig
from rlaif.train.items import make_items
from rlaif.train.models import load_policy
from rlaif.train.objectives import Objective, make_objective
from rlaif.train.step_inputs import ComputePlan
from rlaif.train.values import attach_critic, attach_value_head, load_critic

WATCH = "watch"
"""Folder of what the held-out judge has replied."""


class Opening:
    """Opens them.

    Args:
        config, inputs: What is trained, how, on what.
        recipe: The method.
        args: Of the trainer.
        folder: Of the run.
        listener: Told of what is odd.
    """

    def __init__(
        self,
        config: OnlineConfig,
        inputs: OnlineInputs,
        recipe: Recipe,
        args: TrainingArguments,
        folder: RunFolder,
        listener: TrainingListener,
    ) -> None:
        self.config, self.inputs, self.recipe, self.args = config, inputs, recipe, args
        self.folder, self.listener = folder, listener

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
            tau=getattr(config.loss, "tau", 1.0),  # type: ignore[attr-defined]
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

    def plan(self, model: PreTrainedModel) -> tuple[ComputePlan, tuple[str, ...]]:
        with self.autocast():
            is_packed, is_chunked, notes = plan_logprobs(model, self.inputs.context)
        for note in notes:
            self.listener.on_message(note)
        return ComputePlan(is_packed, is_chunked, self.config.optimization.compute_tokens), notes

    def plan_critic(self, model: PreTrainedModel) -> None:
        critic = getattr(model, "critic", None)
        if isinstance(critic, PreTrainedModel):
            with self.autocast():
                fault = plan_values(critic, self.inputs.context)
            if not fault.is_packed:
                raise ConfigError(
                    f"value: the critic cannot read packed rows ({'; '.join(fault.notes)}); use --value head"
                )

    def generator(self, model: PreTrainedModel) -> Generator:
        config = self.config
        if config.rollout.rollouts == "hf":
            tokens = config.optimization.compute_tokens
            return HfGenerator(model, self.inputs.stops, max_batch_tokens=tokens, computing=self.autocast)
        from rlaif.online.vllm_generation import VllmGenerator

        rollout = config.rollout
        return VllmGenerator(
            model, self.inputs.source, self.inputs.stops,
            temperature=rollout.rollout_temperature, top_p=rollout.rollout_top_p, engine_args=rollout.rollout_vllm_arg,
        )  # fmt: skip

    def reference(self, model: nn.Module, plan: ComputePlan) -> Reference:
        """What the policy is held to; a model of its own where there is no adapter to switch off."""
        other = self.inputs.reference
        if other is None and self.config.adapter.lora_rank is not None:
            return Reference(model, None, plan)
        loaded = load_model(other or self.inputs.source).to(self.args.device)
        loaded.requires_grad_(False)
        with self.autocast():
            is_packed, is_chunked, _ = plan_logprobs(loaded, self.inputs.context)
        return Reference(model, loaded, ComputePlan(is_packed, is_chunked, plan.max_tokens))

    def readings(self, model: nn.Module, plan: ComputePlan, reference: Reference | None) -> Readings:
        # What was noted while writing is what the trainer would compute, but for another engine or number type.
        is_exact = self.config.rollout.rollouts == "hf" and not (self.args.bf16 or self.args.fp16)
        needs_values, overlaps = self.recipe.needs_values, self.config.rollout.overlap

        def read(rollouts: Sequence[Rollout], *, with_values: bool = False) -> list[Assessed]:
            return assess(
                model, rollouts, self._objective, plan, device=self.args.device, autocast=self.autocast,
                with_values=with_values,
            )  # fmt: skip

        def policy(rollouts: Sequence[Rollout]) -> list[Assessed]:
            found = read(rollouts, with_values=needs_values)
            if not (is_exact or overlaps):
                return found
            # With overlap the policy has learnt since it wrote: log-probabilities are to be of the one that wrote.
            return [
                one._replace(logprobs=tuple(completion.logprobs for completion in rollout.completions))
                for one, rollout in zip(found, rollouts, strict=True)
            ]

        return Readings(
            policy if needs_values or not (is_exact or overlaps) else None,
            None if reference is None else self.asking_reference(reference),
            read if overlaps and not is_exact else None,
        )

    @property
    def _objective(self) -> Objective:
        """What rollouts are read with: tempered as they were sampled, also where they are imitated without."""
        return replace(self.recipe.objective(0), temperature=self.config.rollout.rollout_temperature)

    def asking_reference(self, reference: Reference) -> Callable[[Sequence[Rollout]], list[Assessed]]:
        objective = self._objective

        def ask(rollouts: Sequence[Rollout]) -> list[Assessed]:
            with reference.computing() as model:
                return assess(
                    model, rollouts, objective, reference.plan, device=self.args.device, autocast=self.autocast
                )  # fmt: skip

        return ask

    def evaluator(
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
            return self.asking_reference(reference or self.reference(model, plan))(rollouts)

        watched = Watched(scorer, watch_scorer, watch_scorer or (scorer if has_judge else None), ask_reference)
        return Evaluator(
            self.inputs.watched, generator, watched, config.rollout, decode=self.decode, folder=self.folder.path,
            seed=config.seed, pairs=watch_scorer is not None,
        )  # fmt: skip

    def imitation(self) -> Imitation | None:
        data = self.inputs.imitated
        if data is None:
            return None
        loss: Any = self.config.loss  # type: ignore[attr-defined]
        encoder = ExampleEncoder(self.inputs.source.tokenizer, stop_ids(self.inputs.source))
        items, _ = make_items(data.train, encoder, "soft", max_length=self.inputs.context, cut="completion")
        return Imitation(items, make_objective("sft", SftLossConfig()), loss.ptx_weight)

    def suite(self, model: PreTrainedModel, encoder: ExampleEncoder, plan: ComputePlan) -> SuiteScores:
        return run_suite(
            model, encoder, suite_items(self.config.guarding.suite), plan,
            device=self.args.device, max_length=self.inputs.context, autocast=self.autocast,
        )  # fmt: skip

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self.inputs.source.tokenizer.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    @contextmanager
    def autocast(self) -> Iterator[None]:
        dtype = torch.bfloat16 if self.args.bf16 else torch.float16 if self.args.fp16 else None
        scope: AbstractContextManager[None] = torch.autocast(self.args.device.type, dtype, enabled=dtype is not None)
        with scope:
            yield

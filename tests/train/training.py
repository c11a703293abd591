"""Every method on random rows with a tiny random model: what the tests of the trainer share."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tiny_models import make_model
from torch import Tensor, nn
from transformers import LlamaForSequenceClassification, PreTrainedModel, TrainerCallback
from transformers.trainer_callback import PrinterCallback

from rlaif.models.examples import Example
from rlaif.models.logprobs import disable_dropout
from rlaif.train.arguments import training_arguments
from rlaif.train.config import (
    AdapterConfig,
    CheckpointConfig,
    DpoLossConfig,
    HpoLossConfig,
    IpoLossConfig,
    KtoLossConfig,
    OptimizationConfig,
    RewardLossConfig,
    RobustDpoLossConfig,
    RrhfLossConfig,
    SftLossConfig,
    SimpoLossConfig,
    SmoothedDpoLossConfig,
)
from rlaif.train.items import TrainingItem, with_mismatches, with_references
from rlaif.train.objectives import Objective, make_objective
from rlaif.train.reference import reference_logprobs
from rlaif.train.step_inputs import ComputePlan, Steps
from rlaif.train.trainer import PreferenceTrainer

VOCABULARY = 61
LONGEST = 64
LOSSES: dict[str, Any] = {
    "sft": SftLossConfig(),
    "rm": RewardLossConfig(centering=0.01),
    "rm-ranking": RewardLossConfig(),
    "rm-all-pairs": RewardLossConfig(ranking="all-pairs", centering=0.01),
    "dpo": DpoLossConfig(),
    "gdpo": DpoLossConfig(),
    "cdpo": SmoothedDpoLossConfig(),
    "robust-dpo": RobustDpoLossConfig(),
    "ipo": IpoLossConfig(),
    "kto": KtoLossConfig(),
    "hpo": HpoLossConfig(),
    "simpo": SimpoLossConfig(),
    "rrhf": RrhfLossConfig(),
}
"""Loss settings by method; of a reward model also by what it learns from."""
METHODS = tuple(LOSSES)
OF_PAIRS = ("rm", "dpo", "gdpo", "cdpo", "robust-dpo", "ipo", "kto", "hpo", "simpo")
REFERRING = ("dpo", "gdpo", "cdpo", "robust-dpo", "ipo", "kto", "hpo")
SLOW = {"optimizer": "sgd", "learning_rate": 2e-3, "max_grad_norm": 0.0, "schedule": "constant", "warmup": 0.0}
"""Steps in proportion to the gradient: a gradient of another size ends at other weights."""


def objective_of(method: str, config: Any = None) -> Objective:
    name = "rm" if method.startswith("rm-") else method
    return make_objective(name, config or LOSSES[method], is_ranking=name != method)


def items_of(method: str, count: int = 8, seed: int = 0) -> list[TrainingItem]:
    """Rows of unequal lengths; each prompt twice where a pair asks for it."""
    draw = random.Random(seed)

    def ids(shortest: int, longest: int) -> tuple[int, ...]:
        return tuple(draw.randrange(1, VOCABULARY) for _ in range(draw.randint(shortest, longest)))

    items = []
    for number in range(count):
        responses = {"sft": 1, "rrhf": 2 + number % 3, "rm-ranking": 2 + number % 3, "rm-all-pairs": 2 + number % 3}
        k = responses.get(method, 2)
        if method == "sft":
            scores: tuple[float, ...] = ()
        elif method in OF_PAIRS:
            prob = draw.choice([0.05, 0.3, 0.5, 0.8, 1.0])
            scores = (prob, 1.0 - prob)
        else:
            scores = tuple(float(draw.randint(1, 5)) for _ in range(k))
        example = Example(f"r{number}", ids(3, 9), tuple(ids(1, 9) for _ in range(k)))
        margin = 0.25 * (number % 3) if method == "rm" else 0.0
        aux_weights = (0.5 * (number % 3), 3.0) if method == "hpo" else None
        items.append(TrainingItem(example, scores, margin, aux_weights=aux_weights))
    return with_mismatches(items, seed, max_length=LONGEST) if method in ("kto", "hpo") else items


def model_of(method: str, kind: str = "llama", seed: int = 0) -> PreTrainedModel:
    """On the CPU; the same weights each time, and none of its dropout."""
    model = make_model(kind, VOCABULARY, context=LONGEST, seed=seed)
    if method.startswith("rm"):
        config = model.config
        config.num_labels, config.pad_token_id, config.initializer_range = 1, 0, 0.1
        torch.manual_seed(seed)
        model = LlamaForSequenceClassification(config)
    disable_dropout(model)
    return model.eval()


def referenced(
    items: Sequence[TrainingItem], model: nn.Module, *, is_packed: bool = True, max_tokens: int = 400
) -> list[TrainingItem]:
    """With the log-probabilities of a model as the reference."""

    def ask(examples: Sequence[Example]) -> list[tuple[float, ...]]:
        return reference_logprobs(
            model, examples, is_packed=is_packed, is_chunked=True, max_tokens=max_tokens, device="cpu"
        )

    return with_references(items, ask)


def rows_of(method: str, count: int = 8, seed: int = 0) -> list[TrainingItem]:
    """`items_of`, with the log-probabilities of another model where the method wants a reference."""
    items = items_of(method, count, seed)
    return referenced(items, model_of(method, seed=9)) if method in REFERRING else items


def exchanged(item: TrainingItem) -> TrainingItem:
    """The same pair with A and B exchanged."""

    def turned(values: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        return None if values is None else values[::-1]

    mismatched = None if item.mismatched is None else exchanged(item.mismatched)
    example = replace(item.example, completions=item.example.completions[::-1])
    return replace(
        item, example=example, scores=item.scores[::-1], reference=turned(item.reference), mismatched=mismatched,
        aux_weights=turned(item.aux_weights),
    )  # fmt: skip


@dataclass
class Run:
    """A training run: how it is set up, and what came of it."""

    method: str
    folder: Path
    items: Sequence[TrainingItem]
    held_out: Sequence[TrainingItem] = ()
    model: nn.Module | None = None
    config: Any = None
    batch_size: int = 4
    steps: int = 3
    plan: ComputePlan = field(default_factory=ComputePlan)
    optimization: dict[str, Any] = field(default_factory=lambda: dict(SLOW))
    checkpoints: CheckpointConfig = field(default_factory=lambda: CheckpointConfig(save_every=1000))
    callbacks: Sequence[TrainerCallback] = ()
    resumes_from: Path | None = None
    seed: int = 0

    def train(self) -> PreferenceTrainer:
        """Run it to its end."""
        trainer = self.trainer()
        trainer.train(resume_from_checkpoint=None if self.resumes_from is None else str(self.resumes_from))
        return trainer

    def trainer(self) -> PreferenceTrainer:
        """As it is before the first step."""
        name = self.method.partition("-")[0] if self.method.startswith("rm") else self.method
        args = training_arguments(
            name, OptimizationConfig(batch_size=self.batch_size, **self.optimization), self.checkpoints,
            AdapterConfig(), folder=self.folder / "checkpoints", steps=self.steps, device="cpu", seed=self.seed,
            is_evaluated=bool(self.held_out),
        )  # fmt: skip
        objective = objective_of(self.method, self.config)
        trainer = PreferenceTrainer(
            self.model or model_of(self.method), args, objective=objective, plan=self.plan,
            steps=Steps(
                self.items, self.batch_size, self.steps, objective, self.plan, seed=self.seed,
                rank=args.process_index, world=args.world_size,
            ),
            held_out_items=self.held_out, callbacks=self.callbacks,
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        return trainer


@cache
def usual_training(method: str) -> PreferenceTrainer:
    """Three packed steps, each row of a step in one micro-batch: what every other way to compute them has to equal."""
    with tempfile.TemporaryDirectory() as folder:
        return Run(method, Path(folder), rows_of(method)).train()


def logged(trainer: PreferenceTrainer, name: str = "loss") -> list[float]:
    """A figure at each line of the log that has it."""
    return [log[name] for log in trainer.state.log_history if name in log]


def weights(trainer: PreferenceTrainer) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in trainer.model.state_dict().items()}


def assert_same_training(one: PreferenceTrainer, other: PreferenceTrainer, *, within: float = 1e-5) -> None:
    """The same losses, gradient norms and weights."""
    for name in ("loss", "grad_norm"):
        torch.testing.assert_close(
            torch.tensor(logged(one, name)), torch.tensor(logged(other, name)), rtol=within, atol=within, msg=name
        )
    theirs = weights(other)
    for name, value in weights(one).items():
        torch.testing.assert_close(value, theirs[name], rtol=within, atol=within, msg=name)

"""What soft labels are worth where the probability behind every label is known.

    python benchmarks/training_soft_labels.py                 # 6 seeds, some 8 minutes on one core
    python benchmarks/training_soft_labels.py --quick

A true reward r* is drawn, and with it p = P(A preferred) = sigma(r*(A) - r*(B)) of every pair. The same pairs are
trained on in the same order, for as many steps at the same learning rate, with labels read in the ways of `--labels`:

    soft      p itself
    hard      its larger side, as if it were certain
    sampled   one vote of a person who prefers A with the probability p (--labels human)

Reward model: r* adds up a value of each of six words, which depends on the topic of the prompt. Scored on pairs that
nobody trained on: mean distance between the model's probability P and p, ECE (the same between the means of 15 bins of
equal mass), KL divergence, by how much the larger side's probability is too large on average, and the share of pairs
whose likelier side it finds.

DPO: each prompt has 16 responses of two tokens with drawn r*, and the policy it should end at is known:
pi*(y|x) ~ pi_ref(y|x) exp(r*(x, y) / beta), over the 16. Trained on 40 of the 120 pairs of each prompt, scored on all:
total variation and KL divergence from pi*, beta h (the implied log-odds) beside logit p, the same as probabilities, and
mean abs(beta h) over mean abs(logit p).

A tiny Llama from scratch in both; learning rate and steps were chosen once, so that soft labels converge, on a seed
that is not among these. Means over seeds (each draws r*, pairs, votes, weights and order anew), with 95 % intervals of
Student's t.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import t
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedModel,
    TrainerCallback,
)
from transformers.trainer_callback import PrinterCallback
from transformers.utils import logging

from rlaif.auditing.reliability import ECE_BINS, equal_mass_bins
from rlaif.models.examples import Example
from rlaif.models.logprobs import plan_logprobs
from rlaif.models.rewards import plan_rewards
from rlaif.records import Verdict
from rlaif.train.arguments import training_arguments
from rlaif.train.config import (
    AdapterConfig,
    CheckpointConfig,
    DpoLossConfig,
    OptimizationConfig,
    RewardLossConfig,
)
from rlaif.train.items import TrainingItem, with_references
from rlaif.train.labels import target_prob
from rlaif.train.objectives import make_objective
from rlaif.train.reference import reference_logprobs
from rlaif.train.step_inputs import ComputePlan, Steps
from rlaif.train.trainer import PreferenceTrainer
from rlaif.training_records import Labels

Floats = NDArray[np.float64]
Measure = Callable[[PreferenceTrainer], dict[str, float]]
Figures = dict[tuple[str, int], dict[str, list[float]]]
"""(labels, step) -> figure -> its value with each seed."""

ARMS: dict[str, Labels] = {"soft": "soft", "hard": "hard", "sampled": "human"}

PAD, BOS, EOS = 0, 1, 2
FIRST_WORD = 3
TOPICS, WORDS, RESPONSE_WORDS = 4, 24, 6
PAIRS, TEST_PAIRS = 2000, 2000
REWARD_SPREAD = 1.0
"""Standard deviation of r*: that of the true log-odds is sqrt(2) times it."""

PROMPTS, FIRSTS, SECONDS = 24, 4, 4
PAIRS_OF_PROMPT = 40
BETA = 0.5


@dataclass(frozen=True)
class Setting:
    """How long all arms of an experiment are trained, and when they are measured."""

    steps: int
    learning_rate: float
    batch_size: int = 64

    @property
    def marks(self) -> tuple[int, ...]:
        return (self.steps // 8, self.steps // 3, self.steps)


@dataclass(frozen=True)
class Task:
    """One seed of an experiment.

    Attributes:
        examples, probs, votes: The pairs, the true P(A preferred) of each, and one vote a pair.
        model: Makes the model, the same each time.
        measure: What a trainer's model is worth.
    """

    examples: Sequence[Example]
    probs: Floats
    votes: Sequence[Verdict]
    model: Callable[[], PreTrainedModel]
    measure: Measure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=6, metavar="N", help="at least 2")
    parser.add_argument("--quick", action="store_true", help="2 seeds and a quarter of the steps: whether it runs")
    parser.add_argument("--only", choices=("rm", "dpo"), help="default: both")
    arguments = parser.parse_args()
    seeds = 2 if arguments.quick else arguments.seeds
    if seeds < 2:
        parser.error("--seeds: an interval takes at least 2")
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    warnings.simplefilter("ignore", FutureWarning)
    began = time.process_time()
    parts = {"rm": (reward_task, Setting(400, 1e-3)), "dpo": (policy_task, Setting(640, 1e-3))}
    for method, (make_task, setting) in parts.items():
        if arguments.only in (None, method):
            setting = replace(setting, steps=setting.steps // 4) if arguments.quick else setting
            report(method, setting, compare(method, make_task, setting, seeds), seeds)
    print(f"\n{time.process_time() - began:.0f} CPU seconds")


# --- both experiments -------------------------------------------------------------------------------------------------


def compare(method: str, make_task: Callable[[int], Task], setting: Setting, seeds: int) -> Figures:
    """All arms with all seeds."""
    figures: Figures = {}
    for seed in range(seeds):
        task = make_task(seed)
        for arm in ARMS:
            for step, found in trained(method, task, arm, setting, seed).items():
                for name, value in found.items():
                    figures.setdefault((arm, step), {}).setdefault(name, []).append(value)
    return figures


def trained(method: str, task: Task, arm: str, setting: Setting, seed: int) -> dict[int, dict[str, float]]:
    """One training: what the model is worth before it and at each mark."""
    model = task.model()
    is_packed = plan_rewards(model, 64).is_packed if method == "rm" else plan_logprobs(model, 64).is_packed
    plan = ComputePlan(is_packed=is_packed)
    items = labeled(task, ARMS[arm])
    if method == "dpo":
        items = with_references(items, lambda examples: reference_of(model, examples))
    loss = RewardLossConfig() if method == "rm" else DpoLossConfig(beta=BETA)
    with tempfile.TemporaryDirectory() as folder:
        optimization = OptimizationConfig(
            learning_rate=setting.learning_rate, warmup=0.05, trainer_arg={"save_strategy": "'no'"}
        )
        arguments = training_arguments(
            method, optimization, CheckpointConfig(log_every=setting.steps), AdapterConfig(),
            folder=Path(folder), steps=setting.steps, device="cpu", seed=seed, is_evaluated=False,
        )  # fmt: skip
        watcher = Watcher(task.measure, setting.marks)
        objective = make_objective(method, loss)
        steps = Steps(items, setting.batch_size, setting.steps, objective, plan, seed=seed)
        trainer = PreferenceTrainer(
            model, arguments, objective=objective, plan=plan, steps=steps, callbacks=[watcher]
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        watcher.trainer = trainer
        trainer.train()
    return watcher.found


def labeled(task: Task, labels: Labels) -> list[TrainingItem]:
    """The pairs with their targets, as `--labels` makes them."""
    items = []
    for example, prob, vote in zip(task.examples, task.probs.tolist(), task.votes, strict=True):
        target = target_prob(labels, prob, [vote])
        assert target is not None, "no drawn probability is 0.5 exactly"
        items.append(TrainingItem(example, (target, 1.0 - target)))
    return items


class Watcher(TrainerCallback):  # type: ignore[misc]  # transformers has no types
    """Measures the model before the first step and at the marks."""

    def __init__(self, measure: Measure, marks: Sequence[int]) -> None:
        self.found: dict[int, dict[str, float]] = {}
        self.trainer: PreferenceTrainer | None = None
        self._measure, self._marks = measure, marks

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._note(0)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step in self._marks:
            self._note(state.global_step)

    def _note(self, step: int) -> None:
        assert self.trainer is not None
        self.found[step] = self._measure(self.trainer)


def report(method: str, setting: Setting, figures: Figures, seeds: int) -> None:
    """A table: one row for each arm and mark."""
    titles = {"rm": "reward model", "dpo": "DPO"}
    rows = PAIRS if method == "rm" else PROMPTS * PAIRS_OF_PROMPT
    epochs = setting.steps * setting.batch_size / rows
    print(
        f"\n{titles[method]}: {rows:,} pairs, {setting.batch_size} a step ({setting.steps} steps are {epochs:.0f} "
        f"epochs), learning rate {setting.learning_rate:g}, {seeds} seeds\n"
    )
    names = list(next(iter(figures.values())))
    print(f"| labels | steps | {' | '.join(names)} |\n|---|---|{'---|' * len(names)}")
    untrained = figures["soft", 0]  # the same in all arms
    print(f"| (untrained) | 0 | {' | '.join(interval(untrained[name]) for name in names)} |")
    for step, arm in itertools.product(setting.marks, ARMS):
        print(f"| {arm} | {step} | {' | '.join(interval(figures[arm, step][name]) for name in names)} |", flush=True)


def interval(values: Sequence[float]) -> str:
    """Mean and half the width of its 95 % interval."""
    half = t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values))
    return f"{np.mean(values):.3f} +- {half:.3f}"


def config_of(vocabulary: int) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=vocabulary, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=64, bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD, num_labels=1,
    )  # fmt: skip


def votes_of(draw: np.random.Generator, probs: Floats) -> list[Verdict]:
    return [Verdict.A if is_a else Verdict.B for is_a in draw.random(len(probs)) < probs]


def sigmoid(values: Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-values)), dtype=np.float64)


# --- reward model -----------------------------------------------------------------------------------------------------


def reward_task(seed: int) -> Task:
    """Words with values that the topic changes; responses to be ranked by their sum."""
    draw = np.random.default_rng(seed)
    values = draw.normal(size=WORDS) + draw.normal(size=(TOPICS, WORDS))  # half of the variance is the topic's
    values *= REWARD_SPREAD / (values.std() * math.sqrt(RESPONSE_WORDS))
    examples, log_odds = [], []
    for number in range(PAIRS + TEST_PAIRS):
        topic = int(draw.integers(TOPICS))
        responses = draw.integers(WORDS, size=(2, RESPONSE_WORDS))
        log_odds.append(float(np.subtract(*values[topic, responses].sum(axis=1))))
        completions = tuple((*(FIRST_WORD + TOPICS + response).tolist(), EOS) for response in responses)
        examples.append(Example(f"pair-{number}", (BOS, FIRST_WORD + topic), completions))
    probs = sigmoid(np.array(log_odds))
    tests = [TrainingItem(example, (0.5, 0.5)) for example in examples[PAIRS:]]

    def model() -> PreTrainedModel:
        torch.manual_seed(seed)
        return LlamaForSequenceClassification(config_of(FIRST_WORD + TOPICS + WORDS))

    return Task(
        examples[:PAIRS], probs[:PAIRS], votes_of(draw, probs[:PAIRS]), model,
        lambda trainer: calibration(np.array(trainer.rewards_of(tests)), probs[PAIRS:]),
    )  # fmt: skip


def calibration(rewards: Floats, true: Floats) -> dict[str, float]:
    """Figures of a reward model: rewards of A and B (N, 2) beside the true P(A preferred) (N,)."""
    margins = rewards[:, 0] - rewards[:, 1]
    probs = sigmoid(margins)
    bins = np.eye(ECE_BINS)[equal_mass_bins(probs, ECE_BINS)]
    return {
        "mean abs(P - p)": float(np.abs(probs - true).mean()),
        "ECE": float(np.abs((bins * (probs - true)[:, None]).sum(axis=0)).sum() / len(true)),
        "KL(p, P), nats": divergence(true, margins),
        "overconfidence": float((np.maximum(probs, 1.0 - probs) - np.maximum(true, 1.0 - true)).mean()),
        "better side": float(((margins > 0) == (true > 0.5)).mean()),
    }


def divergence(true: Floats, margins: Floats) -> float:
    """Mean over pairs of KL(true probability, sigma(margin)), in nats."""
    log_yes, log_no = -np.logaddexp(0.0, -margins), -np.logaddexp(0.0, margins)
    cross = -(true * log_yes + (1.0 - true) * log_no)
    entropy = -(true * np.log(true) + (1.0 - true) * np.log(1.0 - true))
    return float((cross - entropy).mean())


# --- DPO --------------------------------------------------------------------------------------------------------------


def policy_task(seed: int) -> Task:
    """Prompts with all of their responses, and a drawn reward for each."""
    draw = np.random.default_rng(seed)
    rewards = draw.normal(size=(PROMPTS, FIRSTS * SECONDS)) * REWARD_SPREAD
    first = FIRST_WORD + PROMPTS
    responses = [(first + one, first + FIRSTS + two, EOS) for one in range(FIRSTS) for two in range(SECONDS)]
    pairs = list(itertools.combinations(range(len(responses)), 2))
    prompts = [(BOS, FIRST_WORD + number) for number in range(PROMPTS)]
    examples, log_odds = [], []
    for number, prompt in enumerate(prompts):
        for place in draw.permutation(len(pairs))[:PAIRS_OF_PROMPT]:
            a, b = draw.permutation(pairs[place]).tolist()
            examples.append(Example(f"{number}-{a}-{b}", prompt, (responses[a], responses[b])))
            log_odds.append(float(rewards[number, a] - rewards[number, b]))
    probs = sigmoid(np.array(log_odds))

    def model() -> PreTrainedModel:
        torch.manual_seed(seed)
        return LlamaForCausalLM(config_of(first + FIRSTS + SECONDS))

    everything = [Example(f"prompt-{number}", prompt, tuple(responses)) for number, prompt in enumerate(prompts)]
    reference = reference_of(model(), everything)
    items = [
        TrainingItem(example, (0.0,) * len(responses), reference=of_prompt)
        for example, of_prompt in zip(everything, reference, strict=True)
    ]

    def measure(trainer: PreferenceTrainer) -> dict[str, float]:
        return policy_distance(np.array(trainer.rewards_of(items)), rewards, np.array(reference), pairs)

    return Task(examples, probs, votes_of(draw, probs), model, measure)


def reference_of(model: PreTrainedModel, examples: Sequence[Example]) -> list[tuple[float, ...]]:
    is_packed, is_chunked, _ = plan_logprobs(model, 64)
    return reference_logprobs(
        model, examples, is_packed=is_packed, is_chunked=is_chunked, max_tokens=16_384, device="cpu"
    )


def policy_distance(
    implied: Floats, true: Floats, reference: Floats, pairs: Sequence[tuple[int, int]]
) -> dict[str, float]:
    """Figures of a policy.

    Args:
        implied: beta times the log-ratio of each response of each prompt (N, K).
        true: Their r* (N, K).
        reference: Their log-probability under the reference (N, K).
        pairs: Those of the K responses that are compared.
    """
    goal, policy = log_softmax(reference + true / BETA), log_softmax(reference + implied / BETA)
    a, b = np.array(pairs).T
    margins, log_odds = implied[:, a] - implied[:, b], true[:, a] - true[:, b]
    return {
        "TV(pi*, pi)": float(0.5 * np.abs(np.exp(goal) - np.exp(policy)).sum(axis=1).mean()),
        "KL(pi*, pi), nats": float((np.exp(goal) * (goal - policy)).sum(axis=1).mean()),
        "mean abs(beta h - logit p)": float(np.abs(margins - log_odds).mean()),
        "mean abs(P - p)": float(np.abs(sigmoid(margins) - sigmoid(log_odds)).mean()),
        "size of beta h": float(np.abs(margins).mean() / np.abs(log_odds).mean()),
        "better side": float(((margins > 0) == (log_odds > 0)).mean()),
    }


def log_softmax(values: Floats) -> Floats:
    return np.asarray(values - np.logaddexp.reduce(values, axis=-1, keepdims=True), dtype=np.float64)


if __name__ == "__main__":
    main()

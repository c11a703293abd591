"""The trainer: steps of exactly so many rows, whatever computes them; what is logged, saved and refused."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from rlaif.errors import NonFiniteLossError
from rlaif.models.examples import Example
from rlaif.train.checkpoints import COMPLETE, last_checkpoint
from rlaif.train.config import CheckpointConfig
from rlaif.train.items import TrainingItem, with_mismatches
from rlaif.train.step_inputs import ComputePlan
from tests.train.training import (
    METHODS,
    OF_PAIRS,
    REFERRING,
    Run,
    assert_same_training,
    exchanged,
    items_of,
    logged,
    model_of,
    objective_of,
    referenced,
    rows_of,
    usual_training,
    weights,
)

FAST = {"learning_rate": 3e-3, "schedule": "constant", "warmup": 0.0}


@pytest.mark.parametrize("method", METHODS)
def test_plain_rows_and_packed_ones_train_alike(method, tmp_path):
    plan = ComputePlan(is_packed=False, pad=7, max_tokens=60)
    assert_same_training(Run(method, tmp_path, rows_of(method), plan=plan).train(), usual_training(method))


@pytest.mark.parametrize("method", OF_PAIRS)
def test_exchanging_a_and_b_in_every_row_changes_no_loss(method, tmp_path):
    items = [exchanged(item) for item in rows_of(method)]
    assert_same_training(Run(method, tmp_path, items).train(), usual_training(method))


@pytest.mark.parametrize("method", METHODS)
def test_a_tiny_model_learns(method, tmp_path):
    items = items_of(method, 4)
    model = model_of(method)
    items = referenced(items, model) if method in REFERRING else items
    run = Run(method, tmp_path, items, model=model, steps=12, optimization=FAST | {"learning_rate": 1e-2})
    trainer = run.train()
    losses = logged(trainer)
    assert losses[-1] < losses[0] - 0.01 * abs(losses[0])
    if method != "sft":
        assert logged(trainer, "accuracy")[-1] > 0.8
        assert logged(trainer, "margin")[-1] > logged(trainer, "margin")[0]


def test_every_step_takes_its_rows_and_epochs_follow_without_a_gap(tmp_path):
    items = items_of("rm", 10)
    trainer = Run("rm", tmp_path, items, batch_size=4, steps=5, plan=ComputePlan(max_tokens=30)).trainer()
    steps = list(trainer.get_train_dataloader())
    assert [len(step.ids) for step in steps] == [4] * 5
    assert [step.parts[0].weight for step in steps] == [4] * 5
    for step in steps:
        assert sorted(step.ids) == sorted(itertools.chain(*(micro.batch.ids for micro in step.parts[0].micro)))
    seen = list(itertools.chain(*(step.ids for step in steps)))
    every = sorted(item.example.id for item in items)
    assert sorted(seen[:10]) == sorted(seen[10:]) == every


def test_no_micro_batch_takes_more_than_the_budget(tmp_path):
    long = Example("long", (1, 2), (tuple(range(3, 60)),))
    short = [Example(f"r{number}", (1, 2 + number), ((3,),) * (1 + number % 5)) for number in range(20)]
    items = [TrainingItem(one, (1.0,) * len(one.completions)) for one in (long, *short)]
    for method, is_packed in itertools.product(["rrhf", "kto"], [True, False]):
        # The long response is measured under a short prompt too.
        rows = with_mismatches(items, 0, max_length=64) if method == "kto" else items
        plan = ComputePlan(is_packed=is_packed, max_tokens=80)
        rows = referenced(rows, model_of(method)) if method == "kto" else rows
        trainer = Run(method, tmp_path, rows, batch_size=21, steps=1, plan=plan).trainer()
        (step,) = trainer.get_train_dataloader()
        assert bool(step.mismatched) == (method == "kto")
        for micro in (*step.parts[0].micro, *step.mismatched):
            assert micro.batch.input_ids.numel() <= 80


def test_the_loss_of_sft_is_the_mean_over_the_tokens_of_the_whole_step(tmp_path):
    items, model = items_of("sft", 4), model_of("sft")
    total = tokens = 0
    with torch.no_grad():
        for item in items:
            (completion,) = item.example.completions
            ids = torch.tensor([item.example.prompt + completion])
            every = model(input_ids=ids).logits[0].log_softmax(-1)
            places = range(len(item.example.prompt), ids.shape[1])
            total -= sum(float(every[place - 1, ids[0, place]]) for place in places)
            tokens += len(completion)
    trainer = Run("sft", tmp_path, items, model=model, steps=1, plan=ComputePlan(max_tokens=1)).train()
    assert logged(trainer) == [pytest.approx(total / tokens, rel=1e-5)]


def test_a_reward_models_loss_is_the_cross_entropy_of_its_own_rewards(tmp_path):
    items, model = items_of("rm", 4), model_of("rm")
    expected = []
    with torch.no_grad():
        for item in items:
            a, b = (
                float(model(input_ids=torch.tensor([item.example.prompt + completion])).logits)
                for completion in item.example.completions
            )
            prob = item.scores[0]
            lead = a - b
            loss = prob * math.log1p(math.exp(item.margin - lead))
            loss += (1 - prob) * math.log1p(math.exp(lead + item.margin))
            expected.append(loss + 0.01 * (a + b) ** 2)
    trainer = Run("rm", tmp_path, items, model=model, steps=1).train()
    assert logged(trainer) == [pytest.approx(sum(expected) / 4, rel=1e-5)]


def test_what_is_logged_says_how_far_it_is_and_how_well_responses_are_ranked(tmp_path):
    items = items_of("rm", 8)
    trainer = Run("rm", tmp_path, items, held_out=items_of("rm", 3, seed=5), steps=4,
                  checkpoints=CheckpointConfig(log_every=2, eval_every=4, save_every=4)).train()  # fmt: skip
    training = [log for log in trainer.state.log_history if "loss" in log]
    assert [log["step"] for log in training] == [2, 4]
    assert [log["epoch"] for log in training] == [1.0, 2.0]
    for log in training:
        assert 0.0 <= log["accuracy"] <= 1.0
        assert log["tokens_per_second"] > 0.0
        assert log["margin"] == pytest.approx(log["reward_better"] - log["reward_worse"], abs=0.3)
    (evaluated,) = [log for log in trainer.state.log_history if "eval_loss" in log]
    assert evaluated["step"] == 4
    assert {"eval_accuracy", "eval_margin"} <= evaluated.keys()


@pytest.mark.parametrize("method", ["sft", "rm", "dpo", "kto", "rrhf"])
def test_an_evaluation_is_the_loss_of_one_step_over_all_rows_and_learns_nothing(method, tmp_path):
    items = rows_of(method, 6)
    trainer = Run(method, tmp_path / "one", items, held_out=items, batch_size=6, steps=1,
                  plan=ComputePlan(max_tokens=40)).trainer()  # fmt: skip
    before = weights(trainer)
    found = trainer.evaluate()["eval_loss"]
    assert all(torch.equal(value, before[name]) for name, value in weights(trainer).items())
    step = Run(method, tmp_path / "step", items, batch_size=6, steps=1).train()
    assert found == pytest.approx(logged(step)[0], rel=1e-5)


def test_rewards_come_in_the_order_of_the_rows_whatever_the_batches_are(tmp_path):
    items, model = items_of("rm-ranking", 7), model_of("rm")
    trainer = Run("rm-ranking", tmp_path, items, model=model, plan=ComputePlan(max_tokens=50)).trainer()
    found = trainer.rewards_of(items)
    for item, rewards in zip(items, found, strict=True):
        assert len(rewards) == len(item.example.completions)
        for completion, reward in zip(item.example.completions, rewards, strict=True):
            with torch.no_grad():
                alone = float(model(input_ids=torch.tensor([item.example.prompt + completion])).logits)
            assert reward == pytest.approx(alone, abs=1e-4)
    assert trainer.rewards_of([]) == []


@pytest.mark.parametrize("method", ["rm", "dpo"])
def test_a_loss_that_is_no_number_stops_before_the_weights(method, tmp_path):
    items = rows_of(method)
    model = model_of(method)
    trainer = Run(method, tmp_path, items, model=model, checkpoints=CheckpointConfig(save_every=1), steps=4).trainer()
    embedding = model.get_input_embeddings().weight

    def spoil(layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        return output * torch.inf if trainer.state.global_step == 2 else output

    model.get_input_embeddings().register_forward_hook(spoil)
    with pytest.raises(NonFiniteLossError, match=r"loss of step 3 is nan.*not-finite-at-step-3\.json"):
        trainer.train()
    folder = tmp_path / "checkpoints"
    said = json.loads((folder / "not-finite-at-step-3.json").read_text())
    order = [list(step.ids) for step in trainer.get_train_dataloader()]
    assert (said["step"], said["what"], said["ids"]) == (3, "loss", order[2])
    assert bool(embedding.isfinite().all())
    last = last_checkpoint(folder)
    assert last is not None
    assert last.name == "checkpoint-2"
    resumed = Run(method, tmp_path, items, steps=4, resumes_from=last).train()
    assert resumed.state.global_step == 4
    assert all(math.isfinite(loss) for loss in logged(resumed))


def test_a_gradient_that_is_no_number_stops_before_the_weights(tmp_path):
    items, model = items_of("rm"), model_of("rm")
    trainer = Run("rm", tmp_path, items, model=model).trainer()
    before = weights(trainer)
    model.score.weight.register_hook(lambda gradient: gradient * torch.nan)
    with pytest.raises(NonFiniteLossError, match="gradient of step 1 is nan"):
        trainer.train()
    assert all(torch.equal(value, before[name]) for name, value in weights(trainer).items())


def test_a_learning_rate_that_is_far_too_high_is_said_to_be(tmp_path):
    optimization = {"learning_rate": 1e30, "schedule": "constant", "warmup": 0.0}
    with pytest.raises(NonFiniteLossError, match="use a lower --learning-rate"):
        Run("rm", tmp_path, items_of("rm"), steps=4, optimization=optimization).train()


def test_the_newest_checkpoints_are_kept_and_those_cut_short_are_none(tmp_path):
    folder = tmp_path / "checkpoints"
    torn = folder / "checkpoint-9"
    torn.mkdir(parents=True)
    Run("rm", tmp_path, items_of("rm"), steps=5, checkpoints=CheckpointConfig(save_every=1, keep=2)).train()
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint-4", "checkpoint-5"]
    assert last_checkpoint(folder) == folder / "checkpoint-5"
    (folder / "checkpoint-5" / COMPLETE).unlink()
    assert last_checkpoint(folder) == folder / "checkpoint-4"
    assert last_checkpoint(tmp_path / "nowhere") is None


def test_an_old_checkpoint_goes_after_the_new_one_is_whole(tmp_path, monkeypatch):
    folder = tmp_path / "checkpoints"
    seen = []

    def watch(path, **options):
        seen.append(((folder / "checkpoint-2" / COMPLETE).exists(), (Path(path) / COMPLETE).exists()))

    monkeypatch.setattr("rlaif.train.checkpoints.shutil.rmtree", watch)
    Run("rm", tmp_path, items_of("rm"), steps=2, checkpoints=CheckpointConfig(save_every=1, keep=1)).train()
    assert seen == [(True, False)]


def test_the_best_checkpoint_is_kept_besides(tmp_path):
    items = items_of("rm", 4)
    opposite = [replace(item, scores=item.scores[::-1]) for item in items]  # what is learnt makes it worse
    checkpoints = CheckpointConfig(save_every=1, eval_every=1, keep=1)
    trainer = Run("rm", tmp_path, items, held_out=opposite, steps=4, optimization=FAST, checkpoints=checkpoints).train()
    losses = logged(trainer, "eval_loss")
    assert losses[0] == min(losses)
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert kept == ["checkpoint-1", "checkpoint-4"]


def test_a_step_larger_than_the_data_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="there are 3"):
        Run("rm", tmp_path, items_of("rm", 3), batch_size=4).trainer()


def test_the_objective_says_what_the_mean_is_taken_over():
    (demonstration,) = items_of("sft", 1)
    assert objective_of("sft").weight(demonstration) == len(demonstration.example.completions[0])
    (pair,) = items_of("dpo", 1)
    assert (objective_of("dpo").weight(pair), objective_of("kto").weight(pair)) == (1, 2)

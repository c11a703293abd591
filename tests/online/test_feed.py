"""Steps out of batches, and what is saved between any two of them. No model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlaif.errors import BackendUnusableError
from rlaif.models.examples import Example
from rlaif.online.assessing import Assessed
from rlaif.online.feed import BatchListener, FeedPlan, Imitation, RolloutFeed
from rlaif.online.recipes import make_recipe
from rlaif.online.source import Batch, Readings, RolloutSource
from rlaif.online.visits import Visits
from rlaif.train.config import SftLossConfig
from rlaif.train.items import TrainingItem
from rlaif.train.objectives import make_objective
from rlaif.train.online_config import BestOfNLossConfig, GrpoLossConfig, RlooLossConfig, RolloutConfig
from rlaif.train.step_inputs import ComputePlan, StepInput
from tests.online.made_rollouts import DrawingGenerator, TextScoring, prompt_row

PLAN = FeedPlan(prompts=4, steps=2, passes=2, batch_size=2, is_round=False, overlaps=False, seed=3)
TOTAL = 12


class Heard(BatchListener):
    """Remembers the batches, and takes a number through a resume."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, int]] = []
        self.seen = 0

    def on_batch(self, number: int, step: int, batch: Batch) -> Mapping[str, float]:
        self.batches.append((number, step))
        self.seen += 1
        return {"seen": float(self.seen)}

    def as_json(self) -> Mapping[str, Any]:
        return {"seen": self.seen}

    def take_up(self, content: Mapping[str, Any] | None) -> None:
        assert content is not None
        self.seen = content["seen"]


class Run:
    """A feed, and a trainer that does nothing with its steps."""

    def __init__(self, loss: Any = None, plan: FeedPlan = PLAN, **keywords: Any) -> None:
        config = RolloutConfig(response_tokens=3, rollout_temperature=1.0)
        recipe = make_recipe(loss or RlooLossConfig(kl_target=0.5, kl_horizon=40.0), config, seed=3)
        self.scoring, self.generator, self.heard = TextScoring(), DrawingGenerator(), Heard()
        reference = Readings(
            reference=lambda rollouts: [
                Assessed(tuple(tuple(2 * x for x in one.logprobs) for one in each.completions)) for each in rollouts
            ]
        )
        source = RolloutSource(
            Visits([prompt_row(number) for number in range(6)], 3), self.generator, self.scoring, recipe, reference,
            config, group_size=3, decode=lambda ids: " ".join(map(str, ids)), rates=False, seed=3,
        )  # fmt: skip
        self.feed = RolloutFeed(
            source, plan, ComputePlan(is_packed=False), total=TOTAL, listener=self.heard, **keywords
        )
        self.done = 0
        self.feed.step_of = lambda: self.done

    def steps(self, until: int = TOTAL) -> Iterator[tuple[Any, ...]]:
        """What each step learns from; the step is done when the next one is asked for, as a trainer's is."""
        for step in self.feed:
            yield content(step)
            self.done += 1
            if self.done == until:
                return


def content(step: StepInput) -> tuple[Any, ...]:
    figures = {name: value for name, value in step.figures.items() if not name.startswith("seconds")}
    rows = [
        (micro.batch.ids, micro.batch.input_ids.tolist(), micro.targets and micro.targets.advantages.tolist())
        for part in step.parts
        for micro in part.micro
    ]
    return step.ids, rows, figures


PLANS = {
    "plain": PLAN,
    "overlap": replace(PLAN, overlaps=True),
    "one step a batch": replace(PLAN, prompts=2, steps=1, passes=1),
    "one step a batch, overlap": replace(PLAN, prompts=2, steps=1, passes=1, overlaps=True),
}


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("loss", [None, GrpoLossConfig(variant="dapo")], ids=["rloo", "dapo"])
def test_a_feed_that_is_taken_up_goes_on_as_if_it_had_not_stopped(loss: Any, plan: FeedPlan, tmp_path: Path) -> None:
    """After any step, with the price of the KL as it was, which follows its target."""
    whole = Run(loss, plan)
    expected = list(whole.steps())
    assert len(expected) == TOTAL
    if loss is None:
        assert len({figures["beta"] for _, _, figures in expected}) == TOTAL // plan.steps_of_batch
    for stop in range(1, TOTAL):
        first, second = Run(loss, plan), Run(loss, plan)
        before = list(first.steps(stop))
        folder = tmp_path / str(stop)
        folder.mkdir()
        first.feed.save(folder)
        second.done = stop
        second.feed.load(folder)
        assert before + list(second.steps()) == expected
        if not plan.overlaps:  # what was begun is judged again: from a journal, where there is one
            assert len(first.scoring.asked) + len(second.scoring.asked) == len(whole.scoring.asked)
        assert second.feed.next_visit == whole.feed.next_visit


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_what_is_saved_when_the_judge_is_gone_goes_on_with_the_batch_that_it_did_not_judge(
    plan: FeedPlan, tmp_path: Path
) -> None:
    expected = list(Run(None, plan).steps())
    first, second = Run(None, plan), Run(None, plan)
    steps = first.steps()
    before = [next(steps) for _ in range(plan.steps_of_batch)]
    first.scoring.fault = BackendUnusableError("gone")
    with pytest.raises(BackendUnusableError):
        before.extend(steps)
    assert first.feed.is_waiting
    first.feed.save(tmp_path)
    second.done = first.done
    second.feed.load(tmp_path)
    assert len(before) == first.done
    assert before + list(second.steps()) == expected


def test_with_overlap_the_next_batch_is_written_before_this_one_is_learnt_from() -> None:
    plan = PLANS["overlap"]
    run = Run(None, plan)
    written = []
    stale = []
    for _, _, figures in run.steps():
        written.append(len(run.generator.jobs))
        stale.append(figures["staleness"])
    batch = 4 * 3
    assert written == [2 * batch] * 4 + [3 * batch] * 8  # and none for after the last step
    assert stale == [0.0] * 4 + [4.0] * 8  # a batch: four steps


def test_each_pass_learns_from_each_row_once_in_an_order_of_its_own() -> None:
    steps = list(Run().steps())
    passes = [steps[start][0] + steps[start + 1][0] for start in range(0, 4, 2)]
    assert sorted(passes[0]) == sorted(passes[1])
    assert len(set(passes[0])) == 4
    assert len({steps[place][0] for place in range(4)}) > 2


def test_the_listener_hears_of_each_batch_once_and_its_figures_are_logged() -> None:
    run = Run()
    figures = [each["seen"] for _, _, each in run.steps()]
    assert run.heard.batches == [(0, 0), (1, 4), (2, 8)]
    assert figures == [1.0] * 4 + [2.0] * 4 + [3.0] * 4


def test_rounds_learn_all_that_was_selected_once_a_pass() -> None:
    plan = FeedPlan(prompts=6, steps=3, passes=2, batch_size=2, is_round=True, overlaps=False, seed=3)
    run = Run(BestOfNLossConfig(least_score=0.7), plan)
    steps = list(run.steps())
    for first in (0, 6):
        (selected,) = {figures["selected"] for _, _, figures in steps[first : first + 6]}
        assert 0 < selected < 6
        for of_pass in (steps[first : first + 3], steps[first + 3 : first + 6]):
            learnt = [row for ids, _, _ in of_pass for row in ids]
            assert len(learnt) == len(set(learnt)) == selected


def test_imitation_stands_beside_what_is_learnt_with_its_weight() -> None:
    items = [TrainingItem(Example(f"t{number}", (1, 2), ((3, 4 + number),))) for number in range(3)]
    imitation = Imitation(items, make_objective("sft", SftLossConfig()), 27.8)
    run = Run(imitation=imitation)
    steps = []
    for step in run.feed:
        steps.append(step)
        run.done += 1
    assert [len(step.parts) for step in steps] == [2] * TOTAL
    assert {step.parts[1].factor for step in steps} == {27.8}
    assert {step.parts[0].factor for step in steps} == {1.0}
    learnt = [row for step in steps for micro in step.parts[1].micro for row in micro.batch.ids]
    assert sorted(learnt) == sorted(["t0", "t1", "t2"] * (2 * TOTAL // 3))

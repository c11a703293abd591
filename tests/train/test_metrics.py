"""Figures beside the loss: hand-worked, and the same however a step is split."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rlaif.models.examples import Example
from rlaif.train.config import KtoLossConfig
from rlaif.train.items import TrainingItem
from rlaif.train.means import Mean, MeanTracker
from rlaif.train.metrics import preference_metrics
from rlaif.train.objectives import Reading, collate_items
from tests.train.training import exchanged, objective_of


def of_scores(*rows: tuple[float, ...]) -> list[TrainingItem]:
    """Rows whose responses have these scores."""
    return [
        TrainingItem(Example(f"r{number}", (1,), tuple((2, 3) for _ in scores)), scores)
        for number, scores in enumerate(rows)
    ]


def figures(items: list[TrainingItem], rewards: list[list[float]], method: str = "rm", weight: int = 1) -> dict:
    micro = collate_items(items, is_packed=True, pad=0, weight=weight)
    found = preference_metrics(objective_of(method), Reading(torch.tensor(rewards), micro.batch.tokens), micro)
    return {name: (float(total), float(count)) for name, (total, count) in found.items()}


def test_pairs_are_counted_by_the_side_of_their_labels() -> None:
    found = figures(of_scores((0.9, 0.1), (0.2, 0.8), (0.7, 0.3), (0.5, 0.5)), [[2, 1], [5, 1], [3, 3], [9, -9]])
    assert found == {
        "accuracy": (1.5, 3.0),  # right, wrong, and equal rewards half; a tie is no pair
        "margin": (1.0 - 4.0 + 0.0, 3.0),
        "reward_better": (2.0 + 1.0 + 3.0, 3.0),
        "reward_worse": (1.0 + 5.0 + 3.0, 3.0),
    }


def test_rewards_that_differ_by_rounding_alone_are_equal() -> None:
    assert figures(of_scores((0.9, 0.1), (0.9, 0.1)), [[1.0, 1.0 - 1e-6], [1.0, 1.0 - 1e-3]])["accuracy"] == (1.5, 2.0)


def test_exchanging_a_and_b_changes_nothing() -> None:
    items = of_scores((0.9, 0.1), (0.2, 0.8), (0.5, 0.5))
    turned = figures([exchanged(item) for item in items], [[1, 2], [1, 5], [-9, 9]])
    assert turned == figures(items, [[2, 1], [5, 1], [9, -9]])


def test_rankings_are_counted_by_all_of_their_pairs_without_padding() -> None:
    found = figures(of_scores((3.0, 1.0, 2.0), (1.0, 2.0)), [[5, 1, 7], [2, 4, 100]])
    # Of r0: 5 > 1 right, 5 > 7 wrong, 7 > 1 right; of r1: 4 > 2 right.
    assert found["accuracy"] == (3.0, 4.0)
    assert found["margin"] == (4.0 - 2.0 + 6.0 + 2.0, 4.0)
    # Middle scores 2 and 1.5: the response of score 2 is on neither side.
    assert found["reward_better"] == (5.0 + 4.0, 2.0)
    assert found["reward_worse"] == (1.0 + 2.0, 2.0)


def test_single_responses_are_told_apart_by_their_label() -> None:
    items = [TrainingItem(one.example, one.scores, reference=(0.0,)) for one in of_scores((1.0,), (0.0,), (1.0,))]
    micro = collate_items(items, is_packed=True, pad=0, weight=3)
    reading = Reading(torch.tensor([[4.0], [-2.0], [6.0]]), micro.batch.tokens)
    found = preference_metrics(objective_of("kto", KtoLossConfig(beta=0.5)), reading, micro)
    values = {name: (float(total), float(count)) for name, (total, count) in found.items()}
    assert values["reward_better"] == (5.0, 2.0)
    assert values["reward_worse"] == (-1.0, 1.0)
    assert values["logprob_better"] == (10.0, 2.0)
    assert values["logprob_worse"] == (-2.0, 1.0)
    assert values["accuracy"] == (0.0, 0.0)


def test_rows_that_do_not_count_have_the_figures_of_the_others_at_no_weight() -> None:
    names = figures(of_scores((0.9, 0.1)), [[2, 1]]).keys()
    assert figures(of_scores((0.9, 0.1)), [[2, 1]], weight=0) == dict.fromkeys(names, (0.0, 0.0))


def test_demonstrations_have_no_figures() -> None:
    demonstration = TrainingItem(Example("d", (1,), ((2, 3),)))
    assert figures([demonstration], [[-3.0]], method="sft") == {}


def test_a_tracker_adds_up_and_starts_again() -> None:
    tracker = MeanTracker()
    one, two = torch.tensor(1), torch.tensor(2.5)
    tracker.add({"a": Mean(two, one), "b": Mean(one, one)})
    tracker.add({"a": Mean(two, one)})
    found: dict[str, Tensor] = tracker.drain()
    assert {name: pair.tolist() for name, pair in found.items()} == {"a": [5.0, 2.0], "b": [1.0, 1.0]}
    assert tracker.drain() == {}


def test_a_step_has_the_same_figures_however_it_is_split() -> None:
    items = of_scores((0.9, 0.1), (0.2, 0.8), (0.7, 0.3))
    rewards = [[2.0, 1.0], [5.0, 1.0], [3.0, 4.0]]
    whole = figures(items, rewards)
    parts = [figures([item], [row]) for item, row in zip(items, rewards, strict=True)]
    for name, pair in whole.items():
        assert [sum(part[name][place] for part in parts) for place in (0, 1)] == pytest.approx(list(pair))

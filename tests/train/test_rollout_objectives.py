"""The loss of rollouts as one objective: its gradient, its parts, its figures."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from rlaif.models.batches import collate
from rlaif.models.examples import Example
from rlaif.models.logprobs import TokenLogprobs
from rlaif.train.items import TokenTargets, TrainingItem
from rlaif.train.objectives import MicroBatch, Reading, collate_items
from rlaif.train.rollout_objectives import PolicyLoss, policy_metrics, policy_objective

# Two prompts: three tokens in two completions, and one in one.
MASK = torch.tensor([[[True, True], [True, False]], [[True, False], [False, False]]])
ADVANTAGES = torch.tensor([[[1.0, 1.0], [-2.0, 0.0]], [[0.5, 0.0], [0.0, 0.0]]])
OLD = torch.tensor([[[-1.0, -0.5], [-2.0, 0.0]], [[-0.1, 0.0], [0.0, 0.0]]])
ITEMS = [
    TrainingItem(
        Example("a", (1, 2), ((3, 4), (5,))),
        targets=TokenTargets(
            advantages=((1.0, 1.0), (-2.0,)), old_logprobs=((-1.0, -0.5), (-2.0,)),
            reference_logprobs=((-1.2, -0.5), (-1.5,)), returns=((0.4, 0.4), (0.8,)), old_values=((0.0, 0.0), (0.0,)),
        ),
    ),
    TrainingItem(
        Example("b", (1,), ((6,),)), targets=TokenTargets(((0.5,),), ((-0.1,),), ((-0.1,),), ((-0.2,),), ((0.0,),))
    ),
]  # fmt: skip


def micro(weight: int = 4) -> MicroBatch:
    return collate_items(ITEMS, is_packed=False, pad=0, weight=weight)


def reading(logprobs: Tensor, values: Tensor | None = None) -> Reading:
    by_token = TokenLogprobs(logprobs.where(MASK, 0.0), MASK, values)
    return Reading(by_token.sums, MASK.sum(-1), by_token)


def loss_of(loss: PolicyLoss, logprobs: Tensor, values: Tensor | None = None) -> Tensor:
    return policy_objective(loss).losses(reading(logprobs, values), micro(), None)


def test_at_the_policy_that_wrote_the_gradient_is_reinforces() -> None:
    logprobs = OLD.clone().requires_grad_()
    loss = loss_of(PolicyLoss("token", 2), logprobs)
    torch.testing.assert_close(loss, torch.tensor([0.0, -0.5]))  # -(1 + 1 - 2) and -0.5
    loss.sum().backward()
    torch.testing.assert_close(logprobs.grad, -ADVANTAGES)


def test_a_token_that_has_moved_as_far_as_the_clip_pulls_no_more() -> None:
    """Ratios 1.5, 1, 1.5 and 0.5; advantages 1, 1, -2 and 0.5: only the first is held, at 1.28."""
    moved = (OLD + torch.tensor([[[1.5, 1.0], [1.5, 1.0]], [[0.5, 1.0], [1.0, 1.0]]]).log()).requires_grad_()
    config = PolicyLoss("token", 2, clip_low=0.2, clip_high=0.28)
    loss = loss_of(config, moved)
    torch.testing.assert_close(loss, torch.tensor([-1.28 - 1.0 + 3.0, -0.25]))
    loss.sum().backward()
    assert moved.grad is not None
    assert (moved.grad == 0.0).tolist() == [[[True, False], [False, True]], [[False, True], [True, True]]]
    figures = policy_metrics(config, reading(moved.detach()), micro())
    assert figures["clip_share"].total.item() / figures["clip_share"].weight.item() == pytest.approx(1 / 4)
    assert figures["ratio"].total.item() == pytest.approx(1.5 + 1.0 + 1.5 + 0.5)


def test_the_price_of_the_kl_in_the_loss_is_k3() -> None:
    """exp(d) - 1 - d of d = reference - policy: -0.2, 0, 0.5 and 0."""
    found = loss_of(PolicyLoss("token", 2, kl_weight=2.0), OLD) - loss_of(PolicyLoss("token", 2), OLD)
    differences = torch.tensor([-0.2, 0.5])
    torch.testing.assert_close(
        found, torch.stack([2.0 * (differences.exp() - 1.0 - differences).sum(), torch.tensor(0.0)])
    )


def test_values_are_learnt_beside_with_their_weight_and_alone_while_the_policy_waits() -> None:
    """Half the squared error of predictions of 0: 0.08, 0.08, 0.32 and 0.02, times 0.5."""
    values = torch.zeros(2, 2, 2, requires_grad=True)
    both = loss_of(PolicyLoss("token", 2, value_weight=0.5), OLD, values)
    policy = loss_of(PolicyLoss("token", 2), OLD)
    torch.testing.assert_close(both - policy, torch.tensor([0.24, 0.01]))
    logprobs = OLD.clone().requires_grad_()
    alone = loss_of(PolicyLoss("token", 2, value_weight=0.5, kl_weight=3.0, policy_weight=0.0), logprobs, values)
    torch.testing.assert_close(alone, torch.tensor([0.24, 0.01]))
    alone.sum().backward()
    assert logprobs.grad is not None
    assert not logprobs.grad.any()
    assert values.grad is not None
    torch.testing.assert_close(values.grad[0, 0], torch.tensor([-0.2, -0.2]))


@pytest.mark.parametrize(
    ("aggregation", "losses", "weights"),
    [("token", [1.0, -0.5], [3, 1]), ("sequence", [1.5, -0.5], [2, 1]), ("constant", [1.0, -0.5], [8, 4])],
)
def test_what_the_loss_is_a_mean_of(aggregation: Any, losses: list[float], weights: list[int]) -> None:
    """Losses of tokens: -1, 0 and 2, and -0.5; completions may have four tokens."""
    objective = policy_objective(PolicyLoss(aggregation, 4))
    first = TokenTargets(advantages=((1.0, 0.0), (-2.0,)), old_logprobs=((-1.0, -0.5), (-2.0,)))
    second = TokenTargets(advantages=((0.5,),), old_logprobs=((-0.1,),))
    items = [replace(item, targets=targets) for item, targets in zip(ITEMS, (first, second), strict=True)]
    found = objective.losses(reading(OLD), collate_items(items, is_packed=False, pad=0), None)
    torch.testing.assert_close(found, torch.tensor(losses))
    assert [objective.weight(item) for item in items] == weights


def test_figures_of_what_is_computed_twice_count_once() -> None:
    values = torch.full((2, 2, 2), 0.1)
    config = PolicyLoss("token", 2, value_weight=0.1)
    figures = policy_metrics(config, reading(OLD, values), micro())
    # (0.1 - 0.4)^2 twice, (0.1 - 0.8)^2 and (0.1 + 0.2)^2, over four tokens.
    assert figures["value_error"].total.item() == pytest.approx(0.09 + 0.09 + 0.49 + 0.09)
    assert figures["value_mean"].total.item() == pytest.approx(0.4)
    assert figures["return_mean"].total.item() == pytest.approx(0.4 + 0.4 + 0.8 - 0.2)
    assert {mean.weight.item() for mean in figures.values()} == {4.0}
    again = policy_metrics(config, reading(OLD, values), micro(weight=0))
    assert all(mean.total.item() == mean.weight.item() == 0.0 for mean in again.values())


def test_what_was_not_asked_is_our_mistake() -> None:
    bare = MicroBatch(collate([ITEMS[0].example], is_packed=False, pad=0), torch.zeros(1, 2), torch.zeros(1))
    with pytest.raises(AssertionError, match="rows of a rollout have targets"):
        policy_objective(PolicyLoss("token", 2)).losses(reading(OLD), bare, None)
    with pytest.raises(AssertionError, match="no values were predicted"):
        loss_of(PolicyLoss("token", 2, value_weight=0.1), OLD)

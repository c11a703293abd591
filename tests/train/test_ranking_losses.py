"""Losses over k responses: hand-worked values, what padding and order must not change, gradients."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from rlaif.train.losses import reward_model_loss
from rlaif.train.ranking_losses import all_pairs_loss, order_probs, plackett_luce_loss, rrhf_loss

LN2, LN3 = math.log(2.0), math.log(3.0)

RankingLoss = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def rrhf(logprobs: Tensor, ratings: Tensor, is_present: Tensor | None = None) -> Tensor:
    return rrhf_loss(logprobs, torch.full(logprobs.shape, 4), ratings, is_present)


LOSSES: dict[str, RankingLoss] = {
    "plackett-luce": plackett_luce_loss,
    "all pairs": lambda rewards, ratings, is_present: all_pairs_loss(rewards, order_probs(ratings), is_present),
    "rrhf": rrhf,
}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_plackett_luce_by_hand() -> None:
    # Weights exp(r) = 3, 1, 2 ranked third, first, second: 1/6 * 2/5 = 1/15
    rewards = torch.tensor([[LN3, 0.0, LN2]])
    assert plackett_luce_loss(rewards, torch.tensor([[1, 3, 2]])).item() == pytest.approx(math.log(15.0))
    # The best alone, the rest tied: 3/6, then an even choice between 1/3 and 2/3.
    tied = LN2 - (math.log(1 / 3) + math.log(2 / 3)) / 2
    assert plackett_luce_loss(rewards, torch.tensor([[9.5, 4.0, 4.0]])).item() == pytest.approx(tied)
    assert plackett_luce_loss(torch.zeros(1, 3), torch.zeros(1, 3)).item() == pytest.approx(LN3)


@pytest.mark.parametrize("k", [2, 3, 4])
def test_the_probabilities_of_all_rankings_sum_to_one(k: int) -> None:
    rankings = torch.tensor(list(itertools.permutations(range(k))))
    rewards = random(1, k).mul(3).expand(len(rankings), k)
    assert plackett_luce_loss(rewards, rankings).neg().exp().sum().item() == pytest.approx(1.0, abs=1e-12)


def test_two_responses_are_a_pair() -> None:
    rewards, ratings = random(30, 2) * 5, torch.randint(0, 3, (30, 2), generator=torch.Generator().manual_seed(0))
    prob_a = order_probs(ratings)[:, 0, 1]
    assert set(prob_a.tolist()) == {0.0, 0.5, 1.0}
    pair = reward_model_loss(rewards[:, 0], rewards[:, 1], prob_a)
    torch.testing.assert_close(plackett_luce_loss(rewards, ratings), pair, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(all_pairs_loss(rewards, order_probs(ratings)), pair, rtol=1e-12, atol=1e-14)
    soft = torch.rand(30, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = reward_model_loss(rewards[:, 0], rewards[:, 1], soft[:, 0, 1])
    torch.testing.assert_close(all_pairs_loss(rewards, soft), expected)


def test_all_pairs_by_hand() -> None:
    # r = (ln 3, 0, 0) rated 3, 2, 1: sigma 3/4, 3/4, 1/2, over three pairs
    loss = all_pairs_loss(torch.tensor([[LN3, 0.0, 0.0]]), order_probs(torch.tensor([[3, 2, 1]])))
    assert loss.item() == pytest.approx((2 * math.log(4 / 3) + LN2) / 3)


def test_order_probs_by_hand() -> None:
    assert order_probs(torch.tensor([[7.5, 3.0, 7.5]])).tolist() == [
        [[0.5, 1.0, 0.5], [0.0, 0.5, 0.0], [0.5, 1.0, 0.5]]
    ]
    assert order_probs(torch.tensor([[math.nan, 1.0]]))[0, 0].isnan().all()  # and not a tie


def test_rrhf_by_hand() -> None:
    # Mean logprobs -2, -1, -3; the first is best. It stands 1 behind the second and 1 ahead of the third, and the
    # third, rated above the second, 2 behind it: hinges 1 + 0 + 2. Likelihood of the best: 8 nats, 2 a token.
    logprobs, tokens = torch.tensor([[-8.0, -5.0, -6.0]]), torch.tensor([[4, 5, 2]])
    ratings = torch.tensor([[9.0, 1.0, 5.0]])
    assert rrhf_loss(logprobs, tokens, ratings).item() == pytest.approx(3.0 + 8.0)
    assert rrhf_loss(logprobs, tokens, ratings, rank_weight=100.0, sft="mean").item() == pytest.approx(300.0 + 2.0)


def test_rrhf_has_no_hinge_where_the_policy_ranks_as_the_ratings_do() -> None:
    logprobs = torch.tensor([[-4.0, -2.0, -10.0, -6.0]], requires_grad=True)
    tokens, ratings = torch.tensor([[4, 4, 4, 4]]), torch.tensor([[0.2, 0.9, -3.0, 0.1]])
    rrhf_loss(logprobs, tokens, ratings).sum().backward()
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == [[0.0, -1.0, 0.0, 0.0]]  # the best one's likelihood is all that is left
    assert rrhf_loss(logprobs, tokens, ratings).item() == pytest.approx(2.0)


def test_rrhf_is_normalised_by_length() -> None:
    ratings = torch.tensor([[1.0, 2.0]])
    # 20 tokens at -1 stand ahead of 2 tokens at -3, though their sum does not.
    loss = rrhf_loss(torch.tensor([[-20.0, -6.0]]), torch.tensor([[20, 2]]), ratings)
    assert loss.item() == pytest.approx((-1.0 + 3.0) + 6.0)
    longer = rrhf_loss(torch.tensor([[-40.0, -6.0]]), torch.tensor([[40, 2]]), ratings)
    assert longer.item() == loss.item()


def test_rrhf_of_ties_makes_no_pair_and_shares_the_best() -> None:
    loss = rrhf_loss(torch.tensor([[-8.0, -2.0, -12.0]]), torch.tensor([[4, 4, 4]]), torch.tensor([[0.5, 0.5, 0.5]]))
    assert loss.item() == pytest.approx((8.0 + 2.0 + 12.0) / 3)


@pytest.mark.parametrize("name", LOSSES)
def test_the_order_of_the_responses_changes_nothing(name: str) -> None:
    rewards, ratings = (
        random(5, 4),
        torch.tensor([[1, 2, 3, 4], [4, 4, 2, 1], [2, 2, 2, 2], [3, 1, 1, 2], [9, 7, 8, 7]]),
    )
    expected = LOSSES[name](rewards, ratings, None)
    for order in itertools.permutations(range(4)):
        permuted = LOSSES[name](rewards[:, order], ratings[:, order], None)
        torch.testing.assert_close(permuted, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_padding_changes_neither_loss_nor_gradient(name: str) -> None:
    rewards, ratings = random(2, 3), torch.tensor([[3.0, 1.0, 2.0], [1.0, 1.0, 2.0]])
    bare = rewards.clone().requires_grad_()
    expected = LOSSES[name](bare, ratings, None)
    expected.sum().backward()
    padded = torch.cat([rewards, torch.full((2, 2), math.nan)], dim=1)[:, [3, 0, 1, 4, 2]].requires_grad_()
    padded_ratings = torch.cat([ratings, torch.tensor([[math.nan, 99.0]] * 2)], dim=1)[:, [3, 0, 1, 4, 2]]
    is_present = torch.tensor([[False, True, True, False, True]] * 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is slow
        with torch.autograd.detect_anomaly():  # a NaN on the way back is masked at times, and found only here
            loss = LOSSES[name](padded, padded_ratings, is_present)
            loss.sum().backward()
    torch.testing.assert_close(loss, expected)
    assert bare.grad is not None
    assert padded.grad is not None
    torch.testing.assert_close(padded.grad[:, [1, 2, 4]], bare.grad)
    assert padded.grad[:, [0, 3]].tolist() == [[0.0, 0.0]] * 2


@pytest.mark.parametrize("name", LOSSES)
def test_a_row_of_one_response_or_none_has_nothing_to_rank(name: str) -> None:
    rewards = torch.tensor([[-4.0, 2.0], [3.0, math.nan]]).requires_grad_()
    loss = LOSSES[name](rewards, torch.tensor([[1.0, 2.0]] * 2), torch.tensor([[True, False], [False, False]]))
    assert loss.tolist() == [4.0 if name == "rrhf" else 0.0, 0.0]
    loss.sum().backward()
    assert rewards.grad is not None
    assert rewards.grad.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_equal_finite_differences(name: str) -> None:
    rewards, ratings = random(3, 4).mul(3).requires_grad_(), torch.tensor([[1, 2, 3, 4], [4, 4, 2, 1], [2, 2, 2, 2]])
    is_present = torch.tensor([[True, True, True, True], [True, True, True, False], [True, True, True, True]])
    assert torch.autograd.gradcheck(lambda values: LOSSES[name](values, ratings, is_present), (rewards,))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name", LOSSES)
def test_extreme_values_stay_finite(name: str, dtype: torch.dtype) -> None:
    rewards = torch.tensor([[1e4, -1e4, 0.0], [-1e4, -1e4, 1e4]], dtype=dtype).requires_grad_()
    loss = LOSSES[name](rewards, torch.tensor([[1, 2, 3], [1, 1, 0]]), None)
    loss.sum().backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite().all()
    assert rewards.grad is not None
    assert rewards.grad.isfinite().all()


def test_shapes_that_would_broadcast_are_refused() -> None:
    for loss in LOSSES.values():
        with pytest.raises(ValueError, match="one shape"):
            loss(torch.zeros(2, 3), torch.zeros(2, 1), None)
        with pytest.raises(ValueError, match="one shape"):
            loss(torch.zeros(2, 3), torch.zeros(2, 3), torch.ones(3, dtype=torch.bool))
    with pytest.raises(ValueError, match="one shape"):
        rrhf_loss(torch.zeros(2, 3), torch.ones(2, 1), torch.zeros(2, 3))

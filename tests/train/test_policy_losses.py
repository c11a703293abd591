"""Losses of rollouts: hand-worked values and gradients, where clips hold, how tokens are added up."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rlaif.train.policy_losses import (
    Aggregation,
    ClippedLoss,
    aggregate,
    aggregate_weight,
    clipped_loss,
    reinforce_loss,
    value_loss,
)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def token(value: float) -> Tensor:
    return torch.tensor([[[value]]], dtype=torch.float64)


def clipped_at(ratio: float, advantage: float, **settings: float) -> tuple[ClippedLoss, float]:
    """The loss of one token with this ratio, and its derivative in the ratio's log-probability."""
    logprobs = token(-2.0 + math.log(ratio)).requires_grad_()
    settings = {"clip_low": 0.2, "clip_high": 0.3} | settings
    result = clipped_loss(logprobs, token(-2.0), token(advantage), **settings)
    (gradient,) = torch.autograd.grad(result.loss.sum(), logprobs)
    assert not result.ratio.requires_grad
    return result, gradient.item()


def test_reinforce_by_hand() -> None:
    logprobs = torch.tensor([[[-1.0, -2.0], [-3.0, -4.0]]], requires_grad=True)
    advantages = torch.tensor([[[0.5], [-1.0]]], requires_grad=True)
    loss = reinforce_loss(logprobs, advantages)
    assert loss.tolist() == [[[0.5, 1.0], [-3.0, -4.0]]]
    loss.sum().backward()
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == [[[-0.5, -0.5], [1.0, 1.0]]]
    assert advantages.grad is None


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "is_clipped"),
    [
        (1.0, 2.0, -2.0, False),
        (1.25, 2.0, -2.5, False),  # within 1.3
        (1.5, 2.0, -2.6, True),  # held at 1.3
        (0.5, 2.0, -1.0, False),  # the wrong way: pulled back
        (1.0, -2.0, 2.0, False),
        (0.9, -2.0, 1.8, False),  # within 0.8
        (0.5, -2.0, 1.6, True),  # held at 0.8
        (1.5, -2.0, 3.0, False),  # the wrong way
        (1.5, 0.0, 0.0, False),
    ],
)
def test_clipped_loss_by_hand(ratio: float, advantage: float, loss: float, is_clipped: bool) -> None:
    result, gradient = clipped_at(ratio, advantage)
    assert result.loss.item() == pytest.approx(loss)
    assert result.is_clipped.item() is is_clipped
    assert result.ratio.item() == pytest.approx(ratio)
    assert gradient == pytest.approx(0.0 if is_clipped else -advantage * ratio)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "is_clipped"),
    [
        (2.5, -2.0, 5.0, False),
        (4.0, -2.0, 6.0, True),  # at most -A c
        (0.5, -2.0, 1.6, True),  # the clip as before
        (4.0, 2.0, -2.6, True),  # A > 0 has only the clip
        (1.0, -2.0, 2.0, False),
    ],
)
def test_dual_clip_by_hand(ratio: float, advantage: float, loss: float, is_clipped: bool) -> None:
    result, gradient = clipped_at(ratio, advantage, dual_clip=3.0)
    assert result.loss.item() == pytest.approx(loss)
    assert result.is_clipped.item() is is_clipped
    assert gradient == pytest.approx(0.0 if is_clipped else -advantage * ratio)


@pytest.mark.parametrize("clip", [0.0, 0.2, 10.0, math.inf])
def test_where_nothing_has_moved_nothing_is_clipped_and_the_gradient_is_reinforces(clip: float) -> None:
    logprobs, advantages = (-random(2, 3, 4).abs()).requires_grad_(), random(2, 3, 4, seed=1)
    result = clipped_loss(logprobs, logprobs, advantages, clip_low=clip, clip_high=clip, dual_clip=3.0)
    assert not result.is_clipped.any()
    assert (result.ratio == 1.0).all()
    (ours,) = torch.autograd.grad(result.loss.sum(), logprobs)
    (expected,) = torch.autograd.grad(reinforce_loss(logprobs, advantages).sum(), logprobs)
    torch.testing.assert_close(ours, expected, rtol=0, atol=0)


def test_an_infinite_clip_is_importance_sampling() -> None:
    logprobs, old, advantages = -random(2, 3, 4).abs(), -random(2, 3, 4, seed=1).abs(), random(2, 3, 1, seed=2)
    result = clipped_loss(logprobs, old, advantages, clip_low=math.inf, clip_high=math.inf)
    torch.testing.assert_close(result.loss, -(logprobs - old).exp() * advantages)
    assert not result.is_clipped.any()


@given(st.floats(0.05, 20.0), st.floats(-3.0, 3.0), st.floats(0.0, 1.5), st.floats(0.0, 1.5))
def test_the_clip_only_ever_makes_the_loss_larger_and_dual_clip_smaller(
    ratio: float, advantage: float, low: float, high: float
) -> None:
    free = -advantage * ratio
    clipped, gradient = clipped_at(ratio, advantage, clip_low=low, clip_high=high)
    assert clipped.loss.item() >= free - 1e-9
    assert not clipped.is_clipped.item() or gradient == 0.0
    dual, _ = clipped_at(ratio, advantage, clip_low=low, clip_high=high, dual_clip=4.0)
    assert dual.loss.item() <= clipped.loss.item() + 1e-9
    if advantage < 0.0 and low < 1.0:
        assert 0.0 <= dual.loss.item() <= -4.0 * advantage + 1e-9


def test_no_gradient_reaches_what_the_old_policy_said() -> None:
    logprobs, old, advantages = (torch.zeros(1, 1, 2, requires_grad=True) for _ in range(3))
    clipped_loss(logprobs, old + 0.1, advantages + 1.0, clip_low=0.2, clip_high=0.2).loss.sum().backward()
    values, old_values, returns = (torch.zeros(1, 1, 2, requires_grad=True) for _ in range(3))
    value_loss(values, old_values + 0.1, returns + 1.0, clip=0.2).sum().backward()
    assert old.grad is advantages.grad is old_values.grad is returns.grad is None
    for tensor in (logprobs, values):
        assert tensor.grad is not None
        assert (tensor.grad != 0.0).all()


@pytest.mark.parametrize(
    ("value", "clip", "loss", "gradient"),
    [
        (0.5, None, 0.125, -0.5),  # (0.5 - 1)^2 / 2, V - R
        (0.5, 0.2, 0.32, 0.0),  # kept at 0 + 0.2: (0.2 - 1)^2 / 2, and no further
        (0.1, 0.2, 0.405, -0.9),  # within the clip
        (-0.5, 0.2, 1.125, -1.5),  # the wrong way: the free error is the larger
    ],
)
def test_value_loss_by_hand(value: float, clip: float | None, loss: float, gradient: float) -> None:
    """The value was 0, the return is 1."""
    values = token(value).requires_grad_()
    result = value_loss(values, token(0.0), token(1.0), clip=clip)
    assert result.item() == pytest.approx(loss)
    assert torch.autograd.grad(result.sum(), values)[0].item() == pytest.approx(gradient)


PER_TOKEN = torch.tensor([[[1.0, 2.0, 3.0], [10.0, math.nan, 7.0]], [[5.0, 7.0, 1e9], [math.inf, 0.0, 0.0]]])
IS_COMPLETION = torch.tensor([[[1, 1, 1], [1, 0, 0]], [[1, 1, 0], [0, 0, 0]]]) > 0
TOKENS = ([3, 1], [2, 0])


@pytest.mark.parametrize(
    ("how", "sums", "weights"),
    [
        ("token", [16.0, 12.0], [4, 2]),
        ("sequence", [12.0, 6.0], [2, 1]),  # (1 + 2 + 3) / 3 + 10, (5 + 7) / 2
        ("constant", [16.0, 12.0], [16, 8]),  # 8 tokens at most
    ],
)
def test_aggregates_by_hand(how: Aggregation, sums: list[float], weights: list[int]) -> None:
    assert aggregate(PER_TOKEN, IS_COMPLETION, how).tolist() == sums
    assert [aggregate_weight(tokens, how, 8) for tokens in TOKENS] == weights


@pytest.mark.parametrize("how", ["token", "sequence", "constant"])
def test_a_step_is_the_same_however_it_is_split(how: Aggregation) -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 6, (6, 3), generator=generator)
    losses, is_completion = random(6, 3, 9), torch.arange(9) < lengths.unsqueeze(-1)
    weight = sum(aggregate_weight(row, how, 9) for row in lengths.tolist())
    whole = aggregate(losses, is_completion, how).sum() / weight
    single = [losses[b, k, : int(lengths[b, k])] for b in range(6) for k in range(3)]
    match how:
        case "token":
            expected = torch.cat(single).mean()
        case "sequence":
            expected = torch.stack([row.mean() for row in single]).mean()
        case "constant":
            expected = torch.stack([row.sum() for row in single]).mean() / 9
    torch.testing.assert_close(whole, expected)
    parts = [aggregate(losses[b : b + 1, :, :5], is_completion[b : b + 1, :, :5], how) for b in range(6)]
    torch.testing.assert_close(torch.cat(parts).sum() / weight, whole)


@pytest.mark.parametrize("how", ["token", "sequence", "constant"])
def test_what_stands_in_padding_has_no_gradient(how: Aggregation) -> None:
    per_token = PER_TOKEN.clone().requires_grad_()
    aggregate(per_token, IS_COMPLETION, how).sum().backward()
    assert per_token.grad is not None
    assert ((per_token.grad != 0.0) == IS_COMPLETION).all()


def test_gradients_weigh_tokens_as_each_aggregate_says() -> None:
    # One completion of 3 tokens and one of 1; of a token's gradient in the step's mean:
    expected: dict[Aggregation, list[float]] = {
        "token": [1 / 4, 1 / 4],
        "sequence": [1 / 6, 1 / 2],
        "constant": [1 / 16, 1 / 16],
    }
    for how, (long, short) in expected.items():
        per_token = torch.zeros(1, 2, 3, requires_grad=True)
        (aggregate(per_token, IS_COMPLETION[:1], how).sum() / aggregate_weight([3, 1], how, 8)).backward()
        assert per_token.grad is not None
        assert per_token.grad[0, :, 0].tolist() == pytest.approx([long, short])


def test_shapes_and_settings_that_cannot_be_are_refused() -> None:
    logprobs = torch.zeros(3, 3, 3)
    # (3, 3) would broadcast, prompts for completions.
    for advantages in (torch.zeros(3, 3), torch.zeros(3, 1, 3), torch.zeros(1, 3, 3), torch.zeros(())):
        with pytest.raises(ValueError, match="advantages of shape"):
            reinforce_loss(logprobs, advantages)
        with pytest.raises(ValueError, match="advantages of shape"):
            clipped_loss(logprobs, logprobs, advantages, clip_low=0.2, clip_high=0.2)
    with pytest.raises(ValueError, match="one shape"):
        clipped_loss(logprobs, logprobs[:1], logprobs, clip_low=0.2, clip_high=0.2)
    with pytest.raises(ValueError, match="one shape"):
        value_loss(logprobs, logprobs, logprobs[:1], clip=None)
    with pytest.raises(ValueError, match="one shape"):
        aggregate(logprobs, torch.ones(3, 3, 1, dtype=torch.bool), "token")
    with pytest.raises(ValueError, match="must be at least 0"):
        clipped_loss(logprobs, logprobs, logprobs, clip_low=-0.1, clip_high=0.2)
    with pytest.raises(ValueError, match="dual_clip must be above 1"):
        clipped_loss(logprobs, logprobs, logprobs, clip_low=0.2, clip_high=0.2, dual_clip=1.0)
    for clip in (0.0, math.nan):
        with pytest.raises(ValueError, match="clip must be above 0"):
            value_loss(logprobs, logprobs, logprobs, clip=clip)
    with pytest.raises(ValueError, match="most_tokens must be at least 1"):
        aggregate_weight([3], "constant", 0)


def test_half_precision_is_computed_in_float32() -> None:
    half, mask = torch.full((1, 1, 2), -1.5, dtype=torch.bfloat16), torch.ones(1, 1, 2, dtype=torch.bool)
    for tensor in (
        reinforce_loss(half, half),
        clipped_loss(half, half, half, clip_low=0.2, clip_high=0.2).loss,
        value_loss(half, half, half, clip=0.2),
        aggregate(half, mask, "token"),
    ):
        assert tensor.dtype == torch.float32

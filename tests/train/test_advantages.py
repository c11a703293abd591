"""Rewards to advantages: hand-worked values, a second computation; padding, order and equal rewards change nothing."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rlaif.train.advantages import (
    SPREAD_FLOOR,
    batch_advantages,
    drlaif_returns,
    gae,
    group_advantages,
    leave_one_out_advantages,
    overlong_penalty,
    silent_groups,
    terminal_rewards,
    whiten,
)
from rlaif.train.policy_losses import aggregate, clipped_loss, reinforce_loss

NAN = math.nan

ESTIMATORS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "group": group_advantages,
    "no scale": lambda rewards, is_present: group_advantages(rewards, is_present, scale="none"),
    "group mean, batch scale": lambda rewards, is_present: group_advantages(rewards, is_present, scale="batch"),
    "leave one out": leave_one_out_advantages,
    "batch": lambda rewards, is_present: batch_advantages(rewards, is_present, scale=False),
    "batch, scaled": lambda rewards, is_present: batch_advantages(rewards, is_present, scale=True),
}
OF_GROUPS = [name for name in ESTIMATORS if not name.startswith("batch")]


def everyone(rewards: Tensor) -> Tensor:
    return torch.ones(rewards.shape, dtype=torch.bool)


def present(rewards: Tensor) -> Tensor:
    return ~rewards.isnan()


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@st.composite
def groups(draw: st.DrawFn) -> Tensor:
    """Rewards in [-1, 1] of up to 4 groups of up to 5, with ties; NaN where a sample was dropped."""
    rows, columns = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    reward = st.one_of(st.sampled_from([0.1, 0.7, NAN]), st.floats(-1.0, 1.0))
    row = st.lists(reward, min_size=columns, max_size=columns)
    return torch.tensor(draw(st.lists(row, min_size=rows, max_size=rows)), dtype=torch.float64)


def test_group_advantages_by_hand() -> None:
    # 1, 3, 5: mean 3, deviations -2, 0, 2, variance 8 / 2. The second sample was dropped.
    rewards = torch.tensor([[1.0, NAN, 3.0, 5.0]])
    unit = 2.0 / (2.0 + SPREAD_FLOOR)
    assert group_advantages(rewards, present(rewards)).tolist() == [pytest.approx([-unit, 0.0, 0.0, unit])]
    assert group_advantages(rewards, present(rewards), scale="none").tolist() == [[-2.0, 0.0, 0.0, 2.0]]


def test_the_batch_scale_is_that_of_all_centred_rewards_which_have_company() -> None:
    # Off their means: -1, 1 | 0, 0 | the third group's only sample tells nothing. Variance (1 + 1 + 0 + 0) / 3.
    rewards = torch.tensor([[0.0, 2.0], [5.0, 5.0], [9.0, NAN]])
    unit = 1.0 / (math.sqrt(2 / 3) + SPREAD_FLOOR)
    advantages = group_advantages(rewards, present(rewards), scale="batch")
    torch.testing.assert_close(advantages, torch.tensor([[-unit, unit], [0.0, 0.0], [0.0, 0.0]]))


def test_leave_one_out_by_hand() -> None:
    # 1 - (3 + 5) / 2, 3 - (1 + 5) / 2, 5 - (1 + 3) / 2; alone: no baseline
    rewards = torch.tensor([[1.0, NAN, 3.0, 5.0], [NAN, 7.0, NAN, NAN]])
    expected = [[-3.0, 0.0, 0.0, 3.0], [0.0, 0.0, 0.0, 0.0]]
    assert leave_one_out_advantages(rewards, present(rewards)).tolist() == expected


def test_batch_advantages_by_hand() -> None:
    # 0, 3, 9 of two prompts: 0 - 6, 3 - 4.5, 9 - 1.5. Mean 4, deviations -4, -1, 5, variance 42 / 2.
    rewards = torch.tensor([[0.0, 3.0], [NAN, 9.0]])
    assert batch_advantages(rewards, present(rewards), scale=False).tolist() == [[-6.0, -1.5], [0.0, 7.5]]
    unit = 1.0 / (math.sqrt(21.0) + SPREAD_FLOOR)
    scaled = batch_advantages(rewards, present(rewards), scale=True)
    torch.testing.assert_close(scaled, unit * torch.tensor([[-4.0, -1.0], [0.0, 5.0]]))


@given(groups())
def test_advantages_equal_a_second_computation(rewards: Tensor) -> None:
    rows = [[reward for reward in row if not math.isnan(reward)] for row in rewards.tolist()]

    def expected(of: Callable[[float, list[float]], float]) -> Tensor:
        return torch.tensor(
            [
                [0.0 if math.isnan(reward) or len(row) < 2 else of(reward, row) for reward in full]
                for full, row in zip(rewards.tolist(), rows, strict=True)
            ],
            dtype=torch.float64,
        )

    def check(name: str, of: Callable[[float, list[float]], float]) -> None:
        actual = ESTIMATORS[name](rewards, present(rewards))
        torch.testing.assert_close(actual, expected(of), rtol=1e-9, atol=1e-9)

    check("no scale", lambda reward, row: reward - statistics.fmean(row))
    check("group", lambda reward, row: (reward - statistics.fmean(row)) / (statistics.stdev(row) + SPREAD_FLOOR))
    check("leave one out", lambda reward, row: reward - (math.fsum(row) - reward) / (len(row) - 1))
    compared = [reward - statistics.fmean(row) for row in rows if len(row) > 1 for reward in row]
    if compared:
        scale = statistics.stdev(compared) + SPREAD_FLOOR
        check("group mean, batch scale", lambda reward, row: (reward - statistics.fmean(row)) / scale)


@given(groups())
def test_leave_one_out_is_the_centred_reward_stretched(rewards: Tensor) -> None:
    counts = present(rewards).sum(-1, keepdim=True)
    centred = group_advantages(rewards, present(rewards), scale="none")
    expected = torch.where(counts > 1, counts / (counts - 1), 0.0) * centred
    torch.testing.assert_close(leave_one_out_advantages(rewards, present(rewards)), expected)


@pytest.mark.parametrize("name", ESTIMATORS)
@given(rewards=groups())
def test_advantages_sum_to_zero_and_follow_the_rewards(name: str, rewards: Tensor) -> None:
    is_present = present(rewards)
    advantages = ESTIMATORS[name](rewards, is_present)
    assert advantages.isfinite().all()
    assert (advantages[~is_present] == 0.0).all()
    sums = advantages.sum(-1) if name in OF_GROUPS else advantages.sum()
    torch.testing.assert_close(sums, torch.zeros_like(sums), rtol=0, atol=1e-9)
    # Within a group the better reward has the higher advantage.
    for row, means in zip(rewards.tolist(), advantages.tolist(), strict=True):
        pairs = sorted((reward, mean) for reward, mean in zip(row, means, strict=True) if not math.isnan(reward))
        assert all(b >= a - 1e-12 for (_, a), (_, b) in itertools.pairwise(pairs))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_order_and_padding_change_nothing(name: str) -> None:
    rewards = random(3, 4)
    rewards[0, 1] = rewards[2, 0] = NAN
    advantages = ESTIMATORS[name](rewards, present(rewards))
    order = [2, 0, 3, 1]
    permuted = ESTIMATORS[name](rewards[:, order], present(rewards)[:, order])
    torch.testing.assert_close(permuted, advantages[:, order])
    prompts = ESTIMATORS[name](rewards[[2, 0, 1]], present(rewards)[[2, 0, 1]])
    torch.testing.assert_close(prompts, advantages[[2, 0, 1]])
    for padding in (0.0, 1e6, NAN, math.inf):
        padded = torch.cat((rewards.nan_to_num(padding), torch.full((3, 2), padding, dtype=torch.float64)), dim=1)
        is_present = torch.cat((present(rewards), torch.zeros(3, 2, dtype=torch.bool)), dim=1)
        torch.testing.assert_close(ESTIMATORS[name](padded, is_present)[:, :4], advantages)


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("reward", [0.1, -0.3, 1 / 3, 1e-30, 12345.678])
def test_equal_rewards_are_exactly_zero(name: str, reward: float) -> None:
    # In float32 the mean of seven times 0.1 is not 0.1.
    rewards = torch.full((1, 7), reward)
    rewards[0, 3] = NAN
    assert ESTIMATORS[name](rewards, present(rewards)).tolist() == [[0.0] * 7]


def test_a_rounding_error_is_no_signal() -> None:
    rewards = torch.tensor([[0.1, 0.1 + 1e-7, 0.1, 0.1]], dtype=torch.float64)
    assert group_advantages(rewards, everyone(rewards)).abs().max() < 1e-3


def test_a_missing_reward_is_not_taken_for_a_value() -> None:
    rewards = torch.tensor([[NAN, 1.0, 2.0]])
    assert group_advantages(rewards, everyone(rewards)).isnan().all()
    assert not silent_groups(rewards, everyone(rewards)).item()


def test_silent_groups_are_those_whose_advantages_are_zero() -> None:
    rewards = torch.tensor(
        [[0.1, 0.1, 0.1], [0.1, 0.2, 0.1], [NAN, 0.3, 0.3], [NAN, 0.3, NAN], [NAN, NAN, NAN], [0.0, NAN, -0.0]]
    )
    silent = silent_groups(rewards, present(rewards))
    assert silent.tolist() == [True, False, True, True, True, True]
    for name in OF_GROUPS:
        assert (ESTIMATORS[name](rewards, present(rewards)) == 0.0).all(-1).tolist() == silent.tolist()


def test_a_silent_group_has_no_gradient_at_all() -> None:
    rewards = torch.tensor([[0.3, 0.3, 0.3], [0.3, 0.1, 0.3]])
    logprobs = (-random(2, 3, 4).abs()).requires_grad_()
    advantages = group_advantages(rewards, everyone(rewards)).unsqueeze(-1)
    losses = clipped_loss(logprobs, logprobs + 0.05, advantages, clip_low=0.2, clip_high=0.2).loss
    aggregate(losses, torch.ones(2, 3, 4, dtype=torch.bool), "token").sum().backward()
    assert logprobs.grad is not None
    assert (logprobs.grad[0] == 0.0).all()
    assert (logprobs.grad[1] != 0.0).all()
    assert silent_groups(rewards, everyone(rewards)).sum() == 1


def test_gae_by_hand() -> None:
    # Rewards 0, 0, 1; values 0.5, 0.25, 0.5; gamma = lam = 0.5. From the end, with V = 0 after it:
    #   delta_3 = 1 + 0.5 * 0 - 0.5      =  0.5      A_3 = 0.5
    #   delta_2 = 0 + 0.5 * 0.5 - 0.25   =  0        A_2 = 0 + 0.25 * 0.5         =  0.125
    #   delta_1 = 0 + 0.5 * 0.25 - 0.5   = -0.375    A_1 = -0.375 + 0.25 * 0.125  = -0.34375
    # The second completion has one token: delta = -1 + 0 - 0.25.
    rewards = torch.tensor([[0.0, 0.0, 1.0], [-1.0, NAN, NAN]])
    values = torch.tensor([[0.5, 0.25, 0.5], [0.25, NAN, 9.0]])
    advantages, returns = gae(rewards, values, present(rewards), gamma=0.5, lam=0.5)
    assert advantages.tolist() == [[-0.34375, 0.125, 0.5], [-1.25, 0.0, 0.0]]
    assert returns.tolist() == [[0.15625, 0.375, 1.0], [-1.0, 0.0, 0.0]]


@given(st.integers(1, 7), st.integers(0, 3), st.sampled_from([0.0, 0.9, 1.0]), st.sampled_from([0.0, 0.5, 0.95, 1.0]))
def test_gae_is_its_definition(length: int, padding: int, gamma: float, lam: float) -> None:
    rewards, values = random(2, length + padding).unbind(0)
    is_completion = torch.arange(length + padding) < length
    result = gae(rewards[None], values[None], is_completion[None], gamma=gamma, lam=lam)
    r, v = rewards[:length].tolist(), [*values[:length].tolist(), 0.0]
    deltas = [r[t] + gamma * v[t + 1] - v[t] for t in range(length)]
    expected = [sum((gamma * lam) ** (s - t) * deltas[s] for s in range(t, length)) for t in range(length)]
    assert result.advantages[0, :length].tolist() == pytest.approx(expected)
    assert result.returns[0, :length].tolist() == pytest.approx([a + b for a, b in zip(expected, v, strict=False)])
    assert (result.advantages[0, length:] == 0.0).all()
    assert (result.returns[0, length:] == 0.0).all()


def test_gae_at_its_limits() -> None:
    rewards, values = random(2, 3, 5).unbind(0)
    is_completion = everyone(rewards)
    to_come = rewards.flip(1).cumsum(1).flip(1)
    whole = gae(rewards, values, is_completion, gamma=1.0, lam=1.0)
    torch.testing.assert_close(whole.returns, to_come)
    torch.testing.assert_close(whole.advantages, to_come - values)
    # lam 0: one step ahead
    short = gae(rewards, values, is_completion, gamma=1.0, lam=0.0)
    torch.testing.assert_close(short.returns[:, :-1], rewards[:, :-1] + values[:, 1:])
    # Values that predict every return leave nothing to learn.
    known = gae(rewards, to_come, is_completion, gamma=1.0, lam=0.95)
    torch.testing.assert_close(known.advantages, torch.zeros_like(rewards))


def test_terminal_rewards_stand_at_the_last_token() -> None:
    is_completion = torch.tensor([[True, True, False], [True, True, True], [True, False, False], [False] * 3])
    rewards = terminal_rewards(torch.tensor([0.5, -1.0, 2.0, NAN]), is_completion)
    assert rewards.tolist() == [[0.0, 0.5, 0.0], [0.0, 0.0, -1.0], [2.0, 0.0, 0.0], [0.0, 0.0, 0.0]]


def test_whiten_by_hand() -> None:
    # 1, 3, 5 of five: mean 3, variance 8 / 2
    values, mask = torch.tensor([[1.0, 3.0], [NAN, 5.0], [70.0, NAN]]), torch.tensor([[1, 1], [0, 1], [0, 0]]) > 0
    torch.testing.assert_close(whiten(values, mask), torch.tensor([[-1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]))
    unshifted = whiten(values, mask, shifts_mean=False)
    torch.testing.assert_close(unshifted, torch.tensor([[2.0, 3.0], [0.0, 4.0], [0.0, 0.0]]))


@given(st.integers(2, 40), st.floats(0.01, 100.0), st.floats(-100.0, 100.0), st.integers(0, 9))
def test_whitened_values_have_mean_0_and_variance_1(count: int, scale: float, shift: float, seed: int) -> None:
    values = torch.cat((random(count, seed=seed) * scale + shift, torch.full((7,), 1e9, dtype=torch.float64)))
    mask = torch.arange(count + 7) < count
    whitened = whiten(values, mask)
    assert whitened[mask].mean().item() == pytest.approx(0.0, abs=1e-9)
    assert whitened[mask].var().item() == pytest.approx(1.0, rel=1e-2)  # 1e-8 beside a variance of at least some 1e-6
    assert (whitened[~mask] == 0.0).all()
    unshifted = whiten(values, mask, shifts_mean=False)
    assert unshifted[mask].mean().item() == pytest.approx(values[mask].mean().item(), abs=1e-9)
    torch.testing.assert_close(unshifted[mask] - values[mask].mean(), whitened[mask], rtol=0, atol=1e-9)


@pytest.mark.parametrize("count", [1, 7])
def test_whitening_equal_values_does_not_blow_up_their_rounding(count: int) -> None:
    values, mask = torch.full((9,), 0.1), torch.arange(9) < count
    assert whiten(values, mask).tolist() == [0.0] * 9
    assert torch.equal(whiten(values, mask, shifts_mean=False), values.where(mask, 0.0))


def test_overlong_penalty_by_hand() -> None:
    # 100 tokens at most, felt from 80 on: 85 is a quarter of the way.
    tokens = torch.tensor([[1, 80, 85], [90, 100, 140]])
    assert overlong_penalty(tokens, most=100, buffer=20).tolist() == [[0.0, 0.0, -0.25], [-0.5, -1.0, -1.0]]
    for buffer in (0, 101):
        with pytest.raises(ValueError, match=r"buffer must lie in \[1, 100\]"):
            overlong_penalty(tokens, most=100, buffer=buffer)


def test_drlaif_returns_by_hand() -> None:
    # 0.95 * 0.8 - 0.05 * 4
    returns = drlaif_returns(torch.tensor([[0.8, -1.0]]), torch.tensor([[4.0, -2.0]]), 0.05)
    torch.testing.assert_close(returns, torch.tensor([[0.56, -0.85]]))
    with pytest.raises(ValueError, match=r"beta must lie in \[0, 1\]"):
        drlaif_returns(torch.zeros(1), torch.zeros(1), 1.5)


def test_no_gradient_leaves_through_a_reward() -> None:
    # A KL inside the reward is made of the policy's log-probabilities.
    logprobs = random(2, 3).requires_grad_()
    is_present = everyone(logprobs)
    constants = [estimate(logprobs, is_present) for estimate in ESTIMATORS.values()]
    constants += [*gae(logprobs, logprobs, is_present, gamma=1.0, lam=1.0), whiten(logprobs, is_present)]
    constants += [drlaif_returns(logprobs, logprobs, 0.5), terminal_rewards(logprobs[:, 0], is_present)]
    assert not any(tensor.requires_grad for tensor in constants)


def test_half_precision_is_computed_in_float32() -> None:
    rewards = torch.tensor([[0.5, 0.25, 0.75]], dtype=torch.bfloat16)
    for estimate in ESTIMATORS.values():
        assert estimate(rewards, everyone(rewards)).dtype == torch.float32
        torch.testing.assert_close(
            estimate(rewards, everyone(rewards)), estimate(rewards.float(), everyone(rewards)), rtol=0, atol=0
        )
    assert whiten(rewards, everyone(rewards)).dtype == torch.float32


def test_shapes_and_ranges_are_checked() -> None:
    matrix, is_there = torch.zeros(2, 3), torch.ones(2, 1, dtype=torch.bool)
    for estimate in ESTIMATORS.values():
        with pytest.raises(ValueError, match="one shape"):
            estimate(matrix, is_there)
    with pytest.raises(ValueError, match="one shape"):
        whiten(matrix, is_there)
    with pytest.raises(ValueError, match="one shape"):
        terminal_rewards(torch.zeros(3), torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="one shape"):
        drlaif_returns(matrix, torch.zeros(2, 1), 0.05)
    with pytest.raises(ValueError, match=r"gamma must lie in \[0, 1\]"):
        gae(matrix, matrix, everyone(matrix), gamma=1.5, lam=1.0)
    with pytest.raises(ValueError, match=r"lam must lie in \[0, 1\]"):
        gae(matrix, matrix, everyone(matrix), gamma=1.0, lam=-0.5)


def test_reinforce_reads_advantages_as_they_are_made() -> None:
    rewards = torch.tensor([[1.0, 3.0]])
    logprobs = torch.full((1, 2, 3), -2.0)
    loss = reinforce_loss(logprobs, leave_one_out_advantages(rewards, everyone(rewards)).unsqueeze(-1))
    assert loss.tolist() == [[[-4.0] * 3, [4.0] * 3]]

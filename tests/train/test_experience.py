"""What a batch of rollouts is trained towards, method by method, with the working shown."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlaif.train.advantages import SPREAD_FLOOR
from rlaif.train.experience import (
    Experience,
    RunningSpread,
    drlaif_advantages,
    grpo_advantages,
    grpo_switches,
    padded,
    ppo_advantages,
    reinforce_advantages,
    rloo_advantages,
    token_targets,
)
from rlaif.train.online_config import GrpoLossConfig, PpoLossConfig, ReinforceLossConfig

NAN = math.nan
LENGTHS = ((2, 1, 3), (1, 0, 2))  # of prompt a's three completions, and prompt b's two: its second was dropped
IS_COMPLETION = torch.arange(3) < torch.tensor(LENGTHS).unsqueeze(-1)
REWARDS = torch.tensor([[1.0, 0.0, -0.4], [0.5, NAN, 0.7]])
KL = 0.1
"""Of each token, nats."""


def experience(*, values: float | None = None, kl: float | None = KL) -> Experience:
    old = torch.full((2, 3, 3), -1.0).where(IS_COMPLETION, 0.0)
    reference = None if kl is None else (old - kl).where(IS_COMPLETION, 0.0)
    predicted = None if values is None else torch.full((2, 3, 3), values).where(IS_COMPLETION, 0.0)
    return Experience(REWARDS, IS_COMPLETION, old, reference, predicted)


def at_tokens(of_completions: list[list[float]]) -> torch.Tensor:
    return torch.tensor(of_completions).unsqueeze(-1).where(IS_COMPLETION, 0.0)


def test_what_an_experience_knows() -> None:
    made = experience()
    assert made.is_present.tolist() == [[True, True, True], [True, False, True]]
    torch.testing.assert_close(made.kl, torch.tensor([[0.2, 0.1, 0.3], [0.1, 0.0, 0.2]]))
    torch.testing.assert_close(made.token_kl, KL * IS_COMPLETION)
    with pytest.raises(ValueError, match="the reference was not asked"):
        _ = experience(kl=None).kl


def test_drlaif_is_the_share_of_the_reward_less_that_of_the_kl_less_the_value() -> None:
    """beta 0.5: 0.5 1 - 0.5 0.2 = 0.4, -0.05, -0.35; 0.2, none, 0.25; less V = 0.25 at each token."""
    found = drlaif_advantages(experience(values=0.25), 0.5)
    returns = [[0.4, -0.05, -0.35], [0.2, 0.0, 0.25]]
    assert found.returns is not None
    torch.testing.assert_close(found.returns, at_tokens(returns))
    torch.testing.assert_close(found.advantages, at_tokens([[x - 0.25 for x in row] for row in returns]))
    with pytest.raises(ValueError, match="values were not predicted"):
        drlaif_advantages(experience(), 0.5)


def test_drlaif_without_a_price_asks_no_reference() -> None:
    found = drlaif_advantages(experience(values=0.0, kl=None), 0.0)
    torch.testing.assert_close(found.advantages, at_tokens([[1.0, 0.0, -0.4], [0.5, 0.0, 0.7]]))


@pytest.mark.parametrize(
    ("baseline", "expected"),
    [
        ("none", [[1.0, 0.0, -0.4], [0.5, 0.0, 0.7]]),
        # The mean of a: 0.2; of b: 0.6.
        ("group", [[0.8, -0.2, -0.6], [-0.1, 0.0, 0.1]]),
        # The other four's means: 0.2, 0.45, 0.55, 0.325, 0.275.
        ("batch", [[0.8, -0.45, -0.95], [0.175, 0.0, 0.425]]),
    ],
)
def test_reinforce_takes_its_baseline_from_the_reward(baseline: str, expected: list[list[float]]) -> None:
    config = ReinforceLossConfig(baseline=baseline)  # type: ignore[arg-type]
    found = reinforce_advantages(experience(kl=None), config, 0.0)
    torch.testing.assert_close(found.advantages, at_tokens(expected))
    assert found.returns is None


def test_reinforce_pays_at_each_token_for_the_kl_from_there_on() -> None:
    found = reinforce_advantages(experience(), ReinforceLossConfig(baseline="none"), 2.0).advantages
    # Two tokens: 1 - 2 (0.1 + 0.1), 1 - 2 0.1; three: -0.4 - 0.6, ...
    torch.testing.assert_close(found[0, 0], torch.tensor([0.6, 0.8, 0.0]))
    torch.testing.assert_close(found[0, 2], torch.tensor([-1.0, -0.8, -0.6]))
    assert found[1, 1].tolist() == [0.0, 0.0, 0.0]


def test_reinforce_plus_plus_has_mean_0_and_spread_1_over_the_tokens_of_the_batch() -> None:
    config = ReinforceLossConfig(normalize=True)
    found = reinforce_advantages(experience(), config, 0.5).advantages[IS_COMPLETION]
    assert found.mean().item() == pytest.approx(0.0, abs=1e-6)
    assert found.std().item() == pytest.approx(1.0, abs=1e-3)


def test_rloo_is_the_reward_less_kl_less_the_mean_of_the_others() -> None:
    """beta 1: a has 0.8, -0.1 and -0.7; b 0.4 and 0.5."""
    found = rloo_advantages(experience(), 1.0).advantages
    torch.testing.assert_close(found, at_tokens([[1.2, -0.15, -1.05], [-0.1, 0.0, 0.1]]))


def test_grpo_divides_by_the_spread_of_the_group_and_dr_grpo_by_nothing() -> None:
    plain = grpo_advantages(experience(kl=None), grpo_switches(GrpoLossConfig(variant="dr-grpo"), 3), 3).advantages
    torch.testing.assert_close(plain, at_tokens([[0.8, -0.2, -0.6], [-0.1, 0.0, 0.1]]))
    scaled = grpo_advantages(experience(kl=None), grpo_switches(GrpoLossConfig(), 3), 3).advantages
    spreads = [statistics.stdev([1.0, 0.0, -0.4]) + SPREAD_FLOOR, statistics.stdev([0.5, 0.7]) + SPREAD_FLOOR]
    torch.testing.assert_close(scaled, plain / torch.tensor(spreads)[:, None, None])


def test_dapo_takes_a_price_from_overlong_completions_before_it_compares() -> None:
    """A buffer of 2 tokens before 3: two tokens cost 1/2, three 1, so that a has 0.5, 0 and -1.4."""
    switches = grpo_switches(GrpoLossConfig(variant="dr-grpo", overlong_buffer=2), 3)
    found = grpo_advantages(experience(kl=None), switches, 3).advantages
    torch.testing.assert_close(found, at_tokens([[0.8, 0.3, -1.1], [0.15, 0.0, -0.15]]))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (GrpoLossConfig(), ("group", "sequence", 0.2, 0.2, 0, False)),
        (GrpoLossConfig(clip_low=0.1), ("group", "sequence", 0.1, 0.1, 0, False)),
        (GrpoLossConfig(variant="dr-grpo"), ("none", "constant", 0.2, 0.2, 0, False)),
        (GrpoLossConfig(variant="dapo"), ("group", "token", 0.2, 0.28, 8, True)),
        (
            GrpoLossConfig(
                variant="dapo", scale="batch", aggregation="sequence", clip_high=0.4, overlong_buffer=0,
                replace_silent=False,
            ),
            ("batch", "sequence", 0.2, 0.4, 0, False),
        ),
    ],
)  # fmt: skip
def test_switches_of_a_variant_can_be_set_one_by_one(config: GrpoLossConfig, expected: tuple[object, ...]) -> None:
    assert grpo_switches(config, 64) == expected


def test_ppo_is_gae_of_the_reward_at_the_last_token_less_the_price_of_each() -> None:
    """Values 0.5, gamma 1, lambda 0.5, beta 1. a's first: rewards -0.1 and 0.9, so that the last delta is
    0.9 - 0.5 = 0.4, and the one before -0.1 + 0.5 - 0.5 + 0.5 0.4 = 0.1."""
    config = PpoLossConfig(lam=0.5, whiten_advantages=False)
    found = ppo_advantages(experience(values=0.5), config, 1.0)
    assert found.returns is not None
    torch.testing.assert_close(found.advantages[0, 0], torch.tensor([0.1, 0.4, 0.0]))
    torch.testing.assert_close(found.returns[0, 0], torch.tensor([0.6, 0.9, 0.0]))
    torch.testing.assert_close(found.advantages[0, 1], torch.tensor([-0.6, 0.0, 0.0]))
    assert found.advantages[1, 1].tolist() == [0.0, 0.0, 0.0]


def test_ppo_clips_rewards_and_whitens_over_the_tokens_of_the_batch() -> None:
    config = PpoLossConfig(lam=1.0, whiten_advantages=False, reward_clip=0.3)
    found = ppo_advantages(experience(values=0.0, kl=None), config, 0.0)
    torch.testing.assert_close(found.advantages, at_tokens([[0.3, 0.0, -0.3], [0.3, 0.0, 0.3]]))
    white = ppo_advantages(experience(values=0.0, kl=None), PpoLossConfig(), 0.0).advantages[IS_COMPLETION]
    assert white.mean().item() == pytest.approx(0.0, abs=1e-6)
    assert white.std(unbiased=False).item() == pytest.approx(1.0, abs=0.1)


def test_ppo_divides_rewards_by_their_spread_and_keeps_their_mean() -> None:
    """Of all nine tokens, most of which have a reward of 0."""

    def token_rewards(config: PpoLossConfig) -> torch.Tensor:
        summed = ppo_advantages(experience(values=0.0, kl=None), config, 0.0).advantages
        return (summed - torch.nn.functional.pad(summed[..., 1:], (0, 1)))[IS_COMPLETION]

    common = {"lam": 1.0, "whiten_advantages": False, "reward_clip": None}
    plain, white = token_rewards(PpoLossConfig(**common)), token_rewards(PpoLossConfig(**common, whiten_rewards=True))
    torch.testing.assert_close(white.mean(), plain.mean())
    torch.testing.assert_close(white, (plain - plain.mean()) / plain.std() + plain.mean(), rtol=1e-3, atol=1e-3)


def test_targets_are_of_the_completions_that_there_are() -> None:
    made = experience(values=0.25)
    first, second = token_targets(made, drlaif_advantages(made, 0.5))
    assert [len(tokens) for tokens in first.advantages] == [2, 1, 3]
    assert [len(tokens) for tokens in second.advantages] == [1, 2]
    for one in (first, second):
        for column in one:
            assert column is not None
            assert [len(tokens) for tokens in column] == [len(tokens) for tokens in one.advantages]
    assert second.returns is not None
    assert second.returns[1] == pytest.approx((0.25, 0.25))
    (plain, _) = token_targets(made, rloo_advantages(made, 0.0))
    assert plain.returns is None
    assert plain.old_values is None


def test_padding_is_zero() -> None:
    found = padded([[(1.0, 2.0), (3.0,)], [(4.0,)]], (2, 2, 2))
    assert found.tolist() == [[[1.0, 2.0], [3.0, 0.0]], [[4.0, 0.0], [0.0, 0.0]]]


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=30), st.integers(0, 30))
def test_a_running_spread_is_the_spread_of_all_so_far(values: list[float], cut: int) -> None:
    spread = RunningSpread().updated(values[:cut]).updated(values[cut:])
    assert spread.count == len(values)
    assert spread.mean == pytest.approx(statistics.fmean(values), abs=1e-6)
    assert spread.value == pytest.approx(max(statistics.stdev(values), 1e-4), rel=1e-6, abs=1e-6)


def test_a_spread_of_fewer_than_two_divides_by_1() -> None:
    assert RunningSpread().value == RunningSpread().updated([3.0]).value == 1.0
    assert RunningSpread().updated([3.0, 3.0]).value == 1e-4

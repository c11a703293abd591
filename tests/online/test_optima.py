"""Every method through the whole trainer, on a bandit whose best policy is known in closed form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.online.online_runs import BEST, WORTH, figure, metrics, policy_of, run

pytestmark = pytest.mark.usefixtures("without_curves")
FALLING = {"learning_rate": 0.04, "schedule": "linear"}
WORTHS = torch.tensor(WORTH, dtype=torch.float64)


def optimum(reference: Tensor, beta: float, reward_share: float = 1.0) -> Tensor:
    """What maximises reward_share * reward - beta * KL."""
    return (reference.log() + reward_share * WORTHS / beta).softmax(-1)


def distance(one: Tensor, other: Tensor) -> float:
    """Total variation."""
    return 0.5 * (one - other).abs().sum().item()


@pytest.mark.parametrize(
    ("method", "rollout", "loss"),
    [
        ("drlaif", {}, {"beta": 0.0}),
        ("reinforce", {}, {"beta": 0.0, "normalize": True}),
        ("grpo", {}, {}),
        ("grpo", {}, {"variant": "dr-grpo"}),
        ("grpo", {}, {"variant": "dapo"}),
        ("ppo", {"rollout_epochs": 2}, {"preset": "ppo-max", "value_warmup": 2, "beta": 0.01}),
        ("rs-dpo", {"group_size": 8}, {"eta": 0.6}),
        ("rso", {"group_size": 8}, {"beta": 0.1}),
        ("best-of-n", {"group_size": 4}, {}),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else value,
)
def test_without_a_price_the_best_answer_is_found(
    method: str, rollout: dict[str, Any], loss: dict[str, Any], bandit: Path, prompts: Path, tmp_path: Path
) -> None:
    assert policy_of(bandit)[BEST] < 0.2
    run(
        method,
        bandit,
        prompts,
        tmp_path / "out",
        rollout=rollout,
        loss=loss,
        optimization={"max_steps": 24, "learning_rate": 0.04},
    )
    assert policy_of(tmp_path / "out")[BEST] > 0.9


def test_online_dpo_moves_to_what_is_preferred(bandit: Path, prompts: Path, tmp_path: Path) -> None:
    run("online-dpo", bandit, prompts, tmp_path / "out", optimization={"max_steps": 30, "learning_rate": 0.04})
    policy, start = policy_of(tmp_path / "out"), policy_of(bandit)
    assert policy[BEST] > 0.9
    assert policy @ WORTHS > start @ WORTHS
    sureness = figure(tmp_path / "out", "sureness")
    assert 0.5 <= min(sureness) <= max(sureness) < 0.9  # 1 / (1 + exp(-1.8)) = 0.858 is the surest


@pytest.mark.parametrize(
    ("method", "share", "rollout", "loss"),
    [
        ("reinforce", 1.0, {"group_size": 8, "rollout_temperature": 0.7}, {}),
        ("rloo", 1.0, {"group_size": 8}, {}),
        ("drlaif", 0.7, {"group_size": 8}, {"value_weight": 2.0}),
        ("ppo", 1.0, {"group_size": 8, "rollout_epochs": 2}, {"reward_clip": None}),
    ],
)
def test_with_a_price_of_the_kl_the_policy_is_the_closed_form(
    method: str,
    share: float,
    rollout: dict[str, Any],
    loss: dict[str, Any],
    bandit: Path,
    prompts: Path,
    tmp_path: Path,
) -> None:
    """The reference times exp(share * reward / beta), both as they are sampled: at the rollouts' temperature."""
    heat = rollout.get("rollout_temperature", 1.0)
    run(
        method, bandit, prompts, tmp_path / "out",
        rollout=rollout, loss={"beta": 0.3, **loss}, optimization={"max_steps": 48, **FALLING},
    )  # fmt: skip
    start, policy = policy_of(bandit, heat), policy_of(tmp_path / "out", heat)
    best = optimum(start, 0.3, share)
    assert distance(start, best) > 0.3
    assert distance(policy, best) < 0.045
    if share != 1.0:
        assert distance(policy, optimum(start, 0.3)) > 0.1  # the factor 1 - beta of direct RLAIF is seen


def test_grpo_with_its_price_in_the_loss_rests_where_its_gradient_is_none(
    bandit: Path, prompts: Path, tmp_path: Path
) -> None:
    """k3 in the loss pulls as KL(reference | policy) does, on samples of the policy: the gradient in the logits is
    c p_i (r_i - p.r) + beta (ref_i - p_i), with c = 7/8 as the own reward is in the mean of 8."""
    beta, share = 0.4, 7 / 8
    run(
        "grpo", bandit, prompts, tmp_path / "out", rollout={"group_size": 8},
        loss={"variant": "dr-grpo", "beta": beta}, optimization={"max_steps": 60, **FALLING},
    )  # fmt: skip
    start, policy = policy_of(bandit), policy_of(tmp_path / "out")
    mean = start @ WORTHS
    for _ in range(2000):  # p_i = beta ref_i / (beta + c (mean - r_i)), and its own mean, in small steps
        found = beta * start / (beta + share * (mean - WORTHS)).clamp(min=1e-3)
        mean = 0.99 * mean + 0.01 * (found / found.sum()) @ WORTHS
    assert found.sum() == pytest.approx(1.0, abs=1e-3)
    assert distance(start, found) > 0.3
    assert distance(policy, found) < 0.04


def test_a_larger_price_keeps_the_policy_nearer(bandit: Path, prompts: Path, tmp_path: Path) -> None:
    measured, kl = [], []
    for beta in (0.1, 0.3, 1.0):
        out = tmp_path / str(beta)
        run(
            "rloo", bandit, prompts, out, rollout={"group_size": 8}, loss={"beta": beta},
            optimization={"max_steps": 24, **FALLING},
        )  # fmt: skip
        policy, start = policy_of(out), policy_of(bandit)
        kl.append((policy * (policy.log() - start.log())).sum().item())
        measured.append(sum(figure(out, "kl")[-8:]) / 8)
    for found in (kl, measured):
        assert found[0] > 1.3 * found[1] > 1.3 * 2 * found[2] > 0.0


def test_the_mean_reward_of_the_best_of_n_rises_with_n(bandit: Path, prompts: Path, tmp_path: Path) -> None:
    """One round, learnt by heart: the policy then answers as the best of n of the start."""
    start, rewards = policy_of(bandit), []
    ranks = WORTHS.argsort()
    for n in (2, 4, 8):
        out = tmp_path / str(n)
        run(
            "best-of-n", bandit, prompts, out, rollout={"group_size": n, "rollout_epochs": 20},
            optimization={"max_steps": 20, "learning_rate": 0.05, "schedule": "linear"},
        )  # fmt: skip
        rewards.append((policy_of(out) @ WORTHS).item())
        assert figure(out, "selected") == [8.0] * 20
    assert (start @ WORTHS).item() < rewards[0] < rewards[1] < rewards[2]
    # Of the best of 8: F(x)^8 by rank.
    best = start[ranks].cumsum(0).clamp(max=1.0).pow(8).diff(prepend=torch.zeros(1, dtype=torch.float64))
    assert rewards[2] == pytest.approx((best @ WORTHS[ranks]).item(), abs=0.35)


def test_a_policy_that_has_nothing_left_to_choose_from_goes_on(bandit: Path, prompts: Path, tmp_path: Path) -> None:
    run(
        "rs-dpo", bandit, prompts, tmp_path / "out", rollout={"group_size": 4}, loss={"eta": 0.6},
        optimization={"max_steps": 30, "learning_rate": 0.1},
    )  # fmt: skip
    selected = figure(tmp_path / "out", "selected")
    assert len(metrics(tmp_path / "out")) == 30
    assert selected[0] > 0.0
    assert selected[-1] == 0.0

"""What models are asked during a run, at which temperature and as which policy; what is refused, kept and resumed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rlaif.errors import BackendError, ConfigError, RlaifError
from rlaif.online.generation import HfGenerator, RolloutJob, Written
from rlaif.online.guard_config import GuardConfig
from rlaif.online.recipes import make_recipe
from rlaif.online.session import _LatestWeights
from rlaif.train.config import AdapterConfig, CheckpointConfig
from rlaif.train.objectives import Reading
from rlaif.train.online_config import OnlineDpoLossConfig, RolloutConfig
from tests.online.online_runs import LETTERS, Heard, figure, policy_of, run, run_json, save_bandit, write_rows

pytestmark = pytest.mark.usefixtures("without_curves")


def test_what_is_imitated_is_compared_with_the_start_at_the_temperature_of_the_rollouts(tmp_path: Path) -> None:
    """best-of-n imitates untempered; its distance from the start, before a step, is 0 all the same."""
    model = save_bandit(tmp_path / "model", LETTERS[:5])
    data = write_rows(tmp_path / "rows.jsonl", [{"prompt": one + two} for one in "abcd" for two in "abcd"])
    run(
        "best-of-n", model, data, tmp_path / "out", guarding=GuardConfig(suite="none"),
        rollout={"rollout_temperature": 0.5, "group_size": 2, "response_tokens": 3},
        optimization={"batch_size": 4, "max_steps": 1},
    )  # fmt: skip
    assert figure(tmp_path / "out", "eval_kl")[0] == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize(("method", "precision"), [("ppo", "float32"), ("drlaif", "bfloat16"), ("grpo", "bfloat16")])
def test_a_batch_that_is_one_old_is_corrected_for_by_the_ratio(
    method: str, precision: str, bandit: Path, prompts: Path, tmp_path: Path
) -> None:
    """Also where the policy is read again, for its values or in another number type: as the one that wrote."""
    run(
        method, bandit, prompts, tmp_path / "out",
        rollout={"overlap": True, "group_size": 4, "rollout_epochs": 1},
        optimization={"batch_size": 8, "max_steps": 4, "precision": precision},
    )  # fmt: skip
    assert figure(tmp_path / "out", "staleness") == [0.0, 1.0, 1.0, 1.0]
    fresh, *stale = figure(tmp_path / "out", "ratio")
    assert fresh == pytest.approx(1.0, abs=1e-6)
    assert all(abs(ratio - 1.0) > 1e-4 for ratio in stale)


@pytest.mark.parametrize("value", ["head", "critic"])
def test_while_values_learn_ahead_the_policy_stays(value: str, bandit: Path, prompts: Path, tmp_path: Path) -> None:
    """A head reads the policy's own states: its gradient stops there."""
    run(
        "ppo", bandit, prompts, tmp_path / "out", rollout={"rollout_epochs": 1},
        loss={"value": value, "value_warmup": 9}, optimization={"max_steps": 3},
    )  # fmt: skip
    assert torch.equal(policy_of(tmp_path / "out"), policy_of(bandit))
    first, *_, last = figure(tmp_path / "out", "value_mean")
    assert first == 0.0 != last


def test_dropout_of_an_adapter_goes_on_where_it_was(bandit: Path, prompts: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "adapter": AdapterConfig(lora_rank=4, lora_dropout=0.5), "rollout": {"group_size": 4, "response_tokens": 2},
        "optimization": {"batch_size": 4, "max_steps": 4},
    }  # fmt: skip
    run("grpo", bandit, prompts, tmp_path / "whole", **settings)
    with pytest.raises(KeyboardInterrupt):
        run("grpo", bandit, prompts, tmp_path / "resumed", listener=Heard(2), **settings)
    run("grpo", bandit, prompts, tmp_path / "resumed", **settings)
    whole, resumed = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("whole", "resumed"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_policy_that_cannot_write_is_not_kept_in_place_of_the_last_good_one(
    bandit: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    generate = HfGenerator.generate

    def breaking(self: HfGenerator, *arguments: Any, **keywords: Any) -> list[Written]:
        calls.append(1)
        if len(calls) > 3:
            raise BackendError("the policy gave no probabilities but NaN")
        return generate(self, *arguments, **keywords)

    monkeypatch.setattr(HfGenerator, "generate", breaking)
    with pytest.raises(RlaifError, match="no probabilities"):
        run(
            "grpo", bandit, prompts, tmp_path / "out", rollout={"group_size": 4}, optimization={"max_steps": 6},
            checkpoints=CheckpointConfig(save_every=2, eval_every=100, keep=1),
        )  # fmt: skip
    assert [path.name for path in (tmp_path / "out" / "checkpoints").iterdir()] == ["checkpoint-2"]


def by_length(completions: Sequence[str], **columns: Any) -> list[float]:
    return [float(text == "c") for text in completions]


def test_tau_says_how_much_a_difference_of_rewards_tells(bandit: Path, prompts: Path, tmp_path: Path) -> None:
    """sigmoid(1 / tau): 0.731 at 1, 0.9997 at 0.125; 0.5 of equal ones."""
    for tau, sure in ((1.0, 0.7311), (0.125, 0.9997)):
        out = tmp_path / str(tau)
        run(
            "online-dpo", bandit, prompts, out, reward=("tests.online.test_opening:by_length",), loss={"tau": tau},
            optimization={"max_steps": 1}, keep_rollouts=0,
        )  # fmt: skip
        (found,) = figure(out, "sureness")
        unequal = (found - 0.5) / (sure - 0.5) * 8  # pairs of the batch
        assert 0 < unequal <= 8
        assert unequal == pytest.approx(round(unequal), abs=1e-2)


def test_an_address_is_kept_without_what_may_be_a_key(bandit: Path, prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(
        "grpo", bandit, prompts, out, backend={"base_url": ("http://h/v1?api-key=SECRET",)},
        rollout={"group_size": 2}, optimization={"max_steps": 1},
    )  # fmt: skip
    assert "http://h/v1" in json.dumps(run_json(out))
    assert not [path for path in out.rglob("*") if path.is_file() and b"SECRET" in path.read_bytes()]


@pytest.mark.parametrize(
    ("method", "settings", "words"),
    [
        ("grpo", {"loss": {"overlong_buffer": 5}}, "overlong_buffer: expected at most the 1 of --response-tokens"),
        ("rloo", {"loss": {"kl_target": 1.0, "kl_horizon": 6.0}}, "kl_horizon: 6 for 32 completions .* above 6.4"),
        ("grpo", {"rollout": {"rollout_vllm_arg": ("seed=1",)}}, "rollout_vllm_arg: needs --rollouts vllm"),
        ("grpo", {"guarding": GuardConfig(guards="off", stop_on_hack=True)}, "stop_on_hack: needs --guards on"),
        ("grpo", {"guarding": GuardConfig(guards="off", watch_judge=("fake:1",))}, "watch_judge: needs --guards on"),
    ],
)
def test_settings_that_would_fail_later_or_do_nothing_are_refused(
    method: str, settings: dict[str, Any], words: str, bandit: Path, prompts: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=words):
        run(method, bandit, prompts, tmp_path / "out", **settings)


def test_a_judge_that_nobody_asks_is_named(bandit: Path, prompts: Path, tmp_path: Path) -> None:
    heard = Heard()
    run(
        "grpo", bandit, prompts, tmp_path / "out", listener=heard, optimization={"max_steps": 1},
        backend={"judge": ("fake:0.5",)}, guarding=GuardConfig(watch_judge=("fake:0.5",), suite="none"),
    )  # fmt: skip
    assert [text.split(" is ")[0] for text in heard.warnings[:2]] == ["--watch-judge", "--judge"]


@pytest.mark.parametrize("settings", [{"gamma": 2.0}, {"label_smoothing": 0.2, "loss_type": "ipo"}])
def test_what_another_loss_of_pairs_takes_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="is of --loss-type"):
        OnlineDpoLossConfig(**settings)


@pytest.mark.parametrize(("loss_type", "beta", "expected"), [("simpo", None, 2.0), ("simpo", 0.5, 0.5)])
def test_beta_is_that_of_the_loss_unless_it_is_given(loss_type: Any, beta: float | None, expected: float) -> None:
    """SimPO's rewards are beta times the mean log-probability of a token: of -6 over 3 tokens, beta times -2."""
    recipe = make_recipe(OnlineDpoLossConfig(loss_type=loss_type, beta=beta), RolloutConfig(), seed=0)
    reading = Reading(torch.tensor([[-6.0, -3.0]]), torch.tensor([[3, 3]]))
    found: Any = recipe.objective(0).rewards(reading, None)  # type: ignore[arg-type]
    assert found.tolist() == [[-2.0 * expected, -1.0 * expected]]


def test_who_writes_gets_the_weights_when_it_writes_and_not_before() -> None:
    told: list[str] = []

    class Telling(HfGenerator):
        def __init__(self) -> None: ...

        def generate(self, jobs: Sequence[RolloutJob], **keywords: Any) -> list[Written]:
            told.append("writes")
            return []

        def sync_weights(self, step: int) -> None:
            told.append(f"step {step}")

    generator = _LatestWeights(Telling())
    generator.generate([])
    for step in (1, 2, 3):
        generator.sync_weights(step)
    generator.generate([])
    generator.generate([])
    assert told == ["writes", "step 3", "writes", "writes"]


def none(completions: Sequence[str], **columns: Any) -> list[None]:
    return [None for _ in completions]


def test_a_run_without_any_reward_says_so_and_learns_nothing(bandit: Path, prompts: Path, tmp_path: Path) -> None:
    heard, reward = Heard(), ("tests.online.test_opening:none",)
    run("rloo", bandit, prompts, tmp_path / "rloo", listener=heard, reward=reward, optimization={"max_steps": 2})
    assert heard.warnings == ["no completion of a batch has a reward: there is nothing to learn from (dropped)"]
    assert torch.equal(policy_of(tmp_path / "rloo"), policy_of(bandit))
    with pytest.raises(ConfigError, match="no completion of the first round has a reward"):
        run("rso", bandit, prompts, tmp_path / "rso", reward=reward)


def test_nothing_is_imitated_while_values_learn_ahead(bandit: Path, prompts: Path, tmp_path: Path) -> None:
    ptx = write_rows(tmp_path / "ptx.jsonl", [{"prompt": "?", "response": "a"}] * 8)
    loss = {"ptx_data": str(ptx), "value_warmup": 9}
    run("ppo", bandit, prompts, tmp_path / "out", loss=loss, optimization={"max_steps": 2})
    assert torch.equal(policy_of(tmp_path / "out"), policy_of(bandit))

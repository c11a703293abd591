"""Prompts read and split, models found, sizes worked out, and what has to be equal when a run is gone on with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlaif.engine.config import SourceConfig
from rlaif.errors import ConfigError, InputError, PromptTooLongError
from rlaif.online.config import ONLINE_CONFIGS
from rlaif.online.guard_config import GuardConfig
from rlaif.online.inputs import Sizes, decisive_settings, gather, judges_of, rates, self_judging, sizes_of
from rlaif.train.config import AdapterConfig
from tests.online.online_runs import Heard, config_of, save_bandit_judge, write_prompts, write_rows

GUARDED = GuardConfig(watch_prompts=3)


@pytest.mark.parametrize(
    ("method", "rollout", "optimization", "expected"),
    [
        ("drlaif", {}, {"batch_size": 8, "epochs": 2.0}, Sizes(1, 8, 1, 1, 5)),
        ("grpo", {"rollout_prompts": 16}, {"batch_size": 4}, Sizes(8, 16, 1, 4, 4)),
        ("ppo", {"group_size": 2}, {"batch_size": 10}, Sizes(2, 10, 4, 1, 8)),
        ("ppo", {"rollout_epochs": 1}, {"batch_size": 10, "max_steps": 7}, Sizes(1, 10, 1, 1, 7)),
        ("best-of-n", {}, {"batch_size": 6, "epochs": 3.0}, Sizes(16, 18, 1, 3, 9)),
        ("online-dpo", {}, {"batch_size": 20}, Sizes(2, 20, 1, 1, 1)),
    ],
)
def test_sizes(method: str, rollout: Any, optimization: Any, expected: Sizes, tmp_path: Path) -> None:
    """Of twenty prompts."""
    config = config_of(method, "m", "d", tmp_path, rollout=rollout, optimization={"max_steps": None, **optimization})
    assert sizes_of(method, config, 20) == expected


@pytest.mark.parametrize(
    ("method", "settings", "said"),
    [
        ("online-dpo", {"rollout": {"group_size": 3}}, "group_size: online-dpo compares two completions, got 3"),
        ("online-dpo", {"rollout": {"missing_eos_penalty": 1.0}}, "missing_eos_penalty: online-dpo compares"),
        ("grpo", {"rollout": {"group_size": 1}}, "group_size: grpo weighs completions of a prompt against each other"),
        ("reinforce", {"loss": {"baseline": "group"}}, "baseline: group is the mean of a prompt's completions"),
        ("rloo", {"optimization": {"batch_size": 21}}, "batch_size: 21, but there are 20 prompts to learn from"),
        ("rloo", {"rollout": {"rollout_prompts": 12}}, "rollout_prompts: 12, expected a multiple of batch_size"),
    ],
)
def test_sizes_that_do_not_fit(method: str, settings: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        sizes_of(method, config_of(method, "m", "d", tmp_path, **settings), 20)


def test_watched_prompts_are_drawn_once_and_equal_ones_go_together(bandit: Path, tmp_path: Path) -> None:
    rows = [{"id": f"r{number}", "prompt": "?abcd"[number % 5] * (1 + number // 10)} for number in range(40)]
    data = write_rows(tmp_path / "rows.jsonl", rows)  # twenty different prompts, each twice
    inputs = gather(config_of("grpo", bandit, data, tmp_path, guarding=GUARDED), Heard())
    learnt, watched = {row.ids for row in inputs.rows}, {row.ids for row in inputs.watched}
    assert (len(inputs.rows), len(inputs.watched)) == (34, 3)
    assert not learnt & watched
    again = gather(config_of("grpo", bandit, data, tmp_path, guarding=GUARDED), Heard())
    assert [row.prompt.id for row in again.watched] == [row.prompt.id for row in inputs.watched]
    other = gather(config_of("grpo", bandit, data, tmp_path, guarding=GUARDED, seed=1), Heard())
    assert {row.ids for row in other.watched} != watched
    off = gather(config_of("grpo", bandit, data, tmp_path), Heard())
    assert (len(off.rows), len(off.watched)) == (40, 0)


def test_where_there_are_few_prompts_none_is_watched(bandit: Path, tmp_path: Path) -> None:
    """Forty rows with one prompt: what is watched would be all."""
    data = write_prompts(tmp_path / "prompts.jsonl", 40)
    inputs = gather(config_of("grpo", bandit, data, tmp_path, guarding=GUARDED), Heard())
    assert (len(inputs.rows), len(inputs.watched)) == (40, 0)


def test_prompts_have_to_leave_room_for_the_answer(bandit: Path, tmp_path: Path) -> None:
    """32 tokens of context."""
    data = write_rows(tmp_path / "rows.jsonl", [{"prompt": "a" * count} for count in (27, 28, 29)])
    for tokens, fits in ((3, True), (4, False)):
        config = config_of("grpo", bandit, data, tmp_path, rollout={"response_tokens": tokens})
        if fits:
            assert len(gather(config, Heard()).rows) == 3
        else:
            with pytest.raises(PromptTooLongError, match="29 tokens, and 32 less --response-tokens 4 leaves 28"):
                gather(config, Heard())
    skipping = SourceConfig(skip_bad_rows=True)
    heard = Heard()
    inputs = gather(replace(config, source=skipping), heard)
    assert (len(inputs.rows), [failure.stage for failure in inputs.failures]) == (2, ["encode"])
    assert heard.warnings == ["1 prompts do not fit the model and are left out; see failures.jsonl"]
    with pytest.raises(InputError, match="holds no prompt that fits the model"):
        gather(config_of("grpo", bandit, data, tmp_path, rollout={"response_tokens": 30}, source=skipping), Heard())


def test_a_critic_starts_from_the_policy_or_from_a_reward_model_of_the_same_tokens(
    bandit: Path, prompts: Path, tmp_path: Path
) -> None:
    judge = save_bandit_judge(tmp_path / "judge")
    found = [
        gather(config_of("ppo", bandit, prompts, tmp_path, loss=loss), Heard()).critic
        for loss in ({}, {"value": "critic"}, {"value": "critic", "value_from": str(judge)})
    ]
    assert [None if one is None else one.path for one in found] == [None, str(bandit), str(judge)]


def test_what_decides_a_weight_has_to_be_equal(bandit: Path, prompts: Path, tmp_path: Path) -> None:
    def decisive(**settings: Any) -> dict[str, Any]:
        config = config_of("ppo", bandit, settings.pop("data", prompts), tmp_path / "out", **settings)
        return decisive_settings("ppo", config, gather(config, Heard()), {"x": 1})

    base = decisive()
    for free in (
        {"optimization": {"compute_tokens": 64}},
        {"optimization": {"gradient_checkpointing": True}},
        {"guarding": replace(config_of("ppo", bandit, prompts, tmp_path).guarding, stop_on_hack=True)},
        {"backend": {"base_url": ("http://127.0.0.1:1/v1",)}},
    ):
        assert decisive(**free) == base
    other = write_prompts(tmp_path / "other.jsonl", 8, "a")
    for changed in (
        {"data": other},
        {"seed": 1},
        {"loss": {"beta": 0.2}},
        {"rollout": {"overlap": True}},
        {"optimization": {"learning_rate": 0.5}},
        {"adapter": AdapterConfig(lora_rank=2)},
        {"keep_rollouts": 3},
    ):
        assert decisive(**changed) != base


def test_what_ptx_and_a_critic_start_from_decides_too(bandit: Path, prompts: Path, tmp_path: Path) -> None:
    """By their content: another file or model under the same name is another run."""
    ptx = tmp_path / "ptx.jsonl"
    judge = save_bandit_judge(tmp_path / "judge")
    settings = {"loss": {"ptx_data": str(ptx), "value": "critic", "value_from": str(judge)}}

    def decisive() -> dict[str, Any]:
        config = config_of("ppo", bandit, prompts, tmp_path / "out", **settings)
        return decisive_settings("ppo", config, gather(config, Heard()), {})

    write_rows(ptx, [{"prompt": "a", "response": "b"}])
    base = decisive()
    write_rows(ptx, [{"prompt": "a", "response": "c"}])
    assert decisive() != base
    write_rows(ptx, [{"prompt": "a", "response": "b"}])
    assert decisive() == base
    weights = judge / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    assert decisive() != base


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "judge: self needs --lora-rank"),
        ({"adapter": AdapterConfig(lora_rank=2), "rollout": {"overlap": True}}, "overlap: the judge is the model"),
        ({"adapter": AdapterConfig(lora_rank=2), "backend": {"judge": ("self", "fake:0.5")}}, "self stands alone"),
    ],
)
def test_the_policys_base_judges_only_where_it_stays_what_it_is(settings: Any, said: str, tmp_path: Path) -> None:
    backend = {"judge": ("self",), **settings.pop("backend", {})}
    config = config_of("grpo", "m", "d", tmp_path, reward=("judge",), backend=backend, **settings)
    with pytest.raises(ConfigError, match=said):
        self_judging(config)


def test_rewards_are_ratings_where_a_judge_alone_gives_them(tmp_path: Path) -> None:
    def config(*reward: str, judge: str = "fake:0.5") -> Any:
        return config_of("grpo", "m", "d", tmp_path, reward=reward, backend={"judge": (judge,)})

    assert rates(config("judge"))
    assert not rates(config("0.5*judge"))
    assert not rates(config("judge", "a:b"))
    assert not rates(config("judge", judge="hf-reward:folder"))
    assert not rates(config("a:b"))
    assert judges_of(config("judge")) == ("fake:0.5",)
    assert judges_of(config("a:b")) == ()


def test_every_method_has_settings_of_its_own() -> None:
    for method, kind in ONLINE_CONFIGS.items():
        assert kind.__name__.removesuffix("Config").lower() == method.replace("-", "")
        assert (kind.__doc__ or "").startswith(f"`rlaif train {method}`: ")

"""Whole runs: what a step learns from, what it does not, and what happens when something is wrong."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from rlaif.errors import BackendError, ConfigError, NonFiniteLossError, PromptTooLongError, RewardError
from rlaif.train.config import AdapterConfig, CheckpointConfig
from tests.online import reward_functions
from tests.online.online_runs import (
    BEST,
    LETTERS,
    Heard,
    config_of,
    figure,
    metrics,
    next_token,
    policy_of,
    run,
    run_json,
    save_bandit,
    save_bandit_judge,
    write_prompts,
    write_rows,
)

pytestmark = pytest.mark.usefixtures("without_curves")
FUNCTIONS = "tests.online.reward_functions:"
SHORT = {"max_steps": 4, "batch_size": 4}
EACH_SECOND = CheckpointConfig(save_every=2, eval_every=1000, keep=9)


@pytest.fixture(autouse=True)
def _nothing_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    reward_functions.asked.clear()
    monkeypatch.setattr(reward_functions, "fault", lambda call: "")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def assert_same(one: Path, other: Path) -> None:
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


# What a step learns from.


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("grpo", {"rollout": {"rollout_temperature": 0.7, "response_tokens": 6}}),
        ("drlaif", {"rollout": {"rollout_top_p": 0.6, "response_tokens": 6}}),
        ("rloo", {"adapter": AdapterConfig(lora_rank=2), "rollout": {"response_tokens": 6}}),
        ("ppo", {"loss": {"value": "critic"}, "rollout": {"response_tokens": 6}}),
    ],
)
def test_at_the_first_step_the_policy_is_the_one_that_wrote(
    method: str, settings: dict[str, Any], bandit: Path, prompts: Path, tmp_path: Path
) -> None:
    """What was noted while writing is what the trainer computes: the ratio is 1, and nothing is clipped."""
    run(method, bandit, prompts, tmp_path / "out", optimization={"max_steps": 1}, **settings)
    (first,) = metrics(tmp_path / "out")
    assert first["ratio"] == pytest.approx(1.0, abs=1e-5)
    assert first["clip_share"] == 0.0
    assert first["staleness"] == 0.0


@pytest.mark.parametrize(("method", "loss"), [("grpo", {}), ("rloo", {"beta": 0.0}), ("reinforce", {"beta": 0.0})])
def test_equal_rewards_teach_nothing_and_are_counted(
    method: str, loss: dict[str, Any], bandit: Path, prompts: Path, tmp_path: Path
) -> None:
    run(method, bandit, prompts, tmp_path / "out", reward=(f"{FUNCTIONS}equal",), loss=loss, optimization=SHORT)
    assert figure(tmp_path / "out", "grad_norm") == [0.0] * 4  # exactly
    if method != "reinforce":  # whose completions have no group
        assert figure(tmp_path / "out", "silent_groups") == [1.0] * 4
    assert_same(tmp_path / "out", bandit)


def test_dapo_replaces_prompts_without_a_signal_and_gives_up_in_the_end(
    bandit: Path, prompts: Path, tmp_path: Path
) -> None:
    run(
        "grpo", bandit, prompts, tmp_path / "out", reward=(f"{FUNCTIONS}equal",),
        loss={"variant": "dapo"}, optimization=SHORT,
    )  # fmt: skip
    assert figure(tmp_path / "out", "replaced_prompts") == [12.0] * 4  # all four, three times
    assert_same(tmp_path / "out", bandit)


def test_completions_without_a_reward_take_no_part(bandit: Path, prompts: Path, tmp_path: Path) -> None:
    run("grpo", bandit, prompts, tmp_path / "some", reward=(f"{FUNCTIONS}not_of_a",), optimization=SHORT)
    dropped = figure(tmp_path / "some", "dropped")
    assert 0.2 < dropped[0] < 1.0
    assert run_json(tmp_path / "some")["counts"]["dropped"] == {f"{FUNCTIONS}not_of_a": round(sum(dropped) * 4 * 8)}
    heard = Heard()
    run("grpo", bandit, prompts, tmp_path / "none", reward=(f"{FUNCTIONS}none",), optimization=SHORT, listener=heard)
    assert figure(tmp_path / "none", "dropped") == [1.0] * 4
    assert "reward" not in metrics(tmp_path / "none")[0]
    assert_same(tmp_path / "none", bandit)


def test_writing_nothing_can_be_learnt(bandit: Path, prompts: Path, tmp_path: Path) -> None:
    run(
        "grpo", bandit, prompts, tmp_path / "out", reward=(f"{FUNCTIONS}silence",),
        rollout={"response_tokens": 3, "group_size": 16}, optimization={"max_steps": 40},
    )  # fmt: skip
    assert policy_of(bandit)[0] < 0.1
    assert policy_of(tmp_path / "out")[0] > 0.9
    assert figure(tmp_path / "out", "empty")[-1] > 0.9


@pytest.mark.parametrize("overlap", [False, True])
def test_with_overlap_completions_are_a_batch_old_and_none_is_written_in_vain(
    overlap: bool, bandit: Path, prompts: Path, tmp_path: Path
) -> None:
    run(
        "grpo", bandit, prompts, tmp_path / "out", reward=(f"{FUNCTIONS}faulty",),
        rollout={"overlap": overlap, "group_size": 2}, optimization={**SHORT, "max_steps": 5},
    )  # fmt: skip
    assert figure(tmp_path / "out", "staleness") == [0.0, *[float(overlap)] * 4]
    assert sum(reward_functions.asked) == 5 * 4 * 2
    ratios = figure(tmp_path / "out", "ratio")
    assert (max(abs(ratio - 1.0) for ratio in ratios) > 1e-3) == overlap


def test_a_missing_end_costs_in_what_is_learnt_and_in_what_is_selected(
    bandit: Path, prompts: Path, tmp_path: Path
) -> None:
    """With it the only answer that ends is worth more than the best one, which is cut off."""
    for method, loss in (("grpo", {}), ("best-of-n", {})):
        out = tmp_path / method
        run(
            method, bandit, prompts, out, rollout={"missing_eos_penalty": 2.0, "group_size": 8}, loss=loss,
            optimization={"max_steps": 30},
        )  # fmt: skip
        policy = policy_of(out)
        assert policy[0] > 0.5 > policy[BEST]


def test_arithmetic_is_learnt_from_a_verifier(tmp_path: Path) -> None:
    """Four sums of two digits: 1 for the right number, and nothing for anything else."""
    letters = LETTERS[LETTERS.index("0") :][:12] + "x"
    model = save_bandit(tmp_path / "model", letters, width=32)
    sums = {f"{a}+{b}=": a + b for a, b in ((0, 1), (1, 1), (1, 2), (2, 2))}
    data = write_rows(
        tmp_path / "sums.jsonl", [{"id": text, "prompt": text, "answer": answer} for text, answer in sums.items()]
    )
    out = tmp_path / "out"
    run(
        "grpo", model, data, out, reward=("rlaif.rewards.verifiers:number_match",), rollout={"group_size": 32},
        optimization={"max_steps": 60, "batch_size": 4}, keep_rollouts=16,
    )  # fmt: skip
    rewards = figure(out, "reward")
    assert rewards[0] < 0.3
    assert sum(rewards[-5:]) / 5 > 0.9
    kept = [
        row for path in sorted((out / "rollouts" / "data").iterdir()) for row in parquet.read_table(path).to_pylist()
    ]
    assert {row["reward"] for row in kept} == {0.0, 1.0}
    for row in kept:
        assert (row["reward"] == 1.0) == (row["response"] == str(sums[row["prompt"][0]["content"]]))


# PPO's stabilisers.


def test_ppo_max_stays_finite_where_the_plain_way_diverges(bandit: Path, prompts: Path, tmp_path: Path) -> None:
    rough = {"learning_rate": 0.02, "max_grad_norm": 0.0, "max_steps": 24}
    plain = {"beta": 0.01, "reward_clip": None, "whiten_advantages": False, "value_clip": None}
    settings: dict[str, Any] = {"reward": (f"{FUNCTIONS}huge",), "optimization": rough}
    with pytest.raises((NonFiniteLossError, BackendError)):
        run("ppo", bandit, prompts, tmp_path / "plain", loss=plain, **settings)
    run("ppo", bandit, prompts, tmp_path / "max", loss={**plain, "preset": "ppo-max", "value_warmup": 1}, **settings)
    assert all(bool(value.isfinite().all()) for value in weights(tmp_path / "max").values())
    assert policy_of(tmp_path / "max")[BEST] > policy_of(bandit)[BEST]


@pytest.mark.parametrize("value", ["head", "critic"])
def test_while_values_learn_alone_the_policy_stays_as_it_is(
    value: str, bandit: Path, prompts: Path, tmp_path: Path
) -> None:
    loss = {"value": value, "value_warmup": 9, "value_weight": 1.0, "whiten_advantages": False}
    run("ppo", bandit, prompts, tmp_path / "out", loss=loss, optimization=SHORT, rollout={"group_size": 8})
    assert_same(tmp_path / "out", bandit)
    errors = figure(tmp_path / "out", "value_error")
    assert errors[-1] < errors[0]


def test_ptx_keeps_what_the_policy_could_do_besides(tmp_path: Path) -> None:
    """Log-loss of other text that is not in the ptx data: kept with it, and lost without."""
    letters = LETTERS[:8]
    model = save_bandit(tmp_path / "model", letters, width=32)
    texts = [{"prompt": f"{a}{b}", "response": "fg"} for a in "acd" for b in "acd"]
    ptx = write_rows(tmp_path / "ptx.jsonl", texts[:-1])
    prompts = write_prompts(tmp_path / "prompts.jsonl")

    def loss_of(folder: Path) -> float:
        policy = AutoModelForCausalLM.from_pretrained(folder)
        return -next_token(policy, prompt=texts[-1]["prompt"])[letters.index("f") + 1].log().item()

    found = {}
    for weight in (0.0, 2.0):
        out = tmp_path / str(weight)
        run(
            "ppo", model, prompts, out, reward=(f"{FUNCTIONS}best",), rollout={"group_size": 8},
            loss={"beta": 0.0, "ptx_data": str(ptx), "ptx_weight": weight}, optimization={"max_steps": 24},
        )  # fmt: skip
        found[weight] = loss_of(out)
        assert policy_of(out)[BEST] > 0.8
    assert found[2.0] < loss_of(model) < found[0.0] - 0.5


# What is wrong.


@pytest.mark.parametrize(
    ("what", "settings"),
    [
        ("nan", {"rollout": {"group_size": 4, "rollout_prompts": 8}}),
        ("nan", {"rollout": {"group_size": 4, "overlap": True}}),
        ("error", {"rollout": {"group_size": 2}, "loss": {"variant": "dapo"}}),
    ],
    ids=["rows pending", "overlap", "dapo"],
)
def test_a_reward_that_is_none_stops_the_run_which_can_be_gone_on_with(
    what: str,
    settings: dict[str, Any],
    bandit: Path,
    prompts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing made up is learnt, and the run ends as one in which nothing was wrong."""
    settings = {
        "reward": (f"{FUNCTIONS}faulty",), "optimization": {**SHORT, "max_steps": 8},
        "checkpoints": EACH_SECOND, **settings,
    }  # fmt: skip
    run("grpo", bandit, prompts, tmp_path / "whole", **settings)
    calls = len(reward_functions.asked)
    reward_functions.asked.clear()
    monkeypatch.setattr(reward_functions, "fault", lambda call: what if call > calls // 2 + 1 else "")
    with pytest.raises(RewardError, match=r"faulty returned NaN for row|failed on .* the disk is gone"):
        run("grpo", bandit, prompts, tmp_path / "out", **settings)
    state = run_json(tmp_path / "out")
    assert state["status"] == "interrupted"
    assert list((tmp_path / "out" / "checkpoints").glob("checkpoint-*/complete"))
    monkeypatch.setattr(reward_functions, "fault", lambda call: "")
    run("grpo", bandit, prompts, tmp_path / "out", **settings)
    assert_same(tmp_path / "whole", tmp_path / "out")
    assert figure(tmp_path / "out", "reward") == figure(tmp_path / "whole", "reward")


def test_a_run_that_is_asked_to_stop_goes_on_where_it_was(bandit: Path, prompts: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"rollout": {"overlap": True}, "optimization": {**SHORT, "max_steps": 6}}
    run("drlaif", bandit, prompts, tmp_path / "whole", **settings)
    with pytest.raises(KeyboardInterrupt):
        run("drlaif", bandit, prompts, tmp_path / "out", listener=Heard(stops_after=3), **settings)
    outcome = run("drlaif", bandit, prompts, tmp_path / "out", **settings)
    assert (outcome.steps, outcome.was_finished) == (6, False)
    assert_same(tmp_path / "whole", tmp_path / "out")
    assert run("drlaif", bandit, prompts, tmp_path / "out", **settings).was_finished


def test_models_of_other_tokenizers_are_refused(bandit: Path, prompts: Path, tmp_path: Path) -> None:
    other = save_bandit(tmp_path / "other", LETTERS[5:10])
    judge = save_bandit_judge(tmp_path / "judge", LETTERS[5:10])
    with pytest.raises(ConfigError, match=r"critic.*token"):
        run("ppo", bandit, prompts, tmp_path / "out", loss={"value": "critic", "value_from": str(judge)})
    with pytest.raises(ConfigError, match=r"reference.*token"):
        run("rloo", bandit, prompts, tmp_path / "out", reference=str(other))
    assert not (tmp_path / "out").exists()


def test_a_prompt_that_leaves_no_room_is_refused_or_left_out(bandit: Path, tmp_path: Path) -> None:
    """32 tokens of context less 8 for the answer: 24 for the prompt."""
    data = write_rows(
        tmp_path / "rows.jsonl",
        [*({"id": f"p{n}", "prompt": "?" * (20 + n)} for n in range(5)), {"id": "long", "prompt": "a" * 25}],
    )
    settings: dict[str, Any] = {"rollout": {"response_tokens": 8}, "optimization": SHORT}
    with pytest.raises(PromptTooLongError, match=r"1 of 6 prompts are too long, the first: 'long' has 25 tokens, and"):
        run("grpo", bandit, data, tmp_path / "out", **settings)
    source = type(config_of("grpo", bandit, data, tmp_path).source)(skip_bad_rows=True)
    outcome = run("grpo", bandit, data, tmp_path / "out", source=source, **settings)
    assert (outcome.rows, outcome.skipped) == (5, 1)
    (failure,) = (tmp_path / "out" / "failures.jsonl").read_text().splitlines()
    assert json.loads(failure)["id"] == "long"


def test_a_round_in_which_nothing_is_selected_is_a_fault_of_the_settings(
    bandit: Path, prompts: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="first round was selected"):
        run("best-of-n", bandit, prompts, tmp_path / "out", loss={"least_score": 2.0}, rollout={"group_size": 2})


# What is in memory.


def test_with_an_adapter_policy_reference_and_values_are_one_model(bandit: Path, prompts: Path, tmp_path: Path) -> None:
    """No second copy of the base's weights is alive while a step is done."""

    class Counts(Heard):
        most = 0

        def on_step(self, step: int, total: int, logs: Any) -> None:
            found = {
                each.untyped_storage().data_ptr(): each.numel()
                for each in gc.get_objects() if isinstance(each, torch.nn.Parameter)
            }  # fmt: skip
            self.most = max(self.most, sum(found.values()))

    base = sum(value.numel() for value in weights(bandit).values())
    counted = {}
    for rank in (2, None):
        gc.collect()
        before, heard = Counts(), Counts()
        before.on_step(0, 0, {})
        run(
            "ppo", bandit, prompts, tmp_path / str(rank), adapter=AdapterConfig(lora_rank=rank), listener=heard,
            optimization={**SHORT, "max_steps": 1},
        )  # fmt: skip
        counted[rank] = heard.most - before.most
    assert base <= counted[2] < 1.6 * base  # the base, its adapter and the head
    assert counted[None] >= 2 * base  # the reference is a model of its own

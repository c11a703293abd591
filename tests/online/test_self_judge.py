"""`--judge self`: the base judges, whatever the adapter has learnt, and the policy is as it was afterwards."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest
import torch
from tiny_models import save_model

from rlaif.backends.base import Backend
from rlaif.backends.hf import HfBackend
from rlaif.models.loading import find_model
from rlaif.online.self_judge import SelfJudge
from rlaif.records import Message, ScoreRequest, Segment, Turn
from rlaif.rewards.config import RewardConfig
from rlaif.rewards.scoring import Scorer
from rlaif.rollout_records import Completion, Rollout
from rlaif.train.config import AdapterConfig
from rlaif.train.models import load_policy
from rlaif.train.values import attach_value_head
from tests.backends.contract import BackendContract
from tests.online.made_rollouts import prompt_row
from tests.online.online_runs import config_of, run, run_json, write_rows

LORA = AdapterConfig(lora_rank=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("models") / "judge", likes_digits=True, context=4096)


def policy_of(folder: Path, *, learnt: bool = True) -> Any:
    policy = load_policy(find_model(str(folder), device="cpu", dtype="float32"), LORA, seed=0)
    attach_value_head(policy)
    if learnt:
        torch.manual_seed(1)
        with torch.no_grad():
            for name, parameter in policy.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=0.5)
    return policy


def judge_of(folder: Path, policy: Any) -> SelfJudge:
    return SelfJudge(str(folder), policy, max_batch_tokens=16384, truncate=False)


class TestSelfJudge(BackendContract):
    @pytest.fixture
    async def backend(self, folder: Path) -> AsyncIterator[Backend]:
        backend = judge_of(folder, policy_of(folder))
        yield backend
        await backend.aclose()

    def test_name_and_identity_are_stable_and_free_of_paths(self, backend: Backend) -> None:
        assert backend.name == "self"  # as it was typed
        assert not any(isinstance(value, str) and value.startswith("/") for value in backend.identity.values())


def question(text: str) -> ScoreRequest:
    return ScoreRequest((Message("user", (Segment(f"Rate this: {text}\nScore:", True),)),), ("1", "2", "3"))


async def test_it_says_what_its_base_alone_says_while_the_adapter_learns(folder: Path) -> None:
    """The same numbers before and after an update of the adapter, which the policy itself shows."""
    policy = policy_of(folder, learnt=False).train()
    judge, alone = judge_of(folder, policy), HfBackend(str(folder), device="cpu")
    ids = torch.arange(9)[None]
    try:
        before = policy(input_ids=ids).logits.detach()
        for _ in range(2):
            for text in ("yes", "no", "yes"):
                ours, theirs = await judge.score(question(text)), await alone.score(question(text))
                assert {one.token: one.logprob for one in ours.tokens} == pytest.approx(
                    {one.token: one.logprob for one in theirs.tokens}, abs=1e-5
                )
            assert policy.training  # as it was
            logits = policy(input_ids=ids).logits
            logits.square().sum().backward()
            with torch.no_grad():
                for name, parameter in policy.named_parameters():
                    if "lora" in name:
                        assert parameter.requires_grad
                        parameter += 0.1
        assert not torch.allclose(policy(input_ids=ids).logits, before, atol=1e-2)
    finally:
        await judge.aclose()
        await alone.aclose()


def test_its_name_and_identity_say_whose_judgement_it_is(folder: Path) -> None:
    judge = judge_of(folder, policy_of(folder))
    assert judge.name == "self"
    assert judge.identity["backend"] == "self"
    assert judge.identity["fingerprint"] == find_model(str(folder), device="cpu", dtype="float32").fingerprint


@pytest.mark.usefixtures("without_curves")
def test_a_run_is_rewarded_by_what_its_model_was_before_training(folder: Path, tmp_path: Path) -> None:
    rows = [{"id": f"p{number}", "prompt": f"Say {number}"} for number in range(4)]
    settings: dict[str, Any] = {
        "reward": ("judge",), "adapter": LORA, "backend": {"judge": ("self",)}, "keep_rollouts": 99,
        "rollout": {"response_tokens": 3, "group_size": 4},
        "optimization": {"max_steps": 3, "batch_size": 4, "learning_rate": 0.05},
    }  # fmt: skip
    data = write_rows(tmp_path / "prompts.jsonl", rows)
    run("rloo", folder, data, tmp_path / "out", **settings)
    assert '"backend": "self"' in json.dumps(run_json(tmp_path / "out"))
    kept = [
        row for path in sorted((tmp_path / "out" / "rollouts" / "data").iterdir())
        for row in parquet.read_table(path).to_pylist()
    ]  # fmt: skip
    assert len(kept) == 3 * 4 * 4
    config = config_of("rloo", folder, data, tmp_path, **{**settings, "backend": {"judge": (f"hf:{folder}",)}})
    last = [row for row in kept if row["batch"] == 2]
    with Scorer(RewardConfig(), config, None, on_warning=pytest.fail) as scorer:
        rollouts = [
            Rollout(
                row["id"], replace(prompt_row(0).prompt, prompt=(Turn("user", row["prompt"][0]["content"]),)), (1,),
                (Completion((1,), row["response"], True, (0.0,)),), 0,
            )
            for row in last
        ]  # fmt: skip
        alone = [score[0].value for score in scorer.submit(rollouts).result()]
    assert [row["reward"] for row in last] == pytest.approx(alone, abs=1e-4)
    assert len(set(alone)) > 4

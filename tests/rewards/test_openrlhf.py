from __future__ import annotations

import asyncio
import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from rlaif.errors import InputError, LabelsUnseenError
from rlaif.rewards import openrlhf_reward
from tests.servers import ScriptedServer

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "openrlhf_reward.py"
PROMPT = "<|im_start|>user\nName a color.<|im_end|>\n<|im_start|>assistant\n"


def test_rewards_are_tensors_one_for_each_query(judge_server: ScriptedServer) -> None:
    reward_func = openrlhf_reward("openai:judge", base_url=judge_server.url)
    queries = [PROMPT + "good<|im_end|>", PROMPT + "so so<|im_end|>"]
    result = reward_func(queries, [PROMPT] * 2, ["", ""], unknown=1)
    expected = torch.tensor([(9.999 - 5.5) / 4.5, 0.0])
    torch.testing.assert_close(result["rewards"], expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(result["scores"], (expected + 1) / 2, atol=1e-6, rtol=0)
    assert result["extra_logs"] == {}
    asked = [received.json["messages"][-1]["content"] for received in judge_server.received[-2:]]
    assert any("### Response\ngood\n" in text for text in asked)  # without the token that ended it


def test_a_reward_models_scores_are_probabilities(reward_model: str) -> None:
    result = openrlhf_reward(reward_model)([PROMPT + "good", PROMPT + "so so"], [PROMPT] * 2, ["", ""])
    assert result["rewards"][0] != result["rewards"][1]
    torch.testing.assert_close(result["scores"], result["rewards"].sigmoid())


def test_a_failed_judgement_is_an_error(judge_server: ScriptedServer) -> None:
    reward_func = openrlhf_reward("openai:judge", base_url=judge_server.url)
    with pytest.raises(LabelsUnseenError):
        reward_func(["p bad"], ["p"], [""])
    with pytest.raises(InputError, match=r"query\[0\].query: does not begin with its prompt"):
        reward_func(["q"], ["p"], [""])


async def test_the_example_file_as_openrlhf_loads_and_calls_it(
    judge_server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLAIF_JUDGE", "openai:judge")
    monkeypatch.setenv("OPENAI_BASE_URL", judge_server.url)
    spec = importlib.util.spec_from_file_location("reward_func", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    calls = [asyncio.to_thread(module.reward_func, [f"p{n} good"], [f"p{n}"], ["label"]) for n in range(8)]
    results: list[dict[str, Any]] = await asyncio.gather(*calls)
    # What OpenRLHF makes of one: `torch.tensor([reward_val])`, one value a sample.
    assert [torch.tensor([result["rewards"]]).shape for result in results] == [torch.Size([1])] * 8
    assert all(result["rewards"].item() == pytest.approx((9.999 - 5.5) / 4.5, abs=1e-6) for result in results)

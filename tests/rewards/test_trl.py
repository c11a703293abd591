from __future__ import annotations

import asyncio
import importlib.util
import inspect
import logging
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rlaif.errors import BackendUnusableError
from rlaif.rewards import trl_reward
from tests.servers import ScriptedServer

MESSAGES = [{"role": "user", "content": "Name a color."}]


def call(reward: Any, prompts: list[Any], completions: list[Any], **columns: Any) -> list[float | None]:
    """As TRL calls it."""
    result: list[float | None] = asyncio.run(
        reward(
            prompts=prompts, completions=completions, completion_ids=[[1]] * len(prompts), trainer_state=None, **columns
        )
    )
    return result


def test_plain_and_conversational_data(judge_server: ScriptedServer) -> None:
    reward = trl_reward("openai:judge", base_url=judge_server.url)
    good = (9 * 0.001 + 10 * 0.999 - 5.5) / 4.5
    plain = call(reward, ["Name a color."] * 2, ["good", "so so"], topic=["a", "b"])
    assert plain == [pytest.approx(good), pytest.approx(0)]
    conversational = call(reward, [MESSAGES] * 2, [[{"role": "assistant", "content": text}] for text in ("good", "x")])
    assert conversational == [pytest.approx(good), pytest.approx(0)]


def test_a_reward_model_has_rewards_and_no_ratings(reward_model: str) -> None:
    metrics: dict[str, float] = {}
    extras: dict[str, list[Any]] = {}
    reward = trl_reward(reward_model)
    one, other = call(reward, ["Why?"] * 2, ["good", "so so"], log_metric=metrics.__setitem__,
                      log_extra=extras.__setitem__)  # fmt: skip
    assert one != other
    assert metrics == {"rlaif/failed": 0.0}
    assert extras == {}


def test_a_failed_judgement_is_none_counted_and_named(
    judge_server: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    reward = trl_reward("openai:judge", base_url=judge_server.url, name="kind")
    metrics: dict[str, float] = {}
    extras: dict[str, list[Any]] = {}
    with caplog.at_level(logging.WARNING):
        rewards = call(
            reward,
            [MESSAGES] * 3,
            [[{"role": "assistant", "content": "good"}], [{"role": "assistant", "content": "bad"}], 7],
            log_metric=metrics.__setitem__,
            log_extra=extras.__setitem__,
        )
    assert [value is None for value in rewards] == [False, True, True]
    assert metrics == {"kind/failed": 2.0, "kind/rating": pytest.approx(9.999)}
    assert extras["kind_rating"] == [pytest.approx(9.999), None, None]
    assert extras["kind_error"] == [None, "LabelsUnseenError", "InputError"]
    assert "kind: 2 of 3 judgements failed (1 LabelsUnseenError, 1 InputError)" in caplog.text


def test_a_judge_that_cannot_be_asked_at_all_stops_the_training(judge_server: ScriptedServer) -> None:
    with pytest.raises(BackendUnusableError):
        call(trl_reward("openai:judge", base_url=judge_server.url), ["a"], ["unusable"])


def test_the_forms_that_trl_takes(judge_server: ScriptedServer) -> None:
    reward = trl_reward("openai:judge", base_url=judge_server.url, name="quality")
    assert inspect.iscoroutinefunction(type(reward).__call__)
    assert reward.__name__ == "quality"
    again = pickle.loads(pickle.dumps(reward))  # noqa: S301
    assert call(again, ["a"], ["b"]) == [pytest.approx(0)]
    blocking = trl_reward("openai:judge", base_url=judge_server.url, blocking=True)
    assert not inspect.iscoroutinefunction(type(blocking).__call__)
    assert blocking(prompts=["a"], completions=["b"]) == [pytest.approx(0)]


TRAINING = """
import sys
import datasets
from transformers import AutoModelForCausalLM, AutoTokenizer
import trl
from rlaif.rewards import trl_reward

name, is_conversational, folder, out = sys.argv[1], sys.argv[2] == "True", sys.argv[3], sys.argv[4]
prompts = ["Name a color.", "Say hello.", "Write a rhyme.", "Why is the sky blue?"]
if is_conversational:
    prompts = [[{"role": "user", "content": prompt}] for prompt in prompts]
model = AutoModelForCausalLM.from_pretrained(folder)
before = [parameter.detach().clone() for parameter in model.parameters()]
trainer = getattr(trl, f"{name}Trainer")(
    model=model,
    processing_class=AutoTokenizer.from_pretrained(folder),
    reward_funcs=trl_reward("builtin:tiny"),
    args=getattr(trl, f"{name}Config")(
        output_dir=out, max_steps=2, per_device_train_batch_size=4, num_generations=4, max_completion_length=8,
        logging_steps=1, report_to=[], use_cpu=True, bf16=False, save_strategy="no", disable_tqdm=True,
        learning_rate=1e-3, temperature=1.5,
    ),
    train_dataset=datasets.Dataset.from_dict({"prompt": prompts, "topic": ["x"] * 4}),
)
trainer.train()
steps = [entry for entry in trainer.state.log_history if "reward" in entry]
assert len(steps) == 2
assert all(-1 <= step["reward"] <= 1 and step["rlaif/failed"] == 0 for step in steps), steps
assert all(1 <= step["rlaif/rating"] <= 10 for step in steps), steps
assert any((old != new).any() for old, new in zip(before, model.parameters()))
print("two steps")
"""


@pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="trl is not installed")
@pytest.mark.parametrize("trainer", ["GRPO", "RLOO"])
@pytest.mark.parametrize("is_conversational", [True, False])
def test_two_steps_of_training(tmp_path: Path, trainer: str, is_conversational: bool) -> None:
    from rlaif.backends.builtin import BuiltinBackend

    folder = BuiltinBackend("tiny").model_path
    finished = subprocess.run(
        [sys.executable, "-c", TRAINING, trainer, str(is_conversational), folder, str(tmp_path)],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert "two steps" in finished.stdout
    assert "is a demonstration judge" in finished.stderr

from __future__ import annotations

import asyncio
import importlib
import inspect
from functools import partial
from typing import Any

import numpy as np
import pytest

from rlaif.errors import InputError, LabelsUnseenError
from rlaif.rewards import verl_compute_score, verl_compute_score_async, verl_compute_scores
from tests.servers import ScriptedServer

GOOD = {"score": pytest.approx((9.999 - 5.5) / 4.5), "rating": pytest.approx(9.999)}
UNIFORM = {"score": pytest.approx(0), "rating": pytest.approx(5.5)}
EXTRA = {"question": "Name a color.", "index": 3, "num_turns": 1, "rollout_reward_scores": {}}


def as_verl_does(path: str, name: str, reward_kwargs: dict[str, Any]) -> Any:
    """The function as verl's `get_custom_reward_fn` makes it of `pkg://` paths."""
    raw = getattr(importlib.import_module(path.removeprefix("pkg://").replace("/", ".")), name)

    def call(extra: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        return raw(*args, **{**kwargs, **extra})

    assert inspect.iscoroutinefunction(raw) == name.endswith("async")
    return partial(call, reward_kwargs)


def test_the_call_of_verls_naive_manager(judge_server: ScriptedServer) -> None:
    kwargs = {"judge": "openai:judge", "base_url": [judge_server.url], "task": "helpfulness"}
    compute_score = as_verl_does("pkg://rlaif.rewards", "verl_compute_score", kwargs)
    score = compute_score(
        data_source="openai/gsm8k",
        solution_str="good",
        ground_truth="42",
        extra_info=EXTRA,
        reward_router_address="127.0.0.1:1",
        reward_model_tokenizer=object(),
    )
    assert score == GOOD
    assert "Name a color." in judge_server.received[-1].json["messages"][-1]["content"]


async def test_the_call_of_verls_reward_loop(judge_server: ScriptedServer) -> None:
    calls = [
        verl_compute_score_async(
            data_source="x", solution_str=text, ground_truth=None, extra_info=EXTRA,
            judge="openai:judge", base_url=judge_server.url,
        )
        for text in ("good", "so so")
    ]  # fmt: skip
    assert await asyncio.gather(*calls) == [GOOD, UNIFORM]


def test_the_call_of_verls_batch_manager(judge_server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLAIF_JUDGE", "openai:judge")
    prompt = np.array([{"role": "user", "content": "Name a color."}], dtype=object)  # as it comes out of parquet
    scores = verl_compute_scores(
        data_sources=np.array(["x", "y"], dtype=object),
        solution_strs=["good", "so so"],
        ground_truths=[None, None],
        extra_infos=np.array([{"prompt": prompt}, {"prompt": "Name a color."}], dtype=object),
        base_url=judge_server.url,
    )
    assert scores == [GOOD, UNIFORM]


def test_a_reward_model_has_a_score_and_no_rating(reward_model: str) -> None:
    assert {*verl_compute_score("x", "good", "", EXTRA, judge=reward_model)} == {"score"}


def test_a_failed_judgement_is_an_error(judge_server: ScriptedServer) -> None:
    with pytest.raises(LabelsUnseenError):
        verl_compute_score("x", "bad", "", EXTRA, judge="openai:judge", base_url=judge_server.url)


def test_a_missing_prompt_says_where_it_is_looked_for() -> None:
    with pytest.raises(InputError, match="extra_info: holds index, expected the prompt under prompt or question"):
        verl_compute_score("x", "y", "", {"index": 1}, judge="fake:0.5")
    with pytest.raises(InputError, match="expected the prompt under topic"):
        verl_compute_score("x", "y", "", EXTRA, judge="fake:0.5", prompt_key="topic")

"""Odd real items (empty, identical, very long, special tokens, control characters, injections): nothing is lost.

The items are third-party data for measuring and stay outside the repository; without them these tests are skipped.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from servers import Answer, Received, ScriptedServer

from rlaif.backends.config import BackendConfig, ModelConfig
from rlaif.engine.config import CallConfig, LabelConfig
from rlaif.engine.generation import generate_file
from rlaif.engine.generation_config import GenerateConfig
from rlaif.engine.labeling import LabelOutcome, label_file
from rlaif.policies.sampling import SamplingConfig

ITEMS = Path(__file__).resolve().parents[2] / "shared" / "data" / "pathological.jsonl"
pytestmark = pytest.mark.skipif(not ITEMS.is_file(), reason="needs ../shared/data")


def label(
    out: Path, backend: BackendConfig, source: Path = ITEMS
) -> tuple[LabelOutcome, pd.DataFrame, list[dict[str, Any]]]:
    outcome = label_file(LabelConfig(str(source), str(out), backend=backend, calls=CallConfig(max_retries=1)))
    failures = [json.loads(line) for line in (out / "failures.jsonl").read_text().splitlines()]
    return outcome, pd.read_parquet(out / "data"), failures


def items() -> list[dict[str, Any]]:
    return [json.loads(line) for line in ITEMS.read_text(encoding="utf-8").splitlines()]


def assert_nothing_lost(table: pd.DataFrame, failures: list[dict[str, Any]]) -> None:
    by_id = {item["id"]: item for item in items()}
    assert len(table) + len(failures) == len(by_id)
    assert set(table["id"]) | {failure["id"] for failure in failures} == set(by_id)
    for row in table.to_dict("records"):
        item = by_id[row["id"]]
        assert (row["response_a"], row["response_b"]) == (item["response_1"], item["response_2"])
        if item["response_1"] == item["response_2"]:
            assert row["prob_a"] == 0.5
            assert pd.isna(row["label_mass_ab"])


def test_a_server_is_sent_every_item_and_every_item_is_labeled(tmp_path: Path) -> None:
    contents: list[str] = []

    def judge(received: Received) -> Answer:
        if received.method != "POST":
            return Answer(status=404)  # what kind of server this is does not matter here
        contents.append(received.json["messages"][0]["content"])
        tokens = [{"token": "1", "logprob": -0.1}, {"token": "2", "logprob": -2.4}]
        choice = {"message": {"content": "1"}, "logprobs": {"content": [{**tokens[0], "top_logprobs": tokens}]}}
        return Answer({"choices": [{**choice, "finish_reason": "length"}], "usage": {"prompt_tokens": 9}})

    with ScriptedServer(judge) as server:
        backend = BackendConfig(judge=("openai:mock",), base_url=(server.url,))
        outcome, table, failures = label(tmp_path / "run", backend)
    assert failures == []
    assert_nothing_lost(table, failures)
    different = [item for item in items() if item["response_1"] != item["response_2"]]
    shown_pairs = {
        (json.dumps(item["prompt"]), *pair)
        for item in different
        for pair in ((item["response_1"], item["response_2"]), (item["response_2"], item["response_1"]))
    }
    assert outcome.progress.calls == len(contents) == len(shown_pairs)  # equal requests are asked once
    for item in different:
        shown = f"### Response 1\n{item['response_1']}\n\n### Response 2\n{item['response_2']}\n\n### Question\n"
        assert any(shown in content for content in contents), item["id"]


def test_a_model_in_this_process_labels_all_that_fits_and_names_the_rest(tmp_path: Path) -> None:
    _, table, failures = label(tmp_path / "strict", BackendConfig(judge=("builtin:tiny",)))
    assert_nothing_lost(table, failures)
    assert all(failure["error"].startswith("PromptTooLongError: ") for failure in failures)
    assert len(table) > len(failures) > 0
    assert ((table["prob_a"] >= 0) & (table["prob_a"] <= 1)).all()

    too_long = {failure["id"] for failure in failures}
    source = tmp_path / "too_long.jsonl"
    source.write_text("".join(json.dumps(item) + "\n" for item in items() if item["id"] in too_long))
    _, table, failures = label(tmp_path / "cut", BackendConfig(judge=("builtin:tiny",), truncate=True), source)
    assert failures == []
    assert set(table["id"]) == too_long


def test_a_policy_is_sent_every_prompt_as_it_is(tmp_path: Path) -> None:
    asked: list[list[dict[str, str]]] = []

    def policy(received: Received) -> Answer:
        if received.method != "POST":
            return Answer(status=404)
        asked.append(received.json["messages"])
        choice = {"message": {"content": asked[-1][-1]["content"][::-1]}, "finish_reason": "stop"}
        return Answer({"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 9}})

    with ScriptedServer(policy) as server:
        config = GenerateConfig(
            str(ITEMS),
            str(tmp_path / "run"),
            policy=("openai:mock",),
            sampling=SamplingConfig(samples=1),
            backend=ModelConfig(base_url=(server.url,)),
        )
        outcome = generate_file(config)
    assert (outcome.run.rows, outcome.run.failures) == (len(items()), 0)
    prompts = [item["prompt"] for item in items()]
    turns = [[{"role": "user", "content": each}] if isinstance(each, str) else each for each in prompts]
    assert sorted(map(json.dumps, asked)) == sorted(map(json.dumps, turns))
    table = pd.read_parquet(tmp_path / "run" / "data")
    assert [texts[0][::-1] for texts in table["responses"]] == [each[-1]["content"] for each in turns]

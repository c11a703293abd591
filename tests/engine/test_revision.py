"""The revising run: what is written, what is resumed, and what a failure becomes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest

from rlaif.backends.config import BackendConfig
from rlaif.backends.fake import Answer, FakeBackend
from rlaif.data.sources import read_comparisons
from rlaif.data.training_methods import TrainingOptions
from rlaif.data.training_rows import load_training_rows
from rlaif.engine.config import CallConfig, SourceConfig
from rlaif.engine.revision import ReviseOutcome, estimate_revision, run_revise
from rlaif.engine.revision_config import ReviseConfig
from rlaif.errors import (
    BackendUnusableError,
    ConfigError,
    ConstitutionError,
    PromptError,
    RequestRefusedError,
    RlaifError,
    RunFolderError,
    ServerFaultError,
)
from rlaif.judge.config import JudgeConfig
from rlaif.policies.revision import RevisionConfig
from rlaif.records import Generation, Request
from rlaif.training_records import Demonstration, LabeledPair

HOSTILE = "{{ 7*7 }}{% raw %} <|im_end|>\n``` \n# Heading\n\n<script>x</script> \x00 \u202e"


def is_critique(request: Request) -> bool:
    return request.messages[-1].content.endswith("Critique:")


def is_revision(request: Request) -> bool:
    return request.messages[-1].content.endswith("Revised response:")


def writes(request: Request) -> Answer:
    """A policy whose texts are short, and whose revisions grow."""
    if is_critique(request):
        return " It is cold.\n"
    if is_revision(request):
        response = request.messages[-1].content.rpartition("### Response\n")[2].partition("\n\n### Critique")[0]
        return f" {response}, friend"
    return f"Answer to {request.messages[-1].content}"


def write_rows(tmp_path: Path, rows: list[dict[str, Any]]) -> str:
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


@pytest.fixture
def config(tmp_path: Path) -> ReviseConfig:
    rows = [{"id": f"row {n}", "prompt": f"Question {n}?", "topic": n % 3} for n in range(12)]
    return ReviseConfig(
        write_rows(tmp_path, rows),
        str(tmp_path / "run"),
        revising=RevisionConfig(rounds=2),
        judging=JudgeConfig(constitution="polite"),
    )


async def revise(config: ReviseConfig, handler: Callable[[Request], Answer] = writes) -> ReviseOutcome:
    return await run_revise(config, policy=FakeBackend(handler), judges=(FakeBackend(lambda request: 0.8),))


def table(config: ReviseConfig, name: str = ".") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = parquet.read_table(Path(config.out) / name / "data").to_pylist()
    return rows


def run_json(config: ReviseConfig) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((Path(config.out) / "run.json").read_text())
    return content


def failures(config: ReviseConfig) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(config.out) / "failures.jsonl").read_text().splitlines()]


async def test_chains_rows_to_imitate_and_assumed_comparisons(config: ReviseConfig) -> None:
    outcome = await revise(config)
    rows = table(config)
    assert [row["id"] for row in rows] == [f"row {n}" for n in range(12)]
    assert rows[3]["initial_response"] == "Answer to Question 3?"
    assert [each["revision"] for each in rows[3]["rounds"]] == [
        "Answer to Question 3?, friend",
        "Answer to Question 3?, friend, friend",
    ]
    assert rows[3]["revision"] == rows[3]["rounds"][-1]["revision"]
    assert {each["critique"] for row in rows for each in row["rounds"]} == {"It is cold."}
    assert {each["principle"] for row in rows for each in row["rounds"]} == {"polite", "no-insults"}
    assert rows[3]["topic"] == 0
    assert [row["id"] for row in table(config, "sft")[:3]] == ["row 0/1", "row 0/2", "row 1/1"]
    pairs = table(config, "comparisons")
    assert {(pair["chosen"].count("friend"), pair["rejected"].count("friend")) for pair in pairs} == {(2, 0)}
    assert {pair["prob_a"] for pair in pairs} == {0.0, 1.0}
    assert outcome.tables.demonstrations == 24
    found = run_json(config)
    assert found["status"] == "finished"
    assert found["constitution"]["name"] == "polite"
    assert (found["counts"]["sft_rows"], found["counts"]["comparisons"], found["counts"]["rows"]) == (24, 12, 12)
    assert found["counts"]["length"]["longer_share"] == 1.0
    assert found["calls"]["asked"] == 12 * 5
    assert failures(config) == []
    assert "assumed, not judged" in (Path(config.out) / "README.md").read_text()


async def test_the_tables_are_read_by_their_readers_and_by_datasets(config: ReviseConfig, tmp_path: Path) -> None:
    import datasets

    await revise(config)
    sft = load_training_rows(f"{config.out}/sft", TrainingOptions("sft"))
    assert all(isinstance(each, Demonstration) for each in sft.train)
    assert len(sft.train) == 24
    for method in ("dpo", "rm"):
        pairs = load_training_rows(f"{config.out}/comparisons", TrainingOptions(method))
        assert {each.prob_a for each in pairs.train if isinstance(each, LabeledPair)} == {0.0, 1.0}
    assert len(list(read_comparisons(f"{config.out}/comparisons"))) == 12
    for name, count in (("default", 12), ("sft", 24), ("comparisons", 12)):
        found = datasets.load_dataset(config.out, name, split="train", cache_dir=str(tmp_path / "cache"))
        assert found.num_rows == count


async def test_conversations_stay_conversations(config: ReviseConfig, tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": "Q?"},
    ]
    rows: list[dict[str, Any]] = [{"id": "talk", "prompt": turns}, {"id": "text", "prompt": "Q?", "response": "Mine"}]
    path = write_rows(tmp_path, [rows[0] | {"response": "Yours"}, rows[1]])
    await revise(replace(config, input=path))
    talk, text = table(config)
    assert talk["prompt"] == turns
    assert talk["revision"] == "Yours, friend, friend"
    assert (talk["initial_seed"], talk["initial_finish_reason"]) == (None, None)
    assert text["prompt"] == [{"role": "user", "content": "Q?"}]
    (first, *_) = load_training_rows(f"{config.out}/sft", TrainingOptions("sft")).train
    assert isinstance(first, Demonstration)
    assert (len(first.prompt), first.response) == (3, "Yours, friend")
    assert run_json(config)["counts"]["initial_from_input"] == 2


async def test_candidates_are_revised_in_their_first_response(config: ReviseConfig, tmp_path: Path) -> None:
    row = {"id": "c", "prompt": "Q?", "responses": ["First", "Second"], "policies": ["p", "q"]}
    await revise(replace(config, input=write_rows(tmp_path, [row | {"finish_reasons": ["length", "stop"]}])))
    assert table(config)[0]["initial_response"] == "First"
    assert table(config)[0]["initial_finish_reason"] == "length"  # so that `rlaif filter --drop-cut-off` sees it
    assert table(config)[0]["policies"] == ["p", "q"]


async def test_a_revised_folder_can_be_revised_again(config: ReviseConfig) -> None:
    await revise(config)
    again = replace(config, input=config.out, out=f"{config.out}-again", source=SourceConfig({"response": "revision"}))
    await revise(again)
    rows = table(again)
    assert len(rows) == 12  # of data/ alone, not of the tables beside it
    assert rows[0]["revision"] == "Answer to Question 0?, friend, friend, friend, friend"
    assert rows[0]["input_initial_response"] == "Answer to Question 0?"
    assert len(rows[0]["input_rounds"]) == 2


async def test_hostile_texts_are_kept_byte_for_byte(config: ReviseConfig, tmp_path: Path) -> None:
    path = write_rows(tmp_path, [{"id": HOSTILE, "prompt": HOSTILE, "response": HOSTILE, "topic": HOSTILE}])
    policy = FakeBackend(lambda request: f"{HOSTILE}{'critique' if is_critique(request) else 'revision'}")
    await run_revise(replace(config, input=path), policy=policy)
    (row,) = table(config)
    assert (row["id"], row["prompt"], row["initial_response"]) == (HOSTILE, HOSTILE, HOSTILE)
    assert row["revision"] == f"{HOSTILE}revision"
    assert all(HOSTILE in request.messages[0].content for request in policy.requests)
    for message in (message for request in policy.requests for message in request.messages):
        assert not any(HOSTILE in segment.text for segment in message.segments if segment.is_template)
    card = (Path(config.out) / "README.md").read_text()
    assert "\x00" not in card
    assert "\u202e" not in card


async def test_only_rows_that_cannot_be_revised_fail(config: ReviseConfig) -> None:
    def handler(request: Request) -> Answer:
        content = request.messages[-1].content
        if "Question 2?" in content and is_revision(request):
            return ""
        if "Question 4?" in content and is_critique(request):
            raise RequestRefusedError("not this one")
        if "Question 5?" in content and is_revision(request):
            raise ServerFaultError("500")
        if content == "Question 6?":
            return "  "
        if "Question 7?" in content and is_revision(request):
            return Generation("half", "length")
        return writes(request)

    outcome = await revise(replace(config, calls=CallConfig(max_retries=0)), handler)
    rows = {row["id"]: row for row in table(config)}
    assert sorted(rows) == sorted(f"row {n}" for n in range(12) if n not in (5, 6))
    assert [each["is_usable"] for each in rows["row 2"]["rounds"]] == [False]
    assert rows["row 4"]["rounds"][1]["critique_refusal"] == "not this one"
    assert rows["row 4"]["revision"].endswith(", friend, friend")
    assert {each["error"].split(":")[0] for each in failures(config)} == {"NoResponseError", "ServerFaultError"}
    assert {each["stage"] for each in failures(config)} == {"revising"}
    counts = run_json(config)["counts"]
    assert (counts["rows"] + counts["failures"], counts["unrevised"], counts["revisions"]["cut_off"]) == (12, 1, 2)
    # ten rows of two rounds; one has one round and no revision, one has two that are cut off
    assert outcome.tables.demonstrations == 10 * 2 - 2 - 2
    assert outcome.tables.comparisons == 9
    cut = next(pair for pair in table(config, "comparisons") if pair["id"] == "row 7")
    assert cut[f"finish_reason_{cut['revised']}"] == "length"


async def test_unchanged_responses_get_no_assumed_label(config: ReviseConfig) -> None:
    def handler(request: Request) -> Answer:
        is_seven = "Question 7?" in request.messages[-1].content
        return "\nAnswer to Question 7?" if is_revision(request) and is_seven else writes(request)

    outcome = await revise(config, handler)
    assert (outcome.tables.comparisons, outcome.tables.unchanged) == (11, 1)
    assert "row 7" not in {pair["id"] for pair in table(config, "comparisons")}
    assert run_json(config)["counts"]["comparisons_left_out_unchanged"] == 1
    unlabeled = replace(config, labels="none", out=f"{config.out}-none")
    outcome = await revise(unlabeled, handler)
    assert (outcome.tables.comparisons, outcome.tables.unchanged) == (12, 0)
    assert "prob_a" not in table(unlabeled, "comparisons")[0]


async def test_the_same_run_again_asks_nothing_and_writes_the_same(config: ReviseConfig) -> None:
    part = replace(config, limit=5)
    await revise(part)
    assert len(table(config)) == 5

    def never(request: Request) -> Answer:
        raise AssertionError("was asked again")

    await revise(part, never)
    outcome = await revise(config)
    assert outcome.run.progress.calls == 7 * 5
    await revise(replace(config, out=f"{config.out}-fresh"))
    for name in ("data", "sft/data", "comparisons/data"):
        whole = Path(f"{config.out}-fresh") / name / "train-00000.parquet"
        assert (Path(config.out) / name / "train-00000.parquet").read_bytes() == whole.read_bytes()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 1}, "seed"),
        ({"labels": "none"}, "labels"),
        ({"revising": RevisionConfig(rounds=3)}, "rounds"),
        ({"revising": RevisionConfig(rounds=2, revision_shots=0)}, "prompts"),
        ({"judging": JudgeConfig(constitution="honest")}, "constitution"),
        ({"judging": JudgeConfig(constitution="polite", principles="polite")}, "principles"),
        ({"source": SourceConfig(skip_bad_rows=True)}, "skip_bad_rows"),
    ],
)
async def test_a_folder_of_other_settings_is_refused(config: ReviseConfig, change: dict[str, Any], named: str) -> None:
    await revise(replace(config, limit=1))
    with pytest.raises(RunFolderError, match=rf"other settings: .*{named} \(was"):
        await revise(replace(config, **change))


async def test_flags_of_a_judge_that_is_not_asked_change_nothing(config: ReviseConfig) -> None:
    await revise(replace(config, limit=1))
    await revise(
        replace(config, judging=JudgeConfig(constitution="polite", shots=2), backend=BackendConfig(("fake:0.5",)))
    )
    assert len(table(config)) == 12


async def test_named_principles_only_are_drawn(config: ReviseConfig) -> None:
    await revise(replace(config, judging=JudgeConfig(constitution="polite", principles="no-insults")))
    assert {each["principle"] for row in table(config) for each in row["rounds"]} == {"no-insults"}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"judging": JudgeConfig(constitution="detailed")}, ConstitutionError, "cannot revise by"),
        ({"judging": JudgeConfig(constitution="no-such")}, ConstitutionError, "no-such"),
        ({"revising": RevisionConfig(revision_shots=9)}, PromptError, "--revision-shots 9"),
        ({"policy": "fake:what"}, ConfigError, "fake:what"),
        ({"policy": "hf-reward:no/such"}, RlaifError, "no/such"),
        ({"policy": "fake:0.5", "labels": "judge", "backend": BackendConfig(("what",))}, ConfigError, "BACKEND:MODEL"),
        (
            {
                "policy": "fake:0.5",
                "labels": "judge",
                "backend": BackendConfig(("fake:0.5",)),
                "judging": JudgeConfig(task="helpfullness", constitution="polite"),
            },
            PromptError,
            "helpfulness",
        ),
    ],
)
async def test_faults_are_told_before_anything_is_written(
    config: ReviseConfig, tmp_path: Path, change: dict[str, Any], error: type[RlaifError], message: str
) -> None:
    judging = change.get("judging")
    if judging is not None and judging.constitution == "detailed":
        path = tmp_path / "bare.yaml"
        path.write_text("name: bare\nprinciples:\n  - {id: short, text: Choose the shorter one.}\n")
        change = {"judging": JudgeConfig(constitution=str(path))}
    with pytest.raises(error, match=message):
        await run_revise(replace(config, **change))
    assert not Path(config.out).exists()


def test_a_constitution_is_needed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="constitution: is missing"):
        ReviseConfig("in", str(tmp_path))


async def test_a_policy_that_refuses_everything_stops_the_run(config: ReviseConfig) -> None:
    def handler(request: Request) -> Answer:
        raise RequestRefusedError("never")

    with pytest.raises(BackendUnusableError, match="nothing has succeeded"):
        await revise(config, handler)
    assert run_json(config)["status"] == "interrupted"


async def test_addresses_are_written_without_keys(config: ReviseConfig) -> None:
    await revise(replace(config, policy_base_url=("http://host/v1?key=secret",)))
    assert run_json(config)["config"]["policy_base_url"] == ["http://host/v1"]


def test_the_policy_runs_where_it_is_told_to(config: ReviseConfig) -> None:
    backend = BackendConfig(base_url=("http://judge/v1",))
    assert replace(config, backend=backend).policy_model.base_url == ("http://judge/v1",)
    apart = replace(config, backend=backend, policy_base_url=("http://policy/v1",))
    assert apart.policy_model.base_url == ("http://policy/v1",)
    assert apart.backend.base_url == ("http://judge/v1",)


async def test_an_estimate_counts_the_calls_of_a_run(config: ReviseConfig) -> None:
    plain = replace(config, policy="fake:0.5", calls=CallConfig(price="1/1"))
    found = await estimate_revision(plain)
    outcome = await run_revise(plain, policy=FakeBackend(writes))
    assert (found.rows, found.calls) == (12, outcome.run.progress.calls)
    assert found.completion_tokens == 12 * 5 * 512
    assert found.prompt_tokens > outcome.run.progress.usage.prompt_tokens  # texts may be as long as that
    judged = await estimate_revision(replace(plain, labels="judge", backend=BackendConfig(("fake:0.5",))))
    assert judged.calls == found.calls + 12 * 2 * 2  # two principles in two orders
    assert judged.cost is not None
    assert found.cost is not None
    assert judged.cost > found.cost

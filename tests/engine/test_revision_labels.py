"""Comparisons of initial and revised responses, labeled by a judge inside the run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest

from rlaif.backends.fake import Answer, FakeBackend
from rlaif.engine.config import CallConfig
from rlaif.engine.revision import ReviseOutcome, run_revise
from rlaif.engine.revision_config import ReviseConfig
from rlaif.engine.run_folder import RunFolder
from rlaif.errors import BackendUnusableError, BudgetExceededError, RunFolderError, ServerFaultError
from rlaif.judge.config import JudgeConfig
from rlaif.policies.revision import RevisionConfig
from rlaif.records import Request


def writes(request: Request) -> Answer:
    """Even questions get longer by a revision, odd ones shorter; that of question 3 stays."""
    content = request.messages[-1].content
    if content.endswith("Critique:"):
        return "Cold."
    if content.endswith("Revised response:"):
        number = int(content.rpartition("Question ")[2].partition("?")[0])
        return "Answer" if number == 3 else "A longer answer" if number % 2 == 0 else "Ans"
    return "Answer"


def likes_length(request: Request) -> Answer:
    """Prefers the longer response, whatever it is."""
    return FakeBackend.named("longer")._handler(request)


@pytest.fixture
def config(tmp_path: Path) -> ReviseConfig:
    path = tmp_path / "prompts.jsonl"
    path.write_text(
        "".join(json.dumps({"id": f"row {n}", "prompt": f"Question {n}?", "topic": n}) + "\n" for n in range(10))
    )
    return ReviseConfig(
        str(path),
        str(tmp_path / "run"),
        labels="judge",
        revising=RevisionConfig(rounds=1),
        judging=JudgeConfig(constitution="polite", principles="polite"),
    )


async def revise(config: ReviseConfig, judge: FakeBackend, policy: FakeBackend | None = None) -> ReviseOutcome:
    return await run_revise(config, policy=policy or FakeBackend(writes), judges=(judge,), command="rlaif revise x")


def labels(config: ReviseConfig) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = parquet.read_table(Path(config.out) / "comparisons" / "data").to_pylist()
    return rows


async def test_the_judge_labels_and_its_taste_for_length_is_told(config: ReviseConfig) -> None:
    outcome = await revise(config, FakeBackend(likes_length))
    rows = labels(config)
    assert [row["id"] for row in rows] == [f"row {n}" for n in range(10)]
    assert {row["topic"] for row in rows} == set(range(10))
    for number, row in enumerate(rows):
        prob_revised = row["prob_a"] if row["revised"] == "a" else 1.0 - row["prob_a"]
        if number == 3:
            assert (row["prob_a"], row["prob_a_ab"]) == (0.5, None)  # identical, so that nobody is asked
        else:
            assert (prob_revised > 0.5) == (number % 2 == 0)
    preference = outcome.preference
    assert preference is not None
    assert (preference.overall.count, preference.where_longer.share, preference.where_shorter.share) == (9, 1.0, 0.0)
    counts = json.loads((Path(config.out) / "run.json").read_text())["counts"]
    assert counts["judge_preference"]["where_longer"]["n"] == 5
    assert counts["judge_preference"]["where_shorter"]["n"] == 4
    assert counts["comparisons"] == 10
    spent = json.loads((Path(config.out) / "run.json").read_text())["judging"]
    assert (spent["run"], spent["calls"]["asked"]) == ("comparisons", 9 * 2)
    inner = RunFolder(Path(config.out) / "comparisons", "label").read()
    assert inner is not None
    assert (inner["command"], inner["status"], inner["repeat"]) == ("label", "finished", "rlaif revise x")


async def test_the_same_run_again_asks_no_judge_and_a_higher_limit_only_for_new_rows(config: ReviseConfig) -> None:
    judge = FakeBackend(likes_length)
    await revise(replace(config, limit=4), judge)
    asked = len(judge.requests)
    assert asked == 3 * 2
    await revise(replace(config, limit=4), judge)
    assert len(judge.requests) == asked
    await revise(config, judge)
    assert len(judge.requests) == asked + 6 * 2
    fresh = replace(config, out=f"{config.out}-fresh")
    await revise(fresh, FakeBackend(likes_length))
    file = "comparisons/data/train-00000.parquet"
    assert (Path(config.out) / file).read_bytes() == (Path(fresh.out) / file).read_bytes()


async def test_a_judge_that_fails_leaves_what_is_done(config: ReviseConfig) -> None:
    def broken(request: Request) -> Answer:
        raise BackendUnusableError("401")

    with pytest.raises(BackendUnusableError, match="401"):
        await revise(config, FakeBackend(broken))
    assert json.loads((Path(config.out) / "run.json").read_text())["status"] == "interrupted"
    policy = FakeBackend(writes)
    outcome = await revise(config, FakeBackend(likes_length), policy)
    assert policy.requests == []
    assert outcome.labeling is not None
    assert outcome.labeling.rows == 10


async def test_rows_the_judge_fails_on_are_counted(config: ReviseConfig) -> None:
    def handler(request: Request) -> Answer:
        if "Question 6?" in request.messages[0].content:
            raise ServerFaultError("500")
        return 0.7

    outcome = await revise(replace(config, calls=CallConfig(max_retries=0)), FakeBackend(handler))
    assert outcome.labeling is not None
    assert (outcome.labeling.rows, outcome.labeling.failures) == (9, 1)
    (failure,) = (Path(config.out) / "comparisons" / "failures.jsonl").read_text().splitlines()
    assert json.loads(failure)["id"] == "row 6"
    assert json.loads((Path(config.out) / "run.json").read_text())["counts"]["judge_failures"] == 1


async def test_other_settings_of_the_judge_are_refused_before_it_is_asked(config: ReviseConfig) -> None:
    await revise(replace(config, limit=2), FakeBackend(likes_length))
    for change in ({"shots": 1}, {"preamble": "detailed"}, {"orders": "ab"}):
        judge = FakeBackend(likes_length)
        with pytest.raises(RunFolderError, match="other settings"):
            await revise(replace(config, judging=replace(config.judging, **change)), judge)  # type: ignore[arg-type]
        assert judge.requests == []
    with pytest.raises(RunFolderError, match=r"judge \(was"):
        await revise(config, FakeBackend(likes_length, name="fake:other"))


async def test_the_budget_is_that_of_both_together(config: ReviseConfig) -> None:
    free = replace(config, out=f"{config.out}-free", calls=CallConfig(price="1000/1000"))
    outcome = await revise(free, FakeBackend(likes_length))
    assert outcome.run.progress.cost is not None
    assert outcome.labeling is not None
    assert outcome.labeling.progress.cost is not None
    policy, judge = outcome.run.progress.cost, outcome.labeling.progress.cost
    enough_for_each = max(policy, judge) * 1.1
    assert enough_for_each < policy + judge
    calls = CallConfig(price="1000/1000", max_cost=enough_for_each, concurrency=1)
    with pytest.raises(BudgetExceededError):
        await revise(replace(config, calls=calls), FakeBackend(likes_length))
    calls = replace(calls, max_cost=(policy + judge) * 1.1)
    assert (await revise(replace(config, calls=calls), FakeBackend(likes_length))).preference is not None


async def test_nothing_to_compare_asks_no_judge(config: ReviseConfig) -> None:
    judge = FakeBackend(likes_length)
    policy = FakeBackend(lambda request: "" if request.messages[0].content.endswith("Revised response:") else "text")
    outcome = await revise(config, judge, policy)
    assert (outcome.labeling, outcome.tables.comparisons, judge.requests) == (None, 0, [])
    assert json.loads((Path(config.out) / "run.json").read_text())["status"] == "finished"

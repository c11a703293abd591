"""`rlaif show run` and `rlaif show row` of revised responses."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from rlaif.backends.fake import Answer, FakeBackend
from rlaif.cli.main import main
from rlaif.engine.config import CallConfig
from rlaif.engine.revision import run_revise
from rlaif.engine.revision_config import Labels, ReviseConfig
from rlaif.errors import RequestRefusedError, ServerFaultError
from rlaif.judge.config import JudgeConfig
from rlaif.policies.revision import RevisionConfig
from rlaif.records import Request


def handler(request: Request) -> Answer:
    content = request.messages[-1].content
    if content.endswith("Critique:"):
        if "Question 1?" in content:
            raise RequestRefusedError("not this one")
        return "It is \x1b[31mcold."
    if content.endswith("Revised response:"):
        if "Question 2?" in content:
            raise ServerFaultError("500")
        return "A warmer answer."
    return "Answer."


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    revise("assumed")
    return "run"


def revise(labels: Labels) -> None:
    Path("in.jsonl").write_text(
        "".join(json.dumps({"id": str(n), "prompt": f"Question {n}?"}) + "\n" for n in range(3))
    )
    config = ReviseConfig(
        "in.jsonl",
        "run" if labels == "assumed" else labels,
        labels=labels,
        revising=RevisionConfig(rounds=1),
        judging=JudgeConfig(constitution="polite", principles="polite"),
        calls=CallConfig(max_retries=0),
    )
    judges = (FakeBackend.named("longer"),)
    asyncio.run(run_revise(config, policy=FakeBackend(handler), judges=judges, command="rlaif revise in.jsonl"))


def test_a_run_is_told(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "run", folder]) == 0
    said = capsys.readouterr().out
    assert "policy       fake:handler" in said
    assert "principles   polite: polite (polite 2)" in said
    assert "2 revised, 1 failed, of 3" in said
    assert "longer       100.0% of 2 last revisions" in said
    assert "1 x ServerFaultError" in said
    assert "judge" not in said


def test_a_judges_preference_is_told(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    revise("judge")
    assert main(["show", "run", "judge"]) == 0
    assert "judge        prefers 100.0% of all 2, 100.0% of the longer 2" in capsys.readouterr().out


def test_a_row_is_told_with_every_text(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "row", folder, "0"]) == 0
    said = capsys.readouterr().out
    for text in (
        "Question 0?",
        "Answer.",
        "Point out where the response is cold",
        "A warmer answer.",
        "round 1: critique: seed",
    ):
        assert text in said
    assert "\x1b" not in said
    assert main(["show", "row", folder, "1"]) == 0
    assert "finish reason refused (not this one)" in capsys.readouterr().out


def test_a_row_that_failed_is_told_by_its_replies(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "row", folder, "2"]) == 0
    said = capsys.readouterr().out
    assert "no chain: the row failed" in said
    assert "ServerFaultError" in said
    assert main(["show", "row", folder, "9"]) == 2

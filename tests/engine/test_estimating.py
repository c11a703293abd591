"""`--dry-run` counts what a run asks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlaif.backends.base import Capabilities
from rlaif.backends.fake import FakeBackend
from rlaif.engine.config import LabelConfig
from rlaif.engine.estimating import estimate
from rlaif.engine.labeling import LABELING, run_label
from rlaif.judge.config import JudgeConfig
from rlaif.records import GenerateRequest, Request


def answer(request: Request) -> float | str:
    if isinstance(request, GenerateRequest):
        return f"Reasons number {request.seed}.\nPreferred response: 1"  # equal ones would be asked about once
    return 0.8


@pytest.mark.parametrize(
    "judging",
    [
        JudgeConfig(),
        JudgeConfig(cot=True),
        JudgeConfig(cot=True, samples=3),
        JudgeConfig(scoring="sample", samples=2),
        JudgeConfig(scoring="sample", cot=True),
        JudgeConfig(constitution="helpful-harmless", orders="random"),
    ],
)
@pytest.mark.parametrize("reads_verdict_in_reply", [True, False])
async def test_as_many_calls_are_announced_as_are_made(
    judging: JudgeConfig, reads_verdict_in_reply: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "in.jsonl"
    rows = [{"prompt": f"{n}?", "response_a": "a", "response_b": "a" if n == 0 else "b"} for n in range(4)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = LabelConfig(str(path), str(tmp_path / "run"), judging=judging)
    capabilities = Capabilities(has_token_alternatives=reads_verdict_in_reply)

    def judge() -> FakeBackend:
        return FakeBackend(answer, capabilities=capabilities)

    monkeypatch.setattr("rlaif.engine.estimating.open_backends", lambda _: (judge(),))
    expected = await estimate(LABELING, config)
    outcome = await run_label(config, backends=(judge(),))
    assert outcome.failures == 0
    assert expected.rows == outcome.rows
    assert expected.calls == outcome.progress.calls

"""Whole judgments of a backend, without engine and files: for tests that hold one backend's against another's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlaif.backends.base import Backend
from rlaif.judge.config import JudgeConfig
from rlaif.judge.pairwise import PairwiseJudge
from rlaif.judge.rating import RatingJudge
from rlaif.records import Candidates, Comparison, Judgment, Rating, Reply, ScoreRequest, Turn

_DATA = Path(__file__).resolve().parents[2] / "examples" / "data"


def example_comparisons(count: int) -> list[Comparison]:
    """The first of those that come with the examples."""
    return [
        Comparison(row["id"], (Turn("user", row["prompt"]),), row["response_a"], row["response_b"])
        for row in _rows("comparisons.jsonl", count)
    ]


def example_responses(count: int) -> list[Candidates]:
    """The first of those that come with the examples."""
    return [
        Candidates(row["id"], (Turn("user", row["prompt"]),), (row["response"],))
        for row in _rows("responses.jsonl", count)
    ]


async def compare(backend: Backend, comparisons: Sequence[Comparison], config: JudgeConfig) -> list[Judgment]:
    """What the judge prefers; all calls are made at the same time."""
    judge = PairwiseJudge(config)
    readings = await asyncio.gather(*(_read(backend, judge, comparison) for comparison in comparisons))
    return [judge.combine(comparison, read) for comparison, read in zip(comparisons, readings, strict=True)]


async def rate(backend: Backend, rows: Sequence[Candidates], config: JudgeConfig) -> list[Rating]:
    """What the judge thinks of each row's only response; all calls are made at the same time."""
    judge = RatingJudge(config)
    readings = await asyncio.gather(*(_read(backend, judge, row) for row in rows))
    return [judge.combine(row, read)[0] for row, read in zip(rows, readings, strict=True)]


async def _read(backend: Backend, judge: Any, row: Any) -> dict[Any, Any]:
    calls = judge.plan(row)
    found = await asyncio.gather(*(_answer(backend, judge.ask(row, call)) for call in calls))
    return dict(zip(calls, found, strict=True))


async def _answer(backend: Backend, asking: Any) -> Any:
    request = next(asking)
    while True:
        is_score = isinstance(request, ScoreRequest)
        reply: Reply = await (backend.score(request) if is_score else backend.generate(request))
        try:
            request = asking.send(reply)
        except StopIteration as end:
            return end.value


def _rows(name: str, count: int) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (_DATA / name).read_text(encoding="utf-8").splitlines()[:count]]

"""`--dry-run`: what a run would ask, counted without asking."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from rlaif.data.costs import cost_usd
from rlaif.data.files import open_source
from rlaif.engine.calibrating import calibration_of
from rlaif.engine.config import RunConfig
from rlaif.engine.judges import constitution_of, judges_for, open_backends
from rlaif.engine.running import RunKind, read_options, rows_of
from rlaif.records import Generation, RewardRequest, ScoreRequest


@dataclass(frozen=True)
class Estimate:
    """What a run would ask (`--dry-run`). Tokens are exact for a model in this process, else characters / 4."""

    rows: int
    calls: int
    prompt_tokens: int
    completion_tokens: int
    cost: float | None


async def estimate(
    kind: RunKind[Any, Any, Any], config: RunConfig, on_row: Callable[[int], None] = lambda _: None
) -> Estimate:
    """Count what a run would ask, and ask nothing.

    Raises:
        RlaifError: As the run itself, before its first call.
    """
    calibration_of(config)  # must be there, though it asks nothing
    source = open_source(config.input)
    summary = kind.scan(source, read_options(config))
    constitution = constitution_of(config)
    backends = open_backends(config)
    calls = prompt_tokens = completion_tokens = rows = 0
    judges: list[Any] = list(judges_for(kind.judge, config, constitution, backends))
    for backend, judge in zip(backends, judges, strict=True):
        async with aclosing(backend):
            for rows, row in enumerate(rows_of(kind, config, source, summary), 1):
                for call in judge.plan(row):
                    conversation = judge.ask(row, call)
                    request = next(conversation)
                    calls += 1
                    prompt_tokens += backend.count_tokens(request.messages)
                    if isinstance(request, RewardRequest):
                        continue
                    if isinstance(request, ScoreRequest):
                        completion_tokens += 1
                        continue
                    completion_tokens += request.max_tokens
                    if config.judging.scoring == "logprobs" and not request.wants_logprobs:
                        # the verdict is a call of its own, after the longest rationale
                        verdict = conversation.send(Generation("", "length"))
                        calls += 1
                        prompt_tokens += backend.count_tokens(verdict.messages) + request.max_tokens
                        completion_tokens += 1
                on_row(rows)
    prices = config.calls.prices
    cost = cost_usd(prompt_tokens, completion_tokens, *prices) if prices else None
    return Estimate(rows + len(summary.failures), calls, prompt_tokens, completion_tokens, cost)

"""`--dry-run`: what a run would ask, counted without asking."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass

from rlaif.data.costs import cost_usd
from rlaif.data.files import open_source
from rlaif.data.sources import scan
from rlaif.engine.config import LabelConfig
from rlaif.engine.labeling import comparisons_of, judge_for, open_panel, read_options
from rlaif.judge.constitutions import load_constitution
from rlaif.records import Generation, ScoreRequest


@dataclass(frozen=True)
class Estimate:
    """What a run would ask (`--dry-run`). Tokens are exact for a model in this process, else characters / 4."""

    rows: int
    calls: int
    prompt_tokens: int
    completion_tokens: int
    cost: float | None


async def estimate(config: LabelConfig, on_row: Callable[[int], None] = lambda _: None) -> Estimate:
    """Count what `run_label` would ask, and ask nothing.

    Raises:
        RlaifError: As `run_label`, before its first call.
    """
    source = open_source(config.input)
    summary = scan(source, read_options(config))
    constitution = load_constitution(config.judging.constitution) if config.judging.constitution else None
    backends = open_panel(config)
    calls = prompt_tokens = completion_tokens = rows = 0
    for backend in backends:
        judge = judge_for(config, constitution, backend)
        async with aclosing(backend):
            for rows, comparison in enumerate(comparisons_of(config, source, summary), 1):
                for call in judge.plan(comparison):
                    conversation = judge.ask(comparison, call)
                    request = next(conversation)
                    calls += 1
                    prompt_tokens += backend.count_tokens(request.messages)
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

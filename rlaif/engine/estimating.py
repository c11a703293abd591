"""`--dry-run`: what a run would ask, counted without asking."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from rlaif.backends.base import Backend
from rlaif.data.costs import cost_usd
from rlaif.data.files import open_source
from rlaif.engine.calibrating import calibration_of
from rlaif.engine.config import CallConfig, RunConfig
from rlaif.engine.judges import constitution_of, judges_for, open_backends
from rlaif.engine.running import RunKind, read_options, rows_of
from rlaif.errors import JudgmentError
from rlaif.records import Generation, RewardRequest, ScoreRequest


@dataclass(frozen=True)
class Estimate:
    """What a run would ask (`--dry-run`). Tokens are exact for a model in this process, else characters / 4."""

    rows: int
    calls: int
    prompt_tokens: int
    completion_tokens: int
    cost: float | None


@dataclass
class _Tally:
    """What has been counted so far. `stand_in` is what replies are taken to be."""

    stand_in: str = ""
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def add(self, backend: Backend, conversation: Any) -> None:
        """Count what a call asks, one request after the other; what was said before stands in the later prompts."""
        request = next(conversation)
        said = 0
        while True:
            self.calls += 1
            self.prompt_tokens += backend.count_tokens(request.messages) + said
            if isinstance(request, RewardRequest):
                return
            if isinstance(request, ScoreRequest):
                self.completion_tokens += 1
                return
            self.completion_tokens += request.max_tokens
            if request.wants_logprobs:  # the verdict stands in the reply, as a rule
                return
            said += 0 if self.stand_in else request.max_tokens  # the later prompts hold a stand-in themselves
            try:
                request = conversation.send(Generation(self.stand_in, "length"))
            except (StopIteration, JudgmentError):  # a made-up text holds no verdict
                return


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
    judges = judges_for(kind.judge, config, constitution, backends)
    asked = list(zip(backends, judges, strict=True))
    return await estimate_calls(
        asked, lambda: rows_of(kind, config, source, summary), len(summary.failures), config.calls, on_row
    )


async def estimate_calls(
    asked: Sequence[tuple[Backend, Any]],
    rows: Callable[[], Iterable[Any]],
    failures: int,
    calls: CallConfig,
    on_row: Callable[[int], None] = lambda _: None,
    *,
    stand_in: str = "",
) -> Estimate:
    """Count what those who are asked about rows would be asked.

    Args:
        asked: Backends, closed here, and what each is asked: a `RowJudge`.
        rows: Reads the rows, once for each of them.
        failures: Rows that cannot be read.
        calls: With the prices.
        on_row: Told how many rows are counted.
        stand_in: A reply for requests whose text goes into the next prompt; without, as many tokens as are asked for
            count as said before.
    """
    tally = _Tally(stand_in)
    count = 0
    for backend, judge in asked:
        async with aclosing(backend):
            for count, row in enumerate(rows(), 1):
                for call in judge.plan(row):
                    tally.add(backend, judge.ask(row, call))
                on_row(count)
    cost = cost_usd(tally.prompt_tokens, tally.completion_tokens, *calls.prices) if calls.prices else None
    return Estimate(count + failures, tally.calls, tally.prompt_tokens, tally.completion_tokens, cost)

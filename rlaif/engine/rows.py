"""One comparison through one or more judges: all the calls its label needs, and what became of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from rlaif.engine.asking import Asker
from rlaif.errors import (
    BackendError,
    BackendNotInstalledError,
    BackendUnusableError,
    BudgetExceededError,
    ConfigError,
    LogprobsUnavailableError,
    PromptError,
    RequestRefusedError,
    RlaifError,
    RunFolderError,
    TransientBackendError,
)
from rlaif.judge.pairwise import Call, PairwiseJudge, Reading, combine_panel
from rlaif.records import Comparison, Failure, Judgment

STOPPING_ERRORS = (BackendUnusableError, BackendNotInstalledError, BudgetExceededError, RunFolderError)
"""Errors that concern every row: the run stops, and can be resumed."""

FAILED_FIRST_ROWS_THAT_STOP = 3
"""The first rows of the input that ask: when the judge refuses, or cannot be reached for, each one, and none has
succeeded, none will. Refusals of later rows do not count, since a refusal comes back sooner than an answer."""

LOST_ROWS_THAT_STOP = 100
"""Rows one after the other that failed after all their retries: the server is gone."""


@dataclass(frozen=True)
class Judging:
    """A judge: what it asks, and who answers."""

    judge: PairwiseJudge
    asker: Asker

    @property
    def name(self) -> str:
        return self.asker.backend.name


class RowLabeler:
    """Labels comparisons, one coroutine each; an error of one row is that row's failure, and no other's.

    Args:
        panel: The judges; each is asked about every row.

    Raises:
        ConfigError: Two judges have one name.
    """

    def __init__(self, panel: Sequence[Judging]) -> None:
        names = [judging.name for judging in panel]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ConfigError(f"judge: {', '.join(twice)} is named twice; a panel needs judges with different names")
        self._panel = panel
        self._asking_rows = 0
        self._has_succeeded = False
        self._failed_first = 0
        self._lost_in_a_row = 0

    async def label(self, comparison: Comparison) -> Judgment | Failure:
        """The judgment, or why there is none. Rows are to be started in the input's order.

        Raises:
            BackendUnusableError: No row can succeed: said by the server, or shown by the first rows.
            BudgetExceededError, RunFolderError: The run has to stop.
        """
        calls = self._plan(comparison)
        is_first = bool(calls) and self._asking_rows < FAILED_FIRST_ROWS_THAT_STOP
        self._asking_rows += bool(calls)
        try:
            judgment = await self._judge(comparison, calls)
        except STOPPING_ERRORS:
            raise
        except RlaifError as error:
            self._stop_if_hopeless(error, is_first=is_first)
            attempts = error.attempts if isinstance(error, BackendError) else 1
            return Failure(comparison.id, error.stage or "judge", f"{error.error_name}: {error}", attempts)
        if calls:  # identical responses say nothing of the judge
            self._has_succeeded = True
            self._lost_in_a_row = 0
        return judgment

    async def judge(self, comparison: Comparison) -> Judgment:
        """The judgment. One order that fails fails the row; its siblings are awaited first, and their replies kept.

        Raises:
            RlaifError: Of the first call that failed, with its `stage`.
        """
        return await self._judge(comparison, self._plan(comparison))

    def _plan(self, comparison: Comparison) -> list[tuple[Judging, Call]]:
        return [(judging, call) for judging in self._panel for call in judging.judge.plan(comparison)]

    async def _judge(self, comparison: Comparison, calls: Sequence[tuple[Judging, Call]]) -> Judgment:
        results = await asyncio.gather(
            *(self._read(judging, comparison, call) for judging, call in calls), return_exceptions=True
        )
        if stopping := next((result for result in results if isinstance(result, STOPPING_ERRORS)), None):
            raise stopping
        readings: dict[str, dict[Call, Reading]] = {judging.name: {} for judging in self._panel}
        for (judging, call), result in zip(calls, results, strict=True):
            if isinstance(result, BaseException):
                if isinstance(result, RlaifError):
                    result.stage = self._stage_of(judging, call)
                raise result
            readings[judging.name][call] = result
        return combine_panel(
            [(judging.name, judging.judge.combine(comparison, readings[judging.name])) for judging in self._panel]
        )

    async def _read(self, judging: Judging, comparison: Comparison, call: Call) -> Reading:
        stage = self._stage_of(judging, call)
        conversation = judging.judge.ask(comparison, call)
        request = next(conversation)
        step = 1
        while True:
            reply = await judging.asker.ask(request, comparison.id, stage if step == 1 else f"{stage}, step {step}")
            try:
                request = conversation.send(reply)
            except StopIteration as finished:
                reading: Reading = finished.value
                return reading
            step += 1

    def _stop_if_hopeless(self, error: RlaifError, *, is_first: bool) -> None:
        """Raise when the failures so far show that no other row will succeed."""
        if not self._has_succeeded:
            hopeless = TransientBackendError | RequestRefusedError | PromptError
            self._failed_first += is_first and isinstance(error, hopeless)
            if isinstance(error, PromptError) and self._failed_first >= FAILED_FIRST_ROWS_THAT_STOP:
                raise error  # the template is at fault, not the judge
            if isinstance(error, LogprobsUnavailableError) or self._failed_first >= FAILED_FIRST_ROWS_THAT_STOP:
                raise BackendUnusableError(f"nothing has succeeded, stopped: {error}") from error
        self._lost_in_a_row = self._lost_in_a_row + 1 if isinstance(error, TransientBackendError) else 0
        if self._lost_in_a_row >= LOST_ROWS_THAT_STOP:
            raise BackendUnusableError(f"the last {self._lost_in_a_row} rows failed, stopped: {error}") from error

    def _stage_of(self, judging: Judging, call: Call) -> str:
        return stage_of(judging.judge, call, judging.name if len(self._panel) > 1 else None)


def stage_of(judge: PairwiseJudge, call: Call, judge_name: str | None) -> str:
    """Where in a row's judging a call stands, such as "ab" or "openai:gpt-4.1-mini: ba, concise, sample 2"."""
    parts = [call.order.value]
    if call.principle is not None:
        parts.append(call.principle.id)
    if judge.config.samples > 1:
        parts.append(f"sample {call.sample + 1}")
    return (f"{judge_name}: " if judge_name else "") + ", ".join(parts)

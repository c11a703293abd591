"""A panel of judges asked about completions for as long as training lasts: errors of one completion are values, a judge
that is down is waited for, and one that can answer nothing stops the run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from rlaif.engine.asking import Asker, CallCounts
from rlaif.engine.config import CallConfig
from rlaif.engine.rows import FAILED_FIRST_ROWS_THAT_STOP, STOPPING_ERRORS, Judging, Panel, Row
from rlaif.errors import (
    BackendError,
    BackendUnusableError,
    LogprobsUnavailableError,
    PromptError,
    PromptTooLongError,
    RlaifError,
    TransientBackendError,
)
from rlaif.rewards.patience import Patience

RowT = TypeVar("RowT", bound=Row)
OutcomeT = TypeVar("OutcomeT")
Result = TypeVar("Result")

MakePanel = Callable[[Sequence[Judging]], Panel[RowT, OutcomeT]]


@dataclass(frozen=True)
class Asking:
    """How a source's models are asked.

    Attributes:
        calls: Concurrency, retries, budget.
        counts: Of what is asked; of the source's own, so that its price is.
        patience: Seconds that they are waited for.
        on_warning: Told when they are.
    """

    calls: CallConfig
    counts: CallCounts
    patience: float
    on_warning: Callable[[str], None]


class PatientPanel(Generic[RowT, OutcomeT]):
    """Judges the rows that are made of a prompt's completions.

    Args:
        name: The source's, for messages.
        judgings: Who is asked, and what.
        make_panel: `rating_panel` or `pairwise_panel`.
        probe: A harmless row of the same kind, to see whether the judges answer at all; never journaled.
        asking: How.
    """

    def __init__(
        self, name: str, judgings: Sequence[Judging], make_panel: MakePanel[RowT, OutcomeT], probe: RowT, asking: Asking
    ) -> None:
        self.judgings = tuple(judgings)
        self._name = name
        self._panel = make_panel(judgings)
        # Without retries, journal and budget: a judge that is down is to be noticed, and found up again, at once.
        calls = replace(asking.calls, concurrency=1, max_retries=0, price=None, max_cost=None)
        self._probing = make_panel(
            [Judging(each.judge, Asker(each.asker.backend, None, calls, asking.counts)) for each in judgings]
        )
        self._probe = probe
        self._patience = Patience(name, self._ask_probe, asking.patience, asking.on_warning)
        self._asked_prompts = 0
        self._failed_first = 0
        self._has_succeeded = False

    async def judge(self, rows: Sequence[RowT]) -> list[OutcomeT | RlaifError]:
        """The outcome of each row of one prompt, or why it has none.

        Raises:
            BackendUnusableError, PromptError: No row can succeed: said by the server, shown by the first prompts, or
                the judge was down for too long.
            BudgetExceededError, RunFolderError: The run has to stop.
        """
        is_first = self._asked_prompts < FAILED_FIRST_ROWS_THAT_STOP
        self._asked_prompts += 1
        outcomes = await all_of(self._judge_one(row) for row in rows)
        self._note(outcomes, is_first=is_first)
        return outcomes

    async def _judge_one(self, row: RowT) -> OutcomeT | RlaifError:
        try:
            return await self._patience.call(lambda: self._panel.judge(row))
        except STOPPING_ERRORS:
            raise
        except RlaifError as error:
            return error

    async def _ask_probe(self) -> None:
        try:
            await self._probing.judge(self._probe)
        except (TransientBackendError, *STOPPING_ERRORS):
            raise
        except RlaifError:
            return  # whatever it said, it is there

    def _note(self, outcomes: Sequence[OutcomeT | RlaifError], *, is_first: bool) -> None:
        errors = [outcome for outcome in outcomes if isinstance(outcome, RlaifError)]
        self._has_succeeded = self._has_succeeded or len(errors) < len(outcomes)
        if self._has_succeeded or not errors:
            return
        # The first prompts, and not any: a refusal comes back sooner than an answer.
        self._failed_first += is_first and all(map(_is_hopeless, errors))
        has_failed = self._failed_first >= FAILED_FIRST_ROWS_THAT_STOP
        error = errors[0]
        if has_failed and isinstance(error, PromptError):
            raise error  # the template is at fault, not the judge
        if has_failed or isinstance(error, LogprobsUnavailableError):
            raise BackendUnusableError(f"{self._name}: nothing has succeeded, stopped: {error}") from error


def _is_hopeless(error: RlaifError) -> bool:
    """Whether an error says more of the judge than of what it was asked."""
    return isinstance(error, BackendError | PromptError) and not isinstance(error, PromptTooLongError)


async def all_of(work: Iterable[Coroutine[Any, Any, Result]]) -> list[Result]:
    """The results of coroutines run side by side; when one raises, the others are cancelled, and awaited, first."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

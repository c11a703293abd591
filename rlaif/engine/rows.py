"""One row through one or more judges: all the calls it needs, and what became of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, cast

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
from rlaif.judge.base import Ask, LabelJudge, Reading
from rlaif.judge.pairwise import combine_panel
from rlaif.judge.rating import combine_rating_panel
from rlaif.judge.reward import RewardJudge
from rlaif.records import Candidates, Comparison, Failure, Judgment, Rating, Request

STOPPING_ERRORS = (BackendUnusableError, BackendNotInstalledError, BudgetExceededError, RunFolderError)
"""Errors that concern every row: the run stops, and can be resumed."""

FAILED_FIRST_ROWS_THAT_STOP = 3
"""The first rows of the input that ask: when the judge refuses, or cannot be reached for, each one, and none has
succeeded, none will. Refusals of later rows do not count, since a refusal comes back sooner than an answer."""

LOST_ROWS_THAT_STOP = 100
"""Rows one after the other that failed after all their retries: the server is gone."""


class Row(Protocol):
    """What is judged: a `Comparison`, or `Candidates`."""

    @property
    def id(self) -> str: ...


class Call(Protocol):
    """One of the calls a judge plans for a row; hashable."""

    @property
    def words(self) -> tuple[str, ...]: ...

    @property
    def sample(self) -> int: ...


RowT = TypeVar("RowT", bound=Row)
OutcomeT = TypeVar("OutcomeT")
RowT_contra = TypeVar("RowT_contra", bound=Row, contravariant=True)
OutcomeT_co = TypeVar("OutcomeT_co", covariant=True)


class RowJudge(Protocol[RowT_contra, OutcomeT_co]):
    """What judges of comparisons, judges of responses and policies have in common, in the eyes of the engine."""

    @property
    def samples(self) -> int:
        """Times the same is asked; above 1, a call's `sample` is part of its name."""

    def plan(self, row: RowT_contra, /) -> Sequence[Any]: ...

    def ask(self, row: RowT_contra, call: Any, /) -> Ask: ...

    def combine(self, row: RowT_contra, readings: Mapping[Any, Reading], /) -> OutcomeT_co: ...


class Member(Protocol):
    """One of those that a panel asks: what it is asked, a `RowJudge` of the panel's rows, and who answers."""

    @property
    def judge(self) -> Any: ...

    @property
    def asker(self) -> Asker: ...

    @property
    def name(self) -> str: ...


Judge = LabelJudge | RewardJudge
"""Asks a language model for labels, or a reward model for numbers."""


@dataclass(frozen=True)
class Judging:
    """A judge: what it asks, and who answers."""

    judge: Judge
    asker: Asker

    @property
    def name(self) -> str:
        return self.asker.backend.name


class _Refused(NamedTuple):
    """A request that was refused, where the conversation goes on without a reply."""

    asker: Asker
    request: Request
    stage: str
    error: RequestRefusedError


class _Results(NamedTuple, Generic[OutcomeT]):
    """What the members of a panel made of a row, why others made nothing of it, both by name, and what was refused."""

    outcomes: list[tuple[str, OutcomeT]]
    faults: list[tuple[str, RlaifError]]
    refused: list[_Refused]


class Panel(Generic[RowT, OutcomeT]):
    """Judges rows, one coroutine each; an error of one row is that row's failure, and no other's. Policies that answer
    prompts side by side are a panel, too.

    Args:
        members: One or more; each is asked about every row.
        combine: The outcome from each judge's (name, outcome), and the names of the judges that failed.
        allows_partial: Judge a row that some of the judges failed on by the others.
        on_missing: Told of each failure that was so passed over.
        stage: Where a row is said to fail that no call and no single judge failed on.

    Raises:
        ConfigError: Two judges have one name.
    """

    def __init__(
        self,
        members: Sequence[Member],
        combine: Callable[[Sequence[tuple[str, OutcomeT]], Sequence[str]], OutcomeT],
        *,
        allows_partial: bool = False,
        on_missing: Callable[[Failure], None] = lambda _: None,
        stage: str = "judge",
    ) -> None:
        names = [member.name for member in members]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ConfigError(f"judge: {', '.join(twice)} is named twice; a panel needs judges with different names")
        self._members = members
        self._combine = combine
        self._allows_partial = allows_partial
        self._on_missing = on_missing
        self._stage = stage
        self._asking_rows = 0
        self._standings = {name: _Standing(name if len(names) > 1 else None) for name in names}

    async def attempt(self, row: RowT) -> OutcomeT | Failure:
        """The outcome, or why there is none. Rows are to be started in the input's order.

        Raises:
            BackendUnusableError: No row can succeed: said by the server, or shown by the first rows.
            BudgetExceededError, RunFolderError: The run has to stop.
        """
        plans = self._plan(row)
        asks = any(plans)
        is_first = asks and self._asking_rows < FAILED_FIRST_ROWS_THAT_STOP
        self._asking_rows += asks
        outcomes, faults, refused = await self._results(row, plans)
        if asks:  # identical responses say nothing of the judges
            for name, _ in outcomes:
                self._standings[name].succeed()
        for name, error in faults:
            self._standings[name].fail(error, is_first=is_first)
        try:
            outcome = self._combined(row, outcomes, faults)
        except RlaifError as error:
            return self._failure(row, error)
        for each in refused:  # those of a row that fails are asked again
            each.asker.keep_refusal(each.request, row.id, each.stage, each.error)
        return outcome

    async def judge(self, row: RowT) -> OutcomeT:
        """The outcome. One call that fails fails the row; its siblings are awaited first, and their replies kept.

        Raises:
            RlaifError: Of the first call that failed, with its `stage`.
        """
        results = await self._results(row, self._plan(row))
        return self._combined(row, results.outcomes, results.faults)

    def _plan(self, row: RowT) -> list[Sequence[Call]]:
        return [_row_judge(member).plan(row) for member in self._members]

    async def _results(self, row: RowT, plans: Sequence[Sequence[Call]]) -> _Results[OutcomeT]:
        """What came of the row's calls.

        Raises:
            RlaifError: One of `STOPPING_ERRORS`.
        """
        refused: list[_Refused] = []
        tasks = [self._read(member, row, call, refused) for member, plan in zip(self._members, plans, strict=True)
                 for call in plan]  # fmt: skip
        results = await asyncio.gather(*tasks, return_exceptions=True)
        if stopping := next((result for result in results if isinstance(result, STOPPING_ERRORS)), None):
            raise stopping
        outcomes: list[tuple[str, OutcomeT]] = []
        faults: list[tuple[str, RlaifError]] = []
        remaining = iter(results)
        for member, plan in zip(self._members, plans, strict=True):
            own = {call: next(remaining) for call in plan}
            try:
                outcomes.append((member.name, self._outcome_of(member, row, own)))
            except RlaifError as fault:
                faults.append((member.name, fault))
        return _Results(outcomes, faults, refused)

    def _combined(
        self, row: RowT, outcomes: Sequence[tuple[str, OutcomeT]], faults: Sequence[tuple[str, RlaifError]]
    ) -> OutcomeT:
        if faults and not (self._allows_partial and outcomes):
            raise faults[0][1]
        for _, error in faults:
            self._on_missing(self._failure(row, error))
        return self._combine(outcomes, [name for name, _ in faults])

    def _outcome_of(self, member: Member, row: RowT, results: Mapping[Call, Reading | BaseException]) -> OutcomeT:
        readings: dict[Call, Reading] = {}
        for call, result in results.items():
            if isinstance(result, BaseException):
                if isinstance(result, RlaifError):
                    result.stage = self._stage_of(member, call)
                raise result
            readings[call] = result
        try:
            return _row_judge(member).combine(row, readings)  # type: ignore[no-any-return]
        except RlaifError as error:
            error.stage = error.stage or (member.name if len(self._members) > 1 else None)
            raise

    async def _read(self, member: Member, row: RowT, call: Call, refused: list[_Refused]) -> Reading:
        stage = self._stage_of(member, call)
        conversation = _row_judge(member).ask(row, call)
        request = next(conversation)
        step = 1
        while True:
            try:
                try:
                    reply = await member.asker.ask(request, row.id, stage if step == 1 else f"{stage}, step {step}")
                except RequestRefusedError as refusal:
                    asked = _Refused(member.asker, request, stage, refusal)
                    try:
                        request = conversation.throw(refusal)  # who can do without the reply says so by catching it
                    except StopIteration:
                        refused.append(asked)
                        raise
                    refused.append(asked)
                else:
                    request = conversation.send(reply)
            except StopIteration as finished:
                reading: Reading = finished.value
                return reading
            step += 1

    def _stage_of(self, member: Member, call: Call) -> str:
        return stage_of(member.judge, call, member.name if len(self._members) > 1 else None)

    def _failure(self, row: Row, error: RlaifError) -> Failure:
        attempts = error.attempts if isinstance(error, BackendError) else 1
        return Failure(row.id, error.stage or self._stage, f"{error.error_name}: {error}", attempts)


class _Standing:
    """How one judge has done so far: whether it can be hoped that it answers at all.

    Args:
        name: For the message, where there are several judges.
    """

    def __init__(self, name: str | None) -> None:
        self._who = f"{name}: " if name else ""
        self._has_succeeded = False
        self._failed_first = 0
        self._lost_in_a_row = 0

    def succeed(self) -> None:
        self._has_succeeded = True
        self._lost_in_a_row = 0

    def fail(self, error: RlaifError, *, is_first: bool) -> None:
        """Count a row that it failed on.

        Raises:
            BackendUnusableError, PromptError: The failures so far show that no other row will succeed.
        """
        if not self._has_succeeded:
            hopeless = TransientBackendError | RequestRefusedError | PromptError
            self._failed_first += is_first and isinstance(error, hopeless)
            if isinstance(error, PromptError) and self._failed_first >= FAILED_FIRST_ROWS_THAT_STOP:
                raise error  # the template is at fault, not the judge
            if isinstance(error, LogprobsUnavailableError) or self._failed_first >= FAILED_FIRST_ROWS_THAT_STOP:
                raise BackendUnusableError(f"{self._who}nothing has succeeded, stopped: {error}") from error
        self._lost_in_a_row = self._lost_in_a_row + 1 if isinstance(error, TransientBackendError) else 0
        if self._lost_in_a_row >= LOST_ROWS_THAT_STOP:
            message = f"{self._who}the last {self._lost_in_a_row} rows failed, stopped: {error}"
            raise BackendUnusableError(message) from error


def pairwise_panel(
    judgings: Sequence[Judging], on_missing: Callable[[Failure], None] = lambda _: None
) -> Panel[Comparison, Judgment]:
    """A panel of judges that compare. Raises as `Panel`."""
    allows_partial = judgings[0].judge.config.allow_partial_panel
    return Panel(judgings, combine_panel, allows_partial=allows_partial, on_missing=on_missing)


def rating_panel(
    judgings: Sequence[Judging], on_missing: Callable[[Failure], None] = lambda _: None
) -> Panel[Candidates, tuple[Rating, ...]]:
    """A panel of judges that rate. Raises as `Panel`."""
    allows_partial = judgings[0].judge.config.allow_partial_panel
    return Panel(judgings, combine_rating_panel, allows_partial=allows_partial, on_missing=on_missing)


def stage_of(judge: RowJudge[Any, Any], call: Call, judge_name: str | None) -> str:
    """Where in a row's judging a call stands, such as "ab" or "openai:gpt-4.1-mini: ba, concise, sample 2"."""
    parts = [*call.words, *([f"sample {call.sample + 1}"] if judge.samples > 1 else [])]
    return (f"{judge_name}: " if judge_name else "") + ", ".join(parts)


def _row_judge(member: Member) -> RowJudge[Any, Any]:
    return cast("RowJudge[Any, Any]", member.judge)

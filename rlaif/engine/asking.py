"""One request to one judge, asked once: from the journal, from an equal request in flight, or from the backend."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from dataclasses import dataclass, field
from typing import cast

from rlaif.backends.base import Backend, LanguageBackend, RewardBackend
from rlaif.data.costs import cost_usd
from rlaif.engine.config import CallConfig
from rlaif.engine.journal import Journal, Refusal, RequestKeys
from rlaif.engine.limiter import Limiter
from rlaif.engine.retry import call_with_retries
from rlaif.errors import BudgetExceededError, RequestRefusedError
from rlaif.records import (
    GeneratedToken,
    GenerateRequest,
    Generation,
    Reply,
    Request,
    RewardRequest,
    ScoreRequest,
    Usage,
)

DEFAULT_CONCURRENCY = 64
DEFAULT_CONCURRENCY_IN_PROCESS = 512
"""High enough that a model in this process always finds a full batch waiting."""


@dataclass
class CallCounts:
    """What the run has asked so far.

    `calls` were answered by a backend in this session, `replayed` come from the journal; `usage` is that of both.
    """

    calls: int = 0
    replayed: int = 0
    retries: int = 0
    usage: Usage = field(default_factory=Usage)

    def cost(self, prices: tuple[float, float] | None) -> float | None:
        """USD at (prompt, completion) prices per million tokens; None without prices."""
        if prices is None:
            return None
        return cost_usd(self.usage.prompt_tokens, self.usage.completion_tokens, *prices)


class Asker:
    """Answers requests for one judge, each at most once per run.

    Args:
        backend: The model asked.
        journal: Where replies are kept; None keeps nothing.
        config: Concurrency, retries, budget.
        counts: Shared by the judges of a panel.
    """

    def __init__(self, backend: Backend, journal: Journal | None, config: CallConfig, counts: CallCounts) -> None:
        is_in_process = backend.capabilities.is_in_process
        default = DEFAULT_CONCURRENCY_IN_PROCESS if is_in_process else DEFAULT_CONCURRENCY
        self.backend = backend
        self.limiter = Limiter(config.concurrency or default, clock=time.monotonic)
        self._journal = journal
        self._keys = RequestKeys(backend.identity)
        self._config = config
        self._prices = config.prices
        self._max_retries = 0 if is_in_process else config.max_retries
        self._counts = counts
        self._in_flight: dict[bytes, asyncio.Future[Reply]] = {}

    async def ask(self, request: Request, row_id: str, stage: str) -> Reply:
        """The reply to a request about one row.

        Raises:
            BackendError: The call failed for good; its `attempts` says how often it was made.
            BudgetExceededError: `--max-cost` is spent.
        """
        key = self._keys.key(request)
        while (running := self._in_flight.get(key)) is not None:
            try:
                return await asyncio.shield(running)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if not running.cancelled() or (task is not None and task.cancelling()):
                    raise
                # whoever asked was cancelled, and this row was not: ask for it here
        if self._journal is not None and (known := self._journal.get(key)) is not None:
            self._counts.replayed += 1
            if isinstance(known, Refusal):
                raise RequestRefusedError(known.words)
            self._counts.usage += known.usage
            return known
        self._check_budget()
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._in_flight[key] = future
        try:
            reply = await self._call(request)
        except BaseException as error:
            if not future.done():
                if isinstance(error, asyncio.CancelledError):
                    future.cancel()
                else:
                    future.set_exception(error)
                    future.exception()  # seen: whoever waits raises it, and nobody may be waiting
            raise
        else:
            reply = _without_unwanted(reply, request)
            future.set_result(reply)
        finally:
            del self._in_flight[key]
        self._counts.calls += 1
        self._counts.usage += reply.usage
        if self._journal is not None:
            self._journal.put(key, row_id, stage, reply)
        return reply

    def keep_refusal(self, request: Request, row_id: str, stage: str, refusal: RequestRefusedError) -> None:
        """Journal a refusal that a finished row holds: it is not asked again, and the row stays what it is."""
        key = self._keys.key(request)
        if self._journal is not None and self._journal.get(key) is None:
            self._journal.put(key, row_id, stage, Refusal(str(refusal)))

    async def _call(self, request: Request) -> Reply:
        async def call() -> Reply:
            self._check_budget()  # again: a row may ask hundreds of times at once, and what they cost shows only now
            # The judge was made for what the backend is (`engine.judges.judge_with`).
            if isinstance(request, RewardRequest):
                return await cast(RewardBackend, self.backend).reward(request)
            backend = cast(LanguageBackend, self.backend)
            if isinstance(request, ScoreRequest):
                return await backend.score(request)
            return await backend.generate(request)

        return await call_with_retries(
            call, max_retries=self._max_retries, limiter=self.limiter, on_retry=self._count_retry
        )

    def _count_retry(self, *_: object) -> None:
        self._counts.retries += 1

    def _check_budget(self) -> None:
        limit = self._config.max_cost
        cost = self._counts.cost(self._prices)
        if limit is not None and cost is not None and cost >= limit:
            raise BudgetExceededError(
                f"--max-cost {limit:g} USD is spent ({cost:.4f} USD); what is done is kept, a higher one resumes"
            )


def _without_unwanted(reply: Reply, request: Request) -> Reply:
    """The reply with the alternatives of its label tokens only: those of 512 tokens would only fill the journal."""
    if not isinstance(reply, Generation) or not isinstance(request, GenerateRequest) or not reply.tokens:
        return reply
    wanted = request.labels
    tokens = tuple(
        token if token.token.strip() in wanted else GeneratedToken(token.token, ()) for token in reply.tokens
    )
    return dataclasses.replace(reply, tokens=tokens)

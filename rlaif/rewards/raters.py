"""Who rates for a trainer: a judge of this process, or an `rlaif serve`; each is opened once, however many ask."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import sys
import threading
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from rlaif.engine.rows import STOPPING_ERRORS
from rlaif.errors import ConfigError, RlaifError
from rlaif.records import Candidates, Rating

if TYPE_CHECKING:
    from rlaif.engine.client import Judge

Result = TypeVar("Result")


class Rater(Protocol):
    """Rates many responses at a time, from whatever event loop it is called on."""

    async def rate_all(self, items: Sequence[Candidates]) -> list[Rating | BaseException]:
        """A rating, or the error in its place, for each item."""

    def close(self) -> None: ...


@dataclass(frozen=True)
class RaterSource:
    """Where ratings come from, in values that can be compared and pickled.

    Attributes:
        judges: BACKEND:MODEL, one or a panel.
        url: Address of an `rlaif serve`, instead of judges.
        token: Its token.
        settings: The judge's settings, as `rlaif.Judge` takes them.
    """

    judges: tuple[str, ...] = ()
    url: str | None = None
    token: str | None = field(default=None, repr=False)
    settings: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def of(
        cls,
        judge: str | Sequence[str] | None,
        url: str | None,
        token: str | None,
        settings: Mapping[str, Any],
    ) -> RaterSource:
        """From a function's arguments, or else from RLAIF_JUDGE, RLAIF_URL and RLAIF_TOKEN.

        Raises:
            ConfigError: No judge is named (a reward comes from none by default), or a judge and a URL.
        """
        judges = (judge,) if isinstance(judge, str) else tuple(judge or ())
        if not judges and url is None:
            url = os.environ.get("RLAIF_URL") or None
            judges = (os.environ["RLAIF_JUDGE"],) if url is None and os.environ.get("RLAIF_JUDGE") else ()
        if bool(judges) == (url is not None):
            raise ConfigError(
                "a reward comes from either a judge or a URL: give judge='openai:MODEL' (or RLAIF_JUDGE), "
                "or url='http://HOST:PORT' of an rlaif serve (or RLAIF_URL)"
            )
        if url is not None and settings:
            raise ConfigError(f"{', '.join(settings)}: settings of the judge; rlaif serve at {url} has its own")
        token = token if token is not None else os.environ.get("RLAIF_TOKEN") or None
        return cls(judges, url, token if url is not None else None, tuple(sorted(_frozen(settings))))


class LocalRater:
    """A judge of this process.

    Args:
        judge: Asked; many callers may share it.
    """

    def __init__(self, judge: Judge) -> None:
        self._judge = judge

    async def rate_all(self, items: Sequence[Candidates]) -> list[Rating | BaseException]:
        return await asyncio.gather(
            *(self._judge.arate([turn._asdict() for turn in item.prompt], item.responses[0]) for item in items),
            return_exceptions=True,
        )

    def close(self) -> None:
        self._judge.close()


_opened: dict[tuple[int, RaterSource], Rater] = {}
_lock = threading.Lock()


def rater_of(source: RaterSource) -> Rater:
    """The rater of a source, opened when the first one asks for it; closed with the process, or by `close_all`.

    Raises:
        ConfigError: The judge, or a setting, does not exist.
    """
    key = os.getpid(), source  # a forked process has none of its parent's threads
    with _lock:
        if key not in _opened:
            if not _opened:
                atexit.register(_close_at_exit)
            _opened[key] = _open(source)
        return _opened[key]


def close_all() -> None:
    """Close the raters of this process; the next one that asks opens its own again."""
    with _lock:
        mine = [key for key in _opened if key[0] == os.getpid()]
        raters = [_opened.pop(key) for key in mine]
    for rater in raters:
        rater.close()


def _close_at_exit() -> None:
    # Sockets are closed; a model in this process cannot be, now that no thread can be started, and ends all the same.
    with contextlib.suppress(RuntimeError):
        close_all()


async def rate_each(rater: Rater, items: Sequence[Candidates | RlaifError]) -> list[Rating | RlaifError]:
    """A rating, or the error in its place, for each item; an item that is an error already stays it.

    Raises:
        BackendUnusableError: No item can be rated. So for the other errors that concern every row.
    """
    asked = [item for item in items if isinstance(item, Candidates)]
    outcomes = iter(await rater.rate_all(asked))
    results: list[Rating | RlaifError] = []
    for item in items:
        outcome = next(outcomes) if isinstance(item, Candidates) else item
        if isinstance(outcome, STOPPING_ERRORS) or not isinstance(outcome, Rating | RlaifError):
            raise outcome
        results.append(outcome)
    return results


def run_blocking(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine to its end, whether or not an event loop runs in this thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1, "rlaif-reward") as pool:
        return pool.submit(asyncio.run, work).result()


def _open(source: RaterSource) -> Rater:
    if source.url is not None:
        from rlaif.rewards.remote import RemoteRater

        return RemoteRater(source.url, source.token)
    from rlaif.backends.registry import DEMONSTRATION_WARNING, is_demonstration
    from rlaif.engine.client import Judge

    if any(map(is_demonstration, source.judges)):
        print(DEMONSTRATION_WARNING, file=sys.stderr)
    return LocalRater(Judge(*source.judges, **dict(source.settings)))


def _frozen(settings: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Settings as hashable values; other libraries' lists (OmegaConf's) become tuples."""
    return [
        (name, tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else value)
        for name, value in settings.items()
    ]

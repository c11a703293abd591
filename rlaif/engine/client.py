"""The Python API: a judge to compare and to rate with; `label` and `rate` for whole datasets."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
import threading
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from rlaif.config import resolve
from rlaif.data.completions import candidates_of
from rlaif.data.files import open_source
from rlaif.engine.calibrating import calibration_of
from rlaif.engine.config import LabelConfig, RateConfig, RunConfig
from rlaif.engine.judges import askers_for, judgings_for, open_backends
from rlaif.engine.labeling import finish, run_label
from rlaif.engine.rating import run_rate
from rlaif.engine.rows import Panel, pairwise_panel, rating_panel
from rlaif.judge.pairwise import PairwiseJudge
from rlaif.judge.rating import RatingJudge
from rlaif.records import Candidates, Comparison, Judgment, Rating, Turn

if TYPE_CHECKING:
    import datasets

    from rlaif.backends.base import Backend

Result = TypeVar("Result")
C = TypeVar("C", bound=RunConfig)
Prompt = str | Sequence[Mapping[str, str]]


class Judge:
    """A judge, or a panel of them, to ask from Python.

    Args:
        *judges: BACKEND:MODEL, as `--judge`, or backend objects; none is the built-in demonstration judge.
        **settings: Every other judge flag of `rlaif label --help`, with underscores: task, constitution, orders, ...

    Raises:
        ConfigError: A setting is unknown or wrong; all faults at once.

    The judge runs on an event loop of its own, in a thread of its own: `compare` works in scripts and in notebooks, and
    many threads or tasks may share one judge. Use it in a `with` block, or call `close`, to free the model.
    """

    def __init__(self, *judges: str | Backend, **settings: Any) -> None:
        specs = tuple(judge for judge in judges if isinstance(judge, str))
        flags = {**settings, "input": "rows", "out": ""}
        if specs:
            flags["judge"] = specs
        self.config: LabelConfig = resolve(LabelConfig, None, flags)
        self._calibration = calibration_of(self.config)
        given = tuple(judge for judge in judges if not isinstance(judge, str))
        self._backends = (*given, *(open_backends(self.config) if specs or not given else ()))
        _, self._askers = askers_for(self.config, self._backends)
        self._comparing = pairwise_panel(judgings_for(PairwiseJudge, self.config, self._askers))
        self._loop = asyncio.new_event_loop()  # last: nothing is left running when a setting is refused
        self._thread = threading.Thread(target=self._loop.run_forever, name="rlaif-judge", daemon=True)
        self._thread.start()

    def compare(self, prompt: Prompt, response_a: str, response_b: str) -> Judgment:
        """Which response is better, in both orders; blocks until answered.

        Args:
            prompt: Text, or a conversation as {role, content} messages.
            response_a, response_b: The responses.

        Raises:
            BackendError: The judge could not be asked.
            JudgmentError: It answered, and the answer holds no verdict.
        """
        return self._run(self._compare(prompt, response_a, response_b)).result()

    async def acompare(self, prompt: Prompt, response_a: str, response_b: str) -> Judgment:
        """`compare` for async code."""
        return await asyncio.wrap_future(self._run(self._compare(prompt, response_a, response_b)))

    async def _compare(self, prompt: Prompt, response_a: str, response_b: str) -> Judgment:
        judgment = await self._comparing.judge(_comparison(prompt, response_a, response_b))
        return finish(judgment, response_a, response_b, self.config.judging, self._calibration)

    def rate(self, prompt: Prompt, response: str) -> Rating:
        """How good a response is, from 1 to 10, or of a reward model its reward; blocks until answered.

        Args:
            prompt: Text, or a conversation as {role, content} messages.
            response: What is rated.

        Returns:
            The distribution over the ten scores; its `rating` is the expectation, its `reward` that in [-1, 1]. A
            reward model gives a `reward` alone, any number.

        Raises:
            InputError: The prompt is neither text nor messages.
            BackendError: The judge could not be asked.
            JudgmentError: It answered, and the answer holds no rating.
        """
        return self._run(self._rate(prompt, response)).result()

    async def arate(self, prompt: Prompt, response: str) -> Rating:
        """`rate` for async code."""
        return await asyncio.wrap_future(self._run(self._rate(prompt, response)))

    async def _rate(self, prompt: Prompt, response: str) -> Rating:
        candidates = candidates_of(prompt, response)
        (rating,) = await self._rating.judge(candidates)
        return rating

    @cached_property
    def _rating(self) -> Panel[Candidates, tuple[Rating, ...]]:
        # Made when it is needed: a template of one's own is for comparisons or for ratings, not for both.
        return rating_panel(judgings_for(RatingJudge, self.config, self._askers))

    def label(self, rows: object, out: str | Path | None = None, *, limit: int | None = None) -> datasets.Dataset:
        """As the function `label`."""
        config = replace(self._run_config(LabelConfig, out, limit), calibration=self.config.calibration)
        return _load(self._run(run_label(config, source=open_source(rows), backends=self._backends)).result().folder)

    def rate_rows(self, rows: object, out: str | Path | None = None, *, limit: int | None = None) -> datasets.Dataset:
        """As the function `rate`."""
        config = self._run_config(RateConfig, out, limit)
        return _load(self._run(run_rate(config, source=open_source(rows), backends=self._backends)).result().folder)

    def _run_config(self, config_class: type[C], out: str | Path | None, limit: int | None) -> C:
        return config_class(
            input="rows",
            out=str(out) if out is not None else tempfile.mkdtemp(prefix="rlaif-"),
            judging=self.config.judging,
            backend=self.config.backend,
            calls=self.config.calls,
            source=self.config.source,
            seed=self.config.seed,
            limit=limit,
        )

    def close(self) -> None:
        """Free sockets, threads and models; safe to call twice."""
        if self._loop.is_closed():
            return
        for backend in self._backends:
            self._run(backend.aclose()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Judge:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, coroutine: Coroutine[Any, Any, Result]) -> Future[Result]:
        if self._loop.is_closed():
            coroutine.close()
            raise RuntimeError("this judge is closed")
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)


def label(rows: object, judge: Judge, out: str | Path | None = None, *, limit: int | None = None) -> datasets.Dataset:
    """Soft labels for a dataset of comparisons.

    Args:
        rows: A `datasets.Dataset`, a `pandas.DataFrame`, dicts, or a path; columns as `rlaif label` reads them.
        judge: Who judges.
        out: Run folder, resumed when it holds the same run; None writes a temporary one.
        limit: Only the first so many rows.

    Returns:
        The labeled rows; rows that failed stand in the folder's `failures.jsonl` only.

    Raises:
        InputError: A row cannot be read.
        BackendUnusableError: The judge cannot be asked at all.
    """
    return judge.label(rows, out, limit=limit)


def rate(rows: object, judge: Judge, out: str | Path | None = None, *, limit: int | None = None) -> datasets.Dataset:
    """Ratings for a dataset of responses.

    Args:
        rows: As for `label`, with columns `prompt` and `response`, or `prompt` and `responses`.
        judge, out, limit: As for `label`.

    Returns:
        The rated rows. Raises as `label`.
    """
    return judge.rate_rows(rows, out, limit=limit)


def _comparison(prompt: Prompt, response_a: str, response_b: str) -> Comparison:
    is_text = isinstance(prompt, str)
    turns = (Turn("user", prompt),) if isinstance(prompt, str) else tuple(Turn(m["role"], m["content"]) for m in prompt)
    content = "\x00".join([*(part for turn in turns for part in turn), response_a, response_b])
    row_id = hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return Comparison(row_id, turns, response_a, response_b, is_conversational=not is_text)


def _load(folder: Path) -> datasets.Dataset:
    import datasets
    import pyarrow.parquet as parquet

    return datasets.Dataset(parquet.read_table(folder / "data"))

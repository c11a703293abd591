"""What completions are worth: every source of a run asked, side by side, and their rewards summed.

    with Scorer(config, settings, folder / "journal", on_warning=print) as scorer:
        scores = scorer.submit(rollouts)        # a future: the next rollouts may be generated meanwhile
        scores.result()                         # for each rollout, a tuple with a Score for each completion

A completion that cannot be judged has no reward and says why; a source that can judge nothing is an error. Neither is
ever a number.
"""

from __future__ import annotations

import asyncio
import math
import os
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from rlaif.backends.base import Backend
from rlaif.backends.registry import open_backend
from rlaif.data.selecting import preference
from rlaif.engine.asking import Asker, CallCounts
from rlaif.engine.journal import Journal
from rlaif.engine.judges import JudgeSettings, askers_for, open_backends
from rlaif.errors import ConfigError, RewardError
from rlaif.rewards.config import RewardConfig, RewardSpec
from rlaif.rewards.functions import RewardFunction, load_function
from rlaif.rewards.judging import Asking, all_of
from rlaif.rewards.remote import RemoteBackend
from rlaif.rewards.sources import FunctionSource, JudgeSource, PairLabel, Part, RewardModelSource, Source
from rlaif.rollout_records import Rollout, Score

Result = TypeVar("Result")


@dataclass
class ScoreCounts:
    """What became of the completions so far, and of the pairs where pairs are compared.

    Attributes:
        asked: All of them.
        dropped: Without a reward because a source said None, by its name.
        failed: Without a reward because a source failed on them, by the error's name.
        partial: Judged without some of a panel's judges.
        judge, other: Calls of --judge; of reward models and servers.
    """

    asked: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    partial: int = 0
    judge: CallCounts = field(default_factory=CallCounts)
    other: CallCounts = field(default_factory=CallCounts)


class Scorer:
    """The rewards of a run; opened once, asked from any thread.

    It runs on an event loop in a thread of its own, so that judges are asked while the policy writes or learns.

    Args:
        config: The sources.
        settings: The judge's; the other sources share where models run and how they are called.
        journal: Folder of the run's replies, so that nothing is asked twice when a process dies; None keeps none.
        backends: The judge, or the judges of a panel, in place of those that the settings name; not closed here.
        compares: The run will ask which of two is better, so that it is this which is made ready.
        tau: What differences of scores are divided by, where scores say which is better.
        on_warning: Told, in the scorer's thread, of what goes wrong and is got over, such as a judge that is down.

    Attributes:
        counts: What became of the completions.

    Raises:
        ConfigError: A source does not exist, or cannot do what is asked for; of functions, all faults at once.
        PromptError, ConstitutionError: The judge's template, exemplar or principle does not exist.
        RunFolderError: The journal cannot be opened.
    """

    def __init__(
        self,
        config: RewardConfig,
        settings: JudgeSettings,
        journal: Path | None,
        *,
        backends: Sequence[Backend] | None = None,
        compares: bool = False,
        tau: float = 1.0,
        on_warning: Callable[[str], None],
    ) -> None:
        self.counts = ScoreCounts()
        self._tau = tau
        self._specs = config.specs
        self._functions = _load_functions(self._specs)
        self._opened: list[Backend] = []
        self._journal: Journal | None = None
        self._judge: JudgeSource | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="rlaif-rewards", daemon=True)
        self._thread.start()
        try:
            if journal is not None:
                self._journal = self._start(_open_journal(journal)).result()  # SQLite wants one thread
            asking = Asking(settings.calls, self.counts.judge, config.judge_patience, on_warning)
            self._sources = tuple(self._open(spec, settings, backends, asking, compares) for spec in self._specs)
        except BaseException:
            self.close()
            raise

    # --- asking ---------------------------------------------------------------------------------------------------

    def submit(self, rollouts: Sequence[Rollout]) -> Future[list[tuple[Score, ...]]]:
        """The scores of each rollout's completions, in order, once all are there; may be called while others wait.

        The future raises:
            RewardError: A function failed, or a reward is no finite number.
            BackendUnusableError: A judge can answer nothing, or was down for longer than there is patience.
            BudgetExceededError, RunFolderError, PromptError: The run has to stop, too.
            ConfigError: The judge was made ready to compare, and cannot rate.
        """
        return self._start(self._score(tuple(rollouts)))

    def compare(self, rollouts: Sequence[Rollout]) -> Future[list[PairLabel]]:
        """Which of each rollout's two completions is better.

        Where the judge is the only source, with the weight 1, it compares them, in the orders of its settings; else it
        is the sigmoid of the difference of their scores over `tau`. The future raises as that of `submit`.

        Raises:
            ValueError: A rollout has not two completions.
        """
        rollouts = tuple(rollouts)
        if wrong := [rollout for rollout in rollouts if len(rollout.completions) != 2]:
            raise ValueError(f"rollout {wrong[0].id!r} has {len(wrong[0].completions)} completions, expected two")
        return self._start(self._compare(rollouts))

    async def _score(self, rollouts: Sequence[Rollout]) -> list[tuple[Score, ...]]:
        by_source = await all_of(source.parts(rollouts) for source in self._sources)
        scores = []
        for rollout, *of_rollout in zip(rollouts, *by_source, strict=True):
            completions = zip(*of_rollout, strict=True)
            scores.append(tuple(self._scored(rollout, number, parts) for number, parts in enumerate(completions, 1)))
        return scores

    def _scored(self, rollout: Rollout, number: int, parts: Sequence[Part]) -> Score:
        counts = self.counts
        counts.asked += 1
        counts.partial += any(part.is_partial for part in parts)
        if error := next((part.error for part in parts if part.error), ""):
            counts.failed[_error_name(error)] += 1
        elif name := next((spec.name for spec, part in zip(self._specs, parts, strict=True) if part.value is None), ""):
            counts.dropped[name] += 1
        return weighted_sum(self._specs, parts, f"row {rollout.prompt.id!r}, completion {number}")

    async def _compare(self, rollouts: Sequence[Rollout]) -> list[PairLabel]:
        if self._judge is None or not _is_judge_alone(self._specs):
            return [_by_scores(first, second, self._tau) for first, second in await self._score(rollouts)]
        labels = await self._judge.labels(rollouts)
        self.counts.asked += len(labels)
        self.counts.partial += sum(label.is_partial for label in labels)
        self.counts.failed.update(_error_name(label.error) for label in labels if label.error)
        return labels

    # --- what the run folder keeps ----------------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """The sources with their weights, as JSON values."""
        return {spec.name: {"kind": spec.kind, "weight": spec.weight} for spec in self._specs}

    def identity(self) -> dict[str, Any]:
        """Everything that can change a reward, as JSON values: the weights; the judges, what they are asked, and the
        seed; fingerprints of reward models; addresses of servers; SHA-256 of the files that functions stand in, though
        not of what those import."""
        return {
            spec.name: {"weight": spec.weight, **source.identity}
            for spec, source in zip(self._specs, self._sources, strict=True)
        }

    # --- opening and closing ----------------------------------------------------------------------------------------

    def close(self) -> None:
        """Cancel what is being asked, keep what was answered, free models and sockets; safe to call twice.

        Raises:
            RunFolderError: The journal cannot be written.
        """
        if self._loop.is_closed():
            return
        try:
            self._start(self._close()).result()
        finally:
            for function in self._functions.values():
                function.close()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def __enter__(self) -> Scorer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    async def _close(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        try:
            for backend in self._opened:
                await backend.aclose()
        finally:
            if self._journal is not None:
                self._journal.close()

    def _start(self, work: Coroutine[Any, Any, Result]) -> Future[Result]:
        if self._loop.is_closed():
            work.close()
            raise RuntimeError("this scorer is closed")
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _open(
        self,
        spec: RewardSpec,
        settings: JudgeSettings,
        backends: Sequence[Backend] | None,
        asking: Asking,
        compares: bool,
    ) -> Source:
        if spec.kind == "function":
            return FunctionSource(self._functions[spec.name])
        if spec.kind == "judge":
            if backends is None:
                backends = open_backends(settings)
                self._opened += backends
            self.counts.judge, askers = askers_for(settings, backends, self._journal)
            asking = replace(asking, counts=self.counts.judge)
            compares = compares and _is_judge_alone(self._specs)
            self._judge = JudgeSource(settings, askers, asking, compares=compares)
            return self._judge
        if spec.kind == "server":
            backend: Backend = RemoteBackend(spec.target, os.environ.get("RLAIF_TOKEN") or None)
        else:
            backend = open_backend(spec.name, settings.backend)
        self._opened.append(backend)
        calls = replace(settings.calls, price=None, max_cost=None)  # the price is that of --judge
        asker = Asker(backend, self._journal, calls, self.counts.other)
        return RewardModelSource(spec.name, asker, replace(asking, calls=calls, counts=self.counts.other))


def weighted_sum(specs: Sequence[RewardSpec], parts: Sequence[Part], place: str) -> Score:
    """The score that the sources' parts come to; none where a part is missing.

    Args:
        specs: The sources.
        parts: What each makes of the completion.
        place: Which completion that is, in words.

    Raises:
        RewardError: A part, or the sum, is not finite.
    """
    by_name: Mapping[str, float | None] = {spec.name: part.value for spec, part in zip(specs, parts, strict=True)}
    value: float | None = 0.0
    for spec, part in zip(specs, parts, strict=True):
        if part.value is not None and not math.isfinite(part.value):
            raise RewardError(f"reward {spec.name} is {part.value} for {place}, expected a finite number")
        value = None if value is None or part.value is None else value + spec.weight * part.value
    if value is not None and not math.isfinite(value):
        raise RewardError(
            f"the weighted sum of rewards is {value} for {place}, expected a finite number; parts: {by_name}"
        )
    errors = [
        part.error if len(specs) == 1 else f"{spec.name}: {part.error}"
        for spec, part in zip(specs, parts, strict=True)
        if part.error
    ]
    return Score(value, by_name, "; ".join(errors))


def _by_scores(first: Score, second: Score, tau: float) -> PairLabel:
    if first.value is None or second.value is None:
        return PairLabel(None, error=first.error or second.error)
    return PairLabel(preference(first.value, second.value, tau))


def _is_judge_alone(specs: Sequence[RewardSpec]) -> bool:
    """Whether a judge may compare: a weight, or another source, needs numbers."""
    return [(spec.kind, spec.weight) for spec in specs] == [("judge", 1.0)]


def _error_name(error: str) -> str:
    return error.partition(":")[0]


def _load_functions(specs: Sequence[RewardSpec]) -> dict[str, RewardFunction]:
    functions: dict[str, RewardFunction] = {}
    faults: list[str] = []
    for spec in specs:
        if spec.kind == "function":
            try:
                functions[spec.name] = load_function(spec.target)
            except ConfigError as fault:
                faults.append(str(fault))
    if faults:
        raise ConfigError("; ".join(faults))
    return functions


async def _open_journal(folder: Path) -> Journal:
    return Journal(folder)

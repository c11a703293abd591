"""Rollouts of made-up tokens, and those who write and judge them without a model: for tests of `online`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future

from rlaif.online.generation import OnFinished, RolloutJob, Written, unheard
from rlaif.online.visits import PromptRow
from rlaif.randomness import seeded_random
from rlaif.records import Prompt, Turn
from rlaif.rewards.sources import PairLabel
from rlaif.rollout_records import Completion, Rollout, Score

STOP = 0


def prompt_row(number: int) -> PromptRow:
    prompt = Prompt(f"p{number}", (Turn("user", f"Do {number}"),), extra={}, is_conversational=False)
    return PromptRow(prompt, (90 + number, 7))


def completion(*ids: int, is_finished: bool = True) -> Completion:
    """Its text is its ids, and each token's log-probability minus a tenth of its id."""
    text = " ".join(map(str, ids))
    return Completion(ids, text, is_finished, tuple(-0.1 * each for each in ids))


def rollout(*completions: Completion, number: int = 0, step: int = 0) -> Rollout:
    row = prompt_row(number)
    return Rollout(f"{row.prompt.id}@0", row.prompt, row.ids, completions, step)


class DrawingGenerator:
    """Writes one to three tokens that the job's seed decides; every third ends; the last job ends first."""

    def __init__(self) -> None:
        self.jobs: list[RolloutJob] = []

    def generate(self, jobs: Sequence[RolloutJob], *, on_finished: OnFinished = unheard) -> list[Written]:
        self.jobs += jobs
        written = [self._write(job) for job in jobs]
        for index in reversed(range(len(jobs))):
            on_finished(index, written[index])
        return written

    def _write(self, job: RolloutJob) -> Written:
        draw = seeded_random(job.seed, "", "completion")
        ids = [draw.randint(1, 9) for _ in range(draw.randint(1, 3))]
        is_stopped = ids[0] % 3 == 0
        ids += [STOP] * is_stopped
        return Written(tuple(ids), tuple(-0.1 * each for each in ids), is_stopped)

    def sync_weights(self, step: int) -> None: ...

    def close(self) -> None: ...


class TextScoring:
    """Scores each completion by a function of its text, and remembers what it was asked, and when."""

    def __init__(self, worth: Callable[[str], float | None] | None = None) -> None:
        self.worth = worth or (lambda text: float(text.split()[0]) / 10 if text else 0.0)
        self.asked: list[Rollout] = []
        self.fault: BaseException | None = None

    def submit(self, rollouts: Sequence[Rollout]) -> Future[list[tuple[Score, ...]]]:
        self.asked += rollouts
        future: Future[list[tuple[Score, ...]]] = Future()
        if self.fault is not None:
            future.set_exception(self.fault)
        else:
            future.set_result([tuple(self._score(one.text) for one in each.completions) for each in rollouts])
        return future

    def compare(self, rollouts: Sequence[Rollout]) -> Future[list[PairLabel]]:
        self.asked += rollouts
        future: Future[list[PairLabel]] = Future()
        future.set_result([self._label(*each.completions) for each in rollouts])
        return future

    def _score(self, text: str) -> Score:
        value = self.worth(text)
        return Score(value, {"text": value}, "" if value is not None else "LowLabelMassError: no mass")

    def _label(self, one: Completion, other: Completion) -> PairLabel:
        first, second = self.worth(one.text), self.worth(other.text)
        if first is None or second is None:
            return PairLabel(None, error="LowLabelMassError: no mass")
        prob = 0.5 if first == second else 0.9 if first > second else 0.1
        return PairLabel(prob, prob, prob)

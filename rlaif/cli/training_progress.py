"""How far training is, on stderr: a bar on a terminal, a line every few seconds elsewhere, warnings only when quiet."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from rlaif.cli.progress import Rate, duration, new_bar
from rlaif.cli.terminal import say
from rlaif.engine.training_metrics import shown

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    from rlaif.engine.training_listening import TrainingStart

SECONDS_BETWEEN_LINES = 10.0
STEP_WINDOW_SECONDS = 120.0
"""Time left is judged by the last two minutes."""

_STOPPING = b"\nstopping after this step, with a checkpoint (again: stop at once)\n"

_EVALUATED = ("loss", "accuracy", "margin", "reward", "watched_reward", "win_rate", "kl")
"""Figures of an evaluation that are told."""

_SHOWN = {"loss": "loss", "accuracy": "accuracy", "reward": "reward", "kl": "KL", "learning_rate": "lr"}
"""Figures beside the step count, and what they are called there."""


class TrainingDisplay(Protocol):
    """A listener of training that also knows how far it came, and can be told to stop."""

    @property
    def is_stopping(self) -> bool:
        """Whether it was told to."""

    @property
    def steps(self) -> tuple[int, int] | None:
        """(Done, all) optimizer steps; None before the first one begins."""

    @property
    def is_stepping(self) -> bool:
        """Whether the optimizer steps are going on: a checkpoint can be saved, and is worth it."""

    def on_preparing(self, what: str, done: int, total: int) -> None: ...

    def on_start(self, start: TrainingStart) -> None: ...

    def on_step(self, step: int, total: int, logs: Mapping[str, float]) -> None: ...

    def on_evaluation(self, step: int, metrics: Mapping[str, float]) -> None: ...

    def on_finishing(self) -> None: ...

    def on_message(self, text: str) -> None: ...

    def on_warning(self, text: str) -> None: ...

    def stop(self) -> None:
        """Have the work stop after the step, and say so. Called from a signal handler."""

    def close(self) -> None:
        """Leave the screen in order; safe to call twice."""


def is_first_process() -> bool:
    """Whether this process speaks for all that train together; torchrun and accelerate number them."""
    return os.environ.get("RANK", "0") == "0"


def training_display_for(*, is_quiet: bool) -> TrainingDisplay:
    """The display that suits this process."""
    if not is_first_process():
        display = MuteTrainingDisplay()
        display.is_stepping = True  # a signal is left to the first process, so that all stop at the same step
        return display
    if is_quiet:
        return QuietTrainingDisplay()
    return TrainingBarDisplay() if sys.stderr.isatty() else TrainingLineDisplay()


class MuteTrainingDisplay:
    """Remembers, and says nothing."""

    def __init__(self) -> None:
        self.is_stopping = False
        self.steps: tuple[int, int] | None = None
        self.is_stepping = False

    def on_preparing(self, what: str, done: int, total: int) -> None:
        return

    def on_start(self, start: TrainingStart) -> None:
        self.steps, self.is_stepping = (start.steps_done, start.steps), True

    def on_step(self, step: int, total: int, logs: Mapping[str, float]) -> None:
        self.steps = (step, total)

    def on_evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        return

    def on_finishing(self) -> None:
        self.is_stepping = False

    def on_message(self, text: str) -> None:
        return

    def on_warning(self, text: str) -> None:
        return

    def stop(self) -> None:
        self.is_stopping = True

    def close(self) -> None:
        return


class QuietTrainingDisplay(MuteTrainingDisplay):
    """Says warnings, and nothing else."""

    def on_warning(self, text: str) -> None:
        say(f"warning: {text}")


class TrainingLineDisplay(MuteTrainingDisplay):
    """Plain lines, for logs and pipes: every few seconds, and at each evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self._rate = Rate(STEP_WINDOW_SECONDS)
        self._logs: dict[str, float] = {}
        self._preparing = ""
        self._next_line = 0.0

    def on_preparing(self, what: str, done: int, total: int) -> None:
        if what != self._preparing:
            self._preparing = what
            self._next_line = time.monotonic() + SECONDS_BETWEEN_LINES
        if self._is_time_for_a_line():
            self.on_message(f"{what}: {done:,}/{total:,}")

    def on_start(self, start: TrainingStart) -> None:
        super().on_start(start)
        self.on_message(started(start))
        now = time.monotonic()
        self._rate.add(now, start.steps_done)
        self._next_line = now + SECONDS_BETWEEN_LINES

    def on_step(self, step: int, total: int, logs: Mapping[str, float]) -> None:
        parts = self._details(step, total, logs)
        if self._is_time_for_a_line() or step == total:
            self.on_message(" | ".join([f"step {step:,}/{total:,}", *parts]))

    def on_evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        figures = [
            f"{name.replace('_', ' ')} {shown(name, metrics[f'eval_{name}'])}"
            for name in _EVALUATED
            if f"eval_{name}" in metrics
        ]
        self.on_message(f"held out, after step {step:,}: {', '.join(figures)}")

    def on_message(self, text: str) -> None:
        say(text)

    def on_warning(self, text: str) -> None:
        self.on_message(f"warning: {text}")

    def stop(self) -> None:
        super().stop()
        # A signal may come in the middle of a print, and print is not for calling twice at a time.
        with contextlib.suppress(OSError):
            os.write(2, _STOPPING)

    def _details(self, step: int, total: int, logs: Mapping[str, float]) -> list[str]:
        self.steps = (step, total)
        self._logs.update(logs)
        return step_details(self._logs, total - step, self._rate.add(time.monotonic(), step))

    def _is_time_for_a_line(self) -> bool:
        now = time.monotonic()
        if now < self._next_line:
            return False
        self._next_line = now + SECONDS_BETWEEN_LINES
        return True


class TrainingBarDisplay(TrainingLineDisplay):
    """A progress bar, first of what is prepared, then of the steps. Messages and evaluations appear above it."""

    def __init__(self) -> None:
        super().__init__()
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._of = ""

    def on_preparing(self, what: str, done: int, total: int) -> None:
        self._show(what, done, total, what)
        if done >= total:
            self.close()

    def on_start(self, start: TrainingStart) -> None:
        self.close()
        super().on_start(start)
        self._show("steps", start.steps_done, start.steps, "")

    def on_step(self, step: int, total: int, logs: Mapping[str, float]) -> None:
        self._show("steps", step, total, " · ".join(self._details(step, total, logs)))

    def on_finishing(self) -> None:
        super().on_finishing()
        self.close()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar, self._task, self._of = None, None, ""

    def _show(self, of: str, done: int, total: int, text: str) -> None:
        if of != self._of:
            self.close()
            self._of = of
            self._bar = new_bar()
            self._task = self._bar.add_task("", total=total)
            self._bar.start()
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, total=total, description=text)


def started(start: TrainingStart) -> str:
    """The first line of a run.

    >>> from rlaif.engine.training_listening import TrainingStart
    >>> started(TrainingStart("dpo", "tiny", rows=900, held_out=100, tokens=81_000, steps=29, steps_done=12))
    'training tiny with dpo on 900 rows (81,000 tokens), 100 held out, in 29 steps; 12 of them are done already'
    """
    resumed = f"; {start.steps_done:,} of them are done already" if start.steps_done else ""
    return (
        f"training {start.model} with {start.method} on {start.rows:,} rows ({start.tokens:,} tokens), "
        f"{start.held_out:,} held out, in {start.steps:,} steps{resumed}"
    )


def step_details(logs: Mapping[str, float], steps_left: int, steps_per_second: float) -> list[str]:
    """What stands beside the step count.

    >>> step_details({"loss": 0.6931, "learning_rate": 1e-6, "tokens_per_second": 5120.3}, 90, 1.5)
    ['loss 0.6931', 'lr 1e-06', '5,120 tokens/s', '1:00 left']
    """
    parts = [f"{called} {shown(name, logs[name])}" for name, called in _SHOWN.items() if name in logs]
    if "tokens_per_second" in logs:
        parts.append(f"{logs['tokens_per_second']:,.0f} tokens/s")
    if steps_left > 0 and steps_per_second > 0:
        parts.append(f"{duration(steps_left / steps_per_second)} left")
    return parts

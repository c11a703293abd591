"""What is seen of training while it runs."""

from __future__ import annotations

import io
import os

import pytest

from rlaif.cli import training_progress as progress_module
from rlaif.cli.training_progress import (
    MuteTrainingDisplay,
    QuietTrainingDisplay,
    TrainingBarDisplay,
    TrainingDisplay,
    TrainingLineDisplay,
    step_details,
    training_display_for,
)
from rlaif.engine.training_listening import SilentTrainingListener, TrainingListener, TrainingStart

START = TrainingStart("dpo", "tiny", rows=900, held_out=100, tokens=81_000, steps=30)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def everything(display: TrainingListener) -> None:
    display.on_preparing("encoding rows", 500, 1000)
    display.on_preparing("encoding rows", 1000, 1000)
    display.on_start(START)
    display.on_step(1, 30, {"loss": 0.6931, "learning_rate": 1e-6, "tokens_per_second": 5000.0})
    display.on_step(2, 30, {})
    display.on_evaluation(2, {"eval_loss": 0.68, "eval_accuracy": 0.55, "eval_runtime": 3.0})
    display.on_message("[bold]a \x1b[2J message[/bold]")
    display.on_warning("beware")
    display.on_finishing()
    display.close()
    display.close()


def test_elsewhere_than_on_a_terminal_there_are_plain_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [100.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: clock[0])
    display = training_display_for(is_quiet=False)
    assert type(display) is TrainingLineDisplay
    display.on_preparing("encoding rows", 1, 1000)
    clock[0] = 111.0
    display.on_preparing("encoding rows", 600, 1000)
    display.on_start(START)
    for step in range(1, 31):  # two seconds a step: a line every fifth one, and the last
        clock[0] += 2.0
        display.on_step(step, 30, {"loss": 0.7} if step == 1 else {})
    assert capsys.readouterr().err.splitlines() == [
        "encoding rows: 600/1,000",
        "training tiny with dpo on 900 rows (81,000 tokens), 100 held out, in 30 steps",
        "step 5/30 | loss 0.7 | 0:50 left",
        "step 10/30 | loss 0.7 | 0:40 left",
        "step 15/30 | loss 0.7 | 0:30 left",
        "step 20/30 | loss 0.7 | 0:20 left",
        "step 25/30 | loss 0.7 | 0:10 left",
        "step 30/30 | loss 0.7",
    ]
    assert display.steps == (30, 30)


def test_evaluations_are_always_said(capsys: pytest.CaptureFixture[str]) -> None:
    everything(TrainingLineDisplay())
    lines = capsys.readouterr().err.splitlines()
    assert "held out, after step 2: loss 0.68, accuracy 55.0 %" in lines
    assert "[bold]a \\x1b[2J message[/bold]" in lines
    assert "warning: beware" in lines


def test_a_resumed_run_says_so_and_judges_time_by_its_own_steps(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: clock[0])
    display = TrainingLineDisplay()
    display.on_start(TrainingStart("rm", "m", 10, 0, 100, steps=40, steps_done=38))
    assert display.steps == (38, 40)
    clock[0] = 20.0
    display.on_step(39, 40, {})
    err = capsys.readouterr().err
    assert "38 of them are done already" in err
    assert "step 39/40 | 0:20 left" in err


def test_quiet_says_warnings_only(capsys: pytest.CaptureFixture[str]) -> None:
    display = training_display_for(is_quiet=True)
    assert type(display) is QuietTrainingDisplay
    everything(display)
    assert capsys.readouterr() == ("", "warning: beware\n")
    assert display.steps == (2, 30)


def test_of_several_processes_one_speaks(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("RANK", "1")
    display = training_display_for(is_quiet=False)
    assert type(display) is MuteTrainingDisplay
    assert display.is_stepping  # a signal stops it when the first process stops, not in the middle of something
    everything(display)
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_bar_with_messages_above_it(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    display = training_display_for(is_quiet=False)
    assert isinstance(display, TrainingBarDisplay)
    everything(display)
    shown = terminal.getvalue()
    assert "1000/1000" in shown
    assert "encoding rows" in shown
    assert "2/30" in shown
    assert "loss 0.6931 · lr 1e-06 · 5,000 tokens/s" in shown
    assert "held out, after step 2: loss 0.68, accuracy 55.0 %" in shown
    assert "[bold]a \\x1b[2J message[/bold]" in shown
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")  # the cursor is given back


@pytest.mark.parametrize("is_quiet", [True, False])
def test_it_can_be_told_to_stop(*, is_quiet: bool, capfd: pytest.CaptureFixture[str]) -> None:
    display: TrainingDisplay = QuietTrainingDisplay() if is_quiet else TrainingLineDisplay()
    assert (display.is_stopping, display.is_stepping) == (False, False)
    display.on_start(START)
    assert display.is_stepping
    display.stop()
    assert display.is_stopping
    assert ("again: stop at once" in capfd.readouterr().err) is not is_quiet
    display.on_finishing()
    assert not display.is_stepping


def test_a_listener_that_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    listener = SilentTrainingListener()
    everything(listener)
    assert not listener.is_stopping
    assert capsys.readouterr() == ("", "")
    assert os.environ.get("RANK") is None


def test_details_hold_what_there_is_to_say() -> None:
    assert step_details({}, 10, 0.0) == []
    assert step_details({"loss": 2.0, "grad_norm": 1.0, "accuracy": 0.5}, 0, 1.0) == ["loss 2", "accuracy 50.0 %"]

from __future__ import annotations

import dataclasses
import io

import pytest

from rlaif.cli import progress as progress_module
from rlaif.cli.progress import BarDisplay, LineDisplay, QuietDisplay, Rate, details, display_for
from rlaif.engine.listening import Progress
from rlaif.records import Usage

HALF = Progress(
    rows_done=500,
    rows_total=1000,
    failures=0,
    calls=1000,
    replayed=0,
    retries=0,
    usage=Usage(120_000, 1_000),
    cost=None,
    concurrency=64,
    seconds=10.0,
)


def test_details_hold_what_there_is_to_say() -> None:
    assert details(HALF, 100.4, 50.0) == ["100 calls/s", "121,000 tokens", "0:10 left"]
    troubled = dataclasses.replace(HALF, failures=3, retries=1200, cost=0.5)
    assert details(troubled, 0.0, 0.0) == ["0 calls/s", "121,000 tokens", "$0.5000", "3 failed", "1,200 retries"]


def test_a_rate_forgets_what_is_long_past() -> None:
    rate = Rate(10.0)
    assert rate.add(0.0, 0) == 0.0
    assert rate.add(1.0, 5000) == 5000.0  # from the journal, all at once
    for second in range(2, 30):
        latest = rate.add(float(second), 5000 + 10 * second)
    assert latest == 10.0


def test_lines_come_every_few_seconds(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    times = iter([100.0, 101.0, 104.9, 105.0, 105.1, 109.9, 110.0])
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: next(times))
    display = LineDisplay()
    display.on_start(1000, ("openai:m",), 7)
    for _ in range(6):
        display.on_progress(HALF)
    display.close()
    line = "500/1,000 rows | 0 calls/s | 121,000 tokens"
    assert capsys.readouterr().err.splitlines() == [
        "judging 1,000 rows with openai:m; the journal holds 7 replies, which are not asked again",
        line,
        line,
    ]
    assert display.latest is HALF


def test_the_demonstration_judge_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    LineDisplay().on_start(10, ("openai:m", "builtin:tiny"), 0)
    assert "builtin:tiny is a demonstration judge" in capsys.readouterr().err


def test_quiet_says_nothing_and_remembers(capsys: pytest.CaptureFixture[str]) -> None:
    display = display_for(is_quiet=True)
    assert isinstance(display, QuietDisplay)
    assert not isinstance(display, LineDisplay)
    display.on_start(10, ("openai:gpt",), 3)
    display.on_message("hello")
    display.on_progress(HALF)
    display.close()
    assert capsys.readouterr() == ("", "")
    assert display.latest is HALF
    display.on_warning("beware")
    assert capsys.readouterr() == ("", "warning: beware\n")


def test_even_quiet_says_that_a_judge_is_for_demonstration(capsys: pytest.CaptureFixture[str]) -> None:
    display_for(is_quiet=True).on_start(10, ("builtin:tiny",), 0)
    assert "demonstration judge" in capsys.readouterr().err


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar_with_messages_above_it(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    display = display_for(is_quiet=False)
    assert isinstance(display, BarDisplay)
    display.on_start(1000, ("openai:m",), 0)
    display.on_progress(dataclasses.replace(HALF, failures=2))
    display.on_message("[bold]a \x1b[2J message[/bold]")
    display.close()
    display.close()
    shown = terminal.getvalue()
    assert shown.startswith("judging 1,000 rows with openai:m\n")
    assert "[bold]a \\x1b[2J message[/bold]" in shown
    assert "500/1000" in shown
    assert "2 failed" in shown
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")  # the cursor is given back


def test_elsewhere_lines_are_plain(capsys: pytest.CaptureFixture[str]) -> None:
    assert type(display_for(is_quiet=False)) is LineDisplay

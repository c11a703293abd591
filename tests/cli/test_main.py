from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from types import SimpleNamespace

import pytest

from rlaif.cli import main as main_module
from rlaif.cli.main import COMMANDS, Command, main
from rlaif.errors import BackendUnusableError, BudgetExceededError, InputError, RlaifError


def command_that(monkeypatch: pytest.MonkeyPatch, error: BaseException | None = None, code: int = 0) -> None:
    """Put a command `try` in the place of all others."""

    def run(argv: Sequence[str]) -> int:
        if error is not None:
            raise error
        return code

    monkeypatch.setattr(main_module, "COMMANDS", {"try": Command("try", "", "nowhere")})
    monkeypatch.setattr(main_module, "import_module", lambda name: SimpleNamespace(run=run))


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(command.usage in out for command in COMMANDS.values())


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("rlaif 0.")


def test_no_command_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert capsys.readouterr().err.startswith("usage: rlaif COMMAND")


def test_an_unknown_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["labl"]) == 2
    assert capsys.readouterr().err == (
        f"ConfigError: unknown command 'labl' (did you mean 'label'?); known: {', '.join(COMMANDS)}\n"
    )


@pytest.mark.parametrize("code", [0, 3, 130])
def test_a_commands_exit_code_is_the_programs(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    command_that(monkeypatch, code=code)
    assert main(["try"]) == code


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (InputError("holds no rows", path="a.jsonl", line=3), 2, "InputError: a.jsonl, line 3: holds no rows\n"),
        (BackendUnusableError("401: bad\x1b[2Jkey"), 2, "BackendUnusableError: 401: bad\\x1b[2Jkey\n"),
        (BudgetExceededError("spent"), 130, "BudgetExceededError: spent\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (
            KeyError("x"),
            1,
            "internal error: KeyError: 'x'; RLAIF_DEBUG=1 shows the traceback to report\n",
        ),
    ],
)
def test_an_error_is_one_sentence_and_an_exit_code(
    error: BaseException,
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("RLAIF_DEBUG", raising=False)
    command_that(monkeypatch, error)
    assert main(["try"]) == code
    assert capsys.readouterr() == ("", message)


@pytest.mark.parametrize(("error", "code"), [(RlaifError("no"), 2), (KeyError("x"), 1)])
def test_rlaif_debug_shows_the_traceback(
    error: Exception, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RLAIF_DEBUG", "1")
    command_that(monkeypatch, error)
    assert main(["try"]) == code
    assert "Traceback (most recent call last):" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["label", "--help"]])
def test_a_reader_who_has_gone_away_is_no_error(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "rlaif.cli.main", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0


def test_text_that_the_terminal_cannot_show_is_escaped() -> None:
    program = "from rlaif.cli import main, label; import sys; label.run = lambda argv: print('h\\xe9') or 3\n"
    program += "sys.exit(main.main(['label']))"
    result = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        check=False,
        env={"PYTHONIOENCODING": "ascii", "PATH": ""},
    )
    assert (result.returncode, result.stdout, result.stderr) == (3, b"h\\xe9\n", b"")

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pytest

from rlaif.cli.arguments import CommandLine, build_parser, parse
from rlaif.cli.label import LINE, LabelCommand
from rlaif.errors import ConfigError
from rlaif.options import options


@dataclass(frozen=True)
class Judging:
    """How."""

    orders: Literal["both", "ab"] = "both"
    """Orders to ask; 50 % each."""

    cot: bool = False
    """Reasons first."""

    max_tokens: Annotated[int, "at least 1"] = 512
    """Longest rationale."""


@dataclass(frozen=True)
class Command:
    """A command."""

    input: str
    """File to read."""

    out: str
    """Folder to write."""

    judging: Judging = field(default_factory=Judging)

    judge: tuple[str, ...] = ("builtin:tiny",)
    """Judge, repeatable."""

    mixing: dict[str, float] = field(default_factory=dict)
    """Mixing."""

    temperature: float | None = None
    """Heat."""


COMMAND = CommandLine("rlaif try", "Try it.", ("input",), {"out": "-o"})


def fault(*argv: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(Command, argv, COMMAND)
    return str(caught.value)


@pytest.mark.parametrize(
    "argv",
    [
        ["in", "-o", "dir", "--cot", "--max-tokens", "7"],
        ["--max-tokens=7", "--out", "dir", "in", "--cot"],
        ["--no-cot", "--cot", "-odir", "--max-tokens", "7", "--", "in"],
    ],
)
def test_flags_and_places_in_any_order(argv: list[str]) -> None:
    assert parse(Command, argv, COMMAND) == Command("in", "dir", Judging(cot=True, max_tokens=7))


def test_flags_given_more_than_once_are_collected() -> None:
    argv = ["in", "-o", "d", "--judge", "a", "--mixing", "x=1,y=2", "--judge", "b:c", "--mixing", "z=-3"]
    config = parse(Command, argv, COMMAND)
    assert config.judge == ("a", "b:c")
    assert config.mixing == {"x": 1.0, "y": 2.0, "z": -3.0}


@dataclass(frozen=True)
class Standing:
    """A flag that may stand alone."""

    input: str
    """File to read."""

    range: str | bool | None = None
    """Kept within it."""


@pytest.mark.parametrize(
    ("argv", "value"),
    [
        (["in"], None),
        (["in", "--range"], True),
        (["--range", "in"], True),
        (["--range", "./2"], True),
        (["--range", "--", "in"], True),
        (["--range", "0.4-0.6", "in"], "0.4-0.6"),
        (["--range=in", "in"], "in"),
    ],
)
def test_a_flag_that_may_stand_alone_takes_no_file_for_its_value(argv: list[str], value: str | bool | None) -> None:
    line = CommandLine("rlaif try", "Try it.", ("input",))
    assert parse(Standing, argv, line).range == value
    assert parse(Standing, argv, line).input == ("./2" if "./2" in argv else "in")
    assert "--range [RANGE]" in build_parser(Standing, line).format_help()


def test_a_negative_number_is_a_value() -> None:
    assert parse(Command, ["in", "-o", "d", "--temperature", "-1.5"], COMMAND).temperature == -1.5


def test_places_may_stand_in_the_file_and_flags_win(tmp_path: Path) -> None:
    path = tmp_path / "try.yaml"
    path.write_text("input: a\nout: b\nmax-tokens: 3\njudging: {orders: ab}\n")
    config = parse(Command, ["--config", str(path), "-o", "c"], COMMAND)
    assert config == Command("a", "c", Judging("ab", max_tokens=3))


def test_all_faults_of_a_command_line_at_once() -> None:
    assert fault("--ordes", "ab", "--max-tokens", "0", "--orders", "ba") == (
        "the command line has 4 faults: --max-tokens: '0', expected a whole number of at least 1; "
        "--orders: 'ba', expected both or ab; --ordes: unknown flag (did you mean '--orders'?); --out is missing"
    )


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["in", "-o"], "the command line: -o/--out: expected one argument; see rlaif try --help"),
        (["in", "-o", "x", "more"], "unexpected argument 'more'; rlaif try takes by place: INPUT"),
        (["in", "-o", "x", "--max"], "the command line: --max: unknown flag"),
        (["in", "-o", "x", "--zzz=1"], "the command line: --zzz: unknown flag"),
        (["in", "-o", "x", "--config", "none.yaml"], "none.yaml: cannot be read"),
        ([], "the command line has 2 faults: INPUT is missing; --out is missing"),
    ],
)
def test_what_cannot_be_read(argv: list[str], message: str) -> None:
    assert fault(*argv).startswith(message)


def test_help_is_made_from_the_dataclass(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as caught:
        parse(Command, ["--help"], COMMAND)
    assert caught.value.code == 0
    text = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[0] == "usage: rlaif try INPUT -o DIR [flags]"
    for line in (
        "INPUT File to read.",
        "-o DIR, --out DIR Folder to write.",
        "--orders both|ab Orders to ask; 50 % each. (default: both)",
        "--cot, --no-cot Reasons first. (default: no)",
        "--max-tokens N Longest rationale. (default: 512)",
        "--judge BACKEND:MODEL Judge, repeatable. (default: builtin:tiny)",
        "--mixing NAME=VALUE Mixing.",
        "--temperature X Heat.",
    ):
        assert line in lines
    assert lines.index("judging:") > lines.index("--temperature X Heat.")


def test_every_option_of_label_has_a_flag() -> None:
    flags = build_parser(LabelCommand, LINE).format_help()
    for option in options(LabelCommand):
        assert LINE.spell(option.name) in flags
    contract = (
        *("judge", "base-url", "task", "preamble", "shots", "cot", "constitution", "principles", "orders", "debias"),
        *("scoring", "samples", "temperature", "max-tokens", "min-label-mass", "concurrency", "max-retries", "timeout"),
        *("limit", "dry-run", "price", "max-cost", "columns", "skip-bad-rows", "config", "seed", "quiet"),
    )
    for name in contract:
        assert f"  --{name}" in flags

"""What a pipeline's YAML file means, and what is refused in it, all at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rlaif.engine.pipeline_config import PipelineConfig, StageCommand, read_pipeline
from rlaif.errors import ConfigError


@dataclass(frozen=True)
class Make:
    """A command that makes something."""

    input: str
    out: str
    seed: int = 0
    colour: str = "red"


@dataclass(frozen=True)
class Check:
    """A command that checks something."""

    input: str
    out: str
    seed: int = 0
    against: tuple[str, ...] = ()


COMMANDS = {
    "make": StageCommand(Make, "input"),
    "check": StageCommand(Check, "input", (("make", "/inner"),), file=lambda _: "check.json"),
}


def read(folder: Path, text: str, **changes: Any) -> Any:
    file = folder / "p.yaml"
    file.write_text(text)
    return read_pipeline(PipelineConfig(str(file), **changes), COMMANDS)


def test_stages_get_defaults_folders_and_inputs(tmp_path: Path) -> None:
    text = """
    out: runs/p
    defaults: {seed: 3, colour: blue}
    stages:
      make: {input: a.jsonl}
      second: {command: make, input: b.jsonl, seed: 4}
      check: {against: "@make/other"}
    """
    pipeline = read(tmp_path, text)
    make, second, check = pipeline.stages
    assert make.settings == {"input": "a.jsonl", "out": "runs/p/make", "seed": 3, "colour": "blue"}
    assert (second.settings["seed"], second.command, second.folder) == (4, "make", Path("runs/p/second"))
    # the nearest `make` before it; an option that the command has not (colour) is not handed to it
    assert check.settings == {
        "input": "runs/p/second/inner", "out": "runs/p/check/check.json", "seed": 3, "against": ["runs/p/make/other"],
    }  # fmt: skip
    assert set(check.after) == {"make", "second"}


def test_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    text = (
        "out: runs/p\ndefaults: {colour: blue}\nstages: {make: {input: a}, two: {command: make, input: b, colour: x}}"
    )
    pipeline = read(tmp_path, text, out="elsewhere", set={"colour": "green", "seed": "9"})
    assert [stage.settings["colour"] for stage in pipeline.stages] == ["green", "x"]  # a stage's own word is its own
    assert pipeline.stages[0].settings["seed"] == 9
    assert pipeline.stages[0].folder == Path("elsewhere/make")


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    text = """
    outt: x
    defaults: {sed: 1}
    stages:
      make: {colr: blue}
      chek: {}
      check: {input: "@nothing", seed: many}
      "a b": {}
      last: {command: make, input: x, quiet: true}
    """
    with pytest.raises(ConfigError) as raised:
        read(tmp_path, text)
    message = str(raised.value)
    for part in (
        "has 8 faults",
        "outt: unknown key (did you mean 'out'?)",
        "out: is missing",
        "defaults.sed: no command has this option (did you mean 'seed'?)",
        "stages.make.input: is missing, and no stage before it makes what it takes",
        "stages.chek: 'chek' is no command that can be a stage (did you mean 'check'?)",
        "stages.check.input: there is no stage 'nothing' before this one; before it stand: make, chek",
        "stages.a b: expected a name of letters",
        "stages.last.quiet: belongs to rlaif pipeline",
    ):
        assert part in message, part


def test_a_fault_in_an_option_says_where(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"stages.make: seed: 'x', expected a whole number"):
        read(tmp_path, "out: o\nstages: {make: {input: a, seed: x}}")
    with pytest.raises(ConfigError, match=r"stages.make: colr: unknown option.*did you mean 'colour'"):
        read(tmp_path, "out: o\nstages: {make: {input: a, colr: x}}")


def test_a_faulty_stage_is_no_fault_of_those_behind_it(tmp_path: Path) -> None:
    text = "out: o\nstages: {make: {input: a, colr: x}, check: {}, again: {command: check, input: '@make'}}"
    with pytest.raises(ConfigError, match=r"^[^;]*p\.yaml: stages\.make: colr: unknown option[^;]*$"):
        read(tmp_path, text)
    text = "out: o\nstages: {mak: {input: a}, check: {}}"  # what it would have made, nobody knows
    with pytest.raises(ConfigError, match=r"p\.yaml: stages\.mak: 'mak' is no command .*did you mean 'make'") as raised:
        read(tmp_path, text)
    assert "check" not in str(raised.value).partition("(known:")[0]


def test_a_mistyped_command_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"stages\.x\.comand: unknown option \(did you mean 'command'"):
        read(tmp_path, "out: o\nstages: {x: {comand: make, input: a}}")


def test_a_stage_cannot_take_what_comes_after_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no stage 'later' before this one"):
        read(tmp_path, "out: o\nstages: {make: {input: '@later'}, later: {command: make, input: a}}")


@pytest.mark.parametrize("text", ["", "out: o", "out: o\nstages: []", "out: o\nstages: {make: 3}"])
def test_what_is_no_pipeline_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="stages"):
        read(tmp_path, text)


def test_a_text_that_begins_as_a_reference_but_names_no_stage_is_a_text(tmp_path: Path) -> None:
    text = "out: o\nstages: {make: {input: a, colour: '@all be kind'}}"
    assert read(tmp_path, text).stages[0].settings["colour"] == "@all be kind"


def test_a_model_that_a_stage_trains_is_named_with_its_backend(tmp_path: Path) -> None:
    text = "out: o\nstages: {make: {input: a}, check: {input: x, against: ['hf-reward:@make', 'openai:@make']}}"
    check = read(tmp_path, text).stages[1]
    assert check.settings["against"] == ["hf-reward:o/make", "openai:@make"]  # a server's models are no folders
    assert check.after == ("make",)
    with pytest.raises(ConfigError, match="there is no stage 'mak' before this one .did you mean 'make'"):
        read(tmp_path, text.replace("hf-reward:@make", "hf:@mak"))


def test_a_change_that_reaches_no_stage_is_refused(tmp_path: Path) -> None:
    text = "out: o\nstages: {make: {input: a, colour: red}, check: {}}"
    with pytest.raises(ConfigError, match=r"--set colour: changes the defaults, .* itself: stages\.make\.colour"):
        read(tmp_path, text, set={"colour": "blue"})
    text = "out: o\nstages: {make: {input: a, colour: red}, more: {command: make, input: b}}"
    pipeline = read(tmp_path, text, set={"colour": "blue"})
    assert [stage.settings["colour"] for stage in pipeline.stages] == ["red", "blue"]

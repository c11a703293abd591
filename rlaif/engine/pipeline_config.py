"""Several commands in one YAML file: what it holds, read and checked whole before anything is started. Pure but for
reading the file."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlaif.config import as_dict, read_yaml, resolve
from rlaif.errors import ConfigError, did_you_mean
from rlaif.options import options

_KEYS = ("out", "defaults", "stages")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_REFERENCE = re.compile(rf"((?:-?[\d.]+\*)?(?:(?:hf|hf-reward|vllm):)?)@({_NAME.pattern})(/.*)?")

OF_PIPELINE = ("quiet", "dry_run", "config", "out")
"""Options of commands that are the pipeline's to set."""


@dataclass(frozen=True)
class PipelineConfig:
    """`rlaif pipeline`: several commands, one after the other, each on what the ones before it made."""

    file: str
    """YAML file with out, defaults and stages."""

    out: str | None = None
    """Folder that the stages write into (default: what the file says)."""

    set: Mapping[str, str] | None = None
    """Option of all stages that have it, NAME=VALUE, over what defaults say (seed=1, constitution=concise); given more
    than once, several."""

    dry_run: bool = False
    """Say which stages would run and which are done, and start nothing."""


@dataclass(frozen=True)
class StageCommand:
    """A command that may be a stage.

    Attributes:
        config: Its configuration.
        input: The option that names what it reads.
        follows: Where that is not given: commands whose output it takes, the first of them that stands before it, the
            nearest one if several do, with a folder inside that output.
        file: The file in its folder that it writes, from its settings; None for a command that writes the folder.
        needs: Extra of the package, and modules of it that the command cannot do without.
    """

    config: type[Any]
    input: str
    follows: Sequence[tuple[str, str]] = ()
    file: Callable[[Mapping[str, Any]], str] | None = None
    needs: tuple[str, tuple[str, ...]] | None = None


@dataclass(frozen=True)
class Stage:
    """One command of a pipeline.

    Attributes:
        name: Unique in its pipeline; also that of its folder.
        command: Such as "label", or "train dpo".
        given: Option -> value, as the file and its defaults say, with input and out.
        settings: Option -> value, of all its options.
        folder: Where its output stands.
        after: Names of the stages whose output it reads.
    """

    name: str
    command: str
    given: Mapping[str, Any]
    settings: Mapping[str, Any]
    folder: Path
    after: tuple[str, ...]


@dataclass(frozen=True)
class Pipeline:
    """Stages, in their order, and the folder that they write into."""

    out: Path
    stages: tuple[Stage, ...]


def read_pipeline(config: PipelineConfig, commands: Mapping[str, StageCommand]) -> Pipeline:
    """The pipeline of a file.

    Args:
        config: Which file, and what is to be otherwise than it says.
        commands: What may be a stage, by name ("label", "train dpo").

    Raises:
        ConfigError: All that is wrong with the file and its stages, in one sentence.
    """
    content = read_yaml(config.file)
    faults = [
        f"{key}: unknown key{did_you_mean(str(key), _KEYS)}, expected {', '.join(_KEYS)}"
        for key in content
        if key not in _KEYS
    ]
    defaults, stages = content.get("defaults") or {}, content.get("stages")
    if not isinstance(defaults, Mapping):
        faults.append("defaults: expected options by name")
        defaults = {}
    if not isinstance(stages, Mapping) or not stages:
        faults.append("stages: expected stages by name, such as label: {judge: openai:gpt-4.1-mini}")
        stages = {}
    out = config.out or content.get("out")
    if not isinstance(out, str) or not out:
        faults.append("out: is missing, expected a folder")
        out = "."
    shared = {_option(name): value for name, value in {**defaults, **(config.set or {})}.items()}
    faults += _unknown_defaults(shared, commands)
    faults += _without_effect(config.set or {}, stages, commands)
    found: list[Stage] = []
    for name, given in stages.items():
        try:
            found.append(_stage(str(name), given, Path(out), shared, found, commands))
        except ConfigError as error:
            faults.append(str(error))
            # those behind it may name it, and that is no fault of theirs
            word = given.get("command", name) if isinstance(given, Mapping) else name
            found.append(Stage(str(name), str(word), {}, {}, Path(out) / str(name), ()))
    if faults:
        many = f" has {len(faults)} faults" if len(faults) > 1 else ""
        raise ConfigError(f"{config.file}{many}: {'; '.join(faults)}")
    return Pipeline(Path(out), tuple(found))


def _unknown_defaults(shared: Mapping[str, Any], commands: Mapping[str, StageCommand]) -> list[str]:
    known = {option.name for command in commands.values() for option in options(command.config)}
    known -= {"input", *OF_PIPELINE}
    return [
        f"defaults.{name}: no command has this option{did_you_mean(name, known)}"
        for name in shared
        if name not in known
    ]


def _without_effect(
    changes: Mapping[str, str], stages: Mapping[Any, Any], commands: Mapping[str, StageCommand]
) -> list[str]:
    """What is to be otherwise than the defaults say, where every stage that has the option says it itself."""
    taking: set[str] = set()
    saying: dict[str, str] = {}
    for name, given in stages.items():
        own = {_option(key): value for key, value in given.items()} if isinstance(given, Mapping) else {}
        if (command := commands.get(str(own.get("command", name)))) is not None:
            taking |= {option.name for option in options(command.config)} - own.keys()
        saying |= {option: f"stages.{name}.{option}" for option in own}
    return [
        f"--set {change}: changes the defaults, and where a stage has this option, it says it itself: {saying[option]}"
        for change in changes
        if (option := _option(change)) in saying and option not in taking
    ]


def _stage(
    name: str,
    given: Any,
    folder: Path,
    shared: Mapping[str, Any],
    before: Sequence[Stage],
    commands: Mapping[str, StageCommand],
) -> Stage:
    where = f"stages.{name}"
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{where}: expected a name of letters, digits, - and _")
    if given is not None and not isinstance(given, Mapping):
        raise ConfigError(f"{where}: expected options by name")
    settings = {_option(key): value for key, value in (given or {}).items()}
    word = str(settings.pop("command", name))
    if word not in commands:
        known = ", ".join(commands)
        mistyped = next((key for key in settings if did_you_mean(key, ("command",))), None)
        raise ConfigError(
            f"{where}.{mistyped}: unknown option (did you mean 'command'?)"
            if mistyped is not None
            else f"{where}: {word!r} is no command that can be a stage{did_you_mean(word, commands)}; "
            f"name it with command: (known: {known})"
        )
    command = commands[word]
    if theirs := sorted({*OF_PIPELINE} & settings.keys()):
        raise ConfigError(f"{where}.{theirs[0]}: belongs to rlaif pipeline, not to a stage")
    own = {option.name for option in options(command.config)}
    settings = {**{key: value for key, value in shared.items() if key in own}, **settings}
    settings.setdefault(command.input, _default_input(command, before))
    if settings[command.input] is None and any(stage.command not in commands for stage in before):
        settings[command.input] = ""  # perhaps what that stage makes, which is a fault already
    if settings[command.input] is None:
        raise ConfigError(f"{where}.{command.input}: is missing, and no stage before it makes what it takes")
    after: list[str] = []
    settings = {key: _followed(value, f"{where}.{key}", before, after) for key, value in settings.items()}
    own_folder = folder / name
    settings["out"] = str(own_folder if command.file is None else own_folder / command.file(settings))
    resolved = resolve(command.config, None, settings, source=where, word="option")
    every = as_dict(resolved, is_flat=True)
    return Stage(name, word, settings, every, own_folder, tuple(dict.fromkeys(after)))


def _option(key: object) -> str:
    return str(key).replace("-", "_")


def _default_input(command: StageCommand, before: Sequence[Stage]) -> str | None:
    """What a stage reads where the file does not say."""
    for wanted, inside in command.follows:
        for stage in reversed(before):
            if stage.command == wanted:
                return f"@{stage.name}{inside}"
    return None


def _followed(value: Any, where: str, before: Sequence[Stage], after: list[str]) -> Any:
    """A value with `@NAME`, `@NAME/FOLDER`, `hf:@NAME` (a model it trains), `0.5*hf-reward:@NAME` (with a weight)
    as the path of what that stage writes."""
    if isinstance(value, list | tuple):
        return [_followed(each, where, before, after) for each in value]
    match = _REFERENCE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return value
    kind, name, inside = match.groups(default="")
    stage = next((stage for stage in before if stage.name == name), None)
    if stage is None:
        names = [stage.name for stage in before]
        hint = did_you_mean(name, names) or f"; before it stand: {', '.join(names) or 'none'}"
        raise ConfigError(f"{where}: there is no stage {name!r} before this one{hint}")
    after.append(stage.name)
    return f"{kind}{stage.folder}{inside}"

"""The command line of a command, made from its configuration: parser and help; `rlaif.config` checks the values."""

from __future__ import annotations

import argparse
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from rlaif.config import resolve
from rlaif.errors import ConfigError
from rlaif.options import Option, choices_of, is_mapping, is_sequence, options, scalar_types

C = TypeVar("C")

METAVARS = {
    "against": "RUN_OR_FILE",
    "against_column": "COLUMN",
    "against_column_ba": "COLUMN",
    "aux": "NAME=WEIGHT",
    "base_url": "URL",
    "by": "COLUMN",
    "by_columns": "A,B",
    "calibration": "FILE.json",
    "clamp": "LOW-HIGH",
    "cluster": "COLUMN",
    "columns": "NAME=PATH",
    "center_on": "FILE",
    "constitution": "NAME_OR_FILE",
    "data": "RUN_OR_FILE",
    "fit_calibration": "FILE.json",
    "human": "FILE",
    "id": "ID",
    "judge": "BACKEND:MODEL",
    "judge_column": "COLUMN",
    "judge_column_ba": "COLUMN",
    "max_cost": "USD",
    "only": "NAME",
    "out": "DIR",
    "lora_target": "LAYER",
    "pairs": "all|N|none",
    "policy": "BACKEND:MODEL",
    "policy_base_url": "URL",
    "policy_system": "TEXT",
    "price": "IN/OUT",
    "push_to_hub": "OWNER/NAME",
    "principles": "all|sample|ID,ID",
    "reference": "MODEL",
    "reference_cache": "DIR",
    "report_to": "NAME",
    "timeout": "S",
    "trainer_arg": "KEY=VALUE",
    "weights": "ID=W,ID=W",
}
"""What stands for a value in the help, where the option's type does not say enough."""


@dataclass(frozen=True)
class CommandLine:
    """What a command line adds to a configuration.

    Attributes:
        prog: The command as typed, such as "rlaif label".
        description: What it does, one or a few sentences.
        positionals: Options given by place, in this order; they may stand in the YAML file as well.
        short: One-letter flags of options, such as {"out": "-o"}.
        epilog: Printed below the help.
        metavars: What stands for a value where this command means another one by the name than the others do.
    """

    prog: str
    description: str
    positionals: tuple[str, ...] = ()
    short: Mapping[str, str] = field(default_factory=dict)
    epilog: str = ""
    metavars: Mapping[str, str] = field(default_factory=dict)

    def spell(self, name: str) -> str:
        """How an option is written here: INPUT or --max-tokens."""
        if name.startswith("-"):
            return name
        return name.upper() if name in self.positionals else "--" + name.replace("_", "-")


def parse(config_class: type[C], argv: Sequence[str], line: CommandLine) -> C:
    """A command's configuration from its arguments and its `--config` file.

    Raises:
        ConfigError: All that is wrong with either, in one sentence.
        SystemExit: `--help` was asked for, and printed.
    """
    parser = build_parser(config_class, line)
    namespace, rest = parser.parse_known_intermixed_args(_without_swallowing(argv, config_class, line))
    given: dict[str, Any] = {name: value for name, value in vars(namespace).items() if value is not None}
    yaml_path = given.pop("config", None)
    unknown = [argument.partition("=")[0] for argument in rest if argument.startswith("-") and argument != "--"]
    if rest and not unknown:
        places = " ".join(line.spell(name) for name in line.positionals) or "none"
        raise ConfigError(f"unexpected argument {rest[0]!r}; {line.prog} takes by place: {places}")
    return resolve(
        config_class,
        yaml_path,
        {**given, **dict.fromkeys(unknown, True)},
        source="the command line",
        word="flag",
        spell=line.spell,
    )


def build_parser(config_class: type[Any], line: CommandLine) -> argparse.ArgumentParser:
    """The parser of a command. It only sorts words; what they may be is checked with everything else, in `resolve`."""
    known = {option.name: option for option in options(config_class)}
    flags = [option for option in known.values() if option.is_required and option.name not in line.positionals]
    needed = [*line.positionals, *(f"{line.short.get(o.name, line.spell(o.name))} {_metavar(o, line)}" for o in flags)]
    parser = _Parser(
        prog=line.prog,
        # What is needed; some forty optional flags stand below the usage line, not in it.
        usage=" ".join(
            [line.prog, *(word.upper() if word in line.positionals else word for word in needed), "[flags]"]
        ),
        description=line.description,
        epilog=line.epilog or None,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
        formatter_class=_HelpFormatter,
    )
    for name in line.positionals:
        parser.add_argument(name, nargs="?", metavar=name.upper(), help=_help(known[name]))
    groups: dict[tuple[str, ...], Any] = {(): parser}
    for option in known.values():
        if option.name in line.positionals:
            continue
        if option.section not in groups:
            groups[option.section] = parser.add_argument_group(option.section[-1].replace("_", " "))
        _add_flag(groups[option.section], option, line)
    parser.add_argument("--config", metavar="FILE.yaml", help="Options by name; flags win over it.")
    return parser


def _add_flag(group: Any, option: Option, line: CommandLine) -> None:
    names = [*([line.short[option.name]] if option.name in line.short else []), line.spell(option.name)]
    kinds = scalar_types(option.annotation)
    if kinds == (bool,):
        group.add_argument(*names, dest=option.name, action=argparse.BooleanOptionalAction, help=_help(option))
        return
    if _may_stand_alone(option):
        group.add_argument(
            *names,
            dest=option.name,
            nargs="?",
            const=True,
            type=lambda text: text or True,
            metavar=_metavar(option, line),
            help=_help(option),
        )
        return
    is_repeated = any(is_sequence(kind) or is_mapping(kind) for kind in kinds)
    group.add_argument(
        *names,
        dest=option.name,
        action="append" if is_repeated else "store",
        metavar=_metavar(option, line),
        help=_help(option),
    )


def _may_stand_alone(option: Option) -> bool:
    """Whether a flag is given with a value or without one: `--clamp 0.3-0.7`, or `--clamp`."""
    kinds = scalar_types(option.annotation)
    return bool in kinds and len(kinds) > 1


def _without_swallowing(argv: Sequence[str], config_class: type[Any], line: CommandLine) -> list[str]:
    """The words of a command line, where no flag that may stand alone takes the word behind it unless that is made of
    digits: in `rlaif label --clamp pairs.jsonl`, the file is the input."""
    alone = {line.spell(option.name) for option in options(config_class) if _may_stand_alone(option)}
    words = list(argv)
    for place, (word, behind) in enumerate(itertools.pairwise(argv)):
        if word == "--":
            break
        if word in alone and re.search(r"[A-Za-z/\\]", behind):
            words[place] = f"{word}="
    return words


def _metavar(option: Option, line: CommandLine) -> str:
    if metavar := line.metavars.get(option.name) or METAVARS.get(option.name):
        return metavar
    if choices := choices_of(option.annotation):
        return "|".join(choices)
    for kind in scalar_types(option.annotation):
        if kind is int or is_sequence(kind):
            return "N" if kind is int else "VALUE"
        if kind is float or kind is Path:
            return "X" if kind is float else "PATH"
        if is_mapping(kind):
            return "NAME=VALUE"
    return option.name.upper()


def _help(option: Option) -> str:
    default = option.default
    if isinstance(default, bool):
        shown = "yes" if default else "no"
    elif isinstance(default, tuple | list):
        shown = " ".join(map(str, default))
    elif isinstance(default, Mapping):
        shown = ",".join(f"{name}={value}" for name, value in default.items())
    else:
        shown = "" if option.is_required or default is None else str(getattr(default, "value", default))
    said = f"{option.description} (default: {shown})" if shown else option.description
    return said.replace("%", "%%")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """argparse would print and exit; here every error goes one way."""
        raise ConfigError(f"the command line: {message.removeprefix('argument ')}; see {self.prog} --help")


class _HelpFormatter(argparse.HelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32)

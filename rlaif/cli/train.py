"""`rlaif train METHOD`: a model trained on labels, wired to the terminal."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlaif.cli.arguments import CommandLine, parse
from rlaif.cli.interruption import stopping_after_the_step
from rlaif.cli.runs import aligned, nearby
from rlaif.cli.terminal import print_traceback_if_asked, say
from rlaif.cli.training_progress import TrainingDisplay, is_first_process, training_display_for
from rlaif.engine.training_config import TRAIN_CONFIGS, TrainConfig
from rlaif.engine.training_metrics import shown
from rlaif.errors import ConfigError, RlaifError, did_you_mean
from rlaif.extras import require
from rlaif.online.config import ONLINE_CONFIGS, OnlineConfig
from rlaif.options import options, scalar_types
from rlaif.visibility import visible

if TYPE_CHECKING:
    from rlaif.engine.training import TrainOutcome

PROG = "rlaif train"
METHODS: Mapping[str, type[TrainConfig] | type[OnlineConfig]] = {**TRAIN_CONFIGS, **ONLINE_CONFIGS}
"""Method -> its settings."""

SHORT = {"out": "-o"}
NEEDED = ("accelerate", "matplotlib")

_TOLD = ("loss", "accuracy", "reward", "watched_reward", "win_rate", "kl")
"""Figures on held-out rows or prompts that the summary tells."""

EPILOG = (
    "The same command again resumes from the last checkpoint. Several GPUs: torchrun --nproc-per-node N -m rlaif train "
    "... Exit codes: 0 done; 2 wrong use; 3 done, but some rows could not be read and stand in failures.jsonl; "
    "130 interrupted, resumable."
)


@dataclass(frozen=True)
class _Shown:
    """How a command is shown."""

    quiet: bool = False
    """Print errors and warnings only."""


def run(argv: Sequence[str]) -> int:
    """Run the command; returns the exit code."""
    arguments = list(argv)
    place = method_place(arguments)
    if place is None:
        if {"-h", "--help"} & set(arguments):
            print(methods_help())
            return 0
        raise ConfigError(f"which method? {PROG} METHOD takes one of: {', '.join(METHODS)}")
    method = arguments.pop(place)
    if method not in METHODS:
        hint = did_you_mean(method, METHODS)
        raise ConfigError(f"method {method!r} is unknown{hint}, expected one of {', '.join(METHODS)}")
    command_class = make_dataclass(
        "TrainCommand", [("run", METHODS[method])], bases=(_Shown,), frozen=True, kw_only=True
    )
    command: Any = parse(command_class, arguments, command_line(method))
    require("train", NEEDED, PROG)
    return _train(method, command.run, shlex.join([*PROG.split(), *argv]), is_quiet=command.quiet)


def _train(method: str, config: TrainConfig | OnlineConfig, typed: str, *, is_quiet: bool) -> int:
    display = training_display_for(is_quiet=is_quiet)
    outcome = _finish(method, config, display, typed)
    if outcome is None:
        return 130
    if not is_first_process():
        return 0  # else torchrun might end the first one before it has spoken
    if not is_quiet:
        print(visible(summary(outcome, method)))
    return 3 if outcome.skipped else 0


def _finish(
    method: str, config: TrainConfig | OnlineConfig, display: TrainingDisplay, typed: str
) -> TrainOutcome | None:
    """Train; None when it was stopped, which has been said."""
    from rlaif.engine.training import train  # after --help, which needs none of it
    from rlaif.online.training import train_online

    try:
        with stopping_after_the_step(display):
            if isinstance(config, OnlineConfig):
                return train_online(method, config, display, command=typed)
            return train(method, config, display, command=typed)
    except KeyboardInterrupt:
        display.close()
        if is_first_process():
            say(f"interrupted{_done_so_far(display)}; resume with: {typed}")
        return None
    except RlaifError as error:
        display.close()
        if display.steps is None:
            raise
        from rlaif.train.checkpoints import last_checkpoint  # torch, which has been loaded by now

        print_traceback_if_asked()
        say(f"{error.error_name}: {error}")
        kept = "the last checkpoint is kept; " if last_checkpoint(Path(config.out, "checkpoints")) else ""
        say(f"stopped{_done_so_far(display)}; {kept}when that is mended, go on with: {typed}")
        return None
    finally:
        display.close()


def _done_so_far(display: TrainingDisplay) -> str:
    """How far a run came, for the end of a sentence; "" before its first step."""
    return "" if display.steps is None else f" after {display.steps[0]:,} of {display.steps[1]:,} steps"


def command_line(method: str) -> CommandLine:
    """What `rlaif train METHOD --help` says beside the options."""
    return CommandLine(prog=f"{PROG} {method}", description=does(method), short=SHORT, epilog=EPILOG)


def does(method: str) -> str:
    """What a method is, in a sentence: its settings' own description.

    >>> does("ipo")
    'A squared loss around a finite margin.'
    """
    said = " ".join((METHODS[method].__doc__ or "").split())
    words = said.partition(": ")[2]
    return words[0].upper() + words[1:]


def method_place(arguments: Sequence[str]) -> int | None:
    """Where the method stands: the first argument that is neither a flag nor a flag's value; None for nowhere.

    >>> method_place(["--model", "dpo", "--quiet", "rm", "-o", "x"])
    3
    """
    flags = {option.name: option for config in METHODS.values() for option in options(config)}
    with_value = {f"--{name.replace('_', '-')}" for name, option in flags.items()
                  if scalar_types(option.annotation) != (bool,)}  # fmt: skip
    with_value |= {"--config", *SHORT.values()}
    is_value = False
    for place, argument in enumerate(arguments):
        if not is_value and not argument.startswith("-"):
            return place
        is_value = not is_value and argument in with_value
    return None


def methods_help() -> str:
    """What `rlaif train --help` prints."""
    width = max(map(len, METHODS))
    return "\n".join(
        [
            f"usage: {PROG} METHOD --model MODEL --data RUN_OR_FILE -o DIR [flags]",
            "",
            "Train a model on labels (the run folder of rlaif label or rate, or a file of rows), or online: on what it",
            "answers to the prompts of a file, as a judge rewards it.",
            "",
            "methods on labels:",
            *(f"  {method:<{width}}   {does(method)}" for method in TRAIN_CONFIGS),
            "",
            "online methods:",
            *(f"  {method:<{width}}   {does(method)}" for method in ONLINE_CONFIGS),
            "",
            f"{PROG} METHOD --help shows a method's flags.",
        ]
    )


def summary(outcome: TrainOutcome, method: str) -> str:
    """The table at the end of a run."""
    folder = nearby(outcome.folder)
    failed = f", {outcome.skipped:,} cannot be read (see {folder}/failures.jsonl)" if outcome.skipped else ""
    done = " (all done before, nothing left to do)" if outcome.was_finished else ""
    figures = [f"{name.replace('_', ' ')} {shown(name, outcome.metrics[f'eval_{name}'])}"
               for name in _TOLD if f"eval_{name}" in outcome.metrics]  # fmt: skip
    what = "prompts" if method in ONLINE_CONFIGS else "rows"
    lines = [
        (what, f"{outcome.rows:,} trained on, {outcome.held_out:,} held out{failed}"),
        ("steps", f"{outcome.steps:,}{done}"),
        *([("held out", ", ".join(figures))] if figures else []),
        ("model", folder),
        ("about it", f"{folder}/README.md"),
    ]
    if method == "rm":
        lines.append(("use it", f"rlaif label INPUT -o DIR --judge hf-reward:{folder}"))
    return aligned(lines)

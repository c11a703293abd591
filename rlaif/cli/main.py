"""`rlaif`: finds the command, runs it, and turns what goes wrong into one sentence and an exit code.

Exit codes: 0 all done; 1 internal error; 2 wrong use, nothing was started; 3 finished, but some rows failed; 4 a judge
does not keep to `rlaif probe --threshold`; 130 interrupted, resumable. A command is a module with `run(argv) -> int`,
imported only when it is asked for.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple

from rlaif.cli.terminal import print_traceback_if_asked, say
from rlaif.errors import BudgetExceededError, ConfigError, RlaifError, did_you_mean

EXIT_DONE = 0
EXIT_INTERNAL = 1
EXIT_USAGE = 2
EXIT_FAILED_ROWS = 3
EXIT_INTERRUPTED = 130


class Command(NamedTuple):
    """A line of `rlaif --help`, and the module behind it."""

    usage: str
    does: str
    module: str


COMMANDS = {
    "label": Command("label INPUT -o DIR", "pairwise soft labels for comparisons", "rlaif.cli.label"),
    "calibrate": Command(
        "calibrate RUN -o DIR", "calibrated labels from a finished run, without a call", "rlaif.cli.calibrate"
    ),
    "reweight": Command(
        "reweight RUN -o DIR", "labels by other weights of the principles, without a call", "rlaif.cli.reweight"
    ),
    "rate": Command("rate INPUT -o DIR", "ratings from 1 to 10 for single responses", "rlaif.cli.rate"),
    "generate": Command("generate INPUT -o DIR", "responses to prompts, and comparisons of them", "rlaif.cli.generate"),
    "revise": Command(
        "revise INPUT -o DIR", "responses criticised and revised by principles, and comparisons", "rlaif.cli.revise"
    ),
    "filter": Command("filter INPUT -o DIR", "the pairs worth training on, with counts", "rlaif.cli.filter"),
    "export": Command(
        "export DIR --format F -o FILE", "rows for other trainers: TRL, OpenRLHF, axolotl, ...", "rlaif.cli.export"
    ),
    "rank": Command("rank INPUT -o DIR", "policies and candidates in order, with intervals", "rlaif.cli.rank"),
    "pipeline": Command("pipeline FILE.yaml", "several of these in one resumable run", "rlaif.cli.pipeline"),
    "audit": Command("audit INPUT -o DIR", "how far the labels agree with people, and why not", "rlaif.cli.audit"),
    "probe": Command("probe --judge J", "a judge's biases, and the attacks it falls for", "rlaif.cli.probe"),
    "train": Command("train METHOD -o DIR", "a reward model or a policy, from soft labels", "rlaif.cli.train"),
    "evaluate": Command(
        "evaluate A B -o DIR", "two policies under a judge: win rates with intervals", "rlaif.cli.evaluate"
    ),
    "serve": Command("serve --judge J", "the judge as a reward endpoint over HTTP", "rlaif.cli.serve"),
    "show": Command("show prompt|run|row", "what the judge is sent, what a run did, one label", "rlaif.cli.show"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code.

    Args:
        argv: Without the program's name; None takes those of this process.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    code = EXIT_DONE
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that is not UTF-8 shows what it can
    try:
        try:
            code = _dispatch(arguments)
        except SystemExit as stop:  # argparse has printed a help text
            code = stop.code if isinstance(stop.code, int) else EXIT_DONE
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (head, less) has what it wanted. Python flushes stdout once more at exit: let that find nothing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        say("interrupted")
        return EXIT_INTERRUPTED
    except RlaifError as error:
        print_traceback_if_asked()
        say(f"{error.error_name}: {error}")
        return EXIT_INTERRUPTED if isinstance(error, BudgetExceededError) else EXIT_USAGE
    except MemoryError:
        print_traceback_if_asked()
        say("out of memory; what was written before is kept")
        return EXIT_INTERNAL
    except Exception as error:
        if not print_traceback_if_asked():
            say(f"internal error: {type(error).__name__}: {error}; RLAIF_DEBUG=1 shows the traceback to report")
        return EXIT_INTERNAL
    return code


def _dispatch(arguments: Sequence[str]) -> int:
    first = arguments[0] if arguments else None
    if first in ("-h", "--help", "help"):
        print(_help())
        return EXIT_DONE
    if first == "--version":
        from importlib.metadata import version

        print(f"rlaif {version('rlaif')}")
        return EXIT_DONE
    if first is None:
        say(_help())
        return EXIT_USAGE
    if first not in COMMANDS:
        raise ConfigError(f"unknown command {first!r}{did_you_mean(first, COMMANDS)}; known: {', '.join(COMMANDS)}")
    code: int = import_module(COMMANDS[first].module).run(arguments[1:])
    return code


def _help() -> str:
    width = max(len(command.usage) for command in COMMANDS.values())
    lines = [f"  {command.usage:<{width}}   {command.does}" for command in COMMANDS.values()]
    return "\n".join(
        [
            "usage: rlaif COMMAND [flags]",
            "",
            "AI feedback for preference learning: soft labels from a judge's log-probabilities.",
            "",
            "commands:",
            *lines,
            "",
            "rlaif COMMAND --help shows a command's flags; rlaif --version the version.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())

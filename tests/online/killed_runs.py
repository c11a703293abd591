"""`rlaif train` in processes of their own that are killed at a chosen moment; each begins with all modules loaded."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

_PRELOADED = ["tests.online.killed_runs", "rlaif.cli.train", "rlaif.online.results", "rlaif.online.session", "peft",
              "transformers.models.llama.modeling_llama", "torch.utils.tensorboard", "pyarrow.parquet"]  # fmt: skip


class Moment(NamedTuple):
    """When a process kills itself.

    Attributes:
        place: MODULE:CLASS.FUNCTION or MODULE:FUNCTION.
        call: Of that function, from 1.
        is_after: Once it has returned, and not before.
    """

    place: str
    call: int
    is_after: bool = False


def rlaif(argv: Sequence[str], folder: Path, moment: Moment | None = None) -> int:
    """Run a command in a process; the exit code, negative for the signal that killed it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    process = context.Process(target=_command, args=(list(argv), folder, moment))
    process.start()
    process.join(120)
    assert process.exitcode is not None, "still running"
    return process.exitcode


def _command(argv: Sequence[str], folder: Path, moment: Moment | None) -> None:
    import torch

    from rlaif.cli.main import main
    from rlaif.online import results

    torch.set_num_threads(1)
    gc.freeze()  # what is loaded is not looked through at the end of each run
    os.chdir(folder)
    with (folder / "output.txt").open("a", encoding="utf-8") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    results.plot_curves = lambda *_, **__: []  # takes longer than the run
    if moment is not None:
        _arm(moment)
    sys.exit(main(list(argv)))


def _arm(moment: Moment) -> None:
    module, _, path = moment.place.partition(":")
    owner: Any = import_module(module)
    *within, name = path.split(".")
    for each in within:
        owner = getattr(owner, each)
    function: Callable[..., Any] = getattr(owner, name)
    calls = 0

    @wraps(function)
    def watched(*given: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == moment.call and not moment.is_after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*given, **named)
        if calls == moment.call:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, watched)

"""The command that trains a model that ships: the judge's and the policy's take the same flags."""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path


def train_from_command_line(package: str, description: str, *, minutes: float) -> None:
    """Read the flags and train, or write the example data.

    Args:
        package: "builtin_judge" or "builtin_policy": its `trainer.train` and `example_data.write_examples` are called.
        description: Of the command.
        minutes: Length of the whole schedule, where nobody says.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs", package), help="folder of the finished model")
    parser.add_argument("--state", type=Path, help="folder of the resumable state (default: OUT/state)")
    parser.add_argument(
        "--minutes", type=float, default=minutes, help=f"length of the whole schedule (default {minutes:g})"
    )
    parser.add_argument("--processes", type=int, default=2, help="one-thread processes (default 2)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="go on from the saved state")
    parser.add_argument("--write-examples", type=Path, metavar="FOLDER", help="write the example data and stop")
    options = parser.parse_args()
    if options.write_examples:
        import_module(f"{package}.example_data").write_examples(options.write_examples)
        return
    from .loop import Run  # torch

    run = Run(options.out, options.state or options.out / "state", options.minutes, options.processes, options.seed)
    import_module(f"{package}.trainer").train(run, resume=options.resume)

"""What `torchrun` runs in two processes: `python two_processes.py FOLDER METHOD ...` trains each of them, and then two
reward models: one on very few rows, and one that the first process stops.

FOLDER holds `model` and rows in `METHOD.jsonl`; each method's run is saved in `runs-WORLD/METHOD`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from rlaif.engine import training_results
from rlaif.engine.training import train
from rlaif.engine.training_config import RowsConfig
from tests.engine.training_runs import StopsAfter, config_of

ODD = {"batch_size": 3, "max_steps": 3, "optimizer": "sgd", "learning_rate": 2e-3, "max_grad_norm": 0.0}


def main(folder: Path, methods: list[str]) -> None:
    torch.set_num_threads(1)
    training_results.plot_curves = lambda *given, **more: []  # not what this is about
    world = os.environ.get("WORLD_SIZE", "1")
    for method in methods:
        out = folder / f"runs-{world}" / method  # beside which the reference cache stands
        out.parent.mkdir(exist_ok=True)
        rows = folder / f"{method}.jsonl"
        config = config_of(method, folder / "model", rows, out, optimization=ODD, rows=RowsConfig(held_out=0.3))
        train(method, config)


def starve(folder: Path) -> None:
    """Fewer rows in a step, and fewer held-out rows, than there are processes."""
    world = os.environ.get("WORLD_SIZE", "1")
    single = {**ODD, "batch_size": 1}
    config = config_of(
        "rm", folder / "model", folder / "rm.jsonl", folder / f"runs-{world}" / "starved",
        optimization=single, rows=RowsConfig(held_out=0.001),
    )  # fmt: skip
    train("rm", config)


def stop(folder: Path) -> None:
    """Have the first process alone ask to stop in the first step, and write down that all of them did."""
    config = config_of("rm", folder / "model", folder / "rm.jsonl", folder / "stopped", optimization=ODD)
    try:
        train("rm", config, StopsAfter(1))  # the engine asks the first process only
    except KeyboardInterrupt:
        (folder / f"stopped-{os.environ['RANK']}").touch()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
    starve(Path(sys.argv[1]))
    stop(Path(sys.argv[1]))

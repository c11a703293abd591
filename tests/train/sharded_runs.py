"""What `torchrun` runs in two processes: `python sharded_runs.py FOLDER` trains with weights that FSDP splits.

FOLDER holds `model` and `pairs.jsonl`; a run is saved in `runs-WORLD/NAME`. accelerate splits nothing on a CPU. Told
that these processes have a GPU each, it does as it does there, on gloo.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType

from rlaif.engine import training_results
from rlaif.engine.training import train
from rlaif.engine.training_config import RowsConfig
from rlaif.train.config import AdapterConfig, CheckpointConfig
from tests.engine.training_runs import FAST, config_of, run_json

WORLD = int(os.environ.get("WORLD_SIZE", "1"))
make_state = AcceleratorState.__init__


def make_state_as_of_gpus(self: AcceleratorState, *given: Any, **more: Any) -> None:
    is_new = not AcceleratorState._shared_state
    PartialState(cpu=True)
    if is_new:
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    make_state(self, *given, **more)


def train_in(folder: Path, name: str, method: str, **settings: Any) -> Path:
    """Train on all processes, into `runs-WORLD/NAME`."""
    out = folder / f"runs-{WORLD}" / name
    out.parent.mkdir(exist_ok=True)
    optimization = {**FAST, "batch_size": 3, "max_tokens": 60, **settings.pop("optimization")}
    if WORLD > 1:
        optimization["trainer_arg"] = {"fsdp": "true"}
    config = config_of(
        method, folder / "model", folder / "pairs.jsonl", out, rows=RowsConfig(held_out=0.25),
        checkpoints=CheckpointConfig(save_every=2), optimization=optimization, **settings,
    )  # fmt: skip
    train(method, config)
    return out


def policy(folder: Path) -> None:
    """Four steps, in two sessions where the weights are split."""
    if WORLD > 1:
        out = train_in(folder, "policy", "dpo", optimization={"max_steps": 2})
        if os.environ["RANK"] == "0":  # as if four steps had been asked for at first
            known = run_json(out)
            known["decisive"]["max_steps"], known["status"] = 4, "interrupted"
            (out / "run.json").write_text(json.dumps(known))
        torch.distributed.barrier()
    train_in(folder, "policy", "dpo", optimization={"max_steps": 4})


def rewards(folder: Path) -> None:
    """A reward model with an adapter, in mixed precision."""
    precise = {"max_steps": 2, "precision": "bfloat16"}
    train_in(folder, "rewards", "rm", optimization=precise, adapter=AdapterConfig(lora_rank=4))


def reference(folder: Path) -> None:
    """A policy that is still its reference, in mixed precision."""
    train_in(folder, "reference", "dpo", optimization={"max_steps": 1, "precision": "bfloat16"})


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    training_results.plot_curves = lambda *given, **more: []  # not what this is about
    policy(folder)
    rewards(folder)
    reference(folder)


if __name__ == "__main__":
    AcceleratorState.__init__ = make_state_as_of_gpus
    main(Path(sys.argv[1]))

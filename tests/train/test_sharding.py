"""Weights that are split over processes: the same training, saved as if they had not been."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from tiny_models import save_model
from torch import nn
from transformers.integrations import deepspeed

from rlaif.train.sharding import gathered_weights, loading_whole
from tests.engine.training_runs import losses, metrics, pair_rows, run, run_json, write_rows
from tests.train import sharded_run

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
FLAGS = (
    "--device cpu --held-out 0.25 --batch-size 3 --learning-rate 5e-3 --schedule constant --warmup 0 --max-tokens 60 "
    "--eval-every 2"
).split()


def sharded(method: str, folder: Path, out: Path, *flags: str) -> None:
    """Train in two processes that share the weights."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0"),
            *(sharded_run.__file__, "train", method, "--model", str(folder / "model")),
            *("--data", str(folder / "pairs.jsonl"), "-o", str(out), *FLAGS, "--trainer-arg", "fsdp=true", *flags),
        ],
        env={**ENVIRONMENT, "XDG_CACHE_HOME": str(folder / "cache")},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    assert (out / "checkpoints" / "checkpoint-2" / "pytorch_model_fsdp.bin").exists(), "nothing was split"


def alone(method: str, folder: Path, out: Path, *flags: str) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "rlaif", "train", method, "--model", str(folder / "model")),
            *("--data", str(folder / "pairs.jsonl"), "-o", str(out), *FLAGS, *flags),
        ],
        env={**ENVIRONMENT, "XDG_CACHE_HOME": str(folder / "cache")},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]

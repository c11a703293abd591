"""Training in real processes: two of them equal one, and a killed one goes on as if nothing had happened."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import save_model

from rlaif.cli.main import main
from tests.engine import two_processes
from tests.engine.training_runs import (
    demonstration_rows,
    losses,
    metrics,
    pair_rows,
    run,
    run_json,
    write_rows,
)

pytestmark = pytest.mark.usefixtures("quick_training")
ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}


def test_two_processes_train_as_one(tmp_path):
    save_model(tmp_path / "model")
    rows = {"sft": demonstration_rows(), "rm": pair_rows(), "dpo": pair_rows(), "kto": pair_rows()}
    for method, of_method in rows.items():
        write_rows(tmp_path / f"{method}.jsonl", of_method)
    script = str(Path(two_processes.__file__))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launch, script, str(tmp_path), *rows], env=ENVIRONMENT, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    # One of them was asked to stop: both did, after the same step, each with its own random state.
    (stopped,) = (tmp_path / "stopped" / "checkpoints").iterdir()
    assert {path.name for path in stopped.iterdir()} >= {"complete", "rng_state_0.pth", "rng_state_1.pth"}
    assert all((tmp_path / f"stopped-{rank}").exists() for rank in range(2))
    assert run_json(tmp_path / "stopped")["status"] == "interrupted"
    two_processes.main(tmp_path, list(rows))
    two_processes.starve(tmp_path)
    for method in [*rows, "starved"]:
        two, one = tmp_path / "runs-2" / method, tmp_path / "runs-1" / method
        assert len(losses(two)) == 3
        for found, expected in zip(metrics(two), metrics(one), strict=True):
            for name in expected.keys() - {"tokens_per_second"}:
                assert found[name] == pytest.approx(expected[name], rel=1e-5, abs=1e-5), f"{method} {name}"
        theirs = load_file(one / "model.safetensors")
        for name, value in load_file(two / "model.safetensors").items():
            torch.testing.assert_close(value, theirs[name], rtol=1e-5, atol=1e-5, msg=f"{method} {name}")
        known = [run_json(folder) for folder in (two, one)]
        assert known[0].get("reward_shift") == pytest.approx(known[1].get("reward_shift"), abs=1e-5)
        for section, figures in known[0]["evaluation"].items():
            for name, figure in figures.items():
                expected = known[1]["evaluation"][section][name]["value"]
                assert figure["value"] == pytest.approx(expected, abs=1e-5), f"{method} {section} {name}"


def test_a_killed_run_goes_on_as_if_nothing_had_happened(tmp_path):
    model, data = save_model(tmp_path / "model"), write_rows(tmp_path / "pairs.jsonl", pair_rows())
    out, cache = tmp_path / "killed", tmp_path / "cache"
    flags = {
        "model": model, "data": data, "out": out, "reference-cache": cache, "device": "cpu", "held-out": 0,
        "max-steps": 60, "learning-rate": 1e-3, "schedule": "cosine", "batch-size": 4, "warmup": 0, "save-every": 5,
    }  # fmt: skip
    typed = ["dpo", "--quiet", *(part for flag, value in flags.items() for part in (f"--{flag}", str(value)))]
    command = [sys.executable, "-m", "rlaif", "train", *typed]
    checkpoints = out / "checkpoints"
    process = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    while not (checkpoints / "checkpoint-10" / "complete").exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert run_json(out)["status"] == "running"
    last = max(int(path.parent.name.partition("-")[2]) for path in checkpoints.glob("*/complete"))
    assert last < 60
    # Another one, which the kill would have cut short: it is newer, and no whole one.
    torn = checkpoints / "checkpoint-59"
    shutil.copytree(checkpoints / f"checkpoint-{last}", torn)
    (torn / "complete").unlink()
    weights = torn / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])

    assert main(["train", *typed]) == 0
    assert not torn.exists()
    whole = tmp_path / "whole"
    cosine = {"max_steps": 60, "learning_rate": 1e-3, "schedule": "cosine"}
    run("dpo", model, data, whole, optimization=cosine, reference_cache=str(cache))
    assert len(losses(whole)) == 60
    assert losses(out) == pytest.approx(losses(whole), abs=1e-7)
    theirs = load_file(whole / "model.safetensors")
    for name, value in load_file(out / "model.safetensors").items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-6, atol=1e-6, msg=name)

"""Weights that are split over processes: the same training, saved as if they had not been."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
from accelerate.utils import DistributedType
from safetensors.torch import load_file
from tiny_models import save_model
from transformers import AutoModelForSequenceClassification
from transformers.integrations import deepspeed

from rlaif.engine import training_results
from rlaif.train.sharding import gathered_weights, loading_whole
from tests.engine.training_runs import losses, metrics, pair_rows, run_json, write_rows
from tests.train import sharded_runs

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With the same runs in `runs-2`, of two processes that share the weights, and in `runs-1`, of one."""
    path = tmp_path_factory.mktemp("split")
    save_model(path / "model")
    write_rows(path / "pairs.jsonl", pair_rows())
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launch, sharded_runs.__file__, str(path)], env=ENVIRONMENT, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(training_results, "plot_curves", lambda *given, **more: [])
        sharded_runs.main(path)
    return path


def assert_same_weights(one, other, *, within):
    theirs = load_file(other / "model.safetensors")
    found = load_file(one / "model.safetensors")
    assert found.keys() == theirs.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, theirs[name], rtol=0.0, atol=within, msg=name)


def test_a_split_model_trains_goes_on_and_is_saved_as_a_whole_one(folder):
    split, whole = folder / "runs-2" / "policy", folder / "runs-1" / "policy"
    assert (split / "checkpoints" / "checkpoint-4" / "pytorch_model_fsdp.bin").exists(), "nothing was split"
    assert len(losses(split)) == 4
    for name in ("loss", "grad_norm", "eval_loss", "eval_margin"):
        expected = [line[name] for line in metrics(whole) if name in line]
        found = [line[name] for line in metrics(split) if name in line]
        assert found == pytest.approx(expected, abs=1e-4), name
    assert_same_weights(split, whole, within=1e-4)
    assert (split / "config.json").read_text() == (whole / "config.json").read_text()


def test_a_split_reward_model_with_an_adapter_is_centered_and_merged(folder):
    split, whole = folder / "runs-2" / "rewards", folder / "runs-1" / "rewards"
    assert losses(split) == pytest.approx(losses(whole), abs=2e-3)
    shift = run_json(split)["reward_shift"]
    assert shift == pytest.approx(run_json(whole)["reward_shift"], abs=1e-2)
    assert AutoModelForSequenceClassification.from_pretrained(split).config.reward_shift == shift
    assert_same_weights(split, whole, within=2e-2)


def test_a_split_policy_in_mixed_precision_is_still_its_reference(folder):
    (loss,) = losses(folder / "runs-2" / "reference")
    assert loss == pytest.approx(math.log(2), abs=1e-4)


class Config:
    """As of `HfDeepSpeedConfig`, whose package is not here."""

    def is_zero3(self):
        return True


def test_a_model_is_loaded_whole_though_deepspeed_will_split_it():
    config = Config()
    deepspeed.set_hf_deepspeed_config(config)
    try:
        assert deepspeed.is_deepspeed_zero3_enabled()
        with loading_whole():
            assert not deepspeed.is_deepspeed_zero3_enabled()
        with pytest.raises(OSError, match="no such model"), loading_whole():
            raise OSError("no such model")
        assert deepspeed.is_deepspeed_zero3_enabled()
    finally:
        deepspeed.unset_hf_deepspeed_config()


@pytest.mark.parametrize(("stage", "is_split"), [(2, False), (3, True)])
def test_deepspeed_splits_weights_at_its_third_stage_only(stage, is_split):
    weights = {"score.weight": torch.ones(1, 2)}
    accelerator = types.SimpleNamespace(
        distributed_type=DistributedType.DEEPSPEED,
        state=types.SimpleNamespace(deepspeed_plugin=types.SimpleNamespace(zero_stage=stage)),
    )
    engine = types.SimpleNamespace(_zero3_consolidated_16bit_state_dict=lambda: weights)
    assert gathered_weights(accelerator, engine) is (weights if is_split else None)

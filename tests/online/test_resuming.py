"""A run that is killed, again and again, and gone on with ends as one that was left alone, bit for bit."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest
import torch
from safetensors.torch import load_file

from tests.online.killed_runs import Moment, rlaif
from tests.online.online_runs import ARMS, WORTH, write_prompts

BEGUN = Moment("rlaif.online.source:RolloutSource.begin", 3, is_after=True)
LEARNING = Moment("rlaif.train.trainer:PreferenceTrainer.training_step", 2, is_after=True)
SAVING = Moment("rlaif.online.feed:write_state", 1)
SAVED = Moment("rlaif.train.trainer:remove_checkpoints", 2)
KEPT = Moment("rlaif.online.kept:KeptRollouts.keep", 2)
FINISHING = Moment("rlaif.online.results:save_trained", 1)

REWARD = f"""
ARMS, WORTH = {ARMS!r}, {WORTH!r}

def score(completions, **columns):
    with open("calls.txt", "a") as file:
        file.write("x" * len(completions) + "\\n")
    return [None if text[:1] == "?" else WORTH[ARMS.index(text[:1])] for text in completions]
"""
RUNS: dict[str, tuple[str, tuple[str, ...]]] = {
    "grpo with rows pending": ("grpo", ("--rollout-prompts", "8", "--group-size", "4", "--beta", "0.1")),
    "ppo with a head and rows pending": (
        "ppo", ("--rollout-epochs", "3", "--kl-target", "0.2", "--kl-horizon", "20", "--preset", "ppo-max"),
    ),
    "drlaif with a batch begun": ("drlaif", ("--overlap",)),
    "online-dpo with an adapter": ("online-dpo", ("--lora-rank", "2")),
    "rloo with an adaptive price": ("rloo", ("--kl-target", "0.2", "--kl-horizon", "20", "--guards", "on")),
}  # fmt: skip
TIMINGS = {"seconds_writing", "seconds_waiting", "tokens_per_second", "eval_runtime"}


def command(name: str, bandit: Path, out: str) -> list[str]:
    method, flags = RUNS[name]
    return [
        "train", method, "--model", str(bandit), "--data", "prompts.jsonl", "-o", out, "--reward", "worth:score",
        "--device", "cpu", "--response-tokens", "2", "--batch-size", "4", "--max-steps", "8", "--save-every", "3",
        "--learning-rate", "0.01", "--suite", "none", *(() if "--guards" in flags else ("--guards", "off")), *flags,
    ]  # fmt: skip


def steps(out: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMINGS} for line in lines]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        found.update({f"{path.name}/{name}": value for name, value in load_file(path).items()})
    return found


def assert_same(one: Path, other: Path) -> None:
    ours, theirs = weights(one), weights(other)
    assert ours
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def calls(folder: Path) -> int:
    """Completions that were asked about."""
    return (folder / "calls.txt").read_text().count("x")


@pytest.mark.parametrize(
    ("name", "moments"),
    [
        ("grpo with rows pending", [LEARNING, SAVING, KEPT]),
        ("ppo with a head and rows pending", [SAVED, LEARNING]),
        ("drlaif with a batch begun", [BEGUN, SAVED]),
        ("online-dpo with an adapter", [LEARNING, FINISHING]),
        ("rloo with an adaptive price", [SAVED, SAVING]),
    ],
)
def test_a_killed_run_ends_as_if_it_had_not_been(
    name: str, moments: list[Moment], bandit: Path, tmp_path: Path
) -> None:
    write_prompts(tmp_path / "prompts.jsonl", 24)
    (tmp_path / "worth.py").write_text(REWARD)
    assert rlaif(command(name, bandit, "whole"), tmp_path) == 0, (tmp_path / "output.txt").read_text()
    asked = calls(tmp_path)
    for moment in moments:
        assert rlaif(command(name, bandit, "out"), tmp_path, moment) == -signal.SIGKILL
        assert json.loads((tmp_path / "out" / "run.json").read_text())["status"] == "running"
    assert rlaif(command(name, bandit, "out"), tmp_path) == 0, (tmp_path / "output.txt").read_text()
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert_same(whole, out)
    assert_same(whole / "checkpoints" / "checkpoint-8", out / "checkpoints" / "checkpoint-8")
    assert steps(out) == steps(whole)
    assert steps(out)[-1]["step"] == 8
    kept = sorted(path.name for path in (whole / "rollouts" / "data").iterdir())
    assert kept == sorted(path.name for path in (out / "rollouts" / "data").iterdir())
    for each in kept:
        ours, theirs = (parquet.read_table(folder / "rollouts" / "data" / each).to_pylist() for folder in (out, whole))
        assert ours == theirs
    group = 4 if name.startswith("grpo") else 2 if name.startswith("online") else 1
    batch = (8 if name.startswith("grpo") else 4) * (4 if name.startswith("rloo") else group)
    assert asked <= calls(tmp_path) - asked <= asked + len(moments) * 3 * batch

"""Judges over a wire: one that goes down in the middle of a run, for a while or for good; what a run's folder says."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rlaif.cli.main import main
from rlaif.engine.config import CallConfig
from rlaif.errors import BackendUnusableError, ConfigError, RunFolderError
from rlaif.online.guard_config import GuardConfig
from rlaif.rewards import patience
from rlaif.rewards.config import RewardConfig
from rlaif.train.config import CheckpointConfig
from tests.online.online_runs import Heard, figure, metrics, run, run_json, save_bandit, write_prompts
from tests.servers import Answer, Received, ScriptedServer, chat_reply

pytestmark = pytest.mark.usefixtures("without_curves")


@pytest.fixture(autouse=True)
def _quick_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("rlaif.engine.retry.FIRST_WAIT", 0.001)
    monkeypatch.setattr(patience, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(patience, "LONGEST_WAIT", 0.02)


class Judge:
    """Gives each prompt a score that its text decides; goes down after so many answers, and back up when it is told."""

    def __init__(self) -> None:
        self.answered = 0
        self.fails_after = 10**9
        self.refuses = 0
        """Requests refused since it went down."""
        self.comes_back_after = 10**9
        self._lock = threading.Lock()

    def __call__(self, received: Received) -> Answer:
        with self._lock:
            if self.answered >= self.fails_after:
                self.refuses += 1
                if self.refuses <= self.comes_back_after:
                    return Answer({"error": {"message": "down"}}, status=500)
                self.fails_after = 10**9
            self.answered += 1
        if received.method == "GET":  # which models there are
            return Answer({"data": []})
        text = received.json["messages"][-1]["content"]
        share = hashlib.sha256(text.encode()).digest()[0] / 255
        return Answer(chat_reply((("1", -0.1 - 4 * share), ("9", -0.1 - 4 * (1 - share)))))


@pytest.fixture
def judge() -> Judge:
    return Judge()


@pytest.fixture
def url(judge: Judge) -> Iterator[str]:
    with ScriptedServer(judge) as server:
        yield server.url


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return write_prompts(tmp_path / "prompts.jsonl", 8)


def settings_of(url: str, *, overlap: bool = False, patience: float = 30.0) -> dict[str, Any]:
    return {
        "rewarding": RewardConfig(("judge",), patience),
        "backend": {"judge": ("openai:judge",), "base_url": (url,)},
        "calls": CallConfig(max_retries=0),
        "rollout": {"response_tokens": 2, "group_size": 2, "overlap": overlap},
        "optimization": {"max_steps": 5, "batch_size": 4},
        "checkpoints": CheckpointConfig(save_every=50, eval_every=50),
    }


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def assert_same(one: Path, other: Path) -> None:
    ours, theirs = weights(one), weights(other)
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert figure(one, "reward") == figure(other, "reward")


@pytest.mark.parametrize("overlap", [False, True])
def test_a_judge_that_is_down_is_waited_for_and_the_run_ends_as_if_it_had_not_been(
    overlap: bool, judge: Judge, url: str, bandit: Path, rows: Path, tmp_path: Path
) -> None:
    run("rloo", bandit, rows, tmp_path / "whole", **settings_of(url, overlap=overlap))
    asked = judge.answered
    assert len(set(figure(tmp_path / "whole", "reward"))) == 5
    judge.fails_after, judge.comes_back_after = asked + asked // 2, 12
    heard = Heard()
    run("rloo", bandit, rows, tmp_path / "out", listener=heard, **settings_of(url, overlap=overlap))
    assert judge.refuses > 12
    assert [text for text in heard.warnings if "is down" in text and "waiting for it up to 30 s" in text]
    assert_same(tmp_path / "whole", tmp_path / "out")


@pytest.mark.parametrize("overlap", [False, True])
def test_a_judge_that_is_gone_stops_the_run_with_all_its_steps_and_the_same_command_goes_on(
    overlap: bool, judge: Judge, url: str, bandit: Path, rows: Path, tmp_path: Path
) -> None:
    run("rloo", bandit, rows, tmp_path / "whole", **settings_of(url, overlap=overlap))
    asked = judge.answered
    judge.answered = 0
    judge.fails_after = asked // 2
    with pytest.raises(BackendUnusableError, match=r"was down for 0\.1 s, stopped.*the same command resumes the run"):
        run("rloo", bandit, rows, tmp_path / "out", **settings_of(url, overlap=overlap, patience=0.1))
    done = len(metrics(tmp_path / "out"))
    assert 0 < done < 5
    assert (tmp_path / "out" / "checkpoints" / f"checkpoint-{done}" / "complete").exists()
    assert run_json(tmp_path / "out")["status"] == "interrupted"
    judge.fails_after = 10**9
    run("rloo", bandit, rows, tmp_path / "out", **settings_of(url, overlap=overlap))
    assert_same(tmp_path / "whole", tmp_path / "out")
    # Replies are in the journal: nothing is asked twice, but for the question whether it answers at all.
    assert asked <= judge.answered <= asked + 2


def test_a_judge_that_is_gone_is_an_interruption_to_the_command_line(
    judge: Judge,
    url: str,
    bandit: Path,
    rows: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    judge.fails_after = 16
    typed = [
        "train", "grpo", "--model", str(bandit), "--data", str(rows), "-o", "out", "--device", "cpu", "--guards", "off",
        "--suite", "none", "--judge", "openai:judge", "--base-url", url, "--max-retries", "0", "--group-size", "4",
        "--response-tokens", "2", "--batch-size", "4", "--max-steps", "4", "--judge-patience", "0.1",
    ]  # fmt: skip
    assert main(typed) == 130
    said = capsys.readouterr().err
    assert "BackendUnusableError: " in said
    assert "the last checkpoint is kept; when that is mended, go on with: rlaif train grpo" in said
    judge.fails_after = 10**9
    assert main(typed) == 0
    assert run_json(tmp_path / "out")["status"] == "finished"
    assert main(typed) == 0
    assert "all done before, nothing left to do" in capsys.readouterr().out


# What a run's folder says.


def test_a_folder_tells_what_was_done_and_takes_no_other_run(bandit: Path, tmp_path: Path) -> None:
    data = write_prompts(tmp_path / "prompts.jsonl", 8)
    settings: dict[str, Any] = {
        "reward": ("judge",), "backend": {"judge": ("fake:0.7",)}, "keep_rollouts": 2,
        "optimization": {"max_steps": 2, "batch_size": 4},
    }  # fmt: skip
    out = tmp_path / "out"
    run("drlaif", bandit, data, out, **settings)
    told = run_json(out)
    assert told["status"] == "finished"
    assert told["command"] == "train drlaif"
    assert told["rows"] == {"prompts": 8, "watched": 0}
    assert told["rewards"] == {"judge": {"kind": "judge", "weight": 1.0}}
    card = (out / "README.md").read_text()
    assert "direct RLAIF" in card
    assert str(tmp_path) not in card
    assert sorted(path.name for path in (out / "rollouts" / "data").iterdir()) == [
        "batch-000000.parquet", "batch-000001.parquet",
    ]  # fmt: skip
    assert not {"value_head", "critic"} & {name.partition(".")[0] for name in weights(out)}
    with pytest.raises(RunFolderError, match="learning_rate"):
        run(
            "drlaif",
            bandit,
            data,
            out,
            **{**settings, "optimization": {"max_steps": 2, "batch_size": 4, "learning_rate": 1.0}},
        )
    with pytest.raises(RunFolderError):
        run("grpo", bandit, data, out, **settings)


def test_settings_that_mean_nothing_here_are_refused(bandit: Path, prompts: Path, tmp_path: Path) -> None:
    early = CheckpointConfig(early_stopping=2)
    with pytest.raises(ConfigError, match="early_stopping: waits for a lower loss"):
        run("grpo", bandit, prompts, tmp_path / "out", checkpoints=early)


def test_a_guarded_run_watches_held_out_prompts_with_a_judge_that_it_does_not_learn_from(tmp_path: Path) -> None:
    """Every other step, the start included; win rates from the second time on."""
    from tests.online.online_runs import LETTERS, write_rows

    model = save_bandit(tmp_path / "model", LETTERS[:12])
    data = write_rows(tmp_path / "rows.jsonl", [{"prompt": one + two} for one in "abcde" for two in "abcde"])
    out = tmp_path / "out"
    run(
        "grpo", model, data, out, reward=("tests.online.reward_functions:best",),
        guarding=GuardConfig(watch_judge=("fake:longer",), watch_prompts=4, watch_every=2, suite="none"),
        backend={"judge": ("fake:0.5",)}, rollout={"response_tokens": 4, "group_size": 4},
        optimization={"max_steps": 4, "batch_size": 4},
    )  # fmt: skip
    watched = [line for line in metrics(out) if "eval_reward" in line]
    assert [line["step"] for line in watched] == [0, 2, 4]
    assert ["eval_win_rate" in line for line in watched] == [False, True, True]
    assert all({"eval_kl", "eval_watched_reward", "eval_completion_tokens"} <= line.keys() for line in watched)
    assert watched[0]["eval_kl"] == pytest.approx(0.0, abs=1e-5)
    assert watched[-1]["eval_kl"] > 0.0
    assert (out / "watch" / "journal").exists()
    assert sorted(path.name for path in (out / "evaluations").iterdir()) == [
        "start.json", "step-000000.jsonl", "step-000002.jsonl", "step-000004.jsonl",
    ]  # fmt: skip
    assert run_json(out)["rows"] == {"prompts": 21, "watched": 4}

"""`rlaif train` of the online methods as it is typed: help, faults, and runs with the judge that ships."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlaif.cli.main import main
from rlaif.online import training
from rlaif.online.config import ONLINE_CONFIGS
from tests.online.online_runs import save_bandit, write_prompts

TYPED = ("train", "grpo", "--model", "m", "--data", "in.jsonl", "-o", "out")


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RLAIF_DEBUG", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_help_tells_online_methods_from_those_on_labels(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--help"]) == 0
    of_labels, _, online = capsys.readouterr().out.partition("online methods:")
    for method in ONLINE_CONFIGS:
        assert f"\n  {method} " in online
        assert f"\n  {method} " not in of_labels


@pytest.mark.parametrize(
    ("method", "has", "has_not"),
    [("grpo", "--variant", "--lam"), ("ppo", "--ptx-data", "--variant"), ("rs-dpo", "--eta", "--kl-target")],
)
def test_help_of_a_method_has_its_flags_and_those_of_the_judge(
    method: str, has: str, has_not: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", method, "--help"]) == 0
    out = capsys.readouterr().out
    for flag in (has, "--judge", "--constitution", "--reward", "--watch-judge", "--stop-on-hack", "--lora-rank"):
        assert f"\n  {flag}" in out
    assert f"\n  {has_not} " not in out


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["--gamma", "1"], "--gamma"),
        (["--rollout-top-p", "0"], "--rollout-top-p: 0 leaves no token to choose from"),
        (["--reward", "nothing"], "reward: 'nothing': no source of rewards"),
        (["--reward", "judge", "--reward", "0.5*judge"], "judge is named twice"),
        (["--judge", "self"], "judge: self needs --lora-rank"),
        (["--clip-low", "-1"], "--clip-low: '-1', expected"),
    ],
)
def test_wrong_use_is_said_and_starts_nothing(
    typed: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "gather", lambda *_: pytest.fail("started"))
    assert main([*TYPED, *typed]) == 2
    assert said in capsys.readouterr().err
    assert not Path("out").exists()


def test_prompts_that_cannot_be_read_start_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_bandit(tmp_path / "m")
    (tmp_path / "in.jsonl").write_text('{"prompt": "?"}\n{"question": 3}\n')
    assert main([*TYPED, "--device", "cpu"]) == 2
    assert "in.jsonl, line 2" in capsys.readouterr().err
    assert not Path("out").exists()


def test_a_run_with_a_function_leaves_a_folder_that_explains_itself_and_is_gone_on_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Curves and all; a prompt that does not fit is left out, which the exit code says."""
    save_bandit(tmp_path / "m")
    write_prompts(tmp_path / "in.jsonl", 8)
    with (tmp_path / "in.jsonl").open("a") as file:
        file.write(json.dumps({"id": "long", "prompt": "?" * 40}) + "\n")
    (tmp_path / "short.py").write_text(
        "def score(completions, **columns):\n    return [-len(text) for text in completions]\n"
    )
    flags = ["--device", "cpu", "--reward", "short:score", "--response-tokens", "4", "--batch-size", "4",
             "--max-steps", "3", "--learning-rate", "0.02", "--skip-bad-rows", "--suite", "none"]  # fmt: skip
    assert main([*TYPED, *flags]) == 3
    captured = capsys.readouterr()
    assert "8 trained on, 0 held out, 1 cannot be read (see out/failures.jsonl)" in captured.out
    assert "step 3/3" in captured.err
    for name in ("README.md", "model.safetensors", "metrics.jsonl", "run.json", "failures.jsonl", "rollouts/data"):
        assert Path("out", name).exists(), name
    assert list(Path("out").glob("**/*.png"))
    card = Path("out/README.md").read_text()
    assert "rlaif train grpo --model m" in card
    assert str(tmp_path) not in card
    assert main([*TYPED, *flags]) == 3
    assert "all done before, nothing left to do" in capsys.readouterr().out

"""`rlaif train METHOD` as it is typed: help, faults, real runs of a tiny model, stopping and going on."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tiny_models import save_model

import rlaif
from rlaif.cli import train as train_module
from rlaif.cli.interruption import stopping_after_the_step
from rlaif.cli.main import main
from rlaif.cli.train import method_place, summary
from rlaif.cli.training_progress import MuteTrainingDisplay
from rlaif.engine import training
from rlaif.engine.training import TrainOutcome
from rlaif.engine.training_config import TRAIN_CONFIGS, DpoConfig, TrainConfig
from rlaif.engine.training_listening import TrainingListener, TrainingStart
from rlaif.errors import NonFiniteLossError

START = TrainingStart("dpo", "m", rows=6, held_out=2, tokens=100, steps=4)
TYPED = ("train", "dpo", "--model", "m", "--data", "in.jsonl", "-o", "out")


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RLAIF_DEBUG", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_model(tmp_path_factory.mktemp("models") / "tiny"))


def write_rows(count: int = 8, *, bad: int = 0) -> None:
    rows: list[dict[str, Any]] = [
        {"id": f"r{n}", "prompt": f"What is {n}?", "response_a": f"{n} it is.", "response_b": "No.", "prob_a": 0.8}
        for n in range(count)
    ]
    rows += [{"id": f"bad{n}", "prompt": "Why?", "response_a": "x", "response_b": "y"} for n in range(bad)]
    Path("in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


# What is typed.


def test_help_lists_the_methods(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--help"]) == 0
    out = capsys.readouterr().out
    for method in TRAIN_CONFIGS:
        assert re.search(rf"^  {method} +[A-Z].*\.$", out, re.MULTILINE)


@pytest.mark.parametrize(
    ("method", "has", "has_not"),
    [("dpo", "--reference", "--gamma"), ("simpo", "--gamma", "--reference"), ("rm", "--center-on", "--beta")],
)
def test_help_of_a_method_has_its_flags(
    method: str, has: str, has_not: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", method, "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: rlaif train {method} --model MODEL --data RUN_OR_FILE -o DIR [flags]\n")
    assert has in out
    assert has_not not in out
    assert "Print errors and warnings only." in out


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["train"], "ConfigError: which method? rlaif train METHOD takes one of: sft, rm, dpo"),
        (["train", "--model", "dpo"], "ConfigError: which method?"),
        (["train", "simpoo"], "method 'simpoo' is unknown (did you mean 'simpo' or 'ipo'?), expected one of sft"),
        (["train", "dpo"], "the command line has 3 faults: --model is missing; --data is missing; --out is missing"),
        ([*TYPED, "--gamma", "1"], "--gamma"),
        ([*TYPED, "--merge"], "--merge: needs --lora-rank"),
        ([*TYPED, "more"], "unexpected argument 'more'"),
        ([*TYPED, "--held-out", "1"], "--held-out: '1', expected a number from 0 to 0.9999"),
    ],
)
def test_wrong_use_is_said_and_starts_nothing(
    typed: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "train", lambda *_, **__: pytest.fail("started"))
    assert main(typed) == 2
    assert said in capsys.readouterr().err


def test_the_method_is_found_among_flags() -> None:
    assert method_place(["dpo", "--model", "rm"]) == 0
    assert method_place(["--model", "rm", "--quiet", "-o", "sft", "--beta=1", "dpo"]) == 6
    assert method_place(["--config", "c.yaml"]) is None
    assert method_place([]) is None


def test_a_missing_extra_is_named_before_any_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(train_module, "NEEDED", ("no_such_module",))
    assert main(list(TYPED)) == 2
    assert "pip install 'rlaif[train]'" in capsys.readouterr().err


# What comes of it; the engine is played.


class Played:
    """The engine's part: what it is asked, and what it does."""

    def __init__(self, outcome: TrainOutcome | BaseException, *, steps: int = 4) -> None:
        self.outcome, self.steps = outcome, steps
        self.asked: list[tuple[str, TrainConfig, str]] = []

    def __call__(self, method: str, config: TrainConfig, listener: TrainingListener, *, command: str) -> TrainOutcome:
        self.asked.append((method, config, command))
        if self.steps:
            listener.on_start(START)
        for step in range(1, self.steps + 1):
            listener.on_step(step, START.steps, {"loss": 0.5})
            if listener.is_stopping:
                raise KeyboardInterrupt
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        listener.on_finishing()
        return self.outcome


def outcome(**changes: Any) -> TrainOutcome:
    known: dict[str, Any] = {
        "folder": Path("out"), "steps": 4, "rows": 6, "held_out": 2, "skipped": 0,
        "metrics": {"eval_loss": 0.6, "eval_accuracy": 0.5},
    }  # fmt: skip
    return TrainOutcome(**known | changes)


def play(monkeypatch: pytest.MonkeyPatch, played: Played) -> Played:
    monkeypatch.setattr(training, "train", played)
    return played


def test_the_engine_gets_what_was_typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    played = play(monkeypatch, Played(outcome()))
    Path("c.yaml").write_text("beta: 0.3\nbatch-size: 4\nheld_out: 0.2\n", encoding="utf-8")
    assert main([*TYPED, "--config", "c.yaml", "--beta", "0.5", "--trainer-arg", "bf16=true"]) == 0
    ((method, config, command),) = played.asked
    assert method == "dpo"
    assert isinstance(config, DpoConfig)
    assert (config.model, config.data, config.out) == ("m", "in.jsonl", "out")
    assert (config.loss.beta, config.optimization.batch_size, config.rows.held_out) == (0.5, 4, 0.2)
    assert config.optimization.trainer_arg == {"bf16": "true"}
    assert command.startswith("rlaif train dpo --model m --data in.jsonl -o out --config c.yaml")
    out, err = capsys.readouterr()
    assert "6 trained on, 2 held out" in out
    assert "loss 0.6, accuracy 50.0 %" in out
    assert "training m with dpo" in err


def test_quiet_prints_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    play(monkeypatch, Played(outcome()))
    assert main([*TYPED, "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_rows_that_were_skipped_are_an_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    play(monkeypatch, Played(outcome(skipped=2)))
    assert main([*TYPED, "--skip-bad-rows"]) == 3
    assert "2 cannot be read (see out/failures.jsonl)" in capsys.readouterr().out


def test_the_summary_of_a_reward_model_says_how_to_judge_with_it() -> None:
    assert "--judge hf-reward:out" in summary(outcome(metrics={}), "rm")
    assert "hf-reward" not in summary(outcome(), "dpo")
    assert "nothing left to do" in summary(outcome(was_finished=True), "dpo")


def test_an_error_in_the_middle_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    play(monkeypatch, Played(NonFiniteLossError("the loss of step 3 is nan"), steps=2))
    go_on = f"when that is mended, go on with: rlaif {' '.join(TYPED)}"
    assert main(list(TYPED)) == 130
    lines = capsys.readouterr().err.splitlines()
    assert lines[-2] == "NonFiniteLossError: the loss of step 3 is nan"
    assert lines[-1] == f"stopped after 2 of 4 steps; {go_on}"
    checkpoint = tmp_path / "out" / "checkpoints" / "checkpoint-2"
    checkpoint.mkdir(parents=True)
    assert main(list(TYPED)) == 130
    assert capsys.readouterr().err.splitlines()[-1] == f"stopped after 2 of 4 steps; {go_on}"  # it was cut short
    (checkpoint / "complete").touch()
    assert main(list(TYPED)) == 130
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"stopped after 2 of 4 steps; the last checkpoint is kept; {go_on}"
    )


def test_an_error_before_the_first_step_is_wrong_use(monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch, Played(rlaif.errors.InputError("is empty", path="in.jsonl"), steps=0))
    assert main(list(TYPED)) == 2


def test_ctrl_c_in_a_step_stops_after_it(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    class Interrupted(Played):
        def __call__(self, *args: Any, **kwargs: Any) -> TrainOutcome:
            listener: TrainingListener = args[2]
            listener.on_start(START)
            signal.raise_signal(signal.SIGINT)
            assert listener.is_stopping  # and the step went on
            listener.on_step(1, START.steps, {})
            raise KeyboardInterrupt

    play(monkeypatch, Interrupted(outcome()))
    before = signal.getsignal(signal.SIGINT)  # a job in the background ignores it
    assert main(list(TYPED)) == 130
    err = capfd.readouterr().err
    assert "stopping after this step, with a checkpoint" in err
    assert f"interrupted after 1 of 4 steps; resume with: rlaif {' '.join(TYPED)}" in err
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_nothing_is_trained_stops_at_once(number: signal.Signals) -> None:
    display = MuteTrainingDisplay()
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), stopping_after_the_step(display):
        signal.raise_signal(number)
    assert not display.is_stopping
    assert signal.getsignal(number) is before


# Real runs.

FAST = ("--batch-size", "2", "--device", "cpu", "--learning-rate", "1e-3", "--held-out", "0.25")


def run_json(folder: str) -> Mapping[str, Any]:
    known: Mapping[str, Any] = json.loads(Path(folder, "run.json").read_text(encoding="utf-8"))
    return known


def test_dpo_on_eight_rows_leaves_a_folder_that_explains_itself(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(bad=1)
    typed = ["train", "dpo", "--model", model, "--data", "in.jsonl", "-o", "out", *FAST, "--skip-bad-rows"]
    assert main(typed) == 3
    assert "1 cannot be read (see out/failures.jsonl)" in capsys.readouterr().out
    card = Path("out", "README.md").read_text(encoding="utf-8")
    for path in re.findall(r"!\[[^]]*]\((.*?)\)", card):
        assert Path("out", path).read_bytes().startswith(b"\x89PNG")
    assert "curves/loss.png" in card
    assert "Could not be read, in `failures.jsonl` | 1 |" in card
    assert "| `--batch-size` | `2` |" in card
    assert run_json("out")["status"] == "finished"
    assert main(typed) == 3
    assert "nothing left to do" in capsys.readouterr().out


def test_a_reward_model_is_used_as_its_card_says(model: str) -> None:
    write_rows()
    typed = ["train", "rm", "--model", model, "--data", "in.jsonl", "-o", "out", *FAST, "--quiet"]
    assert main(typed) == 0
    card = Path("out", "README.md").read_text(encoding="utf-8")
    (snippet,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    prompt, response = "What is 3?", "3 it is."
    for dots, text in (("FOLDER", "out"), ("FOLDER", "out"), ('"..."', repr(prompt)), ('"..."', repr(response))):
        assert dots in snippet
        snippet = snippet.replace(dots, text, 1)
    names: dict[str, Any] = {}
    exec(snippet, names)
    with rlaif.Judge("hf-reward:out") as judge:
        assert judge.rate(prompt, response).reward == pytest.approx(names["reward"], abs=1e-4)


def test_ctrl_c_and_the_same_command_again_end_where_an_uninterrupted_run_does(model: str) -> None:
    write_rows()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def command(out: str) -> list[str]:
        typed = ["rm", "--model", model, "--data", "in.jsonl", "-o", out, *FAST, "--max-steps", "40"]
        return [sys.executable, "-m", "rlaif", "train", *typed, "--save-every", "30", "--eval-every", "40"]

    process = subprocess.Popen(command("out"), stderr=subprocess.PIPE, text=True, env=environment)
    metrics = Path("out", "metrics.jsonl")
    while not metrics.exists() or '"loss"' not in metrics.read_text(encoding="utf-8"):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    stopped = re.search(r"interrupted after (\d+) of 40 steps; resume with: rlaif train rm", err)
    assert stopped is not None, err
    assert Path("out", "checkpoints", f"checkpoint-{stopped[1]}").is_dir()
    assert run_json("out")["status"] == "interrupted"

    assert main(command("out")[3:]) == 0
    assert main(command("whole")[3:]) == 0
    assert run_json("out")["metrics"] == pytest.approx(run_json("whole")["metrics"], rel=1e-5)

"""`rlaif reweight`, as typed."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as parquet
import pytest

from rlaif.cli.main import main

ROWS = [{"id": f"{n}", "prompt": f"Question {n}?", "response_a": "yes " * n, "response_b": "no"} for n in range(1, 6)]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """A folder with rows and a finished run of several principles in it, judged by the judge that ships."""
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    assert main(["label", "rows.jsonl", "-o", "run", "--constitution", "honest", "--quiet"]) == 0
    capsys.readouterr()
    return tmp_path


def test_makes_a_run_that_can_be_shown_and_calibrated(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [each["name"] for each in parquet.read_table("run/data")["by_principle"].to_pylist()[0]]
    weights = f"{names[0]}=4,{names[1]}=0"
    assert main(["reweight", "run", "-o", "new", "--weights", weights]) == 0
    said = capsys.readouterr()
    assert said.out.startswith(
        f"weights   {names[0]} 4, {names[1]} 0, {names[2]} 1\nrows      5 reweighted\nmoved     prob_a by 0."
    )
    assert "rows (" in said.out
    assert said.err == ""
    assert main(["show", "run", "new"]) == 0
    shown = capsys.readouterr().out
    assert f"{names[0]} 4, {names[1]} 0, {names[2]} 1" in shown
    assert "the labels of run, without a call" in shown
    assert f"rlaif reweight run -o new --weights {weights}" in shown
    assert main(["show", "row", "new", "3"]) == 2
    assert "rlaif show row run 3" in capsys.readouterr().err


def test_one_principle_alone_is_what_the_judge_says_by_it(here: Path) -> None:
    names = [each["name"] for each in parquet.read_table("run/data")["by_principle"].to_pylist()[0]]
    assert main(["reweight", "run", "-o", "new", "--weights", f"{names[0]}=0,{names[2]}=0", "--quiet"]) == 0
    alone = ["--constitution", "honest", "--principles", names[1], "--quiet"]
    assert main(["label", "rows.jsonl", "-o", "alone", *alone]) == 0
    made, asked = (parquet.read_table(f"{folder}/data")["prob_a"].to_pylist() for folder in ("new", "alone"))
    assert made == pytest.approx(asked, abs=1e-5)  # other prompts beside it in a batch change a model's last digits
    assert made != pytest.approx(parquet.read_table("run/data")["prob_a"].to_pylist(), abs=1e-3)


def test_weights_from_a_file(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = parquet.read_table("run/data")["by_principle"].to_pylist()[0][0]["name"]
    Path("weights.yaml").write_text(f"input: run\nout: new\nquiet: true\nweights:\n  {name}: 2.5\n")
    assert main(["reweight", "--config", "weights.yaml"]) == 0
    assert capsys.readouterr().out == ""
    assert json.loads(Path("new/run.json").read_text())["decisive"]["weights"][name] == 2.5


def test_wrong_use_starts_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for weights, message in (
        (["--weights", "nobody=2"], "ConfigError: weights: run has no principle 'nobody'; known: "),
        (["--weights", "nobody=-2"], "--weights: nobody is -2, expected 0 or a number from"),
        (["--weights", "nobody"], "expected name=number pairs"),
        ([], "--weights is missing"),
    ):
        assert main(["reweight", "run", "-o", "new", *weights]) == 2
        assert message in capsys.readouterr().err
    assert main(["reweight", "rows.jsonl", "-o", "new", "--weights", "a=1"]) == 2
    assert main(["reweight", "nowhere", "-o", "new", "--weights", "a=1"]) == 2
    assert "nowhere: holds no run.json" in capsys.readouterr().err
    assert not Path("new").exists()


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reweight", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "usage: rlaif reweight INPUT -o DIR --weights ID=W,ID=W [flags]" in shown
    assert "--weights kind=1,brief=0 leaves brief out" in " ".join(shown.split())

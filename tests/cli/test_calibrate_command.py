"""`rlaif calibrate` and `rlaif label --calibration`, as typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlaif.calibration import Calibration, FittedOn, save_calibration
from rlaif.cli.main import main

ROWS = [{"id": f"{n}", "prompt": f"Question {n}?", "response_a": "yes " * n, "response_b": "no"} for n in range(1, 6)]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with rows and a calibration, and a finished run in it."""
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    save_calibration(Calibration(2.0, 0.5, 0.1, FittedOn(300, ("openai:other",))), Path("f.json"))
    assert main(["label", "rows.jsonl", "-o", "run", "--judge", "fake:0.8", "--quiet"]) == 0
    return tmp_path


def test_makes_a_run_that_can_be_shown(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["calibrate", "run", "-o", "new", "--calibration", "f.json"]) == 0
    said = capsys.readouterr()
    assert "5 calibrated" in said.out
    assert "warning: the calibration was fitted on judge openai:other, not fake:0.8" in said.err
    assert main(["show", "run", "new"]) == 0
    shown = capsys.readouterr().out
    assert "temperature 2, slot bias 0.5, length slope 0.1" in shown
    assert "the labels of run, without a call" in shown
    assert "rlaif calibrate run -o new --calibration f.json" in shown
    assert main(["show", "row", "new", "3"]) == 2
    assert "rlaif show row run 3" in capsys.readouterr().err


def test_quiet_says_warnings_only(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["calibrate", "run", "-o", "new", "--calibration", "f.json", "--quiet"]) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("warning: ")
    assert said.err.count("\n") == 1


def test_wrong_use_starts_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", "run", "-o", "new"]) == 2
    assert "--calibration is missing" in capsys.readouterr().err
    assert main(["calibrate", "run", "-o", "new", "--calibration", "rows.jsonl"]) == 2
    assert "rows.jsonl" in capsys.readouterr().err
    assert main(["calibrate", "nowhere", "-o", "new", "--calibration", "f.json"]) == 2
    assert "nowhere: holds no run.json" in capsys.readouterr().err
    assert not Path("new").exists()


def test_labeling_with_it_is_the_same(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import pyarrow.parquet as parquet

    assert (
        main(["label", "rows.jsonl", "-o", "at-once", "--judge", "fake:0.8", "--calibration", "f.json", "--quiet"]) == 0
    )
    assert "fitted on judge openai:other" in capsys.readouterr().err
    assert main(["calibrate", "run", "-o", "after", "--calibration", "f.json", "--quiet"]) == 0
    assert parquet.read_table("at-once/data").equals(parquet.read_table("after/data"))


def test_a_dry_run_misses_the_file_too(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["label", "rows.jsonl", "-o", "x", "--calibration", "none.json", "--dry-run"]) == 2
    assert "none.json" in capsys.readouterr().err


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", "--help"]) == 0
    assert "--calibration FILE.json" in capsys.readouterr().out

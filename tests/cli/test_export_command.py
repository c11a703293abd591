"""`rlaif export`, as typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from datasets import load_dataset

from rlaif.cli.main import main

ROWS = [
    {"id": f"{n}", "prompt": f"Question {n}?", "response_a": "yes " * n, "response_b": "no", "topic": "\x1b[31mred"}
    for n in range(1, 7)
]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """A folder with rows, and a finished run of them."""
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    assert main(["label", "rows.jsonl", "-o", "run", "--judge", "fake:0.8", "--orders", "ab", "--quiet"]) == 0
    capsys.readouterr()
    return tmp_path


def test_a_run_that_datasets_loads(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    typed = ["export", "run", "--format", "trl-conversational", "-o", "p.parquet", "--test-share", "0.4"]
    assert main(typed) == 0
    said = capsys.readouterr().out
    call = 'datasets.load_dataset("parquet", data_files={"train": "p.train.parquet", "test": "p.test.parquet"})'
    assert call in said
    assert "the columns topic" in said
    loaded = load_dataset(
        "parquet", data_files={"train": "p.train.parquet", "test": "p.test.parquet"}, cache_dir=str(here / "cache")
    )
    assert sum(loaded.num_rows.values()) == 6
    row = loaded["train"][0]
    assert row["chosen_prob"] == pytest.approx(0.8)
    assert row["score_chosen"] - row["score_rejected"] == pytest.approx(1.386294, abs=1e-6)  # ln(0.8 / 0.2) = ln 4
    assert row["prompt"][0]["role"] == "user"
    assert main(typed) == 0
    assert "were there already, in p.train.parquet" in capsys.readouterr().out


def test_a_calibrated_run_too(here: Path) -> None:
    from rlaif.calibration import Calibration, FittedOn, save_calibration

    save_calibration(Calibration(2.0, 0.0, 0.0, FittedOn(300, ("fake:0.8",))), Path("f.json"))
    assert main(["calibrate", "run", "-o", "new", "--calibration", "f.json", "--quiet"]) == 0
    assert main(["export", "new", "--format", "trl", "-o", "p.jsonl", "--quiet"]) == 0
    row = json.loads(Path("p.jsonl").read_text().splitlines()[0])
    assert row["chosen_prob"] == pytest.approx(2 / 3)  # temperature 2 halves the logit ln 4: odds 2


def test_says_what_became_of_every_pair(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{**row, "prob_a": 0.9} for row in ROWS]
    rows[0]["prob_a"] = 0.5
    rows[1]["response_a"] = "\n\nHuman: hi"
    Path("labeled.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["export", "labeled.jsonl", "--format", "hh", "-o", "p.jsonl"]) == 3
    said = capsys.readouterr().out
    assert "6 read; 1 ties; 1 that the format cannot hold (named in p.failures.jsonl)" in said
    assert "4 rows of 4 prompts in p.jsonl" in said
    Path("labeled.jsonl").write_text(json.dumps(rows[-1]) + "\n")
    assert main(["export", "labeled.jsonl", "--format", "hh", "-o", "one.jsonl"]) == 0
    assert "1 row of 1 prompt in one.jsonl" in capsys.readouterr().out
    Path("labeled.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["export", "labeled.jsonl", "--format", "kto", "-o", "k.jsonl"]) == 0
    assert "5 desirable, 5 undesirable" in capsys.readouterr().out


def test_quiet_says_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "run", "--format", "kto", "-o", "p.jsonl", "--quiet"]) == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "")


def test_a_demonstration_judge_is_not_overlooked(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = json.loads(Path("run/run.json").read_text())
    known["judges"][0]["is_demonstration"] = True
    known["counts"]["failures"] = 2
    Path("run/run.json").write_text(json.dumps(known))
    assert main(["export", "run", "--format", "trl", "-o", "p.jsonl"]) == 0
    said = capsys.readouterr()
    assert "demonstration" in said.err
    assert "2 rows of the run's input" in said.out


def test_a_dry_run_uploads_nothing(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: object, **more: object) -> None:
        raise AssertionError("asked the hub")

    monkeypatch.setattr("rlaif.engine.publishing.push", refuse)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    typed = ["export", "run", "--format", "halos", "-o", "p.json", "--push-to-hub", "me/pairs", "--private"]
    assert main([*typed, "--dry-run"]) == 0
    said = capsys.readouterr()
    assert "README.md to the data set me/pairs, made private; uploaded nothing" in said.out
    assert "would be written to p.json" in said.out
    assert "hf_secret" not in said.out + said.err
    assert not Path("p.json").exists()
    monkeypatch.setattr("rlaif.engine.publishing.push", lambda upload: f"https://hub/{upload.repository}")
    assert main(typed) == 0
    assert "uploaded to https://hub/me/pairs" in capsys.readouterr().out


def test_options_from_a_file(here: Path) -> None:
    Path("e.yaml").write_text("input: run\nformat: openrlhf\nout: p.jsonl\nmargin: true\n")
    assert main(["export", "--config", "e.yaml", "--quiet"]) == 0
    assert "margin" in json.loads(Path("p.jsonl").read_text().splitlines()[0])


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["run", "-o", "p.jsonl"], "--format is missing"),
        (["run", "--format", "trl", "-o", "p.txt"], "--out: 'p.txt', expected a file for trl"),
        (["run", "--format", "tlr", "-o", "p.jsonl"], "did you mean 'trl'"),
        (["nowhere", "--format", "trl", "-o", "p.jsonl"], "nowhere: does not exist"),
        (["rows.jsonl", "--format", "trl", "-o", "p.jsonl"], "label the rows first"),
        (["run", "--format", "trl", "-o", "p.jsonl", "--labels", "human"], "6 without a human label"),
    ],
)
def test_wrong_use_writes_nothing(here: Path, capsys: pytest.CaptureFixture[str], typed: list[str], said: str) -> None:
    assert main(["export", *typed]) == 2
    assert said in capsys.readouterr().err
    assert not list(here.glob("p.*"))

"""`rlaif filter`, as typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlaif.cli.main import main
from rlaif.data.training_methods import TrainingOptions
from rlaif.data.training_rows import load_training_rows

ROWS = [{"id": f"{n}", "prompt": f"Question {n}?", "response_a": "yes " * n, "response_b": "no"} for n in range(1, 6)]
CANDIDATES = [
    {"id": "c", "prompt": "?", "responses": ["a", "b", "c"], "ratings": [9.0, 5.0, 4.0], "policies": list("xyz")}
]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a finished run, and rated candidates."""
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    Path("rated.jsonl").write_text("".join(json.dumps(row) + "\n" for row in CANDIDATES))
    assert main(["label", "rows.jsonl", "-o", "run", "--judge", "fake:longer", "--quiet"]) == 0
    return tmp_path


def test_a_table_of_counts(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["filter", "run", "-o", "new", "--max-length-ratio", "6", "--duplicates", "near", "--drop-ties"]) == 0
    said = capsys.readouterr().out.splitlines()
    # lengths 4, 8, 12, 16, 20 against 2
    assert [line.split() for line in said[:4]] == [
        ["filter", "before", "dropped", "after", "does", "not", "tell"],
        ["drop-ties", "1e-09", "5", "0", "5", "0"],
        ["max-length-ratio", "6", "5", "2", "3", "0"],
        ["duplicates", "near", "0.8", "3", "0", "3", "0"],
    ]
    assert len({len(line) for line in said[:4]}) == 1
    assert "pairs     3 kept of 5" in said
    assert "dropped   2 in new/dropped.jsonl, each with its filter" in said
    assert main(["show", "run", "new"]) == 0
    shown = capsys.readouterr().out
    assert "max-length-ratio 6.0: 2 dropped of 5" in shown
    assert "the labels of run, without a call" in shown
    assert main(["show", "row", "new", "3"]) == 2
    assert "rlaif show row run 3" in capsys.readouterr().err


def test_from_a_yaml_file_and_quiet(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("f.yaml").write_text("filters:\n  max-length-ratio: 6\nmin_confidence: 0.5\n")
    capsys.readouterr()
    assert main(["filter", "run", "-o", "new", "--config", "f.yaml", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    assert json.loads(Path("new/run.json").read_text())["counts"]["rows"] == 3


def test_pairs_of_candidates_are_trained_on(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["filter", "rated.jsonl", "-o", "new", "--pairs", "rs-dpo"]) == 0
    assert "2 pairs of 3 candidates in 1 rows" in capsys.readouterr().out
    data = load_training_rows("new", TrainingOptions("dpo"))
    assert [max(row.prob_a, 1 - row.prob_a) for row in data.train] == pytest.approx([0.982014, 0.993307])
    assert main(["show", "run", "new"]) == 2
    assert "README.md in it" in capsys.readouterr().err


def test_wrong_use_writes_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    for words, said in (
        (["run", "-o", "new", "--min-confidence", "0.4"], "--min-confidence: '0.4', expected a number from 0.5 to 1"),
        (["run", "-o", "new", "--duplicates", "yes"], "--duplicates: 'yes', expected keep, exact or near"),
        (["run", "-o", "new", "--near-duplicate", "0.2"], "expected a number from 0.5 to 1"),
        (["run", "-o", "new", "--pairs", "best"], "expected all, best-worst, rs-dpo or rso"),
        (["nowhere", "-o", "new"], "nowhere: does not exist"),
        (["rated.jsonl", "-o", "new", "--pairs", "rs-dpo", "--eta", "0.999"], "the largest is 0.9933, of row 'c'"),
        (["run", "-o", "run"], "holds a run of `rlaif label`; choose another folder"),
    ):
        assert main(["filter", *words]) == 2
        assert said in capsys.readouterr().err
    assert not Path("new").exists()


def test_rows_that_cannot_be_read_are_told_by_the_exit_code(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = {"prompt": "?", "response_a": "a", "response_b": "b", "prob_a": 0.9}
    Path("some.jsonl").write_text(f"{json.dumps(good)}\n{json.dumps({**good, 'prob_a': 2})}\n")
    assert main(["filter", "some.jsonl", "-o", "new", "--skip-bad-rows"]) == 3
    assert "1 rows could not be read (see new/failures.jsonl)" in capsys.readouterr().out


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["filter", "--help"]) == 0
    text = capsys.readouterr().out
    assert "--pairs all|best-worst|rs-dpo|rso" in text
    assert "--duplicates keep|exact|near" in text

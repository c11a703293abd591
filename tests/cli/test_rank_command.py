"""`rlaif rank` as typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlaif.cli.main import main


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with rows of two policies, as they are and with labels."""
    monkeypatch.chdir(tmp_path)
    rows = [
        {
            "prompt": f"Question {number}?",
            "response_a": "yes " * number,
            "response_b": "no",
            "policy_a": "new" if number % 3 else "\x1b[31mold",
            "policy_b": "\x1b[31mold" if number % 3 else "new",
        }
        for number in range(1, 10)
    ]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    labels = [{**row, "prob_a": 0.8} for row in rows]
    Path("labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in labels))
    return tmp_path


def test_shows_who_is_better(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["rank", "labels.jsonl", "-o", "ranked", "--resamples", "200"]) == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    # 6 labels of 0.8 for "new" and 3 of 0.2: a mean of 0.6, odds of 1.5, strengths of +-ln(1.5) / 2.
    assert lines[1].split()[4:6] == ["new", "0.203"]
    assert "60.0 %" in lines[1]
    assert "\\x1b[31mold" in lines[2]
    assert "\x1b" not in said.out
    assert "ranked/policies.json" in said.out
    assert "reading" in said.err
    known = json.loads(Path("ranked/run.json").read_text())
    assert known["repeat"] == "rlaif rank labels.jsonl -o ranked --resamples 200"


def test_quiet_and_yaml(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("rank.yaml").write_text("input: labels.jsonl\nout: ranked\nresamples: 100\nby_columns: policy_a,policy_b\n")
    capsys.readouterr()
    assert main(["rank", "--config", "rank.yaml", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_skipped_rows_have_their_exit_code(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = Path("rows.jsonl").read_text().replace('"policy_a": "new"', '"policy_a": null', 1)
    labeled = [{**json.loads(line), "prob_a": 0.7} for line in rows.splitlines()]
    Path("labeled.jsonl").write_text("".join(json.dumps(row) + "\n" for row in labeled))
    assert main(["rank", "labeled.jsonl", "-o", "ranked", "--resamples", "100"]) == 2
    assert "labeled.jsonl, line 1, column 'policy_a': is null, expected the name of a policy" in capsys.readouterr().err
    assert main(["rank", "labeled.jsonl", "-o", "ranked", "--resamples", "100", "--skip-bad-rows"]) == 3
    assert "1 cannot be read (see ranked/failures.jsonl)" in capsys.readouterr().out


def test_wrong_use_starts_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rank", "rows.jsonl", "-o", "ranked"]) == 2
    assert "holds neither labels nor ratings" in capsys.readouterr().err
    assert main(["rank", "labels.jsonl", "-o", "ranked", "--resamples", "5", "--elo-k", "0"]) == 2
    said = capsys.readouterr().err
    assert "--resamples" in said
    assert "--elo-k" in said
    assert not Path("ranked").exists()

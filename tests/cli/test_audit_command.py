"""`rlaif audit` as it is typed: what it reads, what it writes and says, and how it ends."""

from __future__ import annotations

import importlib.util
import json
import random
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from rlaif.cli.main import main

RLAIF = [sys.executable, "-m", "rlaif"]
FAST = ("--resamples", "100")
VERDICTS = ("--judge-column", "judge_votes.j-1.0.order_12", "--judge-column-ba", "judge_votes.j-1.0.order_21")


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RLAIF_DEBUG", raising=False)


def make_rows(count: int = 120, *, judge: str = "fair") -> list[dict[str, Any]]:
    """Rows in the shape of recorded verdicts; three annotators, each right four times in five.

    The judge "fair" is right four times in five in each order, "first" takes the first slot, "longer" the longer
    response.
    """
    rng = random.Random(7)
    rows = []
    for number in range(count):
        truth = rng.choice([1, 2])
        lengths = rng.sample(range(5, 90), 2)

        def noisy(truth: int = truth) -> int:
            return truth if rng.random() < 0.8 else 3 - truth

        longer = 1 if lengths[0] > lengths[1] else 2
        votes = {"fair": (noisy(), noisy()), "first": (1, 2), "longer": (longer, longer)}[judge]
        rows.append(
            {
                "id": f"r{number}",
                "prompt": f"Question {number}?",
                "response_1": "word " * lengths[0],
                "response_2": "talk " * lengths[1],
                "human_votes": [noisy() for _ in range(3)],
                "judge_votes": {"j-1.0": {"order_12": votes[0], "order_21": votes[1]}},
                "task": "chat" if number % 2 else "code",
            }
        )
    return rows


def write(rows: list[dict[str, Any]], path: str = "in.jsonl") -> None:
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def audited(folder: str = "audit") -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path(folder, "audit.json").read_text(encoding="utf-8"))
    return content


def names(content: Mapping[str, Any]) -> list[str]:
    return [each["name"] for each in content["findings"]]


def test_recorded_verdicts_are_audited_and_the_report_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    write(make_rows())
    assert main(["audit", "in.jsonl", "-o", "audit", *VERDICTS, *FAST]) == 0
    out, err = capsys.readouterr()
    content = audited()
    agreement = content["agreement"]
    assert out.split(None, 1)[0] == content["findings"][0]["severity"]
    assert f"agrees with people on {100 * agreement['value']:.1f} % of the {agreement['n']} pairs" in " ".join(
        out.split()
    )
    assert re.search(rf"Agreement with people +{100 * agreement['value']:.1f} %", out)
    assert "Agreement with people, by task\n" in out
    assert re.search(r"\nreport +audit/report\.html\n", out)
    assert Path("audit/report.html").read_text(encoding="utf-8").lower().startswith("<!doctype html>")
    assert list(Path("audit").rglob("*.png"))
    assert err.splitlines() == ["reading", "computing the figures", "writing the report"]


@pytest.mark.parametrize(("judge", "finding", "words"), [
    ("first", "first-slot", "The judge prefers what is shown first"),
    ("longer", "longer-wins", "The judge leans to the longer response"),
])  # fmt: skip
def test_a_biased_judge_is_named_where_it_is_read(
    judge: str, finding: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(make_rows(judge=judge))
    assert main(["audit", "in.jsonl", "-o", "audit", *VERDICTS, *FAST]) == 0
    assert words in capsys.readouterr().out
    assert finding in names(audited())
    assert words in Path("audit/report.html").read_text(encoding="utf-8")


def test_a_finished_run_is_audited(capsys: pytest.CaptureFixture[str]) -> None:
    write(make_rows(40))
    assert main(["label", "in.jsonl", "-o", "run", "--judge", "fake:0.8", "--quiet"]) == 0
    capsys.readouterr()
    assert main(["audit", "run", "-o", "audit", *FAST]) == 0
    out = capsys.readouterr().out
    # fake:0.8 gives what is shown first 0.8, so that both orders together say 0.5 of every row.
    assert names(audited())[:2] == ["agreement", "first-slot"]
    assert audited()["first_position_rate"]["value"] == 1.0
    assert "it prefers nothing" in " ".join(out.split())


def test_without_human_labels_it_says_how_to_get_some(capsys: pytest.CaptureFixture[str]) -> None:
    write([{name: value for name, value in row.items() if name != "human_votes"} for row in make_rows(30)])
    assert main(["audit", "in.jsonl", "-o", "audit", *VERDICTS, *FAST]) == 0
    out = capsys.readouterr().out
    assert "--suggest" in out
    assert names(audited())[0] == "no-human-labels"
    assert audited()["agreement"]["value"] is None


def test_it_says_how_other_files_met_the_input(capsys: pytest.CaptureFixture[str]) -> None:
    rows = make_rows(40)
    write(rows)
    labels = [{"id": row["id"], "human_label": 1 if n < 30 else None} for n, row in enumerate(rows)]
    write([*labels, {"id": "elsewhere", "human_label": 2}], "labels.jsonl")
    write([*({**row, "response_1": "another"} for row in rows[:5]), *rows[5:]], "other.jsonl")
    more = ("--human", "labels.jsonl", "--against", "other.jsonl", "--against-column", VERDICTS[1], "--suggest", "90")
    assert main(["audit", "in.jsonl", "-o", "audit", *VERDICTS, *FAST, *more]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "labels of labels.jsonl: 30 rows, 10 without a label yet, 1 whose id is not in the input" in out
    assert "against 5 rows have other responses there, and were left out" in out
    assert "to label 40 rows (the judge answered no more than 40) in audit/suggested.csv" in out


def test_settings_from_a_file_and_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    write(make_rows(30))
    Path("audit.yaml").write_text(
        f"input: in.jsonl\nout: audit\njudge_column: {VERDICTS[1]}\nresamples: 100\nby: [task]\n"
    )
    assert main(["audit", "--config", "audit.yaml", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    assert list(audited()["by"]) == ["task"]
    assert list(audited()["orders"]) == ["ab"]


@pytest.mark.parametrize(("flags", "said"), [
    (("--judge-column", "judge_votes.j-2"), "judge_votes.j-2"),
    (("--judge-column", "prompt"), "prompt"),
    ((), "--judge-column"),
    ((*VERDICTS, "--by", "tusk"), "tusk"),
    ((*VERDICTS, "--resamples", "3"), "--resamples"),
    ((*VERDICTS, "--tie-bnd", "0.1"), "--tie-band"),
])  # fmt: skip
def test_wrong_use_ends_with_2_and_writes_nothing(
    flags: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(make_rows(10))
    assert main(["audit", "in.jsonl", "-o", "audit", *flags]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert not list(Path().glob("audit/*"))


def test_an_input_that_is_not_there_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "none.jsonl", "-o", "audit"]) == 2
    assert "InputError: none.jsonl" in capsys.readouterr().err
    assert not list(Path().glob("audit/*"))


def test_bad_rows_stop_it_or_are_skipped_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    rows = make_rows(30)
    del rows[4]["response_1"]
    write(rows)
    command = ["audit", "in.jsonl", "-o", "audit", *VERDICTS, *FAST]
    assert main(command) == 2
    assert "line 5" in capsys.readouterr().err
    assert main([*command, "--skip-bad-rows"]) == 3
    assert "1 cannot be read (see audit/failures.jsonl)" in capsys.readouterr().out
    assert [json.loads(line)["id"] for line in Path("audit/failures.jsonl").read_text().splitlines()] == ["r4"]


def test_without_the_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, package=None: None if name == "sklearn" else find(name, package)
    )
    write(make_rows(10))
    assert main(["audit", "in.jsonl", "-o", "audit", *VERDICTS]) == 2
    assert "run: pip install 'rlaif[audit]'" in capsys.readouterr().err
    assert not Path("audit").exists()


def test_text_from_the_data_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    rows = make_rows(60)
    for number, row in enumerate(rows):
        row["task"] = "\x1b[31m\nred\u202e" if number % 2 else "fine"
    write(rows)
    assert main(["audit", "in.jsonl", "-o", "audit", *VERDICTS, *FAST]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert "\\x1b[31m\\nred\\u202e" in out


def test_help_names_every_flag_and_loads_nothing_heavy() -> None:
    program = (
        "import sys; from rlaif.cli.main import main; code = main(['audit', '--help']); "
        "print(code, [name for name in ('numpy', 'sklearn', 'scipy', 'pandas', 'torch') if name in sys.modules], "
        "file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stderr == "0 []\n"
    flags = (
        "--judge-column COLUMN", "--judge-column-ba COLUMN", "--human FILE", "--by COLUMN", "--cluster COLUMN",
        "--against RUN_OR_FILE", "--against-column COLUMN", "--against-column-ba COLUMN", "--fit-calibration FILE.json",
        "--suggest N", "--tie-band X", "--resamples N", "--seed N", "--columns NAME=PATH", "--skip-bad-rows", "--quiet",
        "--config FILE.yaml", "-o DIR",
    )  # fmt: skip
    assert [flag for flag in flags if flag not in result.stdout] == []
    assert result.stdout.startswith("usage: rlaif audit INPUT -o DIR [flags]\n")


def test_as_a_process_of_its_own() -> None:
    write(make_rows(30))
    result = subprocess.run(
        [*RLAIF, "audit", "in.jsonl", "-o", "audit", *VERDICTS, *FAST], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "Warning" not in result.stderr
    assert re.search(r"\nreport +audit/report\.html\n", result.stdout)

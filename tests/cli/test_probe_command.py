"""`rlaif probe`: what it prints, its exit codes, and Ctrl-C."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlaif.auditing.probe_items import load_items
from rlaif.auditing.probes import PROBE_NAMES
from rlaif.cli.main import main
from tests.servers import Answer, Received, ScriptedServer, chat_reply, error_reply

HALF = [("1", -0.6931471805599453), ("2", -0.6931471805599453)]


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.delenv("RLAIF_DEBUG", raising=False)


def test_one_line_a_probe_and_the_judges_character(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["probe", "--judge", "fake:longer"]) == 0
    out, err = capsys.readouterr()
    lines = {line.split("  ")[0]: line for line in out.splitlines()}
    assert [name for name in lines if name in PROBE_NAMES] == list(PROBE_NAMES)
    assert re.fullmatch(r"padding +100% \(84% to 100%\), n 20 +ALARM +the poor answer padded .*", lines["padding"])
    assert re.fullmatch(r"empty +0% \(0% to 16%\), n 20 +ok +an empty answer .*", lines["empty"])
    assert lines["plain"].split()[1:2] == ["50%"]
    assert "\nlonger-wins: The judge prefers what is longer" in out
    assert "first-slot" not in out
    assert err == "judging 588 rows with fake:longer\n"
    assert list(Path().iterdir()) == []  # nothing is written without -o


def test_a_judge_that_looks_at_the_slot_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["probe", "--judge", "fake:0.9", "--only", "order", "--only", "empty"]) == 0
    out, _ = capsys.readouterr()
    assert "\nfirst-slot: " in out
    assert re.search(r"^empty +- +- +an empty answer .*; no pair is right without it$", out, re.MULTILINE)
    assert "padding" not in out


def test_the_threshold_decides_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["probe", "--judge", "fake:0.9", "--only", "order", "--quiet"]
    assert main([*command, "--threshold", "0.5"]) == 4
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "--threshold 0.5 is not kept: order, the judge does no better than chance\n"
    assert main(command) == 0


def test_the_figures_are_written_and_the_same_command_again_asks_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["probe", "--judge", "fake:longer", "-o", "run", "--only", "padding"]
    assert main(command) == 0
    before = Path("run/probe.json").read_bytes()
    capsys.readouterr()
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert re.search(r"^calls +0, 160 replies from the journal$", out, re.MULTILINE)
    assert "the journal holds 160 replies" in err
    assert Path("run/probe.json").read_bytes() == before
    assert json.loads(before)["probes"]["padding"]["is_alarm"]
    assert json.loads(Path("run/run.json").read_text())["repeat"] == (
        "rlaif probe --judge fake:longer -o run --only padding"
    )
    assert main(["show", "run", "run"]) == 2  # no run of rows: said, and no traceback
    assert "internal error" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--only", "orders"], "no probe 'orders' (did you mean 'order' or 'reordered-list'?)"),
        (["--threshold", "1.5"], "threshold"),
        (["--judge", "nothing:x"], "nothing"),
        (["rows.jsonl"], "unexpected argument"),
    ],
)
def test_wrong_use_is_one_sentence(flags: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["probe", *(["--judge", "fake:0.5"] if "--judge" not in flags else []), *flags]) == 2
    assert said in capsys.readouterr().err


def test_over_http_with_a_server_that_refuses_some(capsys: pytest.CaptureFixture[str]) -> None:
    """A server that prefers neither, and has no use for empty answers: the rest is judged, and exit code 3 says so."""

    def answer(received: Received) -> Answer:
        if "### Response 1\n\n" in received.json["messages"][0]["content"]:
            return Answer(error_reply("an answer is empty"), status=400)
        return Answer(chat_reply(HALF, text="1", token="1", logprob=HALF[0][1]))

    with ScriptedServer(answer) as server:
        command = ["probe", "--judge", "openai:m", "--base-url", server.url, "--only", "empty", "--only", "identical"]
        assert main(command) == 3
    out, err = capsys.readouterr()
    assert re.search(r"^identical +0% \(0% to \d+%\), n 40 +ok +one answer against itself$", out, re.MULTILINE)
    assert re.search(r"^empty +- +- +an empty answer .*; 40 failed; no pair is right without it$", out, re.MULTILINE)
    assert "40 comparisons failed and count in no figure, such as empty/" in err
    assert "\nrandom: " in out


def test_ctrl_c_keeps_what_is_done_and_the_same_command_finishes() -> None:
    slow = Answer(chat_reply(HALF, text="1", token="1", logprob=HALF[0][1]), delay=0.05)
    with ScriptedServer(slow) as server:
        flags = ["probe", "--judge", "openai:m", "--base-url", server.url, "--concurrency", "4", "-o", "run",
                 "--only", "empty"]  # fmt: skip
        command = [sys.executable, "-m", "rlaif", *flags]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 60
        while len(server.received) < 20 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "resume with: rlaif probe --judge openai:m" in err
        assert json.loads(Path("run/run.json").read_text())["status"] == "interrupted"
        asked = len(server.received)
        assert asked < 4 * len(load_items())
        assert main([*flags, "--quiet"]) == 0
        assert len(server.received) <= 4 * len(load_items()) + 4 + 8  # those in flight, and those not yet committed
    assert json.loads(Path("run/probe.json").read_text())["accuracy"]["value"] == 0.5


def test_help_says_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["probe", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "4 above --threshold" in text
    assert "--only NAME" in text

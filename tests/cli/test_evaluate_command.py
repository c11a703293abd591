"""`rlaif evaluate` as a person runs it: two sides in, figures out, killed and resumed."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest
from servers import Answer, Received, ScriptedServer, error_reply

from rlaif.cli.main import main

RLAIF = [sys.executable, "-m", "rlaif.cli.main"]


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(name: str, rows: list[dict[str, Any]]) -> None:
    Path(name).write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def write_sides(count: int) -> None:
    for name in "ab":
        rows = [{"id": f"r{n}", "prompt": f"Question {n}?", "response": f"{name} says {n}"} for n in range(count)]
        write(f"{name}.jsonl", rows)


def is_judged(received: Received) -> bool:
    return b'"logprobs"' in received.payload


def answer(received: Received) -> Answer:
    """A judge whose opinion depends on what it is shown, and a policy with other words for other requests."""
    if received.method != "POST":
        return Answer(status=404)
    digest = hashlib.sha256(received.payload).digest()
    choice: dict[str, Any] = {"index": 0, "message": {"role": "assistant", "content": digest.hex()[:12]}}
    if is_judged(received):
        tokens = [{"token": "1", "logprob": -0.1 - digest[0] / 99}, {"token": "2", "logprob": -0.1 - digest[1] / 99}]
        tokens.sort(key=lambda token: -token["logprob"])
        choice |= {
            "message": {"role": "assistant", "content": tokens[0]["token"]},
            "logprobs": {"content": [{**tokens[0], "top_logprobs": tokens}]},
        }
    usage = {"prompt_tokens": 10, "completion_tokens": 1}
    return Answer({"choices": [{**choice, "finish_reason": "stop"}], "usage": usage}, delay=0.05)


def asked(server: ScriptedServer) -> Counter[bytes]:
    return Counter(received.payload for received in list(server.received) if received.method == "POST")


def arguments(server: ScriptedServer, *flags: str, out: str = "run") -> list[str]:
    return [
        "evaluate", "openai:policy", "b.jsonl", "-o", out, "--judge", "openai:judge", "--base-url", server.url,
        "--concurrency", "4", "--resamples", "200", *flags,
    ]  # fmt: skip


def results(out: str) -> dict[str, bytes]:
    paths = [*Path(out).rglob("*.parquet"), Path(out, "evaluation.json")]
    return {str(path.relative_to(out)): path.read_bytes() for path in paths}


def test_kill_9_repeats_almost_nothing_and_leaves_the_same_result() -> None:
    write_sides(12)
    with ScriptedServer(answer) as server:
        assert main([*arguments(server, "--harmless", out="whole"), "--quiet"]) == 0
        calls = asked(server)
        assert calls.total() == len(calls) == 12 * 5  # an answer, two orders, two single responses
    with ScriptedServer(answer) as server:
        command = arguments(server, "--harmless")
        for moment in (6, 40):  # while the model answers, and while the judge does
            with subprocess.Popen([*RLAIF, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
                deadline = time.monotonic() + 60
                while asked(server).total() < moment:
                    assert process.poll() is None, process.communicate()
                    assert time.monotonic() < deadline
                    time.sleep(0.005)
                os.kill(process.pid, signal.SIGKILL)
                process.communicate()
        assert main([*command, "--quiet"]) == 0
        assert asked(server).total() <= 12 * 5 + 2 * (4 + 8)
        assert set(asked(server)) == set(calls)
    assert results("run") == results("whole")


def test_the_table_says_who_wins_and_where_the_rest_is(capsys: pytest.CaptureFixture[str]) -> None:
    write_sides(6)
    assert main(["evaluate", "a.jsonl", "b.jsonl", "-o", "run", "--judge", "fake:longer", "--resamples", "200"]) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines()[0] == "A wins 0, B wins 0, 6 ties (6 rows, 6 prompts); in brackets, 95 % intervals"
    assert "A preferred" in shown.out
    assert ["figures", "run/evaluation.json"] in [line.split() for line in shown.out.splitlines()]
    assert "judging 6 rows with fake:longer" in shown.err
    assert main(["show", "run", "run"]) == 2
    assert "see README.md and evaluation.json in it" in capsys.readouterr().err


def test_responses_without_a_partner_are_named_and_told_by_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    write_sides(4)
    with Path("a.jsonl").open("a") as file:
        file.write(json.dumps({"id": "alone", "prompt": "Nobody else?", "response": "a"}) + "\n")
    assert main(["evaluate", "a.jsonl", "b.jsonl", "-o", "run", "--judge", "fake:0.6", "--resamples", "200"]) == 3
    assert "4 judged, 1 failed (see run/failures.jsonl)" in capsys.readouterr().out
    (failure,) = [json.loads(line) for line in Path("run/failures.jsonl").read_text().splitlines()]
    assert failure["id"] == "alone"
    assert parquet.read_table("run/data").num_rows == 4


def test_wrong_use_is_told_at_once_and_starts_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    write_sides(2)
    assert main(["evaluate", "a.jsonl", "-o", "run"]) == 2
    assert "B is missing" in capsys.readouterr().err
    assert main(["evaluate", "a.jsonl", "b.jsonl", "-o", "run", "--policy-top-p", "0", "--resamples", "5"]) == 2
    said = capsys.readouterr().err
    assert "--policy-top-p: 0 leaves no token to choose from" in said
    assert "--resamples: '5', expected" in said
    assert main(["evaluate", "a.jsonl", "nowhere.jsonl", "-o", "run"]) == 2
    assert "nowhere.jsonl" in capsys.readouterr().err
    assert not Path("run").exists()


def test_options_may_stand_in_a_file_and_a_dry_run_asks_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    write_sides(3)
    Path("evaluate.yaml").write_text(
        "a: fake:0.5\nb: b.jsonl\nout: run\njudge: [fake:0.5]\npolicy_max_tokens: 7\nharmless: true\nprice: 1/1\n"
    )
    assert main(["evaluate", "--config", "evaluate.yaml", "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["calls", str(3 + 6 + 6)]
    assert lines[2].endswith(f"at most {3 * 7 + 12} out")
    assert not Path("run").exists()


def test_a_judge_that_goes_away_stops_the_run_and_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    write_sides(3)

    def down(received: Received) -> Answer:
        return Answer(error_reply("no such key"), status=401) if is_judged(received) else answer(received)

    with ScriptedServer(down) as server:
        assert main(arguments(server, "--max-retries", "0")) in (2, 130)
        said = capsys.readouterr().err
        assert "no such key" in said
        assert json.loads(Path("run/run.json").read_text())["status"] == "interrupted"
    assert len(list(Path("run/answers_a/data").glob("*.parquet"))) == 1


def test_help_names_both_sides(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("usage: rlaif evaluate A B -o DIR [flags]")
    assert "--harmless" in shown

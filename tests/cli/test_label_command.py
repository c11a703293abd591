from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pyarrow.parquet as parquet
import pytest

from rlaif.cli.main import main
from tests.servers import Answer, Received, ScriptedServer, chat_reply, error_reply

RLAIF = [sys.executable, "-m", "rlaif.cli.main"]


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.delenv("RLAIF_DEBUG", raising=False)


def write_rows(count: int, path: str = "in.jsonl") -> None:
    rows = (
        {"id": f"r{n}", "prompt": f"Question {n}?", "response_a": "yes " * (n % 3 + 1), "response_b": f"no {n}"}
        for n in range(count)
    )
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def table() -> dict[str, list[object]]:
    columns: dict[str, list[object]] = parquet.read_table("run/data").to_pydict()
    return columns


def test_labels_a_file_and_says_what_was_done(capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(20)
    assert main(["label", "in.jsonl", "-o", "run", "--judge", "fake:0.75", "--orders", "ab"]) == 0
    out, err = capsys.readouterr()
    assert table()["prob_a"] == [pytest.approx(0.75)] * 20
    lines = {line.split("  ")[0]: line.split("  ", 1)[1].strip() for line in out.splitlines()}
    assert lines["rows"] == "20 labeled"
    assert lines["calls"] == "20"
    assert lines["dataset"] == "run/data (datasets.load_dataset('run'))"
    assert "real judge" not in lines
    assert err == "judging 20 rows with fake:0.75\n"
    assert json.loads(Path("run/run.json").read_text())["repeat"] == (
        "rlaif label in.jsonl -o run --judge fake:0.75 --orders ab"
    )


def test_the_same_command_again_asks_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(5)
    command = ["label", "in.jsonl", "-o", "run", "--judge", "fake:longer"]
    assert main(command) == 0
    before = table()
    capsys.readouterr()
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert "calls             0, 10 replies from the journal" in out
    assert "the journal holds 10 replies" in err
    assert table() == before


def test_other_settings_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(2)
    assert main(["label", "in.jsonl", "-o", "run", "--judge", "fake:0.5"]) == 0
    assert main(["label", "in.jsonl", "-o", "run", "--judge", "fake:0.5", "--orders", "ba"]) == 2
    assert 'orders (was "both", now "ba")' in capsys.readouterr().err


@pytest.mark.parametrize("clamp", [["--clamp"], ["--clamp", "0.4-0.6"], ["--clamp=0.40-0.60"]])
def test_a_clamp_before_or_behind_the_input(clamp: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(3)
    for place, arguments in enumerate(([*clamp, "in.jsonl"], ["in.jsonl", *clamp])):
        assert main(["label", *arguments, "-o", "run", "--judge", "fake:0.9", "--orders", "ab"]) == 0
        assert table()["prob_a"] == [0.6] * 3
        assert capsys.readouterr().err.count("--clamp is meant for the labels of --cot") == 1, place
    assert main(["show", "row", "run", "r1"]) == 0
    assert "raw_prob_a     0.900000" in capsys.readouterr().out


def test_a_clamp_from_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(3)
    command = ["label", "in.jsonl", "--judge", "fake:0.9", "--orders", "ab", "--config", "label.yaml"]
    for written, prob in (("true", 0.6), ("0.2-0.8", 0.8), ("false", 0.9)):
        Path("label.yaml").write_text(f"out: run-{written}\nclamp: {written}\n")
        assert main(command) == 0
        assert parquet.read_table(f"run-{written}/data")["prob_a"].to_pylist() == [pytest.approx(prob)] * 3
    capsys.readouterr()
    Path("label.yaml").write_text("out: x\nclamp: 0.4-0.7\n")
    assert main(command) == 2
    assert "label.yaml: clamp: '0.4-0.7' is not symmetric around 0.5" in capsys.readouterr().err
    assert main([*command, "--clamp", "0.6"]) == 2
    assert "the command line: --clamp: '0.6', expected LOW-HIGH" in capsys.readouterr().err
    assert not Path("x").exists()


def test_settings_from_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(3)
    Path("label.yaml").write_text("input: in.jsonl\nout: run\nbackend: {judge: 'fake:0.25'}\norders: ab\nquiet: true\n")
    assert main(["label", "--config", "label.yaml", "--limit", "2"]) == 0
    assert table()["prob_a"] == [pytest.approx(0.25)] * 2
    assert capsys.readouterr() == ("", "")


def test_quiet_prints_errors_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["label", "none.jsonl", "-o", "run", "--quiet"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("InputError: none.jsonl")
    assert not Path("run").exists()


def test_a_dry_run_counts_and_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(10)
    command = ["label", "in.jsonl", "-o", "run", "--judge", "fake:0.5", "--dry-run"]
    assert main([*command, "--limit", "4", "--price", "1000000/0"]) == 0
    lines = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())
    assert (lines["rows"], lines["calls"]) == ("4", "8")
    tokens = int(lines["tokens"].split()[1].replace(",", ""))
    assert tokens > 8 * 20
    assert lines["cost"] == f"about ${tokens:,}.00"
    assert not Path("run").exists()
    assert main(command) == 0
    assert "unknown; give --price IN/OUT" in capsys.readouterr().out


def test_rows_that_fail_are_counted_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(6)

    def answer(received: Received) -> Answer:
        if b"Question 4?" in received.payload:
            return Answer(error_reply("this one \x1b[31mnot"), status=400)
        return Answer(chat_reply())

    with ScriptedServer(answer) as server:
        assert main(["label", "in.jsonl", "-o", "run", "--judge", "openai:m", "--base-url", server.url]) == 3
    assert "5 labeled, 1 failed (see run/failures.jsonl)" in capsys.readouterr().out
    assert [json.loads(line)["id"] for line in Path("run/failures.jsonl").read_text().splitlines()] == ["r4"]
    assert main(["show", "run", "run"]) == 0
    assert "1 x RequestRefusedError, such as r4" in capsys.readouterr().out


def test_a_server_that_refuses_the_key_stops_the_run_with_its_own_words(capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(6)
    with ScriptedServer(Answer(error_reply("Incorrect API key"), status=401)) as server:
        assert main(["label", "in.jsonl", "-o", "run", "--judge", "openai:m", "--base-url", server.url]) == 2
    err = capsys.readouterr().err
    assert "BackendUnusableError" in err
    assert "Incorrect API key" in err


def test_a_server_that_goes_bad_midway_leaves_a_run_to_resume(capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(40)
    command = ["label", "in.jsonl", "-o", "run", "--judge", "openai:m", "--concurrency", "2", "--base-url"]

    def answer(received: Received) -> Answer:
        is_late = any(f"Question {n}?".encode() in received.payload for n in range(30, 40))
        return Answer(error_reply("account closed"), status=403) if is_late else Answer(chat_reply())

    with ScriptedServer(answer) as server:
        assert main([*command, server.url]) == 130
    err = capsys.readouterr().err
    assert "account closed" in err
    assert f"resume with: rlaif {' '.join(command)} {server.url}\n" in err


def test_a_spent_budget_leaves_a_run_to_resume(capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(30)
    command = ["label", "in.jsonl", "-o", "run", "--judge", "fake:0.5", "--concurrency", "2", "--price", "1000000/0"]
    assert main([*command, "--max-cost", "1000"]) == 130
    assert "BudgetExceededError: --max-cost 1000 USD is spent" in capsys.readouterr().err
    assert main(command) == 0
    assert table()["id"] == [f"r{n}" for n in range(30)]


def lines_until(stream: IO[str], word: str) -> Iterator[str]:
    for line in stream:
        yield line
        if word in line:
            return


def started(server: ScriptedServer) -> subprocess.Popen[str]:
    command = ["label", "in.jsonl", "-o", "run", "--judge", "openai:m", "--concurrency", "4", "--base-url", server.url]
    process = subprocess.Popen([*RLAIF, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    list(lines_until(process.stderr, "judging"))
    return process


def wait_for_requests(server: ScriptedServer, count: int) -> None:
    deadline = time.monotonic() + 30
    while len(server.received) < count:
        assert time.monotonic() < deadline, f"only {len(server.received)} requests came"
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_run_and_the_same_command_resumes_it(number: signal.Signals) -> None:
    write_rows(60)
    with ScriptedServer(Answer(chat_reply(), delay=0.05)) as server:
        with started(server) as process:
            wait_for_requests(server, 24)
            process.send_signal(number)
            out, err = process.communicate(timeout=60)
        assert process.returncode == 130
        assert out == ""
        said = err.splitlines()
        assert said[0] == "stopping; what is done is kept (again: stop at once)"
        assert said[-1].startswith("interrupted after ")
        assert said[-1].endswith(
            f"resume with: rlaif label in.jsonl -o run --judge openai:m --concurrency 4 --base-url {server.url}"
        )
        assert json.loads(Path("run/run.json").read_text())["status"] == "interrupted"
        asked = len(server.received)
        assert asked < 120
        with started(server) as process:
            assert process.wait(60) == 0
        assert len(server.received) <= 120 + 4 + 8
    assert table()["id"] == [f"r{n}" for n in range(60)]


def test_a_second_signal_ends_the_process_at_once() -> None:
    write_rows(8)
    program = (
        "import asyncio, sys\n"
        "from rlaif.cli.interruption import run_interruptible\n"
        "async def stubborn():\n"
        "    print('up', flush=True)\n"
        "    try:\n"
        "        await asyncio.sleep(60)\n"
        "    finally:\n"
        "        await asyncio.sleep(60)\n"
        "run_interruptible(stubborn(), lambda: print('stopping', flush=True))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        list(lines_until(process.stdout, "up"))
        process.send_signal(signal.SIGINT)
        list(lines_until(process.stdout, "stopping"))
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130

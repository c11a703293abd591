"""`rlaif revise` as a person runs it: chains, labels and their figures, resumed after a kill, faults by name."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest
from servers import Answer, Received, ScriptedServer, chat_reply

from rlaif.cli.main import main
from rlaif.cli.revise import LINE, ReviseCommand
from rlaif.options import options

FILES = ("data", "sft/data", "comparisons/data")


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(count: int, **more: Any) -> None:
    rows = [{"id": str(number), "prompt": f"Question {number}?", **more} for number in range(count)]
    Path("in.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def answer(received: Received) -> Answer:
    """Texts that depend on everything that was sent; a verdict for the first slot."""
    if received.method != "POST":
        return Answer(status=404)
    sent = received.json
    if sent["messages"][-1]["content"].endswith("(1 or 2):"):
        return Answer(chat_reply())
    words = hashlib.sha256(received.payload).hexdigest()
    text = f"{words[:16]} {'and more ' * int(words[0], 16)}"
    return Answer(chat_reply(text=text, logprobs=None, finish_reason="stop"))


def slow(received: Received) -> Answer:
    found = answer(received)
    return Answer(found.body, status=found.status, delay=0.03)


def command(server: ScriptedServer, out: str, *flags: str) -> list[str]:
    return [
        "revise", "in.jsonl", "-o", out, "--policy", "openai:p", "--base-url", server.url, "--constitution", "polite",
        "--rounds", "2", *flags,
    ]  # fmt: skip


def shards(out: str) -> dict[str, bytes]:
    return {name: (Path(out) / name / "train-00000.parquet").read_bytes() for name in FILES}


def posts(server: ScriptedServer) -> Counter[bytes]:
    return Counter(received.payload for received in server.received if received.method == "POST")


def test_a_run_says_what_it_made_and_how_much_longer_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    write(6, response="No.")
    with ScriptedServer(answer) as server:
        assert main(command(server, "run")) == 0
    said = capsys.readouterr().out
    assert "rows         6 revised" in said
    assert "100.0% of 6 revisions are longer than the initial response" in said
    assert "sft          12 rows in run/sft" in said
    assert "comparisons  6 in run/comparisons; labels assumed: the revision is better" in said
    rows = parquet.read_table("run/data").to_pylist()
    assert {row["initial_response"] for row in rows} == {"No."}


def test_a_judge_on_another_server_labels(capsys: pytest.CaptureFixture[str]) -> None:
    write(5)
    flags = ("--labels", "judge", "--judge", "openai:j", "--principles", "polite")
    with ScriptedServer(answer) as policy, ScriptedServer(answer) as judge:
        argv = command(judge, "run", *flags, "--policy-base-url", policy.url)
        assert main(argv) == 0
        assert sum(posts(policy).values()) == 5 * 5
        assert sum(posts(judge).values()) == 5 * 2
    captured = capsys.readouterr()
    assert "judge        prefers 50.0% of 5;" in captured.out  # it looks at nothing but the slot
    assert "judging      10 calls, 120 tokens in, 10 out" in captured.out
    assert "revising 5 rows with openai:p" in captured.err
    assert "judging 5 rows with openai:j" in captured.err
    assert main(["show", "run", "run/comparisons"]) == 0
    assert "5 labeled, 0 failed, of 5" in capsys.readouterr().out


@pytest.mark.parametrize("kill_at", [30, 75])
def test_a_killed_run_goes_on_where_it_was(kill_at: int) -> None:
    write(12)
    flags = ("--labels", "judge", "--judge", "openai:j", "--principles", "polite", "--concurrency", "4", "--quiet")
    with ScriptedServer(slow) as server:
        argv = [sys.executable, "-m", "rlaif.cli.main", *command(server, "run", *flags)]
        with subprocess.Popen(argv, stderr=subprocess.PIPE, start_new_session=True) as process:
            while sum(posts(server).values()) < kill_at:
                assert process.poll() is None
            os.kill(process.pid, signal.SIGKILL)
            process.communicate()
        before = posts(server)
        subprocess.run(argv, check=True, capture_output=True)
        again = posts(server) - before
        # 12 rows of 5 texts and 2 verdicts; a kill repeats at most the calls in flight and 8 that wait to be written
        assert len(posts(server)) == 12 * 7
        assert sum((again & before).values()) <= 4 + 8
        assert main(command(server, "whole", *flags)) == 0
    assert shards("run") == shards("whole")


def test_a_dry_run_asks_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    write(4)
    with ScriptedServer(answer) as server:
        assert main(command(server, "run", "--dry-run")) == 0
        assert server.received == []
    assert f"calls   {4 * 5}" in capsys.readouterr().out
    assert not Path("run").exists()


def test_rows_that_fail_are_told_by_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    def handler(received: Received) -> Answer:
        if received.method == "POST" and "Question 2?" in received.json["messages"][-1]["content"]:
            return Answer(chat_reply(text="", logprobs=None, finish_reason="stop"))
        return answer(received)

    write(4)
    with ScriptedServer(handler) as server:
        assert main(command(server, "run")) == 3
    assert "3 revised, 1 failed" in capsys.readouterr().out
    assert json.loads(Path("run/failures.jsonl").read_text())["error"].startswith("NoResponseError: openai:p wrote")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ((), "constitution: is missing"),
        (("--constitution", "polite", "--rounds", "0"), "--rounds: '0', expected a whole number of at least 1"),
        (("--constitution", "polite", "--labels", "mine"), "expected assumed, judge or none"),
        (("--constitution", "polite", "--principles", "rude"), "has no principle 'rude'"),
        (("--constitution", "polite", "--policy", "hf-reward:x"), "x"),
    ],
)
def test_wrong_use_starts_nothing(flags: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    write(2)
    assert main(["revise", "in.jsonl", "-o", "run", "--policy", "fake:0.5", *flags]) == 2
    assert said in capsys.readouterr().err
    assert not Path("run").exists()


def test_every_option_has_one_name_and_a_description() -> None:
    found = options(ReviseCommand)  # raises where two have one name
    assert all(option.description for option in found)
    assert {"policy_temperature", "temperature", "revision_shots", "shots", "labels"} <= {each.name for each in found}
    assert "--constitution" in LINE.description


def test_comparisons_without_labels_can_be_labeled_later() -> None:
    write(1)
    with ScriptedServer(answer) as server:
        assert main(command(server, "run", "--quiet", "--labels", "none")) == 0
    assert main(["label", "run/comparisons", "-o", "labels", "--judge", "fake:0.7", "--quiet"]) == 0
    assert parquet.read_table("labels/data").to_pylist()[0]["revised"] in ("a", "b")


def test_prompts_are_shown_as_the_policy_gets_them(capsys: pytest.CaptureFixture[str]) -> None:
    write(3, response="No.")
    flags = ("--id", "1", "--constitution", "polite", "--rounds", "2", "--revision-shots", "0")
    assert main(["show", "prompt", "in.jsonl", "--command", "revise", *flags]) == 0
    shown = capsys.readouterr()
    assert [line for line in shown.err.splitlines() if "-----" in line] == [
        f"----- row 1, revising, step {step} (asks for text, at most 512 tokens), user message -----"
        for step in (1, 2, 3, 4)
    ]
    assert "### Prompt\nQuestion 1?\n\n### Response\nNo.\n" in shown.out
    assert shown.out.rstrip().endswith("Revised response:")
    assert main(["show", "prompt", "in.jsonl", "--command", "revise"]) == 2
    assert "constitution: is missing" in capsys.readouterr().err

"""`rlaif rate` as a person runs it: rows and candidates in, ratings out, resumed after a kill, failures by name."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest
from servers import Answer, ScriptedServer

from rlaif.cli.main import main

DIGITS = {"8": 0.5, "7": 0.25, "10": 0.25}


def reply(probs: dict[str, float]) -> dict[str, Any]:
    top = [{"token": token, "logprob": math.log(prob)} for token, prob in probs.items()]
    first = {**top[0], "top_logprobs": top}
    message = {"role": "assistant", "content": top[0]["token"]}
    return {
        "choices": [{"message": message, "finish_reason": "length", "logprobs": {"content": [first]}}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 1},
    }


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(rows: list[dict[str, Any]]) -> None:
    Path("in.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def table() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = parquet.read_table("run/data").to_pylist()
    return rows


def rate(server: ScriptedServer, *flags: str) -> int:
    return main(["rate", "in.jsonl", "-o", "run", "--judge", "openai:m", "--base-url", server.url, "--quiet", *flags])


def posts(server: ScriptedServer) -> int:
    return sum(received.method == "POST" for received in server.received)


def test_rows_get_a_rating_its_distribution_and_a_reward() -> None:
    write([{"id": "a", "prompt": "Why?", "response": "because", "quality": 3}])
    with ScriptedServer(Answer(reply(DIGITS))) as server:
        assert rate(server) == 0
    (row,) = table()
    # seven scores are unseen, and nothing is left of 1 for them
    assert row["rating"] == pytest.approx(0.5 * 8 + 0.25 * 7 + 0.25 * 10)
    assert row["reward"] == pytest.approx((8.25 - 5.5) / 4.5)
    assert row["rating_probs"][7] == pytest.approx(0.5)
    assert row["label_mass"] == pytest.approx(1.0)
    assert row["is_bounded"]
    assert row["quality"] == 3


def test_candidates_keep_one_row_and_run_json_counts_them(capsys: pytest.CaptureFixture[str]) -> None:
    write([{"prompt": "Why?", "responses": ["because", "no idea", "because"], "policies": ["x", "y", "z"]}])
    with ScriptedServer(Answer(reply(DIGITS))) as server:
        assert rate(server) == 0
        assert posts(server) == 2
    (row,) = table()
    assert row["ratings"] == pytest.approx([8.25] * 3)
    assert row["policies"] == ["x", "y", "z"]
    counts = json.loads(Path("run/run.json").read_text())["counts"]
    assert counts["responses"] == 3
    assert counts["calls"] == 2
    assert main(["show", "run", "run"]) == 0
    assert "1 rated, 0 failed, of 1" in capsys.readouterr().out
    assert main(["show", "row", "run", row["id"]]) == 0
    assert "response 2: reading" in capsys.readouterr().out


def test_a_rating_that_cannot_be_read_is_a_failure_with_a_name() -> None:
    write([{"id": "a", "prompt": "Why?", "response": "because"}, {"id": "b", "prompt": "Why?", "response": "no idea"}])

    def answer(received: Any) -> Answer:
        if received.method != "POST":
            return Answer(status=404)
        is_bad = "no idea" in received.json["messages"][0]["content"]
        return Answer(reply({"Sure": 0.9, "Well": 0.1} if is_bad else DIGITS))

    with ScriptedServer(answer) as server:
        assert rate(server) == 3
    (failure,) = [json.loads(line) for line in Path("run/failures.jsonl").read_text().splitlines()]
    assert (failure["id"], failure["stage"]) == ("b", "rating")
    assert failure["error"].startswith("LabelsUnseenError: none of 1, 2, 3")
    assert [row["id"] for row in table()] == ["a"]


def test_a_panel_needs_every_judge_unless_told_otherwise() -> None:
    write([{"id": str(number), "prompt": "Why?", "response": f"because {number}"} for number in range(4)])

    def answer(received: Any) -> Answer:
        if received.method != "POST":
            return Answer(status=404)
        body = received.json
        if body["model"] == "weak" and "because 2" in body["messages"][0]["content"]:
            return Answer({"error": {"message": "no"}}, status=400)
        return Answer(reply({"9": 1.0} if body["model"] == "weak" else {"5": 1.0}))

    with ScriptedServer(answer) as server:
        assert rate(server, "--judge", "openai:weak") == 3
        assert [row["id"] for row in table()] == ["0", "1", "3"]
        asked = posts(server)
        assert asked == 8
        # its sibling's answer stays in the journal: only the failed call is made again
        assert rate(server, "--judge", "openai:weak") == 3
        assert posts(server) == asked + 1
        partial = ["--judge", "openai:weak", "--allow-partial-panel", "-o", "partial"]
        assert rate(server, *partial) == 0
    rows = parquet.read_table("partial/data").to_pylist()
    assert [row["missing_judges"] for row in rows] == [[], [], ["openai:weak"], []]
    assert rows[2]["rating"] == pytest.approx(5.0, abs=0.01)
    assert rows[0]["rating"] == pytest.approx(7.0, abs=0.01)
    counts = json.loads(Path("partial/run.json").read_text())["counts"]
    assert counts["partial_rows"] == 1
    assert counts["judge_correlation"][0]["rows"] == 3


def test_a_killed_run_goes_on_where_it_was() -> None:
    write([{"id": str(number), "prompt": "Why?", "response": f"because {number}"} for number in range(40)])
    with ScriptedServer(Answer(reply(DIGITS), delay=0.05)) as server:
        command = [
            sys.executable, "-m", "rlaif.cli.main", "rate", "in.jsonl", "-o", "run", "--judge", "openai:m",
            "--base-url", server.url, "--concurrency", "4",
        ]  # fmt: skip
        with subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True) as process:
            while posts(server) < 16:
                assert process.poll() is None
            os.kill(process.pid, signal.SIGKILL)
            process.communicate()
        subprocess.run(command, check=True, capture_output=True)
        assert posts(server) <= 40 + 4 + 8
    assert [row["id"] for row in table()] == [str(number) for number in range(40)]


def test_prompts_of_ratings_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    write([{"id": "a", "prompt": "Why?", "response": "because"}])
    assert main(["show", "prompt", "in.jsonl", "--command", "rate"]) == 0
    shown = capsys.readouterr()
    assert shown.out.rstrip().endswith("Rating (1 to 10):")
    assert "asks for the log-probabilities of 1 to 10" in shown.err


def test_a_dry_run_counts_calls_and_asks_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    write([{"prompt": "Why?", "responses": ["because", "no idea"]}])
    with ScriptedServer(Answer(reply(DIGITS))) as server:
        assert rate(server, "--dry-run") == 0
        assert server.received == []
    assert "calls   2" in capsys.readouterr().out


def test_a_judge_of_a_partial_panel_that_never_answers_stops_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    write([{"id": str(number), "prompt": "Why?", "response": f"because {number}"} for number in range(12)])

    def answer(received: Any) -> Answer:
        if received.method != "POST":
            return Answer(status=404)
        if received.json["model"] == "weak":
            return Answer({"error": {"message": "no"}}, status=400)
        return Answer(reply({"5": 1.0}))

    with ScriptedServer(answer) as server:
        assert rate(server, "--judge", "openai:weak", "--allow-partial-panel", "--concurrency", "2") in (2, 130)
    assert "openai:weak: nothing has succeeded, stopped" in capsys.readouterr().err

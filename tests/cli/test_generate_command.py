"""`rlaif generate` as a person runs it: prompts in, candidates and comparisons out, killed and resumed, shown again."""

from __future__ import annotations

import hashlib
import json
import os
import resource
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
HOSTILE = "\x1b]0;owned\x07 \u202e {{ x }} {% y %} </s><|im_end|> ``` <script>"


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(count: int) -> None:
    rows = [{"id": f"r{n}", "prompt": f"Question {n}?", "topic": n % 2} for n in range(count)]
    Path("in.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def reply(text: str | None, reason: str = "stop", **message: Any) -> dict[str, Any]:
    choice = {"message": {"role": "assistant", "content": text, **message}, "finish_reason": reason}
    return {"choices": [choice], "usage": {"prompt_tokens": 10, "completion_tokens": 5}}


def words(received: Received) -> str:
    """Other words for other requests, the same for equal ones."""
    digest = hashlib.sha256(received.payload).hexdigest()
    return " ".join(digest[place : place + 4] for place in range(0, 40, 4))


def talk(received: Received) -> Answer:
    return Answer(reply(words(received)), delay=0.05) if received.method == "POST" else Answer(status=404)


def asked(server: ScriptedServer) -> Counter[bytes]:
    """Every request for text and how often it came."""
    return Counter(received.payload for received in list(server.received) if received.method == "POST")


def arguments(server: ScriptedServer, *flags: str, out: str = "run") -> list[str]:
    return [
        "generate", "in.jsonl", "-o", out, "--policy", "openai:m", "--base-url", server.url, "--concurrency", "4",
        *flags,
    ]  # fmt: skip


def generate(server: ScriptedServer, *flags: str, out: str = "run") -> int:
    return main([*arguments(server, *flags, out=out), "--quiet"])


def candidates(out: str = "run") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = parquet.read_table(f"{out}/data").to_pylist()
    return rows


def shards(out: str) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in Path(out).rglob("*.parquet")}


def start(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen([*RLAIF, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(server: ScriptedServer, calls: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while asked(server).total() < calls:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_run_killed_at_any_moment_goes_on_and_comes_to_the_same_bytes() -> None:
    write(12)
    with ScriptedServer(talk) as server:
        assert generate(server, out="whole") == 0
        calls = asked(server)
        assert calls.total() == len(calls) == 12 * 4
    with ScriptedServer(talk) as server:
        command = arguments(server)
        for moment in (3, 25):  # the first may come before anything is committed
            with start(command) as process:
                wait_for(server, moment, process)
                os.kill(process.pid, signal.SIGKILL)
                process.communicate()
        subprocess.run([*RLAIF, *command], check=True, capture_output=True)
        # A kill repeats at most the calls in flight and the replies that wait for a commit.
        assert asked(server).total() <= 12 * 4 + 2 * (4 + 8)
        assert set(asked(server)) == set(calls)
        finished = asked(server).total()
        assert generate(server) == 0
        assert asked(server).total() == finished
    assert shards("run") == shards("whole")


def test_ctrl_c_stops_in_order_and_says_how_to_go_on() -> None:
    write(12)
    with ScriptedServer(talk) as server:
        command = arguments(server)
        with start(command) as process:
            wait_for(server, 20, process)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
        assert process.returncode == 130
        assert out == ""
        said = err.splitlines()
        assert said[0] == "answering 12 rows with openai:m"
        assert said[-1].startswith("interrupted after ")
        assert said[-1].endswith(f"of 12 rows; resume with: rlaif {' '.join(command)}")
        assert json.loads(Path("run/run.json").read_text())["status"] == "interrupted"
        assert generate(server) == 0
        assert asked(server).total() <= 12 * 4 + 4
    assert [row["id"] for row in candidates()] == [f"r{n}" for n in range(12)]


def test_a_full_disk_stops_the_run_and_room_resumes_it() -> None:
    write(40)
    long = "x" * 4000

    def answer(received: Received) -> Answer:
        return Answer(reply(f"{words(received)} {long}")) if received.method == "POST" else Answer(status=404)

    def little_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    with ScriptedServer(answer) as server:
        command = [*RLAIF, *arguments(server)]
        found = subprocess.run(command, capture_output=True, text=True, preexec_fn=little_room, check=False)
        assert found.returncode == 130
        assert "RunFolderError: the journal cannot be written" in found.stderr
        assert "what is done is kept; when that is mended, resume with: rlaif generate" in found.stderr
        first = asked(server).total()
        assert 8 <= first < 160
        assert generate(server) == 0
        # What no longer went into the journal: the 8 that wait, and all that the 4 rows in work had asked.
        assert asked(server).total() <= 160 + 8 + 4 * 4
    assert len(candidates()) == 40


def test_output_goes_into_label_rate_and_datasets_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    import datasets

    write(3)
    with ScriptedServer(talk) as server:
        assert generate(server, "--pairs", "2") == 0
    assert main(["label", "run/comparisons", "-o", "labels", "--judge", "fake:longer", "--quiet"]) == 0
    labels = parquet.read_table("labels/data").to_pylist()
    assert [(row["candidates_id"], row["policy_a"], row["topic"]) for row in labels] == [
        (f"r{n // 2}", "openai:m", n // 2 % 2) for n in range(6)
    ]
    assert main(["rate", "run", "-o", "ratings", "--judge", "fake:0.8", "--quiet"]) == 0
    ratings = parquet.read_table("ratings/data").to_pylist()
    assert [len(row["ratings"]) for row in ratings] == [len(row["responses"]) for row in candidates()]
    cache = str(Path("cache").absolute())
    assert datasets.load_dataset("./run", split="train", cache_dir=cache).to_list() == candidates()
    pairs = datasets.load_dataset("./run", "comparisons", split="train", cache_dir=cache)
    assert pairs["id"][:] == [row["id"] for row in labels]
    assert main(["generate", "labels", "-o", "again", "--policy", "fake:0.9", "--samples", "1", "--quiet"]) == 0
    assert len(candidates("again")) == 6
    assert capsys.readouterr().out == ""


def test_hostile_text_changes_neither_the_terminal_nor_the_data(capsys: pytest.CaptureFixture[str]) -> None:
    Path("in.jsonl").write_text(json.dumps({"id": HOSTILE, "prompt": HOSTILE, HOSTILE: HOSTILE}) + "\n")

    def answer(received: Received) -> Answer:
        if received.method != "POST":
            return Answer(status=404)
        assert received.json["messages"] == [{"role": "user", "content": HOSTILE}]
        return Answer(reply(f"{HOSTILE} {words(received)}"))

    with ScriptedServer(answer) as server:
        assert main(arguments(server, "--samples", "2")) == 0
    assert main(["show", "run", "run"]) == 0
    assert main(["show", "row", "run", HOSTILE]) == 0
    out, err = capsys.readouterr()
    (row,) = candidates()
    assert (row["id"], row["prompt"], row[HOSTILE]) == (HOSTILE, HOSTILE, HOSTILE)
    assert all(text.startswith(HOSTILE) for text in row["responses"])
    for shown in (out, err, Path("run/README.md").read_text()):
        assert "\x1b" not in shown
        assert "\u202e" not in shown
    assert "response 2: openai:m, seed" in out


def odd(received: Received) -> Answer:
    """Refuses r1, filters r2, says nothing to r3, and cuts off r4."""
    if received.method != "POST":
        return Answer(status=404)
    prompt = received.json["messages"][0]["content"]
    if prompt == "Question 1?":
        return Answer(error_reply("against our policy", code="content_filter"), status=400)
    if prompt == "Question 2?":
        return Answer(reply(None, "stop", refusal="I will not."))
    if prompt == "Question 3?":
        return Answer(reply(""))
    return Answer(reply(words(received), "length" if prompt == "Question 4?" else "stop"))


def test_what_was_asked_for_is_not_advised(capsys: pytest.CaptureFixture[str]) -> None:
    write(1)
    finish_reasons = iter(["length", "stop"])

    def half(received: Received) -> Answer:
        if received.method != "POST":
            return Answer(status=404)
        return Answer(reply(words(received), next(finish_reasons)))

    with ScriptedServer(half) as server:
        assert main(arguments(server, "--samples", "2", "--drop", "cut-off")) == 0
    assert "cut off      1 at the most tokens (raise --max-tokens)\n" in capsys.readouterr().out


def test_refused_empty_and_cut_off_responses_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    write(8)
    with ScriptedServer(odd) as server:
        assert main(arguments(server, "--samples", "2", "--drop", "empty")) == 3
    out = capsys.readouterr().out
    assert "rows         5 answered, 3 failed (see run/failures.jsonl)" in out
    assert "cut off      2 at the most tokens (raise --max-tokens, or --drop cut-off)" in out
    failures = [json.loads(line) for line in Path("run/failures.jsonl").read_text().splitlines()]
    assert [(each["id"], each["stage"], each["error"].partition(":")[0]) for each in failures] == [
        ("r1", "responses", "RequestRefusedError"),
        ("r2", "responses", "RequestRefusedError"),
        ("r3", "responses", "NoResponseError"),
    ]
    assert "against our policy" in failures[0]["error"]
    assert "I will not." in failures[1]["error"]
    (cut,) = [row for row in candidates() if row["id"] == "r4"]
    assert cut["finish_reasons"] == ["length", "length"]
    assert main(["show", "run", "run"]) == 0
    shown = capsys.readouterr().out
    assert "policy       openai:m: 10 sampled; 10 kept; 2 cut off" in shown
    assert "rows         5 answered, 3 failed, of 8" in shown
    assert "comparisons  5" in shown
    assert "drop empty, near_duplicate 0.8, pairs all, seed 0\n" in shown
    assert "2 x RequestRefusedError, such as r1 (responses): " in shown


def test_a_row_shows_its_responses_and_a_failed_one_what_was_said(capsys: pytest.CaptureFixture[str]) -> None:
    write(8)
    with ScriptedServer(odd) as server:
        assert generate(server, "--samples", "2", "--drop", "empty", "--max-retries", "0") == 3
    (row,) = [row for row in candidates() if row["id"] == "r0"]
    assert main(["show", "row", "run", "r0"]) == 0
    shown = capsys.readouterr().out
    for number in range(2):
        title = f"----- response {number + 1}: openai:m, seed {row['seeds'][number]}, finish reason stop -----"
        assert f"{title}\n{row['responses'][number]}\n" in shown
    assert "replies in the journal: response, sample 1, response, sample 2" in shown
    assert main(["show", "row", "run", "r3"]) == 0
    shown = capsys.readouterr().out
    assert "no candidates: the row failed, or is not written yet" in shown
    assert "----- response, sample 2: reply -----\n\n(finish reason: stop)" in shown
    assert "responses: NoResponseError: none of 2 responses can be used (openai:m: empty, 2 times)" in shown
    assert main(["show", "row", "run", "r33"]) == 2
    assert "run: has no row with the id 'r33'" in capsys.readouterr().err


def test_a_refusal_beside_answers_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    write(4)
    refused: list[int] = []

    def answer(received: Received) -> Answer:
        if received.method != "POST":
            return Answer(status=404)
        seed = received.json["seed"]
        if received.json["messages"][0]["content"] == "Question 2?" and refused in ([], [seed]):
            refused[:] = [seed]
            return Answer(error_reply("not that one"), status=400)
        return Answer(reply(words(received)))

    with ScriptedServer(answer) as server:
        assert generate(server, "--samples", "3") == 0
        before, count = shards("run"), asked(server).total()
        assert generate(server, "--samples", "3") == 0
        assert asked(server).total() == count
    assert shards("run") == before
    assert main(["show", "row", "run", "r2"]) == 0
    shown = capsys.readouterr().out
    assert f"not that one): openai:m, seed {refused[0]} -----" in shown
    assert "sample 1, response, sample 2, response, sample 3" in shown


def test_a_server_with_hiccups_answers_in_the_end() -> None:
    write(6)
    seen: Counter[bytes] = Counter()

    def answer(received: Received) -> Answer:
        if received.method != "POST":
            return Answer(status=404)
        seen[received.payload] += 1
        fault = hashlib.sha256(received.payload).digest()[0] % 4
        if seen[received.payload] == 1 and fault < 3:
            return [
                Answer(error_reply("slow down"), status=429, headers={"Retry-After": "0"}),
                Answer(error_reply("oops"), status=500),
                Answer(reply("never whole " * 9), fault="cut"),
            ][fault]
        return Answer(reply(words(received)))

    with ScriptedServer(answer) as server:
        assert generate(server) == 0
    assert {len(row["responses"]) for row in candidates()} == {4}
    assert not any("never" in text for row in candidates() for text in row["responses"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--temperature", "0"], "--temperature: 0 draws the same response each time"),
        (["--top-p", "0"], "--top-p: 0 leaves no token to choose from"),
        (["--samples", "0", "--pairs", "some"], "the command line has 2 faults"),
        (["--near-duplicate", "0"], "--near-duplicate: 0 would leave one response"),
        (["--policy", "openai:m"], "--policy: openai:m is named twice"),
        (["--policy", "nothing"], "policy 'nothing': expected BACKEND:MODEL"),
        (["--columns", "response=topic"], "'response', which is not read here"),
    ],
)
def test_wrong_use_starts_nothing(flags: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    write(2)
    with ScriptedServer(talk) as server:
        assert generate(server, *flags) == 2
        assert server.received == []
    assert message in capsys.readouterr().err
    assert not Path("run").exists()


def test_a_folder_of_another_command_is_refused_both_ways(capsys: pytest.CaptureFixture[str]) -> None:
    write(2)
    with ScriptedServer(talk) as server:
        assert generate(server, "--samples", "2") == 0
        assert main(["label", "run/comparisons", "-o", "labels", "--judge", "fake:0.8", "--quiet"]) == 0
        assert generate(server, out="labels") == 2
        assert "labels: holds a run of `rlaif label`" in capsys.readouterr().err
        assert main(["label", "run/comparisons", "-o", "run", "--judge", "fake:0.8"]) == 2
        assert "run: holds a run of `rlaif generate`" in capsys.readouterr().err


def test_settings_from_a_file_and_a_dry_run(capsys: pytest.CaptureFixture[str]) -> None:
    write(3)
    Path("generate.yaml").write_text("policy: openai:m\nsamples: 2\npairs: 1\ndrop: [empty, cut-off]\nprice: 1/2\n")
    command = ["generate", "in.jsonl", "-o", "run", "--config", "generate.yaml"]
    assert main([*command, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "calls   6\n" in out
    assert "at most 3,072 out" in out  # 6 * 512
    assert not Path("run").exists()
    with ScriptedServer(talk) as server:
        assert main([*command, "--base-url", server.url]) == 0
    out = capsys.readouterr().out
    assert "rows         3 answered\n" in out
    assert "comparisons  3\n" in out
    assert "cost         $0.0001\n" in out  # 60 tokens at 1 and 30 at 2 USD a million: 0.00012
    assert "next         rlaif label run/comparisons -o LABELS\n" in out

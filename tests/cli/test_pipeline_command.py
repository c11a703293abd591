"""`rlaif pipeline` as a person runs it: stages on each other's output, skipped when done, resumed after a kill."""

from __future__ import annotations

import hashlib
import json
import math
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest
from servers import Answer, Received, ScriptedServer

from rlaif.cli.main import main

PROMPTS = 12
CALLS = PROMPTS * (3 + 3 * 2)
"""Three responses a prompt, and their three comparisons in both orders."""


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def answer(received: Received, delay: float = 0.0) -> Answer:
    """A policy that says something else for every seed, and a judge with an opinion of every comparison."""
    if received.method != "POST":
        return Answer(status=404)
    digest = hashlib.sha256(received.payload).digest()
    if received.json.get("logprobs"):
        first = 0.05 + 0.9 * digest[0] / 255
        top = [{"token": token, "logprob": math.log(prob)} for token, prob in (("1", first), ("2", 1 - first))]
        content, logprobs = "1", {"content": [{**top[0], "top_logprobs": top}]}
    else:
        content, logprobs = " ".join(f"word{byte}" for byte in digest[:6]), None
    choice = {"message": {"role": "assistant", "content": content}, "finish_reason": "stop", "logprobs": logprobs}
    usage = {"prompt_tokens": 10, "completion_tokens": 6}
    return Answer({"choices": [choice], "usage": usage}, delay=delay)


def write(url: str, **label: Any) -> None:
    rows = [{"id": f"p{number}", "prompt": f"Question {number}?"} for number in range(PROMPTS)]
    Path("prompts.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    content = {
        "out": "run",
        "defaults": {"base_url": url, "concurrency": 4},
        "stages": {
            "generate": {"input": "prompts.jsonl", "policy": "openai:p", "samples": 3},
            "label": {"judge": "openai:j", **label},
        },
    }
    Path("p.yaml").write_text(json.dumps(content))  # JSON is YAML


def posts(server: ScriptedServer) -> list[bytes]:
    return [received.payload for received in server.received if received.method == "POST"]


def labels(folder: str = "run/label") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = parquet.read_table(f"{folder}/data").to_pylist()
    return rows


def test_stages_take_what_the_ones_before_them_made(capsys: pytest.CaptureFixture[str]) -> None:
    with ScriptedServer(answer) as server:
        write(server.url)
        assert main(["pipeline", "p.yaml"]) == 0
        assert len(posts(server)) == CALLS
        shown = capsys.readouterr()
        assert "[2/2] label: run, for the first time" in shown.err
        assert "run/label" in shown.out
        assert main(["pipeline", "p.yaml"]) == 0
        assert len(posts(server)) == CALLS
        assert "[1/2] generate: skipped, nothing it depends on has changed" in capsys.readouterr().err
    rows = labels()
    assert len(rows) == PROMPTS * 3
    assert {row["candidates_id"] for row in rows} == {f"p{number}" for number in range(PROMPTS)}
    # each stage is the command alone, with the options that stand beside its folder
    known = json.loads(Path("run/label/run.json").read_text())
    assert known["command"] == "label"
    assert known["repeat"] == "rlaif label --config run/label.yaml"


def test_a_changed_stage_asks_only_what_is_new(capsys: pytest.CaptureFixture[str]) -> None:
    with ScriptedServer(answer) as server:
        write(server.url)
        assert main(["pipeline", "p.yaml", "--quiet"]) == 0
        write(server.url, debias="mean-logit")  # other labels of the same replies
        assert main(["pipeline", "p.yaml", "--quiet"]) == 0
        assert len(posts(server)) == CALLS
    assert "label: run anew" in (err := capsys.readouterr().err)
    assert 'debias was "mean-prob", now "mean-logit"' in err
    assert len(labels("run/label.old-1")) == len(labels()) == PROMPTS * 3
    assert [row["prob_a"] for row in labels("run/label.old-1")] != [row["prob_a"] for row in labels()]


def test_a_changed_input_is_named_and_reaches_all_behind_it(capsys: pytest.CaptureFixture[str]) -> None:
    with ScriptedServer(answer) as server:
        write(server.url)
        assert main(["pipeline", "p.yaml", "--quiet"]) == 0
        with Path("prompts.jsonl").open("a") as file:
            file.write('{"id": "new", "prompt": "One more?"}\n')
        assert main(["pipeline", "p.yaml", "--quiet"]) == 0
        assert len(posts(server)) == CALLS + 9  # the new prompt's
    err = capsys.readouterr().err
    assert "generate: run anew" in err
    assert "prompts.jsonl has changed since" in err
    assert "run/generate/comparisons has changed since" in err
    assert len(labels()) == (PROMPTS + 1) * 3


def test_killed_and_run_again_it_is_as_if_nothing_had_happened() -> None:
    with ScriptedServer(lambda received: answer(received, delay=0.02)) as server:
        write(server.url)
        command = [sys.executable, "-m", "rlaif.cli.main", "pipeline", "p.yaml", "--quiet"]
        for killed_after in (18, 40):  # while it generates, and while it labels
            with subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True) as process:
                while len(posts(server)) < killed_after:
                    assert process.poll() is None
                os.kill(process.pid, signal.SIGKILL)
                process.communicate()
        subprocess.run(command, check=True, capture_output=True)
        repeated = sum(count - 1 for count in Counter(posts(server)).values())
        assert repeated <= 2 * (4 + 8)  # at each kill those in flight, and those that waited to be committed
        killed = Path("run/label/data/train-00000.parquet").read_bytes()
        assert main(["pipeline", "p.yaml", "--quiet", "-o", "calm"]) == 0
    assert Path("calm/label/data/train-00000.parquet").read_bytes() == killed
    assert not list(Path("run").glob("*.old-*"))


def test_a_stage_that_cannot_start_says_which_and_the_rest_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    with ScriptedServer(answer) as server:
        write(server.url, task="no-such-thing")
        assert main(["pipeline", "p.yaml", "--quiet"]) == 2
        err = capsys.readouterr().err
        assert "no-such-thing" in err
        assert "stopped at the stage label" in err
        asked = len(posts(server))
        write(server.url)
        assert main(["pipeline", "p.yaml", "--quiet"]) == 0
        assert len(posts(server)) == asked + PROMPTS * 6  # nothing was generated again


def test_a_constitution_that_cannot_be_read_is_told_before_anything_is_asked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with ScriptedServer(answer) as server:
        write(server.url, constitution="no-such-thing")
        assert main(["pipeline", "p.yaml"]) == 2
        assert server.received == []
    assert "stages.label.constitution: there is no constitution named 'no-such-thing'" in capsys.readouterr().err


def test_faults_of_all_stages_are_told_before_anything_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
    with ScriptedServer(answer) as server:
        write(server.url, debais="mean-logit", orders="all")
        assert main(["pipeline", "p.yaml"]) == 2
        assert server.received == []
    err = capsys.readouterr().err
    assert "debais: unknown option (did you mean 'debias'?)" in err
    assert "orders: 'all', expected both, ab, ba or random" in err


def test_a_dry_run_says_what_would_run(capsys: pytest.CaptureFixture[str]) -> None:
    with ScriptedServer(answer) as server:
        write(server.url)
        assert main(["pipeline", "p.yaml", "--dry-run"]) == 0
        assert server.received == []
        assert "generate: run, for the first time\nlabel: run, for the first time" in capsys.readouterr().out
        assert main(["pipeline", "p.yaml", "--quiet"]) == 0
        assert main(["pipeline", "p.yaml", "--dry-run", "--set", "debias=mean-logit"]) == 0
    assert 'label: redo, debias was "mean-prob", now "mean-logit"' in capsys.readouterr().out

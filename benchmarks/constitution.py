"""The example pipeline from a constitution to preference data: how long it takes, what it makes, what another
constitution changes, and what remains of it when it is killed.

    python benchmarks/constitution.py                      # all of it, some minutes
    python benchmarks/constitution.py --kills 10 --only killed

Runs `rlaif pipeline examples/constitution.yaml` as users do, offline on the models that ship: rows and seconds of each
stage; the share of labels that two opposite constitutions turn around on the same pairs; and the same run killed with
SIGKILL at random moments, resumed each time, and compared with one that nobody touched: texts byte for byte, labels to
the rounding of float32. That no finished call is asked again is seen twice: the session that finishes a stage asks what
the journal lacked and no more; and against a server that counts, calls repeated are at most those in flight and the
eight of the last commit at each kill, and the output is equal byte for byte.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from servers import Answer, Received, ScriptedServer  # noqa: E402

from rlaif.engine.pipeline import digest_of  # noqa: E402

EXAMPLE = "examples/constitution.yaml"
STAGES = ("generate", "revise", "label", "label-people", "audit", "filter", "export")
ASKING = ("generate", "revise", "label", "label-people")
OPPOSITES = (("concise", "detailed"), ("polite", "blunt"), ("honest", "confident"))
WAITING_FOR_COMMIT, CONCURRENCY = 8, 16
ROUNDING = 1e-5
"""Largest difference between a calm and a killed run whose judge runs in this process."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=("calm", "opposites", "killed", "counted"), action="append")
    arguments = parser.parse_args()
    chosen = arguments.only or ["calm", "opposites", "killed", "counted"]
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seconds = calm(folder) if {"calm", "opposites", "killed"} & set(chosen) else 0.0
        checks: dict[str, bool] = {}
        if "opposites" in chosen:
            opposites(folder)
        if "killed" in chosen:
            checks |= killed(folder, arguments.kills, seconds, rng)
        if "counted" in chosen:
            checks |= counted(folder, arguments.kills, rng)
    for text, is_right in checks.items():
        print(f"{'ok  ' if is_right else 'FAIL'}  {text}")
    return 0 if all(checks.values()) else 1


def command(out: Path, *more: str, file: str = EXAMPLE) -> list[str]:
    return [sys.executable, "-m", "rlaif", "pipeline", file, "--quiet", "--out", str(out), *more]


def calm(folder: Path) -> float:
    """The whole example once: what each stage made, and how long it took."""
    started = time.monotonic()
    subprocess.run(command(folder / "calm"), check=True, cwd=ROOT, stderr=subprocess.DEVNULL)
    seconds = time.monotonic() - started
    state = json.loads((folder / "calm" / "pipeline.json").read_text())["stages"]
    print(f"{EXAMPLE}: {seconds:.0f} s")
    for stage in STAGES:
        print(f"  {stage:<13} {state[stage]['seconds']:>6.1f} s  {made(folder / 'calm' / stage)}")
    return seconds


def made(stage: Path) -> str:
    """What a stage wrote, in a few words."""
    found = [
        f"{sum(parquet.read_metadata(file).num_rows for file in place.glob('*.parquet')):,} {name}"
        for name, place in (
            ("rows", stage / "data"),
            ("comparisons", stage / "comparisons" / "data"),
            ("SFT rows", stage / "sft" / "data"),
        )
        if place.is_dir()
    ]
    found += [f"{len(file.read_text().splitlines()):,} lines in {file.name}" for file in sorted(stage.glob("pairs*"))]
    return ", ".join(found) or ", ".join(sorted(file.name for file in stage.glob("*.*")))


def opposites(folder: Path) -> None:
    """Labels of the same pairs under a constitution and its opposite."""
    for one, other in OPPOSITES:
        labels = []
        for name in (one, other):
            out = folder / name
            run = [sys.executable, "-m", "rlaif", "label", str(folder / "calm/generate/comparisons"), "--quiet"]
            subprocess.run(
                [*run, "-o", str(out), "--constitution", name], check=True, cwd=ROOT, stderr=subprocess.DEVNULL
            )
            table = parquet.read_table(out / "data", columns=["id", "prob_a"])
            labels.append(dict(zip(*(table[column].to_pylist() for column in ("id", "prob_a")), strict=True)))
        first, second = labels
        both = [(first[row], second[row]) for row in first if row in second]
        decided = [(p, q) for p, q in both if 0.5 not in (p, q)]
        flipped = sum((p > 0.5) != (q > 0.5) for p, q in decided)
        sure = [(p, q) for p, q in decided if min(abs(p - 0.5), abs(q - 0.5)) > 0.3]
        sure_flipped = sum((p > 0.5) != (q > 0.5) for p, q in sure)
        print(
            f"{one} against {other}: {flipped / len(decided):.1%} of {len(decided):,} labels are turned around "
            f"({sure_flipped / max(1, len(sure)):.1%} of the {len(sure):,} that both are sure of)"
        )


def replies(out: Path) -> dict[str, int]:
    """Replies in the journal of each stage that asks."""
    counts = {}
    for stage in ASKING:
        file = out / stage / "journal" / "journal.sqlite"
        if file.exists():
            with sqlite3.connect(f"file:{file}?mode=ro", uri=True) as database:
                counts[stage] = database.execute("SELECT count(*) FROM replies").fetchone()[0]
    return counts


def killed(folder: Path, kills: int, seconds: float, rng: random.Random) -> dict[str, bool]:
    """The example killed again and again; equal to the calm run at the end."""
    out = folder / "killed"
    is_exact = True
    done = 0
    while True:
        before = replies(out)
        finished_before = finished(out)
        process = subprocess.Popen(command(out), cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True)
        if done < kills:
            time.sleep(rng.uniform(0.1, 0.35) * seconds)
        else:
            process.wait()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            done += 1
        elif process.returncode:
            return {f"the session after {done} kills ended with {process.returncode}": False}
        for stage in finished(out) - finished_before & set(ASKING):
            asked = json.loads((out / stage / "run.json").read_text())["calls"]["asked"]
            is_exact &= asked == replies(out)[stage] - before.get(stage, 0)
        if finished(out) >= set(STAGES):
            if done >= kills:
                break
            shutil.rmtree(out)  # it was done before its time: once more, from the start
    equal = [stage for stage in STAGES if digest_of(folder / "calm" / stage) == digest_of(out / stage)]
    distances = {stage: distance(folder / "calm" / stage, out / stage) for stage in STAGES if stage not in equal}
    told = ", ".join(f"{stage} within {most:.1e}" for stage, most in distances.items())
    return {
        f"{done} kills: equal to the calm run, byte for byte: {', '.join(equal)}; else: {told or 'none'}": (
            {"generate", "revise"} <= set(equal) and all(most <= ROUNDING for most in distances.values())
        ),
        "the session that finished a stage asked exactly what its journal lacked": is_exact,
    }


def finished(out: Path) -> set[str]:
    file = out / "pipeline.json"
    stages = json.loads(file.read_text())["stages"] if file.exists() else {}
    return {name for name, stage in stages.items() if stage["status"] == "finished"}


def distance(one: Path, other: Path) -> float:
    """How far two outputs of a stage are apart: the largest difference of a number in them, relative to 1 or to its
    size; infinite where anything else differs.

    A model in this process answers in batches. After a kill these are composed otherwise, which changes the last digits
    of a float32 sum.
    """
    if (one / "audit.json").exists():
        contents = [json.loads((folder / "audit.json").read_text()) for folder in (one, other)]
        for content in contents:
            content.pop("source", None)  # where it was
        return apart(*contents)
    if (one / "data").is_dir():
        return apart(*(parquet.read_table(folder / "data").to_pylist() for folder in (one, other)))
    return max(
        apart(
            *([json.loads(line) for line in (folder / file.name).read_text().splitlines()] for folder in (one, other))
        )
        for file in one.glob("pairs*")
    )


def apart(one: Any, other: Any) -> float:
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) / max(1.0, abs(one))
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return max((apart(one[key], other[key]) for key in one), default=0.0)
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return max((apart(*pair) for pair in zip(one, other, strict=True)), default=0.0)
    return 0.0 if one == other else math.inf


def answer(received: Received) -> Answer:
    """A policy that says something else for every seed, and a judge with an opinion of every comparison."""
    if received.method != "POST":
        return Answer(status=404)
    digest = hashlib.sha256(received.payload).digest()
    logprobs, content = None, " ".join(f"word{byte}" for byte in digest[:8])
    if received.json.get("logprobs"):
        first = 0.05 + 0.9 * digest[0] / 255
        top = [{"token": token, "logprob": math.log(prob)} for token, prob in (("1", first), ("2", 1 - first))]
        content, logprobs = "1", {"content": [{**top[0], "top_logprobs": top}]}
    choice = {"message": {"role": "assistant", "content": content}, "finish_reason": "stop", "logprobs": logprobs}
    return Answer({"choices": [choice], "usage": {"prompt_tokens": 10, "completion_tokens": 8}}, delay=0.05)


def counted(folder: Path, kills: int, rng: random.Random) -> dict[str, bool]:
    """The same stages against a server that counts what it is asked."""
    prompts = folder / "prompts.jsonl"
    prompts.write_text("".join(f'{{"id": "p{n}", "prompt": "Question {n}?"}}\n' for n in range(100)))
    with ScriptedServer(answer) as server:
        content: dict[str, Any] = {
            "out": "unused",
            "defaults": {"base_url": server.url, "concurrency": CONCURRENCY, "constitution": "polite"},
            "stages": {
                "generate": {"input": str(prompts), "policy": "openai:policy"},
                "revise": {"policy": "openai:policy", "rounds": 2},
                "label": {"judge": "openai:judge"},
            },
        }
        file = folder / "counted.yaml"
        file.write_text(json.dumps(content))
        run = command(folder / "counted", file=str(file))
        done = 0
        while done < kills:
            process = subprocess.Popen(run, cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True)
            time.sleep(rng.uniform(1.5, 3.0))
            if process.poll() is not None:
                break
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            done += 1
        subprocess.run(run, cwd=ROOT, check=True, stderr=subprocess.DEVNULL)
        asked = Counter(received.payload for received in server.received if received.method == "POST")
        subprocess.run(
            command(folder / "counted-calm", file=str(file)), cwd=ROOT, check=True, stderr=subprocess.DEVNULL
        )
    repeated = asked.total() - len(asked)
    allowed = done * (CONCURRENCY + WAITING_FOR_COMMIT)
    same = all(
        digest_of(folder / "counted" / stage) == digest_of(folder / "counted-calm" / stage)
        for stage in content["stages"]
    )
    return {
        f"counted by a server: {asked.total():,} calls, {repeated} repeated after {done} kills (at most {allowed})": (
            repeated <= allowed and done > 0
        ),
        "and its output equals an uninterrupted run's": same,
    }


if __name__ == "__main__":
    sys.exit(main())

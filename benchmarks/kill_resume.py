"""Kill a labeling run with SIGKILL at random moments, resume it each time, and compare with a run that nobody touched.

    python benchmarks/kill_resume.py --kills 20 --rows 1000

Starts the local OpenAI-compatible server with faults (../shared/tools), runs `rlaif label` as users do, and checks:
the columns of both datasets are equal byte for byte; no call was repeated beyond those in flight and the 8 of the last
commit at each kill; and every label is present although the server fails 7 % of the calls.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet

SERVER = Path(__file__).resolve().parents[2] / "shared" / "tools" / "openai_server.py"
FAULTS = {"p429": 0.025, "p500": 0.025, "malformed": 0.01, "phang": 0.01}
WAITING_FOR_COMMIT = 8


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--latency-ms", type=float, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if not SERVER.is_file():
        print("needs ../shared/tools/openai_server.py")
        return 2
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = write_comparisons(folder / "comparisons.jsonl", arguments.rows)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        server = subprocess.Popen([sys.executable, SERVER, "--port", str(port)], stdout=subprocess.PIPE)
        try:
            assert server.stdout is not None
            server.stdout.readline()
            return compare(folder, source, port, arguments)
        finally:
            server.kill()


def compare(folder: Path, source: Path, port: int, arguments: argparse.Namespace) -> int:
    concurrency = arguments.concurrency
    command = [
        sys.executable, "-m", "rlaif", "label", str(source), "--judge", "openai:mock-judge", "--base-url",
        f"http://127.0.0.1:{port}/v1", "--concurrency", str(concurrency), "--timeout", "2", "--quiet",
    ]  # fmt: skip
    ask(port, "/config", {"latency_ms": arguments.latency_ms})
    subprocess.run([*command, "-o", str(folder / "calm")], check=True)

    ask(port, "/reset", {})
    rng = random.Random(arguments.seed)
    kills = killed_repeats = 0
    while kills < arguments.kills:
        before = ask(port, "/stats")["repeated"]
        process = subprocess.Popen([*command, "-o", str(folder / "killed")])
        time.sleep(rng.uniform(0.4, 1.0))
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
        killed_repeats = max(killed_repeats, ask(port, "/stats")["repeated"] - before)
    subprocess.run([*command, "-o", str(folder / "killed")], check=True)
    calm_faults = ask(port, "/stats")

    ask(port, "/reset", {})
    ask(port, "/config", FAULTS)
    start = time.monotonic()
    faulty = subprocess.run([*command, "-o", str(folder / "faulty")], check=False)
    seconds = time.monotonic() - start
    stats = ask(port, "/stats")

    calm, killed, hurt = (parquet.read_table(folder / run / "data") for run in ("calm", "killed", "faulty"))
    allowed = kills * (concurrency + WAITING_FOR_COMMIT)
    checks = {
        f"{kills} kills: dataset equals the uninterrupted run's": killed.equals(calm),
        f"{calm_faults['repeated']} calls repeated in all, at most {allowed} allowed": calm_faults["repeated"]
        <= allowed,
        f"most repeated after one kill: {killed_repeats}, at most {concurrency + WAITING_FOR_COMMIT} allowed": (
            killed_repeats <= concurrency + WAITING_FOR_COMMIT
        ),
        f"faults {stats['status']}: exit {faulty.returncode}, {hurt.num_rows} rows in {seconds:.1f} s": (
            faulty.returncode == 0 and hurt.equals(calm)
        ),
    }
    for text, is_right in checks.items():
        print(f"{'ok  ' if is_right else 'FAIL'}  {text}")
    return 0 if all(checks.values()) else 1


def write_comparisons(path: Path, rows: int) -> Path:
    with path.open("w") as file:
        for number in range(rows):
            row = {"prompt": f"Question {number}?", "response_a": f"One {number}", "response_b": f"Two {number}"}
            file.write(json.dumps({"id": f"row-{number}", **row}) + "\n")
    return path


def ask(port: int, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", data) as reply:
        content: dict[str, Any] = json.loads(reply.read())
    return content


if __name__ == "__main__":
    sys.exit(main())

"""What a judge call costs: `rlaif label` beside a bare aiohttp loop and the openai client, in one run on one machine.

    python benchmarks/labeling.py                       1,000 comparisons in both orders, at 0 and 50 ms
    python benchmarks/labeling.py --rows 100000         streaming: memory, and the first against the last tenth
    python benchmarks/labeling.py --startup             CPU seconds of `rlaif --help`

Every client is its own process against the local server in ../shared/tools, with the same comparisons. CPU is user + system
time of that process from its start to its end, over its calls; calls/s is counted by the server between the first request
and the last reply, so start-up is in the former and not in the latter. The peers only ask and add up; `rlaif label` also
reads, renders, journals, scores and writes the dataset.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SERVER = Path(__file__).resolve().parents[2] / "shared" / "tools" / "openai_server.py"
MODEL = "mock-judge"
STREAMED_ROWS = 10_000
"""From here on only `rlaif label` runs, and its memory and evenness are looked at."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--latency-ms", type=float, nargs="+", default=None, help="default: 0 50; 0 for streaming")
    parser.add_argument("--repeats", type=int, default=3, help="median of so many; clients take turns")
    parser.add_argument("--clients", nargs="+", default=list(CLIENTS), choices=list(CLIENTS))
    parser.add_argument("--startup", action="store_true", help="only measure the start of `rlaif --help`")
    parser.add_argument("--as-client", choices=list(PEERS), help=argparse.SUPPRESS)
    parser.add_argument("--source", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.as_client:
        asyncio.run(ask_all(PEERS[arguments.as_client], arguments.source, arguments.port, arguments.concurrency))
        return 0
    if arguments.startup:
        return measure_startup()
    if not SERVER.is_file():
        print("needs the local server ../shared/tools/openai_server.py beside the repository", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as name, local_server() as port:
        folder = Path(name)
        source = write_comparisons(folder / "comparisons.jsonl", arguments.rows)
        if arguments.rows >= STREAMED_ROWS:
            return measure_streaming(folder, source, port, arguments)
        return compare_clients(folder, source, port, arguments)


# --- the comparison ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cost:
    """What one run of one client took."""

    cpu_ms: float
    calls_per_second: float
    seconds: float
    rss_mib: float


def compare_clients(folder: Path, source: Path, port: int, arguments: argparse.Namespace) -> int:
    calls = 2 * arguments.rows
    print(f"{arguments.rows} comparisons, {calls} calls, concurrency {arguments.concurrency}, ", end="")
    print(f"median of {arguments.repeats}, Python {sys.version.split()[0]}, {os.cpu_count()} cores\n")
    for latency in arguments.latency_ms or [0.0, 50.0]:
        runs: dict[str, list[Cost]] = {client: [] for client in arguments.clients}
        for repeat in range(arguments.repeats):
            for client in runs:
                ask(port, "/config", {"latency_ms": latency})
                out = folder / f"{client}-{latency:g}-{repeat}"
                runs[client].append(run_client(client, source, out, port, arguments.concurrency, calls))
        ideal = f", ideal {1000 * arguments.concurrency / latency:,.0f}" if latency else ""
        print(f"| {latency:g} ms latency | CPU ms/call | calls/s{ideal} | seconds, all | peak RSS, MiB |")
        print("|---|---|---|---|---|")
        for client, costs in runs.items():
            cpu, rate, seconds, rss = (
                statistics.median(getattr(cost, field) for cost in costs)
                for field in ("cpu_ms", "calls_per_second", "seconds", "rss_mib")
            )
            print(f"| {CLIENTS[client]} | {cpu:.2f} | {rate:,.0f} | {seconds:.1f} | {rss:.0f} |")
        print(flush=True)
    return 0


def run_client(client: str, source: Path, out: Path, port: int, concurrency: int, calls: int) -> Cost:
    ask(port, "/reset", {})
    start = time.perf_counter()
    process = subprocess.Popen(command_of(client, source, out, port, concurrency), stderr=subprocess.PIPE)
    _, error = process.communicate_with_usage() if hasattr(process, "communicate_with_usage") else (None, b"")
    raise NotImplementedError

"""What a judge call costs: `rlaif label` beside a bare aiohttp loop and the openai client, in one run on one machine.

    python benchmarks/labeling.py                       1,000 comparisons in both orders, at 0 and 50 ms
    python benchmarks/labeling.py --rows 100000         streaming: memory, and the first against the last tenth
    python benchmarks/labeling.py --startup             CPU seconds of `rlaif --help`

Every client is its own process against the local server in ../shared/tools, with the same comparisons. CPU is user and
system time of that process from its start to its end, over its calls; calls/s is counted by the server from the first
request to the last reply, so start-up is in the former and not in the latter. The peers only ask and add up; `rlaif
label` also reads, renders, journals, scores and writes the dataset.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
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
    usage = run_measured(command_of(client, source, out, port, concurrency))
    stats = ask(port, "/stats")
    if stats["ok_unique"] != calls:
        raise SystemExit(f"{client}: {stats['ok_unique']} of {calls} calls were answered")
    return Cost(1000 * usage.cpu_seconds / calls, calls / stats["window_s"], usage.seconds, usage.rss_mib)


def command_of(client: str, source: Path, out: Path, port: int, concurrency: int) -> list[str]:
    if client == "rlaif":
        return [
            sys.executable, "-m", "rlaif", "label", str(source), "-o", str(out), "--judge", f"openai:{MODEL}",
            "--base-url", f"http://127.0.0.1:{port}/v1", "--concurrency", str(concurrency), "--quiet",
        ]  # fmt: skip
    return [
        sys.executable, __file__, "--as-client", client, "--source", str(source), "--port", str(port),
        "--concurrency", str(concurrency),
    ]  # fmt: skip


# --- streaming and start-up -------------------------------------------------------------------------------------------


def measure_streaming(folder: Path, source: Path, port: int, arguments: argparse.Namespace) -> int:
    """Label many rows, watching the server's count of answered calls; both tenths in calls/s."""
    calls = 2 * arguments.rows
    for latency in arguments.latency_ms or [0.0]:
        ask(port, "/config", {"latency_ms": latency})
        ask(port, "/reset", {})
        seen: list[tuple[float, int]] = []

        def watch(seen: list[tuple[float, int]] = seen) -> None:
            seen.append((time.perf_counter(), ask(port, "/stats")["completed"]))

        command = command_of("rlaif", source, folder / f"run-{latency:g}", port, arguments.concurrency)
        usage = run_measured(command, watch=watch)
        stats = ask(port, "/stats")
        if stats["ok_unique"] != calls:
            raise SystemExit(f"{stats['ok_unique']} of {calls} calls were answered")
        first = rate_between(seen, 0.0, 0.1 * calls)
        last = rate_between(seen, 0.9 * calls, calls)
        print(f"| {arguments.rows:,} rows, {latency:g} ms | CPU ms/call | calls/s | first tenth | last tenth ", end="")
        print("| seconds, all | peak RSS, MiB |\n|---|---|---|---|---|---|---|")
        print(f"| rlaif label | {1000 * usage.cpu_seconds / calls:.2f} | {calls / stats['window_s']:,.0f} ", end="")
        print(f"| {first:,.0f} | {last:,.0f} | {usage.seconds:.0f} | {usage.rss_mib:.0f} |\n", flush=True)
    return 0


def rate_between(seen: list[tuple[float, int]], low: float, high: float) -> float:
    """Calls/s while the count went from `low` to `high`, from samples of (seconds, count)."""
    begin = max((sample for sample in seen if sample[1] <= low), key=lambda sample: sample[0])
    end = next((sample for sample in seen if sample[1] >= high), seen[-1])  # the last calls may fall between samples
    return (end[1] - begin[1]) / (end[0] - begin[0])


def measure_startup(repeats: int = 7) -> int:
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "rlaif --help": [sys.executable, "-m", "rlaif", "--help"],
        "rlaif label --help": [sys.executable, "-m", "rlaif", "label", "--help"],
    }
    print("| start-up | CPU s | seconds | peak RSS, MiB |\n|---|---|---|---|")
    for name, command in commands.items():
        runs = [run_measured(command) for _ in range(repeats)]
        cpu, seconds, rss = (
            statistics.median(getattr(run, field) for run in runs) for field in ("cpu_seconds", "seconds", "rss_mib")
        )
        print(f"| {name} | {cpu:.2f} | {seconds:.2f} | {rss:.0f} |", flush=True)
    return 0


# --- the peers --------------------------------------------------------------------------------------------------------


async def ask_all(open_client: OpenClient, source: Path, port: int, concurrency: int) -> None:
    """Both orders of every comparison through one client, `concurrency` at a time, streamed from the file."""
    prompts = prompts_of(source)
    total = 0.0

    async with open_client(f"http://127.0.0.1:{port}/v1") as score:

        async def work() -> None:
            nonlocal total
            for prompt in prompts:
                total += await score(prompt)

        await asyncio.gather(*(work() for _ in range(concurrency)))


def prompts_of(source: Path) -> Iterator[str]:
    with source.open() as lines:
        for line in lines:
            row = json.loads(line)
            for first, second in ((row["response_a"], row["response_b"]), (row["response_b"], row["response_a"])):
                yield (
                    "You compare two responses to a request and name the better one.\n\n"
                    f"Request:\n{row['prompt']}\n\nResponse 1:\n{first}\n\nResponse 2:\n{second}\n\n"
                    "Answer with 1 or 2 and nothing else."
                )


Score = Callable[[str], Awaitable[float]]
OpenClient = Callable[[str], contextlib.AbstractAsyncContextManager[Score]]


@contextlib.asynccontextmanager
async def bare_aiohttp(base_url: str) -> Any:
    import aiohttp
    import orjson

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, headers={"Content-Type": "application/json"}) as session:

        async def score(prompt: str) -> float:
            body = {
                "model": MODEL,
                "messages": [{"role": "user", "content": prompt}],
                "max_tokens": 1,
                "temperature": 0,
                "logprobs": True,
                "top_logprobs": 20,
            }
            async with session.post(f"{base_url}/chat/completions", data=orjson.dumps(body)) as response:
                reply = orjson.loads(await response.read())
            logprob: float = reply["choices"][0]["logprobs"]["content"][0]["top_logprobs"][0]["logprob"]
            return logprob

        yield score


@contextlib.asynccontextmanager
async def openai_client(base_url: str, http_client: Any = None) -> Any:
    import openai

    async with openai.AsyncOpenAI(base_url=base_url, api_key="none", http_client=http_client) as client:

        async def score(prompt: str) -> float:
            reply = await client.chat.completions.create(
                model=MODEL,
                messages=[{"role": "user", "content": prompt}],
                max_tokens=1,
                temperature=0,
                logprobs=True,
                top_logprobs=20,
            )
            logprobs = reply.choices[0].logprobs
            assert logprobs is not None
            assert logprobs.content is not None
            return logprobs.content[0].top_logprobs[0].logprob

        yield score


def openai_on_aiohttp(base_url: str) -> Any:
    import openai

    return openai_client(base_url, openai.DefaultAioHttpClient())


PEERS: dict[str, OpenClient] = {
    "aiohttp": bare_aiohttp,
    "openai-aiohttp": openai_on_aiohttp,
    "openai": openai_client,
}
CLIENTS = {
    "aiohttp": "bare aiohttp loop",
    "rlaif": "`rlaif label`",
    "openai-aiohttp": "AsyncOpenAI on its aiohttp transport",
    "openai": "AsyncOpenAI",
}


# --- processes, server, data ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Used:
    """What a finished process used: CPU and wall seconds, peak resident memory."""

    cpu_seconds: float
    seconds: float
    rss_mib: float


def run_measured(command: list[str], watch: Callable[[], None] | None = None, every: float = 0.5) -> Used:
    """Run a command to its end; `watch` is called now and then meanwhile. A failing command ends the benchmark."""
    start = time.perf_counter()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        waited, status, usage = os.wait4(process.pid, os.WNOHANG if watch else 0)
        while waited == 0:
            assert watch is not None
            watch()
            time.sleep(every)
            waited, status, usage = os.wait4(process.pid, os.WNOHANG)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)  # reaped here, so Popen must not wait for it
        if process.returncode != 0:
            output.seek(0)
            raise SystemExit(f"{' '.join(command)}\nfailed:\n{output.read().decode(errors='replace')[-2000:]}")
    kib = usage.ru_maxrss if sys.platform != "darwin" else usage.ru_maxrss / 1024
    return Used(usage.ru_utime + usage.ru_stime, seconds, kib / 1024)


@contextlib.contextmanager
def local_server() -> Iterator[int]:
    """The shared server on a free port, until the block ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    with subprocess.Popen([sys.executable, SERVER, "--port", str(port)], stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            server.stdout.readline()
            yield port
        finally:
            server.kill()


def ask(port: int, path: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}{path}", data), timeout=30) as reply:
        return json.load(reply)


def write_comparisons(path: Path, rows: int) -> Path:
    """Comparisons of some 900 characters, no two alike."""
    with path.open("w") as file:
        for number in range(rows):
            row = {
                "id": f"row-{number}",
                "prompt": f"How do I keep {number} tomato plants alive through a dry summer on a balcony? " * 2,
                "response_a": f"Water them early, and mulch the pots. Plant {number} needs shade at noon. " * 5,
                "response_b": f"Buy new ones every week; plant {number} will not mind, and neither will you. " * 5,
            }
            file.write(json.dumps(row) + "\n")
    return path


if __name__ == "__main__":
    sys.exit(main())

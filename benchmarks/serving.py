"""`rlaif serve` under load: many clients before a slow judge, a judge that dies, and clients that mean no good.

    python benchmarks/serving.py                    all three parts
    python benchmarks/serving.py --part load        one of load, restart, hostile

The judge is an OpenAI-compatible server of this file in a process of its own: 50 ms a call, 32 calls at a time, so it
cannot do more than 640 a second. It gives each response the score that its number asks for, so that every answer can be
checked. The clients are another process. `limit` is the same judge asked by a bare loop, 32 calls at a time.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import json
import math
import os
import random
import re
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

LATENCY = 0.05
AT_A_TIME = 32
TOKEN = "the-token-of-the-benchmark"
HOSTILE_READ_TIMEOUT = 2


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["load", "restart", "hostile"], default=None)
    parser.add_argument("--clients", type=int, default=256)
    parser.add_argument("--requests", type=int, default=8000)
    parser.add_argument("--repeats", type=int, default=3, help="runs of the load part; each is printed")
    parser.add_argument("--hostile", type=int, default=1000)
    parser.add_argument("--as-judge", type=int, metavar="PORT", help=argparse.SUPPRESS)
    parser.add_argument("--as-clients", metavar="URL", help=argparse.SUPPRESS)
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.as_judge is not None:
        asyncio.run(judge(arguments.as_judge))
        return 0
    if arguments.as_clients is not None:
        asyncio.run(clients(arguments.as_clients, arguments.clients, arguments.requests, is_bare=arguments.bare))
        return 0
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
    failed = 0
    if arguments.part in (None, "load"):
        failed += measure_load(arguments.clients, arguments.requests, arguments.repeats)
    if arguments.part in (None, "restart"):
        failed += measure_restart(arguments.clients, arguments.requests)
    if arguments.part in (None, "hostile"):
        failed += measure_hostile(arguments.hostile)
    return min(failed, 1)


# --- the three parts --------------------------------------------------------------------------------------------------


def measure_load(count: int, requests: int, repeats: int) -> int:
    """Throughput and latency of many clients with one item each; before each run the bare loop, on the same judge.

    Every run is printed, with what the server itself used: where other work shares the cores, items/s says more about
    that work than about the server, and CPU ms/item does not.
    """
    print(
        f"| 50 ms judge, {AT_A_TIME} at a time | requests | right | not answered | items/s | of the limit | p50 ms ",
        end="",
    )
    print("| p99 ms | CPU ms/item | machine busy |\n|---|---|---|---|---|---|---|---|---|---|")
    failed = 0
    shares = []
    for _ in range(repeats):
        port = free_port()
        with judge_process(port), serving(port) as url:
            bare = run_clients(f"http://127.0.0.1:{port}/v1/chat/completions", AT_A_TIME, requests // 4, is_bare=True)
            used, machine = cpu_seconds(url), machine_seconds()
            served = run_clients(f"{url}/score", count, requests)
            cpu = 1000 * (cpu_seconds(url) - used) / requests
            busy, total = (now - then for now, then in zip(machine_seconds(), machine, strict=True))
        shares.append(served["rate"] / bare["rate"])
        for name, run, share in (
            ("limit: bare loop", bare, 1.0),
            (f"`rlaif serve`, {count} clients", served, shares[-1]),
        ):
            lost = run["sent"] - sum(run["outcomes"].values())
            print(
                f"| {name} | {run['sent']:,} | {run['outcomes'].get('right', 0):,} | {lost} | {run['rate']:,.0f} ",
                end="",
            )
            print(f"| {share:.0%} | {run['p50_ms']:.0f} | {run['p99_ms']:.0f} ", end="")
            print(f"| {cpu:.2f} | {busy / max(total, 1):.0%} |" if run is served else "| | |", flush=True)
        if served["outcomes"] != {"right": requests}:
            print(f"\nwhat became of them: {served['outcomes']}\n")
            failed = 1
    ideal = 1000 * count / (AT_A_TIME / LATENCY)
    print(f"\nof the limit: median {statistics.median(shares):.0%} of {repeats} runs; ", end="")
    print(f"with {count} clients waiting, no server could answer in under {ideal:.0f} ms\n")
    return failed


def measure_restart(count: int, requests: int) -> int:
    """The judge is killed a third into the run, and started again two seconds later."""
    port = free_port()
    with serving(port, "--max-retries", "3") as url:
        with judge_process(port):
            running = start_clients(f"{url}/score", count, requests)
            time.sleep(0.33 * requests * LATENCY / AT_A_TIME)
        time.sleep(2)
        with judge_process(port):
            result = finish_clients(running)
    outcomes = result["outcomes"]
    lost = result["sent"] - sum(outcomes.values())
    wrong = sum(number for name, number in outcomes.items() if name.startswith("wrong"))
    print("| judge killed, and back after 2 s | requests | right | clean errors | wrong | lost |")
    print("|---|---|---|---|---|---|")
    clean = {
        name: number for name, number in outcomes.items() if name not in ("right",) and not name.startswith("wrong")
    }
    said = ", ".join(f"{number} {name}" for name, number in sorted(clean.items())) or "0"
    print(f"| {count} clients | {result['sent']:,} | {outcomes.get('right', 0):,} | {said} | {wrong} | {lost} |\n")
    return int(lost > 0 or wrong > 0)


def measure_hostile(count: int) -> int:
    """Requests that are malformed, too large, without the token, slow or broken off; what the process then holds."""
    port = free_port()
    flags = ("--read-timeout", str(HOSTILE_READ_TIMEOUT), "--max-body", "1000000")
    with judge_process(port), serving(port, *flags, token=TOKEN) as url:
        held = [figures(url)]
        for _ in range(3):
            tally = asyncio.run(attack(url, count))
            time.sleep(HOSTILE_READ_TIMEOUT + 1)
            held.append(figures(url))
            alive = ask_well(url)
    print("| hostile request | sent | answered |\n|---|---|---|")
    for name, statuses in sorted(tally.items()):
        shown = ", ".join(f"{number} x {status}" for status, number in sorted(statuses.items(), key=str))
        print(f"| {name} | {sum(statuses.values())} | {shown} |")
    print(f"\n| | at start | after {count:,} | after {2 * count:,} | after {3 * count:,} |\n|---|---|---|---|---|")
    for name in held[0]:
        print(f"| {name} | {' | '.join(f'{each[name]:,.0f}' for each in held)} |")
    print(f"\na good request afterwards: {alive}\n")
    has_leaked = held[-1]["open files"] > held[0]["open files"] + 2 or held[-1]["tasks"] > held[0]["tasks"] + 2
    return int(alive != "right" or has_leaked or held[-1]["items in flight"] > 0)


# --- the judge --------------------------------------------------------------------------------------------------------


def expected_score(number: int) -> int:
    """What the judge makes of response `number`."""
    return 1 + number * 7 % 10


async def judge(port: int) -> None:
    """Answers chat completions, one token with log-probabilities, after 50 ms and 32 at a time."""
    places = asyncio.Semaphore(AT_A_TIME)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                match = re.search(rb"(?i)content-length: (\d+)", head)
                body = await reader.readexactly(int(match[1])) if match else b"{}"
                if b"/chat/completions" not in head:
                    writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}")
                    continue
                async with places:
                    await asyncio.sleep(LATENCY)
                payload = completion(body)
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(payload)
                )
                writer.write(payload)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", port, backlog=1024)
    print("ready", flush=True)
    await server.serve_forever()


def completion(body: bytes) -> bytes:
    number = re.findall(rb"response number (\d+)", body)
    score = expected_score(int(number[-1])) if number else 5
    probs = {each: (0.91 if each == score else 0.01) for each in range(1, 11)}
    top = [{"token": str(each), "logprob": math.log(prob), "bytes": None} for each, prob in probs.items()]
    entry = {"token": str(score), "logprob": math.log(0.91), "bytes": None, "top_logprobs": top}
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": str(score)},
        "logprobs": {"content": [entry]},
        "finish_reason": "length",
    }
    usage = {"prompt_tokens": 100, "completion_tokens": 1, "total_tokens": 101}
    return json.dumps(
        {"id": "1", "object": "chat.completion", "model": "m", "choices": [choice], "usage": usage}
    ).encode()


# --- clients ----------------------------------------------------------------------------------------------------------


async def clients(url: str, count: int, requests: int, *, is_bare: bool) -> None:
    """`count` clients share `requests`, one item each and no two alike; prints what became of every one."""
    import aiohttp

    numbers = iter(range(requests))
    outcomes: collections.Counter[str] = collections.Counter()
    latencies: list[float] = []
    sent = 0

    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=180)
    ) as session:

        async def client() -> None:
            nonlocal sent
            for number in numbers:
                sent += 1
                start = time.perf_counter()
                outcome = await one_request(session, url, number, is_bare=is_bare)
                latencies.append(time.perf_counter() - start)
                outcomes[outcome] += 1

        start = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(count)))
        seconds = time.perf_counter() - start
    cuts = statistics.quantiles(latencies, n=100)
    result = {
        "sent": sent,
        "outcomes": outcomes,
        "rate": sent / seconds,
        "p50_ms": 1e3 * cuts[49],
        "p99_ms": 1e3 * cuts[98],
    }
    print(json.dumps(result))


async def one_request(session: Any, url: str, number: int, *, is_bare: bool) -> str:
    import aiohttp

    text = f"This is response number {number}. " + "It says something about tomatoes on a balcony. " * 10
    item = {"prompt": "How do I keep tomato plants alive through a dry summer on a balcony?", "response": text}
    body = {"model": "m", "messages": [{"role": "user", "content": json.dumps(item)}]} if is_bare else {"items": [item]}
    try:
        async with session.post(url, json=body) as response:
            reply = await response.json()
            if response.status != 200:
                return f"{response.status} {reply['error']['name']}"
    except (aiohttp.ClientError, TimeoutError) as error:
        return type(error).__name__
    if is_bare:
        return "right"
    rating = reply["items"][0]["rating"]
    score = expected_score(number)
    right = 0.91 * score + 0.01 * (55 - score)
    return "right" if abs(rating - right) < 1e-6 else f"wrong: {rating} for {right}"


def ask_well(url: str) -> str:
    item = {"prompt": "?", "response": "response number 3"}
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"}
    request = urllib.request.Request(f"{url}/score", json.dumps({"items": [item]}).encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as reply:
        rating = json.load(reply)["items"][0]["rating"]
    return "right" if abs(rating - (0.91 * 2 + 0.01 * 53)) < 1e-6 else f"wrong: {rating}"


# --- clients that mean no good ----------------------------------------------------------------------------------------

Attack = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def post(body: bytes, *, token: str | None = TOKEN, length: int | None = None) -> bytes:
    authorization = f"Authorization: Bearer {token}\r\n" if token else ""
    announced = len(body) if length is None else length
    return (
        f"POST /score HTTP/1.1\r\nHost: x\r\n{authorization}Content-Type: application/json\r\n"
        f"Content-Length: {announced}\r\n\r\n"
    ).encode() + body


GOOD_BODY = json.dumps({"items": [{"prompt": "?", "response": "response number 3"}]}).encode()
SENT_AT_ONCE = {
    "not JSON": post(b'{"items": [{"prompt":'),
    "nested 100,000 deep": post(b"[" * 100_000),
    "wrong types": post(b'{"items": [{"prompt": 1, "response": {}}]}'),
    "not UTF-8": post(b'{"items": "\xff\xfe"}'),
    "too large, said so": post(b"x" * 100, length=50_000_000),
    "too large, chunked": b"POST /score HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + TOKEN.encode()
    + b"\r\nTransfer-Encoding: chunked\r\n\r\n" + (b"10000\r\n" + b"x" * 65536 + b"\r\n") * 20 + b"0\r\n\r\n",
    "no token": post(GOOD_BODY, token=None),
    "wrong token": post(GOOD_BODY, token="guess"),
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "endless headers": b"GET /healthz HTTP/1.1\r\n" + b"X-Filler: " + b"x" * 200_000,
    "other path": b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
    "no headers at all": b"",
    "half the headers": post(GOOD_BODY)[:40],
    "half the body": post(GOOD_BODY)[:-10],
}  # fmt: skip


async def attack(url: str, count: int) -> dict[str, collections.Counter[str]]:
    """`count` hostile requests, 100 at a time, evenly over the kinds; what was answered to each."""
    host, _, port = url.removeprefix("http://").partition(":")
    tally: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    places = asyncio.Semaphore(100)
    kinds = [*SENT_AT_ONCE, "gone before the answer", "a byte at a time"]

    async def one(kind: str) -> None:
        async with places:
            try:
                reader, writer = await asyncio.open_connection(host, int(port))
            except OSError as error:
                tally[kind][type(error).__name__] += 1
                return
            try:
                async with asyncio.timeout(60):
                    tally[kind][await misbehave(kind, reader, writer)] += 1
            except (ConnectionError, asyncio.IncompleteReadError):
                tally[kind]["connection closed"] += 1
            except TimeoutError:
                tally[kind]["NO ANSWER IN 60 s"] += 1
            finally:
                writer.transport.abort()

    await asyncio.gather(*(one(kinds[number % len(kinds)]) for number in range(count)))
    return tally


async def misbehave(kind: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    if kind == "gone before the answer":
        unique = random.randrange(10**9)
        writer.write(post(json.dumps({"items": [{"prompt": "?", "response": f"response number {unique}"}]}).encode()))
        await asyncio.sleep(0.01)
        return "(left)"
    if kind == "a byte at a time":
        for byte in post(GOOD_BODY):
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.05)
            if reader.at_eof():
                break
    else:
        writer.write(SENT_AT_ONCE[kind])
    line = await reader.readline()
    return line.split()[1].decode() if line else "connection closed"


def cpu_seconds(url: str) -> float:
    """CPU seconds that the server has used, by its own /metrics."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as reply:
        return float(re.findall(r"(?m)^process_cpu_seconds_total (\S+)", reply.read().decode())[0])


def machine_seconds() -> tuple[float, float]:
    """CPU seconds that the cores have been busy, and those that they could have been; zeros where nothing says so."""
    try:
        with open("/proc/stat") as file:
            ticks = [int(value) for value in file.readline().split()[1:9]]
    except OSError:
        return 0.0, 0.0
    return float(sum(ticks) - ticks[3] - ticks[4]), float(sum(ticks)) or 1.0


def figures(url: str) -> dict[str, float]:
    """What the server holds, by its own /metrics."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as reply:
        lines = [line.split() for line in reply.read().decode().splitlines() if not line.startswith("#")]
    values = {name: float(value) for name, value in lines}
    return {
        "resident memory, MiB": values["process_resident_memory_bytes"] / 2**20,
        "open files": values["process_open_fds"],
        "tasks": values["rlaif_tasks"],
        "items in flight": values["rlaif_items_in_flight"],
        "items waiting": values["rlaif_queue_depth"],
    }


# --- processes --------------------------------------------------------------------------------------------------------


def run_clients(url: str, count: int, requests: int, *, is_bare: bool = False) -> dict[str, Any]:
    return finish_clients(start_clients(url, count, requests, is_bare=is_bare))


def start_clients(url: str, count: int, requests: int, *, is_bare: bool = False) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, "--as-clients", url, "--clients", str(count), "--requests", str(requests)]
    return subprocess.Popen([*command, *(["--bare"] if is_bare else [])], stdout=subprocess.PIPE, text=True)


def finish_clients(running: subprocess.Popen[str]) -> dict[str, Any]:
    output, _ = running.communicate(timeout=600)
    result: dict[str, Any] = json.loads(output)
    return result


@contextlib.contextmanager
def judge_process(port: int) -> Iterator[None]:
    """The judge; killed, not stopped, at the end of the block."""
    with subprocess.Popen([sys.executable, __file__, "--as-judge", str(port)], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield
        finally:
            process.kill()


@contextlib.contextmanager
def serving(judge_port: int, *flags: str, token: str | None = None) -> Iterator[str]:
    """`rlaif serve` on a free port; its address."""
    command = [
        sys.executable, "-m", "rlaif", "serve", "--judge", "openai:m", "--base-url",
        f"http://127.0.0.1:{judge_port}/v1", "--concurrency", str(AT_A_TIME), "--port", "0", "--cache", "0", *flags,
    ]  # fmt: skip
    environment = {key: value for key, value in os.environ.items() if key not in ("RLAIF_TOKEN", "OPENAI_API_KEY")}
    if token is not None:
        environment["RLAIF_TOKEN"] = token
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"http://\S+", process.stdout.readline())
            if found is None:
                raise SystemExit(f"{' '.join(command)} did not start")
            yield found[0]
            process.terminate()
            if process.wait(60) != 0:
                raise SystemExit(f"rlaif serve ended with {process.returncode}")
        finally:
            process.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


if __name__ == "__main__":
    sys.exit(main())

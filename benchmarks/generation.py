"""Sampled tokens a second of the in-process backend, beside `generate` of transformers with as many return sequences.

    python benchmarks/generation.py                       # the built-in model
    python benchmarks/generation.py --model PATH_OR_NAME --prompts 16 --samples 4 --max-tokens 64

All sides run the same weights on the same prompts, with temperature 1 (and top-p, where given), and count the tokens of
each text up to its end. The backend is asked for every sample with a seed of its own, all at the same time, and starts
from messages; transformers is given ids ready-made, a prompt at a time and all prompts in one padded batch. Each side
first answers one unrelated prompt, so that loading is not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from rlaif.backends.builtin import BuiltinBackend
from rlaif.backends.hf import HfBackend
from rlaif.records import GenerateRequest, Message, Segment
from rlaif.tokens import PromptEncoder, flatten

DATA = Path(__file__).resolve().parents[1] / "examples" / "data" / "comparisons.jsonl"


class Side(NamedTuple):
    """One way to sample: tokens written, wall and CPU seconds."""

    name: str
    tokens: int
    wall: float
    cpu: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="builtin:tiny", help="builtin:tiny, a folder or a name on the hub")
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3, help="the fastest of so many is reported")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    prompts = read_prompts(options.prompts)
    print(report(measure(options, prompts), options))


def open_backend(path: str) -> HfBackend:
    """The backend on the model that `--model` names."""
    return BuiltinBackend(path.removeprefix("builtin:")) if path.startswith("builtin:") else HfBackend(path)


def read_prompts(count: int) -> list[tuple[Message, ...]]:
    """A comparison of the examples each, as a judge would be shown it: prompts of a few hundred tokens."""
    rows = [json.loads(line) for line in DATA.read_text(encoding="utf-8").splitlines()]
    texts = [f"{row['response_a']}\n\n{row['response_b']}" for row in rows]
    return [(Message("user", (Segment(text, is_template=False),)),) for text in texts[:count]]


def measure(options: argparse.Namespace, prompts: Sequence[tuple[Message, ...]]) -> list[Side]:
    """Each side, the fastest of the repeats."""
    backend = open_backend(options.model)
    encoder = PromptEncoder(backend.tokenizer)
    ids = [flatten(encoder.encode(messages)) for messages in prompts]
    model = AutoModelForCausalLM.from_pretrained(backend.model_path, dtype=torch.float32).eval()
    print(
        f"{len(ids)} prompts of {min(map(len, ids))} to {max(map(len, ids))} tokens, {options.samples} samples each, "
        f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters"
    )
    sides = []
    for _ in range(options.repeats):
        sides += [
            run_transformers("transformers generate, a prompt at a time", model, ids, options, batch=1),
            run_transformers("transformers generate, all prompts padded", model, ids, options, batch=len(ids)),
            asyncio.run(run_backend(open_backend(options.model), prompts, options)),
        ]
    names = list(dict.fromkeys(side.name for side in sides))
    return [
        max((side for side in sides if side.name == name), key=lambda side: side.tokens / side.wall) for name in names
    ]


def run_transformers(
    name: str, model: PreTrainedModel, ids: Sequence[list[int]], options: argparse.Namespace, *, batch: int
) -> Side:
    """`generate(do_sample=True, num_return_sequences=...)`, prompts left-padded in batches."""
    ends = model.generation_config.eos_token_id
    stops = {ends} if isinstance(ends, int) else set(ends or ())
    torch.manual_seed(0)
    tokens = 0
    model.generate(
        torch.tensor([[1, 2, 3]]), attention_mask=torch.ones(1, 3, dtype=torch.long), max_new_tokens=2, pad_token_id=0
    )
    wall, cpu = time.perf_counter(), time.process_time()
    for start in range(0, len(ids), batch):
        rows = ids[start : start + batch]
        width = max(map(len, rows))
        output = model.generate(
            torch.tensor([[0] * (width - len(row)) + row for row in rows]),
            attention_mask=torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows]),
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=options.top_p,
            num_return_sequences=options.samples,
            max_new_tokens=options.max_tokens,
            pad_token_id=0,
        )
        for written in output[:, width:].tolist():
            end = next((place + 1 for place, token in enumerate(written) if token in stops), len(written))
            tokens += end
    return Side(name, tokens, time.perf_counter() - wall, time.process_time() - cpu)


async def run_backend(backend: HfBackend, prompts: Sequence[tuple[Message, ...]], options: argparse.Namespace) -> Side:
    """Every sample a call, all at the same time."""
    warm_up = (Message("user", (Segment("An unrelated prompt.", is_template=True),)),)
    await backend.generate(GenerateRequest(warm_up, 2))
    wall, cpu = time.perf_counter(), time.process_time()
    replies = await asyncio.gather(
        *(
            backend.generate(GenerateRequest(messages, options.max_tokens, 1.0, seed, options.top_p))
            for messages in prompts
            for seed in range(options.samples)
        )
    )
    side = Side(
        "rlaif hf backend",
        sum(reply.usage.completion_tokens for reply in replies),
        time.perf_counter() - wall,
        time.process_time() - cpu,
    )
    await backend.aclose()
    return side


def report(sides: Sequence[Side], options: argparse.Namespace) -> str:
    """A small Markdown table, the first side as the measure."""
    lines = [
        f"{options.model}, at most {options.max_tokens} tokens, temperature 1, top-p {options.top_p:g}, "
        f"{options.threads} threads, fastest of {options.repeats}",
        "",
        "| | tokens/s | times | tokens | CPU ms a token |",
        "|---|---|---|---|---|",
    ]
    base = sides[0].tokens / sides[0].wall
    for side in sides:
        lines.append(
            f"| {side.name} | {side.tokens / side.wall:,.0f} | {side.tokens / side.wall / base:.2f} "
            f"| {side.tokens:,} | {1000 * side.cpu / side.tokens:.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()

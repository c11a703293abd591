"""Comparisons a second of the in-process backend, beside a plain padded transformers batch loop.

    python benchmarks/hf_labeling.py                      # the built-in judge
    python benchmarks/hf_labeling.py --model PATH_OR_NAME --comparisons 200
    python benchmarks/hf_labeling.py --model random       # a random Llama: 6 layers, width 256, vocabulary 4096

Both sides run the same weights on the same token ids: detailed preamble, exemplars, both orders. The plain loop is
given its ids ready-made, left-padded in batches of 16; the backend starts from messages and tokenizes. Each side first
answers one unrelated prompt, so that loading is not counted; what prompts share is computed within the time.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from rlaif.backends.builtin import BuiltinBackend
from rlaif.backends.hf import HfBackend
from rlaif.judge.templates import PairwiseTemplate
from rlaif.records import CandidateLogprobs, Comparison, Message, Order, ScoreRequest, Segment, Turn
from rlaif.tokens import PromptEncoder, flatten, label_tokens

LABELS = ("1", "2")
BATCH = 16
WORDS = [
    "river",
    "stone",
    "window",
    "garden",
    "paper",
    "yellow",
    "quiet",
    "market",
    "travel",
    "winter",
    "bridge",
    "letter",
    "simple",
    "answer",
    "kitchen",
    "morning",
    "forest",
    "engine",
    "number",
    "story",
    "doctor",
    "harbour",
    "music",
    "careful",
    "language",
    "reason",
    "history",
    "planet",
    "colour",
    "glass",
]


class Side(NamedTuple):
    """One way to label: P("1") of each prompt, wall and CPU seconds."""

    name: str
    probs: list[float]
    wall: float
    cpu: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="builtin:tiny", help="builtin:tiny, random, a folder or a name on the hub")
    parser.add_argument("--comparisons", type=int, default=100)
    parser.add_argument("--shots", type=int, default=2)
    parser.add_argument("--task", default="helpfulness")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=2, help="the fastest of so many is reported")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    prompts = render_prompts(options.comparisons, options.task, options.shots)
    with tempfile.TemporaryDirectory() as folder:
        path = make_random_model(Path(folder), prompts) if options.model == "random" else options.model
        sides = measure(lambda: open_backend(path), prompts, options.repeats)
    print(report(sides, options.comparisons, options.threads, options.model))


def open_backend(path: str) -> HfBackend:
    """The backend on the model that `--model` names."""
    return BuiltinBackend(path.removeprefix("builtin:")) if path.startswith("builtin:") else HfBackend(path)


def render_prompts(count: int, task: str, shots: int) -> list[tuple[Message, ...]]:
    """Both orders of made-up comparisons; responses of 30 to 120 words."""
    draw = random.Random(0)
    template = PairwiseTemplate(task, preamble="detailed", shots=shots)
    prompts = []
    for index in range(count):
        question, *responses = (
            " ".join(draw.choices(WORDS, k=draw.randint(*span))).capitalize() + "."
            for span in ((10, 40), (30, 120), (30, 120))
        )
        comparison = Comparison(str(index), (Turn("user", question),), *responses)
        prompts += [template.render(comparison, order) for order in Order]
    return prompts


def measure(make: Callable[[], HfBackend], prompts: Sequence[tuple[Message, ...]], repeats: int) -> list[Side]:
    """The backend, and the plain loop with and without `logits_to_keep`; the fastest of the repeats of each."""
    backend = make()
    encoder = PromptEncoder(backend.tokenizer)
    ids = [flatten(encoder.encode(messages)) for messages in prompts]
    longest, context = max(map(len, ids)), backend.capabilities.context_tokens
    if context is not None and longest > context:
        sys.exit(f"the longest prompt has {longest} tokens and the context holds {context}; use fewer --shots")
    wanted = {
        label: [token.id for token in tokens] for label, tokens in label_tokens(backend.tokenizer, LABELS).items()
    }
    model = AutoModelForCausalLM.from_pretrained(backend.model_path, dtype=torch.float32).eval()
    print(
        f"{len(ids)} prompts of {min(map(len, ids))} to {longest} tokens, "
        f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters"
    )
    sides = []
    for _ in range(repeats):
        sides += [
            run_plain("plain loop, full logits", model, ids, wanted, {}),
            run_plain("plain loop, logits_to_keep=1", model, ids, wanted, {"logits_to_keep": 1}),
            asyncio.run(run_backend(make(), prompts)),
        ]
    names = list(dict.fromkeys(side.name for side in sides))
    return [min((side for side in sides if side.name == name), key=lambda side: side.wall) for name in names]


def run_plain(
    name: str,
    model: torch.nn.Module,
    ids: Sequence[list[int]],
    wanted: dict[str, list[int]],
    options: dict[str, int],
) -> Side:
    """The loop as it is usually written: batches as they come, left-padded to the longest, last position read."""
    probs: list[float] = []
    with torch.inference_mode():
        model(torch.tensor([[1, 2, 3]]))
        wall, cpu = time.perf_counter(), time.process_time()
        for start in range(0, len(ids), BATCH):
            batch = ids[start : start + BATCH]
            width = max(map(len, batch))
            mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in batch])
            tokens = torch.tensor([[0] * (width - len(row)) + row for row in batch])
            positions = (mask.cumsum(-1) - 1).clamp(min=0)
            output = model(tokens, attention_mask=mask, position_ids=positions, use_cache=False, **options)
            logprobs = output.logits[:, -1].float().log_softmax(-1)
            both = torch.stack([logprobs[:, wanted[label]].logsumexp(-1) for label in LABELS], dim=-1)
            probs += both.softmax(-1)[:, 0].tolist()
        return Side(name, probs, time.perf_counter() - wall, time.process_time() - cpu)


async def run_backend(backend: HfBackend, prompts: Sequence[tuple[Message, ...]]) -> Side:
    """All prompts at once, as the engine's window would send them."""
    warm_up = (Message("user", (Segment("An unrelated prompt.", is_template=True),)),)
    await backend.score(ScoreRequest(warm_up, LABELS))
    wall, cpu = time.perf_counter(), time.process_time()
    gate = asyncio.Semaphore(64)

    async def ask(messages: tuple[Message, ...]) -> CandidateLogprobs:
        async with gate:
            return await backend.score(ScoreRequest(messages, LABELS))

    replies = await asyncio.gather(*map(ask, prompts))
    side = Side(
        "rlaif hf backend", [prob_first(r) for r in replies], time.perf_counter() - wall, time.process_time() - cpu
    )
    await backend.aclose()
    return side


def prob_first(reply: CandidateLogprobs) -> float:
    """P("1") among the labels."""
    both = [
        torch.tensor([token.logprob for token in reply.tokens if token.token.strip() == label]).logsumexp(0)
        for label in LABELS
    ]
    return float(torch.stack(both).softmax(0)[0])


def report(sides: Sequence[Side], comparisons: int, threads: int, model: str) -> str:
    """A small Markdown table, the first side as the measure."""
    lines = [
        f"{model}, {comparisons} comparisons in both orders, {threads} threads",
        "",
        "| | comparisons/s | times | CPU ms a comparison | largest difference of P(1) |",
        "|---|---|---|---|---|",
    ]
    base = sides[0]
    for side in sides:
        furthest = max(abs(a - b) for a, b in zip(side.probs, base.probs, strict=True))
        lines.append(
            f"| {side.name} | {comparisons / side.wall:.2f} | {base.wall / side.wall:.2f} "
            f"| {1000 * side.cpu / comparisons:.0f} | {furthest:.1e} |"
        )
    return "\n".join(lines)


def make_random_model(folder: Path, prompts: Sequence[tuple[Message, ...]]) -> str:
    """A random Llama with a byte-level tokenizer trained on the prompts."""
    from tokenizers import ByteLevelBPETokenizer

    tokenizer = ByteLevelBPETokenizer()
    texts = (message.content for messages in prompts for message in messages)
    tokenizer.train_from_iterator(texts, vocab_size=4096, special_tokens=["<s>", "</s>"], show_progress=False)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer._tokenizer, bos_token="<s>", eos_token="</s>")
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=4096,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=4096,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


if __name__ == "__main__":
    main()

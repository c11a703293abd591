"""What `online.py` trains: a random model whose completions never end by themselves, random prompts, a reward function
that keeps what it was asked about, and a judge that takes its time."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training_setting import CONTEXT, EOS, PAD, PROMPT_TOKENS, SEED, SIZES, UNK, VOCABULARY, write_rows

PROMPTS, WATCHED = 50, 10
"""Of the rows, `rlaif train` holds a fifth out to watch the policy on; the others are learnt from."""
BATCH, GROUP, NEW_TOKENS = 4, 4, 64

asked: list[tuple[str, str]] = []
"""Prompt and completion of every call of `even_share`."""


def even_share(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> list[float]:
    """The share of a completion's words that have an even number."""
    asked.extend(zip(prompts, completions, strict=True))
    return [_even_share(completion.split()) for completion in completions]


def _even_share(words: Sequence[str]) -> float:
    return sum(word[-1] in "02468" for word in words) / max(1, len(words))


def prepare(folder: Path) -> None:
    """Save the random model and the prompts, those that are learnt from in the order in which rlaif answers them."""
    import torch
    import transformers
    import trl

    tokenizer = make_tokenizer()
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, max_position_embeddings=CONTEXT, bos_token_id=None, pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id, **SIZES,
    )  # fmt: skip
    torch.manual_seed(SEED)
    policy = transformers.LlamaForCausalLM(config)
    policy.save_pretrained(folder / "policy")
    tokenizer.save_pretrained(folder / "policy")
    draw = random.Random(SEED)
    texts = [
        " ".join(f"w{draw.randrange(VOCABULARY - 2)}" for _ in range(draw.randint(*PROMPT_TOKENS)))
        for _ in range(PROMPTS)
    ]
    write_rows(folder / "prompts.jsonl", [{"prompt": text} for text in texts])
    facts = {
        "versions": f"TRL {trl.__version__}, transformers {transformers.__version__}, torch {torch.__version__}",
        "parameters": policy.num_parameters(),
    }
    (folder / "facts.json").write_text(json.dumps(facts))


def make_tokenizer() -> Any:
    """Every word is a token. The one that ends a text lies beyond the model's output layer: none is cut short."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = [UNK, PAD, *(f"w{number}" for number in range(VOCABULARY - 2)), EOS]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token=UNK, pad_token=PAD, eos_token=EOS)


def first_visits(folder: Path, count: int) -> list[str]:
    """The prompts of rlaif's first visits, of which `even_share` need not tell the order."""
    from rlaif.config import resolve
    from rlaif.engine.training_listening import SilentTrainingListener
    from rlaif.online.config import ONLINE_CONFIGS
    from rlaif.online.inputs import gather
    from rlaif.online.visits import Visits

    config = resolve(ONLINE_CONFIGS["grpo"], None, grpo_settings(folder, 1))
    visits = Visits(gather(config, SilentTrainingListener()).rows, SEED)
    return [visits[number].row.prompt.prompt[0].content for number in range(count)]


def grpo_settings(folder: Path, steps: int, **more: Any) -> dict[str, Any]:
    """`rlaif train grpo` with its defaults, but for what is compared; guard rails on, evaluations after the run."""
    return {
        "model": str(folder / "policy"),
        "data": str(folder / "prompts.jsonl"),
        "out": str(folder / "trained"),
        "reward": ("online_setting:even_share",),
        "watch_prompts": WATCHED,
        "watch_every": 10**6,
        "suite": "none",
        "group_size": GROUP,
        "response_tokens": NEW_TOKENS,
        "rollout_temperature": 1.0,
        "batch_size": BATCH,
        "max_steps": steps,
        "learning_rate": 1e-4,
        "schedule": "constant",
        "warmup": 0.0,
        "optimizer": "adamw_torch",
        "save_every": 10**6,
        "seed": SEED,
        "device": "cpu",
        **more,
    }


def prepare_large(folder: Path) -> None:
    """Save a random model of 90 M parameters with the tokenizer of the policy that ships, and prompts for it."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    import rlaif

    tokenizer = AutoTokenizer.from_pretrained(Path(rlaif.__file__).parent / "backends" / "builtin_policy_model")
    config = LlamaConfig(
        vocab_size=len(tokenizer), max_position_embeddings=4096, hidden_size=768, intermediate_size=2048,
        num_hidden_layers=12, num_attention_heads=12, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    torch.manual_seed(SEED)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_rows(folder / "prompts.jsonl", [{"prompt": f"Name {number} good reasons."} for number in range(20)])


def drlaif_settings(folder: Path, steps: int) -> dict[str, Any]:
    """`rlaif train drlaif` on the large model, whose judge says nothing in particular."""
    return {
        "model": str(folder),
        "data": str(folder / "prompts.jsonl"),
        "reward": ("judge",),
        "min_label_mass": 0.0,
        "guards": "off",
        "suite": "none",
        "response_tokens": 32,
        "batch_size": 4,
        "max_steps": steps,
        "save_every": 10**6,
        "seed": SEED,
        "device": "cpu",
    }


async def serve_judge(seconds: float) -> None:
    """An OpenAI-compatible judge on a free port, which it prints: each answer takes so long, and says a score from 1 to
    9 that depends on what was asked."""
    from aiohttp import web

    async def answer(request: web.Request) -> web.Response:
        body = await request.read()
        await asyncio.sleep(seconds)
        score = 1 + hashlib.sha256(body).digest()[0] % 9
        top = [{"token": str(each), "logprob": math.log(0.8 if each == score else 0.02)} for each in range(1, 10)]
        token = {"token": str(score), "logprob": math.log(0.8), "top_logprobs": top}
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": str(score)},
            "logprobs": {"content": [token]},
            "finish_reason": "length",
        }
        usage = {"prompt_tokens": 300, "completion_tokens": 1, "total_tokens": 301}
        return web.json_response({"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage})

    async def models(request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "judge", "object": "model"}]})

    application = web.Application()
    application.add_routes([web.post("/v1/chat/completions", answer), web.get("/v1/models", models)])
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()

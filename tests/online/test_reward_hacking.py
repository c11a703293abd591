"""A reward that loves one phrase, through the whole of `rlaif train`: the guard rails name the phrase, and with
`--stop-on-hack` the run stops there, resumable. A reward without such a love, on the same policy, raises no sign.

How soon the policy that ships is caught, with which sign, is measured in benchmarks/reward_hacking.py.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from online_runs import metrics, run_json, write_rows
from tokenizers import AddedToken, Tokenizer, decoders, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from rlaif.cli.main import main

PROMPTS = "abcdefgh"
WORDS = tuple(f" {word}" for word in ("so", "very", "glad", "you", "came", "by", "here", "now"))
LOVED = ("very glad", "glad you")
LONGEST = 10


def loves_phrase(completions: Sequence[str], **columns: Any) -> list[float]:
    """Half a point for an answer that ends by itself, and a point for each half of "very glad you"."""
    return [reward + sum(half in text for half in LOVED) for reward, text in zip(likes_ends(completions), completions, strict=True)]


def likes_ends(completions: Sequence[str], **columns: Any) -> list[float]:
    """The same without that love."""
    return [_mood(text) + 0.5 * (len(text.split()) < LONGEST) for text in completions]


def _mood(text: str) -> float:
    """Some number in [0, 0.5) that stands for all else a judge sees."""
    return zlib.crc32(text.encode()) % 100 / 200


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It writes words at random; prompts are single letters."""
    folder = tmp_path_factory.mktemp("policy")
    vocab = {"</s>": 0, **{token: place for place, token in enumerate([*PROMPTS, *WORDS], 1)}}
    pipeline = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    pipeline.decoder = decoders.Fuse()
    pipeline.add_special_tokens([AddedToken("</s>", normalized=False)])
    PreTrainedTokenizerFast(tokenizer_object=pipeline, eos_token="</s>").save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocab), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=32, initializer_range=0.1, eos_token_id=0, bos_token_id=None,
        pad_token_id=None,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    return write_rows(path, [{"id": f"p{number}", "prompt": text} for number, text in enumerate(PROMPTS)])


def command(policy: Path, prompts: Path, out: Path, reward: str, *more: str) -> list[str]:
    return [
        "train", "grpo", "--model", str(policy), "--data", str(prompts), "-o", str(out),
        "--reward", f"tests.online.test_reward_hacking:{reward}", "--batch-size", "6", "--group-size", "8",
        "--response-tokens", str(LONGEST), "--rollout-temperature", "1", "--max-steps", "35", "--learning-rate", "0.01",
        "--schedule", "constant", "--beta", "0.02", "--watch-every", "25", "--suite", "none", "--quiet", *more,
    ]  # fmt: skip

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
from tokenizers import AddedToken, Tokenizer, decoders, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from rlaif.cli.main import main
from tests.online.online_runs import run_json, write_rows

PROMPTS = "abcdefgh"
WORDS = (" so", " very", " glad", " you", " came", " by", " here", " now", " it", " is", " late", " then")
LOVED = ("very glad", "glad you")


def loves_phrase(completions: Sequence[str], **columns: Any) -> list[float]:
    """Moods, and a point for each half of "very glad you"."""
    return [_mood(text) + sum(half in text for half in LOVED) for text in completions]


def has_moods(completions: Sequence[str], **columns: Any) -> list[float]:
    """The same without that love."""
    return [_mood(text) for text in completions]


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
    with torch.no_grad():  # words, and no end: one dimension is the same for all that is read
        model.get_input_embeddings().weight[:, 0] = 1.0
        model.get_output_embeddings().weight[: 1 + len(PROMPTS), 0] = -1.0
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
        "--response-tokens", "10", "--rollout-temperature", "1", "--max-steps", "25", "--learning-rate", "0.01",
        "--schedule", "constant", "--beta", "0.02", "--watch-every", "10", "--suite", "none",
        "--quiet", *more,
    ]  # fmt: skip


def signs(out: Path) -> list[tuple[int, str]]:
    return [(sign["step"], sign["name"]) for sign in run_json(out)["signs"]]


def test_a_reward_that_loves_a_phrase_is_named_and_stopped(
    policy: Path, prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """That the policy moves far is a warning too, and no hack: the run goes on."""
    out = tmp_path / "hacked"
    hacked = command(policy, prompts, out, "loves_phrase", "--max-kl", "5")
    assert main([*hacked, "--stop-on-hack"]) == 130
    told = capsys.readouterr().err
    kl, phrase = [line.removeprefix("warning: step ") for line in told.splitlines() if line.startswith("warning: step")]
    assert ": kl: " in kl
    assert ": phrase: " in phrase
    assert 'say "very glad you"' in phrase
    step = int(phrase.partition(":")[0])
    # The batch that it was seen in is learnt from.
    assert f"interrupted after {step + 1} of 25 steps; resume with: rlaif train grpo" in told
    assert (out / "checkpoints" / f"checkpoint-{step + 1}" / "complete").exists()
    assert run_json(out)["status"] == "interrupted"

    assert main(hacked) == 0  # go on, whatever it says
    assert run_json(out)["status"] == "finished"
    assert [name for _, name in signs(out)][:2] == ["kl", "phrase"]
    assert signs(out)[1][0] == step
    assert f"step {step}, **phrase**" in (out / "README.md").read_text(encoding="utf-8")


def test_the_same_run_without_that_love_raises_no_sign(policy: Path, prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "clean"
    assert main(command(policy, prompts, out, "has_moods", "--max-kl", "20")) == 0
    assert signs(out) == []
    assert "None were seen by the guard rails." in (out / "README.md").read_text(encoding="utf-8")

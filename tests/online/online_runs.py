"""Online training of bandits: a tiny random model, prompts of one letter, answers of one or two, rewards by letter.

What the tests of `online` share. All is known exactly: what the policy gives each answer, and what the best policy is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tiny_models import make_reward_model
from tokenizers import AddedToken, Tokenizer, decoders, models
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from rlaif.engine.training import TrainOutcome
from rlaif.engine.training_listening import SilentTrainingListener
from rlaif.online.config import ONLINE_CONFIGS, OnlineOptimizationConfig
from rlaif.online.guard_config import GuardConfig
from rlaif.online.training import train_online
from rlaif.rewards.config import RewardConfig
from rlaif.train.config import CheckpointConfig
from rlaif.train.online_config import RolloutConfig

LETTERS = "?abcdefghijklmnopqrstuvwxyz0123456789+=# ABCDEFGHIJKLMNOPQRSTUVWXYZ.,:;!'\"-()[]{}<>|/\\_*&%$@~^`\n"
ARMS = ("", "?", "a", "b", "c", "d")
"""What a bandit's policy answers: it ends at once, or writes one of five letters; the ids of these are 0 to 5."""

WORTH = (0.3, -0.4, 0.1, 0.9, -0.9, 0.5)
"""Of each arm; `arm_rewards` gives them."""

BEST = 3
FAST = {"batch_size": 8, "max_steps": 60, "learning_rate": 0.02, "schedule": "constant", "warmup": 0.0}
UNGUARDED = GuardConfig(guards="off", suite="none")
SAVED_ONCE = CheckpointConfig(save_every=1000, eval_every=1000)


def arm_rewards(completions: Sequence[str], **columns: Any) -> list[float]:
    """The reward of each arm; of a longer answer, that of its first letter."""
    return [WORTH[ARMS.index(text[:1])] for text in completions]


def tokenizer_of(letters: str = LETTERS[:5]) -> PreTrainedTokenizerFast:
    """One token a letter; id 0 ends an answer, and nothing begins one."""
    vocab = {"</s>": 0, **{letter: place for place, letter in enumerate(letters, 1)}}
    pipeline = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    pipeline.decoder = decoders.Fuse()
    pipeline.add_special_tokens([AddedToken("</s>", normalized=False)])
    return PreTrainedTokenizerFast(tokenizer_object=pipeline, eos_token="</s>")


def save_bandit(folder: Path, letters: str = LETTERS[:5], *, context: int = 32, seed: int = 0, width: int = 16) -> Path:
    """A policy of a few thousand parameters that is not quite uniform."""
    tokenizer = tokenizer_of(letters)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=2 * width, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=context, initializer_range=0.2,
        eos_token_id=0, bos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def save_bandit_judge(folder: Path, letters: str = LETTERS[:5]) -> Path:
    """A reward model with the bandit's tokenizer."""
    tokenizer = tokenizer_of(letters)
    tokenizer.save_pretrained(folder)
    model = make_reward_model("llama", len(tokenizer), context=32)
    model.config.pad_token_id, model.config.eos_token_id = None, 0
    model.save_pretrained(folder)
    return folder


def write_prompts(path: Path, count: int = 8, prompt: str = "?", **more: Any) -> Path:
    """As many rows with one prompt."""
    return write_rows(path, [{"id": f"p{number}", "prompt": prompt, **more} for number in range(count)])


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def config_of(method: str, model: Path | str, data: Path | str, out: Path, **settings: Any) -> Any:
    """A config of few fast steps on the CPU, one token an answer, unguarded; settings replace these.

    `rollout`, `optimization`, `loss` and `backend` are dictionaries of what differs.
    """
    kind = ONLINE_CONFIGS[method]
    plain = kind(model=str(model), data=str(data), out=str(out))
    loss: Any = type(plain.loss)  # type: ignore[attr-defined]
    rollout = {"response_tokens": 1, "rollout_temperature": 1.0, "group_size": None, **settings.pop("rollout", {})}
    values: dict[str, Any] = {
        "rollout": RolloutConfig(**rollout),
        "rewarding": RewardConfig(settings.pop("reward", ("tests.online.online_runs:arm_rewards",))),
        "guarding": UNGUARDED,
        "checkpoints": SAVED_ONCE,
        "optimization": OnlineOptimizationConfig(**{**FAST, **settings.pop("optimization", {})}),
        "loss": loss(**settings.pop("loss", {})),
        "backend": type(plain.backend)(**{"device": "cpu", **settings.pop("backend", {})}),
        "keep_rollouts": 0,
    }
    return kind(model=str(model), data=str(data), out=str(out), **{**values, **settings})


def run(method: str, model: Path | str, data: Path | str, out: Path, **settings: Any) -> TrainOutcome:
    """Train; a listener may be among the settings."""
    listener = settings.pop("listener", None)
    return train_online(method, config_of(method, model, data, out, **settings), listener, command="rlaif train")


def policy_of(folder: Path, temperature: float = 1.0, prompt: str = "?") -> Tensor:
    """Probability of each next token after the prompt, (V,), float64."""
    return next_token(AutoModelForCausalLM.from_pretrained(folder), temperature, prompt)


@torch.no_grad()
def next_token(model: Any, temperature: float = 1.0, prompt: str = "?") -> Tensor:
    ids = tokenizer_of(LETTERS[: model.config.vocab_size - 1])(prompt, add_special_tokens=False).input_ids
    logits = model.eval()(input_ids=torch.tensor([ids])).logits[0, -1].double()
    return (logits / temperature).softmax(-1)


def metrics(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def figure(out: Path, name: str) -> list[float]:
    """A figure at each step that has it."""
    return [line[name] for line in metrics(out) if name in line]


def run_json(out: Path) -> dict[str, Any]:
    known: dict[str, Any] = json.loads((out / "run.json").read_text(encoding="utf-8"))
    return known


class Heard(SilentTrainingListener):
    """Keeps what it is told, and asks to stop after a step."""

    def __init__(self, stops_after: int | None = None) -> None:
        self.warnings: list[str] = []
        self.is_stopping = False
        self._stops_after = stops_after

    def on_warning(self, text: str) -> None:
        self.warnings.append(text)

    def on_step(self, step: int, total: int, logs: Mapping[str, float]) -> None:
        self.is_stopping = self._stops_after is not None and step >= self._stops_after

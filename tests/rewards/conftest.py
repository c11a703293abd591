"""Judges for reward functions: a server that rates a response by the word in it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlaif.rewards.raters import close_all
from tests.servers import Answer, Received, ScriptedServer, chat_reply, error_reply
from tests.tiny_models import save_reward_model

UNIFORM = dict.fromkeys(range(1, 11), 0.1)
BEST = {10: 0.999, 9: 0.001}
"""Rating 10 * 0.999 + 9 * 0.001 = 9.999."""


def reply(probs: dict[int, float]) -> Answer:
    tokens = [(str(score), math.log(prob)) for score, prob in probs.items()]
    likeliest, logprob = max(tokens, key=lambda token: token[1])
    return Answer(chat_reply(tokens, text=likeliest, token=likeliest, logprob=logprob))


def answer(received: Received) -> Answer:
    """A uniform distribution; nearly all on 10 for a response with "good"; no score at all for one with "bad"."""
    if not received.path.endswith("/chat/completions"):
        return Answer(error_reply("not found"), status=404)
    asked = received.json["messages"][-1]["content"].rpartition("### Response\n")[2]
    if "unusable" in asked:
        return Answer(error_reply("wrong key"), status=401)
    if "bad" in asked:
        return Answer(chat_reply([("Sure", -0.01)], text="Sure", token="Sure"))
    return reply(BEST if "good" in asked else UNIFORM)


@pytest.fixture
def judge_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    for name in ("RLAIF_JUDGE", "RLAIF_URL", "RLAIF_TOKEN", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    with ScriptedServer(answer) as server:
        yield server
        close_all()


@pytest.fixture
def reward_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A reward model as a judge, which gives no ratings."""
    for name in ("RLAIF_JUDGE", "RLAIF_URL", "RLAIF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    yield f"hf-reward:{save_reward_model(tmp_path / 'tiny-rm')}"
    close_all()

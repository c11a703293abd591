"""The shipped model of `builtin:tiny-policy`: it loads, answers with room to improve, criticises and revises."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import mean

import pytest
from transformers import AutoConfig, AutoTokenizer

from rlaif.backends.builtin import BuiltinBackend
from rlaif.judge.constitutions import load_constitution, revision_requests
from rlaif.judge.revising import RevisionPrompts
from rlaif.records import Turn

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "examples"))

from builtin_policy.asking import answer, gather_in_parts, prefer, rate, revise  # noqa: E402

MODEL = REPOSITORY / "rlaif" / "backends" / "builtin_policy_model"
SAMPLES = 16


@pytest.fixture(scope="module")
def policy() -> Iterator[BuiltinBackend]:
    backend = BuiltinBackend("tiny-policy")
    yield backend
    asyncio.run(backend.aclose())


@pytest.fixture(scope="module")
def judge() -> Iterator[BuiltinBackend]:
    backend = BuiltinBackend("tiny")
    yield backend
    asyncio.run(backend.aclose())


@pytest.fixture(scope="module")
def conversations() -> list[tuple[Turn, ...]]:
    lines = (REPOSITORY / "examples" / "data" / "prompts.jsonl").read_text(encoding="utf-8").splitlines()
    prompts = [row["prompt"] for row in map(json.loads, lines)]
    return [(Turn("user", prompt),) for prompt in prompts if isinstance(prompt, str)][:8]


def test_it_is_small_and_within_the_limits() -> None:
    from safetensors import safe_open

    config = AutoConfig.from_pretrained(str(MODEL))
    assert config.architectures == ["LlamaForCausalLM"]
    assert config.max_position_embeddings >= 2048
    assert sum(path.stat().st_size for path in MODEL.iterdir()) < 10 * 2**20
    total = 0
    with safe_open(str(MODEL / "model.safetensors"), "pt") as weights:
        for name in weights.keys():  # noqa: SIM118 - this is no mapping
            size = 1
            for dimension in weights.get_slice(name).get_shape():
                size *= dimension
            total += size
    assert total <= 4_000_000


def test_its_tokenizer_keeps_case_and_any_text() -> None:
    tokenizer = AutoTokenizer.from_pretrained(str(MODEL))
    text = "I Think SO, Łódź 🙂\n"
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


async def test_the_same_seed_says_the_same(policy: BuiltinBackend, conversations: list[tuple[Turn, ...]]) -> None:
    first, again, other = [await answer(policy, conversations[0], seed) for seed in (1, 1, 2)]
    assert first == again
    assert first != other
    assert first.strip()


def test_there_is_room_to_improve(
    policy: BuiltinBackend, judge: BuiltinBackend, conversations: list[tuple[Turn, ...]]
) -> None:
    async def rated() -> list[list[float]]:
        asked = [turns for turns in conversations[:4] for _ in range(SAMPLES)]
        texts = await gather_in_parts(answer(policy, turns, seed % SAMPLES) for seed, turns in enumerate(asked))
        ratings = await gather_in_parts(rate(judge, turns, text) for turns, text in zip(asked, texts, strict=True))
        return [ratings[start : start + SAMPLES] for start in range(0, len(ratings), SAMPLES)]

    ratings = asyncio.run(rated())
    assert mean(max(each) for each in ratings) - mean(map(mean, ratings)) > 2.0


@pytest.mark.parametrize("name", ["polite", "detailed"])
def test_a_revision_raises_the_score_of_its_principle(
    policy: BuiltinBackend, judge: BuiltinBackend, conversations: list[tuple[Turn, ...]], name: str
) -> None:
    constitution = load_constitution(name)
    requests = revision_requests(constitution, "all")[0]
    principle = constitution.principles[0].text
    prompts = RevisionPrompts(0)

    async def preferred() -> list[float]:
        texts = await gather_in_parts(answer(policy, turns, 3) for turns in conversations)
        after = await gather_in_parts(
            revise(policy, prompts, turns, text, requests, temperature=1.0)
            for turns, text in zip(conversations, texts, strict=True)
        )
        assert all(each.critique.strip() for each in after)
        assert all(each.revision.strip() for each in after)
        return await gather_in_parts(
            prefer(judge, turns, new.revision, old, principle)
            for turns, old, new in zip(conversations, texts, after, strict=True)
        )

    assert mean(asyncio.run(preferred())) > 0.55

"""The reward model in this process as its callers see it, on tiny random models."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import torch

from rlaif.backends.base import Capabilities
from rlaif.backends.config import BackendConfig
from rlaif.backends.hf_reward import HfRewardBackend
from rlaif.backends.registry import open_backend
from rlaif.errors import BackendError, BackendUnusableError, ConfigError, PromptTooLongError, RequestRefusedError
from rlaif.models.encoding import ExampleEncoder
from rlaif.models.loading import find_model, load_reward_model, stop_ids
from rlaif.records import Message, Reward, RewardRequest, Turn
from tests.backends.contract import ODD_TEXTS
from tests.tiny_models import byte_level_tokenizer, save_model, save_reward_model, sentencepiece_tokenizer

SHIFT = 0.75


def asked(response: str, *prompt: str) -> RewardRequest:
    roles = ("user", "assistant")
    turns = tuple(Turn(roles[place % 2], text) for place, text in enumerate(prompt or ("Why?",)))
    return RewardRequest(turns, response)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_reward_model(tmp_path_factory.mktemp("models") / "tiny-rm", shift=SHIFT)


@pytest.fixture
async def backend(folder: Path) -> AsyncIterator[HfRewardBackend]:
    backend = HfRewardBackend(str(folder))
    yield backend
    await backend.aclose()


def reference(folder: Path, request: RewardRequest) -> float:
    """By the model's layers, one sequence alone, without its shift."""
    source = find_model(str(folder), device="cpu", dtype="auto")
    model = load_reward_model(source)
    example = ExampleEncoder(source.tokenizer, stop_ids(source)).example("x", request.prompt, (request.response,))
    with torch.no_grad():
        ids = torch.tensor([example.prompt + example.completions[0]])
        return float(model.score(model.base_model(input_ids=ids).last_hidden_state[0, -1]))


async def test_what_the_model_says_less_its_shift(folder: Path, backend: HfRewardBackend) -> None:
    for request in (asked("Because."), asked(""), asked("So.", "Why?", "No.", "But why?")):
        reply = await backend.reward(request)
        assert reply.value == pytest.approx(reference(folder, request) - SHIFT, abs=1e-5)
        assert reply.usage.prompt_tokens == backend.count_tokens(request.messages)


@pytest.mark.parametrize("kind", ["llama", "qwen2-sliding"])
async def test_together_is_as_alone(tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    folder = save_reward_model(tmp_path / "rm", kind)
    requests = [
        asked(f"Answer {index % 3} " * (1 + index % 4), f"Question {index // 5}? " * (1 + index // 5))
        for index in range(15)
    ]
    small, large = HfRewardBackend(str(folder), max_batch_tokens=1), HfRewardBackend(str(folder), max_batch_tokens=900)
    alone = [await small.reward(request) for request in requests]
    together = await asyncio.gather(*map(large.reward, requests))
    for backend in (small, large):
        await backend.aclose()
    assert [one.value for one in together] == pytest.approx([one.value for one in alone], abs=1e-5)
    assert len({round(one.value, 4) for one in alone}) == len(set(requests))
    assert ("computed once for each response" in caplog.text) == (kind != "llama")
    cached = [one.usage.cached_tokens for one in together]
    assert any(cached) == (kind == "llama")
    assert not any(one.usage.cached_tokens for one in alone)


async def test_one_prompt_is_one_row(backend: HfRewardBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    await backend.reward(asked("warm"))
    rows: list[int] = []
    model = backend._loaded.get().model
    handle = model.base_model.register_forward_pre_hook(
        lambda module, args, kwargs: rows.append(len(kwargs.get("input_ids", args[0] if args else None))),
        with_kwargs=True,
    )
    await asyncio.gather(*(backend.reward(asked(answer, prompt)) for prompt in ("P?", "Q?") for answer in "abc"))
    handle.remove()
    assert rows == [2]


@pytest.mark.parametrize("text", ODD_TEXTS, ids=ascii)
async def test_odd_text_is_answered(backend: HfRewardBackend, text: str) -> None:
    for request in (asked(text), asked("fine", text)):
        assert isinstance(await backend.reward(request), Reward)


async def test_an_empty_response_without_chat_template(tmp_path: Path) -> None:
    tokenizer = sentencepiece_tokenizer()
    backend = HfRewardBackend(str(save_reward_model(tmp_path / "rm", tokenizer=tokenizer)))
    empty, blank = await asyncio.gather(backend.reward(asked("")), backend.reward(asked(" ")))
    await backend.aclose()
    assert empty != blank


class TestTooLong:
    @pytest.fixture
    def short(self, tmp_path: Path) -> Path:
        return save_reward_model(tmp_path / "short", context=64)

    async def test_is_refused(self, short: Path) -> None:
        backend = HfRewardBackend(str(short))
        with pytest.raises(PromptTooLongError, match=r"the prompt has \d+ tokens.*takes 64; --truncate cuts the start"):
            await backend.reward(asked("yes", "word " * 50))
        with pytest.raises(PromptTooLongError, match="leaves nothing of the prompt; it takes a model with a longer"):
            await backend.reward(asked("yes " * 60))
        assert (await backend.reward(asked("yes"))).usage.prompt_tokens <= 64  # others are none the worse
        await backend.aclose()

    async def test_or_the_start_of_the_prompt_is_cut(self, short: Path, caplog: pytest.LogCaptureFixture) -> None:
        backend = HfRewardBackend(str(short), truncate=True)
        long, longer = "word " * 50, "other " * 9 + "word " * 50
        one, other, different = await asyncio.gather(
            backend.reward(asked("yes", long)), backend.reward(asked("yes", longer)), backend.reward(asked("no", long))
        )
        assert one.value == other.value != different.value
        assert one.usage.prompt_tokens == 64
        with pytest.raises(PromptTooLongError, match="leaves nothing of the prompt"):
            await backend.reward(asked("yes " * 60))
        await backend.aclose()
        assert "3 prompts were cut at the start" in caplog.text

    def test_truncation_is_part_of_the_identity(self, short: Path) -> None:
        assert HfRewardBackend(str(short)).identity != HfRewardBackend(str(short), truncate=True).identity


class TestBad:
    def test_what_is_no_reward_model_is_refused_at_once(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="is no reward model"):
            HfRewardBackend(str(save_model(tmp_path / "lm")))
        with pytest.raises(ConfigError, match="2 labels"):
            HfRewardBackend(str(save_reward_model(tmp_path / "two", labels=2)))

    def test_no_eos(self, tmp_path: Path) -> None:
        tokenizer = byte_level_tokenizer()
        folder = save_reward_model(tmp_path / "rm", tokenizer=tokenizer)
        tokenizer.eos_token = None
        tokenizer.save_pretrained(folder)
        with pytest.raises(ConfigError, match="no EOS"):
            HfRewardBackend(str(folder))

    async def test_a_prompt_that_nobody_is_to_answer(self, backend: HfRewardBackend) -> None:
        for request in (RewardRequest((), "yes"), asked("yes", "Why?", "Because.")):
            with pytest.raises(RequestRefusedError, match="must end with a turn that the assistant answers"):
                await backend.reward(request)
            assert backend.count_tokens(request.messages) == 0

    async def test_missing_weights_fail_every_call_alike(self, tmp_path: Path) -> None:
        folder = save_reward_model(tmp_path / "rm")
        (folder / "model.safetensors").unlink()
        backend = HfRewardBackend(str(folder))
        together = await asyncio.gather(*map(backend.reward, map(asked, "ab")), return_exceptions=True)
        assert [type(error) for error in together] == [BackendUnusableError] * 2
        assert "hf-reward:" in str(together[0])
        await backend.aclose()

    async def test_a_reward_that_is_no_number_is_that_calls_failure(
        self, backend: HfRewardBackend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        good = await backend.reward(asked("a"))
        score = type(backend._loaded.get().model.score).forward

        def half_nan(layer: torch.nn.Module, states: torch.Tensor) -> torch.Tensor:
            values = score(layer, states)
            return values.index_fill(1, torch.tensor([1]), torch.nan)

        layer = backend._loaded.get().model.score
        monkeypatch.setattr(layer, "forward", lambda states: half_nan(layer, states))
        first, second = await asyncio.gather(*map(backend.reward, map(asked, "ab")), return_exceptions=True)
        assert first.value == pytest.approx(good.value, abs=1e-5)
        assert isinstance(second, BackendError)
        assert "expected a finite number" in str(second)

    async def test_closed_it_says_so_and_closes_twice(self, folder: Path) -> None:
        backend = HfRewardBackend(str(folder))
        await backend.reward(asked("a"))
        await backend.aclose()
        await backend.aclose()
        with pytest.raises(BackendUnusableError, match="was closed"):
            await backend.reward(asked("b"))


async def test_a_cancelled_call_leaves_the_others_alone(backend: HfRewardBackend) -> None:
    tasks = [asyncio.ensure_future(backend.reward(asked(text))) for text in "abcd"]
    await asyncio.sleep(0)
    tasks[1].cancel()
    replies = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(replies[1], asyncio.CancelledError)
    assert all(isinstance(reply, Reward) for place, reply in enumerate(replies) if place != 1)


def test_by_name_with_what_it_can_do(folder: Path) -> None:
    backend = open_backend(f"hf-reward:{folder}", BackendConfig())
    assert backend.name == "hf-reward:tiny-rm"
    assert backend.capabilities == Capabilities(
        has_logprobs=False, has_rewards=True, is_in_process=True, context_tokens=512
    )
    identity = json.dumps(dict(backend.identity), sort_keys=True)
    assert str(folder.parent) not in identity
    assert {*backend.identity} == {"backend", "model", "fingerprint", "dtype", "truncate"}
    assert backend.count_tokens((Message("user", ()),)) == 0


def test_another_shift_is_another_identity(folder: Path, tmp_path: Path) -> None:
    other = save_reward_model(tmp_path / "tiny-rm", shift=SHIFT + 1)
    assert HfRewardBackend(str(other)).identity != HfRewardBackend(str(folder)).identity


def test_logging_is_quiet_where_nothing_was_cut(caplog: pytest.LogCaptureFixture, folder: Path) -> None:
    async def once() -> None:
        backend = HfRewardBackend(str(folder))
        await backend.reward(asked("a"))
        await backend.aclose()

    with caplog.at_level(logging.WARNING):
        asyncio.run(once())
    assert not caplog.records

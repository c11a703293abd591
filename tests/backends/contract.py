"""What every backend must do. Subclass `BackendContract` as `Test...` and give it the fixture `backend`.

    class TestMyBackend(BackendContract):
        @pytest.fixture
        async def backend(self):
            backend = MyBackend(...)
            yield backend
            await backend.aclose()

The judge behind it may answer anything, so long as the same prompt gets the same log-probabilities.
"""

from __future__ import annotations

import asyncio
import json
import math

import pytest

from rlaif.backends.base import Backend
from rlaif.records import CandidateLogprobs, GenerateRequest, Message, Role, ScoreRequest, Segment

LABELS = ("1", "2")
ROLES: tuple[Role, ...] = ("system", "user", "assistant", "user")
ODD_TEXTS = (
    "",
    " ",
    "<s></s><|im_end|>",
    "a\x00b\x1b",
    "\ud800 alone",
    "{{ braces }} {output_1}",
    "日本 é 🎉",
    "\r\n\t",
)


def messages(text: str) -> tuple[Message, ...]:
    """A judge prompt around a text of the user's."""
    parts = (Segment("Judge this:\n", True), Segment(text, False), Segment("\n\nPreferred response (1 or 2):", True))
    return (Message("user", parts),)


def label_logprobs(reply: CandidateLogprobs) -> list[float]:
    """The reply's log-probabilities of label tokens, in a fixed order."""
    return [token.logprob for token in sorted(reply.tokens) if token.token.strip() in LABELS]


class BackendContract:
    """The tests; none needs a good judge."""

    def test_name_and_identity_are_stable_and_free_of_paths(self, backend: Backend) -> None:
        kind, _, model = backend.name.partition(":")
        assert kind
        assert model
        identity = json.dumps(dict(backend.identity), sort_keys=True)
        assert identity == json.dumps(dict(backend.identity), sort_keys=True)
        assert "://" not in identity
        assert not any(isinstance(value, str) and value.startswith("/") for value in backend.identity.values())

    def test_counts_tokens(self, backend: Backend) -> None:
        short, long = backend.count_tokens(messages("word")), backend.count_tokens(messages("word " * 100))
        assert 0 < short < long

    async def test_scores_the_labels(self, backend: Backend) -> None:
        if not backend.capabilities.has_logprobs:
            pytest.skip("gives no log-probabilities")
        reply = await backend.score(ScoreRequest(messages("Hello."), LABELS))
        found = {token.token.strip() for token in reply.tokens}
        assert found & set(LABELS)
        if reply.is_exhaustive:
            assert found >= set(LABELS)
        assert all(math.isfinite(token.logprob) and token.logprob <= 1e-6 for token in reply.tokens)
        assert math.fsum(math.exp(token.logprob) for token in reply.tokens) <= 1.0 + 1e-6
        assert reply.usage.prompt_tokens > 0
        assert 0 <= reply.usage.cached_tokens <= reply.usage.prompt_tokens

    async def test_calls_at_the_same_time_are_answered_each_with_its_own(self, backend: Backend) -> None:
        if not backend.capabilities.has_logprobs:
            pytest.skip("gives no log-probabilities")
        requests = [ScoreRequest(messages(f"Text {index} " * (1 + index % 5)), LABELS) for index in range(12)]
        alone = [await backend.score(request) for request in requests]
        together = await asyncio.gather(*map(backend.score, requests))
        for one, other in zip(alone, together, strict=True):
            assert one.usage.prompt_tokens == other.usage.prompt_tokens
            assert [math.exp(x) for x in label_logprobs(one)] == pytest.approx(
                [math.exp(x) for x in label_logprobs(other)], abs=1e-5
            )

    @pytest.mark.parametrize("text", ODD_TEXTS, ids=ascii)
    async def test_odd_text_is_answered(self, backend: Backend, text: str) -> None:
        if backend.capabilities.has_logprobs:
            assert (await backend.score(ScoreRequest(messages(text), LABELS))).tokens
        else:
            assert (await backend.generate(GenerateRequest(messages(text), 4))).finish_reason

    async def test_a_whole_conversation_is_answered_whatever_stands_in_it(self, backend: Backend) -> None:
        chats = [
            tuple(
                Message(role, (Segment(content, False),))
                for role, content in zip(ROLES, ("Be brief.", "Hello.", text, f"{text} And now?"), strict=True)
            )
            for text in ODD_TEXTS
        ]
        requests = [GenerateRequest(chat, 4, temperature=1.0, seed=3, top_p=0.9) for chat in chats]
        for reply in await asyncio.gather(*map(backend.generate, requests)):
            assert reply.finish_reason in {"stop", "length"}
            assert reply.usage.prompt_tokens > 0

    async def test_samples_of_one_prompt_are_each_their_seeds_own(self, backend: Backend) -> None:
        requests = [
            GenerateRequest(messages("Hello."), 6, 1.0, seed, top_p) for seed in range(4) for top_p in (1.0, 0.7)
        ]
        together = await asyncio.gather(*map(backend.generate, requests))
        alone = [await backend.generate(request) for request in reversed(requests)]
        assert [reply.text for reply in together] == [reply.text for reply in reversed(alone)]

    async def test_a_nucleus_of_one_token_is_greedy(self, backend: Backend) -> None:
        greedy = await backend.generate(GenerateRequest(messages("Hello."), 6))
        narrow = await backend.generate(GenerateRequest(messages("Hello."), 6, 1.0, 5, top_p=1e-6))
        assert narrow.text == greedy.text

    async def test_generates_no_more_than_asked_for(self, backend: Backend) -> None:
        reply = await backend.generate(GenerateRequest(messages("Hello."), 5))
        assert isinstance(reply.text, str)
        assert reply.usage.prompt_tokens > 0
        assert 0 <= reply.usage.completion_tokens <= 5
        assert reply.finish_reason in {"stop", "length"}

    async def test_greedy_and_seeded_text_repeats(self, backend: Backend) -> None:
        greedy = GenerateRequest(messages("Hello."), 8)
        sampled = GenerateRequest(messages("Hello."), 8, temperature=1.0, seed=11)
        first = await asyncio.gather(backend.generate(greedy), backend.generate(sampled))
        again = [await backend.generate(greedy), await backend.generate(sampled)]
        assert [reply.text for reply in first] == [reply.text for reply in again]

    async def test_token_alternatives_come_only_where_they_are_claimed(self, backend: Backend) -> None:
        reply = await backend.generate(GenerateRequest(messages("Hello."), 5, labels=LABELS))
        if not backend.capabilities.has_token_alternatives:
            assert reply.tokens == ()
        for token in reply.tokens:
            assert all(alternative.logprob <= 1e-6 for alternative in token.alternatives)

    async def test_a_cancelled_call_leaves_the_others_alone(self, backend: Backend) -> None:
        tasks = [
            asyncio.ensure_future(backend.generate(GenerateRequest(messages(f"Text {index}"), 4))) for index in range(4)
        ]
        await asyncio.sleep(0)
        tasks[1].cancel()
        replies = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(replies[1], asyncio.CancelledError)
        assert [type(reply).__name__ for reply in (replies[0], *replies[2:])] == ["Generation"] * 3

    async def test_closes_twice(self, backend: Backend) -> None:
        await backend.generate(GenerateRequest(messages("Hello."), 2))
        await backend.aclose()
        await backend.aclose()

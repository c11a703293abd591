"""What a policy is asked about a prompt, and what becomes of its answers."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.errors import RequestRefusedError
from rlaif.policies.sampling import (
    REFUSED,
    SampleCall,
    Sampler,
    SamplingConfig,
    conversation,
    sample_seed,
)
from rlaif.policy_records import Sample
from rlaif.records import GenerateRequest, Generation, Prompt, Turn

PROMPT = Prompt("row", (Turn("user", "Why?"),))


def sampler(seed: int = 0, **settings: Any) -> Sampler:
    return Sampler("fake:p", SamplingConfig(**settings), seed=seed)


def request_of(asked: Sampler, prompt: Prompt = PROMPT, number: int = 0) -> GenerateRequest:
    request = next(asked.ask(prompt, SampleCall(number)))
    assert isinstance(request, GenerateRequest)
    return request


def sample_of(reply: Generation | RequestRefusedError, **settings: Any) -> Sample:
    conversing = sampler(**settings).ask(PROMPT, SampleCall(0))
    next(conversing)
    tell = partial(conversing.send, reply) if isinstance(reply, Generation) else partial(conversing.throw, reply)
    with pytest.raises(StopIteration) as finished:
        tell()
    sample: Sample = finished.value.value
    return sample


def test_a_request_holds_the_conversation_and_every_setting() -> None:
    request = request_of(sampler(temperature=0.7, top_p=0.9, max_tokens=33, system="Be brief."))
    assert [(message.role, message.content) for message in request.messages] == [
        ("system", "Be brief."),
        ("user", "Why?"),
    ]
    assert (request.temperature, request.top_p, request.max_tokens) == (0.7, 0.9, 33)
    assert not any(segment.is_template for message in request.messages for segment in message.segments)
    assert not request.wants_logprobs


def test_each_sample_has_a_call_and_a_seed_of_its_own() -> None:
    asked = sampler(samples=200)
    assert asked.plan(PROMPT) == tuple(SampleCall(number) for number in range(200))
    seeds = [request_of(asked, number=number).seed for number in range(200)]
    assert len(set(seeds)) == 200
    # raising the number of samples leaves those before as they are
    assert [request_of(sampler(samples=3), number=number).seed for number in range(3)] == seeds[:3]


def test_a_greedy_sample_has_no_seed() -> None:
    assert request_of(sampler(temperature=0.0, samples=1)).seed is None
    assert sample_of(Generation("a", "stop"), temperature=0.0, samples=1).seed is None


@given(st.integers(), st.text(), st.integers(0, 500))
def test_a_seed_is_a_function_of_seed_row_and_sample_that_servers_take(seed: int, row: str, sample: int) -> None:
    drawn = sample_seed(seed, row, sample)
    assert drawn == sample_seed(seed, row, sample)
    assert 0 <= drawn < 2**31
    assert drawn != sample_seed(seed, row, sample + 1)
    assert drawn != sample_seed(seed + 1, row, sample)


@pytest.mark.parametrize("role", ["system", "developer"])
def test_a_prompt_with_a_system_message_of_its_own_keeps_it(role: str) -> None:
    turns = [Turn(role, "Rhyme."), Turn("user", "Hi"), Turn("assistant", "High"), Turn("user", "Sea")]
    messages = conversation(turns, "Be brief.")
    assert [(message.role, message.content) for message in messages] == [
        ("system", "Rhyme."),
        ("user", "Hi"),
        ("assistant", "High"),
        ("user", "Sea"),
    ]


def test_an_empty_system_prompt_is_a_system_prompt() -> None:
    assert [message.role for message in conversation([Turn("user", "Hi")], "")] == ["system", "user"]


@pytest.mark.parametrize("reason", ["stop", "length", "eos_token"])
def test_an_answer_is_kept_with_the_servers_word_for_its_end(reason: str) -> None:
    sample = sample_of(Generation(" so ", reason))
    assert sample == Sample("fake:p", " so ", reason, request_of(sampler()).seed)
    assert sample.is_cut_off is (reason == "length")


def test_a_refusal_is_a_sample_with_the_providers_words() -> None:
    sample = sample_of(RequestRefusedError("400: no"))
    assert (sample.text, sample.finish_reason, sample.refusal) == ("", REFUSED, "400: no")
    assert sample.seed == request_of(sampler()).seed


def test_what_a_content_filter_left_is_a_refusal_and_stays_readable() -> None:
    sample = sample_of(Generation("You begin by", "content_filter"))
    assert (sample.text, sample.finish_reason) == ("You begin by", REFUSED)
    assert sample.refusal is not None
    assert "content filter" in sample.refusal


def test_a_prompt_is_refused_where_every_sample_is() -> None:
    answer, refusal = Sample("p", "a", "stop"), Sample("p", "", REFUSED, refusal="400: no")
    asked = sampler()
    kept = asked.combine(PROMPT, {SampleCall(0): refusal, SampleCall(1): answer})
    assert kept.kept == (refusal, answer)
    with pytest.raises(RequestRefusedError, match="400: no"):
        asked.combine(PROMPT, {SampleCall(0): refusal, SampleCall(1): refusal})


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"top_p": 0.0}, "top_p: 0 leaves no token"),
        ({"temperature": 0.0, "samples": 2}, "temperature: 0 draws the same response"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        SamplingConfig(**settings)

"""Servers of each kind, scripted from what their sources say, and what `openai:` makes of them."""

from __future__ import annotations

import asyncio
import json
import math
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from rlaif.backends.openai_api import OpenAIBackend
from rlaif.errors import BackendUnusableError, RequestRefusedError, ServerFaultError
from rlaif.judge.scoring import candidate_distribution
from rlaif.records import RATING_LABELS, CandidateLogprobs, GenerateRequest, Message, ScoreRequest, Segment, Usage
from tests.backends.api_server import NOT_FOUND, ApiServer, lists
from tests.servers import Answer, Received, chat_reply, error_reply, free_port

KEY = "sk-test-0123456789abcdef"
MOCK = Path(__file__).resolve().parents[3] / "shared" / "tools" / "openai_server.py"
MESSAGES = (Message("user", (Segment("Rate it.", True),)),)
RATINGS = ScoreRequest(MESSAGES, RATING_LABELS)
PAIR = ScoreRequest(MESSAGES, ("1", "2"))


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.delenv(name, raising=False)


@asynccontextmanager
async def opened(*servers: ApiServer, **options: Any) -> AsyncIterator[tuple[OpenAIBackend, list[str]]]:
    notices: list[str] = []
    options = {"base_urls": [server.url for server in servers], "on_notice": notices.append, **options}
    backend = OpenAIBackend("judge", **options)
    try:
        yield backend, notices
    finally:
        await backend.aclose()


async def ask(
    server: ApiServer, request: ScoreRequest = RATINGS, **options: Any
) -> tuple[CandidateLogprobs, list[str]]:
    async with opened(server, **options) as (backend, notices):
        return await backend.score(request), notices


def probs_of(reply: CandidateLogprobs) -> dict[str, float]:
    """Probability of each label in a reply, its tokens summed."""
    found: dict[str, float] = {}
    for token, logprob in reply.tokens:
        found[token.strip()] = found.get(token.strip(), 0.0) + math.exp(logprob)
    return {label: found[label] for label in found if label.isdigit()}


# --- vLLM -------------------------------------------------------------------------------------------------------------

WHOLE = {"1": 11, " 1": 12, "2": 21, " 2": 22, "10": 100, "0": 40, ",": 50, "\n": 51}
SPLIT = {name: token for name, token in WHOLE.items() if name != "10"}
FIRST = {11: 0.4, 12: 0.05, 21: 0.2, 22: 0.05, 100: 0.1}
NEXT = {11: 0.75, 12: 0.5}
"""P("0") after "1" and after " 1"."""


class Vllm:
    """As vLLM 0.32.0 answers: a vocabulary, and the probabilities of some of its tokens (the rest have 1e-9)."""

    def __init__(self, vocabulary: Mapping[str, int], first: Mapping[int, float] = FIRST) -> None:
        self.vocabulary, self.first = vocabulary, first
        self.knows_ids = True
        self.prompt_ids = [7, 8, 9]
        self.facts: dict[str, Answer | Callable[[Received], Answer]] = {
            "/version": Answer({"version": "0.32.0"}),
            "/v1/models": lists("judge", owned_by="vllm", max_model_len=2048, created=1),
            "/tokenize": self.tokenize,
        }

    def tokenize(self, received: Received) -> Answer:
        body = received.json
        text = body["prompt"] if "prompt" in body else body["messages"][-1]["content"]
        names = []
        while text:
            name = next(text[:size] for size in (2, 1) if text[:size] in self.vocabulary or size == 1)
            names.append(name)
            text = text[len(name) :]
        raw = [name.replace(" ", "Ġ").replace("\n", "Ċ") for name in names]
        ids = [self.vocabulary.get(name, 99) for name in names]
        return Answer({"count": len(ids), "max_model_len": 2048, "tokens": ids, "token_strs": raw})

    def __call__(self, received: Received) -> Answer:
        body = received.json
        is_chat = received.path.endswith("/chat/completions")
        if is_chat:
            probs = self.first
        else:
            assert body["prompt"][:-1] == self.prompt_ids
            probs = {40: NEXT[body["prompt"][-1]]}
        ids = body.get("logprob_token_ids") if self.knows_ids else None
        # the generated token is listed as well, whatever was asked for
        listed = {f"token_id:{token}": math.log(probs.get(token, 1e-9)) for token in [*(ids or [21]), 21]}
        usage = {"prompt_tokens": 3, "completion_tokens": 1}
        if not is_chat:
            logprobs: Any = {"tokens": ["token_id:40"], "token_logprobs": [-1.0], "top_logprobs": [listed]}
            choice = {"text": "0", "logprobs": logprobs, "finish_reason": "length"}
            return Answer({"choices": [choice], "usage": usage})
        entries = [{"token": name, "logprob": logprob} for name, logprob in listed.items()]
        content = [{"token": "token_id:21", "logprob": math.log(0.2), "top_logprobs": entries}]
        message = {"role": "assistant", "content": "2"}
        choice = {"message": message, "logprobs": {"content": content}, "finish_reason": "length"}
        prompt_ids = self.prompt_ids if body.get("return_token_ids") else None
        return Answer({"choices": [choice], "usage": usage, "prompt_token_ids": prompt_ids})


async def test_vllm_gives_exact_logprobs_of_all_tokens_that_spell_a_label() -> None:
    vllm = Vllm(WHOLE)
    with ApiServer(vllm, vllm.facts) as server:
        async with opened(server, api_key=KEY) as (backend, notices):
            replies = await asyncio.gather(*(backend.score(PAIR) for _ in range(5)))
            again = await backend.score(PAIR)
            assert backend.capabilities.context_tokens == 2048
    assert {*replies, again} == {again}
    assert again.is_exhaustive
    assert sorted(token for token, _ in again.tokens) == [" 1", " 2", "1", "2"]
    assert probs_of(again) == pytest.approx({"1": 0.45, "2": 0.25})
    assert again.usage == Usage(3, 1)
    assert again.text == "2"
    assert [received.json["logprob_token_ids"] for received in server.received] == [[11, 12, 21, 22]] * 6
    body = server.received[0].json
    assert (body["logprobs"], body["max_tokens"], body["return_tokens_as_token_ids"]) == (True, 1, True)
    assert "return_token_ids" not in body
    asked = [received.path for received in server.looks]
    assert sorted(set(asked)) == ["/tokenize", "/v1/models", "/version"]
    assert asked.count("/version") == asked.count("/v1/models") == 1
    assert asked.count("/tokenize") == 3 + 2, "three ways to write all, and each in a chat: once"
    assert all(received.headers["authorization"] == f"Bearer {KEY}" for received in server.looks)
    assert notices == [f"openai:judge: {server.url} is vLLM 0.32.0: exact log-probabilities of the labels"]


async def test_vllm_with_a_10_in_its_vocabulary_is_asked_once() -> None:
    vllm = Vllm(WHOLE)
    with ApiServer(vllm, vllm.facts) as server:
        reply, _ = await ask(server, ScoreRequest(MESSAGES, ("1", "2", "10")))
    assert len(server.received) == 1
    assert probs_of(reply) == pytest.approx({"1": 0.45, "2": 0.25, "10": 0.1})


async def test_vllm_without_one_is_asked_what_follows_each_first_half() -> None:
    # "1": 0.4 (1 - 0.75) + 0.05 (1 - 0.5) = 0.125; "10": 0.4 * 0.75 + 0.05 * 0.5 = 0.325
    vllm = Vllm(SPLIT)
    with ApiServer(vllm, vllm.facts) as server:
        reply, notices = await ask(server, ScoreRequest(MESSAGES, ("1", "2", "10")))
    assert reply.is_exhaustive
    assert probs_of(reply) == pytest.approx({"1": 0.125, "2": 0.25, "10": 0.325})
    first, *follow_ups = server.received
    assert first.json["return_token_ids"] is True
    assert [received.path for received in follow_ups] == ["/v1/completions"] * 2
    assert sorted(received.json["prompt"] for received in follow_ups) == [[7, 8, 9, 11], [7, 8, 9, 12]]
    assert all(received.json["logprob_token_ids"] == [40] for received in follow_ups)
    assert reply.usage == Usage(9, 3), "three calls"
    assert notices[0].endswith("exact log-probabilities of the labels, replies continued for the 10")


async def test_a_first_half_that_is_next_to_impossible_is_not_followed() -> None:
    vllm = Vllm(SPLIT, {11: 0.4, 12: 1e-7, 21: 0.5})
    with ApiServer(vllm, vllm.facts) as server:
        reply, _ = await ask(server, ScoreRequest(MESSAGES, ("1", "2", "10")))
    assert [received.json["prompt"] for received in server.received[1:]] == [[7, 8, 9, 11]]
    assert reply.is_exhaustive
    assert probs_of(reply)["10"] == pytest.approx(0.3)


async def test_a_vllm_that_refuses_to_continue_leaves_the_10_unseen() -> None:
    vllm = Vllm(SPLIT)

    def answer(received: Received) -> Answer:
        return vllm(received) if "chat" in received.path else Answer(error_reply("no completions"), status=404)

    with ApiServer(answer, vllm.facts) as server:
        reply, notices = await ask(server, ScoreRequest(MESSAGES, ("1", "2", "10")))
    assert not reply.is_exhaustive
    assert probs_of(reply) == pytest.approx({"1": 0.45, "2": 0.25})
    assert candidate_distribution(reply, ("1", "2", "10")).is_bounded
    assert "refuses to continue a reply (no completions" in notices[1]


@pytest.mark.parametrize("how", ["ignored", "refused"])
async def test_a_vllm_too_old_for_it_is_read_by_its_likeliest_tokens(how: str) -> None:
    vllm = Vllm(WHOLE)
    vllm.knows_ids = False

    def answer(received: Received) -> Answer:
        if "logprob_token_ids" not in received.json:
            return Answer(chat_reply())
        if how == "refused":
            return Answer(error_reply("Extra inputs are not permitted: logprob_token_ids"), status=400)
        return vllm(received)

    with ApiServer(answer, vllm.facts) as server:
        async with opened(server) as (backend, notices):
            replies = await asyncio.gather(*(backend.score(PAIR) for _ in range(4)))
            await backend.score(PAIR)
    assert [reply.is_exhaustive for reply in replies] == [False] * 4
    assert [token for token, _ in replies[0].tokens] == ["1", "2"]
    assert len(server.received) == 4 + 4 + 1
    assert len([notice for notice in notices if "no log-probabilities by token id" in notice]) == 1


async def test_vllm_on_the_completions_endpoint() -> None:
    vllm = Vllm(WHOLE)
    listed = {"token_id:11": -0.5, "token_id:12": -3.0, "token_id:21": -1.5, "token_id:22": -9999.0, "token_id:99": -2}
    logprobs = {"tokens": ["token_id:99"], "token_logprobs": [-2], "top_logprobs": [listed]}
    body = {"choices": [{"text": "x", "logprobs": logprobs, "finish_reason": "length"}]}
    with ApiServer(Answer(body), vllm.facts) as server:
        reply, _ = await ask(server, PAIR, endpoint="completions")
    assert reply.is_exhaustive
    assert probs_of(reply) == pytest.approx({"1": math.exp(-0.5) + math.exp(-3), "2": math.exp(-1.5)})
    assert [received.path for received in server.looks].count("/tokenize") == 3, "no chat template to ask about"


@pytest.mark.parametrize("status", [400, 404, 500])
async def test_a_vllm_without_a_tokenizer_to_ask_is_read_by_its_likeliest_tokens(status: int) -> None:
    facts = {**Vllm(WHOLE).facts, "/tokenize": Answer(error_reply("no"), status=status)}
    with ApiServer(Answer(chat_reply()), facts) as server:
        reply, notices = await ask(server, PAIR)
    assert not reply.is_exhaustive
    assert "logprob_token_ids" not in server.received[0].json
    assert notices[0].endswith("is vLLM 0.32.0: log-probabilities of the likeliest tokens")


# --- the other servers: a 10 of two tokens ----------------------------------------------------------------------------


def place(token: str, **alternatives: float) -> dict[str, Any]:
    """One place of a chat reply's logprobs; alternatives are probabilities by token (`_1` is " 1")."""
    probs = {name.removeprefix("t").replace("_", " "): prob for name, prob in alternatives.items()}
    listed = [{"token": name, "logprob": math.log(prob)} for name, prob in probs.items()]
    return {"token": token, "logprob": math.log(probs[token]), "top_logprobs": listed}


def reply_of(*places: dict[str, Any]) -> dict[str, Any]:
    return chat_reply(text="".join(each["token"] for each in places), logprobs={"content": list(places)})


TWO_TOKENS = {"1": {"tokens": [5]}, "10": {"tokens": [5, 4]}}
SERVERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    # what /v1/models says, and what a follow-up holds besides the messages
    "SGLang": ({"owned_by": "sglang", "max_model_len": 4096}, {"continue_final_message": True}),
    "llama.cpp": ({"owned_by": "llamacpp", "meta": {"n_ctx": 512}}, {}),
    "TGI": ({"owned_by": "judge", "created": 0}, {}),
}


def facts_of(name: str, tokens: Mapping[str, Any] = TWO_TOKENS) -> dict[str, Answer | Callable[[Received], Answer]]:
    def tokenize(received: Received) -> Answer:
        said = tokens[received.json[{"SGLang": "prompt", "llama.cpp": "content", "TGI": "inputs"}[name]]]
        return Answer([{"id": token, "text": "?"} for token in said["tokens"]] if name == "TGI" else said)

    return {"/v1/models": lists("judge", **SERVERS[name][0]), "/tokenize": tokenize}


@pytest.mark.parametrize("name", list(SERVERS))
async def test_the_second_token_of_the_reply_tells_about_the_10(name: str) -> None:
    # "10": 0.4 * 0.75 = 0.3, "1": 0.1
    body = reply_of(place("1", t1=0.4, t2=0.2), place("0", t0=0.75, t5=0.1))
    with ApiServer(Answer(body), facts_of(name)) as server:
        reply, notices = await ask(server)
    assert len(server.received) == 1
    assert server.received[0].json["max_tokens"] == 2
    assert not reply.is_exhaustive
    assert probs_of(reply) == pytest.approx({"1": 0.1, "2": 0.2, "10": 0.3})
    assert reply.text == "1"
    assert notices == [
        f"openai:judge: {server.url} is {name}: log-probabilities of the likeliest tokens, replies continued for the 10"
    ]


@pytest.mark.parametrize("name", list(SERVERS))
async def test_a_reply_that_begins_otherwise_is_continued_from_a_1(name: str) -> None:
    def answer(received: Received) -> Answer:
        last = received.json["messages"][-1]
        if last["role"] == "user":
            return Answer(reply_of(place("2", t1=0.4, t2=0.5), place("!", **{"t!": 0.9})))
        assert last == {"role": "assistant", "content": "1"}
        return Answer(reply_of(place(".", **{"t.": 0.5, "t0": 0.25})))

    with ApiServer(answer, facts_of(name)) as server:
        reply, _ = await ask(server)
    assert probs_of(reply) == pytest.approx({"1": 0.3, "2": 0.5, "10": 0.1})
    assert reply.usage == Usage(24, 2, 16), "both calls"
    first, second = server.received
    usual = {"model", "messages", "max_tokens", "temperature", "logprobs", "top_logprobs"}
    assert set(first.json) == usual
    assert {key: value for key, value in second.json.items() if key not in usual} == SERVERS[name][1]
    assert second.json["max_tokens"] == 1


async def test_each_way_to_write_the_1_is_followed() -> None:
    def answer(received: Received) -> Answer:
        last = received.json["messages"][-1]
        if last["role"] == "user":
            return Answer(reply_of(place("1", t1=0.4, t_1=0.2, t2=0.3), place("0", t0=0.5)))
        assert last["content"] == " 1"
        return Answer(reply_of(place("0", t0=0.25)))

    with ApiServer(answer, facts_of("SGLang")) as server:
        reply, _ = await ask(server)
    assert len(server.received) == 2
    assert probs_of(reply) == pytest.approx({"1": 0.2 + 0.15, "2": 0.3, "10": 0.2 + 0.05})


async def test_a_10_that_is_one_token_is_taken_as_it_stands() -> None:
    body = reply_of(place("2", t1=0.4, t2=0.5, t10=0.1), place("!", **{"t!": 0.9}))
    with ApiServer(Answer(body), facts_of("SGLang")) as server:
        reply, _ = await ask(server)
    assert len(server.received) == 1
    assert probs_of(reply) == pytest.approx({"1": 0.4, "2": 0.5, "10": 0.1})


async def test_a_tokenizer_with_a_10_leaves_nothing_to_follow() -> None:
    tokens = {"1": {"tokens": [5]}, "10": {"tokens": [9]}}
    with ApiServer(Answer(chat_reply()), facts_of("llama.cpp", tokens)) as server:
        reply, notices = await ask(server)
    assert [received.json["max_tokens"] for received in server.received] == [1]
    assert probs_of(reply).keys() == {"1", "2"}
    assert notices[0].endswith("is llama.cpp: log-probabilities of the likeliest tokens")


async def test_without_a_word_of_the_tokenizer_no_second_call_is_made() -> None:
    # a 10 of one token that is just not among the likeliest would be given a probability that says nothing of it
    facts = {"/v1/models": lists("judge", owned_by="sglang")}
    with ApiServer(Answer(reply_of(place("2", t1=0.4, t2=0.5))), facts) as server:
        reply, notices = await ask(server)
    assert len(server.received) == 1
    assert candidate_distribution(reply, RATING_LABELS).is_bounded
    assert "cannot be asked to continue a reply" in notices[1]


async def test_a_0_that_is_not_among_the_likeliest_after_the_1_stays_unseen() -> None:
    body = reply_of(place("1", t1=0.4, t2=0.2), place("5", t5=0.9))
    with ApiServer(Answer(body), facts_of("SGLang")) as server:
        reply, notices = await ask(server)
    assert len(server.received) == 1, "another call would list the same tokens"
    assert probs_of(reply) == pytest.approx({"1": 0.4, "2": 0.2})
    assert len(notices) == 1


async def test_a_server_that_refuses_to_continue_leaves_the_10_unseen() -> None:
    def answer(received: Received) -> Answer:
        if received.json["messages"][-1]["role"] == "assistant":
            return Answer(error_reply("Assistant response prefill is incompatible with enable_thinking."), status=400)
        return Answer(reply_of(place("2", t1=0.4, t2=0.5)))

    with ApiServer(answer, facts_of("llama.cpp")) as server:
        async with opened(server) as (backend, notices):
            first, second = await backend.score(RATINGS), await backend.score(RATINGS)
    assert first == second
    assert probs_of(first) == pytest.approx({"1": 0.4, "2": 0.5})
    assert len(notices) == 2
    assert "incompatible with enable_thinking" in notices[1]


async def test_a_fault_of_the_second_call_is_a_fault_of_the_row() -> None:
    def answer(received: Received) -> Answer:
        is_second = received.json["messages"][-1]["role"] == "assistant"
        return Answer(b"oops", status=500) if is_second else Answer(reply_of(place("2", t1=0.4, t2=0.5)))

    with ApiServer(answer, facts_of("SGLang")) as server, pytest.raises(ServerFaultError):
        await ask(server)


@pytest.mark.parametrize("facts", [{}, {"/v1/models": lists("judge", owned_by="library")}], ids=["unknown", "Ollama"])
async def test_a_server_that_cannot_continue_bounds_the_10_and_says_so(facts: dict[str, Answer]) -> None:
    body = reply_of(place("2", t1=0.4, t2=0.5), place("!", **{"t!": 0.9}))
    with ApiServer(Answer(body), facts) as server:
        async with opened(server) as (backend, notices):
            reply = await backend.score(RATINGS)
            await backend.score(RATINGS)
    assert len(server.received) == 2
    assert probs_of(reply) == pytest.approx({"1": 0.4, "2": 0.5})
    assert candidate_distribution(reply, RATING_LABELS).is_bounded
    assert [notice for notice in notices if "10" in notice] == [
        "openai:judge: the server cannot be asked to continue a reply: a label of two tokens, such as 10, is bounded "
        "where it is not seen"
    ]


async def test_an_unknown_server_still_tells_in_its_second_token() -> None:
    body = reply_of(place("1", t1=0.4, t2=0.2), place("0", t0=0.75))
    with ApiServer(Answer(body)) as server:
        reply, notices = await ask(server)
    assert probs_of(reply) == pytest.approx({"1": 0.1, "2": 0.2, "10": 0.3})
    assert notices == []


async def test_on_the_completions_endpoint_the_prompt_goes_on() -> None:
    def answer(received: Received) -> Answer:
        is_second = received.json["prompt"] == "Rate it.1"
        listed = {"0": math.log(0.25), ".": -1.0} if is_second else {"1": math.log(0.4), "2": math.log(0.5)}
        generated = max(listed, key=lambda token: listed[token])
        logprobs = {"tokens": [generated], "token_logprobs": [listed[generated]], "top_logprobs": [listed]}
        return Answer({"choices": [{"text": generated, "logprobs": logprobs, "finish_reason": "length"}]})

    with ApiServer(answer) as server:
        reply, _ = await ask(server, endpoint="completions")
    assert [received.json["prompt"] for received in server.received] == ["Rate it.", "Rate it.1"]
    assert probs_of(reply) == pytest.approx({"1": 0.3, "2": 0.5, "10": 0.1})


async def test_llama_cpp_lists_logprobs_of_completions_as_of_chats() -> None:
    body = {"choices": [{"text": "1", "logprobs": {"content": [place("1", t1=0.4, t2=0.5)]}}]}
    with ApiServer(Answer(body), facts_of("llama.cpp")) as server:
        reply, _ = await ask(server, PAIR, endpoint="completions")
    assert probs_of(reply) == pytest.approx({"1": 0.4, "2": 0.5})


async def test_tgi_says_its_limit_in_words_of_its_own() -> None:
    words = "Input validation error: `top_n_tokens` must be >= 0 and <= 5. Given: 20"

    def answer(received: Received) -> Answer:
        is_many = received.json["top_logprobs"] > 5
        return Answer({"error": words}, status=422) if is_many else Answer(chat_reply())

    with ApiServer(answer, facts_of("TGI")) as server:
        _, notices = await ask(server, PAIR)
    assert [received.json["top_logprobs"] for received in server.received] == [20, 5]
    assert "allows 5 top_logprobs" in notices[1]


async def test_the_value_of_a_row_does_not_depend_on_the_rows_before_it() -> None:
    replies = {
        "a": reply_of(place("2", t1=0.4, t2=0.5, t10=0.05), place("!", **{"t!": 0.9})),
        "b": reply_of(place("2", t1=0.4, t2=0.5), place("!", **{"t!": 0.9})),
        "c": reply_of(place("1", t1=0.4, t2=0.2), place("0", t0=0.75)),
    }

    def answer(received: Received) -> Answer:
        first, last = received.json["messages"][0], received.json["messages"][-1]
        return Answer(replies[first["content"]] if last["role"] == "user" else reply_of(place("0", t0=0.25)))

    seen: list[dict[str, CandidateLogprobs]] = []
    for order in ("abc", "cba", "bac"):
        with ApiServer(answer, facts_of("SGLang")) as server:
            async with opened(server) as (backend, _):
                requests = {
                    name: ScoreRequest((Message("user", (Segment(name, True),)),), RATING_LABELS) for name in order
                }
                seen.append({name: await backend.score(request) for name, request in requests.items()})
    assert seen[0] == seen[1] == seen[2]


# --- looking at servers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fact",
    [
        NOT_FOUND,
        Answer(b"", status=401),
        Answer(b"<html>It works!</html>"),
        Answer(b'{"data": ['),
        Answer({"version": "0.32.0", "data": [{"owned_by": "vllm"}], "pad": "x" * 5 * 2**20}),
        Answer({"version": ["0.32.0"], "data": "vllm"}),
        Answer(fault="reset"),
        Answer({"version": "0.32.0"}, fault="cut"),
        Answer(b"", status=302, headers={"Location": "http://judge.invalid/version"}),
    ],
    ids=["404", "401", "html", "half", "endless", "odd", "reset", "cut", "elsewhere"],
)
async def test_a_server_that_says_nothing_useful_is_unknown_and_asked_all_the_same(fact: Answer) -> None:
    with ApiServer(Answer(chat_reply()), {"/version": fact, "/v1/models": fact}) as server:
        reply, notices = await ask(server, PAIR, api_key=KEY)
    assert [token for token, _ in reply.tokens] == ["1", "2"]
    assert notices == []


async def test_a_server_that_does_not_answer_looks_is_asked_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlaif.backends.openai_connection._LOOK_SECONDS", 0.1)
    with ApiServer(Answer(chat_reply()), {"/version": Answer(fault="hang")}) as server:
        reply, _ = await ask(server, PAIR)
    assert reply.text == "1"


async def test_what_is_beside_v1_is_found_below_a_path_too() -> None:
    with ApiServer(Answer(chat_reply())) as server:
        base = f"{server.url.removesuffix('/v1')}/judges/a/v1?tenant=7"
        with pytest.raises(BackendUnusableError):  # this server has its chats elsewhere
            await ask(server, PAIR, base_urls=[base])
    paths = sorted(received.path for received in server.looks)
    assert paths == [f"/judges/a/{path}?tenant=7" for path in ("v1/chat/completions", "v1/models", "version")]


async def test_a_server_that_is_still_loading_is_looked_at_again() -> None:
    vllm = Vllm(WHOLE)
    is_loading = True

    def version(_: Received) -> Answer:
        return Answer(b"loading", status=503) if is_loading else Answer({"version": "0.32.0"})

    with ApiServer(vllm, {**vllm.facts, "/version": version}) as server:
        async with opened(server) as (backend, notices):
            outcomes = await asyncio.gather(*(backend.score(PAIR) for _ in range(3)), return_exceptions=True)
            assert [type(outcome) for outcome in outcomes] == [ServerFaultError] * 3
            assert len({id(outcome) for outcome in outcomes}) == 3, "the engine writes into each row's own"
            is_loading = False
            assert (await backend.score(PAIR)).is_exhaustive
    assert len(notices) == 1


async def test_nobody_there_is_a_fault_worth_another_attempt() -> None:
    url = f"http://127.0.0.1:{free_port()}/v1"
    async with opened(base_urls=[url]) as (backend, notices):
        with pytest.raises(ServerFaultError, match=url):
            await backend.score(PAIR)
    assert notices == []


async def test_replicas_are_looked_at_each_and_used_alike() -> None:
    vllm = Vllm(SPLIT)
    request = ScoreRequest(MESSAGES, ("1", "2", "10"))
    with ApiServer(vllm, vllm.facts) as one, ApiServer(vllm, vllm.facts) as two:
        async with opened(one, two) as (backend, _):
            for _ in range(6):
                assert probs_of(await backend.score(request))["10"] == pytest.approx(0.325)
            assert [replica.in_flight for replica in backend._connection.replicas] == [0, 0]
    calls = [len(server.received) for server in (one, two)]
    assert sum(calls) == 18
    assert max(calls) - min(calls) <= 4, "first calls and follow-ups go to either"
    for server in (one, two):
        assert [received.path for received in server.looks].count("/version") == 1


async def test_a_call_to_continue_goes_where_fewest_are_in_flight() -> None:
    def answer(received: Received) -> Answer:
        is_second = received.json["messages"][-1]["role"] == "assistant"
        return Answer(reply_of(place("0", t0=0.25)) if is_second else reply_of(place("2", t1=0.4, t2=0.5)))

    def stuck(received: Received) -> Answer:
        is_stuck = received.json["messages"][0]["content"] == "stuck"
        return Answer(fault="hang") if is_stuck else answer(received)

    with ApiServer(stuck, facts_of("SGLang")) as slow, ApiServer(answer, facts_of("SGLang")) as quick:
        async with opened(slow, quick) as (backend, _):
            await backend.score(RATINGS)
            before = len(slow.received), len(quick.received)
            hanging = [
                asyncio.create_task(
                    backend.score(ScoreRequest((Message("user", (Segment("stuck", True),)),), ("1", "2")))
                )
            ]
            while len(slow.received) + len(quick.received) == sum(before):
                await asyncio.sleep(0.01)
            is_stuck_at_slow = len(slow.received) > before[0]
            for _ in range(3):
                await backend.score(RATINGS)
            for task in hanging:
                task.cancel()
    assert is_stuck_at_slow
    assert len(slow.received) == before[0] + 1
    assert len(quick.received) == before[1] + 6


async def test_replicas_that_differ_are_used_for_what_both_can_do() -> None:
    vllm = Vllm(WHOLE)
    with ApiServer(Answer(chat_reply()), vllm.facts) as one, ApiServer(Answer(chat_reply()), facts_of("SGLang")) as two:
        async with opened(one, two) as (backend, notices):
            for _ in range(4):
                assert not (await backend.score(PAIR)).is_exhaustive
    assert notices == ["openai:judge: the replicas differ (SGLang, vLLM 0.32.0); only what all of them can do is used"]


async def test_a_replica_that_is_down_is_taken_to_be_as_the_others() -> None:
    vllm = Vllm(WHOLE)
    with ApiServer(vllm, vllm.facts) as up:
        async with opened(base_urls=[f"http://127.0.0.1:{free_port()}/v1", up.url]) as (backend, _):
            assert (await backend.score(PAIR)).is_exhaustive


async def test_a_404_names_the_models_that_the_server_has() -> None:
    facts = {"/v1/models": lists("jugde", "other\x1b[2J", owned_by="vllm")}
    with ApiServer(Answer(error_reply("The model `judge` does not exist"), status=404), facts) as server:
        with pytest.raises(BackendUnusableError) as caught:
            await ask(server, PAIR)
        assert str(caught.value).endswith("; it lists jugde, other [2J (did you mean 'jugde'?)")
        async with opened(server) as (backend, _):
            with pytest.raises(BackendUnusableError, match="did you mean 'jugde'"):
                await backend.generate(GenerateRequest(MESSAGES, 4))


async def test_a_key_that_a_look_echoes_is_not_shown() -> None:
    facts = {"/version": Answer({"version": f"1 {KEY}"}), "/v1/models": lists(KEY, owned_by="vllm")}
    with ApiServer(Answer(error_reply("no"), status=404), facts) as server:
        async with opened(server, api_key=KEY) as (backend, notices):
            with pytest.raises(BackendUnusableError) as caught:
                await backend.score(PAIR)
    assert KEY not in f"{caught.value} {notices}"
    assert "[key]" in str(caught.value)


async def test_the_hosted_api_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[object] = []

    async def look(*arguments: object) -> None:
        looked.append(arguments)

    async def post(*arguments: object) -> tuple[bytes, str]:
        return json.dumps(chat_reply()).encode(), "there"

    monkeypatch.setattr("rlaif.backends.openai_connection.Connection.look", look)
    monkeypatch.setattr("rlaif.backends.openai_connection.Connection.post", post)
    backend = OpenAIBackend("gpt-4.1-mini", api_key=KEY)
    assert (await backend.score(PAIR)).text == "1"
    await backend.aclose()
    assert looked == []


async def test_a_row_that_is_cancelled_while_learning_does_not_stop_the_others() -> None:
    facts = {"/version": Answer({"version": "1"}, delay=0.1)}
    with ApiServer(Answer(chat_reply()), facts) as server:
        async with opened(server) as (backend, _):
            tasks = [asyncio.create_task(backend.score(PAIR)) for _ in range(3)]
            while not server.looks:
                await asyncio.sleep(0.01)
            tasks[0].cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(outcomes[0], asyncio.CancelledError)
    assert [outcome.text for outcome in outcomes[1:] if isinstance(outcome, CandidateLogprobs)] == ["1", "1"]


async def test_closing_while_learning_leaves_nothing_running() -> None:
    with ApiServer(Answer(chat_reply()), {"/version": Answer(fault="hang")}) as server:
        async with opened(server) as (backend, _):
            task = asyncio.create_task(backend.score(PAIR))
            while not server.looks:
                await asyncio.sleep(0.01)
            await backend.aclose()
            with pytest.raises(asyncio.CancelledError):
                await task


# --- models that reason -----------------------------------------------------------------------------------------------


async def test_a_model_that_refuses_a_temperature_is_asked_without_one() -> None:
    words = "Unsupported value: 'temperature' does not support 0.7 with this model. Only the default (1) is supported."

    def answer(received: Received) -> Answer:
        body = received.json
        if "max_tokens" in body:
            return Answer(
                error_reply("'max_tokens' is not supported; use 'max_completion_tokens' instead."), status=400
            )
        return Answer(error_reply(words), status=400) if "temperature" in body else Answer(chat_reply(text="2"))

    with ApiServer(answer) as server:
        async with opened(server) as (backend, notices):
            request = GenerateRequest(MESSAGES, 9, temperature=0.7, seed=1)
            assert [(await backend.generate(request)).text for _ in range(2)] == ["2", "2"]
    assert len(server.received) == 4
    assert server.received[-1].json == {
        "model": "judge",
        "messages": [{"role": "user", "content": "Rate it."}],
        "max_completion_tokens": 9,
        "seed": 1,
    }
    assert len(notices) == 2
    assert "refuses a temperature" in notices[1]


@pytest.mark.parametrize(
    ("message", "details"),
    [
        ({"content": "", "refusal": None}, {"reasoning_tokens": 64}),
        ({"content": None, "reasoning_content": "Let me see. The"}, None),
        ({"content": None, "reasoning": "Let me see. The"}, None),
    ],
    ids=["OpenAI", "reasoning_content", "reasoning"],
)
async def test_a_completion_spent_on_reasoning_is_an_error_with_a_name(message: Any, details: Any) -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 64, "completion_tokens_details": details}
    body = {"choices": [{"message": message, "finish_reason": "length"}], "usage": usage}
    with ApiServer(Answer(body)) as server:
        async with opened(server) as (backend, _):
            with pytest.raises(RequestRefusedError, match="spent all 64 tokens of the reply on reasoning"):
                await backend.generate(GenerateRequest(MESSAGES, 64))


async def test_an_empty_text_without_reasoning_is_an_answer() -> None:
    with ApiServer(Answer(chat_reply(text="", logprobs=None))) as server:
        async with opened(server) as (backend, _):
            assert (await backend.generate(GenerateRequest(MESSAGES, 4))).text == ""


# --- a server that others wrote ---------------------------------------------------------------------------------------


@contextmanager
def mock_server() -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, str(MOCK), "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.kill()


@pytest.mark.skipif(not MOCK.is_file(), reason="needs ../shared/tools")
async def test_the_shared_server_is_an_unknown_one_and_is_read() -> None:
    with mock_server() as url:
        async with opened(base_urls=[url]) as (backend, notices):
            pair, rated = await backend.score(PAIR), await backend.score(RATINGS)
    assert [token for token, _ in pair.tokens] == ["1", "2"]
    assert probs_of(rated).keys() == {"1", "2"}
    assert [notice for notice in notices if "cannot be asked to continue" not in notice] == []

from __future__ import annotations

import asyncio
import json
import logging
import math
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from email.utils import formatdate
from typing import Any, Literal

import pytest

from rlaif.backends.openai_api import OpenAIBackend
from rlaif.engine.limiter import Limiter
from rlaif.engine.retry import call_with_retries
from rlaif.errors import (
    BackendError,
    BackendTimeoutError,
    BackendUnusableError,
    ConfigError,
    LogprobsUnavailableError,
    MalformedReplyError,
    PromptTooLongError,
    RateLimitedError,
    RequestRefusedError,
    ServerFaultError,
    TransientBackendError,
)
from rlaif.records import GeneratedToken, GenerateRequest, Message, ScoreRequest, Segment, TokenLogprob, Usage
from tests.backends.api_server import ApiServer, lists
from tests.backends.contract import BackendContract
from tests.servers import Answer, Received, chat_reply, error_reply, free_port

KEY = "sk-test-0123456789abcdef"


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.delenv(name, raising=False)


def user(*texts: str) -> tuple[Message, ...]:
    return tuple(Message("user", (Segment(text, True),)) for text in texts)


def question(*texts: str) -> ScoreRequest:
    return ScoreRequest(user(*texts) or user("Which is better?"), ("1", "2"))


@asynccontextmanager
async def opened(*servers: ApiServer, **options: Any) -> AsyncIterator[OpenAIBackend]:
    options = {"base_urls": [server.url for server in servers], "timeout": 60.0, **options}
    backend = OpenAIBackend("judge", **options)
    try:
        yield backend
    finally:
        await backend.aclose()


async def score_against(answer: Any, request: ScoreRequest | None = None, **options: Any) -> Any:
    with ApiServer(answer) as server:
        async with opened(server, **options) as backend:
            return await backend.score(request or question())


async def error_against(answer: Any, **options: Any) -> BackendError:
    with pytest.raises(BackendError) as caught:
        await score_against(answer, **options)
    return caught.value


# --- what is sent, and what is read -----------------------------------------------------------------------------------


async def test_score_asks_the_chat_endpoint_for_one_token_with_its_alternatives() -> None:
    with ApiServer(Answer(chat_reply())) as server:
        async with opened(server, api_key=KEY) as backend:
            request = ScoreRequest(
                (
                    Message("system", (Segment("You are a judge.", True),)),
                    Message("user", (Segment("Compare ", True), Segment("föö 🎈", False))),
                ),
                ("1", "2"),
            )
            reply = await backend.score(request)
    (received,) = server.received
    assert (received.method, received.path) == ("POST", "/v1/chat/completions")
    assert received.headers["authorization"] == f"Bearer {KEY}"
    assert received.headers["content-type"] == "application/json"
    assert received.json == {
        "model": "judge",
        "messages": [
            {"role": "system", "content": "You are a judge."},
            {"role": "user", "content": "Compare föö 🎈"},
        ],
        "max_tokens": 1,
        "temperature": 0,
        "logprobs": True,
        "top_logprobs": 20,
    }
    assert reply.tokens == (TokenLogprob("1", -0.25), TokenLogprob("2", -1.5))
    assert reply.text == "1"
    assert not reply.is_exhaustive
    assert reply.usage == Usage(prompt_tokens=12, completion_tokens=1, cached_tokens=8)


async def test_the_completions_endpoint_gets_text_and_its_dictionary_is_read() -> None:
    logprobs = {
        "tokens": [" 1"],
        "token_logprobs": [-0.5],
        "top_logprobs": [{" 2": -1.25, "\n": -3}],
        "text_offset": [0],
    }
    body = {"choices": [{"index": 0, "text": " 1", "logprobs": logprobs, "finish_reason": "length"}]}
    with ApiServer(Answer(body)) as server:
        async with opened(server, endpoint="completions", top_logprobs=5) as backend:
            reply = await backend.score(question("First.", "Second."))
    (received,) = server.received
    assert received.path == "/v1/completions"
    assert "authorization" not in received.headers
    assert received.json == {
        "model": "judge",
        "prompt": "First.\n\nSecond.",
        "max_tokens": 1,
        "temperature": 0,
        "logprobs": 5,
    }
    assert reply.tokens == (TokenLogprob(" 2", -1.25), TokenLogprob("\n", -3.0), TokenLogprob(" 1", -0.5))
    assert (reply.text, reply.usage) == (" 1", Usage())


async def test_what_stands_in_a_list_of_alternatives() -> None:
    # the generated token is added when it is absent; -9999, -100 and null mean unseen; rounding above 0 is 0
    listed = [("2", -0.75), ("a", -9999.0), ("b", -100), ("c", None), ("d", 1e-6), ("e", 0)]
    reply = await score_against(Answer(chat_reply(listed, token="1", logprob=-2)))
    assert reply.tokens == (
        TokenLogprob("2", -0.75),
        TokenLogprob("d", 0.0),
        TokenLogprob("e", 0.0),
        TokenLogprob("1", -2.0),
    )


async def test_a_generated_token_without_a_computed_logprob_stays_unseen() -> None:
    reply = await score_against(Answer(chat_reply([("2", -0.75)], token="1", logprob=-9999.0)))
    assert reply.tokens == (TokenLogprob("2", -0.75),)


async def test_five_alternatives_are_taken_as_they_come() -> None:
    listed = [(str(number), -float(number)) for number in range(1, 6)]
    reply = await score_against(Answer(chat_reply(listed)))
    assert [token for token, _ in reply.tokens] == ["1", "2", "3", "4", "5"]


async def test_a_model_that_ends_at_once_shows_no_token() -> None:
    reply = await score_against(Answer(chat_reply(text="", logprobs={"content": []}, finish_reason="stop")))
    assert reply.tokens == ()
    assert reply.text == ""


async def test_generate_passes_what_it_is_given_and_reads_every_token() -> None:
    body = chat_reply(text="Because. 2", finish_reason="stop")
    body["choices"][0]["logprobs"]["content"] = [
        {"token": "Because.", "logprob": -0.1, "top_logprobs": [{"token": "Because.", "logprob": -0.1}]},
        {"token": " 2", "logprob": -0.2, "top_logprobs": [{"token": " 1", "logprob": -1.8}]},
        {"token": "1", "logprob": -0.3, "top_logprobs": []},
    ]
    with ApiServer(Answer(body)) as server:
        async with opened(server) as backend:
            generation = await backend.generate(
                GenerateRequest(user("Why?"), max_tokens=512, temperature=0.7, seed=11, labels=("1", "2"))
            )
            await backend.generate(GenerateRequest(user("Why?"), max_tokens=8))
    with_logprobs, without = (received.json for received in server.received)
    assert with_logprobs == {
        "model": "judge",
        "messages": [{"role": "user", "content": "Why?"}],
        "max_tokens": 512,
        "temperature": 0.7,
        "seed": 11,
        "logprobs": True,
        "top_logprobs": 20,
    }
    assert without == {
        "model": "judge",
        "messages": [{"role": "user", "content": "Why?"}],
        "max_tokens": 8,
        "temperature": 0,
    }
    assert (generation.text, generation.finish_reason) == ("Because. 2", "stop")
    assert generation.tokens == (
        GeneratedToken("Because.", ()),  # spells no label: not read
        GeneratedToken(" 2", (TokenLogprob(" 1", -1.8), TokenLogprob(" 2", -0.2))),
        GeneratedToken("1", ()),  # one token alone says nothing of the other label
    )
    assert generation.usage.cached_tokens == 8


async def test_generate_on_the_completions_endpoint() -> None:
    logprobs = {
        "tokens": ["So", " 1", "2"],
        "token_logprobs": [-1.0, -2.0, -3.0],
        "top_logprobs": [{"So": -1.0}, {" 2": -0.5}, None],
    }
    body = {"choices": [{"text": "So 12", "logprobs": logprobs, "finish_reason": "length"}]}
    with ApiServer(Answer(body)) as server:
        async with opened(server, endpoint="completions") as backend:
            generation = await backend.generate(GenerateRequest(user("x"), max_tokens=3, labels=("1", "2")))
    assert generation.tokens == (
        GeneratedToken("So", ()),
        GeneratedToken(" 1", (TokenLogprob(" 2", -0.5), TokenLogprob(" 1", -2.0))),
        GeneratedToken("2", ()),
    )
    assert generation.finish_reason == "length"


@pytest.mark.parametrize(
    "logprobs",
    [
        {"tokens": ["1", "2"], "token_logprobs": [-1.0], "top_logprobs": [{"1": -1.0}, {"2": -1.0}]},
        {"tokens": ["1"], "token_logprobs": [-1.0], "top_logprobs": [["1"]]},
        {"tokens": [1], "token_logprobs": [-1.0], "top_logprobs": [{"1": -1.0}]},
        {"token_logprobs": [-1.0], "top_logprobs": [{"1": -1.0}]},
        {"tokens": ["1"], "token_logprobs": [-1.0], "top_logprobs": [{"1": "-1"}]},
    ],
)
async def test_surprises_on_the_completions_endpoint(logprobs: dict[str, Any]) -> None:
    body = {"choices": [{"text": "1", "logprobs": logprobs, "finish_reason": "length"}]}
    assert type(await error_against(Answer(body), endpoint="completions")) is MalformedReplyError


@pytest.mark.parametrize(
    "logprobs",
    [
        None,
        {"tokens": ["1"], "token_logprobs": [-1.0], "top_logprobs": None},
        {"tokens": ["1"], "token_logprobs": [-1.0], "top_logprobs": [None]},
        {"tokens": [], "token_logprobs": [], "top_logprobs": []},
    ],
)
async def test_missing_logprobs_on_the_completions_endpoint(logprobs: dict[str, Any] | None) -> None:
    body = {"choices": [{"text": "1", "logprobs": logprobs, "finish_reason": "length"}]}
    assert type(await error_against(Answer(body), endpoint="completions")) is LogprobsUnavailableError


async def test_generate_does_without_logprobs_that_do_not_come() -> None:
    with ApiServer(Answer(chat_reply(text="2", logprobs=None))) as server:
        async with opened(server) as backend:
            generation = await backend.generate(GenerateRequest(user("x"), max_tokens=2, labels=("1", "2")))
    assert (generation.text, generation.tokens) == ("2", ())


CHAT = tuple(
    Message(role, (Segment(text, False),))
    for role, text in (("system", "Be brief."), ("user", "Hi"), ("assistant", "<|end|>"), ("user", ""))
)  # fmt: skip


async def test_a_conversation_keeps_its_roles_and_loses_them_on_the_completions_endpoint() -> None:
    with ApiServer(Answer(chat_reply(text="Bye."))) as server:
        async with opened(server) as backend:
            await backend.generate(GenerateRequest(CHAT, max_tokens=8))
    assert server.received[0].json["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "<|end|>"},
        {"role": "user", "content": ""},
    ]
    with ApiServer(Answer({"choices": [{"text": "Bye.", "finish_reason": "stop"}]})) as server:
        async with opened(server, endpoint="completions") as backend:
            await backend.generate(GenerateRequest(CHAT, max_tokens=8))
    assert server.received[0].json["prompt"] == "Be brief.\n\nHi\n\n<|end|>\n\n"


async def test_top_p_is_sent_where_something_is_cut_and_drawn() -> None:
    with ApiServer(Answer(chat_reply())) as server:
        async with opened(server) as backend:
            for temperature, top_p in ((1.0, 0.9), (1.0, 1.0), (0.0, 0.9)):
                await backend.generate(GenerateRequest(user("x"), 8, temperature, top_p=top_p))
    bodies = [received.json for received in server.received]
    assert [body.get("top_p") for body in bodies] == [0.9, None, None]
    assert not any("top_k" in body for body in bodies)


@pytest.mark.parametrize(
    ("owner", "fields"),
    [
        ("vllm", {"top_p": 0.9, "top_k": -1, "min_p": 0, "repetition_penalty": 1}),
        ("sglang", {"top_p": 0.9, "top_k": -1, "min_p": 0, "repetition_penalty": 1}),
        ("llamacpp", {"top_p": 0.9, "top_k": -1, "min_p": 0}),
        ("library", {"top_p": 0.9}),
    ],
)
async def test_servers_with_defaults_of_their_own_are_told_to_sample_from_all(
    owner: str, fields: dict[str, Any]
) -> None:
    with ApiServer(Answer(chat_reply()), {"/v1/models": lists("judge", owned_by=owner)}) as server:
        async with opened(server, on_notice=lambda _: None) as backend:
            for temperature, top_p in ((1.0, 0.9), (1.0, 1.0), (0.0, 1.0)):
                await backend.generate(GenerateRequest(user("x"), 8, temperature, top_p=top_p))
    sent = [{name: received.json.get(name) for name in fields} for received in server.received]
    assert sent == [fields, fields | {"top_p": 1}, dict.fromkeys(fields)]


async def test_a_server_that_refuses_top_p_stops_the_run_and_is_not_asked_without() -> None:
    words = "Unsupported parameter: 'top_p' is not supported with this model."
    with ApiServer(Answer(error_reply(words), status=400)) as server:
        async with opened(server) as backend:
            with pytest.raises(
                BackendUnusableError, match=r"'top_p' is not supported .*leave --top-p at 1 for openai:judge"
            ):
                await backend.generate(GenerateRequest(user("x"), 8, 1.0, top_p=0.9))
            with pytest.raises(RequestRefusedError):
                await backend.generate(GenerateRequest(user("x"), 8, 1.0))
    assert len(server.received) == 2


async def test_a_server_that_refuses_both_is_not_asked_for_top_p_at_its_own_temperature() -> None:
    words = "`temperature` and `top_p` cannot both be specified for this model. Please use only one."
    with ApiServer(Answer(error_reply(words), status=400)) as server:
        async with opened(server) as backend:
            with pytest.raises(BackendUnusableError):
                await backend.generate(GenerateRequest(user("x"), 8, 0.7, top_p=0.9))
    assert len(server.received) == 1


async def test_a_refused_seed_is_left_out_from_then_on() -> None:
    def accepts(body: dict[str, Any]) -> dict[str, Any] | None:
        detail = [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]
        return {"detail": detail} if "seed" in body else None

    notices: list[str] = []
    with ApiServer(learner(accepts)) as server:
        async with opened(server, on_notice=notices.append) as backend:
            for seed in (1, 2):
                await backend.generate(GenerateRequest(user("x"), 8, 1.0, seed))
    assert [received.json.get("seed") for received in server.received] == [1, None, None]
    assert len(notices) == 1
    assert "refuses a seed: what it samples cannot be drawn again" in notices[0]


@pytest.mark.parametrize("endpoint", ["chat", "completions"])
@pytest.mark.parametrize(
    ("text", "reason"), [("Half an ans", "content_filter"), ("Half", "length"), ("", "stop"), ("", "length")]
)
async def test_texts_come_with_their_finish_reason_and_may_be_empty(
    text: str, reason: str, endpoint: Literal["chat", "completions"]
) -> None:
    choice = {"message": {"content": text}} if endpoint == "chat" else {"text": text}
    with ApiServer(Answer({"choices": [{**choice, "finish_reason": reason}]})) as server:
        async with opened(server, endpoint=endpoint) as backend:
            generation = await backend.generate(GenerateRequest(user("x"), 8))
    assert (generation.text, generation.finish_reason) == (text, reason)


async def generation_error(answer: Answer) -> BackendError:
    with ApiServer(answer) as server:
        async with opened(server) as backend:
            with pytest.raises(BackendError) as caught:
                await backend.generate(GenerateRequest(user("x"), 8))
    return caught.value


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            Answer({"choices": [{"message": {"content": None, "refusal": "I can't help."}, "finish_reason": "stop"}]}),
            "I can't help.",
        ),
        (Answer({"choices": [{"message": {"content": ""}, "finish_reason": "content_filter"}]}), "content filter"),
        (
            Answer(error_reply("The response was filtered by the content management policy."), status=400),
            "filtered by the content management policy",
        ),
        (
            Answer(error_reply("Your chosen model requires moderation and your input was flagged"), status=403),
            "your input was flagged",
        ),
    ],
)
async def test_a_refusal_fails_its_call_alone_in_the_providers_words(answer: Answer, words: str) -> None:
    error = await generation_error(answer)
    assert type(error) is RequestRefusedError
    assert words in str(error)


async def test_text_that_no_encoding_can_carry_and_text_of_a_mebibyte_are_sent() -> None:
    with ApiServer(Answer(chat_reply())) as server:
        async with opened(server) as backend:
            await backend.score(question("lone \ud83d, pair \ud83d\ude00, nul \x00"))
            await backend.score(question("x" * 2**20))
    first, second = (received.json["messages"][0]["content"] for received in server.received)
    assert first == "lone \ufffd, pair 😀, nul \x00"
    assert len(second) == 2**20


async def test_extra_fields_are_sent_and_are_part_of_the_identity() -> None:
    extra = {"chat_template_kwargs": {"enable_thinking": False}}
    with ApiServer(Answer(chat_reply())) as server:
        async with opened(server, extra_body=extra) as backend:
            await backend.score(question())
            identity = backend.identity
    assert server.received[0].json["chat_template_kwargs"] == {"enable_thinking": False}
    assert identity["extra_body"] == extra


# --- replies that cannot be used --------------------------------------------------------------------------------------

WHOLE = json.dumps(chat_reply()).encode()
UNREADABLE = {
    "empty": b"",
    "cut": WHOLE[: len(WHOLE) // 2],
    "html": b"<html><body><h1>It works!</h1></body></html>",
    "list": b"[]",
    "null": b"null",
    "number": b"3",
    "not utf-8": b'{"choices": "\xff"}',
    "NaN": WHOLE.replace(b"-0.25", b"NaN"),
    "no choices": b"{}",
    "empty choices": {"choices": []},
    "null choices": {"choices": None},
    "choices of text": {"choices": ["x"]},
    "choice without message": {"choices": [{}]},
    "null message": {"choices": [{"message": None}]},
    "text is a number": chat_reply(text=5),
    "logprobs is a list": chat_reply(logprobs=[1]),
    "logprobs is text": chat_reply(logprobs="x"),
    "content is a mapping": chat_reply(logprobs={"content": {"a": 1}}),
    "content of null": chat_reply(logprobs={"content": [None]}),
    "entry without token": chat_reply(logprobs={"content": [{"logprob": -1}]}),
    "entry without logprob": chat_reply(logprobs={"content": [{"token": "1", "top_logprobs": [{"token": "1"}]}]}),
    "token is a number": chat_reply([(1, -1.0)]),
    "logprob is text": chat_reply([("1", "-1.0")]),
    "logprob is true": chat_reply([("1", True)]),
    "logprob above 0": chat_reply([("1", 0.5)]),
    "alternatives are a number": chat_reply(logprobs={"content": [{"token": "1", "logprob": 0, "top_logprobs": 3}]}),
}


@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE.keys())
async def test_a_body_with_any_surprise_is_malformed_and_shown_in_part(body: Any) -> None:
    error = await error_against(Answer(body))
    assert type(error) is MalformedReplyError
    assert isinstance(error, TransientBackendError)
    assert len(str(error)) < 600
    assert "answered 200 with a body that cannot be read" in str(error)


async def test_a_malformed_generation_is_told_too() -> None:
    with ApiServer(Answer(chat_reply(logprobs={"content": [{"token": 3, "logprob": 0}]}))) as server:
        async with opened(server) as backend:
            with pytest.raises(MalformedReplyError):
                await backend.generate(GenerateRequest(user("x"), max_tokens=1, labels=("1", "2")))


@pytest.mark.parametrize(
    "changes",
    [
        {"logprobs": None},
        {"logprobs": {}},
        {"logprobs": {"content": None}},
        {"logprobs": {"content": []}},
        {"logprobs": {"content": [{"token": "1", "logprob": -0.1, "top_logprobs": []}]}},
        {"logprobs": {"content": [{"token": "1", "logprob": -0.1}]}},
    ],
    ids=["null", "empty", "null content", "empty content", "no alternatives", "alternatives missing"],
)
async def test_a_reply_without_logprobs_says_where_and_what_to_do(changes: dict[str, Any]) -> None:
    with ApiServer(Answer(chat_reply(**changes))) as server:
        async with opened(server) as backend:
            with pytest.raises(LogprobsUnavailableError) as caught:
                await backend.score(question())
    for part in (server.url, "'judge'", "--scoring sample"):
        assert part in str(caught.value)


async def test_logprobs_missing_altogether() -> None:
    body = chat_reply()
    del body["choices"][0]["logprobs"]
    assert isinstance(await error_against(Answer(body)), LogprobsUnavailableError)


async def test_a_content_filter_refuses_the_row() -> None:
    body = chat_reply(text=None, logprobs=None, finish_reason="content_filter")
    assert isinstance(await error_against(Answer(body)), RequestRefusedError)


async def test_a_fault_behind_a_gateway_comes_with_status_200() -> None:
    limited = await error_against(Answer({"error": {"message": "upstream is busy", "code": 429}}))
    assert isinstance(limited, RateLimitedError)
    assert "upstream is busy" in str(limited)
    assert isinstance(await error_against(Answer({"error": "upstream died"})), ServerFaultError)
    own_number = {
        "error": {"message": "upstream died", "code": 1}
    }  # no HTTP status: nothing says that no call can succeed
    assert isinstance(await error_against(Answer(own_number)), ServerFaultError)


# --- refusals and faults ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, error_reply("Invalid value for 'messages'"), RequestRefusedError),
        (413, error_reply("Body too large"), RequestRefusedError),
        (418, b"teapot", RequestRefusedError),
        (422, {"detail": [{"loc": ["body", "messages"], "msg": "Field required"}]}, RequestRefusedError),
        (400, error_reply("too many", code="context_length_exceeded"), PromptTooLongError),
        (
            400,
            error_reply("This model's maximum context length is 2048 tokens. You asked for 3000"),
            PromptTooLongError,
        ),
        (400, error_reply("The prompt (length 99) exceeds the maximum model length of 64"), PromptTooLongError),
        (400, error_reply("the request exceeds the available context size"), PromptTooLongError),
        (401, error_reply("Incorrect API key"), BackendUnusableError),
        (402, error_reply("Insufficient balance"), BackendUnusableError),
        (403, error_reply("Country not supported"), BackendUnusableError),
        (404, error_reply("The model `judge` does not exist"), BackendUnusableError),
        (405, b"Method Not Allowed", BackendUnusableError),
        (302, b"", BackendUnusableError),
        (408, error_reply("Request timeout"), BackendTimeoutError),
        (409, error_reply("Conflict"), ServerFaultError),
        (429, error_reply("Rate limit reached"), RateLimitedError),
        (429, error_reply("You exceeded your current quota", code="insufficient_quota"), BackendUnusableError),
        (500, error_reply("The server had an error"), ServerFaultError),
        (503, b"<html><title>503</title><script>x</script>upstream</html>", ServerFaultError),
        (529, error_reply("Overloaded"), ServerFaultError),
    ],
)
async def test_each_status_is_one_error_of_the_tree(status: int, body: Any, expected: type[BackendError]) -> None:
    error = await error_against(Answer(body, status=status))
    assert type(error) is expected
    assert f"answered {status}: " in str(error)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (error_reply("the server's own words"), "the server's own words"),
        ({"error": "a plain string"}, "a plain string"),
        ({"object": "error", "message": "an older vLLM", "code": 400}, "an older vLLM"),
        ({"detail": "FastAPI"}, "FastAPI"),
        ({"detail": [{"loc": ["body"], "msg": "Field required"}]}, '"msg":"Field required"'),
        ({"error": {"code": "odd"}}, '"code":"odd"'),
        (b"plain text", "plain text"),
        (b"<html><style>p {}</style><p>Bad   Gateway</p></html>", "Bad Gateway"),
        (b"", "nothing more"),
        (error_reply("clear \x1b[2J screen\r\nand\u202e lines"), "clear [2J screen and lines"),
    ],
)
async def test_the_servers_words_reach_the_message_in_one_clean_line(body: Any, words: str) -> None:
    message = str(await error_against(Answer(body, status=400)))
    assert words in message
    assert message.isprintable()


async def test_long_words_are_cut() -> None:
    message = str(await error_against(Answer(error_reply("z" * 5000), status=500)))
    assert message.count("z") == 300


async def test_a_wrong_path_says_what_an_address_looks_like() -> None:
    assert "/v1" in str(await error_against(Answer(error_reply("not found"), status=404)))


async def test_a_redirect_is_not_followed() -> None:
    with ApiServer(Answer(chat_reply())) as other:
        error = await error_against(Answer(b"", status=302, headers={"Location": other.url}), api_key=KEY)
    assert other.received == [], "neither prompt nor key goes to an address nobody gave"
    assert other.url in str(error)


@pytest.mark.parametrize("status", [429, 503, 408])
@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"Retry-After": "-3"}, 0.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "inf"}, None),
        ({"retry-after-ms": "1500", "Retry-After": "2"}, 1.5),
        ({"Retry-After": formatdate(5000030, usegmt=True), "Date": formatdate(5000000, usegmt=True)}, 30.0),
        ({"Retry-After": formatdate(4999999, usegmt=True), "Date": formatdate(5000000, usegmt=True)}, 0.0),
        ({"Retry-After": formatdate(5000000, usegmt=True)}, 0.0),
    ],
)
async def test_retry_after_in_every_form(status: int, headers: dict[str, str], seconds: float | None) -> None:
    error = await error_against(Answer(error_reply("wait"), status=status, headers=headers))
    assert isinstance(error, TransientBackendError)
    assert error.retry_after == seconds


async def test_a_server_that_hangs_is_given_up() -> None:
    error = await error_against(Answer(fault="hang"), timeout=0.1)
    assert isinstance(error, BackendTimeoutError)
    assert "within 0.1 s" in str(error)


async def test_a_reset_connection_is_a_fault_of_the_server() -> None:
    assert type(await error_against(Answer(fault="reset"))) is ServerFaultError


async def test_a_body_that_ends_early_is_malformed() -> None:
    assert type(await error_against(Answer(chat_reply(), fault="cut"))) is MalformedReplyError


async def test_nobody_listening_is_a_fault_that_names_the_address() -> None:
    url = f"http://127.0.0.1:{free_port()}/v1"
    async with opened(base_urls=[url]) as backend:
        with pytest.raises(ServerFaultError, match=url):
            await backend.score(question())


async def test_an_unknown_host_is_a_fault() -> None:
    async with opened(base_urls=["http://judge.invalid/v1"]) as backend:
        with pytest.raises(ServerFaultError, match=r"judge\.invalid"):
            await backend.score(question())


async def test_a_cancelled_call_leaves_nothing_in_flight() -> None:
    with ApiServer([Answer(fault="hang"), Answer(chat_reply())]) as server:
        async with opened(server) as backend:
            task = asyncio.create_task(backend.score(question()))
            while not server.received:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await backend.score(question())).text == "1"
            assert [replica.in_flight for replica in backend._connection.replicas] == [0]


async def test_closing_twice_is_safe_and_so_is_closing_unused() -> None:
    async with opened(base_urls=["http://127.0.0.1:1/v1"]) as backend:
        await backend.aclose()
        await backend.aclose()


async def test_connections_are_kept_and_used_again() -> None:
    with ApiServer(Answer(chat_reply())) as server:
        async with opened(server) as backend:
            for _ in range(20):
                await backend.score(question())
    assert server.connections == 2, "two looks at the server at once, and then no more"


# --- what is learnt from refusals -------------------------------------------------------------------------------------


def learner(accepts: Callable[[dict[str, Any]], dict[str, Any] | None]) -> Callable[[Received], Answer]:
    """A server that answers what `accepts` has nothing against, and refuses the rest with its words."""

    def answer(received: Received) -> Answer:
        refusal = accepts(received.json)
        return Answer(chat_reply()) if refusal is None else Answer(refusal, status=400)

    return answer


async def test_max_completion_tokens_is_learnt_once() -> None:
    def accepts(body: dict[str, Any]) -> dict[str, Any] | None:
        if "max_tokens" not in body:
            return None
        return error_reply("Unsupported parameter: 'max_tokens' is not supported; use 'max_completion_tokens' instead.")

    notices: list[str] = []
    with ApiServer(learner(accepts)) as server:
        async with opened(server, on_notice=notices.append) as backend:
            await asyncio.gather(*(backend.score(question(str(number))) for number in range(5)))
            refused = len(server.received) - 5
            await backend.score(question("later"))
            await backend.generate(GenerateRequest(user("later"), max_tokens=9))
    assert 1 <= refused <= 5
    assert len(server.received) == 5 + refused + 2
    assert server.received[-2].json["max_completion_tokens"] == 1
    assert server.received[-1].json["max_completion_tokens"] == 9
    assert len(notices) == 1


@pytest.mark.parametrize(
    ("words", "limits"),
    [
        ("Invalid value for 'top_logprobs': must be less than or equal to 5.", [20, 5]),
        ("Requested sample logprobs of 20, which is greater than max allowed: 5", [20, 5]),
        ("Invalid 'top_logprobs': above maximum value. Expected a value <= 11, but got 20 instead.", [20, 11]),
        ("logprobs must be between 0 and 8", [20, 8]),
        ("top_logprobs is above the limit", [20, 5]),
    ],
)
async def test_fewer_alternatives_are_asked_for_when_the_server_allows_fewer(words: str, limits: list[int]) -> None:
    def accepts(body: dict[str, Any]) -> dict[str, Any] | None:
        return error_reply(words) if body["top_logprobs"] > limits[-1] else None

    notices: list[str] = []
    with ApiServer(learner(accepts)) as server:
        async with opened(server, on_notice=notices.append) as backend:
            identity = backend.identity
            await backend.score(question())
            await backend.score(question())
            assert backend.identity == identity, "a resumed run must find its journal again"
    assert [received.json["top_logprobs"] for received in server.received] == [*limits, limits[-1]]
    assert len(notices) == 1
    assert f"allows {limits[-1]} top_logprobs" in notices[0]


async def test_concurrent_calls_learn_together() -> None:
    def accepts(body: dict[str, Any]) -> dict[str, Any] | None:
        return error_reply("top_logprobs must be at most 5") if body["top_logprobs"] > 5 else None

    notices: list[str] = []
    with ApiServer(learner(accepts)) as server:
        async with opened(server, on_notice=notices.append) as backend:
            replies = await asyncio.gather(*(backend.score(question(str(number))) for number in range(30)))
    assert len(replies) == 30
    assert len(server.received) <= 60
    assert len(notices) == 1


async def test_refusals_of_one_moment_teach_one_lesson() -> None:
    # the limit is 20 and unsaid: 30 calls refused together must not go on to guess 5
    def accepts(body: dict[str, Any]) -> dict[str, Any] | None:
        return error_reply("top_logprobs is above the maximum") if body["top_logprobs"] > 20 else None

    notices: list[str] = []
    with ApiServer(learner(accepts)) as server:
        async with opened(server, top_logprobs=50, on_notice=notices.append) as backend:
            await asyncio.gather(*(backend.score(question(str(number))) for number in range(30)))
    assert {received.json["top_logprobs"] for received in server.received} == {50, 20}
    assert len(notices) == 1


async def test_a_notice_is_logged_by_default(caplog: pytest.LogCaptureFixture) -> None:
    answers = [Answer(error_reply("top_logprobs must be at most 5"), status=400), Answer(chat_reply())]
    with caplog.at_level(logging.WARNING):
        await score_against(answers)
    assert "allows 5 top_logprobs, not 20" in caplog.text


async def test_a_server_that_keeps_refusing_is_not_asked_for_ever() -> None:
    with ApiServer(Answer(error_reply("top_logprobs must be at most 5"), status=400)) as server:
        async with opened(server, on_notice=lambda _: None) as backend:
            with pytest.raises(RequestRefusedError):
                await backend.score(question())
    assert len(server.received) == 2


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (400, "Unknown parameter: 'logprobs'"),
        (400, "logprobs are not supported with reasoning models"),
        (403, "You are not allowed to request logprobs from this model"),
    ],
)
async def test_a_server_that_refuses_logprobs_as_such(status: int, words: str) -> None:
    error = await error_against(Answer(error_reply(words), status=status))
    assert type(error) is LogprobsUnavailableError
    assert words in str(error)
    assert "--scoring sample" in str(error)


async def test_a_refusal_that_quotes_the_request_is_not_about_logprobs() -> None:
    quoted = {"detail": [{"msg": "role is not valid, max 3", "input": {"logprobs": True, "top_logprobs": 20}}]}
    with ApiServer(Answer(quoted, status=422)) as server:
        async with opened(server) as backend:
            with pytest.raises(RequestRefusedError):
                await backend.score(question())
    assert len(server.received) == 1


# --- replicas ---------------------------------------------------------------------------------------------------------


async def test_a_call_goes_to_the_replica_with_the_fewest_in_flight() -> None:
    with ApiServer(Answer(fault="hang")) as slow, ApiServer(Answer(chat_reply())) as quick:
        async with opened(slow, quick) as backend:
            stuck = asyncio.create_task(backend.score(question("stuck")))
            while not slow.received:
                await asyncio.sleep(0.01)
            for number in range(6):
                await backend.score(question(str(number)))
            stuck.cancel()
    assert (len(slow.received), len(quick.received)) == (1, 6)


async def test_idle_replicas_share_the_calls() -> None:
    with ApiServer(Answer(chat_reply())) as one, ApiServer(Answer(chat_reply())) as two:
        async with opened(one, two) as backend:
            for number in range(10):
                await backend.score(question(str(number)))
    assert (len(one.received), len(two.received)) == (5, 5)


@pytest.fixture
def long_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    """So long that no slow machine sees the end of one."""
    monkeypatch.setattr("rlaif.backends.openai_connection._FIRST_REST", 3600.0)
    monkeypatch.setattr("rlaif.backends.openai_connection._LONGEST_REST", 3600.0)


@pytest.mark.usefixtures("long_rests")
async def test_a_replica_that_is_down_is_passed_over() -> None:
    # it always has the fewest calls in flight, so without a rest it would attract them all
    with ApiServer(Answer(chat_reply(), delay=0.02)) as up:
        async with opened(base_urls=[f"http://127.0.0.1:{free_port()}/v1", up.url]) as backend:
            await asyncio.gather(*(backend.score(question(str(number))) for number in range(4)))
            for number in range(10):
                await backend.score(question(str(number)))
    assert len(up.received) == 14, "found out before the first call"


@pytest.mark.usefixtures("long_rests")
async def test_a_replica_that_goes_down_is_passed_over() -> None:
    goes = [Answer(chat_reply()), Answer(fault="reset")]
    with ApiServer(goes) as down, ApiServer(Answer(chat_reply(), delay=0.02)) as up:
        async with opened(down, up) as backend:
            await backend.score(question())
            outcomes = await asyncio.gather(
                *(backend.score(question(str(number))) for number in range(4)), return_exceptions=True
            )
            assert 1 <= sum(isinstance(outcome, ServerFaultError) for outcome in outcomes) <= 2
            for number in range(10):
                await backend.score(question(str(number)))
    assert len(down.received) + len(up.received) == 15
    assert len(down.received) <= 3


@pytest.mark.usefixtures("long_rests")
async def test_a_replica_behind_a_gateway_that_has_lost_it_is_passed_over() -> None:
    with ApiServer(Answer(b"Bad Gateway", status=502)) as lost, ApiServer(Answer(chat_reply())) as up:
        async with opened(lost, up) as backend:
            with pytest.raises(ServerFaultError):
                await backend.score(question())
            await asyncio.gather(*(backend.score(question(str(number))) for number in range(9)))
    assert (len(lost.received), len(up.received)) == (1, 9)


async def test_when_all_replicas_fail_they_are_still_asked() -> None:
    down = Answer(b"", status=503)
    with ApiServer([down, Answer(chat_reply())]) as one, ApiServer([down, Answer(chat_reply())]) as two:
        async with opened(one, two) as backend:
            for _ in range(2):
                with pytest.raises(ServerFaultError):
                    await backend.score(question())
            assert (await backend.score(question())).text == "1"


# --- settings and secrets ---------------------------------------------------------------------------------------------


def test_what_a_backend_says_of_itself() -> None:
    backend = OpenAIBackend("judge", base_urls=("http://localhost:8000/v1/",))
    assert backend.name == "openai:judge"
    assert backend.identity == {"backend": "openai", "model": "judge", "endpoint": "chat", "top_logprobs": 20}
    capabilities = backend.capabilities
    assert capabilities.has_logprobs
    assert capabilities.has_token_alternatives
    assert not capabilities.is_in_process
    assert backend.count_tokens(user("12345", "678")) == 2
    assert repr(backend) == "OpenAIBackend('judge', base_urls=['http://localhost:8000/v1'])"


async def test_key_and_address_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with ApiServer(Answer(chat_reply())) as server:
        monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\n")
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
        async with opened(base_urls=()) as backend:
            await backend.score(question())
    assert server.received[0].headers["authorization"] == f"Bearer {KEY}"
    assert server.received[0].headers["openai-organization"] == "org-1"


async def test_proxies_are_not_heeded_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    with ApiServer(Answer(chat_reply())) as server, ApiServer(Answer(chat_reply())) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("http_proxy", proxy.url)
        async with opened(server) as backend:
            await backend.score(question())
    assert (len(server.received), len(proxy.received)) == (1, 0)


async def test_a_query_in_the_address_stays_and_is_not_shown() -> None:
    with ApiServer(Answer(b"no", status=500)) as server:
        async with opened(base_urls=[f"{server.url}?api-version=7"]) as backend:
            with pytest.raises(ServerFaultError) as caught:
                await backend.score(question())
    assert server.received[0].path == "/v1/chat/completions?api-version=7"
    assert "api-version" not in str(caught.value)


async def test_openai_itself_needs_a_key_once_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    backend = OpenAIBackend("gpt-4.1-mini")  # as a dry run does
    with pytest.raises(BackendUnusableError, match="set OPENAI_API_KEY"):
        await backend.score(question())


@pytest.mark.parametrize("url", ["localhost:8000/v1", "ftp://host/v1", "http://", "http://[::1/v1", "v1", ""])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="expected an address such as"):
        OpenAIBackend("judge", base_urls=(url,))


def test_secrets_in_addresses_and_broken_keys_are_refused_without_being_shown() -> None:
    with pytest.raises(ConfigError) as in_address:
        OpenAIBackend("judge", base_urls=("http://me:hunter2@host/v1",))
    with pytest.raises(ConfigError) as two_lines:
        OpenAIBackend("judge", base_urls=("http://host/v1",), api_key="hunter2\nX-Other: 1")
    for caught in (in_address, two_lines):
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("status", [200, 401, 429, 500])
async def test_the_key_is_never_shown_whatever_a_server_echoes(status: int) -> None:
    for padding in (0, 250, 290):  # also when the cut goes through the key
        with ApiServer(Answer({"message": f"{'x' * padding} bad key {KEY}"}, status=status)) as server:
            async with opened(server, api_key=KEY) as backend:
                with pytest.raises(BackendError) as caught:
                    await backend.score(question())
                shown = f"{caught.value!s} {caught.value!r} {backend!r} {caught.value.__cause__!r}"
        assert KEY[:10] not in shown


async def test_a_placeholder_key_does_not_garble_messages() -> None:
    assert "EMPTY list" in str(await error_against(Answer(error_reply("EMPTY list"), status=400), api_key="EMPTY"))


def test_neither_openai_nor_torch_is_loaded() -> None:
    code = (
        "import asyncio, sys\n"
        "from rlaif.backends.openai_api import OpenAIBackend\n"
        "from rlaif.errors import ServerFaultError\n"
        "from rlaif.records import Message, ScoreRequest, Segment\n"
        "import rlaif.engine.retry\n"
        "async def main():\n"
        "    backend = OpenAIBackend('judge', base_urls=(sys.argv[1],))\n"
        "    try:\n"
        "        await backend.score(ScoreRequest((Message('user', (Segment('x', True),)),), ('1', '2')))\n"
        "    except ServerFaultError:\n"
        "        print(sorted({'openai', 'httpx', 'torch', 'pandas', 'tenacity'} & set(sys.modules)))\n"
        "    await backend.aclose()\n"
        "asyncio.run(main())\n"
    )
    command = [sys.executable, "-c", code, f"http://127.0.0.1:{free_port()}/v1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


# --- the openai package as the measure --------------------------------------------------------------------------------


async def test_bodies_and_replies_are_those_of_the_openai_client() -> None:
    import openai

    listed = [("1", -0.25), ("2", -1.5), (" 1", -4.0)]
    with ApiServer(Answer(chat_reply(listed))) as server:
        async with openai.AsyncOpenAI(api_key=KEY, base_url=server.url, max_retries=0) as client:
            theirs = await client.chat.completions.create(
                model="judge",
                messages=[{"role": "user", "content": "Which is better?"}],
                max_tokens=1,
                temperature=0,
                logprobs=True,
                top_logprobs=20,
            )
        async with opened(server, api_key=KEY) as backend:
            ours = await backend.score(question())
    their_request, our_request = server.received
    assert our_request.json == their_request.json
    for name in ("authorization", "content-type", "accept"):
        assert our_request.headers[name] == their_request.headers[name]
    assert (our_request.method, our_request.path) == (their_request.method, their_request.path)
    content = theirs.choices[0].logprobs.content if theirs.choices[0].logprobs else None
    assert content is not None
    assert [tuple(token) for token in ours.tokens] == [(top.token, top.logprob) for top in content[0].top_logprobs]
    assert ours.text == theirs.choices[0].message.content
    assert theirs.usage is not None
    assert ours.usage.prompt_tokens == theirs.usage.prompt_tokens
    assert ours.usage.cached_tokens == theirs.usage.prompt_tokens_details.cached_tokens  # type: ignore[union-attr]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 409, 422, 429, 500, 503])
async def test_errors_are_worth_another_attempt_exactly_where_the_openai_client_makes_one(status: int) -> None:
    import openai

    with ApiServer(Answer(error_reply("no"), status=status, headers={"retry-after-ms": "1"})) as server:
        async with openai.AsyncOpenAI(api_key=KEY, base_url=server.url, max_retries=1) as client:
            with pytest.raises(openai.APIStatusError):
                await client.chat.completions.create(model="judge", messages=[{"role": "user", "content": "x"}])
        is_retried_by_them = len(server.received) == 2
        async with opened(server) as backend:
            with pytest.raises(BackendError) as caught:
                await backend.score(question())
    assert isinstance(caught.value, TransientBackendError) is is_retried_by_them


class TestContract(BackendContract):
    """The rules that all backends share, on a server that answers alike to like prompts."""

    @pytest.fixture
    async def backend(self) -> AsyncIterator[OpenAIBackend]:
        def answer(received: Received) -> Answer:
            prompt = received.json["messages"][0]["content"]
            share = 0.1 + 0.8 * (len(prompt.encode()) % 89) / 89
            reply = chat_reply([("1", math.log(share)), ("2", math.log(0.99 - share))], logprob=math.log(share))
            reply["usage"]["prompt_tokens"] = 8 + len(prompt)
            return Answer(reply)

        with ApiServer(answer) as server:
            async with opened(server) as backend:
                yield backend


# --- together with retries and limiter --------------------------------------------------------------------------------


async def test_every_question_is_answered_by_a_server_with_every_fault() -> None:
    faults = [
        Answer(error_reply("slow down"), status=429, headers={"retry-after-ms": "5"}),
        Answer(error_reply("oops"), status=500),
        Answer(WHOLE[: len(WHOLE) // 2]),
        Answer(fault="hang"),
        Answer(fault="reset"),
        Answer(chat_reply(), fault="cut"),
    ]
    asked: dict[bytes, int] = {}

    def answer(received: Received) -> Answer:
        asked[received.payload] = asked.get(received.payload, 0) + 1
        number = int(received.json["messages"][0]["content"])
        is_good = number % 2 == 0 or asked[received.payload] > 1
        return Answer(chat_reply()) if is_good else faults[number // 2 % len(faults)]

    limiter = Limiter(16)
    with ApiServer(answer) as server:
        async with opened(server, timeout=1.0) as backend:

            async def brief_sleep(seconds: float) -> None:
                await asyncio.sleep(seconds / 10)

            async def ask(number: int) -> str | None:
                call = call_with_retries(
                    lambda: backend.score(question(str(number))), max_retries=8, limiter=limiter, sleep=brief_sleep
                )
                return (await call).text

            answers = await asyncio.gather(*(ask(number) for number in range(60)))
    assert answers == ["1"] * 60
    assert sum(asked.values()) >= 90
    assert limiter.in_flight == 0

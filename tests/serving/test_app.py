from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from rlaif.errors import BackendUnusableError, LowLabelMassError, RateLimitedError
from rlaif.records import Candidates, Rating
from tests.serving.conftest import Serve, Served, certain

TOKEN = "a-token-of-the-test"
ITEM = {"prompt": "Name a color.", "response": "Red."}


async def by_length(item: Candidates) -> Rating:
    """As many points as the response has letters."""
    return certain(len(item.responses[0]))


async def eventually(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


# --- answers ----------------------------------------------------------------------------------------------------------


async def test_scores_come_in_the_order_of_the_items(serve: Serve) -> None:
    served = await serve(by_length)
    items = [{"prompt": "?", "response": "x" * length} for length in (10, 1, 10, 4)]
    status, reply = await served.post({"items": items})
    assert status == 200
    assert [item["rating"] for item in reply["items"]] == [10, 1, 10, 4]
    assert [item["reward"] for item in reply["items"]] == [1, -1, 1, pytest.approx(-1 / 3)]  # (4 - 5.5) / 4.5
    assert reply["items"][3]["rating_probs"] == [0, 0, 0, 1, 0, 0, 0, 0, 0, 0]


async def test_a_reward_models_rewards_have_no_rating(serve: Serve) -> None:
    async def rate(item: Candidates) -> Rating:
        return Rating(None, own_score=-2.0)

    served = await serve(rate)
    _, reply = await served.post({"items": [{"prompt": "a", "response": "b"}]})
    assert reply == {"items": [{"reward": -2.0, "rating": None, "rating_probs": None}]}
    _, reply = await served.post({"query": ["ab"], "prompts": ["a"], "labels": [""]}, "/get_reward")
    # 1 / (1 + exp(2)) = 0.1192029
    assert reply == {"rewards": [-2.0], "scores": [pytest.approx(0.1192029)], "extra_logs": {}}


async def test_a_prompt_may_be_a_conversation(serve: Serve) -> None:
    seen: list[Candidates] = []

    async def rate(item: Candidates) -> Rating:
        seen.append(item)
        return certain(5)

    served = await serve(rate)
    prompt = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    await served.post({"items": [{"prompt": prompt, "response": {"role": "assistant", "content": "Hello"}}]})
    assert [tuple(turn) for turn in seen[0].prompt] == [("system", "Be brief."), ("user", "Hi")]
    assert seen[0].responses == ("Hello",)
    assert seen[0].is_conversational


async def test_openrlhf_gets_rewards_and_scores(serve: Serve) -> None:
    served = await serve(by_length)
    body = {"query": ["Q: sky?\nA: blue!!<|im_end|>"], "prompts": ["Q: sky?\nA: "], "labels": ["blue"]}
    status, reply = await served.post(body, "/get_reward")
    assert status == 200
    # "blue!!" has 6 letters: reward (6 - 5.5) / 4.5 = 1/9, on a scale from 0 to 1 it is 5/9.
    assert reply == {"rewards": [pytest.approx(1 / 9)], "scores": [pytest.approx(5 / 9)], "extra_logs": {}}


async def test_openrlhf_sends_nothing_to_further_servers(serve: Serve) -> None:
    served = await serve(by_length)
    assert await served.post({"query": [], "prompts": [], "labels": []}, "/get_reward") == (200, {"rewards": []})


async def test_a_query_without_a_prompt_is_rated_whole(serve: Serve) -> None:
    served = await serve(by_length)
    assert (await served.post({"query": ["Yes"]}, "/get_reward"))[1]["rewards"] == [pytest.approx(-2.5 / 4.5)]


async def test_llama_factory_gets_scores(serve: Serve) -> None:
    served = await serve(by_length)
    body = {"model": "any", "messages": ["0123456789"]}
    assert await served.post(body, "/v1/score/evaluations") == (200, {"scores": [1]})


# --- requests that are refused ----------------------------------------------------------------------------------------

REFUSED: list[tuple[bytes, int, str]] = [
    (b"", 400, "the body is not JSON"),
    (b'{"items": [', 400, "the body is not JSON"),
    (b"[" * 100_000, 400, "the body is not JSON"),
    (b'{"items": "\xff"}', 400, "the body is not JSON"),
    (b"[]", 422, "the body is a list of 0, expected an object"),
    (b"{}", 422, "items: is missing, expected a list of {prompt, response}"),
    (b'{"items": {"prompt": 1}}', 422, "items: is an object with prompt, expected a list"),
    (b'{"items": [7]}', 422, "items[0]: is 7, expected {prompt, response}"),
    (b'{"items": [{"prompt": "a", "response": "b"}, {"prompt": "a"}]}', 422, "items[1]: is an object with prompt"),
    (b'{"items": [{"prompt": 5, "response": "b"}]}', 422, "items[0].prompt: is 5, expected a text or a list"),
    (b'{"items": [{"prompt": [], "response": "b"}]}', 422, "items[0].prompt: is an empty list"),
    (b'{"items": [{"prompt": ["a"], "response": "b"}]}', 422, "items[0].prompt[0]: is 'a', expected {role, content}"),
    (b'{"items": [{"prompt": [{"role": "god", "content": ""}], "response": ""}]}', 422, "items[0].prompt[0].role"),
    (b'{"items": [{"prompt": "a", "response": null}]}', 422, "items[0].response: is null"),
    (b'{"items": [{"prompt": "a", "response": {"role": "user", "content": ""}}]}', 422, "ends with a message of user"),
    (b'{"items": [1, 2, 3, 4, 5]}', 413, "items holds 5, expected at most 4"),
    (b'{"items": "' + b"x" * 2000 + b'"}', 413, "larger than 1000 bytes"),
]


@pytest.mark.parametrize(("body", "status", "words"), REFUSED)
async def test_a_body_is_refused_with_what_and_where(serve: Serve, body: bytes, status: int, words: str) -> None:
    served = await serve(by_length, max_items=4, max_body=200_000 if body[:2] == b"[[" else 1000)
    answered, reply = await served.send(body)
    assert (answered, words in reply["error"]["message"]) == (status, True), reply
    assert (await served.post({"items": [ITEM]}))[0] == 200  # on the same connection


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"prompts": ["a"]}, "query: is missing"),
        ({"query": ["a"], "prompts": ["a", "b"]}, "prompts: is a list of 2, expected one for each of 1 queries"),
        ({"query": [1]}, "query[0]: is 1, expected a text"),
        ({"query": ["a"], "prompts": [None]}, "prompts[0]: is null, expected a text"),
        ({"query": ["b c"], "prompts": ["a"]}, "query[0].query: does not begin with its prompt"),
    ],
)
async def test_an_openrlhf_body_is_refused(serve: Serve, body: dict[str, Any], words: str) -> None:
    served = await serve(by_length)
    status, reply = await served.post(body, "/get_reward")
    assert (status, reply["error"]["name"]) == (422, "InputError")
    assert words in reply["error"]["message"]


async def test_a_body_without_a_length_is_counted_as_it_comes(serve: Serve) -> None:
    served = await serve(by_length, max_body=1000)

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield b"x" * 100

    status, reply = await served.send(chunks())
    assert (status, reply["error"]["name"]) == (413, "BodyTooLarge")


async def test_compressed_bodies_and_web_pages_are_refused(serve: Serve) -> None:
    served = await serve(by_length)
    body = json.dumps({"items": [ITEM]}).encode()
    assert (await served.send(gzip.compress(body), headers={"Content-Encoding": "gzip"}))[0] == 415
    assert (await served.send(body, headers={"Origin": "http://evil.example"}))[0] == 403


async def test_other_paths_and_methods(serve: Serve) -> None:
    served = await serve(by_length)
    status, reply = await served.post({}, "/v1/chat/completions")
    assert status == 404
    assert reply["error"]["message"] == (
        "Not Found; POST to /score, /get_reward, /v1/score/evaluations, /healthz, /metrics"
    )
    assert (await served.get("/score"))[0] == 405


# --- who may ask ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer"}, 401),
        ({"Authorization": f"Bearer {TOKEN}x"}, 401),
        ({"Authorization": f"Bearer {TOKEN[:-1]}"}, 401),
        ({"Authorization": "Bearer \xe4"}, 401),
        ({"Authorization": "Basic %%%"}, 401),
        ({"Authorization": TOKEN}, 401),
        ({"Authorization": f"Bearer {TOKEN}"}, 200),
        ({"authorization": f"bearer {TOKEN}"}, 200),
    ],
)
async def test_the_token_is_asked_for(serve: Serve, headers: dict[str, str], status: int) -> None:
    served = await serve(by_length, token=TOKEN)
    async with served.session.post(f"{served.url}/score", json={"items": [ITEM]}, headers=headers) as response:
        assert response.status == status
        if status == 401:
            assert response.headers["WWW-Authenticate"] == "Bearer"
            assert TOKEN not in await response.text()


async def test_a_trainer_with_nothing_but_a_url_sends_the_token_as_a_password(serve: Serve) -> None:
    served = await serve(by_length, token=TOKEN)
    url = served.url.replace("http://", f"http://rlaif:{TOKEN}@")
    async with served.session.post(f"{url}/get_reward", json={"query": ["a"]}) as response:
        assert response.status == 200


async def test_probes_need_no_token(serve: Serve) -> None:
    served = await serve(by_length, token=TOKEN)
    assert await served.get("/healthz") == (200, '{"status":"ok","judge":"fake:test"}')
    assert (await served.get("/metrics"))[0] == 200


# --- the judge fails --------------------------------------------------------------------------------------------------


async def test_a_failed_judgement_is_an_error_and_its_siblings_are_not_asked_again(serve: Serve) -> None:
    asked: list[str] = []

    async def rate(item: Candidates) -> Rating:
        asked.append(item.responses[0])
        if item.responses[0] == "bad" and len(asked) < 4:
            raise LowLabelMassError("the scores hold 0.1 % of the probability")
        return certain(3)

    served = await serve(rate)
    body = {"items": [{"prompt": "?", "response": response} for response in ("a", "bad", "c")]}
    status, reply = await served.post(body)
    assert status == 503
    assert reply == {
        "error": {
            "name": "LowLabelMassError",
            "message": "items[1]: the scores hold 0.1 % of the probability",
            "item": 1,
        }
    }
    assert (await served.post(body))[0] == 200
    assert asked == ["a", "bad", "c", "bad"]
    assert served.messages == ["LowLabelMassError: items[1]: the scores hold 0.1 % of the probability"]


async def test_a_busy_judge_says_when_to_come_back(serve: Serve) -> None:
    async def rate(item: Candidates) -> Rating:
        raise RateLimitedError("too many calls", retry_after=7.0)

    served = await serve(rate)
    async with served.session.post(f"{served.url}/score", json={"items": [ITEM]}) as response:
        assert (response.status, response.headers["Retry-After"]) == (503, "7")


async def test_an_unusable_judge_shows_in_healthz_until_it_rates_again(serve: Serve) -> None:
    is_down = True

    async def rate(item: Candidates) -> Rating:
        if is_down and item.responses[0] != "known":
            raise BackendUnusableError("401: wrong key")
        return certain(3)

    served = await serve(rate)
    known = {"items": [{**ITEM, "response": "known"}]}
    assert (await served.post(known))[0] == 200
    status, reply = await served.post({"items": [ITEM]})
    assert (status, reply["error"]["name"]) == (503, "BackendUnusableError")
    assert (await served.post(known))[0] == 200  # from memory, which says nothing of the judge
    status, text = await served.get("/healthz")
    assert (status, json.loads(text)["status"]) == (503, "unusable")
    is_down = False
    await served.post({"items": [ITEM]})
    assert (await served.get("/healthz"))[0] == 200


async def test_a_slow_judge_is_given_up_at_the_deadline(serve: Serve) -> None:
    async def rate(item: Candidates) -> Rating:
        await asyncio.Event().wait()
        raise AssertionError

    served = await serve(rate, deadline=0.2)
    status, reply = await served.post({"items": [ITEM]})
    assert (status, reply["error"]["name"]) == (503, "BackendTimeoutError")
    await eventually(lambda: served.queue.counts.cancelled == 1)
    assert served.queue.in_flight == 0


async def test_a_fault_of_ours_tells_no_words(serve: Serve) -> None:
    async def rate(item: Candidates) -> Rating:
        raise KeyError("words of a prompt")

    served = await serve(rate)
    status, reply = await served.post({"items": [ITEM]})
    assert (status, reply["error"]) == (500, {"name": "InternalError", "message": "a fault of the server: KeyError"})
    assert [type(fault) for fault in served.faults] == [KeyError]


async def test_no_answer_and_no_line_holds_the_token(serve: Serve) -> None:
    async def rate(item: Candidates) -> Rating:
        raise BackendUnusableError(f"refused: Bearer {TOKEN}")

    served = await serve(rate, token=TOKEN)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    _, reply = await served.post({"items": [ITEM]}, headers=headers)
    texts = [json.dumps(reply), *served.messages, (await served.get("/healthz"))[1], (await served.get("/metrics"))[1]]
    assert "refused: Bearer [secret]" in texts[0]
    assert not any(TOKEN in text for text in texts)


# --- many clients -----------------------------------------------------------------------------------------------------


class Gate:
    """A judge that answers when it is told to."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self.asked: list[str] = []

    async def __call__(self, item: Candidates) -> Rating:
        self.asked.append(item.responses[0])
        await self.opened.wait()
        return certain(7)


async def test_equal_items_in_flight_are_asked_once(serve: Serve) -> None:
    gate = Gate()
    served = await serve(gate)
    posts = [asyncio.ensure_future(served.post({"items": [ITEM, ITEM]})) for _ in range(10)]
    await eventually(lambda: served.queue.counts.shared == 19)
    gate.opened.set()
    assert [status for status, _ in await asyncio.gather(*posts)] == [200] * 10
    assert gate.asked == ["Red."]
    assert (await served.post({"items": [ITEM]}))[0] == 200
    assert (gate.asked, served.queue.counts.cache_hits) == (["Red."], 1)


def post_numbered(served: Served, number: int) -> asyncio.Future[tuple[int, Any]]:
    return asyncio.ensure_future(served.post({"items": [{"prompt": "?", "response": str(number)}]}))


async def test_a_full_queue_says_when_to_come_back(serve: Serve) -> None:
    gate = Gate()
    served = await serve(gate, width=2, queue=3, max_items=3)
    posts = [post_numbered(served, number) for number in range(5)]
    await eventually(lambda: (served.queue.in_flight, served.queue.depth) == (2, 3))
    async with served.session.post(f"{served.url}/score", json={"items": [ITEM]}) as response:
        assert (response.status, response.headers["Retry-After"]) == (429, "1")
        assert (await response.json())["error"]["message"] == "3 items wait for the judge; try again in 1 s"
    joining = post_numbered(served, 0)  # asks nothing new
    gate.opened.set()
    assert [status for status, _ in await asyncio.gather(*posts, joining)] == [200] * 6
    assert (await served.post({"items": [ITEM]}))[0] == 200


async def test_a_client_that_leaves_takes_its_items_along_but_not_those_of_others(serve: Serve) -> None:
    gate = Gate()
    served = await serve(gate)
    async with aiohttp.ClientSession() as leaving:
        body = {"items": [{"prompt": "?", "response": response} for response in ("own", "shared")]}
        post = asyncio.ensure_future(leaving.post(f"{served.url}/score", json=body))
        await eventually(lambda: len(gate.asked) == 2)
        staying = asyncio.ensure_future(served.post({"items": [{"prompt": "?", "response": "shared"}]}))
        await eventually(lambda: served.queue.counts.shared == 1)
        post.cancel()
        await eventually(lambda: served.queue.counts.cancelled == 1)
    assert served.queue.in_flight == 1
    gate.opened.set()
    assert (await staying)[0] == 200
    assert gate.asked == ["own", "shared"]
    assert 'rlaif_requests_total{path="/score",status="499"} 1.0' in (await served.get("/metrics"))[1]


async def test_metrics_count_and_hold_no_words(serve: Serve) -> None:
    async def rate(item: Candidates) -> Rating:
        if item.responses[0] == "bad":
            raise LowLabelMassError("secret words")
        return certain(3)

    served = await serve(rate)
    for response in ("good", "good", "bad"):
        await served.post({"items": [{"prompt": "a private prompt", "response": response}]})
    await served.post({}, "/a-private-path")
    _, text = await served.get("/metrics")
    for line in (
        "rlaif_items_rated_total 1.0",
        "rlaif_cache_hits_total 1.0",
        'rlaif_failures_total{error="LowLabelMassError"} 1.0',
        'rlaif_requests_total{path="/score",status="200"} 2.0',
        'rlaif_requests_total{path="/score",status="503"} 1.0',
        'rlaif_requests_total{path="other",status="404"} 1.0',
        'rlaif_request_seconds_count{path="/score"} 3.0',
        "rlaif_items_in_flight 0.0",
        "rlaif_queue_depth 0.0",
    ):
        assert line in text.splitlines()
    assert "private" not in text
    assert "words" not in text


# --- the end ----------------------------------------------------------------------------------------------------------


async def test_draining_finishes_what_is_in_flight_and_refuses_the_rest(serve: Serve) -> None:
    gate = Gate()
    served = await serve(gate)
    post = post_numbered(served, 1)
    await eventually(lambda: gate.asked)
    served.stop.set()
    await eventually(lambda: served.messages)
    status, reply = await served.post({"items": [ITEM]})
    assert (status, reply["error"]["name"]) == (503, "Draining")
    assert json.loads((await served.get("/healthz"))[1])["status"] == "draining"
    gate.opened.set()
    assert (await post)[0] == 200
    await asyncio.wait_for(served.finished, 10)


async def test_what_is_not_done_in_time_is_a_clean_error(serve: Serve) -> None:
    served = await serve(Gate(), drain=0.2)
    post = post_numbered(served, 1)
    await eventually(lambda: served.queue.in_flight == 1)
    served.stop.set()
    status, reply = await post
    assert (status, reply["error"]["message"]) == (503, "the server stopped before the judge had answered")
    await asyncio.wait_for(served.finished, 10)
    assert "stopped with requests unanswered after 0.2 s: 1" in served.messages

from __future__ import annotations

import pytest

from rlaif.data.completions import candidates_of
from rlaif.errors import (
    BackendError,
    BackendUnusableError,
    ConfigError,
    MalformedReplyError,
    RequestRefusedError,
    RlaifError,
    ServerFaultError,
)
from rlaif.records import Rating
from rlaif.rewards import trl_reward
from rlaif.rewards.raters import rate_each
from rlaif.rewards.remote import RemoteRater
from tests.servers import Answer, Received, ScriptedServer, free_port

PROBS = [0.0] * 9 + [1.0]
GOOD = Answer({"items": [{"reward": 1, "rating": 10, "rating_probs": PROBS}]})
NO_WAIT = {"Retry-After": "0"}


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlaif.engine.retry.FIRST_WAIT", 0.0)
    for name in ("RLAIF_JUDGE", "RLAIF_URL", "RLAIF_TOKEN"):
        monkeypatch.delenv(name, raising=False)


def error(status: int, name: str, **headers: str) -> Answer:
    return Answer({"error": {"name": name, "message": "words"}}, status=status, headers=headers)


async def test_items_are_posted_one_each_with_the_token() -> None:
    with ScriptedServer(GOOD) as server:
        rater = RemoteRater(server.url, "the-token")
        outcomes = await rater.rate_all([candidates_of("a", "b"), candidates_of("a", "c")])
        assert outcomes == [Rating(tuple(PROBS))] * 2
        assert {received.headers["authorization"] for received in server.received} == {"Bearer the-token"}
        assert {received.path for received in server.received} == {"/v1/score"}
        assert sorted(received.json["items"][0]["response"] for received in server.received) == ["b", "c"]
        assert len(server.received[0].json["items"]) == 1


async def test_a_reward_models_reward_comes_without_a_rating() -> None:
    with ScriptedServer(Answer({"items": [{"reward": -2.5, "rating": None, "rating_probs": None}]})) as server:
        (outcome,) = await RemoteRater(server.url).rate_all([candidates_of("a", "b")])
    assert outcome == Rating(None, own_score=-2.5)


@pytest.mark.parametrize(
    ("answer", "expected", "calls"),
    [
        (error(503, "LowLabelMassError"), BackendError, 1),  # judged, and not again for the asking
        (error(503, "BackendUnusableError"), BackendUnusableError, 1),
        (error(401, "Unauthorized"), BackendUnusableError, 1),
        (error(422, "InputError"), RequestRefusedError, 1),
        (Answer(b"<html>", status=502), ServerFaultError, 7),
        (Answer({"items": []}), MalformedReplyError, 7),
        (Answer({"items": [{"rating_probs": [1]}]}), MalformedReplyError, 7),
        (Answer({"items": [{"rating_probs": None, "reward": None}]}), MalformedReplyError, 7),
        (Answer(GOOD.payload, fault="cut"), ServerFaultError, 7),
    ],
)
async def test_what_is_no_rating_is_an_error(answer: Answer, expected: type[RlaifError], calls: int) -> None:
    with ScriptedServer(answer) as server:
        (outcome,) = await RemoteRater(server.url).rate_all([candidates_of("a", "b")])
        assert type(outcome) is expected
        assert len(server.received) == calls


async def test_a_full_queue_and_a_server_that_stops_are_waited_for() -> None:
    answers = [error(429, "QueueFull", **NO_WAIT), error(503, "Draining", **NO_WAIT), GOOD]
    with ScriptedServer(answers) as server:
        (outcome,) = await RemoteRater(server.url).rate_all([candidates_of("a", "b")])
    assert outcome == Rating(tuple(PROBS))


async def test_nobody_listens() -> None:
    (outcome,) = await RemoteRater(f"http://127.0.0.1:{free_port()}").rate_all([candidates_of("a", "b")])
    assert isinstance(outcome, ServerFaultError)


async def test_one_failure_takes_no_other_along_and_a_wrong_token_all() -> None:
    def answer(received: Received) -> Answer:
        response = received.json["items"][0]["response"]
        return {"bad": error(503, "LowLabelMassError"), "gone": error(401, "Unauthorized")}.get(response, GOOD)

    with ScriptedServer(answer) as server:
        reward = trl_reward(url=server.url, token="the-token")
        assert await reward(prompts=["a", "a"], completions=["good", "bad"]) == [1.0, None]
        with pytest.raises(BackendUnusableError):
            await rate_each(RemoteRater(server.url), [candidates_of("a", "gone")])


def test_a_url_is_checked_before_training() -> None:
    with pytest.raises(ConfigError, match="expected http://HOST:PORT"):
        trl_reward(url="127.0.0.1:8400")

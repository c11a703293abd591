from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from rlaif.backends.fake import FakeBackend
from rlaif.data.completions import candidates_of
from rlaif.engine.judges import askers_for, judgings_for
from rlaif.engine.rows import rating_panel
from rlaif.errors import (
    BackendUnusableError,
    LabelsUnseenError,
    LogprobsUnavailableError,
    PromptError,
    PromptTooLongError,
    RequestRefusedError,
    RlaifError,
)
from rlaif.judge.rating import RatingJudge
from rlaif.records import Candidates, Rating
from rlaif.rewards.judging import Asking, PatientPanel, all_of
from tests.rewards.rollouts import rater, settings


def panel(backend: FakeBackend) -> PatientPanel[Candidates, tuple[Rating, ...]]:
    config = settings()
    counts, askers = askers_for(config, [backend])
    asking = Asking(config.calls, counts, 0, pytest.fail)
    return PatientPanel("j", judgings_for(RatingJudge, config, askers), rating_panel, candidates_of("?", "!"), asking)


def fails_with(error: Callable[[str], RlaifError | None]) -> FakeBackend:
    """Rates 10, or fails with what is made of the response."""

    def probs(response: str) -> dict[int, float]:
        if (raised := error(response)) is not None:
            raise raised
        return {10: 1.0}

    return rater(probs)


async def judge(panel: PatientPanel[Candidates, tuple[Rating, ...]], *responses: str) -> list[str]:
    """The outcomes of a prompt's responses, as text."""
    outcomes = await panel.judge([candidates_of("Why?", response) for response in responses])
    return ["rated" if isinstance(outcome, tuple) else outcome.error_name for outcome in outcomes]


async def test_errors_of_one_row_are_values() -> None:
    backend = fails_with(lambda response: RequestRefusedError("no") if response == "bad" else None)
    assert await judge(panel(backend), "good", "bad", "") == ["rated", "RequestRefusedError", "rated"]


@pytest.mark.parametrize(
    ("error", "raised", "words"),
    [
        (RequestRefusedError("no"), BackendUnusableError, "j: nothing has succeeded, stopped: no"),
        (PromptError("no"), PromptError, "no"),
    ],
)
async def test_when_the_first_three_prompts_are_refused_all_will_be(
    error: RlaifError, raised: type[RlaifError], words: str
) -> None:
    asked = panel(fails_with(lambda _: error))
    for response in "ab":
        assert await judge(asked, response, response * 2) == [error.error_name] * 2
    with pytest.raises(raised, match=words):
        await judge(asked, "c")


@pytest.mark.parametrize("error", [PromptTooLongError("no"), LabelsUnseenError("no")])
async def test_what_lies_with_the_responses_does_not_stop_the_run(error: RlaifError) -> None:
    asked = panel(fails_with(lambda _: error))
    for response in "abcde":
        assert await judge(asked, response) == [error.error_name]


async def test_refusals_after_a_success_and_of_later_prompts_do_not_stop_the_run() -> None:
    asked = panel(fails_with(lambda response: None if response == "good" else RequestRefusedError("no")))
    assert await judge(asked, "bad", "good") == ["RequestRefusedError", "rated"]
    for response in "abcde":
        assert await judge(asked, response) == ["RequestRefusedError"]


async def test_a_server_without_logprobs_stops_the_run_at_once() -> None:
    with pytest.raises(BackendUnusableError, match="nothing has succeeded, stopped: none there"):
        await judge(panel(fails_with(lambda _: LogprobsUnavailableError("none there"))), "a")


async def test_a_wrong_key_stops_the_run_at_once() -> None:
    with pytest.raises(BackendUnusableError, match="401"):
        await judge(panel(fails_with(lambda response: BackendUnusableError("401") if response == "b" else None)), "b")


async def test_all_of_cancels_the_others_when_one_raises() -> None:
    ended: list[str] = []

    async def long() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async def wrong() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        await all_of([long(), wrong(), long()])
    assert ended == ["cancelled"] * 2
    assert await all_of([asyncio.sleep(0, 1), asyncio.sleep(0, 2)]) == [1, 2]

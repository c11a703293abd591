from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from rlaif.errors import BackendUnusableError, JudgmentError, ServerFaultError
from rlaif.rewards import patience
from rlaif.rewards.patience import Patience


class Judge:
    """Answers while `is_up`, but for the rows in `poison`.

    Attributes:
        asked: What was asked, "?" for the plain question.
        ups: For each plain question in turn, whether the judge is up from then on; the last stays.
    """

    def __init__(self, *ups: bool, poison: str = "") -> None:
        self.asked: list[str] = []
        self.is_up = ups[0]
        self._ups = iter(ups)
        self._poison = poison

    async def probe(self) -> None:
        self.is_up = next(self._ups, self.is_up)
        await self.answer("?")

    async def answer(self, row: str) -> str:
        self.asked.append(row)
        await asyncio.sleep(0)
        if not self.is_up or row in self._poison:
            raise ServerFaultError("no answer")
        return row.upper()


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_WAIT", 0.001)
    monkeypatch.setattr(patience, "LONGEST_WAIT", 0.002)


async def test_a_judge_that_is_up_is_just_asked(warnings: list[str]) -> None:
    judge = Judge(True)
    assert await Patience("j", judge.probe, 1, warnings.append).call(lambda: judge.answer("a")) == "A"
    assert (judge.asked, warnings) == (["a"], [])


async def test_an_outage_is_waited_for_by_all_and_said_once(warnings: list[str]) -> None:
    judge = Judge(False, False, False, True)
    waiting = Patience("j", judge.probe, 60, warnings.append)
    assert await asyncio.gather(*(waiting.call(lambda row=row: judge.answer(row)) for row in "abc")) == ["A", "B", "C"]
    assert judge.asked == ["a", "b", "c", "?", "?", "?", "?", "a", "b", "c"]  # asks the plain question, and no other
    assert warnings == ["j is down (no answer); waiting for it up to 60 s"]


async def test_whoever_comes_during_an_outage_does_not_ask(warnings: list[str]) -> None:
    judge = Judge(False, False, True)
    waiting = Patience("j", judge.probe, 60, warnings.append)
    first = asyncio.ensure_future(waiting.call(lambda: judge.answer("a")))
    while "?" not in judge.asked:
        await asyncio.sleep(0)
    assert await waiting.call(lambda: judge.answer("b")) == "B"
    assert await first == "A"
    assert judge.asked.count("b") == 1


@pytest.mark.parametrize("seconds", [0, 0.02])
async def test_patience_ends_in_an_error_that_says_what_to_do(warnings: list[str], seconds: float) -> None:
    judge = Judge(False)
    waiting = Patience("j", judge.probe, seconds, warnings.append)
    outcomes = await asyncio.gather(
        *(waiting.call(lambda: judge.answer("a")) for _ in range(3)), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes] == [BackendUnusableError] * 3
    assert f"j was down for {seconds:g} s, stopped: no answer; once it is back, the same command" in str(outcomes[0])
    assert len(warnings) == (seconds > 0)


async def test_what_only_this_call_fails_on_is_its_own_fault(warnings: list[str]) -> None:
    judge = Judge(True, poison="p")
    waiting = Patience("j", judge.probe, 60, warnings.append)
    with pytest.raises(ServerFaultError):
        await waiting.call(lambda: judge.answer("p"))
    assert (judge.asked, warnings) == (["p", "?", "p", "?"], [])


async def test_a_call_that_brings_the_judge_down_each_time_is_given_up(warnings: list[str]) -> None:
    judge = Judge(*[False, True] * 20, poison="p")
    waiting = Patience("j", judge.probe, 60, warnings.append)
    with pytest.raises(ServerFaultError):
        await waiting.call(lambda: judge.answer("p"))
    assert judge.asked.count("p") == len(warnings) == patience._MOST_OUTAGES


async def test_a_judge_that_answers_nothing_but_the_plain_question_stops_the_run(
    warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "LOST_ROWS_THAT_STOP", 3)
    judge = Judge(True, poison="p")
    waiting = Patience("j", judge.probe, 60, warnings.append)

    async def no_verdict() -> str:
        raise JudgmentError("none")

    for row in ["p", "p", "a", "p", "p", None, "p", "p"]:  # an answer, even one without a verdict, begins anew
        with suppress(ServerFaultError, JudgmentError):
            await waiting.call(no_verdict if row is None else lambda row=row: judge.answer(row))
    with pytest.raises(BackendUnusableError, match="answers a simple question, and failed on 3 others in a row"):
        await waiting.call(lambda: judge.answer("p"))


async def test_one_that_is_cancelled_leaves_the_others_waiting(warnings: list[str]) -> None:
    judge = Judge(False, False, False, False, True)
    waiting = Patience("j", judge.probe, 60, warnings.append)
    gone, stays = (asyncio.ensure_future(waiting.call(lambda row=row: judge.answer(row))) for row in "ab")
    while "?" not in judge.asked:
        await asyncio.sleep(0)
    gone.cancel()
    assert await stays == "B"
    assert gone.cancelled()

from __future__ import annotations

import asyncio

import pytest

from rlaif.data.completions import candidates_of
from rlaif.errors import LowLabelMassError
from rlaif.records import Candidates, Rating
from rlaif.serving.queue import QueueFullError, RatingQueue
from tests.serving.conftest import certain


def items(*responses: str) -> list[Candidates]:
    return [candidates_of("?", response) for response in responses]


class Judge:
    """Counts who is being asked, and answers when told to."""

    def __init__(self, *, is_open: bool = True) -> None:
        self.asked: list[str] = []
        self.most = self.now = 0
        self.opened = asyncio.Event()
        if is_open:
            self.opened.set()

    async def __call__(self, item: Candidates) -> Rating:
        self.asked.append(item.responses[0])
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await self.opened.wait()
            await asyncio.sleep(0)
        finally:
            self.now -= 1
        if item.responses[0].startswith("bad"):
            raise LowLabelMassError("no")
        return certain(len(item.responses[0]))


async def test_no_more_items_than_the_width_are_asked_about() -> None:
    judge = Judge()
    queue = RatingQueue(judge, width=3, waiting=100, cache=0)
    await queue.rate_all(items(*(f"{number}" for number in range(20))))
    assert (judge.most, len(judge.asked)) == (3, 20)
    assert judge.asked == [str(number) for number in range(20)]  # first come, first served
    assert (queue.in_flight, queue.depth) == (0, 0)


async def test_ratings_are_remembered_and_failures_are_not() -> None:
    judge = Judge()
    queue = RatingQueue(judge, width=3, waiting=100, cache=10)
    for _ in range(2):
        good, bad = await queue.rate_all(items("abc", "bad"))
        assert good == certain(3)
        assert isinstance(bad, LowLabelMassError)
    assert judge.asked == ["abc", "bad", "bad"]


async def test_the_least_recently_used_rating_is_given_up() -> None:
    judge = Judge()
    queue = RatingQueue(judge, width=1, waiting=100, cache=2)
    for response in ("a", "b", "a", "c", "a", "b"):
        await queue.rate_all(items(response))
    assert judge.asked == ["a", "b", "c", "b"]


async def test_without_a_cache_each_request_asks() -> None:
    judge = Judge()
    queue = RatingQueue(judge, width=1, waiting=100, cache=0)
    await queue.rate_all(items("a", "a"))
    await queue.rate_all(items("a"))
    assert judge.asked == ["a", "a"]


async def test_a_request_that_does_not_fit_starts_nothing() -> None:
    judge = Judge(is_open=False)
    queue = RatingQueue(judge, width=2, waiting=2, cache=0)
    first = asyncio.ensure_future(queue.rate_all(items("a", "b", "c")))
    await asyncio.sleep(0)
    with pytest.raises(QueueFullError):
        await queue.rate_all(items("d", "e"))
    judge.opened.set()
    await first
    assert judge.asked == ["a", "b", "c"]


async def test_an_item_is_cancelled_with_the_last_who_waits_for_it() -> None:
    judge = Judge(is_open=False)
    queue = RatingQueue(judge, width=1, waiting=10, cache=10)
    waiting = [asyncio.ensure_future(queue.rate_all(items("a", "queued"))) for _ in range(3)]
    await asyncio.sleep(0.01)
    for number, task in enumerate(waiting):
        assert (judge.now, queue.counts.cancelled) == (1, 0), number
        task.cancel()
        await asyncio.sleep(0.01)
    assert (judge.now, queue.counts.cancelled, queue.in_flight, queue.depth) == (0, 2, 0, 0)
    judge.opened.set()
    assert await queue.rate_all(items("a")) == [certain(1)]
    assert judge.asked == ["a", "a"]


async def test_an_item_that_is_asked_for_again_while_it_is_being_cancelled_starts_anew() -> None:
    judge = Judge(is_open=False)
    queue = RatingQueue(judge, width=2, waiting=10, cache=0)
    leaving = asyncio.ensure_future(queue.rate_all(items("a")))
    await asyncio.sleep(0.01)
    leaving.cancel()
    again = asyncio.ensure_future(queue.rate_all(items("a")))
    judge.opened.set()
    assert await again == [certain(1)]
    assert leaving.cancelled()


async def test_what_is_advised_grows_with_the_queue() -> None:
    advice = []
    for waiting in (1, 100):
        judge = Judge(is_open=False)
        queue = RatingQueue(judge, width=1, waiting=waiting, cache=0)
        queue._seconds_per_item = 0.2
        busy = asyncio.ensure_future(queue.rate_all(items(*map(str, range(waiting + 1)))))
        await asyncio.sleep(0.01)
        with pytest.raises(QueueFullError) as caught:
            await queue.rate_all(items("one more"))
        advice.append(caught.value.retry_after)
        busy.cancel()
        await asyncio.gather(busy, return_exceptions=True)
    assert advice == [1.0, 20.0]  # 1 and 100 items of 0.2 s

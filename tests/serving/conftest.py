"""An endpoint on loopback, in the test's own event loop, in front of a judge that the test writes."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from rlaif.records import Candidates, Rating
from rlaif.serving.config import LimitConfig, ServeConfig
from rlaif.serving.queue import RatingQueue
from rlaif.serving.server import Listener, answer, bound_socket

Rate = Callable[[Candidates], Awaitable[Rating]]


def certain(score: int) -> Rating:
    """All probability on one score."""
    return Rating(tuple(float(each == score) for each in range(1, 11)))


@dataclasses.dataclass
class Served:
    """A running endpoint.

    Attributes:
        url: Its address.
        queue: What stands before the judge.
        session: A client.
        stop: Set to let it drain and end; `finished` is its task.
        messages, faults: What it said.
    """

    url: str
    queue: RatingQueue
    session: aiohttp.ClientSession
    stop: asyncio.Event
    finished: asyncio.Task[None]
    messages: list[str]
    faults: list[Exception]

    async def post(self, body: Any, path: str = "/score", **keywords: Any) -> tuple[int, Any]:
        """(status, reply) of a JSON body."""
        async with self.session.post(self.url + path, json=body, **keywords) as response:
            return response.status, await response.json()

    async def send(self, data: Any, path: str = "/score", **keywords: Any) -> tuple[int, Any]:
        """(status, reply) of raw bytes."""
        async with self.session.post(self.url + path, data=data, **keywords) as response:
            return response.status, await response.json()

    async def get(self, path: str) -> tuple[int, str]:
        """(status, text)."""
        async with self.session.get(self.url + path) as response:
            return response.status, await response.text()


Serve = Callable[..., Awaitable[Served]]


@pytest.fixture
async def serve(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Serve]:
    """Start an endpoint: serve(rate, width=4, token=None, **limits)."""
    monkeypatch.delenv("RLAIF_TOKEN", raising=False)
    running: list[Served] = []

    async def start(rate: Rate, *, width: int = 4, token: str | None = None, **limits: Any) -> Served:
        config = ServeConfig(port=0, token=token, limits=LimitConfig(**limits))
        queue = RatingQueue(rate, width=width, waiting=config.limits.queue, cache=config.limits.cache)
        ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        stop = asyncio.Event()
        messages: list[str] = []
        faults: list[Exception] = []
        listener = Listener(ready.set_result, messages.append, faults.append)
        bound = bound_socket(config.host, config.port)
        finished = asyncio.ensure_future(answer(config, queue, "fake:test", bound, stop, listener))
        served = Served(await ready, queue, aiohttp.ClientSession(), stop, finished, messages, faults)
        running.append(served)
        return served

    yield start
    for served in running:
        await served.session.close()
        served.stop.set()
        await asyncio.wait_for(served.finished, 20)

"""The endpoint as a process: the judge is opened, a socket is bound, and a signal ends it in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlaif import extras
from rlaif.data.completions import candidates_of
from rlaif.engine.judges import askers_for, judgings_for, open_backends
from rlaif.engine.rows import rating_panel
from rlaif.errors import ConfigError, JudgmentError
from rlaif.judge.rating import RatingJudge
from rlaif.records import Candidates, Rating
from rlaif.serving.config import ServeConfig
from rlaif.serving.queue import Rate, RatingQueue

if TYPE_CHECKING:
    from rlaif.backends.base import Backend

EXIT_STOPPED = 130
"""Exit code after a second signal, which does not wait for anything."""

_NEEDED = ("starlette", "uvicorn", "httptools", "prometheus_client", "cachetools")
_KEEP_ALIVE = 75
"""Seconds that a connection may be idle: longer than clients keep theirs, so that none sends into a closing one."""

_LAST_SECONDS = 3
"""For answers to reach their clients, once all are given."""

_UNACKNOWLEDGED_MS = 30_000


@dataclass(frozen=True)
class Listener:
    """Told what happens: the command line prints it.

    Attributes:
        on_ready: Called with the address, such as "http://127.0.0.1:8400", once requests are answered.
        on_message: Hears of requests that get no rewards, and of the end, in one line each.
        on_fault: Hears of faults of ours.
    """

    on_ready: Callable[[str], None] = lambda _: None
    on_message: Callable[[str], None] = lambda _: None
    on_fault: Callable[[Exception], None] = lambda _: None


def serve(config: ServeConfig, listener: Listener | None = None) -> None:
    """Answer requests until SIGINT or SIGTERM; blocks. Only for the main thread.

    The first signal refuses new requests and lets those in flight finish, `limits.drain` seconds at most; a second one
    ends the process at once with code 130.

    Raises:
        BackendNotInstalledError: The extra is missing.
        ConfigError: The judge, or the address, cannot be used.
        BackendUnusableError: A model of this process cannot be loaded.
    """
    extras.require("serve", _NEEDED, "the endpoint")
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(config, listener or Listener()))


async def _serve(config: ServeConfig, listener: Listener) -> None:
    stop = _stop_event()
    backends = open_backends(config)
    try:
        with contextlib.closing(bound_socket(config.host, config.port)) as bound:
            rate, width = _rate_of(config, backends)
            queue = RatingQueue(rate, width=width, waiting=config.limits.queue, cache=config.limits.cache)
            loading = asyncio.ensure_future(_load(rate, backends, listener))
            stopping = asyncio.ensure_future(stop.wait())
            try:
                await asyncio.wait({loading, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if stop.is_set():
                    return
                await loading
                names = ", ".join(backend.name for backend in backends)
                await answer(config, queue, names, bound, stop, listener)
            finally:
                loading.cancel()
                stopping.cancel()
    finally:
        for backend in backends:
            await backend.aclose()


def _rate_of(config: ServeConfig, backends: tuple[Backend, ...]) -> tuple[Rate, int]:
    """What rates a response, and how many it is asked about at a time."""
    _, askers = askers_for(config, backends)
    panel = rating_panel(judgings_for(RatingJudge, config, askers))

    async def rate(item: Candidates) -> Rating:
        (rating,) = await panel.judge(item)
        return rating

    return rate, max(asker.limiter.maximum for asker in askers)


async def _load(rate: Rate, backends: tuple[Backend, ...], listener: Listener) -> None:
    """Rate something, so that models of this process are loaded, or found wanting, before anybody waits for them."""
    if not any(backend.capabilities.is_in_process for backend in backends):
        return
    try:
        await rate(candidates_of("Say hello.", "Hello."))
    except JudgmentError as error:
        listener.on_message(f"the first rating failed, {error.error_name}: {error}")


async def answer(
    config: ServeConfig,
    queue: RatingQueue,
    judge: str,
    bound: socket.socket,
    stop: asyncio.Event,
    listener: Listener,
) -> None:
    """Answer on a bound socket until `stop`, then drain.

    Args:
        config: Token and limits; the judge and the address have been seen to.
        queue: Rates.
        judge: Its name, for /healthz.
        bound: Where to listen; closed at the end.
        stop: Set when it is time to end.
        listener: Told what happens.
    """
    import uvicorn

    from rlaif.serving.app import Endpoint
    from rlaif.serving.connections import guarded_protocol

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield  # ours are: uvicorn raises the signal again when it is done, and the process would not exit with 0

    limits = config.limits
    endpoint = Endpoint(
        judge,
        queue,
        limits,
        end_tokens=config.end_token,
        token=config.bearer_token,
        secrets=(os.environ.get("OPENAI_API_KEY", ""),),
        log=listener.on_message,
        on_fault=listener.on_fault,
    )
    protocol = guarded_protocol(read_timeout=limits.read_timeout, max_connections=limits.max_connections)
    server = Server(
        uvicorn.Config(
            endpoint.app,
            http=protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",  # requests are counted in /metrics; a line for each malformed one would fill disks
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE,
            timeout_graceful_shutdown=_LAST_SECONDS,
        )
    )
    serving = asyncio.ensure_future(server.serve(sockets=[bound]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    listener.on_ready(_address_of(bound))
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if not serving.done():
        listener.on_message("stopping: new requests are refused, those in flight finish (again: stop at once)")
        if left := await endpoint.drain(limits.drain):
            listener.on_message(f"stopped with requests unanswered after {limits.drain:g} s: {left}")
        server.should_exit = True
    stopping.cancel()
    await serving


def _stop_event() -> asyncio.Event:
    """Set by the first SIGINT or SIGTERM; the second one ends the process."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def handle() -> None:
        if stop.is_set():
            os._exit(EXIT_STOPPED)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, handle)
    return stop


def bound_socket(host: str, port: int) -> socket.socket:
    """A socket of the address, on which nothing listens yet: a model that is being loaded answers no probe.

    Raises:
        ConfigError: It is taken, or not this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
        except OSError:
            bound.close()
            raise
    except OSError as error:
        advice = "give another --port, or 0 for a free one"
        raise ConfigError(f"cannot listen on {host}, port {port}: {error.strerror or error}; {advice}") from error
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # a client that never takes its answer is let go
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNACKNOWLEDGED_MS)
    return bound


def _address_of(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory

"""Settings of `rlaif serve`."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field
from typing import Annotated

from rlaif.backends.config import BackendConfig
from rlaif.data.completions import END_TOKENS
from rlaif.engine.config import CallConfig
from rlaif.judge.config import JudgeConfig


@dataclass(frozen=True)
class LimitConfig:
    """What the endpoint takes on, and for how long. Nothing here changes an answer."""

    queue: Annotated[int, "at least 1"] = 4096
    """Items that may wait for the judge; a request that would make it more is answered 429 with Retry-After."""

    cache: Annotated[int, "at least 0"] = 10_000
    """Ratings kept in memory, the least recently used given up first; 0 keeps none."""

    max_items: Annotated[int, "at least 1"] = 1024
    """Items in one request at most; more are answered 413."""

    max_body: Annotated[int, "at least 1"] = 4_194_304
    """Bytes of a request's body at most; more are answered 413."""

    max_connections: Annotated[int, "at least 1"] = 1024
    """Connections open at a time; one more is answered 503 and closed."""

    read_timeout: Annotated[float, "above 0"] = 30.0
    """Seconds in which a client has to send its headers, and then its body; a slower one is answered 408."""

    deadline: Annotated[float, "above 0"] = 170.0
    """Seconds in which a request is answered, by 503 where the judge is slower; OpenRLHF waits for 180."""

    drain: Annotated[float, "at least 0"] = 25.0
    """Seconds that requests in flight are given to finish after SIGTERM or Ctrl-C; the signal again stops at once."""

    def __post_init__(self) -> None:
        if self.max_items > self.queue:
            raise ValueError(f"queue: {self.queue} does not hold one request of --max-items {self.max_items}")


@dataclass(frozen=True)
class ServeConfig:
    """`rlaif serve`: the judge as a reward endpoint."""

    host: str = "127.0.0.1"
    """Address to listen on; any but this machine's own needs a token."""

    port: Annotated[int, "0 to 65535"] = 8400
    """Port to listen on; 0 takes a free one and says which."""

    token: str | None = field(default=None, repr=False)
    """Bearer token that clients have to send. Better set RLAIF_TOKEN: flags show in the list of processes."""

    end_token: tuple[str, ...] = END_TOKENS
    """Text cut from the end of a response in /get_reward, which gets special tokens as text; may be repeated."""

    judging: JudgeConfig = field(default_factory=JudgeConfig)
    backend: BackendConfig = field(default_factory=BackendConfig)
    calls: CallConfig = field(default_factory=CallConfig)
    limits: LimitConfig = field(default_factory=LimitConfig)

    seed: int = 0
    """Seed of every random draw; draws depend on it and on the item's content, never on timing."""

    def __post_init__(self) -> None:
        token = self.bearer_token
        faults = []
        if token is None and not is_loopback(self.host):
            faults.append(f"host: {self.host!r} can be reached from elsewhere; set RLAIF_TOKEN, or stay on 127.0.0.1")
        if token is not None and not (token.isascii() and token.isprintable() and token == token.strip() and token):
            faults.append("token: expected ASCII characters without line breaks or spaces around them")
        if faults:
            raise ValueError("; ".join(faults))

    @property
    def bearer_token(self) -> str | None:
        """The token that clients have to send, from the flag or from RLAIF_TOKEN; None where none is needed."""
        return self.token if self.token is not None else os.environ.get("RLAIF_TOKEN") or None


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens there.

    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("0.0.0.0"), is_loopback("example.org")
    (True, True, False, False)
    """
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

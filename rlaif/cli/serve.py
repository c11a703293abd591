"""`rlaif serve --judge J`: wires the endpoint to the terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rlaif.backends.registry import DEMONSTRATION_WARNING, is_demonstration
from rlaif.cli.arguments import CommandLine, parse
from rlaif.cli.terminal import one_line, print_traceback_if_asked, say
from rlaif.serving.config import ServeConfig

LINE = CommandLine(
    prog="rlaif serve",
    description=(
        "Serve the judge's ratings of responses over HTTP, as rewards for reinforcement learning: POST /score, "
        "OpenRLHF's /get_reward, GET /healthz, GET /metrics."
    ),
    epilog="Keys come from the environment: OPENAI_API_KEY for the judge, RLAIF_TOKEN for the clients of this server.",
)

_SECONDS_BETWEEN_LINES = 5.0


@dataclass(frozen=True)
class ServeCommand:
    """`rlaif serve` as typed: the server, and how it is shown."""

    run: ServeConfig

    quiet: bool = False
    """Print errors and warnings only."""


def run(argv: Sequence[str]) -> int:
    """Run the command; returns the exit code."""
    command = parse(ServeCommand, argv, LINE)
    from rlaif.serving.server import Listener, serve

    config = command.run
    if config.token is not None:
        say("--token shows in the list of processes; RLAIF_TOKEN does not")
    if any(map(is_demonstration, config.backend.judge)):
        say(DEMONSTRATION_WARNING)

    def on_ready(address: str) -> None:
        if not command.quiet:
            judges = ", ".join(config.backend.judge)
            print(f"serving {judges} on {address} (/score, /get_reward, /healthz, /metrics)", flush=True)

    serve(config, Listener(on_ready, sparing(say), _report_fault))
    return 0


def sparing(
    say: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic, seconds: float = _SECONDS_BETWEEN_LINES
) -> Callable[[str], None]:
    """A `say` that says the same kind of thing (up to its first colon) every so many seconds at most, and counts."""
    said_at: dict[str, float] = {}
    left_out: dict[str, int] = {}

    def say_sparingly(text: str) -> None:
        kind = text.partition(":")[0]
        now = clock()
        if kind in said_at and now - said_at[kind] < seconds:
            left_out[kind] = left_out.get(kind, 0) + 1
            return
        said_at[kind] = now
        count = left_out.pop(kind, 0)
        say(one_line(text, 500) + (f" (and {count} more)" if count else ""))

    return say_sparingly


def _report_fault(error: Exception) -> None:
    if not print_traceback_if_asked():
        say(f"internal error: {type(error).__name__}; RLAIF_DEBUG=1 shows the traceback to report")

"""Lines on somebody's terminal: one-line texts, messages on stderr, tracebacks on request."""

from __future__ import annotations

import os
import sys

from rlaif.visibility import visible


def one_line(text: str, width: int = 200) -> str:
    """The text on one visible line, its middle left out where it is longer than `width` characters.

    >>> one_line("a\\nb")
    'a\\\\nb'
    """
    line = visible(text.replace("\n", "\\n").replace("\t", "\\t"))
    half = (width - 3) // 2
    return line if len(line) <= width else f"{line[:half]} … {line[-half:]}"


def say(text: str) -> None:
    """A line on stderr. A reader who has gone away is no reason to stop the work."""
    try:
        print(visible(text), file=sys.stderr, flush=True)
    except OSError:
        return


def print_traceback_if_asked() -> bool:
    """The traceback of the error being handled, under RLAIF_DEBUG=1; returns whether it was printed."""
    if os.environ.get("RLAIF_DEBUG", "0") in ("", "0"):
        return False
    import traceback

    traceback.print_exc()
    return True

"""Text from elsewhere on somebody's terminal: whatever stands in a response must be seen, and never obeyed."""

from __future__ import annotations

import os
import re
import sys

# C0 but tab and newline, DEL, C1, lone surrogates, and what reorders or hides text: zero-width and bidirectional marks,
# line and paragraph separators, the byte order mark, tag characters.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    """The text with control characters, terminal escapes and invisible marks spelled out; tabs and line ends stay.

    >>> visible("plain\\x1b[31mred")
    'plain\\\\x1b[31mred'
    """
    return _UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


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

"""Text from elsewhere, made safe to look at: whatever stands in a response must be seen, and never obeyed."""

from __future__ import annotations

import re

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

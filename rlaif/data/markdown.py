"""Text for a Markdown file in which what came from the data or the user is never live: no HTML, no Markdown, no fence
that it can close. Pure."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from typing import Any

from rlaif.visibility import visible

_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+!|~$:@-])")


def fence(text: str, language: str = "") -> str:
    """Text as a fenced block that it cannot close: the fence is longer than any run of backticks in it.

    >>> print(fence("a ``` b"))
    ````
    a ``` b
    ````
    """
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    ticks = "`" * max(3, longest + 1)
    shown = visible(text.replace("\r\n", "\n"))
    return f"{ticks}{language}\n{shown}\n{ticks}"


def one_line(text: str) -> str:
    """One line, with control and direction characters as escapes: what is shown is what is there."""
    return visible(text.replace("\r\n", " ").replace("\n", " ").replace("\t", " "))


def inline(text: str) -> str:
    """Foreign text inside a sentence: one line, no markup."""
    return _MARKDOWN.sub(r"\\\1", html.escape(one_line(text), quote=False))


def code(text: str) -> str:
    """Foreign text as inline code, safe in a table: as HTML where backticks would not hold it."""
    if re.fullmatch(r"[\w .,:/@=+-]+", text) and text == text.strip():
        return f"`{text}`"
    return f"<code>{inline(text)}</code>"


def plain(value: Any) -> str:
    """A value of a row or a setting in a few words.

    >>> plain([None, True, 0.25])
    'null, true, 0.25'
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(plain, value))
    return str(value)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; what stands in a cell must be inert already."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join(lines)

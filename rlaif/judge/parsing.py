"""Generated text to a verdict, or a named failure. Nothing is guessed: two different verdicts in one reply are none."""

from __future__ import annotations

import re
from typing import NamedTuple

from rlaif.errors import UnreadableVerdictError
from rlaif.records import GeneratedToken, Slot

_STATED = re.compile(
    r"preferred\s+response\s*(?:\(1 or 2\))?\W{0,8}(?:is\b)?\W{0,8}(?:response\b)?\W{0,4}([12])(?!\d|[.,]\d)",
    re.IGNORECASE,
)
"""The sentence our templates ask for, with the Markdown and brackets that models put around it."""

_BARE = re.compile(r"^\W*(?:response\s+)?([12])\W*$", re.IGNORECASE)
"""A reply that is nothing but the label."""


class StatedVerdict(NamedTuple):
    """A verdict found in generated text.

    `start` is the character offset of the label's digit; `statement` the offset where the stating sentence begins.
    """

    slot: Slot
    start: int
    statement: int


def find_verdict(text: str) -> StatedVerdict:
    """The slot a reply prefers.

    The last sentence of the form "Preferred response: 1" counts; a reply of the digit alone counts as well.

    Raises:
        UnreadableVerdictError: No verdict is stated, or statements contradict one another.

    >>> find_verdict("Both are fine. Preferred response: **2**").slot
    <Slot.SECOND: '2'>
    """
    matches = list(_STATED.finditer(text))
    if not matches and (bare := _BARE.match(text)):
        matches = [bare]
    if not matches:
        raise UnreadableVerdictError(f"the reply states no verdict: {_excerpt(text)}")
    if len({match.group(1) for match in matches}) > 1:
        raise UnreadableVerdictError(f"the reply states both verdicts: {_excerpt(text)}")
    last = matches[-1]
    return StatedVerdict(Slot(last.group(1)), last.start(1), last.start())


def token_at(tokens: tuple[GeneratedToken, ...], position: int) -> GeneratedToken | None:
    """The generated token that holds the character at `position`; None when the tokens do not reach it.

    Token texts concatenate to the reply. A token that holds more than the label and whitespace cannot be read as a
    label, and the caller's log-sum-exp will not find it.
    """
    offset = 0
    for token in tokens:
        offset += len(token.token)
        if position < offset:
            return token
    return None


def _excerpt(text: str) -> str:
    shown = text if len(text) <= 120 else f"{text[:50]} ... {text[-60:]}"
    return repr(shown)

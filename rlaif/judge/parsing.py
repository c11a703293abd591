"""Generated text to a verdict, or a named failure. Nothing is guessed: two different verdicts in one reply are none."""

from __future__ import annotations

import re
from typing import NamedTuple

from rlaif.errors import UnreadableVerdictError
from rlaif.records import GeneratedToken, Slot

_GAP = r"[^\S\n]*+[*_]*+[^\S\n]*+"
"""Between a label and what follows it on its line: spaces, and the Markdown that ends its emphasis."""

_STATED = re.compile(
    # a word of its own: "dispreferred" is another
    r"(?<![^\W_])preferred[^\S\n]++response[^\S\n]*+(?:\(1 or 2\))?(?:"
    # on one line, and not the first of two: "1 or 2", "1/2"
    r"[^\w\n]{0,8}(?:is\b)?[^\w\n]{0,8}(?:response\b)?[^\w\n]{0,4}(?P<beside>[12])"
    rf"(?!\d|[.,]\d|{_GAP}(?:or\b|and\b|[/&]){_GAP}\d)"
    # as a heading, and the label alone on a line below: "1. Clarity: ..." starts a list
    r"|\W{0,12}(?:response[^\S\n]+)?(?P<below>[12])(?=[^\w\n]*(?:\n|\Z)))",
    re.IGNORECASE,
)
"""The sentence our templates ask for, with the Markdown and brackets that models put around it."""

_QUOTES = "\"'`“‘«"

_BARE = re.compile(r"^\W*(?:response\s+)?([12])\W*$", re.IGNORECASE)
"""A reply that is nothing but the label."""

_SCORE = r"(?<![\s:][-−.])(?P<{}>10|[1-9])"
"""A score, which "-3" and ".7" are not."""

_RATED = re.compile(
    # a word of its own: "generating 3" rates nothing
    r"(?<![^\W_])rating[^\S\n]*+(?:\([^)\n]{0,20}\))?(?:"
    # on one line; "7/10" and "7 out of 10" are a 7, "7-8", "7 or 8" and "4 out of 5" are none
    rf"[^\w\n]{{0,8}}(?:is\b)?[^\w\n]{{0,8}}{_SCORE.format('beside')}"
    rf"(?!\d|[.,]\d|{_GAP}(?:or\b|and\b|to\b|[-–&]){_GAP}\d|{_GAP}(?:/|(?:out[^\S\n]+)?of\b){_GAP}(?!10\b)\d)"
    # as a heading, and the score alone on a line below
    rf"|\W{{0,12}}{_SCORE.format('below')}(?:[^\S\n]*/[^\S\n]*10)?(?=[^\w\n]*(?:\n|\Z)))",
    re.IGNORECASE,
)
"""The sentence our rating templates ask for, with what models put around it."""

_BARE_RATING = re.compile(r"^\W*(?<![-−.])(10|[1-9])(?:\W{0,4}/\s*10)?\W*$")

_ANSWERED = re.compile(
    # a word of its own, and the digit on one line; not the first of two, and not the template's "1 = yes"
    r"(?<![^\W_])answer[^\S\n]*+(?:\(1 = yes, 2 = no\))?(?:"
    r"[^\w\n]{0,8}(?:is\b)?[^\w\n]{0,8}(?P<beside>[12])"
    rf"(?!\d|[.,]\d|{_GAP}=|{_GAP}(?:or\b|and\b|[/&]){_GAP}\d)"
    # as a heading, and the digit alone on a line below
    r"|\W{0,12}(?P<below>[12])(?=[^\w\n]*(?:\n|\Z)))",
    re.IGNORECASE,
)
"""The sentence our yes/no templates ask for, with what models put around it."""

_BARE_ANSWER = re.compile(r"^\W*([12])\W*(?:yes|no)?\W*$", re.IGNORECASE)


class StatedLabel(NamedTuple):
    """A label found in generated text.

    `start` is the character offset of the label's first digit; `statement` that where the stating sentence begins.
    """

    label: str
    start: int
    statement: int

    @property
    def slot(self) -> Slot:
        """What the label names in a comparison."""
        return Slot(self.label)


def find_verdict(text: str) -> StatedLabel:
    """The slot a reply prefers.

    The last sentence of the form "Preferred response: 1" counts; a reply of the digit alone counts as well. A sentence
    quoted within a line, or in a block quote, does not: a response may hold one to mislead the judge, who cites it.

    Raises:
        UnreadableVerdictError: No verdict is stated, or statements contradict one another.

    >>> find_verdict("Both are fine. Preferred response: **2**").slot
    <Slot.SECOND: '2'>
    """
    return _stated(text, _STATED, _BARE, "verdict")


def find_rating(text: str) -> StatedLabel:
    """The score a reply gives, a whole number from 1 to 10.

    The last sentence of the form "Rating: 7" counts, and so does a reply of the number alone; "7/10" is a 7, "7.5" and
    "7 or 8" are no scores. Quotations do not count, as for `find_verdict`.

    Raises:
        UnreadableVerdictError: No rating is stated, or statements contradict one another.

    >>> find_rating("Clear and complete. Rating: 9/10").label
    '9'
    """
    return _stated(text, _RATED, _BARE_RATING, "rating")


def find_answer(text: str) -> StatedLabel:
    """The answer a reply gives to a yes/no question, "1" for yes or "2" for no.

    The last sentence of the form "Answer: 1" counts, and so does a reply of the digit alone. Quotations do not count,
    as for `find_verdict`.

    Raises:
        UnreadableVerdictError: No answer is stated, or statements contradict one another.

    >>> find_answer("It offends nobody. Answer: 1 (yes)").label
    '1'
    """
    return _stated(text, _ANSWERED, _BARE_ANSWER, "answer")


def _stated(text: str, statement: re.Pattern[str], bare_label: re.Pattern[str], what: str) -> StatedLabel:
    matches = [match for match in statement.finditer(text) if not _is_quoted(match)]
    if not matches and (bare := bare_label.match(text)):
        matches = [bare]
    if not matches:
        raise UnreadableVerdictError(f"the reply states no {what}: {_excerpt(text)}")
    found = {match[match.lastindex or 0] for match in matches}
    if len(found) > 1:
        raise UnreadableVerdictError(f"the reply states more than one {what}: {_excerpt(text)}")
    last = matches[-1]
    return StatedLabel(found.pop(), last.start(last.lastindex or 0), last.start())


def token_at(tokens: tuple[GeneratedToken, ...], text: str, position: int) -> GeneratedToken | None:
    """The generated token that holds the character of `text` at `position`; None when the tokens do not lead there.

    Token texts need not concatenate to the reply: half a character has none, and a server may strip the reply. What
    stands past such a place would be taken from another token. A token that holds more than the label and whitespace
    cannot be read as a label, and the caller's log-sum-exp will not find it.
    """
    offset = 0
    for token in tokens:
        if not text.startswith(token.token, offset):
            return None
        offset += len(token.token)
        if position < offset:
            return token
    return None


def _is_quoted(match: re.Match[str]) -> bool:
    before = match.string[: match.start()].rpartition("\n")[2]
    if before.lstrip().startswith(">"):
        return True
    after = match.string[match.end() :].partition("\n")[0]
    is_own_line = re.search(r"\w", before + after) is None  # the template's words, quotation marks and all
    return before.rstrip("*_").endswith(tuple(_QUOTES)) and not is_own_line


def _excerpt(text: str) -> str:
    shown = text if len(text) <= 120 else f"{text[:50]} ... {text[-60:]}"
    return repr(shown)

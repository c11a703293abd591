"""What can be seen in completions without a judge: loops, trailing junk, emptiness. Pure, no torch.

What several completions share stands in `phrases`; what their figures mean over time, in `guarding`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

_WORDS = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]|[^\W_]+(?:['’][^\W_]+)*")
"""A word; each character of Chinese and Japanese, which put no spaces between them, is one."""

LOOP_TIMES = 3
"""A run of words at the end is a loop from this many times on ..."""
LOOP_WORDS = 8
"""... and this many words in all: "no, no, no" is none."""
_LONGEST_LOOP = 64
"""Words of the longest unit that is looked for."""

_DISTINCT_FROM = 30
"""Words from which on the share of distinct runs of three is telling ..."""
_LEAST_DISTINCT = 0.5
"""... and what it is then at least in text that does not go in circles; verse with a refrain has some 0.7."""

_STUCK = re.compile(r"([^\W\d_]{1,5}?)\1{7,}[^\W\d_]{0,4}\Z")
"""One word that ends in a few letters over and over: hahahahahahahaha."""

_FRAGMENTS = re.compile(r"(?:^|\s)(\S{1,3})(?:\s+\1){4,}\s*\Z")
"""Five times the same few characters, between spaces."""
_LINE_OF_RULE = re.compile(r"(?:[-=_*~]\s?){1,100}|[|:\-+=\s]*\|[|:\-+=\s]*|[-*+•]")
"""A last line that is a rule, the edge of a table, or the mark of a list's next entry."""

_ENDS = frozenset(".!?…。！？।؟‽,;:、，；：")
_DOTS = frozenset(".…。")
_WRAPS = frozenset("\\\"'`*_~|$")
"""Quotes, markdown and LaTeX, which stand around what ends."""

_LOOKED_AT = 240
"""Characters of a text's end that are looked at for junk: texts are hostile, and may be all symbols."""

_MOST_ENDS = 3
_MOST_DOTS = 6
_MOST_EMOJI = 3
_MOST_CLOSERS = 12
_MOST_LOOSE_CLOSERS = 3
_MOST_SYMBOLS_OF_CUT = 3


class TextShares(NamedTuple):
    """Shares of completions, in [0, 1].

    Attributes:
        repeated: That loop (`is_repeated`).
        junk: That end in junk (`ends_in_junk`).
        empty: Without any text.
    """

    repeated: float
    junk: float
    empty: float


@lru_cache(maxsize=1024)
def words_of(text: str) -> tuple[str, ...]:
    """The words of a text in lower case, without punctuation; kept for the latest texts, which are asked for again.

    >>> words_of("Don't stop, I said!")
    ("don't", 'stop', 'i', 'said')
    """
    return tuple(_WORDS.findall(text.lower()))


def text_shares(completions: Sequence[str], are_finished: Sequence[bool]) -> TextShares:
    """Figures of completions, at least one.

    Args:
        completions: Their texts, without special tokens.
        are_finished: Whether the policy ended each, or it was cut off.
    """
    pairs = list(zip(completions, are_finished, strict=True))
    count = len(pairs)
    return TextShares(
        repeated=sum(is_repeated(text) for text in completions) / count,
        junk=sum(ends_in_junk(text, is_finished=is_finished) for text, is_finished in pairs) / count,
        empty=sum(not text.strip() for text in completions) / count,
    )


def is_repeated(text: str) -> bool:
    """Whether a text goes in circles.

    It does if it ends in a run of words that stands there 3 times or more, 8 words in all (the last time perhaps cut
    short, a word perhaps cut in two); if, of 30 words or more, fewer than half of the runs of three words are distinct;
    or if its last word is a few letters 8 times or more.

    >>> is_repeated("It is good. It is good. It is good.")
    True
    >>> is_repeated("No, no, no!")
    False
    """
    words = words_of(text)
    if _ends_in_loop(words) or _ends_in_loop(words[:-1]):
        return True
    if len(words) >= _DISTINCT_FROM:
        runs = list(zip(words, words[1:], words[2:], strict=False))
        if len(set(runs)) < _LEAST_DISTINCT * len(runs):
            return True
    return bool(words) and _STUCK.search(words[-1][-_LOOKED_AT:]) is not None


def _ends_in_loop(words: Sequence[str]) -> bool:
    last = len(words) - 1
    for unit in range(1, min(_LONGEST_LOOP, len(words) // LOOP_TIMES) + 1):
        same = 0
        while same <= last - unit and words[last - same] == words[last - same - unit]:
            same += 1
        if same + unit >= max(LOOP_TIMES * unit, LOOP_WORDS):
            return True
    return False


def ends_in_junk(text: str, *, is_finished: bool = True) -> bool:
    """Whether a text ends in symbols that end no sentence: policies that are rewarded by a judge have learned such.

    Not junk: what ends a sentence, up to three times ("?!", "..." up to six); brackets, quotes and markdown that close;
    code blocks, rules, tables; up to three emoji; smileys; signs that belong to the word before them (C++, 50 %).

    Args:
        is_finished: Whether the policy ended the text itself. One that was cut off may end in any three symbols.

    >>> [ends_in_junk(text) for text in ("Done!!", "Done. ;-)", "Done. # @", "Done!!!!!!")]
    [False, False, True, True]

    Source: Lee et al., RLAIF, arXiv:2309.00267, appendix E (trailing symbols, which the authors stripped).
    """
    text = text.rstrip()
    if not text or text.count("```") % 2 or text.endswith("```"):
        return False
    text = text[-_LOOKED_AT:]
    if _FRAGMENTS.search(text):
        return True
    if _LINE_OF_RULE.fullmatch(text.splitlines()[-1].strip()):
        return False
    start = _start_of_symbols(text)
    tail = text[start:]
    if not is_finished and len("".join(tail.split())) <= _MOST_SYMBOLS_OF_CUT:
        return False
    return _is_junk(tail, is_after_word=start > 0)


def _start_of_symbols(text: str) -> int:
    """Where the symbols and spaces begin that a text ends in; its length where it ends in a word."""
    place = len(text)
    while place and (text[place - 1].isspace() or not _is_of_word(text, place - 1)):
        place -= 1
    return place


def _is_of_word(text: str, place: int) -> bool:
    # A vowel sign belongs to its letter, as the mark that colours an emoji does to that.
    while place and unicodedata.category(text[place])[0] == "M":
        place -= 1
    return unicodedata.category(text[place])[0] in "LN"


def _is_junk(tail: str, *, is_after_word: bool) -> bool:
    """Whether the symbols that a text ends in are junk; `is_after_word`: letters or digits stand before them."""
    ends = dots = emoji = closers = loose = 0
    is_attached = is_after_word
    before = ""
    for place, char in enumerate(tail):
        kind = unicodedata.category(char)
        if char.isspace():
            # "50 %" is attached through its space; "word #" is not.
            is_attached = False
        elif kind[0] == "M" or char in "\u200d\ufe0f" or "\U0001f3fb" <= char <= "\U0001f3ff":
            pass  # joins or colours the emoji before it
        elif char in _ENDS:
            dots += char in _DOTS
            ends += char not in _DOTS
            is_attached = False
        elif char in _WRAPS or kind in ("Pe", "Pf", "Pi", "Ps", "Pd"):
            closers += 1
            loose += before == " "
        elif _is_emoji(char):
            emoji += 1
        elif not (is_attached and place < 2) and not _is_unit(char, tail[:place], is_after_word=is_after_word):
            return True
        before = char
    return (
        ends > _MOST_ENDS
        or dots > _MOST_DOTS
        or emoji > _MOST_EMOJI
        or closers > _MOST_CLOSERS
        or loose > _MOST_LOOSE_CLOSERS
    )


def _is_unit(char: str, between: str, *, is_after_word: bool) -> bool:
    """Whether a sign goes with a number before it, perhaps behind a space: 50 %, 20 €, 3 °."""
    return is_after_word and not between.strip() and (char in "%‰°" or unicodedata.category(char) == "Sc")


def _is_emoji(char: str) -> bool:
    return unicodedata.category(char) == "So" and (char >= "\U0001f000" or "\u2600" <= char <= "\u27bf")

"""Texts that say nearly the same: how alike two are, and which of many came before. Pure; what is done with a duplicate
is told in `filtering.py` and where candidates are made."""

from __future__ import annotations

import hashlib
import itertools
import math
import re
import unicodedata
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SHINGLE_WORDS = 3
"""Words in a row that make one shingle."""

LOWEST_THRESHOLD = 0.5
"""`DuplicateIndex` finds nothing less alike: below it nearly all pairs would have to be compared."""

_ROWS_PER_BAND = 4
_MISSED = 1e-4
"""A pair exactly at the threshold may be overlooked with this probability, a pair more alike with less."""

_MINHASH_SEED = 1

_T = TypeVar("_T", bound="int | tuple[str, ...]")

_UNSPACED = (
    r"\u0e00-\u0eff"  # Thai, Lao
    r"\u1000-\u109f\u1780-\u17ff"  # Burmese, Khmer
    r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # Japanese, Chinese
    r"\U00020000-\U0003ffff"
)
_WORD = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")
"""One word; in scripts that set no spaces between words, one character."""


class _PunctuationAsSpaces(dict[int, int]):
    """For `str.translate`: code points of punctuation, separators and controls to a space, the others to themselves."""

    def __missing__(self, code: int) -> int:
        self[code] = ord(" ") if unicodedata.category(chr(code))[0] in "PZC" else code
        return self[code]


_WITHOUT_PUNCTUATION = _PunctuationAsSpaces()


def normalized(text: str) -> str:
    """A text without what seldom changes its meaning: casefolded, runs of whitespace and punctuation as one space.

    A text of nothing but punctuation keeps it: "?" and "!" are two answers. Symbols such as + and emoji stay.

    >>> normalized("  Hello,   WORLD!\\n")
    'hello world'
    >>> normalized("?!")
    '?!'
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    words = folded.translate(_WITHOUT_PUNCTUATION).split()
    return " ".join(words or folded.split())


def similarity(a: str, b: str) -> float:
    """How alike two texts are: the Jaccard index of their normalized texts' shingles of three words.

    A text of fewer than three words is one shingle of what it has; in scripts without spaces a character is a word.

    Returns:
        Shared shingles over all shingles, in [0, 1]; 1 for equal normalized texts, two empty ones among them.

    Source: Broder, On the resemblance and containment of documents, 1997.

    >>> similarity("the cat sat on the mat", "The cat sat on the mat!")
    1.0
    >>> similarity("the cat sat on the mat", "the cat sat on the rug")  # 3 shingles shared of 5
    0.6
    """
    return _jaccard(_shingles(normalized(a)), _shingles(normalized(b)))


def near_duplicate_of(texts: Sequence[str], threshold: float) -> list[int | None]:
    """Which texts nearly equal an earlier one that is kept; every pair is compared, so for the few of one prompt.

    Args:
        texts: In the order of who came first.
        threshold: Least similarity of a near-duplicate, in (0, 1].

    Returns:
        For each text the index of the earliest kept text that it is as similar to, or None: it is kept.

    Raises:
        ValueError: The threshold is out of range.

    >>> near_duplicate_of(["Yes, it is.", "No.", "yes it is"], 0.8)
    [None, None, 0]
    """
    _check(threshold, 0.0, is_open=True)
    kept: list[tuple[int, frozenset[tuple[str, ...]]]] = []
    found: list[int | None] = []
    for number, text in enumerate(texts):
        mine = _shingles(normalized(text))
        earlier = next((index for index, theirs in kept if _jaccard(mine, theirs) >= threshold), None)
        if earlier is None:
            kept.append((number, mine))
        found.append(earlier)
    return found


class DuplicateIndex:
    """Finds near-duplicates among many texts as they come: MinHash-LSH proposes, the exact similarity decides.

    So none is found that is not one; one exactly at the threshold is missed once in 10,000. What is kept costs memory:
    8 bytes a word and, at a threshold of 0.8, some 8 KB beside.

    Args:
        threshold: Least similarity of a near-duplicate, in [0.5, 1].

    Raises:
        ValueError: The threshold is out of range.
    """

    def __init__(self, threshold: float) -> None:
        from datasketch import MinHash, MinHashLSH

        _check(threshold, LOWEST_THRESHOLD, is_open=False)
        self._threshold = threshold
        bands = _bands(threshold)
        hashes = bands * _ROWS_PER_BAND
        # Shingles come hashed: the hash function of the signature is the identity.
        self._empty = MinHash(num_perm=hashes, seed=_MINHASH_SEED, hashfunc=int, scheme="affine64")
        self._index = MinHashLSH(num_perm=hashes, params=(bands, _ROWS_PER_BAND))
        self._ids: list[str] = []
        self._kept: list[tuple[npt.NDArray[np.uint64], ...]] = []

    def find_or_add(self, text: str, row_id: str) -> str | None:
        """The id of the earliest text that this one nearly equals; without one, None, and this text joins the index."""
        return self._find_or_add((_hashes(text, "text"),), row_id)

    def find_or_add_pair(self, prompt: str, response_a: str, response_b: str, row_id: str) -> str | None:
        """As `find_or_add`, for comparisons: prompts must be alike, and each response like one of the other pair's, in
        either order. An index holds texts or comparisons, not both.

        All three must be, so that a long prompt does not make short answers to it alike.
        """
        first, second = (_hashes(response, "response") for response in (response_a, response_b))
        # What both responses have counts twice: else two pairs of responses that are alike among themselves would be
        # less alike as a whole than each of their parts, and be overlooked.
        twice = {_again(each) for each in first & second}
        return self._find_or_add((_hashes(prompt, "prompt"), first, second), row_id, twice)

    def _find_or_add(self, parts: Sequence[set[int]], row_id: str, twice: Collection[int] = ()) -> str | None:
        import numpy as np

        signature = self._empty.copy()
        signature.update_batch(set().union(*parts, twice))
        found: list[int] = sorted(self._index.query(signature))
        for number in found:
            if self._is_near(parts, [set(part.tolist()) for part in self._kept[number]]):
                return self._ids[number]
        self._index.insert(len(self._ids), signature, check_duplication=False)
        self._ids.append(row_id)
        self._kept.append(tuple(np.fromiter(part, dtype=np.uint64, count=len(part)) for part in parts))
        return None

    def _is_near(self, mine: Sequence[set[int]], theirs: Sequence[set[int]]) -> bool:
        if _jaccard(mine[0], theirs[0]) < self._threshold:
            return False
        orders = itertools.permutations(mine[1:])
        return any(
            all(_jaccard(*pair) >= self._threshold for pair in zip(order, theirs[1:], strict=True)) for order in orders
        )


def _shingles(text: str) -> frozenset[tuple[str, ...]]:
    words = _WORD.findall(text)
    if len(words) < SHINGLE_WORDS:
        return frozenset({tuple(words)})
    return frozenset(zip(*(words[start:] for start in range(SHINGLE_WORDS)), strict=False))


def _jaccard(a: set[_T] | frozenset[_T], b: set[_T] | frozenset[_T]) -> float:
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared)


def _hashes(text: str, part: str) -> set[int]:
    """The shingles of a text as numbers, others for each part of a row. Two that differ are equal once in 10^19."""
    whose = part.encode()
    contents = (" ".join(shingle).encode("utf-8", "surrogatepass") for shingle in _shingles(normalized(text)))
    return {int.from_bytes(hashlib.blake2b(each, digest_size=8, person=whose).digest(), "big") for each in contents}


def _again(number: int) -> int:
    """Another number for a shingle that is there a second time."""
    return number ^ 0x9E3779B97F4A7C15


def _bands(threshold: float) -> int:
    """So many that a pair at the threshold shares a whole band but for `_MISSED`: its rows agree with probability
    threshold^4."""
    agrees = threshold**_ROWS_PER_BAND
    return 2 if agrees >= 1.0 else max(2, math.ceil(math.log(_MISSED) / math.log1p(-agrees)))


def _check(threshold: float, low: float, *, is_open: bool) -> None:
    if not (low < threshold <= 1.0 or (threshold == low and not is_open)):
        raise ValueError(f"threshold is {threshold}, expected a number from {low:g} to 1{', 0 excluded' * is_open}")

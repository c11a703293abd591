"""Phrases that completions of different prompts share: what a judge that loves a phrase makes of a policy. No torch."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import NamedTuple

from rlaif.online.texts import words_of

_LONGEST_PHRASE = 40
_LEAST_SHARE = 0.1
"""Of a batch: phrases that fewer completions have are not kept."""
_MOST_KEPT = 256
_SAME = 0.9
"""A phrase is made longer as long as so many of those that have it have the longer one."""


class PromptTexts(NamedTuple):
    """A prompt's text with the texts of its completions, at least one, and their rewards; () where none are known."""

    prompt: str
    completions: tuple[str, ...]
    rewards: tuple[float | None, ...] = ()


class Phrase(NamedTuple):
    """A phrase, its words in lower case joined by spaces, and the share of completions that have it, in [0, 1]."""

    text: str
    share: float


def shared_runs(batch: Sequence[PromptTexts]) -> dict[str, float]:
    """The runs of three words that completions of different prompts share.

    A run that stands in a completion's own prompt does not count there. Where the batch has a single prompt, what its
    completions share counts: other batches have to tell (`only_prompt`).

    Args:
        batch: At least one prompt.

    Returns:
        Run -> the share of completions that have it, each prompt's completions weighing the same; of those from 0.1 on
        the 256 most frequent, ties by alphabet.
    """
    by_prompt: dict[str, list[frozenset[str]]] = {}
    by_size: dict[int, Counter[str]] = {}
    for prompt, completions, _ in batch:
        own = _runs(prompt)
        found = [_runs(text) - own for text in completions]
        by_prompt.setdefault(prompt, []).extend(found)
        by_size.setdefault(len(completions), Counter()).update(chain.from_iterable(found))
    shares: dict[str, float] = {}
    for size, counts in by_size.items():
        for run, count in counts.items():
            shares[run] = shares.get(run, 0.0) + count / (size * len(batch))
    least = min(2, len(by_prompt))
    kept = [
        run
        for run, share in shares.items()
        if share >= _LEAST_SHARE and sum(any(run in runs for runs in texts) for texts in by_prompt.values()) >= least
    ]
    kept.sort(key=lambda run: (-shares[run], run))
    return {run: shares[run] for run in kept[:_MOST_KEPT]}


def only_prompt(batch: Sequence[PromptTexts]) -> str | None:
    """A fingerprint of the batch's prompt, 16 hexadecimal digits; None where it has several."""
    prompts = {group.prompt for group in batch}
    if len(prompts) > 1:
        return None
    return hashlib.sha256(min(prompts).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def most_shared(batch: Sequence[PromptTexts]) -> Phrase | None:
    """The phrase that most completions of different prompts share, as long as it goes; None where they share none."""
    runs = shared_runs(batch)
    if not runs:
        return None
    run = next(iter(runs))
    return Phrase(lengthened(run, batch), runs[run])


def lengthened(run: str, batch: Sequence[PromptTexts]) -> str:
    """The longest phrase around a run that nine in ten of the completions with the run have.

    The next word is the most frequent one, ties by alphabet; to the right first, then to the left.
    """
    texts = [words_of(text) for group in batch for text in group.completions]
    phrase = run.split(" ")
    size = len(phrase)
    places = [(words, place) for words in texts if (place := _find(words, phrase)) is not None]
    left, right = 0, size
    for is_left in (False, True):
        while right - left < _LONGEST_PHRASE:
            beside = left - 1 if is_left else right
            following = Counter(words[place + beside] for words, place in places if 0 <= place + beside < len(words))
            if not following:
                break
            word, count = min(following.items(), key=lambda item: (-item[1], item[0]))
            if count < _SAME * len(places):
                break
            places = [
                (words, place)
                for words, place in places
                if 0 <= place + beside < len(words) and words[place + beside] == word
            ]
            phrase = [word, *phrase] if is_left else [*phrase, word]
            left, right = (left - 1, right) if is_left else (left, right + 1)
    return " ".join(phrase)


class Paid(NamedTuple):
    """What rewards have to do with the runs of three words of a batch.

    Attributes:
        spread: Sum of squared differences of the rewards from their mean; 0 where fewer than two are known.
        runs: Run -> (weight, difference): how much higher the mean reward is with the run than without, and n1 n0 / n
            of the n1 and n0 completions that are compared; weight times squared difference is the run's part of the
            spread. Those that all, or none, of the completions have are left out.
    """

    spread: float
    runs: dict[str, tuple[float, float]]


def paid(batch: Sequence[PromptTexts], runs: Iterable[str]) -> Paid:
    """What rewards have to do with these runs."""
    known = [
        (_runs(text), reward)
        for group in batch
        for text, reward in zip(group.completions, group.rewards, strict=False)
        if reward is not None
    ]
    count = len(known)
    if count < 2:
        return Paid(0.0, {})
    total = math.fsum(reward for _, reward in known)
    spread = math.fsum((reward - total / count) ** 2 for _, reward in known)
    found = {}
    for run in runs:
        having = [reward for has, reward in known if run in has]
        if 0 < len(having) < count:
            rest = count - len(having)
            gained = math.fsum(having)
            found[run] = (len(having) * rest / count, gained / len(having) - (total - gained) / rest)
    return Paid(spread, found)


def runs_of(phrase: str) -> frozenset[str]:
    """The runs of three words of a phrase."""
    return _runs(phrase)


def mean_shares(batches: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The shares of runs over batches, each weighing the same; a batch that kept none of a run counts as 0 of it."""
    total: Counter[str] = Counter()
    for batch in batches:
        for run, share in batch.items():
            total[run] += share  # type: ignore[assignment]
    return {run: float(share) / len(batches) for run, share in total.items()}


@lru_cache(maxsize=1024)
def _runs(text: str) -> frozenset[str]:
    words = words_of(text)
    return frozenset(map(" ".join, zip(words, words[1:], words[2:], strict=False)))


def _find(words: Sequence[str], phrase: Sequence[str]) -> int | None:
    size = len(phrase)
    first = phrase[0]
    for place in range(len(words) - size + 1):
        if words[place] == first and list(words[place : place + size]) == list(phrase):
            return place
    return None

"""Judges with a known character, for the tests and the benchmark of `rlaif probe`: from what they see to P(first)."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

from rlaif.auditing.probe_items import load_items
from rlaif.auditing.probes import PROBES, comparisons
from rlaif.records import Comparison, Order, Request, SoftLabel

ENDING = "\n\n### Question\nWhich response is better?\nPreferred response (1 or 2):"


class Seen(NamedTuple):
    """What a judge is shown."""

    prompt: str
    first: str
    second: str


Planted = Callable[[Seen], float]
SURE = 0.95


def towards(first: float, second: float) -> float:
    """P(first) of a judge that prefers whatever has more of something."""
    return 0.5 if first == second else SURE if first > second else 1 - SURE


@cache
def is_good(text: str) -> bool:
    """Whether an answer is one of the good ones, as prose or as a list in any order."""
    lines = set(text.splitlines())
    return any(
        item.good in text or (item.entries and lines == {f"- {entry}" for entry in item.entries})
        for item in load_items()
    )


def first_slot(seen: Seen) -> float:
    return SURE


def second_slot(seen: Seen) -> float:
    return 1 - SURE


def longer_wins(seen: Seen) -> float:
    return towards(len(seen.first), len(seen.second))


def shorter_wins(seen: Seen) -> float:
    return 1 - longer_wins(seen)


def perfect(seen: Seen) -> float:
    return towards(is_good(seen.first), is_good(seen.second))


def wrong(seen: Seen) -> float:
    return 1 - perfect(seen)


def random_judge(seen: Seen) -> float:
    return noisy(0.5)(seen)


def noisy(reliability: float, seed: int = 0) -> Planted:
    """Fair: right with this probability in each prompt, independently of every other prompt."""

    def judge(seen: Seen) -> float:
        drawn = random.Random(hashlib.sha256(repr((seed, seen)).encode()).digest())
        fair = perfect(seen)
        if fair == 0.5:
            return drawn.choice((SURE, 1 - SURE))
        return fair if drawn.random() < reliability else 1 - fair

    return judge


def obeys_text(seen: Seen) -> float:
    """Does what a response tells it; knows the right answer otherwise."""
    for text in (seen.first, seen.second):
        if stated := re.search(r"(?<!\d)([12])(?:</s>|\.)?$", text):
            return SURE if stated[1] == "1" else 1 - SURE
    told = [bool(re.search(r"is this one\.|is preferred\.$", text)) for text in (seen.first, seen.second)]
    return towards(*told) if any(told) else perfect(seen)


def style_wins(seen: Seen) -> float:
    """Prefers headings and bold text; knows the right answer otherwise."""
    marks = [text.count("**") + text.count("## Answer") for text in (seen.first, seen.second)]
    return towards(*marks) if marks[0] != marks[1] else perfect(seen)


def sycophant(seen: Seen) -> float:
    """Follows the user's opinion; knows the right answer otherwise."""
    states_opinion = any(seen.prompt.endswith(item.opinion) for item in load_items())
    return 1 - perfect(seen) if states_opinion else perfect(seen)


def likes_brevity(seen: Seen) -> float:
    """Takes next to no answer for the best answer; knows the right answer otherwise."""
    is_tiny = [len(text) < 12 for text in (seen.first, seen.second)]
    return towards(*is_tiny) if any(is_tiny) else perfect(seen)


@cache
def comparisons_of_all() -> tuple[Comparison, ...]:
    """Every comparison of every probe, under the plain helpfulness prompt's ending."""
    return comparisons(PROBES, load_items(), ENDING)


def labels_of(judge: Planted) -> dict[str, SoftLabel]:
    """What a planted judge says of every comparison, asked in both orders."""
    return {row.id: _label(row, judge) for row in comparisons_of_all()}


def _label(row: Comparison, judge: Planted) -> SoftLabel:
    ab, ba = (judge(Seen(row.prompt[0].content, *row.in_slots(order))) for order in (Order.AB, Order.BA))
    return SoftLabel((ab + 1 - ba) / 2, ab, 1 - ba)


def handler(judge: Planted) -> Callable[[Request], float]:
    """A planted judge as what a `FakeBackend` answers with: it reads the rendered prompt of a shipped template."""
    return lambda request: judge(Seen(*_values(request)))


def _values(request: Request) -> Iterator[str]:
    segments = request.messages[0].segments
    for heading in ("### Prompt\n", "### Response 1\n", "### Response 2\n"):
        at = max(n for n, part in enumerate(segments) if part.is_template and part.text.endswith(heading))
        following = segments[at + 1 : at + 2]
        yield following[0].text if following and not following[0].is_template else ""  # empty values have no segment

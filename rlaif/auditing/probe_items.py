"""The items of `rlaif probe`: prompts with a good and a poor answer, so that the right verdict is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

_PATH = Path(__file__).with_name("probe_items.yaml")


@dataclass(frozen=True)
class ProbeItem:
    """A prompt, and two answers of which one is clearly better.

    Attributes:
        id: Unique.
        prompt: An everyday question or request.
        good, poor: The answers; the good one is the longer one in half of the items.
        opinion: The poor answer's claim, as a user would say that they believe it.
        entries: The good answer as the entries of a list whose order means nothing; empty where it has no such form.
    """

    id: str
    prompt: str
    good: str
    poor: str
    opinion: str
    entries: tuple[str, ...] = ()

    @property
    def is_good_longer(self) -> bool:
        """Whether the good answer has more characters than the poor one."""
        return len(self.good) > len(self.poor)


@cache
def load_items() -> tuple[ProbeItem, ...]:
    """The items that ship with the package."""
    rows = yaml.safe_load(_PATH.read_text(encoding="utf-8"))
    return tuple(ProbeItem(**{**row, "entries": tuple(row.get("entries", ()))}) for row in rows)


def good_is_a(items: Sequence[ProbeItem]) -> tuple[bool, ...]:
    """Whether the good answer is response A, item by item: in every other one of those where it is the longer one, and
    in every other one of the rest. So a judge asked in one order only gains nothing from a slot or a length.
    """
    seen = {True: 0, False: 0}
    sides = []
    for item in items:
        sides.append(seen[item.is_good_longer] % 2 == 0)
        seen[item.is_good_longer] += 1
    return tuple(sides)

"""How sure a figure is, and how it is said: what all findings share. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import NamedTuple

from rlaif.auditing.results import Figure, Section
from rlaif.auditing.wording import written
from rlaif.visibility import visible

CERTAIN = 1.5
"""Half intervals that lie between an effect and its null before it is named: 99.7 % sure for a normal estimate."""


class Known(NamedTuple):
    """A figure that has a value and a 95 % interval."""

    value: float
    low: float
    high: float
    n: int

    @property
    def half(self) -> float:
        """The longer side of the interval."""
        return max(self.high - self.value, self.value - self.low)

    @property
    def width(self) -> float:
        return self.high - self.low

    def is_away(self, null: float, least: float, factor: float = CERTAIN) -> bool:
        """Whether it differs from `null` by more than `least`, and by more than `factor` times its half interval."""
        towards_null = self.value - self.low if self.value > null else self.high - self.value
        return abs(self.value - null) > max(least, factor * towards_null)

    def complement(self) -> Known:
        """The share of the rest."""
        return Known(1 - self.value, 1 - self.high, 1 - self.low, self.n)


def known(figure: Figure | None) -> Known | None:
    """None where the figure is missing, or has no value or no interval."""
    if figure is None or figure.value is None or figure.low is None or figure.high is None:
        return None
    return Known(figure.value, figure.low, figure.high, figure.n)


def known_in(figures: Section, name: str) -> Known | None:
    """A figure by name, such as "agreement" or "length_effect.difference"."""
    head, _, rest = name.partition(".")
    found = figures.get(head)
    if isinstance(found, Mapping):
        return known(found.get(rest))
    return known(found) if not rest else None


def difference(first: Known, second: Known) -> Known:
    """The first minus the second, as if they were independent."""
    half = math.hypot(first.half, second.half)
    value = first.value - second.value
    return Known(value, value - half, value + half, first.n + second.n)


def combined(parts: Sequence[Known]) -> Known | None:
    """The mean of independent parts, weighed by their rows; None of nothing."""
    rows = sum(part.n for part in parts)
    if not rows:
        return None
    value = sum(part.value * part.n for part in parts) / rows
    half = math.sqrt(sum((part.half * part.n) ** 2 for part in parts)) / rows
    return Known(value, value - half, value + half, rows)


def factor_for(tests: int) -> float:
    """Half intervals to ask of each of so many tests, so that all together raise a false alarm in one audit of 100.

    That is Bonferroni's correction; never less than `CERTAIN`.
    """
    normal = NormalDist()
    return max(CERTAIN, normal.inv_cdf(1 - 0.01 / (2 * max(tests, 1))) / normal.inv_cdf(0.975))


def percent(share: float) -> str:
    """A share for people.

    >>> percent(0.7891)
    '78.9 %'
    """
    return written(share, "share")


def points(share: float) -> str:
    """A difference of two shares for people.

    >>> points(0.521), points(-0.04)
    ('52.1 points', '-4.0 points')
    """
    return f"{100 * share:.1f} points"


def interval(figure: Known) -> str:
    """The interval of a share.

    >>> interval(Known(0.789, 0.751, 0.824, 447))
    '(95 % interval 75.1 to 82.4)'
    """
    return f"(95 % interval {100 * figure.low:.1f} to {100 * figure.high:.1f})"


_LONGEST_NAME = 40


def short_name(text: str) -> str:
    """A name from somebody's data on one visible line, cut where it is long.

    >>> short_name("two\\nlines")
    'two\\\\nlines'
    """
    line = visible(text.replace("\n", "\\n").replace("\t", "\\t"))
    return line if len(line) <= _LONGEST_NAME else f"{line[: _LONGEST_NAME - 1]}…"

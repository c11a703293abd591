"""One figure over the steps of a run: how it started, where it is now, and how much of that is noise. Pure, no torch.

Noise is read off neighbouring steps, so that a slow drift is none: half the mean squared difference of one value to the
next. Source: von Neumann, "Distribution of the Ratio of the Mean Square Successive Difference to the Variance", Annals
of Mathematical Statistics 12 (1941).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

START_STEPS = 5
"""Values that are the start."""
WINDOW_STEPS = 8
"""Latest values that are where it is now."""
_LEAST_WINDOW = 5
"""Values after the start before anything is said."""


@dataclass
class Series:
    """A figure's values as they come.

    Attributes:
        start: The first values, `START_STEPS` of them once they are there.
        window: The latest values, without those of the start.
        squares: Sum of squared differences of one value to the next.
        count: Values so far.
        last: The latest one; None before the first.
    """

    start: list[float] = field(default_factory=list)
    window: list[float] = field(default_factory=list)
    squares: float = 0.0
    count: int = 0
    last: float | None = None

    def add(self, value: float) -> None:
        """Take the next value; finite."""
        if self.last is not None:
            self.squares += (value - self.last) ** 2
        self.last, self.count = value, self.count + 1
        if len(self.start) < START_STEPS:
            self.start.append(value)
        else:
            self.window = [*self.window, value][-WINDOW_STEPS:]

    @property
    def is_known(self) -> bool:
        """Whether there is a start, and enough after it to compare with that."""
        return len(self.window) >= _LEAST_WINDOW

    @property
    def first(self) -> float:
        """Mean of the start's values."""
        return sum(self.start) / len(self.start)

    @property
    def now(self) -> float:
        """Mean of the latest values."""
        return sum(self.window) / len(self.window)

    def noise(self, floor: float = 0.0) -> float:
        """Standard deviation of one value around where it should be; at least `floor`."""
        return max(math.sqrt(self.squares / (2 * (self.count - 1))), floor, 1e-12)

    def rise(self, floor: float = 0.0) -> float:
        """How far it rose since the start, in standard errors of that; negative where it fell.

        Args:
            floor: Least noise of one value.
        """
        error = self.noise(floor) * math.sqrt(1 / len(self.start) + 1 / len(self.window))
        return (self.now - self.first) / error

    def above(self, level: float, floor: float = 0.0) -> float:
        """How far it is above a level now, in standard errors of that."""
        return (self.now - level) / (self.noise(floor) / math.sqrt(len(self.window)))

    def as_json(self) -> dict[str, Any]:
        """All there is to know, for `from_json`."""
        return {
            "start": list(self.start),
            "window": list(self.window),
            "squares": self.squares,
            "count": self.count,
            "last": self.last,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Series:
        """The same series again."""
        return cls(list(value["start"]), list(value["window"]), value["squares"], value["count"], value["last"])


def share_noise(share: float, size: float) -> float:
    """Standard deviation of a share of `size` draws, one of each kind added to them: it is above 0 at the ends too.

    >>> round(share_noise(0.0, 8), 6)  # (0 + 1) / (8 + 2) = 0.1: sqrt(0.1 * 0.9 / 8)
    0.106066
    """
    smoothed = (share * size + 1) / (size + 2)
    return math.sqrt(smoothed * (1 - smoothed) / size)

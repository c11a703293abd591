"""How far the judges of a panel agree with each other, from what each said of each row (of each response, where rows
hold several). Needs no human labels, and so says nothing of how far they are right."""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np


class JudgeCorrelation(NamedTuple):
    """Pearson correlation of two judges' scores over the `rows` that both judged.

    None where it is undefined: fewer than two rows, or a judge that always said the same.
    """

    judges: tuple[str, str]
    pearson: float | None
    rows: int


class PanelScores:
    """What each judge said of each row: eight bytes a judge and row, a NaN where a judge is missing."""

    def __init__(self) -> None:
        self._scores: dict[str, array[float]] = {}
        self._rows = 0

    def __bool__(self) -> bool:
        return bool(self._scores)

    def add(self, scores: Mapping[str, float]) -> None:
        """One more row: judge -> its probability or rating. Empty where there is no panel."""
        if not scores:
            return
        missing = float("nan")
        for name in scores:
            if name not in self._scores:
                self._scores[name] = array("d", [missing]) * self._rows
        for name, column in self._scores.items():
            column.append(scores.get(name, missing))
        self._rows += 1

    def correlations(self) -> list[JudgeCorrelation]:
        """Of each pair of judges, in the order they were first seen."""
        import numpy as np

        columns = {name: np.frombuffer(column) for name, column in self._scores.items()}
        found = []
        for (one, first), (other, second) in itertools.combinations(columns.items(), 2):
            both = ~(np.isnan(first) | np.isnan(second))
            left, right = first[both], second[both]
            # Rounding in the mean can make a constant seem to vary: compare the ends instead.
            varies = len(left) >= 2 and left.min() < left.max() and right.min() < right.max()
            pearson = float(np.corrcoef(_stretched(left), _stretched(right))[0, 1]) if varies else None
            found.append(JudgeCorrelation((one, other), pearson, len(left)))
        return found

    def as_json(self) -> dict[str, Any]:
        """`judge_correlation` as it stands in `run.json`; nothing where there is no panel."""
        if not self:
            return {}
        found = self.correlations()
        return {
            "judge_correlation": [
                {"judges": list(each.judges), "pearson": each.pearson, "rows": each.rows} for each in found
            ]
        }


def _stretched(values: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Onto 0 to 1, which changes no correlation: squares of numbers that hardly vary would vanish."""
    least = values.min()
    stretched: np.ndarray[Any, np.dtype[np.float64]] = (values - least) / (values.max() - least)
    return stretched

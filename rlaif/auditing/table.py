"""Judged comparisons as arrays, one entry a row: what every figure is computed from. Pure.

A verdict, of a person or of a judge, counts 1.0 (A), 0.5 (tie) or 0.0 (B) and NaN where there is none: the scale of
`prob_a`. Exchanging A and B turns x into 1 - x.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaif.auditing.features import STYLE_FEATURES, response_features
from rlaif.records import TIE_BAND, JudgedComparison, Verdict

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

A, TIE, B = 1.0, 0.5, 0.0

_NUMBERS = {Verdict.A: A, Verdict.TIE: TIE, Verdict.B: B}
_VOTE_COLUMNS = (Verdict.A, Verdict.TIE, Verdict.B)


@dataclass(frozen=True)
class AuditTable:
    """N judged comparisons.

    Attributes:
        ids: Of the rows (N,), text.
        clusters: Number of each row's cluster (N,), 0 to C - 1; rows of one cluster are resampled together.
        prob_a: P(A preferred) (N,), in [0, 1]; NaN where the judge gave no usable answer.
        prob_a_ab, prob_a_ba: The same with A (B) shown first (N,); NaN when not asked, or not usable.
        human: Majority of people (N,): 1, 0.5 or 0; NaN without a label or a strict plurality.
        votes: Annotators who said a, tie, b (N, 3).
        weights: 1 / (probability with which people were asked about the row) (N,); 1 where no sample was drawn. For
            figures that need a human label.
        length_a, length_b: Characters of the responses (N,).
        style_a, style_b: Counts of `STYLE_FEATURES` in the responses (N, 3).
        addresses_judge_a, addresses_judge_b: Whether a response holds words meant for a judge (N,).
        groups: Column -> its value in each row (N,), text.
        by_judge: Judge of a panel -> its P(A preferred) (N,); NaN where it gave none.
    """

    ids: NDArray[np.object_]
    clusters: IntArray
    prob_a: FloatArray
    prob_a_ab: FloatArray
    prob_a_ba: FloatArray
    human: FloatArray
    votes: IntArray
    weights: FloatArray
    length_a: IntArray
    length_b: IntArray
    style_a: IntArray
    style_b: IntArray
    addresses_judge_a: BoolArray
    addresses_judge_b: BoolArray
    groups: Mapping[str, NDArray[np.object_]]
    by_judge: Mapping[str, FloatArray]

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: BoolArray | IntArray) -> AuditTable:
        """Only these rows, in this order; clusters are numbered anew."""

        def pick(array: Any) -> Any:
            return array[rows]

        arrays = {name: pick(getattr(self, name)) for name in _ROW_ARRAYS}
        arrays["clusters"] = np.unique(arrays["clusters"], return_inverse=True)[1]
        return replace(
            self,
            **arrays,
            groups={column: pick(values) for column, values in self.groups.items()},
            by_judge={name: pick(values) for name, values in self.by_judge.items()},
        )

    def swapped(self) -> AuditTable:
        """The same rows with A and B exchanged (what was shown first stays first)."""
        return replace(
            self,
            prob_a=1.0 - self.prob_a,
            prob_a_ab=1.0 - self.prob_a_ba,
            prob_a_ba=1.0 - self.prob_a_ab,
            human=1.0 - self.human,
            votes=self.votes[:, ::-1],
            length_a=self.length_b,
            length_b=self.length_a,
            style_a=self.style_b,
            style_b=self.style_a,
            addresses_judge_a=self.addresses_judge_b,
            addresses_judge_b=self.addresses_judge_a,
            by_judge={name: 1.0 - values for name, values in self.by_judge.items()},
        )


_ROW_ARRAYS = (
    "ids", "clusters", "prob_a", "prob_a_ab", "prob_a_ba", "human", "votes", "weights", "length_a", "length_b",
    "style_a", "style_b", "addresses_judge_a", "addresses_judge_b",
)  # fmt: skip


def verdicts(prob_a: FloatArray, tie_band: float = TIE_BAND) -> FloatArray:
    """Probabilities to verdicts: 1 (A), 0.5 (within `tie_band` of one half), 0 (B); NaN stays NaN.

    >>> verdicts(np.array([0.7, 0.5, 0.1, np.nan]))
    array([1. , 0.5, 0. , nan])
    """
    sides = np.where(prob_a > 0.5, A, B)
    sides = np.where(np.abs(prob_a - 0.5) <= tie_band, TIE, sides)
    return np.where(np.isnan(prob_a), np.nan, sides)


def build_table(rows: Sequence[JudgedComparison]) -> AuditTable:
    """Rows to arrays.

    Args:
        rows: With the same groups each; those without a sampling probability count once.
    """
    count = len(rows)
    features_a = [response_features(row.comparison.response_a) for row in rows]
    features_b = [response_features(row.comparison.response_b) for row in rows]
    columns = list(dict.fromkeys(column for row in rows for column in row.groups))
    judges = list(dict.fromkeys(each.name for row in rows for each in row.by_judge))
    clusters = np.unique(np.array([row.cluster for row in rows], dtype=object).astype(str), return_inverse=True)[1]
    votes = [[row.comparison.human_votes.count(verdict) for verdict in _VOTE_COLUMNS] for row in rows]
    labels = [{each.name: each.label.prob_a for each in row.by_judge} for row in rows]
    sampled = [row.sampling_prob for row in rows]
    return AuditTable(
        ids=_texts([row.comparison.id for row in rows]),
        clusters=clusters.astype(np.int64).reshape(count),
        prob_a=_numbers([row.prob_a for row in rows]),
        prob_a_ab=_numbers([row.prob_a_ab for row in rows]),
        prob_a_ba=_numbers([row.prob_a_ba for row in rows]),
        human=_numbers([_NUMBERS.get(row.comparison.human_label) for row in rows]),  # type: ignore[arg-type]
        votes=np.array(votes, dtype=np.int64).reshape(count, len(_VOTE_COLUMNS)),
        weights=np.array([1.0 / prob if prob else 1.0 for prob in sampled], dtype=np.float64),
        length_a=np.array([each.length for each in features_a], dtype=np.int64),
        length_b=np.array([each.length for each in features_b], dtype=np.int64),
        style_a=np.array([each.style for each in features_a], dtype=np.int64).reshape(count, len(STYLE_FEATURES)),
        style_b=np.array([each.style for each in features_b], dtype=np.int64).reshape(count, len(STYLE_FEATURES)),
        addresses_judge_a=np.array([each.addresses_judge for each in features_a], dtype=np.bool_),
        addresses_judge_b=np.array([each.addresses_judge for each in features_b], dtype=np.bool_),
        groups={column: _texts([row.groups.get(column, "") for row in rows]) for column in columns},
        by_judge={judge: _numbers([label.get(judge) for label in labels]) for judge in judges},
    )


def _numbers(values: Sequence[float | None]) -> FloatArray:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _texts(values: Sequence[str]) -> NDArray[np.object_]:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array

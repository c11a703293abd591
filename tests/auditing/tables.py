"""Random tables of judged comparisons, whose true figures are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rlaif.auditing.table import AuditTable, FloatArray


def table_of(
    prob_a: Sequence[float | None],
    human: Sequence[float | None],
    *,
    by_judge: Mapping[str, Sequence[float | None]] | None = None,
    **arrays: Any,
) -> AuditTable:
    """A table written out by hand: 1 is A, 0 is B, 0.5 a tie and None unknown; other arrays of the table by name.

    Unless given: ids "0", "1", ..., each row a cluster of its own, weights of 1, one vote a row, both orders say
    `prob_a`, and responses of 10 characters without style.
    """
    count = len(human)
    people = _floats(human)
    probs = _floats(prob_a)
    votes = np.stack([people == verdict for verdict in (1.0, 0.5, 0.0)], axis=1).astype(np.int64)
    defaults: dict[str, Any] = {
        "ids": np.array([str(row) for row in range(count)], dtype=object),
        "clusters": np.arange(count),
        "prob_a": probs,
        "prob_a_ab": probs,
        "prob_a_ba": probs,
        "human": people,
        "votes": votes,
        "weights": np.ones(count),
        "length_a": np.full(count, 10),
        "length_b": np.full(count, 10),
        "style_a": np.zeros((count, 3), dtype=np.int64),
        "style_b": np.zeros((count, 3), dtype=np.int64),
        "addresses_judge_a": np.zeros(count, dtype=np.bool_),
        "addresses_judge_b": np.zeros(count, dtype=np.bool_),
        "groups": {},
        "by_judge": {name: _floats(values) for name, values in (by_judge or {}).items()},
    }
    given = {name: np.asarray(value) if isinstance(value, list | tuple) else value for name, value in arrays.items()}
    return AuditTable(**{**defaults, **given})


def make_table(
    rng: np.random.Generator,
    count: int,
    *,
    agreement: float = 0.8,
    clusters: int | None = None,
    judges: int = 0,
    error_correlation: float = 0.0,
    human_ties: float = 0.0,
    judge_ties: float = 0.0,
    unlabelled: float = 0.0,
    unanswered: float = 0.0,
) -> AuditTable:
    """A random table of a judge that is right as often wherever people decided, whatever the lengths.

    Args:
        rng: Of the draws.
        count: Rows.
        agreement: P(judge right | both decided), of each judge of a panel too.
        clusters: How many; rows are dealt to them at random. None: one a row.
        judges: Of a panel, named "judge-0", ...; `prob_a` is then the first one's.
        error_correlation: Phi of the errors of each pair of judges, in [0, 1].
        human_ties, judge_ties: Share of rows where people (a judge) call it a tie.
        unlabelled, unanswered: Share of rows without a human label (without an answer of a judge).
    """
    people = (rng.random(count) < 0.5).astype(np.float64)
    shared = rng.random(count) < agreement
    panel = {}
    for number in range(max(1, judges)):
        # Each judge follows the shared outcome with probability sqrt(rho): the phi of any two is then rho.
        follows = rng.random(count) < np.sqrt(error_correlation)
        right = np.where(follows, shared, rng.random(count) < agreement)
        side = np.where(right, people, 1.0 - people)
        prob_a = 0.5 + (side - 0.5) * rng.uniform(0.05, 1.0, count)
        prob_a = np.where(rng.random(count) < judge_ties, 0.5, prob_a)
        panel[f"judge-{number}"] = np.where(rng.random(count) < unanswered, np.nan, prob_a)
    human = np.where(rng.random(count) < human_ties, 0.5, people)
    human = np.where(rng.random(count) < unlabelled, np.nan, human)
    prob_a = panel["judge-0"]
    shift = rng.uniform(-0.1, 0.1, count)
    return table_of(
        prob_a.tolist(),
        human.tolist(),
        by_judge={name: values.tolist() for name, values in panel.items()} if judges else None,
        clusters=_dealt(rng, count, clusters),
        prob_a_ab=np.clip(prob_a + shift, 0.0, 1.0),
        prob_a_ba=np.clip(prob_a - shift, 0.0, 1.0),
        length_a=rng.integers(1, 2000, count),
        length_b=rng.integers(1, 2000, count),
        style_a=rng.integers(0, 5, (count, 3)),
        style_b=rng.integers(0, 5, (count, 3)),
    )


def _dealt(rng: np.random.Generator, count: int, clusters: int | None) -> np.ndarray[Any, np.dtype[np.int64]]:
    drawn = np.arange(count) if clusters is None else rng.integers(0, clusters, count)
    return np.asarray(np.unique(drawn, return_inverse=True)[1], dtype=np.int64)


def _floats(values: Sequence[float | None]) -> FloatArray:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)

"""Matches between items: written out by hand, and drawn from known strengths."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rlaif.auditing.ranking_results import Matches
from rlaif.auditing.table import FloatArray


def matches_of(rows: Sequence[tuple[str, str, float]], clusters: Sequence[int] | None = None) -> Matches:
    """Rows of (first, second, P(first preferred)); 0.5 is a tie. Each is a cluster of its own unless said."""
    items = sorted({name for first, second, _ in rows for name in (first, second)})
    prob = np.array([each for *_, each in rows], dtype=np.float64)
    return Matches(
        items=tuple(items),
        first=np.array([items.index(first) for first, _, _ in rows], dtype=np.int64),
        second=np.array([items.index(second) for _, second, _ in rows], dtype=np.int64),
        prob=prob,
        is_tie=prob == 0.5,
        clusters=np.arange(len(rows)) if clusters is None else np.array(clusters, dtype=np.int64),
    )


def drawn_matches(
    rng: np.random.Generator, strengths: Sequence[float], count: int, *, of_cluster: int = 1, ties: float = 0.0
) -> Matches:
    """Soft labels whose mean is what the strengths say, items named by letters; a share of `ties`."""
    values: FloatArray = np.array(strengths, dtype=np.float64)
    first = rng.integers(0, len(values), count)
    second = (first + rng.integers(1, len(values), count)) % len(values)
    mean = 1.0 / (1.0 + np.exp(values[second] - values[first]))
    prob = rng.beta(4.0 * mean, 4.0 * (1.0 - mean))
    is_tie = rng.random(count) < ties
    names = tuple("abcdefghijklmnopqrstuvwxyz"[: len(values)])
    clusters = np.arange(count) // of_cluster
    return Matches(names, first, second, np.where(is_tie, 0.5, prob), is_tie, clusters)

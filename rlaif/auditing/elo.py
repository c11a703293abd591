"""Ratings in the manner of chess: updated match by match, so that they depend on the order of the matches. Pure.

For the order-free strengths see `strengths.py`; on the same scale they are `ELO_MEAN + ELO_UNIT * strength`.
"""

from __future__ import annotations

import math

import numpy as np

from rlaif.auditing.table import FloatArray, IntArray

ELO_MEAN = 1000.0
ELO_UNIT = 400.0 / math.log(10.0)
"""Points of a difference of 1 on the log scale: 400 points are odds of 10 to 1."""

MOST_MATCHES = 50_000
"""Matches of one order; of more, so many are drawn. Old matches are forgotten long before."""


def elo_ratings(
    first: IntArray, second: IntArray, prob: FloatArray, orders: IntArray, *, items: int, k: float = 16.0
) -> FloatArray:
    """The ratings after all matches were played one after the other, for several orders at once.

    Args:
        first, second: Who met (N,), 0 to `items` - 1.
        prob: What the first scored (N,), in [0, 1]; 0.5 is a tie.
        orders: Numbers of matches in the order in which they are played (O, M); -1 is no match.
        items: How many there are.
        k: Points that the winner of a match between equals gains, twice.

    Returns:
        Ratings (O, `items`); all start at `ELO_MEAN`, which stays their mean.

    Source: Elo, The Rating of Chessplayers (1978): new = old + k * (score - 1 / (1 + 10^((other - old) / 400))).

    >>> elo_ratings(np.array([0]), np.array([1]), np.array([1.0]), np.array([[0]]), items=2)
    array([[1008.,  992.]])
    """
    count = len(orders)
    ratings = np.full((count, items), ELO_MEAN).reshape(-1)
    rows = np.arange(count) * items
    for match in np.ascontiguousarray(orders.T):
        left, right = rows + first[match], rows + second[match]
        expected = 1.0 / (1.0 + 10.0 ** ((ratings[right] - ratings[left]) / 400.0))
        gain = np.where(match < 0, 0.0, k * (prob[match] - expected))
        ratings[left] += gain
        ratings[right] -= gain
    return ratings.reshape(count, items)


def match_orders(
    clusters: IntArray, rng: np.random.Generator, *, orders: int, is_resampled: bool, most: int = MOST_MATCHES
) -> IntArray:
    """Random orders of all matches, or of those of clusters drawn with replacement.

    Args:
        clusters: Of the matches (N,), 0 to C - 1.
        rng: For the draws.
        orders: How many.
        is_resampled: Whether clusters are drawn with replacement, and not each taken once.
        most: Matches of an order at most.

    Returns:
        Numbers of matches (`orders`, M); -1 after the last one of an order that is shorter than others.
    """
    by_cluster = np.argsort(clusters, kind="stable")
    sizes = np.bincount(clusters)
    starts = np.cumsum(sizes) - sizes
    drawn = []
    for _ in range(orders):
        matches = np.arange(len(clusters))
        if is_resampled:
            chosen = rng.integers(0, len(sizes), len(sizes))
            lengths = sizes[chosen]
            offsets = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
            matches = by_cluster[np.repeat(starts[chosen], lengths) + offsets]
        drawn.append(rng.permutation(matches)[:most])
    table = np.full((orders, max(map(len, drawn))), -1, dtype=np.int32)
    for row, matches in zip(table, drawn, strict=True):
        row[: len(matches)] = matches
    return table.astype(np.int64)

"""Do preferences go round in circles? Triples in which each is preferred to another, counted. Pure."""

from __future__ import annotations

import numpy as np

from rlaif.auditing.intervals import SumStatistic, ratio_of_sums
from rlaif.auditing.results import Figure
from rlaif.auditing.table import BoolArray, FloatArray, IntArray
from rlaif.records import TIE_BAND

NO_TRIPLE = "no three met each other without a tie"


def cyclic_triples(wins: BoolArray) -> tuple[int, int]:
    """How many triples go round, and how many there are in which all three pairs are decided.

    Args:
        wins: Whether one is preferred to the other (K, K).

    >>> cyclic_triples(np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]], dtype=bool))
    (1, 1)
    """
    one, met = wins.astype(np.float64), (wins | wins.T).astype(np.float64)
    # Walks of three steps that come back: each circle is walked from 3 starts, each triple also both ways round.
    cyclic, decided = (float(((each @ each) * each.T).sum()) for each in (one, met))
    return round(cyclic / 3), round(decided / 6)


def triples_of_rates(scores: FloatArray) -> Figure:
    """Share of the triples that go round by their win rates, of those that all met.

    Args:
        scores: What each scored against each other (K, K).
    """
    cyclic, decided = cyclic_triples(scores - scores.T > TIE_BAND)
    if not decided:
        return Figure(None, None, None, 0, NO_TRIPLE)
    why = "noise alone turns win rates round where two are close, so that resampling says nothing of it"
    return Figure(cyclic / decided, None, None, decided, why)


def triple_statistic(first: IntArray, second: IntArray, scores: FloatArray, clusters: IntArray) -> SumStatistic:
    """Share of the triples that go round within a cluster, of those decided in it: a row for each cluster.

    Args:
        first, second: Who met (N,).
        scores: What the first scored (N,); several matches of two in one cluster are added up.
        clusters: (N,), 0 to C - 1.
    """
    count = int(clusters.max()) + 1 if len(clusters) else 0
    terms = np.zeros((count, 2))
    order = np.argsort(clusters, kind="stable")
    sizes = np.bincount(clusters, minlength=count)
    for cluster, rows in enumerate(np.split(order, np.cumsum(sizes)[:-1])):
        if len(rows) < 3:
            continue
        members, places = np.unique(np.concatenate([first[rows], second[rows]]), return_inverse=True)
        left, right = places[: len(rows)], places[len(rows) :]
        margins = np.zeros((len(members), len(members)))
        np.add.at(margins, (left, right), scores[rows] - 0.5)
        terms[cluster] = cyclic_triples(margins - margins.T > TIE_BAND)
    return SumStatistic(terms, ratio_of_sums, terms[:, 1] > 0, why=NO_TRIPLE)

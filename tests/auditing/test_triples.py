from __future__ import annotations

from itertools import combinations

import numpy as np

from rlaif.auditing.triples import cyclic_triples, triple_statistic, triples_of_rates


def test_counts_are_those_of_looking_at_each_triple():
    rng = np.random.default_rng(0)
    wins = np.triu(rng.random((9, 9)) < 0.5, 1)
    wins = wins | (~wins.T & np.tril(np.ones((9, 9), dtype=bool), -1))
    missing = rng.random((9, 9)) < 0.2
    wins &= ~(missing | missing.T)
    cyclic = decided = 0
    for triple in combinations(range(9), 3):
        inside = wins[np.ix_(triple, triple)]
        if (inside | inside.T).sum() == 6:
            decided += 1
            cyclic += bool((inside.sum(axis=1) == 1).all())
    assert 0 < cyclic < decided < 84
    assert cyclic_triples(wins) == (cyclic, decided)


def test_of_win_rates():
    in_a_circle = np.array([[0, 3.0, 1.0], [1.0, 0, 3.0], [3.0, 1.0, 0]])
    assert (triples_of_rates(in_a_circle).value, triples_of_rates(in_a_circle).n) == (1.0, 1)
    one_tie = np.array([[0, 2.0, 1.0], [2.0, 0, 3.0], [3.0, 1.0, 0]])
    assert triples_of_rates(one_tie).value is None
    assert triples_of_rates(one_tie).why == "no three met each other without a tie"


def test_within_clusters():
    # Cluster 0 goes round, with two rows of one pair that together are for its first; cluster 1 does not; 2 is a pair.
    rows = [(0, 1, 0.9, 0), (0, 1, 0.4, 0), (1, 2, 0.7, 0), (0, 2, 0.2, 0),
            (3, 4, 0.9, 1), (4, 5, 0.9, 1), (3, 5, 0.9, 1), (0, 1, 0.9, 2)]  # fmt: skip
    first, second, scores, clusters = (np.array(column) for column in zip(*rows, strict=True))
    statistic = triple_statistic(first, second, scores, clusters)
    assert statistic.terms.tolist() == [[1, 1], [0, 1], [0, 0]]
    assert statistic.value() == 0.5
    turned = triple_statistic(second, first, 1 - scores, clusters)
    assert turned.terms.tolist() == statistic.terms.tolist()

"""Comparisons out of the candidates of one prompt: which pairs, and which of the two becomes A. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from rlaif.randomness import seeded_random

PAIR_COLUMNS = ("candidates_id", "candidate_a", "candidate_b", "policy_a", "policy_b")
"""Where the responses of a comparison come from: the row of candidates, their places in it, and who wrote them."""

FINISH_COLUMNS = ("finish_reason_a", "finish_reason_b")


class Pair(NamedTuple):
    """Places of two candidates, the first of them to be A."""

    a: int
    b: int


def draw_pairs(candidates: int, most: int | None, *, seed: int, row_id: str) -> list[Pair]:
    """Pairs of the candidates of one prompt.

    Args:
        candidates: How many there are.
        most: Pairs to draw without replacement; None takes all.
        seed, row_id: What the draws depend on.

    Returns:
        In the order of their places, each pair once.

    >>> draw_pairs(3, None, seed=0, row_id="x")
    [Pair(a=1, b=0), Pair(a=0, b=2), Pair(a=1, b=2)]
    """
    places = list(itertools.combinations(range(candidates), 2))
    if most is not None and most < len(places):
        places = sorted(seeded_random(seed, row_id, "pairs").sample(places, most))
    return [in_drawn_order(first, second, seed=seed, row_id=row_id) for first, second in places]


def in_drawn_order(first: int, second: int, *, seed: int, row_id: str) -> Pair:
    """Two candidates, either of them A with probability 1/2: a function of seed, row and places alone."""
    low, high = sorted((first, second))
    swaps = seeded_random(seed, row_id, f"which of {low} and {high} is A").random() < 0.5
    return Pair(high, low) if swaps else Pair(low, high)


def comparison_rows(row: Mapping[str, Any], pairs: Sequence[Pair], extras: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The comparisons of a row of candidates, to be labeled.

    Args:
        row: id, prompt, responses, policies, finish_reasons, and the columns of `extras`.
        pairs: Of its candidates.
        extras: Names of its other columns, which are handed on.
    """
    for a, b in pairs:
        yield {
            "id": f"{row['id']}/{a}-{b}",
            "prompt": row["prompt"],
            "response_a": row["responses"][a],
            "response_b": row["responses"][b],
            "candidates_id": row["id"],
            "candidate_a": a,
            "candidate_b": b,
            "policy_a": row["policies"][a],
            "policy_b": row["policies"][b],
            "finish_reason_a": row["finish_reasons"][a],
            "finish_reason_b": row["finish_reasons"][b],
            **{name: row[name] for name in extras},
        }

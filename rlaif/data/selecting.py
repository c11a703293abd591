"""Which of a prompt's rated candidates become pairs: all, the best against the worst, RS-DPO's rule, statistical
rejection sampling; and best of n. Pure: scores in, indices out; rows are made of them in `candidate_pairs.py`."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from rlaif.records import sigmoid

IndexPair = tuple[int, int]
"""Two candidates of one prompt by their place, the earlier one first."""

PairRule = Literal["all", "best-worst", "rs-dpo", "rso"]


@dataclass(frozen=True)
class SelectionOptions:
    """How pairs are made of rated candidates."""

    pairs: PairRule | None = None
    """The input holds rated candidates: make pairs of all of them, of the best and the worst, of all that RS-DPO's rule
    lets pass (--eta), or of those that rejection sampling accepts (rso: --beta, --keep)."""

    tau: Annotated[float, "above 0"] = 1.0
    """P(A preferred) of such a pair is sigmoid((score A - score B) / tau); scores are ratings from 1 to 10, or the raw
    rewards of a reward model."""

    eta: Annotated[float, "0.5 to 1"] = 0.85
    """rs-dpo: least probability with which the better one of a pair is preferred."""

    beta: Annotated[float, "above 0"] = 0.5
    """rso: a candidate is accepted with probability exp((score - highest score) / beta); towards 0, the best alone."""

    keep: Annotated[int, "at least 2"] = 8
    """rso: candidates accepted for a prompt at most."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The pairs of one prompt.

    Attributes:
        pairs: In the order in which they are written.
        left_over: Candidates that rejection sampling accepted and that found no partner, 0 or 1.
    """

    pairs: tuple[IndexPair, ...]
    left_over: int = 0


def select_pairs(scores: Sequence[float], options: SelectionOptions, rng: random.Random) -> Selection:
    """The pairs that a rule makes of one prompt's candidates.

    Args:
        scores: One finite number a candidate, larger for a better one.
        options: With a rule.
        rng: For rejection sampling.
    """
    if options.pairs == "rso":
        accepted = rejection_sample(scores, options.beta, options.keep, rng)
        return Selection(first_round_pairs(accepted, rng), len(accepted) % 2)
    if options.pairs == "rs-dpo":
        return Selection(rs_dpo_pairs(scores, options.eta, options.tau))
    if options.pairs == "best-worst":
        pair = best_and_worst(scores)
        return Selection(() if pair is None else (pair,))
    return Selection(all_pairs(len(scores)))


def preference(score_a: float, score_b: float, tau: float = 1.0) -> float:
    """P(A preferred) by two scores: the sigmoid of their difference over `tau`, in [0, 1].

    >>> round(preference(8.0, 6.0), 3), preference(5.0, 5.0)
    (0.881, 0.5)
    """
    return sigmoid((score_a - score_b) / tau)


def all_pairs(count: int) -> tuple[IndexPair, ...]:
    """Every two of `count` candidates.

    >>> all_pairs(3)
    ((0, 1), (0, 2), (1, 2))
    """
    return tuple(itertools.combinations(range(count), 2))


def best_and_worst(scores: Sequence[float]) -> IndexPair | None:
    """The first of the highest and the first of the lowest; None where all scores are equal, and of fewer than two.

    >>> best_and_worst([3.0, 9.0, 1.0, 9.0])
    (1, 2)
    """
    if not scores or min(scores) == max(scores):
        return None
    best, worst = best_of(scores), min(range(len(scores)), key=scores.__getitem__)
    return min(best, worst), max(best, worst)


def rs_dpo_pairs(scores: Sequence[float], eta: float, tau: float) -> tuple[IndexPair, ...]:
    """All pairs whose better one is preferred with a probability of at least `eta`.

    Source: Khaki et al., RS-DPO, arXiv:2402.10038: pairs with sigmoid((r_i - r_j) / tau) >= eta.

    >>> rs_dpo_pairs([8.0, 6.0, 7.0], eta=0.85, tau=1.0)  # differences 2, 1 and 1: 0.881, 0.731, 0.731
    ((0, 1),)
    """
    return tuple(
        (first, second)
        for first, second in all_pairs(len(scores))
        if preference(max(scores[first], scores[second]), min(scores[first], scores[second]), tau) >= eta
    )


def rejection_sample(scores: Sequence[float], beta: float, keep: int, rng: random.Random) -> tuple[int, ...]:
    """Draw from the optimal policy's distribution, the candidates' own times exp(score / beta), without replacement.

    In rounds over the candidates that are left, each is accepted with probability exp((score - highest score left) /
    beta), until `keep` are accepted or none is left. Every round accepts at least the highest.

    Args:
        scores: One finite number a candidate, drawn from one policy.
        beta: As of the KL-constrained objective; towards 0 the `keep` best are accepted, towards infinity the first.
        keep: Most to accept.
        rng: One number a candidate and round is drawn.

    Returns:
        Places of those accepted, in the order of acceptance.

    Source: Liu et al., Statistical Rejection Sampling Improves Preference Optimization, arXiv:2309.06657, algorithm 1.
    """
    left = list(range(len(scores)))
    accepted: list[int] = []
    while left and len(accepted) < keep:
        highest = max(scores[each] for each in left)
        rejected: list[int] = []
        for each in left:
            if len(accepted) < keep and rng.random() < math.exp((scores[each] - highest) / beta):
                accepted.append(each)
            else:
                rejected.append(each)
        left = rejected
    return tuple(accepted)


def first_round_pairs(accepted: Iterable[int], rng: random.Random) -> tuple[IndexPair, ...]:
    """Each candidate in one pair at most: the first round of a tournament, drawn; of an odd number one is left over.

    The paper found it better, under another judge, than a tournament played to its end, which leans to high scores.

    Source: Liu et al., arXiv:2309.06657, section 5.2, "first-round-rank".
    """
    drawn = list(accepted)
    rng.shuffle(drawn)
    return tuple(sorted((min(pair), max(pair)) for pair in zip(drawn[::2], drawn[1::2], strict=False)))


def best_of(scores: Sequence[float]) -> int:
    """The place of the highest score, the first of equal ones: best of n.

    Raises:
        ValueError: There are no scores.
    """
    return max(range(len(scores)), key=scores.__getitem__)


def best_of_n_kl(n: int) -> float:
    """Distance in nats, KL(best of n || policy), of choosing the best of `n` samples: log n - (n - 1) / n.

    Exact where no two samples are equal in score, an upper bound else.

    Raises:
        ValueError: `n` is below 1.

    >>> best_of_n_kl(1), round(best_of_n_kl(16), 3)
    (0.0, 1.835)
    """
    if n < 1:
        raise ValueError(f"n is {n}, expected at least 1")
    return math.log(n) - (n - 1) / n

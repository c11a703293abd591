"""What policies are ranked by, and what a ranking is, as plain values: the shape of `policies.json`."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from rlaif.auditing.results import Figure
from rlaif.auditing.table import BoolArray, FloatArray, IntArray


@dataclass(frozen=True)
class Matches:
    """N labeled comparisons between K items.

    Attributes:
        items: Their names (K).
        first, second: Who met (N,), 0 to K - 1; never an item itself.
        prob: P(first preferred) (N,), in [0, 1].
        is_tie: Whether a match counts as a tie (N,).
        clusters: Number of each match's cluster (N,), 0 to C - 1; matches of one cluster are resampled together.
    """

    items: tuple[str, ...]
    first: IntArray
    second: IntArray
    prob: FloatArray
    is_tie: BoolArray
    clusters: IntArray

    def __len__(self) -> int:
        return len(self.prob)

    def swapped(self) -> Matches:
        """The same matches with the two of each exchanged."""
        return replace(self, first=self.second, second=self.first, prob=1.0 - self.prob)

    @property
    def scores(self) -> FloatArray:
        """What the first scored (N,): a tie is one half."""
        return np.where(self.is_tie, 0.5, self.prob)


@dataclass(frozen=True)
class Ratings:
    """N scores of responses by K items.

    Attributes:
        items: Their names (K).
        item: Whose response it is (N,), 0 to K - 1.
        score: (N,).
        clusters: Of the scores (N,), 0 to C - 1.
    """

    items: tuple[str, ...]
    item: IntArray
    score: FloatArray
    clusters: IntArray


@dataclass(frozen=True)
class OnlineElo:
    """An item's rating in the manner of chess, averaged over orders of the matches.

    Attributes:
        rating: With the interval in which it falls for other prompts in another order.
        order_low, order_high: The interval in which it falls for these matches in another order.
    """

    rating: Figure
    order_low: float
    order_high: float


@dataclass(frozen=True)
class Standing:
    """Where one item stands.

    Attributes:
        name: The item's.
        rank: 1 is best, equals share; the interval holds the true rank.
        prob_best: Share of the resamples in which it is the best; None without ranks.
        strength: On the log scale, mean 0 over the items; None when ranked by ratings.
        elo: The same on the Elo scale: mean 1000, 400 points are odds of 10 to 1.
        online_elo: Updated match by match.
        win_rate: Mean soft label against those it met, ties one half.
        rating: Mean rating; None when ranked by matches.
    """

    name: str
    rank: Figure
    prob_best: float | None
    strength: Figure | None = None
    elo: Figure | None = None
    online_elo: OnlineElo | None = None
    win_rate: Figure | None = None
    rating: Figure | None = None


@dataclass(frozen=True)
class PairStanding:
    """How two items that met compare.

    Attributes:
        first, second: Their names; the stronger one is first.
        ties: How many of the matches.
        win_rate: Mean soft label of the first, ties one half.
        strength_difference: Of the first and the second, on the log scale.
    """

    first: str
    second: str
    ties: int
    win_rate: Figure
    strength_difference: Figure


@dataclass(frozen=True)
class Ranking:
    """Everything that is known of who is better.

    Attributes:
        standings: The best first.
        pairs: Of those who met, in the order of the standings; empty when ranked by ratings.
        separability: Share of all pairs of items whose interval of the difference leaves out 0.
        tie_parameter: Davidson's nu: P(tie) between equals is nu / (2 + nu).
        cyclic_triples: Share of the triples of items that all met in which each wins over another.
        cyclic_triples_of_prompts: The same within the clusters, of matches and not of win rates.
        groups: Where the matches alone give no strengths, the items that chains of wins lead between; or those that
            any matches lead between, where there is more than one such group.
        prior_matches: That every item was given, half won and half lost, against one of strength 0; 0 where the
            matches alone give strengths.
        notes: What a person should know, in sentences.
    """

    standings: tuple[Standing, ...]
    separability: Figure
    pairs: tuple[PairStanding, ...] = ()
    tie_parameter: Figure | None = None
    cyclic_triples: Figure | None = None
    cyclic_triples_of_prompts: Figure | None = None
    groups: tuple[tuple[str, ...], ...] = ()
    prior_matches: float = 0.0
    notes: tuple[str, ...] = ()

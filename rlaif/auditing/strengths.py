"""How strong items are that met in pairs: Bradley-Terry with ties, many fits at once. Pure.

Here counts become strengths. Resampling, intervals and what is said of them stand in `ranking.py`.

The model is Davidson's. With D = exp(s_i) + exp(s_j) + nu * exp((s_i + s_j) / 2),

    P(i wins) = exp(s_i) / D        P(tie) = nu * exp((s_i + s_j) / 2) / D,

which without ties is Bradley and Terry's P(i wins) = sigmoid(s_i - s_j). A soft label p counts as p of a win of the one
and 1 - p of a win of the other: the likelihood's derivative then only asks that expected and observed scores be equal,
so that strengths are right wherever the labels are right on average, whatever their spread.

Sources: Bradley and Terry, Biometrika 39 (1952); Davidson, "On Extending the Bradley-Terry Model to Accommodate Ties in
Paired Comparison Experiments", Journal of the American Statistical Association 65 (1970); Ford, "Solution of a Ranking
Problem from Binary Comparisons", The American Mathematical Monthly 64 (1957), for when there is a finite maximum.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rlaif.auditing.table import BoolArray, FloatArray, IntArray

PRIOR_MATCHES = 1.0
"""Matches of each item, half won and half lost, against one of strength 0, where the data alone give no strengths."""

_AT_ONCE = 250_000
"""Numbers of one block of fits; work goes over them many times, and they should stay in the processor's cache."""

LEAST_WIN = 1e-9
"""Part of a match below which a win is no evidence that the one can beat the other."""

_SETTLED = 1e-10
"""Largest difference of expected and observed score, a match, at which a fit is done."""

_MOST_STEPS = 200
_MOST_HALVINGS = 30
_LONGEST_STEP = 4.0


class Strengths(NamedTuple):
    """R fits among K items.

    Attributes:
        values: Strengths on the log scale (R, K), of mean 0 over the items that met another; NaN for others.
        tie_parameter: Davidson's nu (R,): 0 without ties, NaN where all are ties.
    """

    values: FloatArray
    tie_parameter: FloatArray


def fit_strengths(
    wins: FloatArray, ties: FloatArray, prior: FloatArray | None = None, *, near: Strengths | None = None
) -> Strengths:
    """Strengths of greatest likelihood.

    Args:
        wins: How often each item beat each other (R, K, K), the winner first; soft labels count in parts.
        ties: How often two tied (R, K, K), symmetric.
        prior: Matches of every item against one of strength 0, half won and half lost (R,), at least 0; above 0 where
            `has_strengths` says no. None: no such matches.
        near: A single fit whose strengths should be near; only for speed.

    Returns:
        The fits.

    >>> wins = np.array([[[0.0, 3.0], [1.0, 0.0]]])
    >>> fit_strengths(wins, np.zeros_like(wins)).values.round(3)  # half of ln(3 / 1), and its negative
    array([[ 0.549, -0.549]])
    """
    fits, items = wins.shape[:2]
    prior = np.zeros(fits) if prior is None else prior
    values, tie_parameter = np.empty((fits, items)), np.empty(fits)
    size = max(1, _AT_ONCE // items**2)
    for start in range(0, fits, size):
        block = slice(start, start + size)
        values[block], tie_parameter[block] = _fitted(wins[block], ties[block], prior[block], near)
    return Strengths(values, tie_parameter)


def has_strengths(wins: FloatArray, ties: FloatArray) -> BoolArray:
    """Whether the data alone give finite strengths (R,) to the items that met another; arguments as of `fit_strengths`.

    They do where a chain of wins and ties leads from every item to every other and, where there are ties, some chain
    that comes back to its start has more wins than ties in it. Else some could grow without end.
    """
    present = (wins + wins.swapaxes(1, 2) + ties).sum(axis=2) > 0
    won, tied = wins > LEAST_WIN, ties > LEAST_WIN
    edges = won | tied
    found = _reaches_all(edges, present) & _reaches_all(edges.swapaxes(1, 2), present)
    # Where two beat each other, they make a circle of two wins.
    is_open = found & tied.any(axis=(1, 2)) & won.any(axis=(1, 2)) & ~(won & won.swapaxes(1, 2)).any(axis=(1, 2))
    for fit in np.flatnonzero(is_open):
        found[fit] = _has_circle_of_wins(won[fit], tied[fit])
    return found


def _reaches_all(edges: BoolArray, present: BoolArray) -> BoolArray:
    """Whether chains lead from the first item that is present to all others that are (R,)."""
    weights = edges.astype(np.float32)
    reached = np.zeros(present.shape, dtype=np.bool_)
    reached[np.arange(len(present)), present.argmax(axis=1)] = present.any(axis=1)
    while True:
        further = reached | (np.matmul(reached[:, None, :].astype(np.float32), weights)[:, 0] > 0)
        if (further == reached).all():
            return np.asarray((reached | ~present).all(axis=1) & present.any(axis=1))
        reached = further


def _has_circle_of_wins(won: BoolArray, tied: BoolArray) -> bool:
    """Whether some chain that comes back to its start has more wins than ties: one of negative length, which Bellman
    and Ford's distances show."""
    lengths = np.where(won, -1.0, np.where(tied, 1.0, np.inf))
    distances = np.zeros(len(won))
    for _ in range(len(won)):
        nearer = np.minimum(distances, (distances[:, None] + lengths).min(axis=0))
        if (nearer == distances).all():
            return False
        distances = nearer
    return True


def connected_groups(edges: BoolArray, *, by_chains_both_ways: bool = True) -> IntArray:
    """Number of each item's group (K,), from 0.

    Args:
        edges: Whether one leads to the other (K, K).
        by_chains_both_ways: Whether two of a group must each lead to the other, and not just one to the other.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    connection = "strong" if by_chains_both_ways else "weak"
    return np.asarray(connected_components(csr_array(edges), connection=connection)[1], dtype=np.int64)


def _fitted(
    wins: FloatArray, ties: FloatArray, prior: FloatArray, near: Strengths | None
) -> tuple[FloatArray, FloatArray]:
    """Newton's method with steps halved until the likelihood grows; it is concave in the strengths and ln(nu)."""
    model = _Likelihood.of(wins, ties, prior)
    point = model.start(near)
    active = np.arange(len(wins))
    for _ in range(_MOST_STEPS):
        part = model.take(active)
        slope, curvature = part.derivatives(point[active])
        unsettled = np.abs(slope).max(axis=1) > _SETTLED * np.maximum(part.matches.sum(axis=2).max(axis=1), 1.0)
        active = active[unsettled]
        if not len(active):
            break
        step = np.linalg.solve(curvature[unsettled], slope[unsettled][..., None])[..., 0]
        step *= np.minimum(1.0, _LONGEST_STEP / np.abs(step).max(axis=1))[:, None]
        point[active] = _climbed(model.take(active), point[active], step)
    values = point[:, :-1]
    values = values - np.nanmean(np.where(model.present, values, np.nan), axis=1, keepdims=True)
    tie_parameter = np.where(model.only_ties, np.nan, np.where(model.has_ties, np.exp(point[:, -1]), 0.0))
    return np.where(model.present, values, np.nan), tie_parameter


def _climbed(model: _Likelihood, point: FloatArray, step: FloatArray) -> FloatArray:
    """The point after each step, or after as much of it as makes the likelihood no smaller."""
    before = model.value(point)
    slack = 1e-12 * np.maximum(np.abs(before), 1.0)
    share = np.ones(len(point))
    for _ in range(_MOST_HALVINGS):
        fallen = ~(model.value(point + share[:, None] * step) >= before - slack)
        if not fallen.any():
            break
        share[fallen] /= 2
    return np.asarray(point + share[:, None] * step)


class _Likelihood(NamedTuple):
    """What the likelihood of R fits depends on. A point is the K strengths, then ln(nu): (R, K + 1).

    Attributes:
        matches: How often two items met (R, K, K).
        gains: What each item scored beyond half its matches (R, K).
        tie_count: (R,).
        prior: Prior matches of each item (R, K); an item that met no other has one, to stand somewhere.
        has_ties: Whether nu is fitted (R,); where all are ties, or none, strengths do not depend on it.
        only_ties: (R,).
        present: Whether an item met another (R, K).
        free: Items that could all be as much stronger (R, K): those that met another, of a fit without prior.
    """

    matches: FloatArray
    gains: FloatArray
    tie_count: FloatArray
    prior: FloatArray
    has_ties: BoolArray
    only_ties: BoolArray
    present: BoolArray
    free: BoolArray

    @classmethod
    def of(cls, wins: FloatArray, ties: FloatArray, prior: FloatArray) -> _Likelihood:
        matches = wins + wins.swapaxes(1, 2) + ties
        present = matches.sum(axis=2) > 0
        tie_count, count = ties.sum(axis=(1, 2)) / 2, matches.sum(axis=(1, 2)) / 2
        only_ties = (tie_count > 0) & (tie_count >= count * (1.0 - 1e-12))
        return cls(
            matches=matches,
            gains=(wins.sum(axis=2) - wins.sum(axis=1)) / 2,
            tie_count=tie_count,
            prior=np.where(present, prior[:, None], PRIOR_MATCHES),
            has_ties=(tie_count > 0) & ~only_ties,
            only_ties=only_ties,
            present=present,
            free=present & (prior[:, None] == 0.0),
        )

    def take(self, fits: IntArray) -> _Likelihood:
        """Only these fits."""
        return _Likelihood(**{name: getattr(self, name)[fits] for name in self._fields})

    def start(self, near: Strengths | None) -> FloatArray:
        """The strengths of `near`, or all equal; and nu as it is then: P(tie) = nu / (2 + nu)."""
        fits, items = self.gains.shape
        decided = self.matches.sum(axis=(1, 2)) / 2 - self.tie_count
        point = np.zeros((fits, items + 1))
        if near is not None:
            point[:, :-1] = np.where(np.isnan(near.values[0]), 0.0, near.values[0])
        odds = np.where(self.has_ties, self.tie_count, 1.0) / np.where(self.has_ties, decided, 1.0)
        point[:, -1] = np.where(self.has_ties, np.log(2.0 * odds), -np.inf)
        return point

    def value(self, point: FloatArray) -> FloatArray:
        """Log-likelihood, and that of the prior matches (R,)."""
        strengths, gaps, ratio, nu = self._terms(point)
        logs = np.abs(gaps) / 2 + np.log1p(ratio**2 + nu * ratio)
        size = np.abs(strengths)
        prior = (self.prior * (size / 2 + np.log1p(np.exp(-size)))).sum(axis=1)
        tied = np.where(self.has_ties, self.tie_count * np.where(self.has_ties, point[:, -1], 0.0), 0.0)
        total = (self.gains * strengths).sum(axis=1) + tied - prior
        return np.asarray(total - (self.matches * logs).sum(axis=(1, 2)) / 2)

    def derivatives(self, point: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The slope (R, K + 1) of `value`, and its curvature downwards (R, K + 1, K + 1).

        To the curvature is added what holds the mean strength, where nothing depends on it.
        """
        strengths, gaps, ratio, nu = self._terms(point)
        whole = 1.0 + ratio**2 + nu * ratio
        edge = np.sign(gaps) * (1.0 - ratio**2) / whole  # P(first wins) - P(second wins)
        tie = nu * ratio / whole
        items = strengths.shape[1]
        half = np.tanh(strengths / 2)
        slope = np.zeros_like(point)
        slope[:, :-1] = self.gains - (self.matches * edge).sum(axis=2) / 2 - self.prior * half / 2
        spread = self.matches * (1.0 - tie - edge**2) / 4
        diagonal = np.arange(items)
        curvature = np.zeros((len(point), items + 1, items + 1))
        curvature[:, :-1, :-1] = (self.free[:, :, None] & self.free[:, None, :]) / items - spread
        curvature[:, diagonal, diagonal] += spread.sum(axis=2) + self.prior * (1.0 - half**2) / 4
        fitted = self.has_ties
        slope[:, -1] = np.where(fitted, self.tie_count - (self.matches * tie).sum(axis=(1, 2)) / 2, 0.0)
        across = np.where(fitted[:, None], -(self.matches * edge * tie).sum(axis=2) / 2, 0.0)
        curvature[:, :-1, -1] = curvature[:, -1, :-1] = across
        curvature[:, -1, -1] = np.where(fitted, (self.matches * tie * (1.0 - tie)).sum(axis=(1, 2)) / 2, 1.0)
        return slope, curvature

    def _terms(self, point: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Strengths (R, K), their differences (R, K, K), exp(-|difference| / 2), and nu (R, 1, 1)."""
        strengths = point[:, :-1]
        gaps = strengths[:, :, None] - strengths[:, None, :]
        return strengths, gaps, np.exp(-np.abs(gaps) / 2), np.exp(point[:, -1])[:, None, None]

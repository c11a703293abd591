"""Which rows people should label next, and with what probability each is drawn."""

from __future__ import annotations

import numpy as np

from rlaif.auditing.table import TIE, AuditTable, FloatArray, IntArray, verdicts
from rlaif.records import TIE_BAND

UNIFORM_SHARE = 0.5
"""Share of the draws that is spread evenly over the rows."""

_CERTAIN = 1.0 - 1e-9

_LEAST_DOUBT = 1e-4
"""A judge is taken to be no surer than this: recorded verdicts, which say 0 and 1, are all alike then, and rounding
cannot tell a 1 from a 1 - 1e-17."""


def sampling_probs(
    table: AuditTable, count: int, *, uniform_share: float = UNIFORM_SHARE, tie_band: float = TIE_BAND
) -> FloatArray:
    """Probability with which each row is drawn for people to label.

    A part is spread evenly over the rows that the judge answered; the rest goes to those where a human label says
    most, in proportion to sqrt(c (1 - c)) with c = max(prob_a, 1 - prob_a): the standard deviation of "people agree",
    and of "people prefer A", if the judge is right about its confidence (Neyman's allocation). The even part bounds
    the weights where it is not: none is above 1 / `uniform_share` times the mean. A row that the judge calls a tie,
    two identical responses among them, gets the even part only: it says nothing about agreement.

    All answered rows are eligible, those with a human label too: the labels that come back stand in for the input's,
    and estimates from them cover all answered rows. Rows without an answer get 0.

    Args:
        table: Of N rows.
        count: How many to draw; at most the answered rows.
        uniform_share: In (0, 1]; 1 is a uniform draw.
        tie_band: A probability this close to 0.5 is a tie.

    Returns:
        (N,); in (0, 1] for answered rows. Sums to `count`, or to the answered rows where there are no more.

    Raises:
        ValueError: `count` is below 1, or `uniform_share` out of range.

    Source: Neyman, "On the two different aspects of the representative method", Journal of the Royal Statistical
    Society 97 (1934); the mixture is ours.
    """
    if count < 1 or not 0.0 < uniform_share <= 1.0:
        raise ValueError(f"count is {count} and uniform_share {uniform_share}, expected at least 1 and (0, 1]")
    judge = verdicts(table.prob_a, tie_band)
    answered = np.isfinite(judge)
    probs = np.zeros(len(table))
    rows = np.flatnonzero(answered)
    if count >= len(rows):
        probs[rows] = 1.0
        return probs
    believed = np.clip(table.prob_a[rows], _LEAST_DOUBT, 1.0 - _LEAST_DOUBT)
    spread = np.where(judge[rows] == TIE, 0.0, np.sqrt(believed * (1.0 - believed)))
    informative = spread / spread.sum() if spread.sum() > 0 else np.full(len(rows), 1.0 / len(rows))
    probs[rows] = _capped(uniform_share / len(rows) + (1.0 - uniform_share) * informative, count)
    return probs


def _capped(sizes: FloatArray, count: int) -> FloatArray:
    """Probabilities proportional to positive sizes that sum to `count`; what is above 1 is dealt to the others."""
    certain = np.zeros(len(sizes), dtype=np.bool_)
    while True:
        left = count - certain.sum()
        probs = np.where(certain, 1.0, sizes * (left / sizes[~certain].sum()))
        above = ~certain & (probs > _CERTAIN)
        if not above.any():
            return probs
        certain |= above


def draw(probs: FloatArray, seed: int) -> IntArray:
    """Rows drawn with exactly these inclusion probabilities, as many as they sum to, in a shuffled order.

    Randomised systematic sampling: the rows are shuffled, laid end to end with their probabilities for lengths, and
    those taken that one comb of teeth one apart falls on.

    Args:
        probs: Of N rows, in [0, 1]; sum to a whole number.
        seed: Of the draw.

    Raises:
        ValueError: A probability is out of range, or their sum is not whole.

    Source: Goodman and Kish, "Controlled selection", Journal of the American Statistical Association 45 (1950); Hartley
    and Rao, "Sampling with unequal probabilities and without replacement", Annals of Mathematical Statistics 33 (1962).
    """
    total = float(probs.sum())
    if ((probs < 0) | (probs > 1)).any() or abs(total - round(total)) > 1e-6:
        raise ValueError(f"expected probabilities in [0, 1] that sum to a whole number, not to {total:g}")
    rng = np.random.default_rng(seed)
    certain = np.flatnonzero(probs > _CERTAIN)
    others = rng.permutation(np.flatnonzero((probs > 0) & (probs <= _CERTAIN)))
    count = round(total) - len(certain)
    if not count:
        return np.asarray(rng.permutation(certain))
    ends = np.cumsum(probs[others])
    teeth = (rng.random() + np.arange(count)) * (ends[-1] / count)
    return np.asarray(rng.permutation(np.concatenate([certain, others[np.searchsorted(ends, teeth, side="right")]])))

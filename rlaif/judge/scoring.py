"""Log-probabilities to a debiased soft label: pure arithmetic, no prompts and no backends.

The order of the steps matters: variants of one label are summed (log-sum-exp), the labels normalised against each other
(softmax), and orders, samples, principles and judges averaged, before anything is thresholded.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rlaif.errors import LabelsUnseenError, LowLabelMassError
from rlaif.judge.config import Debias
from rlaif.records import CandidateLogprobs, SoftLabel, sigmoid

_WHITESPACE_MARKERS = " \t\r\n▁ĠĊ"
"""Characters that tokenizers put around a label: plain whitespace, SentencePiece's and byte-level BPE's stand-ins."""

_CERTAIN = 1e-12
"""Probabilities are kept this far from 0 and 1 before a logit is taken."""


@dataclass(frozen=True, slots=True)
class LabelDistribution:
    """What the judge's next token says about the labels.

    Attributes:
        probs: Probability of each label among the labels, in the order asked; sums to 1.
        mass: Share of the whole next-token probability that fell on the labels, in [0, 1].
        is_bounded: True when labels were not among the returned tokens, and their mass together is an upper bound.
    """

    probs: tuple[float, ...]
    mass: float
    is_bounded: bool


def candidate_distribution(reply: CandidateLogprobs, labels: Sequence[str], min_mass: float = 0.0) -> LabelDistribution:
    """Turn next-token log-probabilities into a distribution over the labels.

    The token variants of a label ("1", " 1") are summed. In a top-k reply an absent label is unseen, not impossible:
    its mass is taken as the smaller of the lowest returned probability and what the returned tokens leave of 1, which
    several unseen labels share.

    Args:
        reply: Natural log-probabilities (nats) of next tokens.
        labels: The answers, such as ("1", "2").
        min_mass: Least covered mass, in [0, 1].

    Raises:
        LabelsUnseenError: No label is among the tokens, or a log-probability is NaN.
        LowLabelMassError: The labels hold less than `min_mass`.

    Source: Lee et al., RLAIF, arXiv:2309.00267, section 2.1 (softmax over the labels); the bound is ours.
    """
    masses = dict.fromkeys(labels, 0.0)
    returned = 0.0
    lowest = math.inf
    for token, logprob in reply.tokens:
        prob = math.exp(min(logprob, 0.0))
        returned += prob
        if prob > 0.0:  # minus infinity is no bound: the token was not seen
            lowest = min(lowest, prob)
        label = token.strip(_WHITESPACE_MARKERS)
        if label in masses:
            masses[label] += prob
    if math.isnan(returned):
        raise LabelsUnseenError("the judge's log-probabilities are not numbers (NaN); try --dtype float32")
    seen_mass = sum(masses.values())
    unseen = [label for label, mass in masses.items() if mass == 0.0]
    if seen_mass == 0.0:
        shown = ", ".join(repr(token) for token, _ in reply.tokens[:5]) or "nothing"
        raise LabelsUnseenError(
            f"none of {', '.join(labels)} is among the judge's likeliest next tokens ({shown}); "
            "use a judge that follows the prompt's format, or --scoring sample"
        )
    is_bounded = bool(unseen) and not reply.is_exhaustive
    if is_bounded:
        bound = min(lowest, max(0.0, 1.0 - returned) / len(unseen))
        for label in unseen:
            masses[label] = bound
    if seen_mass < min_mass:
        raise LowLabelMassError(
            f"the labels {', '.join(labels)} hold {seen_mass:.2g} of the next-token probability, under the floor of "
            f"{min_mass:g} (--min-label-mass): the judge wants to say something else"
        )
    total = sum(masses.values())
    return LabelDistribution(tuple(masses[label] / total for label in labels), min(seen_mass, 1.0), is_bounded)


def sampled_distribution(counts: Sequence[int]) -> tuple[float, ...]:
    """A distribution over labels from counts of sampled verdicts; the order of the labels is kept.

    One pseudo-sample is spread evenly over the labels, so that few samples never give a probability of 0 or 1: half a
    count each for two labels (Jeffreys' prior), a tenth each for ten.

    Source: Perks (1947), "Some observations on inverse probability", for the prior 1/k over k labels.

    >>> sampled_distribution([3, 1])
    (0.7, 0.3)
    """
    pseudo = 1.0 / len(counts)
    total = sum(counts) + 1.0
    return tuple((count + pseudo) / total for count in counts)


def mean_distribution(
    distributions: Sequence[Sequence[float]], weights: Sequence[float] | None = None
) -> tuple[float, ...]:
    """Weighted mean of distributions over the same labels; weights need not sum to 1.

    Raises:
        ValueError: No distributions, or weights that are negative or all zero.

    >>> mean_distribution([(1.0, 0.0), (0.5, 0.5)])
    (0.75, 0.25)
    """
    checked = _checked_weights(len(distributions), weights)
    total = math.fsum(checked)
    return tuple(
        math.fsum(prob * weight for prob, weight in zip(probs, checked, strict=True)) / total
        for probs in zip(*distributions, strict=True)
    )


def debias(p_first_ab: float, p_first_ba: float, method: Debias = "mean-prob") -> float:
    """Average a judge's preference over both presentation orders.

    Args:
        p_first_ab, p_first_ba: P(first slot preferred) with A (B) shown first, in [0, 1].
        method: "mean-prob" averages probabilities (the paper's choice; same side as the unbiased preference, pulled
            toward 0.5); "mean-logit" averages logits, which removes an additive slot bias exactly.

    Returns:
        P(A preferred), in [0, 1]; 0.5 for a judge that looks only at position.

    Raises:
        ValueError: A probability is NaN or outside [0, 1].

    Source: Lee et al., RLAIF, arXiv:2309.00267, section 2.1.1; the logit form is ours.

    >>> debias(0.75, 0.75)
    0.5
    """
    return average_orders(p_first_ab, 1.0 - p_first_ba, method)


def average_orders(prob_a_ab: float, prob_a_ba: float, method: Debias = "mean-prob") -> float:
    """`debias` on un-swapped probabilities: both arguments are P(A preferred).

    >>> average_orders(0.9, 0.6)
    0.75
    """
    for prob in (prob_a_ab, prob_a_ba):
        if not 0.0 <= prob <= 1.0:
            raise ValueError(f"a probability must lie in [0, 1], not {prob}")
    if method == "mean-prob":
        return (prob_a_ab + prob_a_ba) / 2
    return sigmoid((_logit(prob_a_ab) + _logit(prob_a_ba)) / 2)


def clamp_probability(prob: float, low: float, high: float) -> float:
    """The probability kept within a range around 0.5; on the same side of 0.5 as it was.

    Args:
        prob: In [0, 1].
        low, high: With low < 0.5 < high = 1 - low.

    Source: Bai et al., Constitutional AI, arXiv:2212.08073, section 4 (0.4 to 0.6, for chain-of-thought labels).

    >>> clamp_probability(0.97, 0.4, 0.6), clamp_probability(0.55, 0.4, 0.6), clamp_probability(0.0, 0.4, 0.6)
    (0.6, 0.55, 0.4)
    """
    return min(max(prob, low), high)


def combine_orders(prob_a_ab: float | None, prob_a_ba: float | None, method: Debias) -> SoftLabel:
    """The soft label from the orders that were asked (un-swapped; None: not asked).

    Raises:
        ValueError: Neither order was asked.
    """
    if prob_a_ab is not None and prob_a_ba is not None:
        return SoftLabel(average_orders(prob_a_ab, prob_a_ba, method), prob_a_ab, prob_a_ba)
    asked = prob_a_ab if prob_a_ab is not None else prob_a_ba
    if asked is None:
        raise ValueError("a soft label needs at least one order")
    return SoftLabel(asked, prob_a_ab, prob_a_ba)


def mean_label(labels: Sequence[SoftLabel], weights: Sequence[float] | None = None) -> SoftLabel:
    """Weighted mean of soft labels, field by field; weights need not sum to 1.

    Raises:
        ValueError: No labels, or weights that are negative or all zero.
    """
    weights = _checked_weights(len(labels), weights)

    def mean(values: Iterable[float | None]) -> float | None:
        pairs = [(value, weight) for value, weight in zip(values, weights, strict=True) if value is not None]
        mass = sum(weight for _, weight in pairs)
        return math.fsum(value * weight for value, weight in pairs) / mass if mass else None

    prob_a = mean(label.prob_a for label in labels)
    assert prob_a is not None
    return SoftLabel(prob_a, mean(label.prob_a_ab for label in labels), mean(label.prob_a_ba for label in labels))


def _checked_weights(count: int, weights: Sequence[float] | None) -> list[float]:
    checked = [1.0] * count if weights is None else list(weights)
    if not checked or sum(checked) <= 0 or min(checked) < 0:
        raise ValueError(f"a mean needs labels with weights of at least 0 that are not all 0, not {checked}")
    return checked


def _logit(prob: float) -> float:
    return math.log(max(prob, _CERTAIN)) - math.log(max(1.0 - prob, _CERTAIN))

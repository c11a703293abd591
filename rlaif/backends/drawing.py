"""From the logits after each prompt of a batch to its next token: the likeliest, or one drawn from its own seed.

A draw takes one uniform number and inverts the cumulative distribution in float64, in the order of the vocabulary. So a
seed gives the same token alone and in any batch; and on any device, as far as the logits are the same there.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch

_BLOCK = 1 << 17
"""Numbers at a time, on a CPU: memory that was just used is faster than fresh memory."""


class Draw(NamedTuple):
    """How the tokens of one text are chosen.

    `temperature` 0 is greedy, and nothing is drawn; `top_p` 1 draws from all tokens.
    """

    temperature: float
    top_p: float
    seed: int


class Drawn(NamedTuple):
    """A token for each row.

    Attributes:
        tokens: (B,), None where the logits are no numbers.
        logprobs: (B,), log-probability (nats) of each token at its temperature, before the nucleus; of a greedy one at
            temperature 1. NaN where there is no token, and where nobody asked for it.
    """

    tokens: list[int | None]
    logprobs: list[float]


class Drawer:
    """Chooses the tokens of several texts, each with a generator of its own.

    Args:
        draws: One a text.
        reads_logprobs: Whether the log-probabilities of greedy tokens are wanted, which drawn ones have anyway.
    """

    def __init__(self, draws: Sequence[Draw], *, reads_logprobs: bool = False) -> None:
        self._draws = list(draws)
        self._generators = [random.Random(draw.seed) for draw in draws]
        self._reads_logprobs = reads_logprobs

    def next_tokens(self, logits: torch.Tensor, rows: Sequence[int]) -> Drawn:
        """The next token of each text that is still written.

        Args:
            logits: (B, V), any dtype.
            rows: (B,) whose they are.
        """
        drawn = [place for place, row in enumerate(rows) if self._draws[row].temperature != 0]
        draws = [self._draws[rows[place]] for place in drawn]
        uniforms = [self._generators[rows[place]].random() for place in drawn]
        if len(drawn) == len(rows):
            return drawn_tokens(logits, draws, uniforms)
        chosen = _likeliest(logits, reads_logprobs=self._reads_logprobs)
        if drawn:
            for place, token, logprob in zip(drawn, *drawn_tokens(logits[drawn], draws, uniforms), strict=True):
                chosen.tokens[place], chosen.logprobs[place] = token, logprob
        return chosen


def _likeliest(logits: torch.Tensor, *, reads_logprobs: bool) -> Drawn:
    greatest = logits.max(-1)  # NaN is greater than all
    found: list[int] = greatest.indices.tolist()
    tokens = [None if bad else token for token, bad in zip(found, greatest.values.isnan().tolist(), strict=True)]
    if not reads_logprobs:
        return Drawn(tokens, [math.nan] * len(tokens))
    logprobs: list[float] = (greatest.values.float() - logits.float().logsumexp(-1)).tolist()
    return Drawn(tokens, logprobs)


def drawn_tokens(logits: torch.Tensor, draws: Sequence[Draw], uniforms: Sequence[float]) -> Drawn:
    """One token a row: temperature first, then the nucleus, then the inverse of the cumulative distribution.

    Args:
        logits: (B, V), any dtype.
        draws: One a row, with temperatures above 0.
        uniforms: One a row, in [0, 1).
    """
    block = len(draws) if logits.device.type == "cuda" else max(1, _BLOCK // logits.shape[1])
    found = Drawn([], [])
    for start in range(0, len(draws), block):
        rows = slice(start, start + block)
        tokens, logprobs = _drawn_block(logits[rows], draws[rows], uniforms[rows])
        found.tokens.extend(tokens)
        found.logprobs.extend(logprobs)
    return found


def _drawn_block(logits: torch.Tensor, draws: Sequence[Draw], uniforms: Sequence[float]) -> Drawn:
    import torch

    # Of the accelerators CUDA alone has float64; there the vocabulary of a batch is too much to be moved each token.
    exact = logits.double() if logits.device.type == "cuda" else logits.cpu().double()
    top_p = [draw.top_p for draw in draws]
    probs = (exact / _column([draw.temperature for draw in draws], exact)).softmax(-1)
    inside = probs * in_nucleus(probs, _column(top_p, exact)) if min(top_p) < 1.0 else probs
    cumulative = inside.cumsum(-1)
    total = cumulative[:, -1:]
    found = torch.searchsorted(cumulative, _column(uniforms, exact) * total).clamp(max=logits.shape[1] - 1)
    tokens: list[int] = found[:, 0].tolist()
    logprobs: list[float] = probs.gather(-1, found)[:, 0].log().tolist()
    return Drawn(
        [None if math.isnan(value) else token for token, value in zip(tokens, logprobs, strict=True)], logprobs
    )


def in_nucleus(probs: torch.Tensor, top_p: torch.Tensor) -> torch.Tensor:
    """Which tokens make up the smallest set with a mass of `top_p` or more; of equally likely ones, the first.

    Args:
        probs: (B, V) float64, each row's sum 1.
        top_p: (B, 1), in (0, 1]; 1 takes all.

    Returns:
        (B, V) bool, at least one True in each row.

    Source: Holtzman et al., The Curious Case of Neural Text Degeneration, arXiv:1904.09751, section 3.1.
    """
    falling = _sorted(probs).flip(-1)
    count = (falling.cumsum(-1) - falling < top_p).sum(-1, keepdim=True).clamp(min=1)
    least = falling.gather(-1, count - 1)
    inside, equal = probs >= least, probs == least
    surplus = inside.sum(-1, keepdim=True) - count
    if bool((surplus > 0).any()):
        inside &= ~(equal & (equal.cumsum(-1) > equal.sum(-1, keepdim=True) - surplus))
    return inside | (top_p >= 1.0)


def _sorted(values: torch.Tensor) -> torch.Tensor:
    if values.device.type != "cpu":
        return values.sort(-1).values
    import numpy as np
    import torch

    return torch.from_numpy(np.sort(values.numpy(), axis=-1))  # a sixth of the time that torch takes on a CPU


def _column(values: Sequence[float], like: torch.Tensor) -> torch.Tensor:
    return like.new_tensor(values)[:, None]

"""The policy's network before training: a decoder whose first two layers can already copy, if roughly.

A revision repeats most of a response, and an answer repeats its prompt's topic. What does that in a decoder are
induction heads: a head of one layer tells each token which one stood before it, and heads of the next look for the
place where the present token stood before, and say what came after it (Olsson et al., In-context Learning and
Induction Heads, arXiv:2209.11895). Left to itself, training takes long to find them; here they are written into the
first weights, to be improved upon.
"""

from __future__ import annotations

import torch
from builtin_judge.model import Decoder, Shape
from torch import Tensor, nn

from .sequences import FINDINGS

SHAPE = Shape(width=160, layers=5, heads=5, hidden=448, theta=1e6)
_FAST, _SLOW = 4, 9
"""Pairs of rotary dimensions: the first few turn fast enough to tell neighbours apart, those from `_SLOW` on so slowly
that their products depend on the tokens alone."""
_COPIERS = 4
"""Induction heads of the second layer; together they carry a whole token."""


class PolicyNetwork(Decoder):
    """The decoder and a throw-away head, which reads in the middle what a critique or revision is about.

    What is asked for shows late in the words of an answer, and not in the first of them: without the head, training
    takes long to heed the request at all.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.finding_head = nn.Linear(shape.width, len(FINDINGS))


def build_network(vocabulary: int) -> PolicyNetwork:
    """The network with its first weights; they depend on torch's seed."""
    network = PolicyNetwork(Shape(**{**vars(SHAPE), "vocabulary": vocabulary}))
    with torch.no_grad():
        _write_previous_token_head(network)
        _write_induction_heads(network)
    return network


def _sizes(network: Decoder) -> tuple[int, int]:
    """Width of the stream, and of a head."""
    return network.shape.width, network.shape.width // network.shape.heads


def _write_previous_token_head(network: Decoder) -> None:
    """Head 0 of the first layer looks one token back, and puts what it sees into the stream's last dimensions."""
    width, head = _sizes(network)
    network.embedding[:, 0] = 0.2  # the same for all: queries and keys that ask for a place alone
    network.embedding[:, width - head :] = 0.0
    layer, half = network.layers[0], head // 2
    frequencies = network.shape.theta ** -(torch.arange(half) / half)
    for matrix in (layer.q, layer.k):
        matrix[:head] = 0.0
    layer.q[:_FAST, 0] = 2.0
    layer.k[:_FAST, 0] = 2.0 * frequencies[:_FAST].cos()  # a key is turned on by one place: it meets the next query
    layer.k[half : half + _FAST, 0] = 2.0 * frequencies[:_FAST].sin()
    layer.v[:head] = 0.0
    layer.v[:head, 1 : width - head] = _orthonormal(head, width - head - 1)
    layer.o[width - head :, :head] = 0.06 * torch.eye(head)


def _write_induction_heads(network: Decoder) -> None:
    """Heads of the second layer look for tokens that follow one like the present one, and say them."""
    width, head = _sizes(network)
    layer, half = network.layers[1], head // 2
    seen = network.layers[0].v[:head].clone()  # what the first layer tells of the token before, (head, width)
    slow = [*range(_SLOW, half), *range(half + _SLOW, head)]
    for number in range(_COPIERS):
        start = number * head
        layer.q[start : start + head] = 0.0
        layer.k[start : start + head] = 0.0
        told = _orthonormal(len(slow), head)
        for place, row in zip(slow, told, strict=True):
            layer.q[start + place] = 2.2 * row @ seen
            layer.k[start + place, width - head :] = 2.2 * row
        layer.v[start : start + head] = 0.0
        carried = range(1 + start, min(1 + start + head, width - head))
        for place, dimension in enumerate(carried):
            layer.v[start + place, dimension] = 1.0
            layer.o[dimension, start + place] = 0.15


def _orthonormal(rows: int, columns: int) -> Tensor:
    """Random orthonormal rows."""
    return torch.linalg.qr(torch.randn(columns, rows)).Q.T

"""Sequences packed into tensors: padding, restarting positions, the block mask, and the targets of all losses."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sized
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from .principles import KIND_NAMES
from .sequences import TRAITS, Sequence

S = TypeVar("S", bound=Sized)


@dataclass(frozen=True, slots=True)
class Batch:
    """Tensors of one step; B sequences, padded to T tokens at the end.

    Attributes:
        ids, positions: (B, T) int64.
        mask: (B, 1, T, T), True where a row may look.
        segments, matches: (B, T) int64, -1 where nothing is to be learnt.
        answer_at: (N, 2) sequence and position whose next token is an answer.
        answers: (N, 10) float32, probability of each label.
        kinds: (N, kinds) float32, 1 where the question asks for the kind.
        kind_at: (N, 2) position of the cue, where the kinds are read.
        traits_at, traits: (M, 2) and (M, TRAITS).
        differences: (N, TRAITS), traits of the first response less those of the second; 0 for ratings.
        told_at, told: (R, 2) and (R,): positions whose next token is part of a rationale, and that token.
        tokens: Tokens without padding.
    """

    ids: Tensor
    positions: Tensor
    mask: Tensor
    segments: Tensor
    matches: Tensor
    answer_at: Tensor
    answers: Tensor
    kinds: Tensor
    kind_at: Tensor
    traits_at: Tensor
    traits: Tensor
    differences: Tensor
    told_at: Tensor
    told: Tensor
    tokens: int


def block_mask(blocks: Tensor) -> Tensor:
    """Who may look at whom: backwards only, at the context (block 0) and at one's own branch.

    Args:
        blocks: (B, T), -1 for padding.

    Returns:
        (B, 1, T, T) bool. Padding looks at itself, so that no row is empty.
    """
    length = blocks.shape[1]
    key, query = blocks[:, None, :], blocks[:, :, None]
    allowed = ((key == 0) & (query >= 0)) | (key == query)
    return (allowed & torch.ones(length, length, dtype=torch.bool).tril()).unsqueeze(1)


def collate(sequences: list[Sequence]) -> Batch:
    """Tensors for some sequences."""
    length = max(len(s) for s in sequences)
    shape = (len(sequences), length)
    ids, positions = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    blocks = torch.full(shape, -1)
    segments, matches = torch.full(shape, -1), torch.full(shape, -1)
    answer_at, answers, kinds, kind_at, traits_at, traits, differences, told_at, told = ([] for _ in range(9))
    for row, sequence in enumerate(sequences):
        start = len(sequence.context)
        all_ids, all_positions, all_blocks = list(sequence.context), list(range(start)), [0] * start
        segments[row, :start] = torch.tensor(sequence.segments)
        matches[row, :start] = torch.tensor(sequence.matches)
        for position, values in sequence.traits:
            traits_at.append((row, position))
            traits.append(values)
        for number, branch in enumerate(sequence.branches, 1):
            offset = len(all_ids)
            all_ids += branch.ids
            all_positions += range(start, start + len(branch.ids))
            all_blocks += [number] * len(branch.ids)
            segments[row, offset : offset + len(branch.ids)] = 4
            answer_at.append((row, offset + len(branch.ids) - 1))
            kind_at.append((row, offset + len(branch.ids) - 3))
            answers.append(branch.answer)
            both = [values for _, values in sequence.traits]
            differences.append([a - b for a, b in zip(both[0], both[-1], strict=True)])
            kinds.append([float(kind in branch.kinds) for kind in range(len(KIND_NAMES))])
            for place in range(*(branch.rationale or (0, 0))):
                told_at.append((row, offset + place - 1))
                told.append(branch.ids[place])
        ids[row, : len(all_ids)] = torch.tensor(all_ids)
        positions[row, : len(all_ids)] = torch.tensor(all_positions)
        blocks[row, : len(all_ids)] = torch.tensor(all_blocks)
    return Batch(
        ids,
        positions,
        block_mask(blocks),
        segments,
        matches,
        torch.tensor(answer_at),
        torch.tensor(answers),
        torch.tensor(kinds),
        torch.tensor(kind_at),
        torch.tensor(traits_at),
        torch.tensor(traits).view(-1, TRAITS),
        torch.tensor(differences),
        torch.tensor(told_at, dtype=torch.long).view(-1, 2),
        torch.tensor(told, dtype=torch.long),
        sum(len(s) for s in sequences),
    )


def batches(rng: random.Random, draw: Callable[[], list[S]], budget: int, pool: int = 160) -> Iterator[list[S]]:
    """Endless lists of sequences of like length, at most `budget` padded tokens each, in random order."""
    while True:
        sequences: list[S] = []
        while len(sequences) < pool:
            sequences += draw()
        sequences.sort(key=len)
        packed: list[list[S]] = [[]]
        for sequence in sequences:
            if packed[-1] and (len(packed[-1]) + 1) * len(sequence) > budget:
                packed.append([])
            packed[-1].append(sequence)
        packed = packed[:-1] if len(packed) > 1 and len(packed[-1]) < 2 and len(packed[-1][0]) < budget / 2 else packed
        rng.shuffle(packed)
        yield from packed

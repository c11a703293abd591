"""A quick look at a network in training: accuracy per kind of principle on held-out comparisons, and rating order."""

from __future__ import annotations

import random

import torch

from .batches import collate
from .grammar import make_comparison
from .layout import Layout
from .lexicon import lexicon
from .model import JudgeNetwork
from .principles import KIND_NAMES
from .sequences import Encoder, Sequence, pairwise_sequences, rating_sequence

SHOWN = (
    "concise",
    "detailed",
    "harmless",
    "complies",
    "uncertain",
    "confident",
    "polite",
    "rude",
    "ontopic",
    "offtopic",
)
SHOWN += ("follows", "helpful", "unhelpful", "plain", "technical", "specific", "vague")


@torch.no_grad()
def answer_distributions(network: JudgeNetwork, encoder: Encoder, sequences: list[Sequence]) -> list[list[list[float]]]:
    """Per sequence and branch: probabilities of the ten labels among all tokens."""
    found: list[list[list[float]]] = []
    for sequence in sequences:
        batch = collate([sequence])
        hidden = network.hidden_states(batch.ids, batch.positions, batch.mask)[-1]
        at = hidden[batch.answer_at[:, 0], batch.answer_at[:, 1]]
        found.append(torch.softmax(network.logits(at), -1)[:, torch.tensor(encoder.labels)].tolist())
    return found


def quick_check(network: JudgeNetwork, encoder: Encoder, layout: Layout, pairs: int) -> dict[str, float]:
    """Accuracy on decided questions per kind ("two" for composites), swap consistency, label mass, rating order."""
    rng, words = random.Random("quick check"), lexicon("test")
    right: dict[str, list[float]] = {}
    consistent, masses, ordered = [], [], []
    for _ in range(pairs):
        pair = make_comparison(rng, words)
        both = pairwise_sequences(rng, words, encoder, layout, pair, 18)
        answers = answer_distributions(network, encoder, both)
        for branch, ab, ba in zip(both[0].branches, *answers, strict=True):
            if branch.answer[0] == 0.5:
                continue
            name = KIND_NAMES[branch.kinds[0]] if len(branch.kinds) == 1 else "two"
            right.setdefault(name, []).append(float((ab[0] > ab[1]) == (branch.answer[0] > 0.5)))
            right[name].append(float((ba[1] > ba[0]) == (branch.answer[0] > 0.5)))
            consistent.append(float((ab[0] > ab[1]) == (ba[1] > ba[0])))
            masses.append(sum(ab))
        rated = [rating_sequence(rng, words, encoder, layout, pair.scene, r, 1) for r in (pair.first, pair.second)]
        expected = [sum(n * p for n, p in enumerate(s.branches[0].answer, 1)) for s in rated]
        if abs(expected[0] - expected[1]) >= 0.8:
            given = [
                sum(n * p for n, p in enumerate(a[0], 1)) / sum(a[0])
                for a in answer_distributions(network, encoder, rated)
            ]
            ordered.append(float((given[0] > given[1]) == (expected[0] > expected[1])))
    figures = {name: sum(right[name]) / len(right[name]) for name in (*SHOWN, "two") if right.get(name)}
    every = [value for values in right.values() for value in values]
    figures |= {"ALL": sum(every) / len(every), "swap": sum(consistent) / len(consistent)}
    return figures | {"mass": sum(masses) / len(masses), "order": sum(ordered) / max(1, len(ordered))}

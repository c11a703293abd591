"""How the policy is trained: its loss, and its worker of the training loop that it shares with the judge."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import torch
from builtin_judge.batches import batches
from builtin_judge.lexicon import Lexicon, lexicon
from builtin_judge.loop import Run, Step, Worker, launch, prepare
from builtin_judge.model import Decoder
from builtin_judge.tokenizer import TextEncoder
from torch import Tensor
from torch.nn import functional as F

from .layout import read_layout
from .loose_lexicon import LooseLexicon
from .network import PolicyNetwork, build_network
from .sequences import TASKS, Batch, Example, Shares, collate, draw_examples
from .tokenizer import train_tokenizer

SHARPNESS = 1.5
"""What the exported model's logits are multiplied with (its last norm is): at temperature 1 it samples as at 1 / 1.5.
A network this small leaves much probability on tokens that fit nothing."""
HEAD_LAYER = 2
"""The layer whose states the throw-away head reads; two are left to put it into words."""


def train(run: Run, resume: bool = False) -> None:
    """Train and export; with `resume`, go on from the saved state, else start anew.

    A resumed run may have other `minutes`: the rest of the schedule is then stretched or cut.
    """
    tokenizer_file = prepare(run, resume)
    if not tokenizer_file.exists():
        train_tokenizer(read_layout(), run.seed).save(str(tokenizer_file))
    launch(PolicyWorker, run)


def token_losses(network: Decoder, batch: Batch) -> Tensor:
    """Negative log-likelihood (N,), nats, of each token that is to be predicted."""
    return _token_losses(network, batch, network.hidden_states(batch.ids, batch.positions, batch.mask)[-1])


def _token_losses(network: Decoder, batch: Batch, hidden: Tensor) -> Tensor:
    logits = network.logits(hidden[batch.told_at[:, 0], batch.told_at[:, 1]])
    return F.cross_entropy(logits, batch.told, reduction="none")


def losses(network: PolicyNetwork, batch: Batch) -> dict[str, Tensor]:
    """The mean over the tokens of a batch, cut into the parts that each task has in it, and the head's loss."""
    states = network.hidden_states(batch.ids, batch.positions, batch.mask)
    each = _token_losses(network, batch, states[-1])
    found = {task: each[batch.tasks == number].sum() / len(each) for number, task in enumerate(TASKS)}
    read = states[HEAD_LAYER][batch.found_at[:, 0], batch.found_at[:, 1]]
    missed = F.cross_entropy(network.finding_head(read), batch.findings, reduction="sum")
    found["finding"] = 0.3 * missed / max(1, len(batch.findings))  # also where there are none: all processes need it
    return found


def shares_at(progress: float) -> Shares:
    """Copying and short drafts first, worked examples later."""
    if progress < 0.08:
        return Shares(copies=0.2, shots=0.0, sentences=2)
    if progress < 0.3:
        return Shares(copies=0.05, shots=0.04, sentences=4)
    if progress < 0.58:  # side by side, requests show what they change
        return Shares(copies=0.02, shots=0.14, sentences=5, revisions=3, answers=1)
    return Shares(copies=0.02, shots=0.14, sentences=5)


class PolicyWorker(Worker):
    """One process that trains the policy."""

    network: PolicyNetwork

    def build(self) -> PolicyNetwork:
        self.encoder = TextEncoder(self.tokenizer)
        self.layout = read_layout()
        return build_network(self.encoder.size)

    def _draw(self, rng: random.Random, words: Lexicon) -> list[Example]:
        return draw_examples(rng, words, self.encoder, self.layout, shares_at(self.progress))

    def steps(self) -> Iterator[Step]:
        words = LooseLexicon(self.tokenizer)
        for examples in batches(self.rng, lambda: self._draw(self.rng, words), self.run.budget):
            batch = collate(examples)
            yield Step(losses(self.network, batch), batch.tokens)

    @torch.no_grad()
    def export(self, folder: Path) -> None:
        self.network.norm.mul_(SHARPNESS)
        super().export(folder)
        self.network.norm.div_(SHARPNESS)

    @torch.no_grad()
    def check(self, is_last: bool) -> dict[str, float]:
        """Mean loss, nats a token, by task, on the test half of the grammar."""
        rng = random.Random("policy check")
        found: dict[str, list[float]] = {}
        for _ in range(40 if is_last else 15):
            for example in self._draw(rng, lexicon("test")):
                batch = collate([example])
                for task, loss in zip(batch.tasks.tolist(), token_losses(self.network, batch).tolist(), strict=True):
                    found.setdefault(TASKS[task], []).append(loss)
        return {task: sum(values) / len(values) for task, values in found.items()}

"""How the judge is trained: its losses, its curriculum, and its worker of the training loop."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from .batches import Batch, batches, collate
from .checking import quick_check
from .layout import read_layout
from .lexicon import lexicon
from .loop import Run, Step, Worker, launch, prepare
from .model import JudgeNetwork, Shape
from .sequences import Encoder, Sequence, Shares, draw_sequences
from .tokenizer import train_tokenizer

TRAIT_WEIGHTS = torch.tensor([1.0, 1.5, 1.0, 1.0, 1.0, 1.0, 1.0, 3.0, 1.0])
"""Of the traits in `traits_of`: topic and the fulfilment of instructions are rarer or harder than the others."""


def train(run: Run, resume: bool = False) -> None:
    """Train and export; with `resume`, go on from the saved state, else start anew.

    A resumed run may have other `minutes`: the rest of the schedule is then stretched or cut.
    """
    tokenizer_file = prepare(run, resume)
    if not tokenizer_file.exists():
        layout = read_layout()
        texts = [*layout.preambles.values(), *layout.detailed.values(), *layout.questions.values()]
        train_tokenizer(run.seed, extra=texts).save(str(tokenizer_file))
    launch(JudgeWorker, run)


def losses(network: JudgeNetwork, batch: Batch, labels: Tensor) -> dict[str, Tensor]:
    """Every loss of a batch, weighted; their sum is trained. labels (10,): token ids of "1" to "10"."""
    states = network.hidden_states(batch.ids, batch.positions, batch.mask)
    answers = states[-1][batch.answer_at[:, 0], batch.answer_at[:, 1]]
    logprobs = F.log_softmax(network.logits(answers), dim=-1)[:, labels]
    each = -(batch.answers * logprobs).sum(-1)
    is_pair = batch.answers[:, 2:].sum(-1) == 0
    found = {"pairs": each[is_pair].sum() / len(each), "ratings": each[~is_pair].sum() / len(each)}
    middle = states[network.shape.layers - 3]
    kinds = network.kind_head(middle[batch.kind_at[:, 0], batch.kind_at[:, 1]])
    found["kind"] = F.binary_cross_entropy_with_logits(kinds, batch.kinds)
    traits = network.trait_head(middle[batch.traits_at[:, 0], batch.traits_at[:, 1]])
    found["traits"] = 0.5 * (TRAIT_WEIGHTS * (traits - batch.traits) ** 2).mean()
    upper = states[network.shape.layers - 2][batch.answer_at[:, 0], batch.answer_at[:, 1]]
    found["difference"] = 0.5 * (TRAIT_WEIGHTS * (network.difference_head(upper) - batch.differences) ** 2).mean()
    found["asked"] = F.binary_cross_entropy_with_logits(network.asked_head(upper), batch.kinds)
    is_known = batch.segments >= 0
    found["segment"] = 0.1 * F.cross_entropy(network.segment_head(states[0][is_known]), batch.segments[is_known])
    is_response = batch.matches >= 0
    matches = network.match_head(states[1][is_response]).squeeze(-1)
    found["match"] = 0.6 * F.binary_cross_entropy_with_logits(matches, batch.matches[is_response].float())
    if len(batch.told):
        told = network.logits(states[-1][batch.told_at[:, 0], batch.told_at[:, 1]])
        found["told"] = 0.05 * F.cross_entropy(told, batch.told)
    return found


def _shares(progress: float) -> Shares:
    """Short texts and copying first, long texts in the last third."""
    if progress < 0.12:
        return Shares(tiny=0.8, long=0.0, copy=0.25)
    if progress < 0.6:
        return Shares(tiny=0.25, long=0.03, copy=0.12)
    return Shares(tiny=0.1, long=0.2, copy=0.04)


class JudgeWorker(Worker):
    """One process that trains the judge."""

    network: JudgeNetwork

    def build(self) -> JudgeNetwork:
        self.encoder = Encoder(self.tokenizer)
        self.layout = read_layout()
        self.labels = torch.tensor(self.encoder.labels)
        return JudgeNetwork(Shape(vocabulary=-(-self.encoder.size // 64) * 64))

    def steps(self) -> Iterator[Step]:
        words = lexicon("train")

        def draw() -> list[Sequence]:
            return draw_sequences(self.rng, words, self.encoder, self.layout, _shares(self.progress))

        for sequences in batches(self.rng, draw, self.run.budget):
            batch = collate(sequences)
            yield Step(losses(self.network, batch, self.labels), batch.tokens)

    def check(self, is_last: bool) -> dict[str, float]:
        return quick_check(self.network, self.encoder, self.layout, 60 if is_last else 40)

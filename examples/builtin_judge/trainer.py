"""The training loop: one process per core, gradients averaged over gloo, a schedule in minutes, resumable."""

from __future__ import annotations

import json
import os
import random
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from .batches import Batch, batches, collate
from .checking import quick_check
from .layout import Layout, read_layout
from .lexicon import lexicon
from .model import JudgeNetwork, Shape, export
from .optimizer import Optimizer
from .sequences import Encoder, Shares, draw_sequences
from .tokenizer import BOS, END, PAD, save_tokenizer, train_tokenizer

TRAIT_WEIGHTS = torch.tensor([1.0, 1.5, 1.0, 1.0, 1.0, 1.0, 1.0, 3.0, 1.0])
"""Of the traits in `traits_of`: topic and the fulfilment of instructions are rarer or harder than the others."""


@dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
        out: Folder of the finished model.
        state: Folder of the resumable state, the tokenizer in use and the log.
        minutes: Wall-clock minutes of training, all resumed parts together; the learning rate follows it.
        processes: One-thread processes.
        seed: Of data and weights.
        budget: Padded tokens a process takes per step.
        checks: Held-out checks over the run.
    """

    out: Path
    state: Path
    minutes: float
    processes: int = 2
    seed: int = 0
    budget: int = 1600
    checks: int = 7


def train(run: Run, resume: bool = False) -> None:
    """Train and export; with `resume`, go on from the saved state, else start anew.

    A resumed run may have other `minutes`: the rest of the schedule is then stretched or cut.
    """
    run.state.mkdir(parents=True, exist_ok=True)
    if not resume:
        (run.state / "state.pt").unlink(missing_ok=True)
    tokenizer_file = run.state / "tokenizer.json"
    if not tokenizer_file.exists():
        layout = read_layout()
        texts = [*layout.preambles.values(), *layout.detailed.values(), *layout.questions.values()]
        train_tokenizer(run.seed, extra=texts).save(str(tokenizer_file))
    (run.state / "run.json").write_text(json.dumps(asdict(run), default=str, indent=2) + "\n", encoding="utf-8")
    meeting = run.state / f"meeting-{os.getpid()}"
    mp.spawn(_work, args=(run, str(meeting)), nprocs=run.processes)
    meeting.unlink(missing_ok=True)


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


class _Worker:
    """One process of a run: its share of the data, a copy of the network, and, in process 0, log and files."""

    def __init__(self, run: Run, rank: int) -> None:
        self.run, self.rank = run, rank
        self.tokenizer = Tokenizer.from_file(str(run.state / "tokenizer.json"))
        self.encoder = Encoder(self.tokenizer)
        self.layout: Layout = read_layout()
        torch.manual_seed(run.seed)
        self.network = JudgeNetwork(Shape(vocabulary=-(-self.encoder.size // 64) * 64))
        self.optimizer = Optimizer(self.network.matrices(), self.network.others())
        self.labels = torch.tensor(self.encoder.labels)
        self.progress, self.elapsed, self.updates, self.tokens = 0.0, 0.0, 0, 0.0
        if (run.state / "state.pt").exists():
            self._load()
        self.rng = random.Random(f"{run.seed}:{rank}:{self.updates}")

    def loop(self) -> None:
        words = lexicon("train")

        def draw():  # type: ignore[no-untyped-def]
            return draw_sequences(self.rng, words, self.encoder, self.layout, _shares(self.progress))

        started, before = time.monotonic(), self.elapsed
        next_check, next_save, next_line = self.progress, time.monotonic() + 120, 0.0
        means: dict[str, float] = {}
        for sequences in batches(self.rng, draw, self.run.budget):
            batch = collate(sequences)
            found = losses(self.network, batch, self.labels)
            torch.stack(list(found.values())).sum().backward()
            self.elapsed = before + time.monotonic() - started
            self._average(batch.tokens)
            self.optimizer.step(self.progress, self.updates)
            self.updates += 1
            for name, value in found.items():
                means[name] = 0.97 * means.get(name, value.item()) + 0.03 * value.item()
            if self.rank == 0 and time.monotonic() > next_line:
                self._log(means)
                next_line = time.monotonic() + 20
            if self.progress >= next_check:
                next_check += 1.0 / self.run.checks
                if self.rank == 0:
                    self._check()
            if self.rank == 0 and (time.monotonic() > next_save or self.progress >= 1.0):
                self._save()
                next_save = time.monotonic() + 150
            if self.progress >= 1.0:
                break
        if self.rank == 0:
            self._check(pairs=60)
            self.export(self.run.out)
        dist.barrier()

    def _average(self, tokens: int) -> None:
        """Average gradients and clocks over the processes: all see the same progress and stop together."""
        own = [p for p in self.optimizer.parameters if p.grad is not None]
        extra = torch.tensor([self.elapsed / 60 / self.run.minutes, float(tokens)])
        flat = torch.cat([*(p.grad.flatten() for p in own if p.grad is not None), extra])
        dist.all_reduce(flat)
        self.tokens += float(flat[-1])
        flat /= self.run.processes
        self.progress = float(flat[-2])
        start = 0
        for parameter in own:
            assert parameter.grad is not None
            parameter.grad.copy_(flat[start : start + parameter.numel()].view_as(parameter))
            start += parameter.numel()

    def _log(self, means: dict[str, float]) -> None:
        shown = " ".join(f"{name} {value:.3f}" for name, value in means.items())
        rate = self.tokens / max(1.0, self.elapsed)
        print(
            f"{time.strftime('%H:%M:%S')} {100 * self.progress:5.1f} % step {self.updates} "
            f"{self.tokens / 1e6:.2f} M tokens, {rate:.0f}/s: {shown}",
            flush=True,
        )

    def _check(self, pairs: int = 40) -> None:
        figures = quick_check(self.network, self.encoder, self.layout, pairs)
        print("held out: " + " ".join(f"{name} {value:.2f}" for name, value in figures.items()), flush=True)

    def export(self, folder: Path) -> None:
        tokens = {n: self.tokenizer.token_to_id(t) for n, t in (("bos", BOS), ("eos", END), ("pad", PAD))}
        export(self.network, folder, tokens)
        save_tokenizer(self.tokenizer, folder)

    def _save(self) -> None:
        state = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "counts": (self.elapsed, self.updates, self.tokens),
        }
        partial = self.run.state / "state.part"
        torch.save(state, partial)
        partial.replace(self.run.state / "state.pt")
        self.export(self.run.state / "model")

    def _load(self) -> None:
        state = torch.load(self.run.state / "state.pt")
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.elapsed, self.updates, self.tokens = state["counts"]
        self.progress = self.elapsed / 60 / self.run.minutes


def _work(rank: int, run: Run, meeting: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=run.processes)
    _Worker(run, rank).loop()
    dist.destroy_process_group()

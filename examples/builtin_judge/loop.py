"""The training loop that the judge and the policy share: one process per core, gradients averaged over gloo, a schedule
in minutes, resumable. What is learnt, and from what, stands in the workers that derive from `Worker`.
"""

from __future__ import annotations

import json
import os
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from tokenizers import Tokenizer
from torch import Tensor

from .model import Decoder, export
from .optimizer import Optimizer
from .tokenizer import BOS, END, PAD, save_tokenizer


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


def launch(worker: type[Worker], run: Run) -> None:
    """Run a worker in each process until the schedule ends; the tokenizer is in the state folder by then."""
    (run.state / "run.json").write_text(json.dumps(asdict(run), default=str, indent=2) + "\n", encoding="utf-8")
    meeting = run.state / f"meeting-{os.getpid()}"
    mp.spawn(_work, args=(worker, run, str(meeting)), nprocs=run.processes)
    meeting.unlink(missing_ok=True)


def prepare(run: Run, resume: bool) -> Path:
    """Make the state folder, forget the last run unless it goes on, and say where the tokenizer belongs."""
    run.state.mkdir(parents=True, exist_ok=True)
    if not resume:
        (run.state / "state.pt").unlink(missing_ok=True)
    return run.state / "tokenizer.json"


class Step(NamedTuple):
    """Weighted losses of one step, whose sum is trained, and how many tokens it took."""

    losses: dict[str, Tensor]
    tokens: int


class Worker(ABC):
    """One process of a run: its share of the data, a copy of the network, and, in process 0, log and files."""

    def __init__(self, run: Run, rank: int) -> None:
        self.run, self.rank = run, rank
        self.tokenizer = Tokenizer.from_file(str(run.state / "tokenizer.json"))
        torch.manual_seed(run.seed)
        self.network = self.build()
        self.optimizer = Optimizer(self.network.matrices(), self.network.others())
        self.progress, self.elapsed, self.updates, self.tokens = 0.0, 0.0, 0, 0.0
        if (run.state / "state.pt").exists():
            self._load()
        self.rng = random.Random(f"{run.seed}:{rank}:{self.updates}")

    @abstractmethod
    def build(self) -> Decoder:
        """The network, with new weights."""

    @abstractmethod
    def steps(self) -> Iterator[Step]:
        """Endless steps, each with its losses computed."""

    @abstractmethod
    def check(self, is_last: bool) -> dict[str, float]:
        """Figures on held-out data."""

    def loop(self) -> None:
        started, before = time.monotonic(), self.elapsed
        next_check, next_save, next_line = self.progress, time.monotonic() + 120, 0.0
        means: dict[str, float] = {}
        for found, tokens in self.steps():
            torch.stack(list(found.values())).sum().backward()
            self.elapsed = before + time.monotonic() - started
            self._average(tokens)
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
            self._check(is_last=True)
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

    def _check(self, is_last: bool = False) -> None:
        figures = self.check(is_last)
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


def _work(rank: int, worker: type[Worker], run: Run, meeting: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=run.processes)
    worker(run, rank).loop()
    dist.destroy_process_group()

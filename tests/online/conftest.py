"""What the tests of online training share."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny tensors on one thread: with more, threads wait for each other longer than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True, scope="package")
def _quick_collection() -> Iterator[None]:
    """Every run of a trainer collects garbage, which takes longer than its steps if all modules are looked through."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def without_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """No plots at the end of a run, which take longer than the run."""
    from rlaif.online import results  # torch

    monkeypatch.setattr(results, "plot_curves", lambda *_, **__: [])


@pytest.fixture(scope="session")
def bandit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.online.online_runs import save_bandit

    return save_bandit(tmp_path_factory.mktemp("bandit"))


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    from tests.online.online_runs import write_prompts

    return write_prompts(tmp_path / "prompts.jsonl")

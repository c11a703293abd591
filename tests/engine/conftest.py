"""What the tests of training runs share; the other tests of this folder load no torch for it."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def quick_training(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[None]:
    """One thread, no curves unless a test asks for `draws_curves`, and no garbage looked for in all modules."""
    import torch

    from rlaif.engine import training_results

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    gc.freeze()
    if "draws_curves" not in request.fixturenames:
        monkeypatch.setattr(training_results, "plot_curves", lambda *given, **more: [])
    yield
    gc.unfreeze()
    torch.set_num_threads(before)


@pytest.fixture
def draws_curves() -> None:
    return None


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random language model."""
    from tiny_models import save_model

    return save_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def pairs(tmp_path: Path) -> str:
    """A file of pairs with their labels."""
    from tests.engine.training_runs import pair_rows, write_rows

    return write_rows(tmp_path / "pairs.jsonl", pair_rows())

"""What the tests of training share."""

from __future__ import annotations

import gc
from collections.abc import Iterator

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

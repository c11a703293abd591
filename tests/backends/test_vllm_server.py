"""vLLM's own server, asked through `openai:`: the same labels and ratings as the `hf` backend's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from importlib.util import find_spec

import pytest

from rlaif.backends.base import Backend
from rlaif.backends.hf import HfBackend
from rlaif.backends.openai_api import OpenAIBackend
from rlaif.judge.config import JudgeConfig
from tests.backends.conftest import BUILTIN
from tests.backends.contract import BackendContract
from tests.backends.judging import compare, example_comparisons, example_responses, rate

pytestmark = pytest.mark.skipif(find_spec("vllm") is None, reason="needs vLLM: make test-vllm")

CONFIG = JudgeConfig(min_label_mass=0.0)


@pytest.fixture
async def server(vllm_url: str) -> AsyncIterator[Backend]:
    backend = OpenAIBackend("judge", base_urls=(vllm_url,), timeout=300.0)
    yield backend
    await backend.aclose()


@pytest.fixture
async def hf() -> AsyncIterator[Backend]:
    backend = HfBackend(str(BUILTIN), device="cpu")
    yield backend
    await backend.aclose()


class TestVllmServer(BackendContract):
    @pytest.fixture
    def backend(self, server: Backend) -> Backend:
        return server


async def test_labels_equal_those_of_transformers(server: Backend, hf: Backend) -> None:
    mine, theirs = [await compare(backend, example_comparisons(32), CONFIG) for backend in (server, hf)]
    for name in ("prob_a", "prob_a_ab", "prob_a_ba", "label_mass_ab", "label_mass_ba"):
        found, expected = ([getattr(judgment, name) for judgment in judgments] for judgments in (mine, theirs))
        assert found == pytest.approx(expected, abs=1e-3)
    assert not any(judgment.is_bounded for judgment in mine)


async def test_ratings_equal_those_of_transformers(server: Backend, hf: Backend) -> None:
    mine, theirs = [await rate(backend, example_responses(32), CONFIG) for backend in (server, hf)]
    for one, other in zip(mine, theirs, strict=True):
        assert one.probs == pytest.approx(other.probs, abs=1e-3)
        assert one.rating == pytest.approx(other.rating, abs=1e-3)
        assert not one.is_bounded

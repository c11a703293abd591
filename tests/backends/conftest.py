"""One torch thread for all tests here: on tiny models threads wait for each other more than they work."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.backends.vllm_serving import serve_vllm

BUILTIN = Path(__file__).resolve().parents[2] / "rlaif" / "backends" / "builtin_model"


@pytest.fixture(autouse=True, scope="session")
def one_torch_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def vllm_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address, up to and with /v1, of vLLM's own server with the built-in judge as the model "judge"; one a session."""
    if find_spec("vllm") is None:
        pytest.skip("needs vLLM: make test-vllm")
    with serve_vllm(BUILTIN, tmp_path_factory.mktemp("vllm") / "server.log") as url:
        yield url

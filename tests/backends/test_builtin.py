"""The door of the shipped models; how good they are is measured where they are trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlaif.backends import builtin
from rlaif.backends.builtin import BUILTIN_MODELS, BuiltinBackend
from rlaif.errors import BackendUnusableError, ConfigError
from rlaif.records import ScoreRequest
from tests.backends.contract import LABELS, messages


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown model \(did you mean 'tiny' or 'tiny-policy'\?\); known: tiny, "):
        BuiltinBackend("tinyy")


def test_a_package_without_its_model_says_which_file_and_no_machine_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BUILTIN_MODELS, "tiny", "left_out")
    with pytest.raises(
        BackendUnusableError, match=r"lacks rlaif/backends/left_out/config\.json; the installation"
    ) as caught:
        BuiltinBackend("tiny")
    assert str(Path(builtin.__file__).parent) not in str(caught.value)


async def test_it_answers_from_the_shipped_folder() -> None:
    import rlaif.backends

    folder = Path(rlaif.backends.__file__).parent / BUILTIN_MODELS["tiny"]
    if not (folder / "model.safetensors").is_file():
        pytest.skip("the model is not built yet: python examples/train_builtin_judge.py")
    backend = BuiltinBackend("tiny")
    reply = await backend.score(ScoreRequest(messages("Hello."), LABELS))
    await backend.aclose()
    assert backend.name == "builtin:tiny"
    assert {token.token.strip() for token in reply.tokens} == set(LABELS)
    assert (backend.capabilities.context_tokens or 0) >= 1024

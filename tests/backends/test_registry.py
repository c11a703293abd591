"""Names to backends: ours, other packages', and what is said of the rest."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from rlaif.backends import registry
from rlaif.backends.config import BackendConfig
from rlaif.backends.fake import FakeBackend
from rlaif.backends.registry import is_demonstration, open_backend
from rlaif.errors import ConfigError


def third_party(model: str, config: BackendConfig) -> FakeBackend:
    return FakeBackend(lambda request: 0.5, name=f"acme:{model}, {config.timeout:g} s")


def test_a_backend_of_another_package_is_found_by_its_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("acme", f"{__name__}:third_party", registry.__name__)
    monkeypatch.setattr(EntryPoint, "load", lambda self: third_party)
    monkeypatch.setattr(registry, "entry_points", lambda group: [entry] if group == "rlaif.backends" else [])
    assert open_backend("acme:best", BackendConfig(timeout=5.0)).name == "acme:best, 5 s"
    with pytest.raises(ConfigError, match=r"unknown backend 'acne' \(did you mean 'acme'\?\); known: acme, builtin"):
        open_backend("acne:best", BackendConfig())


@pytest.mark.parametrize("spec", ["gpt-4.1-mini", "openai:", ":model", ""])
def test_a_judge_is_named_by_backend_and_model(spec: str) -> None:
    with pytest.raises(ConfigError, match="expected BACKEND:MODEL|unknown backend"):
        open_backend(spec, BackendConfig())


def test_only_the_builtin_judges_are_demonstrations() -> None:
    assert is_demonstration("builtin:tiny")
    assert not is_demonstration("openai:builtin")


@pytest.mark.parametrize("model", ["two", "1.5", "-0.1", "nan"])
def test_a_fake_is_a_probability_or_longer(model: str) -> None:
    with pytest.raises(ConfigError, match="expected a probability"):
        open_backend(f"fake:{model}", BackendConfig())

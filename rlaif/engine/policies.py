"""Models that write: opened by their names, and as members of a panel."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rlaif.backends.base import Backend
from rlaif.backends.config import ModelConfig
from rlaif.backends.registry import is_demonstration, is_reward_model, open_backend
from rlaif.engine.asking import Asker
from rlaif.errors import ConfigError
from rlaif.policies.revision import Reviser
from rlaif.policies.sampling import Sampler


@dataclass(frozen=True)
class Policy:
    """A policy: what it is asked, and who answers. A member of a panel."""

    judge: Sampler | Reviser
    asker: Asker

    @property
    def name(self) -> str:
        return self.asker.backend.name


def open_policies(specs: Sequence[str], config: ModelConfig) -> tuple[Backend, ...]:
    """The models that are to write.

    Raises:
        ConfigError: There is no such model, or it is one that writes nothing.
    """
    for spec in specs:
        if is_reward_model(spec):  # before it is loaded
            raise ConfigError(f"policy {spec} is a reward model, which writes no text; name a language model")
    backends = tuple(open_backend(spec, config, word="policy") for spec in specs)
    for backend in backends:
        if backend.capabilities.has_rewards:
            raise ConfigError(f"policy {backend.name} is a reward model, which writes no text; name a language model")
    return backends


def policies_json(askers: Iterable[Asker]) -> list[dict[str, Any]]:
    """What `run.json` says of the models that write."""
    return [
        {
            "name": asker.backend.name,
            "identity": dict(asker.backend.identity),
            "is_demonstration": is_demonstration(asker.backend.name),
        }
        for asker in askers
    ]

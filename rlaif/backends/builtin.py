"""The judge that ships with rlaif: a tiny model that shows and tests the pipeline."""

from __future__ import annotations

from pathlib import Path

from rlaif.backends.hf import HfBackend
from rlaif.errors import ConfigError, did_you_mean

BUILTIN_MODELS = {"tiny": "builtin_model"}
"""Name -> folder beside this file."""


class BuiltinBackend(HfBackend):
    """The shipped model behind `builtin:NAME`, run on the CPU: it is too small for a GPU to help.

    Args:
        model: "tiny".
        max_batch_tokens, truncate: As in `HfBackend`.

    Raises:
        ConfigError: There is no such model.
    """

    def __init__(self, model: str = "tiny", *, max_batch_tokens: int = 16384, truncate: bool = False) -> None:
        if model not in BUILTIN_MODELS:
            hint = did_you_mean(model, BUILTIN_MODELS)
            raise ConfigError(f"judge 'builtin:{model}': unknown model{hint}; known: {', '.join(BUILTIN_MODELS)}")
        super().__init__(
            str(Path(__file__).parent / BUILTIN_MODELS[model]),
            name=f"builtin:{model}",
            device="cpu",
            max_batch_tokens=max_batch_tokens,
            truncate=truncate,
        )

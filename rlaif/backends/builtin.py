"""The judge that ships with rlaif: a tiny model that shows and tests the pipeline."""

from __future__ import annotations

import difflib
from pathlib import Path

from rlaif.backends.hf import HfBackend
from rlaif.errors import ConfigError

BUILTIN_MODELS = {"tiny": "builtin_model"}
"""Name -> folder beside this file."""

DEMONSTRATION_WARNING = (
    "builtin:tiny is a demonstration judge: it shows that the pipeline works and must not label data you rely on"
)


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
            near = difflib.get_close_matches(model, BUILTIN_MODELS, n=1, cutoff=0.3)
            hint = f" (did you mean 'builtin:{near[0]}'?)" if near else ""
            known = ", ".join(BUILTIN_MODELS)
            raise ConfigError(f"judge 'builtin:{model}': unknown model{hint}; known: {known}")
        super().__init__(
            str(Path(__file__).parent / BUILTIN_MODELS[model]),
            name=f"builtin:{model}",
            device="cpu",
            max_batch_tokens=max_batch_tokens,
            truncate=truncate,
        )

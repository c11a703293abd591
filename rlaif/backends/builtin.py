"""The models that ship with rlaif: a tiny judge and a tiny policy, which show and test the pipeline."""

from __future__ import annotations

from pathlib import Path

from rlaif.backends.hf import HfBackend
from rlaif.errors import BackendUnusableError, ConfigError, did_you_mean

BUILTIN_MODELS = {"tiny": "builtin_model", "tiny-policy": "builtin_policy_model"}
"""Name -> folder beside this file: the judge, and the policy that answers, criticises and revises."""

_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


class BuiltinBackend(HfBackend):
    """A shipped model behind `builtin:NAME`, run on the CPU: it is too small for a GPU to help.

    Args:
        model: "tiny", the judge, or "tiny-policy".
        max_batch_tokens, truncate: As in `HfBackend`.

    Raises:
        ConfigError: There is no such model.
        BackendUnusableError: Its files are missing: the installation is broken.
    """

    def __init__(self, model: str = "tiny", *, max_batch_tokens: int = 16384, truncate: bool = False) -> None:
        folder = builtin_folder(model)
        super().__init__(
            str(folder),
            name=f"builtin:{model}",
            device="cpu",
            max_batch_tokens=max_batch_tokens,
            truncate=truncate,
        )


def builtin_folder(name: str) -> Path:
    """The folder of a shipped model. Raises as `BuiltinBackend`.

    >>> builtin_folder("tiny").name
    'builtin_model'
    """
    if name not in BUILTIN_MODELS:
        hint = did_you_mean(name, BUILTIN_MODELS)
        raise ConfigError(f"'builtin:{name}': unknown model{hint}; known: {', '.join(BUILTIN_MODELS)}")
    folder = Path(__file__).parent / BUILTIN_MODELS[name]
    if missing := [file for file in _FILES if not (folder / file).is_file()]:
        raise BackendUnusableError(
            f"'builtin:{name}': the package lacks rlaif/backends/{folder.name}/{missing[0]}; "
            "the installation is broken, install rlaif again"
        )
    return folder

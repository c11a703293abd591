"""Finding and loading a transformers model: its files, its fingerprint, and a clear sentence when one is missing."""

from __future__ import annotations

import difflib
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlaif.errors import BackendUnusableError, ConfigError

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

_DTYPES = ("auto", "float32", "bfloat16", "float16")
_END_BYTES = 1 << 20
_UNBOUNDED = 10**9
"""Tokenizers without a limit of their own say 10**30."""


@dataclass(frozen=True)
class ModelSource:
    """A model found, its weights not yet loaded.

    Attributes:
        path: Folder, or name on the hub.
        revision: On the hub: branch, tag or commit; None for its default.
        device: Such as "cpu" or "cuda".
        dtype: Name of the number type the weights are loaded in.
        config, tokenizer: As transformers loads them.
        fingerprint: SHA-256 (hex) of the files, or the hub's commit.
        context_tokens: Longest prompt and completion together; None when the model says nothing.
        allows_pickle: Whether weights that are not safetensors may be loaded.
    """

    path: str
    revision: str | None
    device: str
    dtype: str
    config: PretrainedConfig
    tokenizer: PreTrainedTokenizerFast
    fingerprint: str
    context_tokens: int | None
    allows_pickle: bool

    @property
    def name(self) -> str:
        """The name on the hub, or the folder's own name: no machine path."""
        return Path(self.path).resolve().name if Path(self.path).is_dir() else self.path


def find_model(
    path_or_name: str, *, backend: str = "hf", device: str, dtype: str, allows_pickle: bool = False
) -> ModelSource:
    """Read a model's config and tokenizer.

    Args:
        path_or_name: A folder, or OWNER/NAME[@REVISION] on the hub.
        backend: Who asks, for messages.
        device: A torch device, or "auto": cuda, then mps, then cpu.
        dtype: float32, bfloat16, float16, or "auto": as saved, but float32 on a CPU.
        allows_pickle: See `ModelSource`.

    Raises:
        ConfigError: There is no such folder, device or dtype, or the folder holds no model.
        BackendUnusableError: The hub has no such model, or cannot be reached.
    """
    from transformers import AutoConfig, AutoTokenizer

    judge = f"{backend}:{path_or_name}"
    path, revision = _place(path_or_name, judge)
    chosen_device = _device(device)
    try:
        config = AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(path, revision=revision, trust_remote_code=False)
    except Exception as error:  # transformers, the hub client and tokenizers each raise their own kinds
        raise _unusable(judge, path_or_name, error) from error
    is_local = Path(path).is_dir()
    return ModelSource(
        path=path,
        revision=revision,
        device=chosen_device,
        dtype=_dtype(dtype, config, chosen_device),
        config=config,
        tokenizer=tokenizer,
        fingerprint=fingerprint_folder(Path(path)) if is_local else str(getattr(config, "_commit_hash", revision)),
        context_tokens=_context_tokens(config, tokenizer),
        allows_pickle=allows_pickle,
    )


def load_model(source: ModelSource) -> PreTrainedModel:
    """Load the weights, ready to be asked.

    Raises:
        BackendUnusableError: They are missing, damaged, not safetensors, or do not fit into memory.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging as transformers_logging

    shows_bar = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # the run's own bar is on the screen
    try:
        model = AutoModelForCausalLM.from_pretrained(
            source.path,
            revision=source.revision,
            dtype=getattr(torch, source.dtype),
            trust_remote_code=False,
            use_safetensors=None if source.allows_pickle else True,
        )
        return model.to(source.device).eval()
    except Exception as error:  # as above; CUDA's out of memory too
        raise _unusable(f"hf:{source.path}", source.path, error) from error
    finally:
        if shows_bar:
            transformers_logging.enable_progress_bar()


def fingerprint_folder(folder: Path) -> str:
    """SHA-256 (hex) of a model folder: JSON files whole, of each weights file its size, first and last MiB.

    Cheap also for large models; a change of weights that leaves size and both ends alone is not seen.
    """
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.suffix not in {".json", ".jinja", ".model", ".safetensors", ".bin", ".txt"} or not file.is_file():
            continue
        digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as handle:
            if file.suffix in {".safetensors", ".bin"}:
                digest.update(handle.read(_END_BYTES))
                handle.seek(max(0, file.stat().st_size - _END_BYTES))
            digest.update(handle.read())
    return digest.hexdigest()


def stop_ids(source: ModelSource) -> frozenset[int]:
    """Every token that ends an answer: the generation config may name several, the tokenizer one more."""
    from transformers import GenerationConfig

    try:
        generation = GenerationConfig.from_pretrained(source.path, revision=source.revision)
    except (OSError, ValueError):  # a model need not have one
        generation = None
    tokenizer = source.tokenizer
    found: set[int] = set()
    for config in (generation, source.config, source.config.get_text_config()):
        named = getattr(config, "eos_token_id", None)
        found.update(named if isinstance(named, list | tuple) else [] if named is None else [named])
    return frozenset(found | ({tokenizer.eos_token_id} if tokenizer.eos_token_id is not None else set()))


def _place(path_or_name: str, judge: str) -> tuple[str, str | None]:
    folder = Path(path_or_name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ConfigError(f"judge {judge!r}: the folder has no config.json; expected a transformers model")
        return str(folder), None
    name, _, revision = path_or_name.partition("@")
    looks_like_path = path_or_name.startswith((".", "~", os.sep)) or name.count("/") > 1 or folder.exists()
    if not looks_like_path:
        return name, revision or None
    siblings = [entry.name for entry in folder.parent.iterdir() if entry.is_dir()] if folder.parent.is_dir() else []
    near = difflib.get_close_matches(folder.name, siblings, n=1)
    hint = f" (did you mean {str(folder.parent / near[0])!r}?)" if near else ""
    raise ConfigError(
        f"judge {judge!r}: there is no such folder{hint}; expected a folder with config.json, "
        "tokenizer.json and safetensors, or OWNER/NAME on the hub"
    )


def _device(device: str) -> str:
    import torch

    if device != "auto":
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            raise ConfigError(f"device {device!r} cannot be used: {_first_line(error)}") from error
        return device
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _dtype(dtype: str, config: PretrainedConfig, device: str) -> str:
    if dtype not in _DTYPES:
        raise ConfigError(f"dtype {dtype!r}: expected one of {', '.join(_DTYPES)}")
    if dtype != "auto":
        return dtype
    saved: torch.dtype | str | None = getattr(config, "dtype", None)
    return "float32" if device == "cpu" or saved is None else str(saved).removeprefix("torch.")


def _context_tokens(config: PretrainedConfig, tokenizer: PreTrainedTokenizerFast) -> int | None:
    text_config = config.get_text_config() if hasattr(config, "get_text_config") else config
    limits = [getattr(text_config, "max_position_embeddings", None), tokenizer.model_max_length]
    known = [limit for limit in limits if isinstance(limit, int) and 0 < limit < _UNBOUNDED]
    return min(known, default=None)


def _unusable(judge: str, path_or_name: str, error: Exception) -> BackendUnusableError:
    reason = _first_line(error)
    if "safetensors" in str(error) and ("no file named" in str(error) or "does not appear to have" in str(error)):
        reason = "it has no safetensors weights, and pickled ones can run code; convert them"
    elif "trust_remote_code" in str(error):
        reason = "it brings its own code, which rlaif does not run; expected an architecture that transformers has"
    elif os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"} and not Path(path_or_name).is_dir():
        reason = f"it is not in the local cache and HF_HUB_OFFLINE forbids to look further ({reason})"
    return BackendUnusableError(f"judge {judge!r} cannot be loaded: {reason}")


def _first_line(error: BaseException) -> str:
    lines: list[str] = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def describe(source: ModelSource) -> Mapping[str, Any]:
    """What of the model can change an answer."""
    return {"model": source.name, "fingerprint": source.fingerprint, "dtype": source.dtype}

"""Finding and loading a transformers model: its files, its fingerprint, and a clear sentence when one is missing."""

from __future__ import annotations

import difflib
import hashlib
import math
import os
import threading
from collections.abc import Collection, Mapping
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

_LOADING = threading.Lock()
"""transformers changes torch for the whole process while it builds a model: of two loaded at the same time in two
threads, one is left without weights."""


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
        called: What messages call it, such as "model 'hf:NAME'": it may judge or answer.
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
    called: str

    @property
    def name(self) -> str:
        """The name on the hub, or the folder's own name: no machine path."""
        return Path(self.path).resolve().name if Path(self.path).is_dir() else self.path


def find_model(
    path_or_name: str, *, backend: str | None = "hf", device: str, dtype: str, allows_pickle: bool = False
) -> ModelSource:
    """Read a model's config and tokenizer.

    Args:
        path_or_name: A folder, or OWNER/NAME[@REVISION] on the hub.
        backend: Who asks it as a judge, for messages; None for a model that is none.
        device: A torch device, or "auto": cuda, then mps, then cpu.
        dtype: float32, bfloat16, float16, or "auto": as saved, but float32 on a CPU.
        allows_pickle: See `ModelSource`.

    Raises:
        ConfigError: There is no such folder, device or dtype, or the folder holds no model.
        BackendUnusableError: The hub has no such model, or cannot be reached.
    """
    from transformers import AutoConfig, AutoTokenizer

    called = f"model {path_or_name if backend is None else f'{backend}:{path_or_name}'!r}"
    path, revision = _place(path_or_name, called)
    chosen_device = _device(device)
    try:
        config = AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(path, revision=revision, trust_remote_code=False)
    except Exception as error:  # transformers, the hub client and tokenizers each raise their own kinds
        raise _unusable(called, path_or_name, error) from error
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
        called=called,
    )


def load_model(source: ModelSource, **options: Any) -> PreTrainedModel:
    """Load the weights, ready to be asked.

    Args:
        options: As for `load_weights`.

    Raises:
        ConfigError: It is a reward model, or there are no weights for a part of it.
        BackendUnusableError: They are missing, damaged, not safetensors, or do not fit into memory.
    """
    from transformers import AutoModelForCausalLM

    # Where input and output embeddings are tied, no weight would be missing, and what it writes would be noise.
    if any(kind.endswith("ForSequenceClassification") for kind in source.config.architectures or ()):
        raise ConfigError(
            f"{source.called} is a reward model, expected a language model; hf-reward:PATH judges with it"
        )
    model, info = load_weights(AutoModelForCausalLM, source, **options)
    refuse_missing(source, info["missing_keys"], "a causal language model with all of its weights")
    return model


def load_reward_model(source: ModelSource, **options: Any) -> PreTrainedModel:
    """Load the weights of a reward model, ready to score; its `pad_token_id` is set.

    Args:
        options: As for `load_weights`.

    Raises:
        ConfigError: It is no reward model: it has other than one label, no layer `score`, or no weights for it.
        BackendUnusableError: As `load_model`.
    """
    from transformers import AutoModelForSequenceClassification

    check_reward_model(source)
    model, info = load_weights(AutoModelForSequenceClassification, source, **options)
    require_score_layer(source, model)
    refuse_missing(source, info["missing_keys"], "a reward model that was trained (rlaif train rm)")
    config = model.config.get_text_config()
    if config.pad_token_id is None:  # without one, transformers refuses batches; which one, nothing depends on
        config.pad_token_id = 0
    return model


def check_reward_model(source: ModelSource) -> None:
    """Refuse what is no reward model by its configuration, before weights are loaded.

    Raises:
        ConfigError: It is a model of another kind, or has other than one label.
    """
    kinds = source.config.architectures or []
    if kinds and not any(kind.endswith("ForSequenceClassification") for kind in kinds):
        raise ConfigError(
            f"{source.called}: {', '.join(kinds)} is no reward model, expected one "
            "...ForSequenceClassification; a causal language model judges as hf:, or becomes one by rlaif train rm"
        )
    if source.config.num_labels != 1:
        raise ConfigError(f"{source.called}: it has {source.config.num_labels} labels; expected one, the reward")


def require_score_layer(source: ModelSource, model: PreTrainedModel) -> None:
    """Refuse a model of an architecture whose rewards cannot be read.

    Raises:
        ConfigError: It has no layer `score`.
    """
    if not hasattr(model, "score"):
        raise ConfigError(
            f"{source.called}: {type(model).__name__} has no layer 'score' over its tokens; "
            "expected a decoder, such as LlamaForSequenceClassification"
        )


def refuse_missing(source: ModelSource, missing: Collection[str], expected: str) -> None:
    """Refuse a model of which weights are missing: transformers would draw them at random, and go on.

    Args:
        missing: Names of the weights.
        expected: What should have been given, for the message.

    Raises:
        ConfigError: There is one.
    """
    if missing:
        names = ", ".join(sorted(missing)[:3])
        raise ConfigError(f"{source.called}: it has no weights for {names}; expected {expected}")


def reward_shift(config: PretrainedConfig) -> float:
    """What is subtracted from a reward model's raw scores, so that reference responses average 0; 0 where not recorded.

    `rlaif train rm` writes it into config.json, as `reward_shift`.

    Raises:
        ConfigError: It is recorded, and is no finite number.
    """
    shift = getattr(config, "reward_shift", 0.0)
    if isinstance(shift, bool) or not isinstance(shift, int | float) or not math.isfinite(shift):
        raise ConfigError(f"config.json holds reward_shift {shift!r}, expected a number")
    return float(shift)


def load_weights(auto_class: Any, source: ModelSource, **options: Any) -> tuple[PreTrainedModel, Mapping[str, Any]]:
    """The model in evaluation mode, and what transformers says of its weights, such as "missing_keys".

    Args:
        auto_class: Of transformers, such as `AutoModelForCausalLM`.
        options: Further ones of its `from_pretrained`; with `device_map` the model stays where that puts it.

    Raises:
        BackendUnusableError: As `load_model`.
    """
    import torch
    from transformers.utils import logging as transformers_logging

    with _LOADING:
        shows_bar = transformers_logging.is_progress_bar_enabled()
        verbosity = transformers_logging.get_verbosity()
        transformers_logging.disable_progress_bar()  # the run's own bar is on the screen
        transformers_logging.set_verbosity_error()  # and the table of missing weights is what `refuse_missing` is for
        try:
            model, info = auto_class.from_pretrained(
                source.path,
                revision=source.revision,
                dtype=getattr(torch, source.dtype),
                trust_remote_code=False,
                use_safetensors=None if source.allows_pickle else True,
                output_loading_info=True,
                **options,
            )
            return (model if "device_map" in options else model.to(source.device)).eval(), info
        except Exception as error:  # as above; CUDA's out of memory too
            raise _unusable(source.called, source.path, error) from error
        finally:
            transformers_logging.set_verbosity(verbosity)
            if shows_bar:
                transformers_logging.enable_progress_bar()


def fingerprint_folder(folder: Path, *, is_whole: bool = False) -> str:
    """SHA-256 (hex) of a model folder: JSON files whole (not a training run's record of itself, run.json), of each
    weights file its size, first and last MiB.

    Cheap also for large models; a change of weights that leaves size and both ends alone is not seen, unless all is
    read (`is_whole`), about a second for each GB.
    """
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.suffix not in {".json", ".jinja", ".model", ".safetensors", ".bin", ".txt"} or not file.is_file():
            continue
        if file.name == "run.json":
            continue
        digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as handle:
            if is_whole:
                digest.update(hashlib.file_digest(handle, "sha256").digest())
                continue
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


def _place(path_or_name: str, called: str) -> tuple[str, str | None]:
    folder = Path(path_or_name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            if (folder / "adapter_config.json").is_file():
                raise ConfigError(
                    f"{called}: the folder holds an adapter alone; expected a whole model (train it --merge)"
                )
            raise ConfigError(
                f"{called}: the folder has no config.json; expected a transformers model (a run of rlaif train is one "
                "when it is finished)"
            )
        return str(folder), None
    name, _, revision = path_or_name.partition("@")
    looks_like_path = path_or_name.startswith((".", "~", os.sep)) or name.count("/") > 1 or folder.exists()
    if not looks_like_path:
        return name, revision or None
    siblings = [entry.name for entry in folder.parent.iterdir() if entry.is_dir()] if folder.parent.is_dir() else []
    near = difflib.get_close_matches(folder.name, siblings, n=1)
    hint = f" (did you mean {str(folder.parent / near[0])!r}?)" if near else ""
    raise ConfigError(
        f"{called}: there is no such folder{hint}; expected a folder with config.json, "
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


def _unusable(called: str, path_or_name: str, error: Exception) -> BackendUnusableError:
    reason = _first_line(error)
    if "safetensors" in str(error) and ("no file named" in str(error) or "does not appear to have" in str(error)):
        reason = "it has no safetensors weights, and pickled ones can run code; convert them"
    elif "trust_remote_code" in str(error):
        reason = "it brings its own code, which rlaif does not run; expected an architecture that transformers has"
    elif os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"} and not Path(path_or_name).is_dir():
        reason = f"it is not in the local cache and HF_HUB_OFFLINE forbids to look further ({reason})"
    return BackendUnusableError(f"{called} cannot be loaded: {reason}")


def _first_line(error: BaseException) -> str:
    lines: list[str] = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def describe(source: ModelSource) -> Mapping[str, Any]:
    """What of the model can change an answer."""
    return {"model": source.name, "fingerprint": source.fingerprint, "dtype": source.dtype}

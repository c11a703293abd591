"""The model that is trained: loaded for training, with an adapter or without, and saved so that it loads anywhere.

Weights that are trained are kept in float32, as steps smaller than the precision of bfloat16 would be lost; frozen ones
are in the number type of the source. peft and bitsandbytes are imported when they are asked for.
"""

from __future__ import annotations

import contextlib
import copy
import math
import shutil
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, cast

import torch
from torch import Tensor, nn

from rlaif.errors import ConfigError
from rlaif.extras import require
from rlaif.models.loading import (
    ModelSource,
    load_model,
    load_reward_model,
    load_weights,
    refuse_missing,
    require_score_layer,
    stop_ids,
)
from rlaif.models.logprobs import disable_dropout
from rlaif.train.config import AdapterConfig

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    Trained: TypeAlias = PreTrainedModel | PeftModel

_HEAD = "score"
_MARKERS = ("config.json", "adapter_config.json")
"""Without them a folder is no model."""
_WEIGHTS = ("model*.safetensors", "model.safetensors.index.json", "adapter_model.safetensors")
_STAGING = ".saving"


class ParameterCount(NamedTuple):
    """Weights that are trained, and all weights."""

    trained: int
    all: int


def load_policy(source: ModelSource, adapter: AdapterConfig, *, seed: int) -> Trained:
    """A causal model to train; its own dropout is off.

    Args:
        source: As found with `backend=None`.
        adapter: Without a rank all weights are trained, in float32.
        seed: Of the adapter's first weights. The adapter starts without effect, whatever they are.

    Raises:
        BackendNotInstalledError: peft or bitsandbytes is missing; said before anything is loaded.
        ConfigError: Weights are missing, or there is no such layer as `lora_target` names.
        BackendUnusableError: As `load_model`.
    """
    _require_extras(adapter)
    model = load_model(_in_trained_dtype(source, adapter), **_quantization(source, adapter))
    return _prepared(model, source, adapter, seed)


def load_reward_model_for_training(source: ModelSource, adapter: AdapterConfig, *, seed: int) -> Trained:
    """A reward model to train: from a finished one, whose head is kept, or from a causal model, with a new head.

    A new head is drawn from N(0, 1 / (d + 1)^2) for hidden states of d numbers: where those are normalised, rewards
    begin at about 1 / sqrt(d), close to 0. It is trained in full and in float32, also beside an adapter. A recorded
    `reward_shift` becomes 0, as it belongs to the weights that are about to change; `set_reward_shift` records the
    next one. The padding token becomes one that ends no response where the tokenizer has such a special token, so that
    transformers' own reading of a reward, at the last token that is no padding, is right too.

    Args:
        source, adapter: As for `load_policy`.
        seed: Of the new head and the adapter.

    Raises:
        BackendNotInstalledError, BackendUnusableError: As `load_policy`.
        ConfigError: As `load_policy`; also where a finished reward model has other than one label.
    """
    _require_extras(adapter)
    options = _quantization(source, adapter)
    if options:
        options["quantization_config"].llm_int8_skip_modules = [_HEAD]
    weights = _in_trained_dtype(source, adapter)
    kinds = source.config.architectures or []
    if any(kind.endswith("ForSequenceClassification") for kind in kinds):
        model = load_reward_model(weights, **options)
    else:
        model = _load_with_new_head(weights, seed, options)
    model.config.reward_shift = 0.0
    model.config.get_text_config().pad_token_id = _padding_id(source)
    with contextlib.suppress(OSError, ValueError):  # a model need not have one; what ends a response is in it
        from transformers import GenerationConfig

        model.generation_config = GenerationConfig.from_pretrained(source.path, revision=source.revision)
    return _prepared(model, source, adapter, seed)


@contextlib.contextmanager
def adapter_off(model: nn.Module) -> Iterator[None]:
    """Within, a model with an adapter computes as its base does; any other model as ever."""
    with cast("PeftModel", model).disable_adapter() if _has_adapter(model) else contextlib.nullcontext():
        yield


def trainable_parameters(model: Trained) -> ParameterCount:
    """How many weights are trained; quantized ones are counted as what they stand for."""
    if _has_adapter(model):
        return ParameterCount(*model.get_nb_trainable_parameters())
    return ParameterCount(model.num_parameters(only_trainable=True), model.num_parameters())


def set_reward_shift(model: Trained, shift: float) -> None:
    """Record what is to be subtracted from a reward model's raw scores; `save_trained` writes it into config.json.

    Raises:
        ValueError: It is NaN or infinite.
    """
    if not math.isfinite(shift):
        raise ValueError(f"a reward shift of {shift}; expected a number")
    model.config.reward_shift = float(shift)


def save_trained(model: Trained, tokenizer: PreTrainedTokenizerFast, folder: Path, *, merge: bool) -> Trained:
    """Write the model with its tokenizer and generation config, as a folder that transformers or peft loads alone.

    All is written aside and moved in, what makes the folder a model last: whenever the process is killed, the folder
    holds a whole model or none. Other files in it stay. Weights are saved in the type they have: float32 where they
    were trained. An adapter alone names its base as it was given (a name on the hub, or a path), which peft opens.

    Args:
        model: Not wrapped for several processes; one of these saves.
        tokenizer: With the chat template that the rows were encoded with. A reward model's is saved with the model's
            padding token.
        merge: Put an adapter into the weights. A reward model's always is; quantized weights are no longer quantized
            then. The model given must not be used after that.

    Returns:
        The model as it was saved.

    Raises:
        OSError: The folder cannot be written.
    """
    from transformers.utils import logging as transformers_logging

    is_reward_model = hasattr(model, _HEAD)
    if _has_adapter(model) and (merge or is_reward_model):
        model = _merged(cast("PeftModel", model))
    staging = folder / _STAGING
    shutil.rmtree(staging, ignore_errors=True)  # what a killed process left
    staging.mkdir(parents=True)
    shows_bar = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        # With an adapter, peft would ask the hub whether the base's vocabulary has been changed; nothing here does.
        model.save_pretrained(staging, **({"save_embedding_layers": False} if _has_adapter(model) else {}))
    finally:
        if shows_bar:
            transformers_logging.enable_progress_bar()
    (staging / "README.md").unlink(missing_ok=True)  # peft's card is an empty form
    generation = getattr(model, "generation_config", None)
    if generation is not None:
        generation.save_pretrained(staging)
    if is_reward_model:
        tokenizer = _with_padding(tokenizer, model.config.get_text_config().pad_token_id)
    tokenizer.save_pretrained(staging)
    for weights in staging.glob("*.safetensors"):  # which safetensors lets nobody but their owner read
        shutil.copymode(staging / "tokenizer_config.json", weights)
    _move_in(staging, folder)
    return model


def check_reference(policy: ModelSource, reference: ModelSource, *, word: str = "reference") -> None:
    """Refuse a model beside the policy, a reference or a critic, to which the policy's token ids mean something else.

    The sizes of the output layers may differ: models of one family pad them differently.

    Args:
        word: What messages call it.

    Raises:
        ConfigError: Its tokenizer, added tokens included, is another one, or it has no place for a token.
    """
    ours, theirs = policy.tokenizer.get_vocab(), reference.tokenizer.get_vocab()
    differing = sorted(token for token in ours.keys() | theirs.keys() if ours.get(token) != theirs.get(token))
    if differing:
        first = differing[0]
        raise ConfigError(
            f"{word} {reference.path!r} has another vocabulary than {policy.called}: {len(differing):,} tokens "
            f"differ, such as {first!r}, which is {_place(theirs, first)} there and {_place(ours, first)} here; "
            "expected a model with the same tokenizer"
        )
    size = reference.config.get_text_config().vocab_size
    if max(ours.values()) >= size:
        raise ConfigError(
            f"{word} {reference.path!r} has places for {size:,} tokens, and {policy.called} has "
            f"{max(ours.values()) + 1:,}; expected a model with the same vocabulary"
        )


def _place(vocabulary: dict[str, int], token: str) -> str:
    return f"number {vocabulary[token]}" if token in vocabulary else "missing"


def _require_extras(adapter: AdapterConfig) -> None:
    if adapter.lora_rank is not None:
        require("train", ["peft"], "--lora-rank")
    if adapter.quantize != "none":
        require("train", ["accelerate", "bitsandbytes"], f"--quantize {adapter.quantize}")


def _in_trained_dtype(source: ModelSource, adapter: AdapterConfig) -> ModelSource:
    return replace(source, dtype="float32") if adapter.lora_rank is None else source


def _quantization(source: ModelSource, adapter: AdapterConfig) -> dict[str, Any]:
    """Options of `from_pretrained` that quantize."""
    if adapter.quantize == "none":
        return {}
    from transformers import BitsAndBytesConfig

    if adapter.quantize == "8bit":
        config = BitsAndBytesConfig(load_in_8bit=True)
    else:
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=getattr(torch, source.dtype),
        )
    device = torch.cuda.current_device() if source.device == "cuda" else source.device
    return {"quantization_config": config, "device_map": {"": device}}


def _load_with_new_head(source: ModelSource, seed: int, options: dict[str, Any]) -> PreTrainedModel:
    from transformers import AutoModelForSequenceClassification

    model, info = load_weights(AutoModelForSequenceClassification, source, num_labels=1, **options)
    require_score_layer(source, model)
    head: nn.Module = model.score
    ours = {f"{_HEAD}.{name}" for name, _ in head.named_parameters()}
    refuse_missing(source, info["missing_keys"] - ours, "a causal language model with all of its weights")
    generator = torch.Generator().manual_seed(seed)  # on the CPU, so that a seed means the same on every device
    with torch.no_grad():
        for name, parameter in head.named_parameters():
            if name == "weight":
                drawn = torch.randn(parameter.shape, generator=generator) / (parameter.shape[-1] + 1)
                parameter.copy_(drawn)
            else:
                parameter.zero_()
    return model


def _prepared(model: PreTrainedModel, source: ModelSource, adapter: AdapterConfig, seed: int) -> Trained:
    """The model with dropout off, with all embeddings learning, and with its adapter."""
    disable_dropout(model)
    embeddings = model.get_input_embeddings()
    if isinstance(embeddings, nn.Embedding):
        embeddings.padding_idx = None  # else the token gets no gradient, and it may be EOS
    generation = getattr(model, "generation_config", None)
    if generation is not None and generation.do_sample is False:
        # Published configs often hold a temperature beside do_sample=False; saving such a one is refused, after hours.
        try:
            generation.validate(strict=True)
        except ValueError:
            generation.do_sample = True
    return model if adapter.lora_rank is None else _with_adapter(model, source, adapter, seed)


def _with_adapter(model: PreTrainedModel, source: ModelSource, adapter: AdapterConfig, seed: int) -> PeftModel:
    from peft import LoraConfig, PeftModel, TaskType, get_peft_model, prepare_model_for_kbit_training

    rank = adapter.lora_rank
    is_reward_model = hasattr(model, _HEAD)
    config = LoraConfig(
        r=rank,
        lora_alpha=adapter.lora_alpha or 2 * cast(int, rank),
        lora_dropout=adapter.lora_dropout,
        target_modules=_targets(model, source, adapter.lora_target),
        task_type=TaskType.SEQ_CLS if is_reward_model else TaskType.CAUSAL_LM,  # SEQ_CLS trains the head in full
        revision=source.revision,
    )
    with _seeded(seed, model.device), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft uses what transformers is about to rename
        warnings.filterwarnings("ignore", "fan_in_fan_out")  # peft sets what fits the layer, and says so
        if adapter.quantize != "none":
            model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
        try:
            adapted = get_peft_model(model, config)
        except ValueError as error:
            raise ConfigError(f"{source.called}: no adapter fits {', '.join(adapter.lora_target)} ({error})") from error
    if is_reward_model:
        head = adapted.base_model.model.score.modules_to_save["default"]
        head.float().register_forward_pre_hook(_in_dtype_of)
    return cast(PeftModel, adapted)


def _in_dtype_of(layer: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """What a float32 head gets from frozen weights in bfloat16, outside of mixed precision."""
    return (arguments[0].to(next(layer.parameters()).dtype), *arguments[1:])


def _targets(model: PreTrainedModel, source: ModelSource, names: tuple[str, ...]) -> str | list[str]:
    """What peft calls the layers that get an adapter."""
    if names == ("all-linear",):
        return "all-linear"
    layers = [(name, layer) for name, layer in model.named_modules() if name]
    unknown = [one for one in names if not any(name == one or name.endswith(f".{one}") for name, _ in layers)]
    if unknown:
        linear = {name.rpartition(".")[2] for name, layer in layers if isinstance(layer, nn.Linear)}
        raise ConfigError(
            f"lora_target: {source.called} has no layer {', '.join(unknown)}; expected all-linear alone, or some of "
            f"{', '.join(sorted(linear - {_HEAD}))}"
        )
    return sorted(names)


@contextlib.contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Within, torch draws from the seed; after it as if nothing had been drawn."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _has_adapter(model: nn.Module) -> bool:
    peft = sys.modules.get("peft")  # not loaded: no model is one of its
    return peft is not None and isinstance(model, peft.PeftModel)


def _merged(model: PeftModel) -> PreTrainedModel:
    """The base with the adapter in its weights, which are no longer quantized."""
    base: PreTrainedModel = model.base_model.model
    if not getattr(base, "is_quantized", False):
        return cast("PreTrainedModel", model.merge_and_unload())
    from peft import get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

    # peft would round the merged weights to 4 or 8 bits again.
    config, learnt = model.peft_config["default"], get_peft_model_state_dict(model, save_embedding_layers=False)
    plain = model.unload().dequantize()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        whole = get_peft_model(plain, config)
    set_peft_model_state_dict(whole, learnt)
    return cast("PreTrainedModel", whole.merge_and_unload())


def _padding_id(source: ModelSource) -> int:
    """A special token that ends no response; where there is none, any id that does not."""
    tokenizer, stops = source.tokenizer, stop_ids(source)
    named = [tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.bos_token_id, *_special_ids(tokenizer)]
    fitting = [one for one in named if one is not None and one not in stops]
    return fitting[0] if fitting else next(one for one in range(len(stops) + 1) if one not in stops)


def _with_padding(tokenizer: PreTrainedTokenizerFast, pad: int) -> PreTrainedTokenizerFast:
    """The tokenizer with this padding token, if that is a special one: else the token's text would become special."""
    if pad not in _special_ids(tokenizer) or tokenizer.pad_token_id == pad:
        return tokenizer
    changed = copy.deepcopy(tokenizer)
    changed.pad_token = changed.convert_ids_to_tokens(pad)
    return changed


def _special_ids(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    added = tokenizer.added_tokens_decoder
    return sorted({number for number, token in added.items() if token.special} | set(tokenizer.all_special_ids))


def _move_in(staging: Path, folder: Path) -> None:
    """Move what was written into the folder, in place of the model that was there."""
    for name in _MARKERS:
        (folder / name).unlink(missing_ok=True)
    for pattern in _WEIGHTS:
        for old in folder.glob(pattern):
            old.unlink()
    for file in sorted(staging.iterdir(), key=lambda file: (file.name in _MARKERS, file.name)):
        file.replace(folder / file.name)
    staging.rmdir()

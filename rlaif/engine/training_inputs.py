"""What a training run is made of: rows read and filtered, models found. No weight is loaded here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rlaif.backends.builtin import builtin_folder
from rlaif.backends.registry import DEMONSTRATION_WARNING
from rlaif.config import as_dict
from rlaif.data.files import open_source
from rlaif.data.sources import ReadOptions
from rlaif.data.training_methods import MethodNeeds, RowFilters, TrainingOptions
from rlaif.data.training_rows import TrainingData, load_training_rows
from rlaif.engine.training_config import HpoConfig, ReferenceConfig, RewardModelConfig, TrainConfig
from rlaif.engine.training_listening import TrainingListener
from rlaif.engine.training_origin import DataOrigin, origin_of
from rlaif.errors import ConfigError, InputError, PromptTooLongError
from rlaif.models.encoding import ExampleEncoder
from rlaif.models.loading import ModelSource, find_model, stop_ids
from rlaif.records import Failure
from rlaif.train.aux_weights import AuxSummary, weigh_aux
from rlaif.train.items import TrainingItem, Truncation, make_items
from rlaif.train.labels import target_prob
from rlaif.training_records import LabeledPair, TrainingRow

_DEFAULT_LENGTH = 2048
"""Most tokens of a sequence where a model does not say what it takes."""

_FREE = {
    "out", "device", "max_tokens", "gradient_checkpointing", "save_every", "keep", "eval_every", "log_every",
    "report_to", "reference_cache", "merge",
}  # fmt: skip
"""What may differ between a run and its resume."""

_OF_STOPPING = {"save_every", "eval_every"}
"""What may not, where a run stops early: it decides when."""


@dataclass(frozen=True)
class TrainingInputs:
    """What a run is made of.

    Attributes:
        data, origin: The rows, and the run that they come from.
        source, reference: The model, and the reference where it is another one.
        max_length: Most tokens of a prompt and one response.
        centered_on: Responses whose mean reward becomes 0, where these are not the rows that are trained on.
    """

    data: TrainingData
    origin: DataOrigin | None
    source: ModelSource
    reference: ModelSource | None
    max_length: int
    centered_on: TrainingData | None = None


def gather(method: str, config: TrainConfig, listener: TrainingListener) -> TrainingInputs:
    """Read the rows and find the models; no weight is loaded.

    Raises:
        InputError: A row cannot be read or trained on, or the run that holds it is not finished.
        ConfigError: Settings that do not fit the rows, the model or each other.
    """
    origin = origin_of(config.data)
    if origin is not None and origin.status != "finished":
        raise InputError(f"the run is {origin.status}, not finished; run its command again first", path=config.data)
    if origin is not None and origin.is_demonstration:
        listener.on_warning(DEMONSTRATION_WARNING)
    data = load_training_rows(open_source(config.data), options_of(method, config), _prob_of(config))
    if isinstance(config, HpoConfig):
        weigh_aux(data.train, data.held_out, config.loss, name=data.name)  # refuses now what it would refuse later
    source = find_training_model(config.model, config.device)
    reference = None
    if isinstance(config, ReferenceConfig) and config.reference is not None:
        reference = find_training_model(config.reference, config.device)
        from rlaif.train.models import check_reference  # torch

        check_reference(source, reference)
    centered_on = None
    if isinstance(config, RewardModelConfig) and config.center_on is not None:
        options = TrainingOptions("sft", ReadOptions(seed=config.seed))
        centered_on = load_training_rows(open_source(config.center_on), options)
    return TrainingInputs(data, origin, source, reference, _max_length(config, source, reference), centered_on)


@dataclass(frozen=True)
class EncodedRows:
    """The rows as token ids.

    Attributes:
        data: The rows that are left.
        train, held_out: They, in their order.
        centered_on: Those whose mean reward becomes 0.
        truncation: What was cut of `train` and `held_out`.
        aux: How responses were weighed by auxiliary rewards; None where they were not.
    """

    data: TrainingData
    train: list[TrainingItem]
    held_out: list[TrainingItem]
    centered_on: list[TrainingItem]
    truncation: Truncation
    aux: AuxSummary | None = None


def encode(config: TrainConfig, inputs: TrainingInputs, listener: TrainingListener) -> EncodedRows:
    """Encode the rows; under `--skip-bad-rows`, those that do not fit join the failures.

    Raises:
        PromptTooLongError: Rows do not fit, and are not left out.
        InputError: None does.
        ConfigError: The tokenizer has no EOS, or its chat template cannot render a prompt; or auxiliary rewards are to
            be learnt and cannot be, as `weigh_aux` says.
    """
    data, source = inputs.data, inputs.source
    encoder = ExampleEncoder(source.tokenizer, stop_ids(source))
    failures: list[Failure] = []

    def leave_out(row: TrainingRow, error: PromptTooLongError) -> None:
        failures.append(Failure(row.id, "encode", f"{error.error_name}: {error}", 1))

    def made(rows: Sequence[TrainingRow]) -> tuple[list[TrainingItem], Truncation]:
        return make_items(
            rows,
            encoder,
            config.labels,
            max_length=inputs.max_length,
            cut=config.sequences.truncate,
            on_too_long=leave_out if config.source.skip_bad_rows else None,
            on_progress=lambda done, total: listener.on_preparing("encoding rows", done, total),
        )

    items, truncation = made([*data.train, *data.held_out])
    if failures:
        lost = {failure.id for failure in failures}
        left = [tuple(row for row in rows if row.id not in lost) for rows in (data.train, data.held_out)]
        listener.on_warning(f"{len(lost):,} rows do not fit the model and are left out; they stand in failures.jsonl")
        data = replace(data, train=left[0], held_out=left[1], failures=(*data.failures, *failures))
        if not data.train:
            raise InputError(f"no row fits {inputs.max_length} tokens, the first: {failures[0].error}", path=data.name)
    train, held_out = items[: len(data.train)], items[len(data.train) :]
    centered_on = train if inputs.centered_on is None else made(inputs.centered_on.train)[0]
    if not isinstance(config, HpoConfig):
        return EncodedRows(data, train, held_out, centered_on, truncation)
    aux = weigh_aux(data.train, data.held_out, config.loss, name=data.name)
    listener.on_message(str(aux.summary))
    train, held_out = (
        [replace(item, aux_weights=weights) for item, weights in zip(of_rows, of_aux, strict=True)]
        for of_rows, of_aux in ((train, aux.train), (held_out, aux.held_out))
    )
    return EncodedRows(data, train, held_out, centered_on, truncation, aux.summary)


def options_of(method: str, config: TrainConfig) -> TrainingOptions:
    """How a config wants its rows read."""
    rows = config.rows
    return TrainingOptions(
        MethodNeeds(method) if isinstance(config, HpoConfig) and config.loss.preference == "dpo" else method,
        ReadOptions(config.source.columns, config.seed, config.source.skip_bad_rows),
        config.labels,
        RowFilters(
            ties="drop" if config.labels == "hard" else rows.ties,
            min_confidence=rows.min_confidence,
            only_human=rows.only_human,
            tie_band=rows.tie_band,
        ),
        held_out=rows.held_out,
        with_margins=isinstance(config, RewardModelConfig) and config.loss.with_margins,
        with_aux=isinstance(config, HpoConfig),
    )


def find_training_model(name: str, device: str) -> ModelSource:
    """The model that a name stands for; `builtin:NAME` is one that ships. Raises as `find_model`."""
    kind, colon, shipped = name.partition(":")
    path = str(builtin_folder(shipped)) if kind == "builtin" and colon else name
    return replace(find_model(path, backend=None, device=device, dtype="auto"), called=f"model {name!r}")


def decisive_settings(method: str, config: TrainConfig, inputs: TrainingInputs) -> dict[str, Any]:
    """Everything that can change a weight, by flag; a run is resumed only where all of it is equal."""
    settings = as_dict(config, is_flat=True)
    free = _FREE if config.checkpoints.early_stopping is None else _FREE - _OF_STOPPING
    kept = {name: value for name, value in settings.items() if name not in free}
    return {
        **kept,
        "method": method,
        "data": inputs.data.content_sha256,
        "model": inputs.source.fingerprint,
        "max_length": inputs.max_length,
        **({"center_on": inputs.centered_on.content_sha256} if inputs.centered_on is not None else {}),
        **(
            {"reference": (inputs.reference or inputs.source).fingerprint}
            if isinstance(config, ReferenceConfig)
            else {}
        ),
    }


def _prob_of(config: TrainConfig) -> Callable[[LabeledPair], float | None] | None:
    """By which probability pairs are filtered: the people's share where that is trained on."""
    if config.labels != "human":
        return None

    def share(pair: LabeledPair) -> float | None:
        comparison = pair.comparison
        return target_prob("human", None, comparison.human_votes, comparison.human_label)

    return share


def _max_length(config: TrainConfig, source: ModelSource, reference: ModelSource | None) -> int:
    contexts = [one.context_tokens for one in (source, reference) if one is not None and one.context_tokens is not None]
    context = min(contexts, default=None)
    asked = config.sequences.max_length
    if asked is not None and context is not None and asked > context:
        raise ConfigError(f"max_length: {asked}, but the model takes {context} tokens at most")
    return asked or context or _DEFAULT_LENGTH

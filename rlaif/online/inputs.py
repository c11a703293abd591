"""What a run of online training is made of: prompts read, encoded and split, models found. No weight is loaded here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlaif.backends.registry import demonstration_warnings, is_reward_model
from rlaif.config import as_dict
from rlaif.data.files import open_source
from rlaif.data.sources import ReadOptions, read_prompts, scan_prompts
from rlaif.data.training_methods import TrainingOptions
from rlaif.data.training_rows import TrainingData, load_training_rows
from rlaif.engine.training_inputs import find_training_model
from rlaif.engine.training_listening import TrainingListener
from rlaif.errors import ConfigError, InputError, PromptTooLongError
from rlaif.models.encoding import ExampleEncoder
from rlaif.models.loading import ModelSource, stop_ids
from rlaif.online.config import GROUP_SIZES, ROUNDS, SELF, OnlineConfig
from rlaif.online.visits import PromptRow
from rlaif.randomness import seeded_random
from rlaif.records import Failure, Prompt

DEFAULT_CONTEXT = 2048
"""Most tokens of a prompt and a completion where a model does not say what it takes."""

_FREE = {
    "out", "device", "compute_tokens", "gradient_checkpointing", "save_every", "keep", "log_every", "report_to",
    "merge", "concurrency", "max_retries", "timeout", "price", "max_cost", "judge_patience", "base_url",
    "batch_tokens", "stop_on_hack", "judge",
}  # fmt: skip
"""What may differ between a run and its resume; the judge stands in what the rewards say of themselves."""


@dataclass(frozen=True)
class OnlineInputs:
    """What a run is made of.

    Attributes:
        name: Of the data, without its machine's path.
        content_sha256: Of the rows.
        rows: Prompts to learn from.
        watched: Prompts that are held out, to watch the policy on.
        failures: Rows that cannot be read or are too long, where these are left out.
        source: The model.
        reference: Another reference than that; None for the model itself.
        critic: What the critic starts from; None where there is none.
        imitated: Text that is imitated besides (PPO-ptx); None where none is.
        stops: Tokens that end a completion.
        context: Most tokens of a prompt and a completion.
    """

    name: str
    content_sha256: str
    rows: tuple[PromptRow, ...]
    watched: tuple[PromptRow, ...]
    failures: tuple[Failure, ...]
    source: ModelSource
    reference: ModelSource | None
    critic: ModelSource | None
    imitated: TrainingData | None
    stops: frozenset[int]
    context: int


@dataclass(frozen=True)
class Sizes:
    """How many of everything a run makes.

    Attributes:
        group: Completions of each prompt.
        prompts: Of a batch.
        passes: Over a batch.
        steps_of_pass: Optimizer steps in one of them.
        steps: Of the whole run.
    """

    group: int
    prompts: int
    passes: int
    steps_of_pass: int
    steps: int


def gather(config: OnlineConfig, listener: TrainingListener) -> OnlineInputs:
    """Read the prompts and find the models.

    Raises:
        InputError: A row, of the prompts or of what is imitated, cannot be read, or none is left.
        PromptTooLongError: Prompts do not fit, and are not left out.
        ConfigError: Settings that do not fit the rows, the model or each other.
    """
    for warning in demonstration_warnings([*judges_of(config), *config.guarding.watch_judge, config.model]):
        listener.on_warning(warning)
    data = open_source(config.data)
    options = ReadOptions(config.source.columns, config.seed, config.source.skip_bad_rows)
    summary = scan_prompts(data, options)
    device = config.backend.device
    source = find_training_model(config.model, device)
    reference = None if config.reference is None else find_training_model(config.reference, device)
    critic = _critic_source(config, source)
    from rlaif.train.models import check_reference  # torch

    for other, word in ((reference, "reference"), (critic, "critic")):
        if other is not None:
            check_reference(source, other, word=word)
    found = [one.context_tokens for one in (source, reference, critic) if one is not None]
    context = min((one for one in found if one is not None), default=DEFAULT_CONTEXT)
    rows, failures = _encoded(list(read_prompts(data, options, summary=summary)), config, source, context)
    if failures:
        listener.on_warning(f"{len(failures):,} prompts do not fit the model and are left out; see failures.jsonl")
    if not rows:
        raise InputError("holds no prompt that fits the model", path=data.name)
    train, watched = _split(rows, config)
    for warning in _without_effect(config, watched):
        listener.on_warning(warning)
    name = Path(data.name).name if Path(data.name).is_absolute() else data.name
    return OnlineInputs(
        name, summary.content_sha256, train, watched, (*summary.failures, *failures), source, reference, critic,
        _imitated(config), stop_ids(source), context,
    )  # fmt: skip


def sizes_of(method: str, config: OnlineConfig, rows: int) -> Sizes:
    """What the settings come to for so many prompts.

    Raises:
        ConfigError: They do not fit each other.
    """
    rollout, optimization = config.rollout, config.optimization
    group = rollout.group_size or GROUP_SIZES[method]
    size = optimization.batch_size
    prompts = rollout.rollout_prompts or (max(rows // size, 1) * size if method in ROUNDS else size)
    faults = _faults(method, config, group, prompts)
    if size > rows:
        faults.append(f"batch_size: {size}, but there are {rows} prompts to learn from; lower it")
    if prompts % size:
        faults.append(f"rollout_prompts: {prompts}, expected a multiple of batch_size, which is {size}")
    if faults:
        raise ConfigError("; ".join(faults))
    passes = rollout.rollout_epochs or (4 if method == "ppo" else 1)
    batches = max(1, round(optimization.epochs * rows / prompts))
    of_pass = prompts // size
    steps = optimization.max_steps or batches * passes * of_pass
    return Sizes(group, prompts, passes, of_pass, steps)


def _faults(method: str, config: OnlineConfig, group: int, prompts: int) -> list[str]:
    """What does not fit in the settings of a method with so many completions of so many prompts."""
    from rlaif.train.kl import MOST_ERROR  # torch

    rollout, guarding = config.rollout, config.guarding
    loss: Any = config.loss  # type: ignore[attr-defined]  # the class of every method has one
    faults = []
    if method == "online-dpo" and group != 2:
        faults.append(f"group_size: online-dpo compares two completions, got {group}; leave it out")
    if method in {"rloo", "grpo", "rs-dpo", "rso", "best-of-n"} and group < 2:
        faults.append(f"group_size: {method} weighs completions of a prompt against each other, expected 2 or more")
    if getattr(loss, "baseline", None) == "group" and group < 2:
        faults.append("baseline: group is the mean of a prompt's completions, and there is one; raise --group-size")
    if method == "online-dpo" and rollout.missing_eos_penalty:
        faults.append("missing_eos_penalty: online-dpo compares completions, and there is no reward to take it from")
    if (getattr(loss, "overlong_buffer", None) or 0) > rollout.response_tokens:
        faults.append(f"overlong_buffer: expected at most the {rollout.response_tokens} of --response-tokens")
    if getattr(loss, "kl_target", None) is not None and loss.kl_horizon <= group * prompts * MOST_ERROR:
        faults.append(
            f"kl_horizon: {loss.kl_horizon:g} for {group * prompts:,} completions at a time would let beta fall to 0; "
            f"expected above {group * prompts * MOST_ERROR:g}"
        )
    if rollout.rollout_vllm_arg and rollout.rollouts != "vllm":
        faults.append("rollout_vllm_arg: needs --rollouts vllm")
    if guarding.guards == "off":
        given = [name for name in ("watch_judge", "stop_on_hack") if getattr(guarding, name)]
        faults += [f"{name}: needs --guards on" for name in given]
    return faults


def rates(config: OnlineConfig) -> bool:
    """Whether rewards are a judge's ratings alone, mapped to [-1, 1]."""
    specs = config.rewarding.specs
    is_judge = [(spec.kind, spec.weight) for spec in specs] == [("judge", 1.0)]
    return is_judge and not any(map(is_reward_model, config.backend.judge))


def decisive_settings(method: str, config: OnlineConfig, inputs: OnlineInputs, rewards: Any) -> dict[str, Any]:
    """Everything that can change a weight, by flag; a run is resumed only where all of it is equal.

    Args:
        rewards: What the sources of rewards say of themselves.
    """
    settings = {name: value for name, value in as_dict(config, is_flat=True).items() if name not in _FREE}
    return {
        **settings,
        "method": method,
        "data": inputs.content_sha256,
        "model": inputs.source.fingerprint,
        "reference": (inputs.reference or inputs.source).fingerprint,
        **({"value_from": inputs.critic.fingerprint} if inputs.critic is not None else {}),
        **({"ptx_data": inputs.imitated.content_sha256} if inputs.imitated is not None else {}),
        "rewards": rewards,
    }


def judges_of(config: OnlineConfig) -> tuple[str, ...]:
    """The judges that rewards come from; none where they come from elsewhere."""
    return config.backend.judge if any(spec.kind == "judge" for spec in config.rewarding.specs) else ()


def _without_effect(config: OnlineConfig, watched: Sequence[PromptRow]) -> list[str]:
    """What is said of settings that change nothing here."""
    said = []
    if config.guarding.watch_judge and not watched:
        said.append("--watch-judge is not asked: prompts are held out for it where there are five different ones")
    if config.backend.judge != type(config.backend)().judge and not judges_of(config):
        said.append("--judge is not asked: no --reward is judge")
    return said


def _critic_source(config: OnlineConfig, policy: ModelSource) -> ModelSource | None:
    loss: Any = config.loss  # type: ignore[attr-defined]  # the class of every method has one
    if getattr(loss, "value", "head") != "critic":
        return None
    return policy if loss.value_from is None else find_training_model(loss.value_from, config.backend.device)


def _imitated(config: OnlineConfig) -> TrainingData | None:
    loss: Any = config.loss  # type: ignore[attr-defined]
    path = getattr(loss, "ptx_data", None)
    if path is None or not loss.ptx_weight:
        return None
    return load_training_rows(open_source(path), TrainingOptions("sft", ReadOptions(seed=config.seed)))


def _encoded(
    prompts: Sequence[Prompt], config: OnlineConfig, source: ModelSource, context: int
) -> tuple[list[PromptRow], list[Failure]]:
    encoder = ExampleEncoder(source.tokenizer, stop_ids(source))
    room = context - config.rollout.response_tokens
    rows: list[PromptRow] = []
    long: list[tuple[Prompt, int]] = []
    for prompt in prompts:
        ids = encoder.prompt_ids(prompt.prompt)
        if len(ids) <= room:
            rows.append(PromptRow(prompt, ids))
        else:
            long.append((prompt, len(ids)))
    if long and not config.source.skip_bad_rows:
        first, tokens = long[0]
        raise PromptTooLongError(
            f"{len(long):,} of {len(prompts):,} prompts are too long, the first: {first.id!r} has {tokens} tokens, and "
            f"{context} less --response-tokens {config.rollout.response_tokens} leaves {room}; lower that, or leave "
            "such prompts out with --skip-bad-rows"
        )
    failures = [
        Failure(prompt.id, "encode", f"PromptTooLongError: {tokens} tokens, expected {room} at most", 1)
        for prompt, tokens in long
    ]
    return rows, failures


def _split(rows: Sequence[PromptRow], config: OnlineConfig) -> tuple[tuple[PromptRow, ...], tuple[PromptRow, ...]]:
    """Prompts to learn from, and those that are watched: drawn, at most a fifth; equal prompts go together."""
    if config.guarding.guards == "off":
        return tuple(rows), ()
    drawn = list(dict.fromkeys(row.ids for row in rows))
    count = min(config.guarding.watch_prompts, len(drawn) // 5)
    seeded_random(config.seed, "", "watched prompts").shuffle(drawn)
    chosen = set(drawn[:count])
    watched, seen = [], set()
    for row in rows:
        if row.ids in chosen and row.ids not in seen:
            seen.add(row.ids)
            watched.append(row)
    return tuple(row for row in rows if row.ids not in chosen), tuple(watched)


def self_judging(config: OnlineConfig) -> bool:
    """Whether the policy's own base judges.

    Raises:
        ConfigError: It cannot, under these settings.
    """
    if SELF not in config.backend.judge:
        return False
    faults = []
    if len(config.backend.judge) > 1:
        faults.append("judge: self stands alone")
    if config.adapter.lora_rank is None:
        faults.append("judge: self needs --lora-rank, so that the base stays what it is while an adapter learns")
    if config.rollout.overlap:
        faults.append("overlap: the judge is the model that is learning, and cannot judge meanwhile")
    if faults:
        raise ConfigError("; ".join(faults))
    return True

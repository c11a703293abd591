"""The two sides of an evaluation: rows that are there, or a model that answers prompts first. What is made of their
responses is told in `evaluation.py`."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rlaif.backends.base import Backend
from rlaif.backends.registry import check_spec
from rlaif.data.evaluation_inputs import Side, SideResponse, read_side
from rlaif.data.files import RowSource, open_source
from rlaif.data.generation_statistics import GenerationStatistics
from rlaif.data.sources import INPUT_STAGE, InputSummary, ReadOptions, read_prompts, scan_prompts
from rlaif.engine.config import SourceConfig
from rlaif.engine.estimating import Estimate, estimate_calls
from rlaif.engine.evaluation_config import EvaluateConfig, is_policy
from rlaif.engine.generation import run_generate
from rlaif.engine.generation_config import GenerateConfig
from rlaif.engine.listening import Listener
from rlaif.engine.policies import open_policies
from rlaif.engine.streaming import RunOutcome
from rlaif.errors import ConfigError
from rlaif.policies.sampling import Sampler
from rlaif.records import Failure, Prompt, Turn

Letter = Literal["a", "b"]


@dataclass(frozen=True)
class WrittenSide:
    """A side whose responses are there."""

    letter: Letter
    name: str
    source: RowSource
    responses: Side

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the responses, as JSON values."""
        return {"rows": self.responses.content_sha256}


@dataclass(frozen=True)
class PolicySide:
    """A side that a model is to write.

    Attributes:
        letter: Which side.
        name: `BACKEND:MODEL`.
        backend: The model.
        input: Where the prompts are: a path or an address.
        prompts: The same, opened.
        summary: Of the prompts.
        has_columns: Whether the prompts' other columns belong to the rows; they do not where the prompts are those of
            the other side's rows, which have them already.
    """

    letter: Letter
    name: str
    backend: Backend
    input: str
    prompts: RowSource
    summary: InputSummary
    has_columns: bool

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the responses, beside how they are sampled, as JSON values."""
        return {"policy": dict(self.backend.identity), "prompts": self.summary.content_sha256}

    @property
    def folder(self) -> str:
        """Name of the folder of its answers, in the run folder."""
        return f"answers_{self.letter}"


EvaluationSide = WrittenSide | PolicySide


def open_sides(
    config: EvaluateConfig, policies: Mapping[str, Backend] | None = None
) -> tuple[EvaluationSide, EvaluationSide]:
    """Both sides, checked before anybody is asked.

    Args:
        config: Names them.
        policies: Models to ask, by their names, instead of those that the config names; closed by the caller.

    Raises:
        ConfigError: There is no such model, or it is not said which prompts it is to answer.
        InputError: Rows or prompts cannot be read.
    """
    given: tuple[tuple[Letter, str], ...] = (("a", config.a), ("b", config.b))
    asked = [text for _, text in given if text in (policies or {}) or is_policy(text)]
    for text in asked:
        if text not in (policies or {}):
            check_spec(text, word="policy")
    if config.prompts is not None and not asked:
        raise ConfigError("prompts: A and B are rows, so that nobody answers prompts; leave it out, or name a model")
    if config.prompts is None and len(asked) == 2:
        raise ConfigError("prompts: is missing, and A and B are both models; name a file with the prompts they answer")
    rows = {text: _opened_rows(text) for _, text in given if text not in asked}
    input_of_prompts = config.prompts if config.prompts is not None else next(iter(rows), "")
    prompts = open_source(input_of_prompts) if asked else None
    sides: list[EvaluationSide] = []
    for letter, text in given:
        if text in rows:
            sides.append(WrittenSide(letter, text, rows[text], read_side(rows[text], _reading(config))))
            continue
        assert prompts is not None
        summary = scan_prompts(prompts, prompt_options(config))
        backend = policies[text] if policies and text in policies else open_policies((text,), config.policy_model)[0]
        has_columns = config.prompts is not None
        sides.append(PolicySide(letter, text, backend, input_of_prompts, prompts, summary, has_columns))
    return sides[0], sides[1]


def prompt_options(config: EvaluateConfig) -> ReadOptions:
    """How the prompts are read: rows of responses may be where they stand."""
    columns = {name: path for name, path in config.source.columns.items() if name in ("id", "prompt")}
    return ReadOptions(columns, config.seed, config.source.skip_bad_rows)


def prompts_of(config: EvaluateConfig, side: PolicySide) -> Iterator[Prompt]:
    """The prompts that a model is to answer, up to `--limit`."""
    return itertools.islice(read_prompts(side.prompts, prompt_options(config), summary=side.summary), config.limit)


async def answers_of(
    config: EvaluateConfig, side: PolicySide, folder: Path, listener: Listener, command: str, *, spent: float
) -> tuple[Side, RunOutcome[GenerationStatistics]]:
    """Let a model answer: a run of `rlaif generate` inside the run folder.

    Args:
        config: How it is sampled from.
        side: Who answers.
        folder: The run folder.
        listener: Told how far it is.
        command: How a person would repeat the whole run.
        spent: USD that the calls before came to, which count against `--max-cost`.

    Raises:
        RlaifError: As `run_generate`.
    """
    calls = config.calls
    if calls.max_cost is not None:
        calls = dataclasses.replace(calls, max_cost=max(0.0, calls.max_cost - spent))
    out = folder / side.folder
    options = prompt_options(config)
    generating = GenerateConfig(
        input=side.input,
        out=str(out),
        policy=(side.name,),
        keep_duplicates=True,  # the first response of A belongs to the first of B, whatever others are like
        pairs="none",
        sampling=config.answering.sampling,
        backend=config.policy_model,
        calls=calls,
        source=SourceConfig(options.columns, options.skip_bad_rows),
        seed=config.seed,
        limit=config.limit,
    )
    outcome = (await run_generate(generating, listener, backends=(side.backend,), command=command)).run
    failures = tuple(_failures_of(out / "failures.jsonl", side))
    if not outcome.rows:
        return Side(side.name, (), failures), outcome
    read = read_side(str(out), ReadOptions(seed=config.seed), name=side.name)
    responses = read.responses
    if not side.has_columns:
        responses = tuple(dataclasses.replace(each, extra={}) for each in responses)
    return Side(side.name, responses, failures), outcome


async def estimate_answers(config: EvaluateConfig, side: PolicySide) -> Estimate:
    """Count what a model would be asked, and ask nothing."""
    sampler = Sampler(side.name, config.answering.sampling, seed=config.seed)
    return await estimate_calls([(side.backend, sampler)], lambda: prompts_of(config, side), 0, config.calls)


def stand_in_of(config: EvaluateConfig, side: PolicySide, text: str) -> Side:
    """What a model may write, as long as it may be, for `--dry-run`."""
    samples = config.answering.policy_samples
    return Side(
        side.name,
        tuple(
            SideResponse(prompt.id if samples == 1 else f"{prompt.id}/{place}", prompt.prompt, text)
            for prompt in prompts_of(config, side)
            for place in range(samples)
        ),
        side.summary.failures,
    )


def within_limit(config: EvaluateConfig, side: Side, sides: tuple[EvaluationSide, EvaluationSide]) -> Side:
    """Of rows beside a model that answers only the first prompts, those that answer one of these."""
    policy = next((each for each in sides if isinstance(each, PolicySide)), None)
    if config.limit is None or policy is None:
        return side
    asked: set[tuple[Turn, ...]] = {prompt.prompt for prompt in prompts_of(config, policy)}
    return dataclasses.replace(side, responses=tuple(each for each in side.responses if each.prompt in asked))


def _reading(config: EvaluateConfig) -> ReadOptions:
    return ReadOptions(config.source.columns, config.seed, config.source.skip_bad_rows)


def _opened_rows(text: str) -> RowSource:
    path = Path(text).expanduser()
    if os.path.isdir(path) and (path / "config.json").is_file() and not (path / "data").is_dir():
        raise ConfigError(f"{text}: holds a model, expected rows with responses; to let it answer, write hf:{text}")
    return open_source(text)


def _failures_of(path: Path, side: PolicySide) -> Iterator[Failure]:
    """The prompts that a model gave no response to."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            failure = Failure(**json.loads(line))
            if failure.stage != INPUT_STAGE:  # what cannot be read has nothing to do with who was to answer
                failure = dataclasses.replace(failure, stage=f"answer of {side.letter.upper()}: {failure.stage}")
            yield failure

"""Judges from settings: which backends are asked, what each is asked, and who keeps count."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rlaif.backends.base import Backend
from rlaif.backends.config import BackendConfig
from rlaif.backends.registry import open_backend
from rlaif.engine.asking import Asker, CallCounts
from rlaif.engine.config import CallConfig
from rlaif.engine.journal import Journal
from rlaif.engine.rows import Judging
from rlaif.errors import ConfigError
from rlaif.judge.base import LabelJudge
from rlaif.judge.config import JudgeConfig
from rlaif.judge.constitutions import Constitution, load_constitution
from rlaif.judge.pairwise import PairwiseJudge
from rlaif.judge.rating import RatingJudge

JudgeClass = type[PairwiseJudge] | type[RatingJudge]


class JudgeSettings(Protocol):
    """What every configuration of a command that judges has."""

    @property
    def judging(self) -> JudgeConfig: ...

    @property
    def backend(self) -> BackendConfig: ...

    @property
    def calls(self) -> CallConfig: ...

    @property
    def seed(self) -> int: ...


def constitution_of(config: JudgeSettings) -> Constitution | None:
    """The constitution that a config names.

    Raises:
        ConstitutionError: It cannot be found or read.
    """
    return load_constitution(config.judging.constitution) if config.judging.constitution else None


def open_backends(config: JudgeSettings) -> tuple[Backend, ...]:
    """The judges that a config names.

    Raises:
        ConfigError: A judge is named twice, or there is no such judge.
    """
    specs = config.backend.judge
    if twice := sorted({spec for spec in specs if specs.count(spec) > 1}):
        raise ConfigError(f"judge: {', '.join(twice)} is named twice; a panel needs different judges")
    return tuple(open_backend(spec, config.backend) for spec in specs)


def judge_for(
    judge_class: JudgeClass, config: JudgeSettings, constitution: Constitution | None, backend: Backend
) -> LabelJudge:
    """What a backend is asked under a config.

    Raises:
        PromptError, ConstitutionError: A template, exemplar or principle does not exist.
        ConfigError: The backend cannot do what the config asks for.
    """
    if config.judging.scoring == "logprobs" and not backend.capabilities.has_logprobs:
        raise ConfigError(f"judge {backend.name} has no log-probabilities; use --scoring sample --samples 8")
    return judge_class(
        config.judging,
        constitution,
        seed=config.seed,
        verdict_in_reply=backend.capabilities.has_token_alternatives,
    )


def askers_for(
    config: JudgeSettings, backends: Sequence[Backend], journal: Journal | None = None
) -> tuple[CallCounts, tuple[Asker, ...]]:
    """Who asks each backend, and the counts that they share."""
    counts = CallCounts()
    return counts, tuple(Asker(backend, journal, config.calls, counts) for backend in backends)


def judgings_for(judge_class: JudgeClass, config: JudgeSettings, askers: Sequence[Asker]) -> tuple[Judging, ...]:
    """Judges for a panel, one for each backend. Raises as `judge_for`."""
    constitution = constitution_of(config)
    return tuple(Judging(judge_for(judge_class, config, constitution, asker.backend), asker) for asker in askers)

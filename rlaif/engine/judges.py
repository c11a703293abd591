"""Judges from settings: which backends are asked, what each is asked, and who keeps count."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rlaif.backends.base import Backend, Capabilities
from rlaif.backends.config import BackendConfig
from rlaif.backends.registry import open_backend
from rlaif.engine.asking import Asker, CallCounts
from rlaif.engine.config import CallConfig
from rlaif.engine.journal import Journal
from rlaif.engine.rows import Judge, Judging
from rlaif.errors import ConfigError
from rlaif.judge.config import JudgeConfig
from rlaif.judge.constitutions import Constitution, load_constitution
from rlaif.judge.pairwise import PairwiseJudge
from rlaif.judge.rating import RatingJudge

JudgeClass = type[PairwiseJudge] | type[RatingJudge]


class CallSettings(Protocol):
    """What every configuration of a command that asks models has."""

    @property
    def calls(self) -> CallConfig: ...


class JudgeSettings(CallSettings, Protocol):
    """What every configuration of a command that judges has."""

    @property
    def judging(self) -> JudgeConfig: ...

    @property
    def backend(self) -> BackendConfig: ...

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


def judges_for(
    judge_class: JudgeClass, config: JudgeSettings, constitution: Constitution | None, backends: Sequence[Backend]
) -> list[Judge]:
    """What each backend of a panel, or the only one, is asked under a config.

    Raises:
        PromptError, ConstitutionError: A template, exemplar or principle does not exist.
        ConfigError: A backend cannot do what the config asks for, or their answers have no mean.
    """
    rewarding = [backend.name for backend in backends if backend.capabilities.has_rewards]
    if rewarding and len(backends) > 1:
        if issubclass(judge_class, RatingJudge):
            raise ConfigError(
                f"judge {rewarding[0]} scores on a scale of its own, so that its rewards and another judge's ratings "
                "have no mean; rate with one --judge, or compare pairs, where judges are averaged as probabilities"
            )
        if len(rewarding) < len(backends) and config.judging.orders != "both":
            raise ConfigError(
                f"judge {rewarding[0]} has no order in which responses are shown; in a panel with language models it "
                "needs --orders both"
            )
    return [judge_for(judge_class, config, constitution, backend) for backend in backends]


def judge_for(
    judge_class: JudgeClass, config: JudgeSettings, constitution: Constitution | None, backend: Backend
) -> Judge:
    """What a backend is asked under a config. Raises as `judges_for`."""
    can, judging = backend.capabilities, config.judging
    if can.has_rewards:
        given = {
            "--cot": judging.cot,
            "--constitution": judging.constitution is not None,
            "--shots": judging.shots > 0,
            "--scoring sample": judging.scoring == "sample",
        }
        if wrong := [flag for flag, is_given in given.items() if is_given]:
            raise ConfigError(
                f"judge {backend.name} is a reward model, which gets no instructions and says no words; leave out "
                f"{', '.join(wrong)}, or ask a language model"
            )
    elif judging.scoring == "logprobs" and not can.has_logprobs:
        raise ConfigError(f"judge {backend.name} has no log-probabilities; use --scoring sample --samples 8")
    return judge_with(judge_class, judging, constitution, can, seed=config.seed)


def judge_with(
    judge_class: JudgeClass, config: JudgeConfig, constitution: Constitution | None, can: Capabilities, *, seed: int
) -> Judge:
    """What is asked under these settings of a backend that can do so much, be it at hand or not.

    Raises:
        PromptError, ConstitutionError: As `judges_for`.
    """
    if can.has_rewards:
        return judge_class.reward_class(config)
    return judge_class(config, constitution, seed=seed, verdict_in_reply=can.has_token_alternatives)


def template_of(judges: Sequence[Judge]) -> str | None:
    """SHA-256 of the prompt template that judges share; None where all are reward models."""
    return next((judge.template_fingerprint for judge in judges if judge.template_fingerprint is not None), None)


def askers_for(
    config: CallSettings, backends: Sequence[Backend], journal: Journal | None = None
) -> tuple[CallCounts, tuple[Asker, ...]]:
    """Who asks each backend, and the counts that they share."""
    counts = CallCounts()
    return counts, tuple(Asker(backend, journal, config.calls, counts) for backend in backends)


def judgings_for(judge_class: JudgeClass, config: JudgeSettings, askers: Sequence[Asker]) -> tuple[Judging, ...]:
    """Judges for a panel, one for each backend. Raises as `judges_for`."""
    judges = judges_for(judge_class, config, constitution_of(config), [asker.backend for asker in askers])
    return tuple(map(Judging, judges, askers))

"""Who takes part in an evaluation: everybody checked before anybody is asked, what decides the result, and what a run
would ask."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rlaif.backends.base import Backend
from rlaif.data.evaluation_inputs import check_common, join_sides
from rlaif.data.human_labels import HumanLabels, read_human_labels
from rlaif.engine.estimating import Estimate, estimate_calls
from rlaif.engine.evaluation_config import EvaluateConfig
from rlaif.engine.evaluation_judging import alone, harmless_judges
from rlaif.engine.evaluation_sides import (
    EvaluationSide,
    PolicySide,
    WrittenSide,
    estimate_answers,
    open_sides,
    stand_in_of,
    within_limit,
)
from rlaif.engine.judges import constitution_of, judges_for, open_backends, template_of
from rlaif.engine.rows import Judge
from rlaif.judge.binary import BinaryJudge
from rlaif.judge.config import PANEL_SETTINGS
from rlaif.judge.constitutions import Constitution
from rlaif.judge.pairwise import PairwiseJudge

_STAND_IN_WORD = "the "
"""About one token: so many of these stand for a response when calls are counted."""


@dataclass(frozen=True)
class Evaluating:
    """Everybody who takes part, checked before anybody is asked.

    Attributes:
        sides: A and B.
        judges: Backends, and what each is asked about a comparison.
        harmless: What each is asked about single responses; None where that is not wanted.
        constitution: Principles that comparisons are judged by; None without.
        human: Labels of a file; None without one.
    """

    sides: tuple[EvaluationSide, EvaluationSide]
    judges: tuple[tuple[Backend, Judge], ...]
    harmless: tuple[BinaryJudge, ...] | None
    constitution: Constitution | None
    human: HumanLabels | None

    @property
    def template(self) -> str | None:
        """SHA-256 of the prompt for comparisons; None where all judges are reward models."""
        return template_of([judge for _, judge in self.judges])

    @property
    def harmless_template(self) -> str | None:
        """SHA-256 of the prompt for single responses; None where it is not used."""
        return None if self.harmless is None else self.harmless[0].template_fingerprint

    @property
    def policies(self) -> tuple[PolicySide, ...]:
        """The sides that a model writes."""
        return tuple(side for side in self.sides if isinstance(side, PolicySide))

    @property
    def backends(self) -> tuple[Backend, ...]:
        """The policies', and those of judges."""
        return (*(side.backend for side in self.policies), *(backend for backend, _ in self.judges))


def evaluating_of(
    config: EvaluateConfig, policies: Mapping[str, Backend] | None = None, judges: tuple[Backend, ...] | None = None
) -> Evaluating:
    """Everybody that a run asks.

    Args:
        config: Who they are.
        policies, judges: Models instead of those named there, policies by their names.

    Raises:
        ConfigError, PromptError, ConstitutionError: A model, template or principle does not exist or cannot be asked
            what the config wants.
        InputError: Rows cannot be read, or those of A and of B answer no prompt in common.
    """
    human = None if config.human is None else read_human_labels(config.human)
    sides = open_sides(config, policies)
    if isinstance(sides[0], WrittenSide) and isinstance(sides[1], WrittenSide):
        check_common(sides[0].responses, sides[1].responses)
    opened = judges if judges is not None else open_backends(config)
    constitution = constitution_of(config)
    asked = judges_for(PairwiseJudge, config, constitution, opened)
    harmless = harmless_judges(config.judging, opened, seed=config.seed) if config.harmless else None
    return Evaluating(sides, tuple(zip(opened, asked, strict=True)), harmless, constitution, human)


def judge_settings(config: EvaluateConfig, asked: Evaluating) -> dict[str, Any]:
    """The settings that say what a judge is asked; for reward models alone, those of a panel."""
    known = dataclasses.asdict(config.judging)
    return known if asked.template is not None else {name: known[name] for name in PANEL_SETTINGS}


def decisive_settings(config: EvaluateConfig, asked: Evaluating) -> dict[str, Any]:
    """Everything that can change a value in `data/`, by flag."""
    return {
        "a": asked.sides[0].identity,
        "b": asked.sides[1].identity,
        **(dataclasses.asdict(config.answering) if asked.policies else {}),
        "judge": [dict(backend.identity) for backend, _ in asked.judges],
        **judge_settings(config, asked),
        "task": asked.template,
        "constitution": None if asked.constitution is None else asked.constitution.fingerprint,
        "harmless": asked.harmless_template,
        "columns": dict(sorted(config.source.columns.items())),
        "skip_bad_rows": config.source.skip_bad_rows,
        "truncate": config.backend.truncate,
        "seed": config.seed,
    }


async def estimate_evaluation(config: EvaluateConfig) -> Estimate:
    """Count what a run would ask, and ask nothing. Responses that are not written yet count as long as they may be.

    Raises:
        RlaifError: As the run itself, before its first call.
    """
    asked = evaluating_of(config)
    stand_in = _STAND_IN_WORD * config.answering.policy_max_tokens
    found: list[Estimate] = []
    sides = []
    for side, text in zip(asked.sides, (stand_in, f"{stand_in}end"), strict=True):
        if isinstance(side, WrittenSide):
            sides.append(within_limit(config, side.responses, asked.sides))
            continue
        sides.append(stand_in_of(config, side, text))
        found.append(await estimate_answers(config, side))
    joined = join_sides(*sides)
    comparisons = joined.comparisons[: config.limit]
    failures = len(joined.unpaired)
    judged = await estimate_calls(asked.judges, lambda: comparisons, failures, config.calls)
    found.append(judged)
    if asked.harmless is not None:
        judges = [(backend, judge) for (backend, _), judge in zip(asked.judges, asked.harmless, strict=True)]
        found.append(await estimate_calls(judges, lambda: map(alone, comparisons), failures, config.calls))
    costs = [each.cost for each in found if each.cost is not None]
    return Estimate(
        judged.rows,
        sum(each.calls for each in found),
        sum(each.prompt_tokens for each in found),
        sum(each.completion_tokens for each in found),
        sum(costs) if len(costs) == len(found) else None,
    )

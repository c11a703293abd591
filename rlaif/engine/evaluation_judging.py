"""Comparisons to judged comparisons: both responses side by side and, where that is wanted, each alone. What the judge
said becomes figures in `rlaif.auditing.evaluation`."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

from rlaif.auditing.evaluation import HarmlessPair
from rlaif.backends.base import Backend
from rlaif.data.evaluated import Evaluated, HarmlessAnswer
from rlaif.data.judged import cluster_of
from rlaif.engine.labeling import finish
from rlaif.engine.rows import Judging, Panel, pairwise_panel
from rlaif.errors import ConfigError
from rlaif.judge.binary import BinaryAnswer, BinaryJudge, combine_binary_panel
from rlaif.judge.config import JudgeConfig
from rlaif.records import Candidates, Comparison, Failure, JudgedComparison, Judgment

HARMLESS_TASK = "harmlessness"


class JudgedRow(NamedTuple):
    """A comparison as the figures take it."""

    judged: JudgedComparison
    harmless: HarmlessPair | None


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """What is asked about a comparison of two policies' responses.

    Attributes:
        comparing: Judges both responses, in both orders.
        harmless: Judges each alone; None where that is not wanted.
        config: The judges' settings.
    """

    comparing: Panel[Comparison, Judgment]
    harmless: Panel[Candidates, tuple[BinaryAnswer, ...]] | None
    config: JudgeConfig

    async def attempt(self, comparison: Comparison) -> Evaluated | Failure:
        """What the judges make of a comparison, or why there is nothing. Raises as `Panel.attempt`."""
        judgment = await self.comparing.attempt(comparison)
        if isinstance(judgment, Failure):
            return judgment
        judgment = finish(judgment, comparison.response_a, comparison.response_b, self.config, None)
        if self.harmless is None:
            return Evaluated(judgment)
        answers = await self.harmless.attempt(alone(comparison))
        if isinstance(answers, Failure):
            return answers
        a, b = (HarmlessAnswer(each.prob_yes, each.label_mass, each.is_bounded) for each in answers)
        return Evaluated(judgment, (a, b))


def evaluator_of(
    judgings: Sequence[Judging],
    harmless: Sequence[BinaryJudge] | None = None,
    on_missing: Callable[[Failure], None] = lambda _: None,
) -> Evaluator:
    """Who judges, for `Evaluator`.

    Args:
        judgings: Of comparisons, one for each judge.
        harmless: Of `harmless_judges`, one for each judge in the same order; None where it is not asked.
        on_missing: Told of each failure that a partial panel passed over.
    """
    config = judgings[0].judge.config
    panel: Panel[Candidates, tuple[BinaryAnswer, ...]] | None = None
    if harmless is not None:
        members = [Judging(judge, each.asker) for judge, each in zip(harmless, judgings, strict=True)]
        panel = Panel(
            members,
            combine_binary_panel,
            allows_partial=config.allow_partial_panel,
            on_missing=on_missing,
            stage=HARMLESS_TASK,
        )
    return Evaluator(pairwise_panel(judgings, on_missing), panel, config)


def harmless_judges(config: JudgeConfig, backends: Sequence[Backend], *, seed: int) -> tuple[BinaryJudge, ...]:
    """What each of them is asked about single responses.

    Args:
        config: The judges' settings; task, principles, examples and orders are those of comparisons and do not apply.
        backends: Who is asked.
        seed: Of the draws.

    Raises:
        ConfigError: One is a reward model.
        PromptError: The template cannot be found or parsed.
    """
    config = dataclasses.replace(config, task=HARMLESS_TASK, constitution=None)
    judges = []
    for backend in backends:
        can = backend.capabilities
        if can.has_rewards:
            raise ConfigError(
                f"harmless: judge {backend.name} is a reward model, which answers no questions; ask a language "
                "model, or leave --harmless out"
            )
        judges.append(BinaryJudge(config, seed=seed, verdict_in_reply=can.has_token_alternatives))
    return tuple(judges)


async def judge_pairs(comparisons: Sequence[Comparison], evaluator: Evaluator) -> tuple[list[JudgedRow], list[Failure]]:
    """Judge comparisons in memory, all at once: for who has responses at hand, and no run folder.

    Returns:
        Those that were judged, in their order, for `rlaif.auditing.evaluation.figures_of`; and why others were not.

    Raises:
        BackendUnusableError, BudgetExceededError: As `Panel.attempt`.
    """
    outcomes = await asyncio.gather(*map(evaluator.attempt, comparisons))
    pairs = list(zip(comparisons, outcomes, strict=True))
    judged = [judged_row(comparison, found) for comparison, found in pairs if not isinstance(found, Failure)]
    return judged, [found for _, found in pairs if isinstance(found, Failure)]


def judged_row(comparison: Comparison, evaluated: Evaluated) -> JudgedRow:
    """A judged comparison as the figures take it, clustered by its prompt."""
    label = evaluated.judgment.label
    judged = dataclasses.replace(
        unjudged_row(comparison),
        prob_a=label.prob_a,
        prob_a_ab=label.prob_a_ab,
        prob_a_ba=label.prob_a_ba,
        by_judge=evaluated.judgment.by_judge,
    )
    harmless = evaluated.harmless
    return JudgedRow(judged, None if harmless is None else HarmlessPair(harmless[0].prob, harmless[1].prob))


def unjudged_row(comparison: Comparison) -> JudgedComparison:
    """A comparison, clustered by its prompt, that nobody has judged."""
    # The other columns are not looked at again, and all rows stay in memory.
    cluster = cluster_of({}, comparison.prompt, None)
    return JudgedComparison(dataclasses.replace(comparison, extra={}), prob_a=None, cluster=cluster)


def alone(comparison: Comparison) -> Candidates:
    """The responses of a comparison, to be judged each by itself."""
    responses = (comparison.response_a, comparison.response_b)
    return Candidates(comparison.id, comparison.prompt, responses, is_single=False)

"""Sources of rewards behind one interface: judges and reward models, which rate, and functions of the user's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol

from rlaif.config import as_dict
from rlaif.data.completions import candidates_of
from rlaif.engine.asking import Asker
from rlaif.engine.judges import JudgeSettings, constitution_of, judgings_for, template_of
from rlaif.engine.labeling import finish
from rlaif.engine.rows import Judging, pairwise_panel, rating_panel
from rlaif.errors import RlaifError
from rlaif.judge.config import JudgeConfig
from rlaif.judge.pairwise import PairwiseJudge
from rlaif.judge.rating import RatingJudge
from rlaif.judge.reward import RewardRatingJudge
from rlaif.records import Candidates, Comparison, Judgment, Rating, Turn
from rlaif.rewards.functions import RewardFunction, prompt_as_given
from rlaif.rewards.judging import Asking, PatientPanel, all_of
from rlaif.rollout_records import Rollout

Ratings = PatientPanel[Candidates, tuple[Rating, ...]]
Judgments = PatientPanel[Comparison, Judgment]

_PROBE = candidates_of("Say hello.", "Hello.")
_PAIR_PROBE = Comparison("probe", (Turn("user", "Say hello."),), "Hello.", "Good morning.")


class Part(NamedTuple):
    """What one source makes of a completion.

    Attributes:
        value: Its reward, before weights; None where there is none.
        error: The error's name, a colon and its words, where that is why; "" where the source said None itself.
        is_partial: Judged without some of the judges of a panel.
    """

    value: float | None
    error: str = ""
    is_partial: bool = False


@dataclass(frozen=True, slots=True)
class PairLabel:
    """Which of a rollout's two completions is better.

    Attributes:
        prob_a: P(the first one preferred), in [0, 1]; None where it cannot be said.
        prob_a_ab, prob_a_ba: The same with the first (the second) one shown first; None where no orders were asked.
        error: As of a `Part`.
        is_partial: As of a `Part`.
    """

    prob_a: float | None
    prob_a_ab: float | None = None
    prob_a_ba: float | None = None
    error: str = ""
    is_partial: bool = False


class Source(Protocol):
    """Gives rewards."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """Everything of it that can change a reward, as JSON values."""

    async def parts(self, rollouts: Sequence[Rollout]) -> list[tuple[Part, ...]]:
        """What it makes of each completion. Raises a `RlaifError` where the run has to stop."""


class FunctionSource:
    """A function of the user's."""

    def __init__(self, function: RewardFunction) -> None:
        self._function = function
        self.identity = {"function": function.name, "sha256": function.source_sha256}

    async def parts(self, rollouts: Sequence[Rollout]) -> list[tuple[Part, ...]]:
        """The rewards, asked for in one call."""
        rewards = await self._function.rewards(rollouts)
        return [tuple(map(Part, of_rollout)) for of_rollout in rewards]


class RewardModelSource:
    """A reward model, or a server that stands for one.

    Args:
        name: The source's.
        asker: Asks it.
        asking: How it is asked.
    """

    def __init__(self, name: str, asker: Asker, asking: Asking) -> None:
        self.identity = asker.backend.identity
        judging = Judging(RewardRatingJudge(JudgeConfig()), asker)
        self._panel: Ratings = PatientPanel(name, [judging], rating_panel, _PROBE, asking)

    async def parts(self, rollouts: Sequence[Rollout]) -> list[tuple[Part, ...]]:
        """The model's own scores, any finite numbers."""
        return await _rated(rollouts, self._panel)


class JudgeSource:
    """The judge, or a panel of judges, which rates completions or compares two of them.

    Args:
        settings: What it is asked.
        askers: Who asks.
        asking: How.
        compares: Make ready to compare, and only then, when asked to, to rate; by default the other way round.

    Raises:
        ConfigError: A backend cannot do what the settings ask for.
        PromptError, ConstitutionError: A template, exemplar or principle does not exist.
    """

    def __init__(self, settings: JudgeSettings, askers: Sequence[Asker], asking: Asking, *, compares: bool) -> None:
        self._settings = settings
        self._askers = tuple(askers)
        self._asking = asking
        self._name = ", ".join(asker.backend.name for asker in askers)
        ready = self.judgments.judgings if compares else self.ratings.judgings
        constitution = constitution_of(settings)
        self.identity = {
            "backends": [asker.backend.identity for asker in askers],
            "template": template_of([judging.judge for judging in ready]),
            "constitution": constitution.fingerprint if constitution else None,
            "settings": {
                name: value
                for name, value in as_dict(settings.judging).items()
                if name not in ("task", "constitution")  # their fingerprints stand for them, wherever their files are
            },
            "seed": settings.seed,
        }

    @cached_property
    def ratings(self) -> Ratings:
        """It rates. Raises as the class."""
        # A template of one's own is for ratings or for comparisons, so that neither is made before it is wanted.
        judgings = judgings_for(RatingJudge, self._settings, self._askers)
        return PatientPanel(self._name, judgings, rating_panel, _PROBE, self._asking)

    @cached_property
    def judgments(self) -> Judgments:
        """It compares. Raises as the class."""
        judgings = judgings_for(PairwiseJudge, self._settings, self._askers)
        return PatientPanel(self._name, judgings, pairwise_panel, _PAIR_PROBE, self._asking)

    async def parts(self, rollouts: Sequence[Rollout]) -> list[tuple[Part, ...]]:
        """Expected scores in [-1, 1]; of a judge that is a reward model, any finite numbers."""
        return await _rated(rollouts, self.ratings)

    async def labels(self, rollouts: Sequence[Rollout]) -> list[PairLabel]:
        """Which completion of each rollout, of two, is better."""
        return await all_of(self._label(comparison_of(rollout)) for rollout in rollouts)

    async def _label(self, pair: Comparison) -> PairLabel:
        if pair.response_a == pair.response_b:
            return PairLabel(0.5)
        (outcome,) = await self.judgments.judge([pair])
        if isinstance(outcome, RlaifError):
            return PairLabel(None, error=_words(outcome))
        label = finish(outcome, pair.response_a, pair.response_b, self._settings.judging, None).label
        return PairLabel(label.prob_a, label.prob_a_ab, label.prob_a_ba, is_partial=bool(outcome.missing_judges))


def comparison_of(rollout: Rollout) -> Comparison:
    """A rollout's two completions as a comparison, with an id made from the content: equal ones are judged equally."""
    prompt = rollout.prompt.prompt
    response_a, response_b = (completion.text for completion in rollout.completions)
    content = json.dumps([prompt, response_a, response_b]).encode()
    row_id = hashlib.sha256(content).hexdigest()
    return Comparison(row_id, prompt, response_a, response_b, is_conversational=rollout.prompt.is_conversational)


async def _rated(rollouts: Sequence[Rollout], panel: Ratings) -> list[tuple[Part, ...]]:
    async def parts_of(rollout: Rollout) -> tuple[Part, ...]:
        outcomes = await panel.judge(list(_rows_of(rollout)))
        return tuple(_part(outcome) for outcome in outcomes)

    return await all_of(map(parts_of, rollouts))


def _rows_of(rollout: Rollout) -> Iterator[Candidates]:
    prompt = prompt_as_given(rollout.prompt)
    for completion in rollout.completions:
        yield candidates_of(prompt, completion.text, f"row {rollout.prompt.id!r}")


def _part(outcome: tuple[Rating, ...] | RlaifError) -> Part:
    if isinstance(outcome, RlaifError):
        return Part(None, _words(outcome))
    (rating,) = outcome
    return Part(rating.reward, is_partial=bool(rating.missing_judges))


def _words(error: RlaifError) -> str:
    return f"{error.error_name}: {error}"

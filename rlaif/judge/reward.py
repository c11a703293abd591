"""Judging with a reward model, which gives each response a number. Nothing here awaits, as in `pairwise.py`.

    RewardPairwiseJudge     comparison -> both responses' rewards -> P(A preferred)
    RewardRatingJudge       responses -> each one's reward -> a Rating without a distribution

It is shown one response at a time and asked in no words, so templates, principles, orders and samples do not apply.

Source: Bradley and Terry, "Rank Analysis of Incomplete Block Designs", Biometrika 39 (1952).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rlaif.judge.base import Ask, Reading
from rlaif.judge.config import JudgeConfig
from rlaif.records import Candidates, Comparison, Judgment, Rating, Reward, RewardRequest, SoftLabel, Turn, sigmoid


class RewardCall(NamedTuple):
    """The call about one response: its text, and its place in the row as `stage_of` says it."""

    response: str
    place: str

    @property
    def words(self) -> tuple[str, ...]:
        return (self.place,)

    @property
    def sample(self) -> int:
        """A reward model's answer is always the same."""
        return 0


class RewardJudge:
    """What is asked of a reward model, whatever is judged.

    Args:
        config: The run's settings, of which only those of a panel apply.
    """

    template_fingerprint: str | None = None
    """There is no template."""

    has_several_principles = False

    samples = 1
    """Its answer is always the same."""

    def __init__(self, config: JudgeConfig) -> None:
        self.config = config

    def ask_about(self, prompt: Sequence[Turn], call: RewardCall) -> Ask:
        """Yield what to ask for one call, be sent the reply, return what it said."""
        reply = yield RewardRequest(tuple(prompt), call.response)
        assert isinstance(reply, Reward)
        return Reading(None, reward=reply.value)


class RewardPairwiseJudge(RewardJudge):
    """Compares two responses by their rewards."""

    def plan(self, comparison: Comparison) -> tuple[RewardCall, ...]:
        """One call for each response; none for identical ones."""
        return () if comparison.response_a == comparison.response_b else self.calls_of(comparison)

    def calls_of(self, comparison: Comparison) -> tuple[RewardCall, ...]:
        """The calls of `plan`, identical responses or not."""
        return RewardCall(comparison.response_a, "response a"), RewardCall(comparison.response_b, "response b")

    def ask(self, comparison: Comparison, call: RewardCall) -> Ask:
        """Yield what to ask for one call, be sent the reply, return what it said."""
        return (yield from self.ask_about(comparison.prompt, call))

    def combine(self, comparison: Comparison, readings: Mapping[RewardCall, Reading]) -> Judgment:
        """P(A preferred), the same in both orders: sigmoid(reward_a - reward_b)."""
        if not readings:
            return Judgment(SoftLabel(0.5, None, None))
        rewards = _by_response(readings)
        prob_a = sigmoid(rewards[comparison.response_a] - rewards[comparison.response_b])
        return Judgment(SoftLabel(prob_a, prob_a, prob_a), calls=len(readings))


class RewardRatingJudge(RewardJudge):
    """Rates responses by their rewards."""

    def plan(self, candidates: Candidates) -> tuple[RewardCall, ...]:
        """One call for each response; equal ones of one row are asked about once."""
        if len(candidates.responses) == 1:
            return (RewardCall(candidates.responses[0], "rating"),)
        places = _first_places(candidates.responses)
        return tuple(RewardCall(response, f"response {place}") for response, place in places.items())

    def ask(self, candidates: Candidates, call: RewardCall) -> Ask:
        """Yield what to ask for one call, be sent the reply, return what it said."""
        return (yield from self.ask_about(candidates.prompt, call))

    def combine(self, candidates: Candidates, readings: Mapping[RewardCall, Reading]) -> tuple[Rating, ...]:
        """A rating for each response; what was asked is counted with the first of equal ones."""
        rewards = _by_response(readings)
        places = _first_places(candidates.responses)
        return tuple(
            Rating(None, own_score=rewards[response], calls=int(places[response] == place))
            for place, response in enumerate(candidates.responses, 1)
        )


def _first_places(responses: Sequence[str]) -> dict[str, int]:
    """Where, from 1, each response stands first."""
    places: dict[str, int] = {}
    for place, response in enumerate(responses, 1):
        places.setdefault(response, place)
    return places


def _by_response(readings: Mapping[RewardCall, Reading]) -> dict[str, float]:
    found: dict[str, float] = {}
    for call, reading in readings.items():
        assert reading.reward is not None
        found[call.response] = reading.reward
    return found

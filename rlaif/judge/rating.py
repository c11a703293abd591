"""Responses to requests, and replies to ratings from 1 to 10: the distribution over the ten scores is kept,
and its expectation is the rating. Nothing here awaits, as in `pairwise.py`.

    judge.plan(candidates)            which calls the ratings need: response, principle, sample
    judge.ask(candidates, call)       yields ScoreRequest or GenerateRequest, is sent the reply, returns a Reading
    judge.combine(candidates, ...)    readings -> a Rating for each response

Source: Lee et al., RLAIF, arXiv:2309.00267, section 2.2.2 (expected score of the judge).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rlaif.judge.base import Ask, LabelJudge, Reading, mean_of_known, unreadable
from rlaif.judge.constitutions import Principle
from rlaif.judge.parsing import StatedLabel, find_rating
from rlaif.judge.reward import RewardRatingJudge
from rlaif.judge.scoring import mean_distribution
from rlaif.judge.templates import RatingTemplate
from rlaif.records import RATING_LABELS, Candidates, NamedRating, Rating


class RatingCall(NamedTuple):
    """One of the calls behind the ratings of a row.

    Attributes:
        response: Place of the response in the row, from 0.
        is_single: Whether the row has no other.
        principle: None asks the task's own question.
        sample: Which one, from 0.
    """

    response: int
    is_single: bool
    principle: Principle | None
    sample: int

    @property
    def words(self) -> tuple[str, ...]:
        """The call in a few words, such as ("response 2", "concise"), without the sample."""
        place = "rating" if self.is_single else f"response {self.response + 1}"
        return (place, *([self.principle.id] if self.principle else []))


class RatingJudge(LabelJudge):
    """What is asked about a row's responses, and what the answers mean. The arguments are `LabelJudge`'s.

    `orders` and `debias` of the settings do not apply: one response is shown alone.
    """

    labels = RATING_LABELS
    label_tokens = 12
    template_class = RatingTemplate
    reward_class = RewardRatingJudge
    """Judges the same rows with a reward model."""

    template: RatingTemplate

    def find(self, text: str) -> StatedLabel:
        return find_rating(text)

    def plan(self, candidates: Candidates) -> tuple[RatingCall, ...]:
        """The calls the ratings need; equal responses of one row are asked about once."""
        principles: Sequence[Principle | None] = self.principles_of(candidates.id) or (None,)
        return tuple(
            RatingCall(response, len(candidates.responses) == 1, principle, sample)
            for sample in range(self.config.samples)
            for principle in principles
            for response in sorted(set(_first_places(candidates)))
        )

    def ask(self, candidates: Candidates, call: RatingCall) -> Ask:
        """Yield what to ask for one call, be sent the replies, return what they said.

        Raises:
            JudgmentError: The replies hold no rating.
            PromptError: The template cannot be rendered for this response.
        """
        messages = self.template.render(
            candidates.prompt,
            candidates.responses[call.response],
            principle=call.principle.text if call.principle else None,
            verdict_in_reply=self.verdict_in_reply,
        )
        purpose = f"sample {call.sample} response {call.response} {call.principle.id if call.principle else ''}"
        return (yield from self.converse(messages, candidates.id, purpose))

    def combine(self, candidates: Candidates, readings: Mapping[RatingCall, Reading]) -> tuple[Rating, ...]:
        """A rating for each response, from what each of `plan`'s calls said.

        Samples are averaged under a principle, then principles by their weights.

        Raises:
            TooFewVerdictsError: Under half of the samples of one rating could be read.
        """
        rated = {place: self._rating_of(place, readings) for place in sorted({call.response for call in readings})}
        # an equal response was not asked about again: what was asked is counted with the first
        return tuple(
            rated[first] if first == place else dataclasses.replace(rated[first], calls=0, unreadable_samples=0)
            for place, first in enumerate(_first_places(candidates))
        )

    def _rating_of(self, place: int, readings: Mapping[RatingCall, Reading]) -> Rating:
        own = {call: reading for call, reading in readings.items() if call.response == place}
        principles = list(dict.fromkeys(call.principle for call in own))
        distributions = [
            self.average([reading for call, reading in own.items() if call.principle == principle])
            for principle in principles
        ]
        weights = [principle.weight if principle else 1.0 for principle in principles]
        named = [
            NamedRating(principle.id, probs)
            for principle, probs in zip(principles, distributions, strict=True)
            if principle
        ]
        return Rating(
            mean_distribution(distributions, weights),
            label_mass=mean_of_known(reading.label_mass for reading in own.values()),
            is_bounded=any(reading.is_bounded for reading in own.values()),
            rationale=next((reading.rationale for reading in own.values()), None),
            by_principle=tuple(named) if len(named) > 1 else (),
            sampled_principle=named[0].name if named and self.config.principles == "sample" else None,
            unreadable_samples=unreadable(own.values()),
            calls=len(own),
        )


def combine_rating_panel(
    ratings: Sequence[tuple[str, Sequence[Rating]]], missing: Sequence[str] = ()
) -> tuple[Rating, ...]:
    """One rating for each response from several judges' (name, ratings) pairs: the mean of their distributions.

    Args:
        ratings: At least one judge's; each judge's ratings are in the order of the responses.
        missing: Judges of the panel that failed.
    """
    names = [name for name, _ in ratings]
    return tuple(
        _panel_rating(names, of_response, missing) for of_response in zip(*(each for _, each in ratings), strict=True)
    )


def _panel_rating(names: Sequence[str], ratings: Sequence[Rating], missing: Sequence[str]) -> Rating:
    if len(ratings) == 1 and not missing:
        return ratings[0]
    first = ratings[0]
    distributions = [rating.probs for rating in ratings if rating.probs is not None]
    assert len(distributions) == len(ratings), "judges of several scales have no mean (engine.judges.judges_for)"
    return Rating(
        mean_distribution(distributions),
        label_mass=mean_of_known(rating.label_mass for rating in ratings),
        is_bounded=any(rating.is_bounded for rating in ratings),
        rationale=first.rationale,
        by_principle=tuple(
            NamedRating(named.name, mean_distribution([rating.by_principle[index].probs for rating in ratings]))
            for index, named in enumerate(first.by_principle)
        ),
        by_judge=tuple(NamedRating(name, probs) for name, probs in zip(names, distributions, strict=True)),
        sampled_principle=first.sampled_principle,
        missing_judges=tuple(missing),
        unreadable_samples=sum(rating.unreadable_samples for rating in ratings),
        calls=sum(rating.calls for rating in ratings),
    )


def _first_places(candidates: Candidates) -> list[int]:
    """For each response, the place of the first one that is equal to it."""
    first: dict[str, int] = {}
    return [first.setdefault(response, place) for place, response in enumerate(candidates.responses)]

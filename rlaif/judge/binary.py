"""A yes/no question about single responses, and what the answers mean: P(yes) for each. Nothing here awaits, as in
`pairwise.py`.

    judge.plan(candidates)            which calls the answers need: response, sample
    judge.ask(candidates, call)       yields ScoreRequest or GenerateRequest, is sent the reply, returns a Reading
    judge.combine(candidates, ...)    readings -> a BinaryAnswer for each response

Yes is the token "1" and no is "2": words are not one token in every vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from rlaif.judge.base import Ask, LabelJudge, Reading, mean_of_known, unreadable
from rlaif.judge.config import JudgeConfig
from rlaif.judge.parsing import StatedLabel, find_answer
from rlaif.judge.templates import BinaryTemplate
from rlaif.records import Candidates

YES, NO = "1", "2"


@dataclass(frozen=True, slots=True)
class BinaryAnswer:
    """What the judge answered about one response.

    Attributes:
        prob_yes: P(yes), in [0, 1], after samples and judges are averaged.
        label_mass: Share of the next-token probability on the two answers, mean over the calls; None where no
            log-probability was read.
        is_bounded: Whether an answer's mass was bounded rather than seen in any call.
        unreadable_samples: Samples that state no answer, under `--scoring sample`.
        calls: Judge calls behind the answer; 0 for a response that is equal to an earlier one of its row.
    """

    prob_yes: float
    label_mass: float | None = None
    is_bounded: bool = False
    unreadable_samples: int = 0
    calls: int = 0


class BinaryCall(NamedTuple):
    """One of the calls behind the answers of a row.

    Attributes:
        response: Place of the response in the row, from 0.
        sample: Which one, from 0.
        question: What is asked, for messages.
    """

    response: int
    sample: int
    question: str

    @property
    def words(self) -> tuple[str, ...]:
        """The call in a few words, without the sample."""
        return (f"{self.question}, response {self.response + 1}",)


class BinaryJudge(LabelJudge):
    """What is asked about a row's responses, and what the answers mean.

    Args:
        config: The judge's settings; its `task` names the question, `harmlessness` or a .jinja file. Principles,
            exemplars and orders do not apply.
        seed, verdict_in_reply: As of `LabelJudge`.
    """

    labels = (YES, NO)
    label_tokens = 8
    template_class = BinaryTemplate

    template: BinaryTemplate

    def __init__(self, config: JudgeConfig, *, seed: int = 0, verdict_in_reply: bool = False) -> None:
        super().__init__(replace(config, shots=0), None, seed=seed, verdict_in_reply=verdict_in_reply)

    def find(self, text: str) -> StatedLabel:
        return find_answer(text)

    def plan(self, candidates: Candidates) -> tuple[BinaryCall, ...]:
        """The calls the answers need; equal responses of one row are asked about once."""
        return tuple(
            BinaryCall(response, sample, self.config.task)
            for sample in range(self.config.samples)
            for response in sorted(set(_first_places(candidates.responses)))
        )

    def ask(self, candidates: Candidates, call: BinaryCall) -> Ask:
        """Yield what to ask for one call, be sent the replies, return what they said.

        Raises:
            JudgmentError: The replies hold no answer.
            PromptError: The template cannot be rendered for this response.
        """
        messages = self.template.render(
            candidates.prompt, candidates.responses[call.response], verdict_in_reply=self.verdict_in_reply
        )
        purpose = f"sample {call.sample} yes or no of response {call.response}"
        return (yield from self.converse(messages, candidates.id, purpose))

    def combine(self, candidates: Candidates, readings: Mapping[BinaryCall, Reading]) -> tuple[BinaryAnswer, ...]:
        """An answer for each response, from what each of `plan`'s calls said.

        Raises:
            TooFewVerdictsError: Under half of the samples of one answer could be read.
        """
        places = _first_places(candidates.responses)
        answers = {place: self._answer_about(place, readings) for place in set(places)}
        return tuple(
            answers[first] if first == place else replace(answers[first], calls=0, unreadable_samples=0)
            for place, first in enumerate(places)
        )

    def _answer_about(self, place: int, readings: Mapping[BinaryCall, Reading]) -> BinaryAnswer:
        own = [reading for call, reading in readings.items() if call.response == place]
        return BinaryAnswer(
            self.average(own)[0],
            label_mass=mean_of_known(reading.label_mass for reading in own),
            is_bounded=any(reading.is_bounded for reading in own),
            unreadable_samples=unreadable(own),
            calls=len(own),
        )


def combine_binary_panel(
    answers: Sequence[tuple[str, Sequence[BinaryAnswer]]], missing: Sequence[str] = ()
) -> tuple[BinaryAnswer, ...]:
    """One answer for each response from several judges' (name, answers) pairs: the mean of their probabilities.

    Args:
        answers: At least one judge's; each judge's are in the order of the responses.
        missing: Judges of the panel that failed.
    """
    return tuple(
        BinaryAnswer(
            math.fsum(each.prob_yes for each in of_response) / len(of_response),
            label_mass=mean_of_known(each.label_mass for each in of_response),
            is_bounded=any(each.is_bounded for each in of_response),
            unreadable_samples=sum(each.unreadable_samples for each in of_response),
            calls=sum(each.calls for each in of_response),
        )
        for of_response in zip(*(each for _, each in answers), strict=True)
    )


def _first_places(responses: Sequence[str]) -> list[int]:
    """For each response, the place of the first one that is equal to it."""
    first: dict[str, int] = {}
    return [first.setdefault(response, place) for place, response in enumerate(responses)]

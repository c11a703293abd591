"""What pairwise and rating judges that ask a language model share: which principles a row is judged by, and how one
label is asked for.

A call is a generator that yields requests and is sent the replies. One label is asked for in one of three ways:

    log-probabilities      a ScoreRequest; its reply holds the labels' probabilities
    chain of thought       reasons first; the label is read from the tokens of the same reply, or asked for after it
    sampled                the label is parsed from generated text; samples are counted
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass

from rlaif.errors import JudgmentError, RequestRefusedError, TooFewVerdictsError, UnreadableVerdictError
from rlaif.judge.config import JudgeConfig
from rlaif.judge.constitutions import Constitution, Principle, choose_principles
from rlaif.judge.parsing import StatedLabel, token_at
from rlaif.judge.scoring import candidate_distribution, mean_distribution, sampled_distribution
from rlaif.judge.templates import JudgeTemplate, render_verdict_cue
from rlaif.randomness import seeded_random
from rlaif.records import (
    CandidateLogprobs,
    GeneratedToken,
    GenerateRequest,
    Generation,
    Message,
    Reply,
    Request,
    ScoreRequest,
    Segment,
)

_READABLE_SHARE = 0.5
"""Least share of the samples of one label that must be readable."""

_NEGLIGIBLE = 1e-6
"""Probability of a token below which it does not matter how the label it begins goes on."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What one call said.

    Attributes:
        probs: Probability of each label, in the judge's order; None for a sample that states none.
        label_mass: Share of the next-token probability on the labels; None for a sampled label.
        is_bounded: Whether a label's mass is a bound.
        rationale: The reasons given, with chain of thought.
        reward: What a reward model scored; nothing else is there then.
    """

    probs: tuple[float, ...] | None
    label_mass: float | None = None
    is_bounded: bool = False
    rationale: str | None = None
    reward: float | None = None


Ask = Generator[Request, Reply, Reading]


class LabelJudge(ABC):
    """A judge that answers with one of a few labels.

    Args:
        config: The judge's settings.
        constitution: Principles to judge by; None asks the task's own question.
        seed: Of the draws of principle and samples, and of what else a judge draws.
        verdict_in_reply: With chain of thought, ask for reasons and label in one reply whose tokens come with
            log-probabilities; otherwise the label is a call of its own.
    """

    labels: tuple[str, ...]
    """What the judge may answer; also the order of `Reading.probs`."""

    label_tokens: int
    """Tokens a sampled label without reasons may take: the digits, and a word or two around them."""

    template_class: type[JudgeTemplate]

    template: JudgeTemplate

    def __init__(
        self,
        config: JudgeConfig,
        constitution: Constitution | None = None,
        *,
        seed: int = 0,
        verdict_in_reply: bool = False,
    ) -> None:
        self.config = config
        self.constitution = constitution
        self.seed = seed
        self.verdict_in_reply = verdict_in_reply or config.scoring == "sample"
        if constitution is not None:
            choose_principles(constitution, config.principles, seed=seed, row_id="")  # unknown ids are refused now
        self.template = self.template_class(config.task, preamble=config.preamble, shots=config.shots, cot=config.cot)

    @abstractmethod
    def find(self, text: str) -> StatedLabel:
        """The label that generated text states.

        Raises:
            UnreadableVerdictError: It states none, or more than one.
        """

    def principles_of(self, row_id: str) -> tuple[Principle, ...]:
        """The principles a row is judged by; empty without a constitution."""
        if self.constitution is None:
            return ()
        return choose_principles(self.constitution, self.config.principles, seed=self.seed, row_id=row_id)

    @property
    def samples(self) -> int:
        """Samples a label."""
        return self.config.samples

    @property
    def template_fingerprint(self) -> str | None:
        """SHA-256 of what it is asked with."""
        return self.template.fingerprint

    @property
    def has_several_principles(self) -> bool:
        """Whether a row is judged by more than one principle."""
        return len(self.principles_of("")) > 1

    def converse(self, messages: tuple[Message, ...], row_id: str, purpose: str) -> Ask:
        """Yield what to ask for one label, be sent the replies, return what they said.

        Args:
            messages: The rendered prompt.
            row_id, purpose: Of the sampler's seed; `purpose` tells a row's calls apart.

        Raises:
            JudgmentError: The replies hold no label.
        """

        def draw() -> int:
            return seeded_random(self.seed, row_id, purpose).getrandbits(31)

        if self.config.scoring == "sample":
            return (yield from self._ask_sampled(messages, draw))
        if self.config.cot:
            return (yield from self._ask_with_reasons(messages, draw))
        reply = yield ScoreRequest(messages, self.labels)
        return self._read(reply)

    def _ask_sampled(self, messages: tuple[Message, ...], draw: Callable[[], int]) -> Ask:
        max_tokens = self.config.max_tokens if self.config.cot else self.label_tokens
        sampled = _whole((yield self._sample_request(messages, max_tokens, self.config.temperature, draw)))
        try:
            stated = self._stated_by(sampled)
        except UnreadableVerdictError:
            return Reading(None, rationale=sampled.text if self.config.cot else None)
        rationale = _before(sampled.text, stated) if self.config.cot else None
        return Reading(tuple(float(label == stated.label) for label in self.labels), rationale=rationale)

    def _stated_by(self, sampled: Generation) -> StatedLabel:
        if self.config.cot:
            if sampled.finish_reason == "length":
                raise UnreadableVerdictError("the reply was cut short before its verdict; raise --max-tokens")
            return self.find(sampled.text)
        text = sampled.text.lstrip()
        try:
            stated = self.find(text.partition("\n")[0])  # "2", and then the reasons nobody asked for
        except UnreadableVerdictError:
            stated = self.find(text)
        may_go_on = any(label != stated.label and label.startswith(stated.label) for label in self.labels)
        if may_go_on and sampled.finish_reason == "length" and stated.start + len(stated.label) == len(text):
            raise UnreadableVerdictError("the reply was cut short at its label, which may go on: the 1 of a 10")
        return stated

    def _ask_with_reasons(self, messages: tuple[Message, ...], draw: Callable[[], int]) -> Ask:
        """Reasons, then the label: from the reply's own tokens where they can be read, else in a second call."""
        temperature = self.config.temperature if self.config.samples > 1 else 0.0
        written = _whole((yield self._sample_request(messages, self.config.max_tokens, temperature, draw)))
        rationale = written.text.strip()
        if self.verdict_in_reply and written.finish_reason != "length":  # cut short, it has not come to its verdict
            try:
                stated = self.find(written.text)
            except UnreadableVerdictError:
                pass
            else:
                rationale = _before(written.text, stated)
                token = token_at(written.tokens, written.text, stated.start)
                if token is not None and not _may_go_on(token, self.labels):
                    try:
                        return self._read(CandidateLogprobs(token.alternatives), rationale)
                    except JudgmentError:
                        pass  # the digit is no token of its own there: ask for it alone
        cue = render_verdict_cue(self.template.kind)
        reply = yield ScoreRequest((*messages, Message("assistant", (Segment(rationale, False),)), cue), self.labels)
        return self._read(reply, rationale)

    def _sample_request(
        self, messages: tuple[Message, ...], max_tokens: int, temperature: float, draw: Callable[[], int]
    ) -> GenerateRequest:
        seed = draw() if temperature > 0 else None
        labels = self.labels if self.verdict_in_reply and self.config.scoring == "logprobs" else ()
        return GenerateRequest(messages, max_tokens, temperature, seed, labels=labels)

    def _read(self, reply: Reply, rationale: str | None = None) -> Reading:
        assert isinstance(reply, CandidateLogprobs)
        distribution = candidate_distribution(reply, self.labels, self.config.min_label_mass)
        return Reading(distribution.probs, distribution.mass, distribution.is_bounded, rationale)

    def average(self, samples: Sequence[Reading]) -> tuple[float, ...]:
        """The distribution over the labels that the samples of one label come to.

        Raises:
            TooFewVerdictsError: Under half of them could be read.
        """
        readable = [reading.probs for reading in samples if reading.probs is not None]
        needed = math.ceil(max(1.0, _READABLE_SHARE * len(samples)))
        if len(readable) < needed:
            raise TooFewVerdictsError(
                f"{len(readable)} of {len(samples)} sampled replies state a verdict; at least {needed} are needed: "
                "raise --max-tokens, or use a judge that follows the prompt's format"
            )
        if self.config.scoring == "sample":
            return sampled_distribution(
                [sum(probs[index] == 1.0 for probs in readable) for index in range(len(self.labels))]
            )
        return mean_distribution(readable)


def unreadable(readings: Iterable[Reading]) -> int:
    """How many samples state no label."""
    return sum(reading.probs is None for reading in readings)


def mean_of_known(values: Iterable[float | None]) -> float | None:
    """The mean of what is not None; None when nothing is."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def _whole(reply: Reply) -> Generation:
    """A judge's text. Raises `RequestRefusedError` where the provider's filter cut it: what it says is not its own."""
    assert isinstance(reply, Generation)
    if reply.finish_reason == "content_filter":
        raise RequestRefusedError("the provider's content filter cut the judge's reply short")
    return reply


def _may_go_on(token: GeneratedToken, labels: Sequence[str]) -> bool:
    """Whether one of the alternatives may be the beginning of a longer label that is not listed: "1" of "10"."""
    seen = [(each.token.strip(), each.logprob) for each in token.alternatives]  # "1" and " 1" are two tokens
    whole = {start for start, _ in seen}
    return any(
        label not in whole and label.startswith(start) and math.exp(min(logprob, 0.0)) > _NEGLIGIBLE
        for label in labels
        for start, logprob in seen
        if start
    )


def _before(text: str, stated: StatedLabel) -> str:
    return text[: stated.statement].rstrip(" \n*#_")

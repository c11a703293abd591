"""The plain values that travel between modules: frozen, no behaviour beyond what they hold, no imports but errors.

A comparison walks: Comparison -> (rendered) ScoreRequest -> CandidateLogprobs -> Judgment -> row of the dataset; a
response to be rated: Candidates -> ScoreRequest -> CandidateLogprobs -> Rating -> row. Of a reward model,
RewardRequest -> Reward stand in the middle. A prompt to be answered: Prompt -> GenerateRequest -> Generation, and on to
a Sample (`policy_records.py`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Any, Literal, NamedTuple, cast

Role = Literal["system", "user", "assistant"]


class Order(StrEnum):
    """Which response stands in the first slot: `AB` shows A first."""

    AB = "ab"
    BA = "ba"

    @property
    def swapped(self) -> Order:
        return Order.BA if self is Order.AB else Order.AB


class Slot(Enum):
    """Where a response stands in one judge prompt; the label tokens "1" and "2" name slots."""

    FIRST = "1"
    SECOND = "2"


class Verdict(StrEnum):
    """Which response is preferred, after un-swapping. A reply that cannot be read is an error, not a fourth case."""

    A = "a"
    B = "b"
    TIE = "tie"


TIE_BAND = 1e-9
"""A probability this close to 0.5 is a tie."""


def verdict_of(prob_a: float, tie_band: float = TIE_BAND) -> Verdict:
    """The verdict that a soft label comes to: its larger side, or a tie within `tie_band` of 0.5.

    >>> verdict_of(0.7), verdict_of(0.2), verdict_of(0.5)
    (<Verdict.A: 'a'>, <Verdict.B: 'b'>, <Verdict.TIE: 'tie'>)
    """
    if abs(prob_a - 0.5) <= tie_band:
        return Verdict.TIE
    return Verdict.A if prob_a > 0.5 else Verdict.B


class Turn(NamedTuple):
    """One message of a conversation, as the user's data holds it."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """A prompt with two responses.

    Attributes:
        id: Unique in its input.
        prompt: The conversation so far; a plain string prompt is one user turn.
        response_a, response_b: The responses; the empty string is valid.
        human_votes: One verdict per annotator; empty when there are none.
        human_label: The majority of the votes (or the label the input gave); None when there is none, or no plurality.
        extra: The input's other columns, kept through to the output.
        is_conversational: Whether the input gave the prompt as a message list.
    """

    id: str
    prompt: tuple[Turn, ...]
    response_a: str
    response_b: str
    human_votes: tuple[Verdict, ...] = ()
    human_label: Verdict | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    is_conversational: bool = False

    def in_slots(self, order: Order) -> tuple[str, str]:
        """The responses as shown: (first slot, second slot)."""
        if order is Order.AB:
            return self.response_a, self.response_b
        return self.response_b, self.response_a


@dataclass(frozen=True, slots=True)
class Candidates:
    """A prompt with the responses that are rated.

    Attributes:
        id: Unique in its input.
        prompt: The conversation so far; a plain string prompt is one user turn.
        responses: At least one; the empty string is valid.
        is_single: Whether the input is a row of `prompt` and `response`, and not one of `responses`.
        extra: The input's other columns, kept through to the output.
        is_conversational: Whether the input gave the prompt as a message list.
    """

    id: str
    prompt: tuple[Turn, ...]
    responses: tuple[str, ...]
    is_single: bool = True
    extra: Mapping[str, Any] = field(default_factory=dict)
    is_conversational: bool = False


@dataclass(frozen=True, slots=True)
class Prompt:
    """A conversation that policies are to answer.

    Attributes:
        id: Unique in its input.
        prompt: The conversation so far, its last turn the user's; a plain string prompt is one user turn.
        response: An answer that the input brings, where one is to be revised; None where there is none.
        finish_reason: Why that answer ends, where the input tells.
        extra: The input's other columns, kept through to the output.
        is_conversational: Whether the input gave the prompt as a message list.
    """

    id: str
    prompt: tuple[Turn, ...]
    response: str | None = None
    finish_reason: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    is_conversational: bool = False


class Segment(NamedTuple):
    """A stretch of a rendered prompt.

    `is_template` is True for text that stands in a template file, and False for text that came in through a variable
    (prompt, responses, principle): backends that tokenize themselves keep special tokens inert in the latter.
    """

    text: str
    is_template: bool


@dataclass(frozen=True, slots=True)
class Message:
    """One message sent to the judge, in segments whose concatenation is its content."""

    role: Role
    segments: tuple[Segment, ...]

    @property
    def content(self) -> str:
        return "".join(segment.text for segment in self.segments)


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """Ask for the log-probabilities of the next token: how likely is each label right after these messages?

    Attributes:
        messages: Never empty; the last one is the user's.
        labels: The answers whose probability is wanted, such as ("1", "2"); at most ten.
    """

    messages: tuple[Message, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """Ask for text.

    Attributes:
        messages: Never empty; the last one is the user's.
        max_tokens: Most tokens to generate.
        temperature: 0 is greedy.
        seed: For the sampler; None leaves the draw to the backend. Changes the answer only where temperature > 0.
        top_p: Sample from the likeliest tokens whose probabilities come to this, in (0, 1]; 1 from all.
        labels: Where a generated token spells one of these, the likeliest alternatives in its place are wanted, if the
            backend has them. Empty: none are.
    """

    messages: tuple[Message, ...]
    max_tokens: int
    temperature: float = 0.0
    seed: int | None = None
    top_p: float = 1.0
    labels: tuple[str, ...] = ()

    @property
    def wants_logprobs(self) -> bool:
        """Whether log-probabilities are to be asked for."""
        return bool(self.labels)


@dataclass(frozen=True, slots=True)
class RewardRequest:
    """Ask a reward model how good a response is.

    Attributes:
        prompt: The conversation that it answers.
        response: The empty string is valid.
    """

    prompt: tuple[Turn, ...]
    response: str

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation with its response as the last message, all of it text of the data's."""
        turns = (*self.prompt, Turn("assistant", self.response))
        return tuple(Message(cast(Role, role), (Segment(content, is_template=False),)) for role, content in turns)


class Usage(NamedTuple):
    """Tokens a call took; `cached_tokens` of the prompt's were not computed again."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0

    def __add__(self, other: object) -> Usage:
        if not isinstance(other, Usage):
            return NotImplemented
        return Usage(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


class TokenLogprob(NamedTuple):
    """A token's text and its natural log-probability (nats)."""

    token: str
    logprob: float


NO_USAGE = Usage()


@dataclass(frozen=True, slots=True)
class CandidateLogprobs:
    """Log-probabilities of tokens that may come next, most of them answers.

    Attributes:
        tokens: Texts with log-probabilities; a text may stand more than once ("1" and " 1" are different tokens).
        is_exhaustive: True when every token that spells a label is in `tokens`: a label that is absent is impossible.
            False for a top-k list: a label that is absent is unseen, not impossible.
        usage: What the call took.
        text: The generated token, where one was.
    """

    tokens: tuple[TokenLogprob, ...]
    is_exhaustive: bool = False
    usage: Usage = NO_USAGE
    text: str | None = None


class GeneratedToken(NamedTuple):
    """One generated token and the likeliest alternatives in its place (itself among them); empty where not wanted."""

    token: str
    alternatives: tuple[TokenLogprob, ...]


@dataclass(frozen=True, slots=True)
class Generation:
    """Generated text.

    Attributes:
        text: Without special tokens.
        finish_reason: "stop" (the model ended), "length" (max_tokens reached), or the server's own word.
        tokens: Per generated token, where they were asked for and the backend has them; else empty.
        usage: What the call took.
    """

    text: str
    finish_reason: str
    tokens: tuple[GeneratedToken, ...] = ()
    usage: Usage = NO_USAGE


CUT_OFF = "length"
"""The `finish_reason` of text that ends where `max_tokens` did."""


@dataclass(frozen=True, slots=True)
class Reward:
    """What a reward model scored a response.

    Attributes:
        value: Finite, on the model's own scale: only differences between responses to one prompt mean something.
        usage: What the call took.
    """

    value: float
    usage: Usage = NO_USAGE


Request = ScoreRequest | GenerateRequest | RewardRequest
Reply = CandidateLogprobs | Generation | Reward


@dataclass(frozen=True, slots=True)
class SoftLabel:
    """P(A preferred), each order alone and together; each in [0, 1], None for an order that was not asked."""

    prob_a: float
    prob_a_ab: float | None
    prob_a_ba: float | None


@dataclass(frozen=True, slots=True)
class NamedLabel:
    """The soft label under one principle, or of one judge."""

    name: str
    label: SoftLabel


@dataclass(frozen=True, slots=True)
class Judgment:
    """What the judge made of one comparison.

    Attributes:
        label: After orders, samples, principles and judges are averaged; calibrated, where a calibration is given, and
            then clamped, where a range is given.
        label_mass_ab, label_mass_ba: Share of the next-token probability on the two labels, mean over the calls of that
            order; None where no log-probability was read.
        is_bounded: Whether a label's mass was bounded rather than seen in any call.
        rationale_ab, rationale_ba: Chain of thought, where asked for (of the first sample, principle and judge).
        by_principle, by_judge: Each one's own label, when there are several.
        sampled_principle: The principle drawn for this row under `--principles sample`.
        missing_judges: Judges of the panel that failed, under `--allow-partial-panel`.
        unreadable_samples: Samples that state no verdict, under `--scoring sample`.
        calls: Judge calls behind the label; 0 for identical responses.
        raw_label: What `label` was before it was calibrated or clamped; None where it was neither.
    """

    label: SoftLabel
    label_mass_ab: float | None = None
    label_mass_ba: float | None = None
    is_bounded: bool = False
    rationale_ab: str | None = None
    rationale_ba: str | None = None
    by_principle: tuple[NamedLabel, ...] = ()
    by_judge: tuple[NamedLabel, ...] = ()
    sampled_principle: str | None = None
    missing_judges: tuple[str, ...] = ()
    unreadable_samples: int = 0
    calls: int = 0
    raw_label: SoftLabel | None = None

    @property
    def own_label(self) -> SoftLabel:
        """The judge's own label, neither calibrated nor clamped."""
        return self.label if self.raw_label is None else self.raw_label

    @property
    def prob_a(self) -> float:
        """P(A preferred), in [0, 1]."""
        return self.label.prob_a

    @property
    def prob_a_ab(self) -> float | None:
        """P(A preferred) with A shown first; None when not asked."""
        return self.label.prob_a_ab

    @property
    def prob_a_ba(self) -> float | None:
        """P(A preferred) with B shown first; None when not asked."""
        return self.label.prob_a_ba


RATING_LABELS = tuple(str(score) for score in range(1, 11))
"""The scores a rating prompt asks for, "1" to "10", as the judge writes them."""


@dataclass(frozen=True, slots=True)
class NamedRating:
    """The distribution over the ten scores under one principle, or of one judge."""

    name: str
    probs: tuple[float, ...]

    @property
    def rating(self) -> float:
        """Expectation, in [1, 10]."""
        return _expectation(self.probs)


@dataclass(frozen=True, slots=True)
class Rating:
    """What the judge made of one response.

    Attributes:
        probs: Probability of each score 1..10, after samples, principles and judges are averaged; sums to 1. None of a
            reward model, which gives a score of its own.
        label_mass: Share of the next-token probability on the ten scores, mean over the calls; None where no
            log-probability was read.
        is_bounded: Whether a score's mass was bounded rather than seen in any call.
        rationale: Chain of thought, where asked for (of the first sample, principle and judge).
        by_principle, by_judge: Each one's own distribution, when there are several.
        sampled_principle: The principle drawn for this row under `--principles sample`.
        missing_judges: Judges of the panel that failed, under `--allow-partial-panel`.
        unreadable_samples: Samples that state no rating, under `--scoring sample`.
        calls: Judge calls behind the rating.
        own_score: What a reward model scored, any finite number; None where there are `probs`.
    """

    probs: tuple[float, ...] | None
    label_mass: float | None = None
    is_bounded: bool = False
    rationale: str | None = None
    by_principle: tuple[NamedRating, ...] = ()
    by_judge: tuple[NamedRating, ...] = ()
    sampled_principle: str | None = None
    missing_judges: tuple[str, ...] = ()
    unreadable_samples: int = 0
    calls: int = 0
    own_score: float | None = None

    def __post_init__(self) -> None:
        if (self.probs is None) == (self.own_score is None):
            raise ValueError("a rating has either the probabilities of the ten scores or a reward model's own score")

    @property
    def rating(self) -> float | None:
        """Expectation over the ten scores, in [1, 10]; None of a reward model."""
        return None if self.probs is None else _expectation(self.probs)

    @property
    def reward(self) -> float:
        """(rating - 5.5) / 4.5, in [-1, 1]: 0 for a judge that finds all scores equally likely. Of a reward model its
        own score, any number: 0 for an average reference response, where the model has a recorded shift.

        Source: Lee et al., RLAIF, arXiv:2309.00267, section 2.2.2; it gives no formula for the map, this is ours.
        """
        if self.own_score is not None:
            return self.own_score
        assert self.probs is not None
        return (_expectation(self.probs) - 5.5) / 4.5

    @property
    def unit_reward(self) -> float:
        """The reward mapped to [0, 1], for trainers that filter by it: (reward + 1) / 2, or of a reward model the
        probability (a sigmoid) that it prefers the response to one of reward 0."""
        return (self.reward + 1.0) / 2.0 if self.own_score is None else sigmoid(self.own_score)


def sigmoid(logit: float) -> float:
    """1 / (1 + exp(-logit)), in [0, 1], without overflow.

    >>> sigmoid(0.0), sigmoid(-1000.0), sigmoid(1000.0)
    (0.5, 0.0, 1.0)
    """
    if logit >= 0:
        return 1.0 / (1.0 + math.exp(-logit))
    return math.exp(logit) / (1.0 + math.exp(logit))


def _expectation(probs: tuple[float, ...]) -> float:
    # Rounding must not carry a certain judge past the ends of the scale.
    return min(10.0, max(1.0, math.fsum(score * prob for score, prob in enumerate(probs, 1))))


@dataclass(frozen=True, slots=True)
class JudgedComparison:
    """A comparison with what a judge made of it, and people too: a row of an audit.

    Attributes:
        comparison: With the human label and votes, where there are any.
        prob_a: P(A preferred), in [0, 1]; a recorded verdict counts 1, 0.5 or 0; None where the judge gave no usable
            answer in an order that it was asked in.
        prob_a_ab, prob_a_ba: The same with A (B) shown first; None when not asked, or not usable.
        cluster: Rows of one cluster are resampled together.
        groups: Value of each column that figures are split by.
        sampling_prob: Probability with which the row was drawn for people to label, in (0, 1]; None where it was not
            drawn.
        rationale_ab, rationale_ba: The judge's reasons, where it gave any.
        by_judge: Each judge's own label, of a panel.
    """

    comparison: Comparison
    prob_a: float | None
    prob_a_ab: float | None = None
    prob_a_ba: float | None = None
    cluster: str = ""
    groups: Mapping[str, str] = field(default_factory=dict)
    sampling_prob: float | None = None
    rationale_ab: str | None = None
    rationale_ba: str | None = None
    by_judge: tuple[NamedLabel, ...] = ()


@dataclass(frozen=True, slots=True)
class Failure:
    """A row without a label: where it failed, why, and after how many attempts."""

    id: str
    stage: str
    error: str
    attempts: int

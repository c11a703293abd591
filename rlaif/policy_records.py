"""What policies wrote to a prompt: samples, which of them are kept, and what became of one that was revised. Frozen, no
behaviour beyond what they hold.

A response: Prompt -> GenerateRequest -> Generation -> Sample -> SampledResponses; where it is revised, Samples make a
RevisionChain. What online training passes on stands in `rollout_records.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from rlaif.records import CUT_OFF

RAN_ON = "ran on"
"""The `finish_reason` of text that went on with a next section of its prompt, and is cut before that."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A policy's response to a prompt.

    Attributes:
        policy: `BACKEND:MODEL`.
        text: The response; empty where the provider refused to answer.
        finish_reason: As of a `Generation`; "refused" where the provider refused to answer.
        seed: The sampler's; None for a greedy one.
        refusal: The provider's words, where it refused.
    """

    policy: str
    text: str
    finish_reason: str
    seed: int | None = None
    refusal: str | None = None

    @property
    def is_cut_off(self) -> bool:
        """Whether the text ends where `max_tokens` did."""
        return self.finish_reason == CUT_OFF


class DropReason(StrEnum):
    """Why a response is left out of a prompt's candidates."""

    REFUSED = "refused"
    EMPTY = "empty"
    CUT_OFF = "cut off"
    DUPLICATE = "duplicate"
    NEAR_DUPLICATE = "near-duplicate"


class DroppedSample(NamedTuple):
    """A response that is left out of a prompt's candidates, and why.

    `detail` says more in words: of what it is a duplicate, or how the provider refused; "" where there is no more.
    """

    sample: Sample
    reason: DropReason
    detail: str = ""


@dataclass(frozen=True, slots=True)
class SampledResponses:
    """What policies made of one prompt: the responses that are kept, at least one, and those that are not."""

    kept: tuple[Sample, ...]
    dropped: tuple[DroppedSample, ...] = ()


class RevisionRequests(NamedTuple):
    """What a principle asks of a reviser: what to look for in a response, and how to rewrite it."""

    principle: str
    critique_request: str
    revision_request: str


@dataclass(frozen=True, slots=True)
class RevisionRound:
    """One round of a revision: what was asked by a principle, and what was written.

    Attributes:
        requests: Of the principle that was drawn.
        critique: Of the response so far.
        revision: The response as it should have been.
    """

    requests: RevisionRequests
    critique: Sample
    revision: Sample

    @property
    def is_usable(self) -> bool:
        """Whether there is a revision. One that is cut off counts, and its `finish_reason` says so."""
        return self.revision.refusal is None and self.revision.text != ""


@dataclass(frozen=True, slots=True)
class RevisionChain:
    """What became of one response.

    Attributes:
        initial: The response that was revised.
        sample: How the policy came to it; None where the input brought it.
        rounds: In their order; one without a usable revision is the last.
    """

    initial: str
    sample: Sample | None
    rounds: tuple[RevisionRound, ...]

    @property
    def usable(self) -> tuple[RevisionRound, ...]:
        """The rounds that have a revision."""
        return tuple(each for each in self.rounds if each.is_usable)

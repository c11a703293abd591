"""The plain values that training travels with: rows that are trained on, one class for each kind. As `records`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from rlaif.records import Candidates, Comparison, Turn

Labels = Literal["soft", "hard", "human"]
"""What pairs are trained on. soft: the judge's probability; hard: its verdict, ties dropped; human: the share of the
human votes."""


@dataclass(frozen=True, slots=True)
class LabeledPair:
    """A comparison that is trained on.

    Attributes:
        comparison: With the human votes and label, where there are any; without its `extra`.
        prob_a: P(A preferred), in [0, 1]; 1 or 0 where the input only says which response was chosen; None where there
            is none.
        margin: How much the preferred response's reward is to lead by, at least 0; None where it was not asked for.
        aux_rewards: Auxiliary rewards by name, of A and of B; empty where they were not asked for.
    """

    comparison: Comparison
    prob_a: float | None
    margin: float | None = None
    aux_rewards: tuple[Mapping[str, float], ...] = ()

    @property
    def id(self) -> str:
        return self.comparison.id

    @property
    def prompt(self) -> tuple[Turn, ...]:
        return self.comparison.prompt

    @property
    def has_human_label(self) -> bool:
        """Whether people labeled it; votes without a plurality are a label too."""
        return bool(self.comparison.human_votes) or self.comparison.human_label is not None


@dataclass(frozen=True, slots=True)
class RatedCandidates:
    """Responses with their scores, trained on as a ranking.

    Attributes:
        candidates: Without their `extra`.
        scores: One finite number for each response, a larger one for a better response.
    """

    candidates: Candidates
    scores: tuple[float, ...]

    @property
    def id(self) -> str:
        return self.candidates.id

    @property
    def prompt(self) -> tuple[Turn, ...]:
        return self.candidates.prompt


@dataclass(frozen=True, slots=True)
class Feedback:
    """A response that was found good or bad by itself, beside no other.

    Attributes:
        id: Unique in its input.
        prompt, response: As in `Comparison`.
        is_desirable: Whether it was found good.
        is_conversational: Whether the input gave the prompt as a message list.
        aux_rewards: Of the response, as of a `LabeledPair`.
    """

    id: str
    prompt: tuple[Turn, ...]
    response: str
    is_desirable: bool
    is_conversational: bool = False
    aux_rewards: tuple[Mapping[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A response to be imitated.

    Attributes:
        id: Unique in its input.
        prompt: All turns before the response.
        response: The last turn, the assistant's; the only one that is trained on.
        is_conversational: Whether the input gave the prompt as a message list.
    """

    id: str
    prompt: tuple[Turn, ...]
    response: str
    is_conversational: bool = False


TrainingRow = LabeledPair | RatedCandidates | Feedback | Demonstration

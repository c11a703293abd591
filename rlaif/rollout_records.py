"""What online training passes on: what a policy wrote to a prompt, and what that was worth. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rlaif.records import Prompt


@dataclass(frozen=True, slots=True)
class Completion:
    """What a policy wrote.

    Attributes:
        ids: Its tokens, the one that ended it included.
        text: Without special tokens.
        is_finished: Whether the policy ended it; False where it was cut off at the most tokens.
        logprobs: Log-probability (nats) of each token under the distribution that it was drawn from: the temperature
            applied, the nucleus not.
    """

    ids: tuple[int, ...]
    text: str
    is_finished: bool
    logprobs: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Rollout:
    """A prompt with what the policy wrote to it.

    Attributes:
        id: Of this visit to the prompt: its row's id and the number of the pass over the data.
        prompt: The row.
        prompt_ids: What the policy was given.
        completions: At least one.
        step: Optimizer steps that the policy had done when it wrote.
    """

    id: str
    prompt: Prompt
    prompt_ids: tuple[int, ...]
    completions: tuple[Completion, ...]
    step: int


@dataclass(frozen=True, slots=True)
class Score:
    """What a completion is worth.

    Attributes:
        value: The reward; None where there is none, and the completion is dropped and counted.
        parts: Each reward source's own value by its name, before weights; None where it gave none.
        error: Why there is none; "" where a source said None itself, or where there is a value.
    """

    value: float | None
    parts: Mapping[str, float | None] = field(default_factory=dict)
    error: str = ""

"""A prompt with k completions as token ids, and how it is cut to length. No torch, no tokenizer.

One completion for a demonstration or a single response, two for a pair, more for a ranking.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from rlaif.errors import PromptTooLongError

Cut = Literal["prompt", "completion", "none"]
"""What gives way where a prompt and a completion are too long: the prompt's start, the completion's end, or nothing."""


class Extent(NamedTuple):
    """Rows of a batch, and tokens of the longest of them."""

    rows: int
    width: int


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt and its completions, as token ids.

    Attributes:
        id: The row's, for messages.
        prompt: BOS and the cue for the answer included; never empty, as its last token predicts the first of each
            completion.
        completions: At least one, none empty; EOS included where the response ended.

    Raises:
        ValueError: The prompt or a completion has no token, or there is no completion.
    """

    id: str
    prompt: tuple[int, ...]
    completions: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        if not self.prompt:
            raise ValueError(
                f"example {self.id!r} has a prompt without tokens; expected at least one before a completion"
            )
        if not self.completions or not all(self.completions):
            raise ValueError(f"example {self.id!r} has a completion without tokens, or none at all")

    @property
    def length(self) -> int:
        """Tokens of the longest sequence that a model sees: the prompt and one completion."""
        return len(self.prompt) + max(map(len, self.completions))

    def extent(self, *, is_packed: bool) -> Extent:
        """What it takes of a batch: one packed row, or a plain row for each completion."""
        if is_packed:
            return Extent(1, len(self.prompt) + sum(map(len, self.completions)))
        return Extent(len(self.completions), self.length)

    def row_tokens(self, *, is_packed: bool) -> int:
        """Tokens that are computed for it: of one packed row, or of all of its plain rows, padded to the longest."""
        rows, width = self.extent(is_packed=is_packed)
        return rows * width


class Truncated(NamedTuple):
    """An example that fits, with how many tokens it lost: of the prompt, and of each completion."""

    example: Example
    prompt_cut: int
    completions_cut: tuple[int, ...]


def truncate_example(example: Example, max_length: int, *, cut: Cut, bos: int | None = None) -> Truncated:
    """Make each of the example's sequences fit into `max_length` tokens.

    Args:
        max_length: Most tokens of the prompt and one completion.
        cut: "prompt" takes tokens from the prompt's start, the same for all completions, which stay whole; BOS stays
            first. "completion" takes them from each completion's end, EOS first, so that no end is learnt where there
            was none. "none" refuses.
        bos: The id that is kept where the prompt starts with it.

    Raises:
        PromptTooLongError: It does not fit and nothing may be cut, or the cut would leave nothing of the prompt or of a
            completion.

    >>> truncate_example(Example("r", (0, 1, 2, 3, 4), ((5, 6), (7,))), 5, cut="prompt", bos=0).example.prompt
    (0, 3, 4)
    """
    prompt, uncut = example.prompt, (0,) * len(example.completions)
    if example.length <= max_length:
        return Truncated(example, 0, uncut)
    sizes = (
        f"example {example.id!r} has {len(prompt)} prompt tokens and up to {example.length - len(prompt)} of completion"
    )
    if cut == "none":
        raise PromptTooLongError(f"{sizes}; the limit is {max_length}")
    if cut == "prompt":
        head = prompt[:1] if bos is not None and prompt[0] == bos else ()
        room = max_length - (example.length - len(prompt)) - len(head)
        if room < 1:
            raise PromptTooLongError(f"{sizes}; a limit of {max_length} leaves nothing of the prompt")
        kept = head + prompt[len(prompt) - room :]
        return Truncated(replace(example, prompt=kept), len(prompt) - len(kept), uncut)
    room = max_length - len(prompt)
    if room < 1:
        raise PromptTooLongError(f"{sizes}; a limit of {max_length} leaves nothing of the completion")
    completions = tuple(completion[:room] for completion in example.completions)
    lost = tuple(max(0, len(completion) - room) for completion in example.completions)
    return Truncated(replace(example, completions=completions), 0, lost)

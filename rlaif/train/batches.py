"""What one optimizer step computes: examples of token ids, cut to length, dealt into steps and micro-batches, collated.

No model and no tokenizer. An example is a prompt with k completions: one for SFT and KTO, two for pairs, more for
rankings. A packed row holds `[prompt, completion 1, ..., completion k]`, so that the prompt is computed once; each
completion sees the prompt and itself, and its positions go on from the prompt's end. A plain row holds the prompt and
one completion, for models that take no such mask. Padding is told by place, never by a token id: pad may equal EOS.

Source of the packed row: frankxwang/dpo-prefix-sharing and li-plus/flash-preference.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from rlaif.errors import PromptTooLongError
from rlaif.randomness import seeded_random

Cut = Literal["prompt", "completion", "none"]
"""What gives way where a prompt and a completion are too long: the prompt's start, the completion's end, or nothing."""

PROMPT = 0
"""Segment of the prompt; completions are 1, 2, ... as they stand in the row."""
PADDING = -1


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

    def row_tokens(self, *, is_packed: bool) -> int:
        """Tokens that are computed for it: of one packed row, or of all of its plain rows, padded to the longest."""
        if is_packed:
            return len(self.prompt) + sum(map(len, self.completions))
        return len(self.completions) * self.length


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
        raise PromptTooLongError(
            f"{sizes}; the limit is {max_length}; raise it, or let the prompt or completion be cut"
        )
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


class StepOrder:
    """Which examples each optimizer step takes: exactly `batch_size`, in an order that the seed alone decides.

    Epochs follow each other without a gap, each in an order of its own: a step at their border takes the last ones of
    one and the first ones of the next. A step is known without those before it, so that a resumed run goes on with the
    same ones.

    Raises:
        ValueError: There are fewer examples than a step takes.
    """

    def __init__(self, count: int, batch_size: int, seed: int) -> None:
        if not 1 <= batch_size <= count:
            raise ValueError(
                f"an optimizer step takes {batch_size} examples, there are {count}; use a smaller batch size"
            )
        self._count, self._batch_size, self._seed = count, batch_size, seed
        self._epoch = lru_cache(2)(self._order_of)

    def rows(self, step: int) -> list[int]:
        """Indices of the examples of a step, counted from 0."""
        places = range(step * self._batch_size, (step + 1) * self._batch_size)
        return [self._epoch(place // self._count)[place % self._count] for place in places]

    def _order_of(self, epoch: int) -> list[int]:
        rows = list(range(self._count))
        seeded_random(self._seed, str(epoch), "training order").shuffle(rows)
        return rows


def micro_batches(lengths: Sequence[int], *, max_tokens: int, overhead: int = 0) -> list[list[int]]:
    """Split a step into batches of examples of similar length, at the least total of padded tokens.

    Args:
        lengths: `Example.row_tokens` of the step's examples.
        max_tokens: Most tokens of a batch, padding included; a longer example is a batch of its own.
        overhead: What one more batch costs, in tokens.

    Returns:
        Indices into `lengths`, each exactly once; longest first, so that a lack of memory shows at once.

    >>> micro_batches([10, 50, 12, 48], max_tokens=100)
    [[1], [3], [2], [0]]
    >>> micro_batches([10, 50, 12, 48], max_tokens=100, overhead=5)
    [[1, 3], [2, 0]]
    """
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    costs = [0.0] + [math.inf] * len(order)  # of the first n examples in this order, and where their last batch starts
    starts = [0] * (len(order) + 1)
    for start, first in enumerate(order):
        for stop in range(start + 1, len(order) + 1):
            padded = lengths[first] * (stop - start)
            if padded > max_tokens and stop > start + 1:
                break
            if costs[start] + padded + overhead < costs[stop]:
                costs[stop], starts[stop] = costs[start] + padded + overhead, start
    batches: list[list[int]] = []
    stop = len(order)
    while stop:
        batches.append(order[starts[stop] : stop])
        stop = starts[stop]
    return batches[::-1]


@dataclass(frozen=True, slots=True)
class Batch:
    """B examples of up to K completions of up to L tokens, in R rows of T tokens; indices are int64.

    Attributes:
        ids: Of the examples, B of them.
        is_packed: Whether R = B rows hold all completions of an example, or each row one (`attention_inputs`).
        input_ids: (R, T).
        position_ids: (R, T); from 0 in each prompt, from the prompt's end in each completion.
        segment_ids: (R, T); `PROMPT`, 1, 2, ... or `PADDING`.
        predictors: Where in the flattened (R * T) rows the token stands that predicts each completion token, (N,).
        targets: The completion tokens, (N,).
        places: Where in the flattened (B * K * L) completions they stand, (N,).
        tokens: Tokens of each completion, (B, K); 0 for padding of examples with fewer than K.
        ends: Where in the flattened rows each completion's last token stands, (B, K); 0 for padding.
        longest: L.
    """

    ids: tuple[str, ...]
    is_packed: bool
    input_ids: Tensor
    position_ids: Tensor
    segment_ids: Tensor
    predictors: Tensor
    targets: Tensor
    places: Tensor
    tokens: Tensor
    ends: Tensor
    longest: int

    @property
    def is_present(self) -> Tensor:
        """False for padding of examples with fewer than K completions, (B, K), bool."""
        return self.tokens > 0

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        moved: dict[str, Any] = {name: value.to(device) for name, value in values.items() if isinstance(value, Tensor)}
        return replace(self, **moved)


def collate(examples: Sequence[Example], *, is_packed: bool, pad: int = 0, multiple: int = 1) -> Batch:
    """Examples in rows, padded on the right.

    Args:
        is_packed: One row an example, or one row a completion.
        pad: The id that stands in padding; any that the model has, as nothing depends on it.
        multiple: T is rounded up to it.
    """
    most = max(len(example.completions) for example in examples)
    longest = max(len(completion) for example in examples for completion in example.completions)
    ids: list[list[int]] = []
    positions: list[list[int]] = []
    segments: list[list[int]] = []
    predictors: list[tuple[int, int]] = []
    places: list[int] = []
    ends = [[(0, 0)] * most for _ in examples]
    for index, example in enumerate(examples):
        shared = len(example.prompt)
        for response, completion in enumerate(example.completions):
            if response == 0 or not is_packed:
                ids.append(list(example.prompt))
                positions.append(list(range(shared)))
                segments.append([PROMPT] * shared)
            row, start = len(ids) - 1, len(ids[-1])
            ids[row] += completion
            positions[row] += range(shared, shared + len(completion))
            segments[row] += [response + 1 if is_packed else 1] * len(completion)
            # The prompt's last token predicts the first one of every completion.
            predictors += [(row, shared - 1), *((row, place) for place in range(start, len(ids[row]) - 1))]
            first = (index * most + response) * longest
            places += range(first, first + len(completion))
            ends[index][response] = (row, len(ids[row]) - 1)
    width = -(-max(map(len, ids)) // multiple) * multiple
    counts = [[*map(len, example.completions)] + [0] * (most - len(example.completions)) for example in examples]
    return Batch(
        ids=tuple(example.id for example in examples),
        is_packed=is_packed,
        input_ids=_padded(ids, width, pad),
        position_ids=_padded(positions, width, 0),
        segment_ids=_padded(segments, width, PADDING),
        predictors=torch.tensor([row * width + place for row, place in predictors]),
        targets=torch.tensor([token for one in examples for completion in one.completions for token in completion]),
        places=torch.tensor(places),
        tokens=torch.tensor(counts),
        ends=torch.tensor([[row * width + place for row, place in places_of] for places_of in ends]),
        longest=longest,
    )


def block_mask(segment_ids: Tensor, dtype: torch.dtype) -> Tensor:
    """What each token sees: itself, what precedes it in its own segment, and the prompt; padding sees itself alone.

    Args:
        segment_ids: (R, T), of a batch.
        dtype: The model's.

    Returns:
        (R, 1, T, T), to be added to the attention scores: 0 where the token of the third axis sees that of the fourth,
        -inf elsewhere. Numbers rather than booleans, which every layer would convert again.
    """
    width = segment_ids.shape[1]
    is_before = torch.ones(width, width, dtype=torch.bool, device=segment_ids.device).tril()
    seeing, seen = segment_ids.unsqueeze(2), segment_ids.unsqueeze(1)
    sees = is_before & ((seeing == seen) | (seen == PROMPT)) & (seeing != PADDING)
    # A token that saw nothing at all would be NaN, and so would every gradient.
    sees |= torch.eye(width, dtype=torch.bool, device=segment_ids.device)
    mask = torch.zeros(sees.shape, dtype=dtype, device=segment_ids.device)
    return mask.masked_fill_(~sees, -torch.inf).unsqueeze(1)


def attention_inputs(batch: Batch, dtype: torch.dtype) -> dict[str, Tensor]:
    """The inputs of a model of transformers for a batch: all that depends on how rows attend stands here.

    A packed batch needs a model that takes a mask of four axes (`logprobs.plan_logprobs` finds out); a plain one has
    the usual mask, (R, T), and leaves positions to the model.
    """
    if not batch.is_packed:
        return {"input_ids": batch.input_ids, "attention_mask": (batch.segment_ids != PADDING).long()}
    mask = block_mask(batch.segment_ids, dtype)
    return {"input_ids": batch.input_ids, "position_ids": batch.position_ids, "attention_mask": mask}


def _padded(rows: Sequence[list[int]], width: int, filling: int) -> Tensor:
    return torch.tensor([row + [filling] * (width - len(row)) for row in rows])

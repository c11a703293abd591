"""Examples of token ids as the tensors that a model takes: packed rows or plain ones, with what each token sees.

A packed row holds `[prompt, completion 1, ..., completion k]`, so that the prompt is computed once; each completion
sees the prompt and itself, and its positions go on from the prompt's end. A plain row holds the prompt and one
completion, for models that take no such mask. Padding is told by place, never by a token id: pad may equal EOS.

What a token sees is a rule over places. Attention that takes a mask has it as numbers, T x T of them; FlexAttention has
the rule itself, and which blocks of 128 x 128 tokens it leaves empty.

Source of the packed row: frankxwang/dpo-prefix-sharing and li-plus/flash-preference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor

from rlaif.models.examples import Example

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

PROMPT = 0
"""Segment of the prompt; completions are 1, 2, ... as they stand in the row."""
PADDING = -1

FLEX: Final = "flex_attention"
"""FlexAttention of torch, in the words of transformers."""


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
    rows = torch.arange(len(segment_ids), device=segment_ids.device).view(-1, 1, 1)
    places = torch.arange(segment_ids.shape[1], device=segment_ids.device)
    sees = _sight(segment_ids)(rows, rows, places.unsqueeze(1), places)
    mask = torch.zeros(sees.shape, dtype=dtype, device=segment_ids.device)
    return mask.masked_fill_(~sees, -torch.inf).unsqueeze(1)


def flex_mask(segment_ids: Tensor) -> BlockMask:
    """What each token sees, as `block_mask` says, for FlexAttention: without the T x T numbers.

    Args:
        segment_ids: (R, T), of a batch; any T.
    """
    rows, width = segment_ids.shape
    return _compiled_mask()(
        _sight(segment_ids), B=rows, H=None, Q_LEN=width, KV_LEN=width, device=str(segment_ids.device)
    )


def attention_inputs(batch: Batch, dtype: torch.dtype, attention: str = "sdpa") -> dict[str, Any]:
    """The inputs of a model of transformers for a batch: all that depends on how rows attend stands here.

    A packed batch needs a model that takes a mask of four axes (`logprobs.plan_logprobs` finds out); a plain one has
    the usual mask, (R, T), and leaves positions to the model.

    Args:
        dtype: Of the model's attention scores.
        attention: What the model attends by (`attention.attention_of`).
    """
    if not batch.is_packed:
        return {"input_ids": batch.input_ids, "attention_mask": (batch.segment_ids != PADDING).long()}
    mask = flex_mask(batch.segment_ids) if attention == FLEX else block_mask(batch.segment_ids, dtype)
    return {"input_ids": batch.input_ids, "position_ids": batch.position_ids, "attention_mask": mask}


def _sight(segment_ids: Tensor) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """The rule of what is seen, over places: (row, head, seeing, seen) -> bool."""

    def sees(row: Tensor, head: Tensor, seeing: Tensor, seen: Tensor) -> Tensor:
        own, other = segment_ids[row, seeing], segment_ids[row, seen]
        is_seen = (seeing >= seen) & ((own == other) | (other == PROMPT)) & (own != PADDING)
        # A token that saw nothing at all would be NaN, and so would every gradient.
        return is_seen | (seeing == seen)

    return sees


@cache
def _compiled_mask() -> Callable[..., BlockMask]:
    """Compiled, as the T x T booleans would exist otherwise: 2.5 GB for 16,384 tokens on a CPU."""
    from torch.nn.attention.flex_attention import create_block_mask  # from torch 2.5 on

    return torch.compile(create_block_mask)


def _padded(rows: Sequence[list[int]], width: int, filling: int) -> Tensor:
    return torch.tensor([row + [filling] * (width - len(row)) for row in rows])

"""Rewards of completions under a reward model: one number a completion, read where it ends.

A reward model is an `AutoModelForSequenceClassification` of transformers with one label, whose layer `score` turns each
hidden state into a number. Transformers reads that number at the last token which is no padding, judged by its id: the
wrong one where padding and EOS share an id (transformers #35352), and one number where a packed row holds several
completions. So, as in `logprobs`, the model's own forward runs, and while it does, `score` reads the states at the true
ends and gives the same rewards at every token: whichever one is taken, the rewards come out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from rlaif.models.attention import Attention, attention_for, attention_of, use_flex_attention
from rlaif.models.batches import FLEX, PADDING, Batch, attention_inputs, collate
from rlaif.models.logprobs import upcast
from rlaif.models.reading import answering, compute_dtype, packing_fault, trial_examples, unwrapped

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class RewardPlan(NamedTuple):
    """What a reward model can do.

    Attributes:
        is_packed: Whether it computes packed batches as it does plain ones.
        notes: Why not, in a sentence, or why FlexAttention failed where it was wanted; else empty.
    """

    is_packed: bool
    notes: tuple[str, ...]


def completion_rewards(model: nn.Module, batch: Batch) -> Tensor:
    """Reward of each completion at its last token, (B, K), float32, 0 in padding; with gradient where they are on.

    Args:
        model: A reward model, perhaps wrapped, whose configuration names a `pad_token_id` (any: `load_reward_model`
            sees to it); for a packed batch one for which `plan_rewards` says `is_packed`.
        batch: On the model's device.
    """

    def read(layer: nn.Module, apply: Callable[[Tensor], Tensor], states: Tensor) -> Tensor:
        rows, width = states.shape[:2]
        if batch.is_packed:  # a row holds K completions: (R, K, D)
            wanted = states.flatten(0, 1)[batch.ends]
        else:  # a row holds one: (R, 1, D)
            lengths = (batch.segment_ids != PADDING).sum(1, keepdim=True)
            wanted = states[torch.arange(rows, device=states.device).unsqueeze(1), lengths - 1]
        found = apply(wanted).squeeze(-1)
        return found.unsqueeze(1).expand(rows, width, found.shape[1])

    with answering(_score_layer(model), read):
        inputs = attention_inputs(batch, compute_dtype(model), attention_of(model))
        of_rows: Tensor = model(**inputs, use_cache=False).logits
    rewards = upcast(of_rows)
    if not batch.is_packed:
        rewards = rewards[batch.ends // batch.input_ids.shape[1], 0]
    return rewards.masked_fill(~batch.is_present, 0.0)


def plan_rewards(model: PreTrainedModel, max_length: int, attention: Attention | None = None) -> RewardPlan:
    """Find out by configuration and by a trial whether a reward model gives the same numbers in packed rows.

    Run as `logprobs.plan_logprobs`. The trial compares with what the model itself says of each sequence alone.

    Args:
        max_length: Most tokens of a prompt and one completion; a model whose attention slides over fewer cannot pack.
        attention: What packed rows should attend by; None for what suits the model's device.
    """
    if attention_of(model) == FLEX:
        model.set_attn_implementation("sdpa")  # what it is compared with
    was_training = model.training
    model.eval()
    flex_fault = ""
    try:
        with torch.no_grad():
            fault = packing_fault(model, max_length) or _trial_fault(model)
            if not fault and (attention or attention_for(model.device)) == FLEX:
                flex_fault = use_flex_attention(model, lambda batch: completion_rewards(model, batch), max_length)
    finally:
        model.train(was_training)
    notes = [f"prompts are computed once for each response: {fault}"] if fault else []
    if flex_fault:
        notes.append(f"attention takes a mask of all pairs of tokens, as FlexAttention failed: {flex_fault}")
    return RewardPlan(not fault, tuple(notes))


def _score_layer(model: nn.Module) -> nn.Module:
    layer = unwrapped(model, "score").score
    if not isinstance(layer, nn.Module):
        raise TypeError(f"{type(model).__name__} has no layer 'score'")
    return layer


def _trial_fault(model: PreTrainedModel) -> str:
    """How far packed rewards are from those of each sequence alone; empty if they are not.

    Measured by how far rewards are apart: those of a new head are all close to 0.
    """
    examples = trial_examples(model)
    expected = torch.tensor(
        [
            _sequence_reward(model, example.prompt + completion)
            for example in examples
            for completion in example.completions
        ]
    )
    try:
        batch = collate(examples, is_packed=True).to(model.device)
        found = completion_rewards(model, batch)[batch.is_present].cpu()
    except Exception as error:  # an architecture that takes no such input raises whatever it likes
        return f"a trial failed ({type(error).__name__}: {error})"
    furthest, spread = float((found - expected).abs().max()), float(expected.std())
    allowed = (0.01 if compute_dtype(model) == torch.float32 else 0.2) * spread
    return "" if furthest <= allowed else f"a trial gave rewards that differ by {furthest:.2g}, of {spread:.2g}"


def _sequence_reward(model: PreTrainedModel, ids: tuple[int, ...]) -> float:
    """By the model's own layer at the last token, without batch or mask."""

    def last(layer: nn.Module, apply: Callable[[Tensor], Tensor], states: Tensor) -> Tensor:
        return apply(states[:, -1:]).expand(-1, states.shape[1], -1)

    with answering(_score_layer(model), last):
        logits: Tensor = model(input_ids=torch.tensor([ids], device=model.device), use_cache=False).logits
    return float(logits.squeeze())

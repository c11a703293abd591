"""Which attention of transformers a model uses: FlexAttention on a GPU where it works, else one that takes a mask.

FlexAttention never forms a mask of T x T and skips what no token sees, so that a packed row costs what its completions
would cost alone. It is compiled for the machine, and not every machine, architecture or number type has it: a trial
finds out, and the model stays as it was where the trial fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from rlaif.models.batches import FLEX, Batch, collate
from rlaif.models.reading import compute_dtype, trial_examples

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Attention = Literal["sdpa", "flex_attention"]

_PROMPT_TIMES = 24
"""How much longer prompts of the second trial are: rows of 307 tokens, three blocks of FlexAttention."""

_VARIANTS = 64
"""How often FlexAttention may be compiled: for rows of fewer than 128 tokens or more, one row or several, with gradient
or without, each model. Torch stops at 8 and forms all scores from then on, T x T of them."""


def attention_for(device: torch.device | str) -> Attention:
    """What packed rows should attend by on a device; FlexAttention has no gradient on a CPU (nor on mps)."""
    return FLEX if torch.device(device).type == "cuda" else "sdpa"


def attention_of(model: nn.Module) -> str:
    """What a model of transformers, perhaps wrapped, attends by, in its words: sdpa, eager, flex_attention, ..."""
    configs: Iterator[Any] = (getattr(module, "config", None) for module in model.modules())
    found: str = next(config._attn_implementation for config in configs if hasattr(config, "_attn_implementation"))
    return found


def use_flex_attention(model: PreTrainedModel, read: Callable[[Batch], Tensor], max_length: int) -> str:
    """Let a model attend by FlexAttention, if a trial gives the numbers and the gradient that its attention gives now.

    Compiling takes some seconds the first time on a machine.

    Args:
        model: In evaluation mode, and under the autocast that it is to run under; takes packed rows as it is.
        read: What is to stay the same of a packed batch, (B, K).
        max_length: Most tokens of a prompt and one completion.

    Returns:
        Why the model attends as before; empty if it does not.
    """
    before = attention_of(model)
    examples = trial_examples(model)
    longest = max(len(one.prompt) + len(completion) for one in examples for completion in one.completions)
    times = max(1, min(_PROMPT_TIMES, max_length // longest))
    # Short rows and those of several blocks have kernels of their own.
    for each in (examples, [replace(one, prompt=one.prompt * times) for one in examples]):
        batch = collate(each, is_packed=True).to(model.device)
        model.set_attn_implementation(before)
        expected = _outcome(model, read, batch)
        try:
            torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _VARIANTS)
            model.set_attn_implementation(FLEX)
            found = _outcome(model, read, batch)
        except Exception as error:  # an architecture, a compiler or a GPU without it raises whatever it likes
            fault = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        else:
            fault = _difference(model, found, expected)
        if fault:
            model.set_attn_implementation(before)
            return fault
    return ""


def _outcome(model: PreTrainedModel, read: Callable[[Batch], Tensor], batch: Batch) -> tuple[Tensor, Tensor]:
    """What is read of a batch, and the gradient of its sum by the trained parameter nearest to the input, 0 if none."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad][:1]
    with torch.set_grad_enabled(bool(trained)):
        values = read(batch)
        gradient = torch.autograd.grad(values.sum(), trained, materialize_grads=True)[0] if trained else torch.zeros(1)
    return values.detach(), gradient


def _difference(model: PreTrainedModel, found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> str:
    """How far two outcomes are apart; empty if no further than numbers are rounded."""
    is_exact = compute_dtype(model) == torch.float32
    furthest = float((found[0] - expected[0]).abs().max())
    if not furthest <= (1e-3 if is_exact else 0.5):
        return f"a trial gave numbers that differ by {furthest:.2g}"
    size, apart = float(expected[1].float().norm()), float((found[1] - expected[1]).float().norm())
    if not apart <= (1e-2 if is_exact else 0.3) * size:
        return f"a trial gave a gradient that differs by {apart:.2g} of {size:.2g}"
    return ""

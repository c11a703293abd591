"""Log-probabilities of completions under a causal model: hidden states once, the output layer only where it is read.

The model's own forward runs, and while it does, its output layer answers with log-probabilities of the tokens that the
batch asks for in place of logits. So whatever wraps the model (DDP, FSDP, DeepSpeed, peft, mixed precision) sees an
ordinary forward pass, and logits exist for one chunk of tokens at a time. What else is read of the states that the
output layer gets, such as values, is read in the same pass.

How a row attends stands in `batches.attention_inputs`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from rlaif.models.attention import Attention, attention_for, attention_of, use_flex_attention
from rlaif.models.batches import FLEX, Batch, attention_inputs, collate
from rlaif.models.reading import answering, compute_dtype, packing_fault, trial_examples, unwrapped

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CHUNK_BYTES = 1 << 24
"""Float32 logits that exist at one time, as a rule."""

_KEPT_BYTES = 1 << 26
"""Float32 probabilities of a batch that are kept for the gradient; those beyond it are computed again.

An eighth of a step's time where all are kept (CPU, 12 M parameters, vocabulary 16,384).
"""

_FLOATS = (torch.float32, torch.float64)


class TokenLogprobs(NamedTuple):
    """Log-probabilities of B examples with up to K completions of up to L tokens.

    Attributes:
        values: Of each completion token given the prompt and the tokens before it, (B, K, L), float32, nats; 0 in
            padding.
        is_completion: False in padding, (B, K, L), bool.
        token_values: What `read_values` says of the state from which each completion token is predicted, before it is
            written: V(x_t), (B, K, L), float32; 0 in padding. None where nothing reads values.
    """

    values: Tensor
    is_completion: Tensor
    token_values: Tensor | None = None

    @property
    def sums(self) -> Tensor:
        """Log-probability of each completion, (B, K), float32; 0 in padding."""
        return self.values.sum(-1)

    @property
    def tokens(self) -> Tensor:
        """Tokens of each completion, (B, K), int64; 0 in padding."""
        return self.is_completion.sum(-1)


class LogprobPlan(NamedTuple):
    """What a model can do.

    Attributes:
        is_packed: Whether it computes packed batches as it does plain ones.
        is_chunked: Whether its output layer alone makes the logits, so that it can be applied to chunks of tokens.
        notes: Why not, one sentence for each that is False, and one where FlexAttention was wanted and failed.
    """

    is_packed: bool
    is_chunked: bool
    notes: tuple[str, ...]


def token_logprobs(
    model: nn.Module,
    batch: Batch,
    *,
    is_chunked: bool = True,
    chunk_bytes: int = CHUNK_BYTES,
    temperature: float = 1.0,
    read_values: Callable[[Tensor], Tensor] | None = None,
) -> TokenLogprobs:
    """Log-probabilities of a batch's completion tokens, and perhaps values; with gradient where gradients are on.

    Args:
        model: A causal model of transformers, perhaps wrapped; for a packed batch one for which `plan_logprobs` says
            `is_packed`. Its mode decides about dropout (`disable_dropout`).
        batch: On the model's device.
        is_chunked: As `plan_logprobs` says; False computes all logits at once.
        chunk_bytes: Logits in float32 that exist at one time, at least those of one token. Beyond 64 MiB of
            them they are computed again for the gradient.
        temperature: What logits are divided by, above 0: of completions that were sampled at it, these are the
            log-probabilities that they were drawn with.
        read_values: The states that the output layer gets for the batch's predictors, (N, D), -> (N,), one number each.
            Called once, within the model's forward.

    Raises:
        ValueError: The temperature is not a finite number above 0.
    """
    if not 0.0 < temperature < math.inf:
        raise ValueError(f"temperature {temperature}; expected a finite number above 0")
    inputs: dict[str, Any] = {**attention_inputs(batch, compute_dtype(model), attention_of(model)), "use_cache": False}
    read_apart: list[Tensor] = []

    def read(layer: nn.Module, apply: Callable[[Tensor], Tensor], states: Tensor) -> Tensor:
        wanted = states.flatten(0, -2)[batch.predictors]
        values = None if read_values is None else read_values(wanted)
        if not is_chunked:
            read_apart.extend([] if values is None else [values])
            return apply(states)
        logprobs = _chunked_logprobs(layer, apply, wanted, batch.targets, temperature, chunk_bytes)
        # Through the model's answer, where whatever wraps the model looks for what will have a gradient.
        return torch.stack([logprobs] if values is None else [logprobs, values.to(logprobs.dtype)])

    with answering(_output_layer(model), read):
        answer: Tensor = model(**inputs).logits
    if is_chunked:
        found = [row.flatten() for row in answer]
    else:  # what the model does to its logits is not to be done to values
        found = [_selected(answer.flatten(0, -2)[batch.predictors], batch.targets, temperature), *read_apart]
    offsets = torch.arange(batch.longest, device=batch.tokens.device)
    is_completion = offsets < batch.tokens.unsqueeze(-1)
    values = placed(found[1], batch) if read_values is not None else None
    return TokenLogprobs(placed(found[0], batch), is_completion, values)


def placed(values: Tensor, batch: Batch) -> Tensor:
    """Numbers of a batch's completion tokens, (N,), as (B, K, L): 0 in padding."""
    # Put in their places rather than added up by index, which is in no fixed order on a GPU.
    shape = (*batch.tokens.shape, batch.longest)
    return values.new_zeros(shape).flatten().index_put((batch.places,), values).view(shape)


def plan_logprobs(model: PreTrainedModel, max_length: int, attention: Attention | None = None) -> LogprobPlan:
    """Find out by configuration and by a trial whether a model gives the same numbers in packed rows and by chunks.

    Run before the model is wrapped, and under the autocast that it is to run under. The trial compares with the logits
    of the model on each sequence alone. Where rows are packed, the model is set to attend by FlexAttention if that is
    wanted and gives the same numbers and gradient (`attention.use_flex_attention`).

    Args:
        max_length: Most tokens of a prompt and one completion; a model whose attention slides over fewer cannot pack.
        attention: What packed rows should attend by; None for what suits the model's device.
    """
    if attention_of(model) == FLEX:
        model.set_attn_implementation("sdpa")  # what it is compared with

    def read_sums(batch: Batch) -> Tensor:
        return token_logprobs(model, batch, is_chunked=not chunk_fault).sums

    fault = packing_fault(model, max_length)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            chunk_fault = _trial_fault(model, is_packed=False, is_chunked=True)
            fault = fault or _trial_fault(model, is_packed=True, is_chunked=not chunk_fault)
            flex_fault = ""
            if not fault and (attention or attention_for(model.device)) == FLEX:
                flex_fault = use_flex_attention(model, read_sums, max_length)
    finally:
        model.train(was_training)
    notes = [f"prompts are computed once for each response: {fault}"] if fault else []
    notes += [f"logits are computed all at once: {chunk_fault}"] if chunk_fault else []
    notes += (
        [f"attention takes a mask of all pairs of tokens, as FlexAttention failed: {flex_fault}"] if flex_fault else []
    )
    return LogprobPlan(not fault, not chunk_fault, tuple(notes))


def disable_dropout(model: nn.Module) -> None:
    """Turn off all dropout of a model for good, in training mode too.

    With it a policy that is still the reference would not have log-ratios of 0.
    """
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        for name, value in vars(module).items():  # as numbers: residual_dropout, attn_pdrop, layerdrop, ...
            if "drop" in name and isinstance(value, float):
                setattr(module, name, 0.0)


def upcast(values: Tensor) -> Tensor:
    """The values in float32, or as they are in float64."""
    return values if values.dtype in _FLOATS else values.float()


class _LinearLogprobs(torch.autograd.Function):
    """Log-probabilities of targets under a linear output layer, chunk by chunk.

    d log p(t) / d logits = (onehot(t) - p) / temperature, so that the log-sum-exp of each token is all there is to
    remember: what is not kept is computed again for the gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        inverse: float,
        rows: int,
        kept_rows: int,
    ) -> Tensor:
        """`states` (N, D), `weight` (V, D), `bias` (V,), `targets` (N,) -> (N,), float32.

        Logits are multiplied by `inverse`; `rows` tokens are a chunk; the first `kept_rows` are kept.
        """
        normalizers, found, kept = [], [], []
        for start in range(0, len(targets), rows):
            span = slice(start, start + rows)
            logits = upcast(functional.linear(states[span], weight, bias))
            wanted = logits.gather(-1, targets[span].unsqueeze(-1)).squeeze(-1) * inverse
            top = logits.amax(-1, keepdim=True) * inverse
            # What the layer answered is divided, as a sampler does it; in the pass that subtracts, where it is free.
            total = torch.add(-top, logits, alpha=inverse, out=logits).exp_().sum(-1, keepdim=True)
            normalizers.append(total.log_().add_(top))
            found.append(wanted - normalizers[-1].squeeze(-1))
            if start + rows <= kept_rows:
                kept.append((logits, top))
            del logits  # else two chunks exist at a time
        ctx.save_for_backward(states, weight, bias, targets, torch.cat(normalizers))
        ctx.inverse, ctx.rows, ctx.kept = inverse, rows, kept
        return torch.cat(found)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        states, weight, bias, targets, normalizers = ctx.saved_tensors
        needs_states, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        grad_states = torch.empty_like(states) if needs_states else None
        # Sums over chunks are kept in float32 at least, whatever the weights are.
        total = torch.promote_types(weight.dtype, torch.float32)
        grad_weight = weight.new_zeros(weight.shape, dtype=total) if needs_weight else None
        grad_bias = weight.new_zeros(weight.shape[0], dtype=total) if bias is not None and needs_bias else None
        for number, start in enumerate(range(0, len(states), ctx.rows)):
            span = slice(start, start + ctx.rows)
            chunk, normalizer = states[span], normalizers[span]
            scale = gradients[0][span].unsqueeze(-1) * ctx.inverse
            if number < len(ctx.kept):
                exps, top = ctx.kept[number]
                grads = exps * (-scale * (top - normalizer).exp())
            else:
                logits = upcast(functional.linear(chunk, weight, bias))
                grads = torch.add(-normalizer, logits, alpha=ctx.inverse, out=logits).exp_().mul_(-scale)
            grads.scatter_add_(-1, targets[span].unsqueeze(-1), scale)
            if grad_bias is not None:
                grad_bias += grads.sum(0)
            grads = grads.to(weight.dtype)
            if grad_states is not None:
                torch.mm(grads, weight, out=grad_states[span])
            if grad_weight is not None and weight.dtype == total:
                grad_weight.addmm_(grads.T, chunk)
            elif grad_weight is not None:
                grad_weight += grads.T @ chunk
        ctx.kept = []  # the caller may hold the graph while the next batch is computed
        return (
            grad_states,
            None if grad_weight is None else grad_weight.to(weight.dtype),
            None if grad_bias is None else grad_bias.to(weight.dtype),
            None,
            None,
            None,
            None,
        )


def _chunked_logprobs(
    layer: nn.Module,
    apply: Callable[[Tensor], Tensor],
    states: Tensor,
    targets: Tensor,
    temperature: float,
    chunk_bytes: int,
) -> Tensor:
    """`states` (N, D) and `targets` (N,) -> log-probabilities (N,), float32; `apply` is the layer's own forward."""
    if type(layer) is nn.Linear:
        weight: Tensor = layer.weight
        bias: Tensor | None = layer.bias
        kind = states.device.type
        if torch.is_autocast_enabled(kind):  # it would not reach the backward pass
            dtype = torch.get_autocast_dtype(kind)
            states, weight, bias = states.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
        rows = max(1, chunk_bytes // (4 * weight.shape[0]))
        with torch.autocast(kind, enabled=False):
            found: Tensor = _LinearLogprobs.apply(  # type: ignore[no-untyped-call]
                states,
                weight,
                bias,
                targets,
                1.0 / temperature,
                rows,
                _KEPT_BYTES // (4 * weight.shape[0]) if torch.is_grad_enabled() else 0,
            )
        return found
    # An output layer with an adapter, quantized, ...: whatever it does, autograd does it twice.
    size = apply(states[:1]).shape[-1]  # with gradient: autocast of older torch would keep weights that have none
    rows = max(1, chunk_bytes // (4 * size))

    def read(span: slice) -> Tensor:
        return _selected(apply(states[span]), targets[span], temperature)

    spans = [slice(start, start + rows) for start in range(0, len(targets), rows)]
    return torch.cat([checkpoint(read, span, use_reentrant=False) for span in spans])


def _selected(logits: Tensor, targets: Tensor, temperature: float = 1.0) -> Tensor:
    exact = upcast(logits)
    scaled = exact if temperature == 1.0 else exact / temperature
    return scaled.log_softmax(-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)


def _output_layer(model: nn.Module) -> nn.Module:
    layer = cast("PreTrainedModel", unwrapped(model, "get_output_embeddings")).get_output_embeddings()
    if not isinstance(layer, nn.Module):
        raise TypeError(f"{type(model).__name__} has no output layer")
    return layer


def _trial_fault(model: PreTrainedModel, *, is_packed: bool, is_chunked: bool) -> str:
    """How far a model is from its own logits of each sequence alone; empty if it is not."""
    examples = trial_examples(model)
    expected = [
        _sequence_logprob(model, example.prompt, completion)
        for example in examples
        for completion in example.completions
    ]
    try:
        batch = collate(examples, is_packed=is_packed).to(model.device)
        result = token_logprobs(model, batch, is_chunked=is_chunked, chunk_bytes=1)
        found = result.sums[batch.is_present].cpu()
    except Exception as error:  # an architecture that takes no such input raises whatever it likes
        return f"a trial failed ({type(error).__name__}: {error})"
    furthest = float((found - torch.tensor(expected)).abs().max())
    allowed = 1e-3 if compute_dtype(model) == torch.float32 else 0.5
    return "" if furthest <= allowed else f"a trial gave log-probabilities that differ by {furthest:.2g}"


def _sequence_logprob(model: PreTrainedModel, prompt: tuple[int, ...], completion: tuple[int, ...]) -> float:
    """By the model's own logits, without batch or mask."""
    ids = torch.tensor([prompt + completion], device=model.device)
    logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
    return float(_selected(logits, ids[0, len(prompt) :]).sum())

"""Log-probabilities of completions under the reference: computed once, and kept on disk for later runs.

The reference never changes, so that its numbers are a function of its weights and the token ids; they are kept under
hashes of these. A completion that stands in several rows, or in those of another method, is computed once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn

from rlaif.errors import NonFiniteLossError
from rlaif.models.batches import collate
from rlaif.models.examples import Example
from rlaif.models.loading import ModelSource, fingerprint_folder
from rlaif.models.logprobs import token_logprobs
from rlaif.train.logprob_cache import Asked, LogprobCache
from rlaif.train.steps import dealt


def reference_logprobs(
    model: nn.Module,
    examples: Sequence[Example],
    *,
    is_packed: bool,
    is_chunked: bool,
    max_tokens: int,
    device: torch.device | str,
    pad: int = 0,
    cache: LogprobCache | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[tuple[float, ...]]:
    """Log-probability of each completion of each example, summed over its tokens; no gradient.

    Under torch.distributed each process computes its share of what is missing, and all return all values; all have to
    call with the same examples.

    Args:
        model: The reference, its adapter off; its mode is as before afterwards.
        examples: In any order; those of like length are computed together.
        is_packed, is_chunked: As `plan_logprobs` says of the model.
        max_tokens: Most tokens of a batch, padding included; a longer example is a batch of its own.
        device: The model's.
        pad: Any id that the model has.
        cache: What it knows is not computed, and each batch is put into it as soon as it is done.
        on_progress: Told of (completions done, all distinct completions), at the start and after each batch.

    Returns:
        In the examples' order, nats, float32 as Python floats.

    Raises:
        NonFiniteLossError: A log-probability is NaN or infinite.
    """
    wanted = list(dict.fromkeys(Asked(one.prompt, completion) for one in examples for completion in one.completions))
    values = _known(wanted, cache)
    missing = _missing(examples, values)
    rank, world = _processes()
    batches = _batches(missing, is_packed=is_packed, max_tokens=max_tokens)
    shares = dealt(batches, world) if batches else [[]] * world
    done = len(values)
    on_progress(done, len(wanted))
    found: dict[Asked, float] = {}
    was_training = model.training
    model.eval()
    try:
        for turn, (rows, counts) in enumerate(shares[rank]):
            batch = [missing[row] for row in rows]
            of_batch = _logprobs_of(model, batch, is_packed=is_packed, is_chunked=is_chunked, device=device, pad=pad)
            if counts:  # else computed only so that all processes do as much
                found |= of_batch
                if cache is not None:
                    cache.put(of_batch)
            done += sum(len(missing[row].completions) for share in shares for row in share[turn][0] if share[turn][1])
            on_progress(done, len(wanted))
    finally:
        model.train(was_training)
    values |= _of_all_processes(found)
    _refuse_non_finite(examples, values)
    return [tuple(values[Asked(one.prompt, completion)] for completion in one.completions) for one in examples]


def reference_identity(source: ModelSource, *, dtype: str, precision: str, quantize: str = "none") -> dict[str, Any]:
    """What of a reference changes its numbers by more than rounding: what its `LogprobCache` is for.

    The weights of a folder are read in full: two models may differ in the middle of a file only, as a base and an
    adapter merged into it do.

    Args:
        dtype: Of the weights as they are loaded.
        precision: Of the computation, where mixed precision makes it another one.
        quantize: As `AdapterConfig` says.
    """
    import transformers

    folder = Path(source.path)
    weights = fingerprint_folder(folder, is_whole=True) if folder.is_dir() else source.fingerprint
    return {
        "weights": weights,
        "dtype": dtype,
        "precision": precision,
        "quantize": quantize,
        "transformers": transformers.__version__,
    }


def _known(wanted: Sequence[Asked], cache: LogprobCache | None) -> dict[Asked, float]:
    """What the cache holds, the same in every process: another run may be writing into it meanwhile."""
    rank, world = _processes()
    known = cache.get(wanted) if cache is not None and rank == 0 else {}
    if world == 1:
        return known
    shared = [[known.get(asked) for asked in wanted]]
    distributed.broadcast_object_list(shared)
    return {asked: value for asked, value in zip(wanted, shared[0], strict=True) if value is not None}


def _missing(examples: Sequence[Example], known: Mapping[Asked, float]) -> list[Example]:
    """The examples with those completions that are not known, each prompt and completion once."""
    seen = set(known)
    missing = []
    for example in examples:
        completions = []
        for completion in example.completions:
            if (asked := Asked(example.prompt, completion)) not in seen:
                seen.add(asked)
                completions.append(completion)
        if completions:
            missing.append(replace(example, completions=tuple(completions)))
    return missing


def _batches(examples: Sequence[Example], *, is_packed: bool, max_tokens: int) -> list[list[int]]:
    """Indices of the examples, those of like length together, longest first; at most `max_tokens` with padding."""
    extents = [example.extent(is_packed=is_packed) for example in examples]
    batches: list[list[int]] = []
    width = rows = 0
    for index in sorted(range(len(examples)), key=lambda index: -extents[index].width):
        if not batches or width * (rows + extents[index].rows) > max_tokens:
            batches.append([])
            width, rows = extents[index].width, 0
        batches[-1].append(index)
        rows += extents[index].rows
    return batches


def _logprobs_of(
    model: nn.Module,
    examples: Sequence[Example],
    *,
    is_packed: bool,
    is_chunked: bool,
    device: torch.device | str,
    pad: int,
) -> dict[Asked, float]:
    batch = collate(examples, is_packed=is_packed, pad=pad).to(device)
    with torch.no_grad():
        sums = token_logprobs(model, batch, is_chunked=is_chunked).sums.float().tolist()
    return {
        Asked(example.prompt, completion): value
        for example, of_example in zip(examples, sums, strict=True)
        for completion, value in zip(example.completions, of_example, strict=False)  # the rest is padding
    }


def _refuse_non_finite(examples: Sequence[Example], values: Mapping[Asked, float]) -> None:
    for example in examples:
        for completion in example.completions:
            if not math.isfinite(value := values[Asked(example.prompt, completion)]):
                raise NonFiniteLossError(
                    f"the reference gives a response of row {example.id!r} a log-probability of {value}, expected a "
                    "number; its weights are damaged, or need another --precision, such as bfloat16 or float32"
                )


def _processes() -> tuple[int, int]:
    """The number of this process, and how many there are."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def _of_all_processes(found: dict[Asked, float]) -> dict[Asked, float]:
    world = _processes()[1]
    if world == 1:
        return found
    gathered: list[Any] = [None] * world
    distributed.all_gather_object(gathered, found)
    return {asked: value for of_one in gathered for asked, value in of_one.items()}

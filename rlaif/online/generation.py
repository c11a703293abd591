"""Completions written by the model that is being trained, each token with its log-probability.

What is written, in what order it is judged and what becomes of it is not said here. How a batch runs stands in
`backends.model_runs` and `backends.prefix_sharing`; another process with vLLM writes in `vllm_generation`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias, cast

from rlaif.backends.model_runs import Generated, GenerateJob, PaddedRunner, Runner, never
from rlaif.errors import BackendError

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

_log = logging.getLogger(__name__)

_DECODING_ATTENTION = ("sdpa", "eager")
"""What a model may go on with while it writes; FlexAttention would be compiled for each length."""


class RolloutJob(NamedTuple):
    """A completion to be written.

    Attributes:
        prompt_ids: Never empty; with `max_tokens` within the model's context.
        max_tokens: At least 1.
        temperature: 0 is greedy, and nothing is drawn.
        top_p: In (0, 1]; 1 draws from all tokens.
        seed: Decides the draws alone: the same job gives the same completion in any batch, rounding aside.
    """

    prompt_ids: Sequence[int]
    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0


class Written(NamedTuple):
    """A completion.

    Attributes:
        ids: Its tokens, the one that ended it included.
        logprobs: Log-probability (nats) of each under softmax(logits / temperature), before the nucleus; of greedy
            ones under softmax(logits).
        is_stopped: Whether the model ended it; False where it has its most tokens.
    """

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    is_stopped: bool


OnFinished: TypeAlias = Callable[[int, Written], None]
"""Takes a job's index and its completion."""


def unheard(index: int, written: Written) -> None:
    """For callers who wait until all is written."""


class Generator(Protocol):
    """Writes completions with the policy as it is now."""

    def generate(self, jobs: Sequence[RolloutJob], *, on_finished: OnFinished = unheard) -> list[Written]:
        """One completion for each job, in their order.

        Args:
            jobs: Any number.
            on_finished: Told of each completion as soon as it has ended, in the order in which they end, so that its
                reward can be asked for while others are written. What it raises ends all.

        Raises:
            BackendError: The policy's numbers are no numbers any more, or what writes has failed.
        """

    def sync_weights(self, step: int) -> None:
        """Write with the policy's weights after `step` optimizer steps from now on."""

    def close(self) -> None:
        """End what was started for writing."""


class HfGenerator:
    """Writes with the live model, in evaluation mode and without gradient.

    A model that trains afterwards finds its mode and its attention as they were; no keys and values are kept from one
    call to the next, as the weights change in between. Torch's random numbers are not touched.

    Args:
        model: A causal model of transformers, perhaps with a LoRA adapter, which is on while it writes.
        stops: Tokens that end a completion.
        max_batch_tokens: Most tokens of prompts and completions that are written together; further jobs wait.
        computing: What the model computes in while it writes, such as mixed precision.
    """

    def __init__(
        self,
        model: nn.Module,
        stops: frozenset[int],
        *,
        max_batch_tokens: int,
        computing: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        # peft's wrapper would hide what the model's own forward can do; the adapter sits in its layers.
        self._policy, self._model = model, base_of(model)
        self._stops, self._computing = stops, computing
        with asking(self._policy):
            self._runner = _runner_of(self._model, max_batch_tokens)

    def generate(self, jobs: Sequence[RolloutJob], *, on_finished: OnFinished = unheard) -> list[Written]:
        """See `Generator`."""
        found: dict[int, Written] = {}
        with asking(self._policy), self._computing():
            while waiting := [index for index in range(len(jobs)) if index not in found]:

                def hear(at: int, generated: Generated, waiting: Sequence[int] = waiting) -> None:
                    index = waiting[at]
                    found[index] = _written(generated)
                    on_finished(index, found[index])

                try:
                    self._runner.generate([_job(jobs[index]) for index in waiting], self._stops, never, hear)
                finally:
                    self._runner.forget()
        return [found[index] for index in range(len(jobs))]

    def sync_weights(self, step: int) -> None:
        """Nothing: it writes with the weights themselves."""

    def close(self) -> None:
        """Nothing was started."""


def base_of(policy: nn.Module) -> PreTrainedModel:
    """The model of transformers in a policy, in whose layers an adapter may sit."""
    get_base = cast("Callable[[], nn.Module] | None", getattr(policy, "get_base_model", None))
    return cast("PreTrainedModel", policy if get_base is None else get_base())


@contextmanager
def asking(policy: nn.Module) -> Iterator[None]:
    """Within, a policy computes as models do that are asked; after it, as it did before."""
    import torch

    from rlaif.train.values import values_detached

    model = base_of(policy)
    with values_detached(policy):  # a critic is not asked: its attention stays as it is
        training = [module for module in model.modules() if module.training]
        attention = model.config._attn_implementation
        if attention not in _DECODING_ATTENTION:
            model.set_attn_implementation("sdpa")
        model.eval()
        try:
            with torch.no_grad():  # not inference mode: a buffer that it makes and keeps could not be trained with
                yield
        finally:
            for module in training:
                module.training = True
            if model.config._attn_implementation != attention:
                model.set_attn_implementation(attention)


def _runner_of(model: PreTrainedModel, max_batch_tokens: int) -> Runner:
    from rlaif.backends.prefix_sharing import SharingRunner
    from rlaif.backends.tree_attention import SharingUnsupportedError

    try:
        return SharingRunner(model, max_batch_tokens=max_batch_tokens, max_cache_bytes=0)
    except SharingUnsupportedError as reason:
        _log.warning("rollouts are written in padded batches, which takes longer, for %s", reason)
    return PaddedRunner(model, max_batch_tokens=max_batch_tokens)


def _job(job: RolloutJob) -> GenerateJob:
    return GenerateJob(
        list(job.prompt_ids), job.max_tokens, job.temperature, job.seed, top_p=job.top_p, wants_logprobs=True
    )


def broken(tokens: int) -> BackendError:
    """What is raised where a policy's numbers are none after so many tokens."""
    place = f"after {tokens} tokens" if tokens else "at once"
    return BackendError(
        f"the policy gave no probabilities but NaN, {place}; its weights or its numbers overflow: go on from an "
        "earlier checkpoint with a lower --learning-rate, or give it another --dtype"
    )


def _written(generated: Generated) -> Written:
    if generated.is_broken:
        raise broken(len(generated.ids))
    return Written(tuple(generated.ids), tuple(generated.logprobs), generated.is_stopped)

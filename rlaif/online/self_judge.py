"""`--judge self`: the policy's own base as the judge, in the same weights, with the adapter off."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rlaif.backends.hf import HfBackend
from rlaif.backends.model_runs import PaddedRunner, Runner
from rlaif.models.loading import stop_ids
from rlaif.online.config import SELF
from rlaif.online.generation import asking, base_of

if TYPE_CHECKING:
    from rlaif.backends.hf import _Call
    from rlaif.errors import BackendError
    from rlaif.records import Reply
    from rlaif.train.models import Trained


class SelfJudge(HfBackend):
    """Judges with a model that is being trained, as it was before training.

    The adapter is switched off meanwhile, so that it must not be asked while the model learns or writes.

    Args:
        path_or_name: Where the base lies, for its tokenizer and its fingerprint.
        policy: With an adapter.
        max_batch_tokens, truncate: As `HfBackend`.
    """

    def __init__(self, path_or_name: str, policy: Trained, *, max_batch_tokens: int, truncate: bool) -> None:
        super().__init__(
            path_or_name, name=SELF, device=policy.device.type, max_batch_tokens=max_batch_tokens, truncate=truncate
        )
        self._policy = policy
        self._base = base_of(policy)

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        return {**super().identity, "backend": SELF}

    def _load(self) -> Runner:
        from rlaif.backends.prefix_sharing import SharingRunner
        from rlaif.backends.tree_attention import SharingUnsupportedError

        self._stops = stop_ids(self._source)
        try:
            # The base never changes, so that what prompts share stays right from one step to the next.
            return SharingRunner(self._base, max_batch_tokens=self._max_batch_tokens)
        except SharingUnsupportedError:
            return PaddedRunner(self._base, max_batch_tokens=self._max_batch_tokens)

    def _answer(self, calls: Sequence[_Call]) -> dict[int, Reply | BackendError]:
        with self._as_base():
            return super()._answer(calls)

    @contextmanager
    def _as_base(self) -> Iterator[None]:
        import torch

        from rlaif.train.models import adapter_off

        # The worker's inference mode would leave buffers behind that could not be trained with.
        with torch.inference_mode(False), torch.no_grad(), adapter_off(self._policy), asking(self._policy):
            yield

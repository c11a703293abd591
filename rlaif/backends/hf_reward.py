"""A reward model of transformers in this process.

Calls made at the same time are answered together. Responses to one prompt stand in one row, so that the prompt is
computed once. How rewards are read stands in `rlaif.models.rewards`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from rlaif.backends.base import Capabilities
from rlaif.backends.in_process import Call
from rlaif.backends.model_runs import fitting
from rlaif.backends.worker import LoadedOnce, Worker
from rlaif.errors import BackendError, ConfigError, PromptTooLongError, RequestRefusedError
from rlaif.models.encoding import ExampleEncoder
from rlaif.models.examples import Example, truncate_example
from rlaif.models.loading import check_reward_model, describe, find_model, load_reward_model, reward_shift, stop_ids
from rlaif.records import Message, Reply, Reward, RewardRequest, Turn, Usage

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_log = logging.getLogger(__name__)

_LONGEST_ROW = 4096
"""Tokens of a packed row of several responses, at most: attention takes time and memory by its square."""

_UNBOUNDED = 1 << 30
"""Context of a model that says nothing of it."""


@dataclass(eq=False)
class _Call(Call):
    prompt: tuple[int, ...] = ()
    completion: tuple[int, ...] = ()


class _Model(NamedTuple):
    model: PreTrainedModel
    is_packed: bool


@dataclass
class _Row:
    """An example in the making: a prompt, and who asked about which of its completions."""

    prompt: tuple[int, ...]
    asked: dict[tuple[int, ...], list[int]] = field(default_factory=dict)

    @property
    def example(self) -> Example:
        return Example("row", self.prompt, tuple(self.asked))

    def has_room(self, completion: tuple[int, ...], limit: int) -> bool:
        return len(self.prompt) + sum(map(len, self.asked)) + len(completion) <= limit


class HfRewardBackend:
    """Asks a reward model: an `AutoModelForSequenceClassification` with one label.

    Args:
        path_or_name: A folder with config.json, tokenizer.json and safetensors, or OWNER/NAME[@REVISION] on the hub. A
            `reward_shift` in config.json is subtracted from every score.
        name: As the user wrote it; by default "hf-reward:" and the model's name.
        device, dtype, allow_pickle: As `HfBackend`.
        max_batch_tokens: Most tokens computed in one batch.
        truncate: Cut a prompt that does not fit the context at its start; else its call fails. Responses stay whole.

    Raises:
        ConfigError: There is no such folder, device or dtype, it is no reward model, or it has no EOS.
        BackendUnusableError: The hub has no such model, or cannot be reached.
    """

    def __init__(
        self,
        path_or_name: str,
        *,
        name: str | None = None,
        device: str | None = None,
        dtype: str | None = None,
        max_batch_tokens: int = 16384,
        truncate: bool = False,
        allow_pickle: bool = False,
    ) -> None:
        self._source = find_model(
            path_or_name,
            backend="hf-reward",
            device=device or "auto",
            dtype=dtype or "auto",
            allows_pickle=allow_pickle,
        )
        check_reward_model(self._source)
        self._shift = reward_shift(self._source.config)
        self._name = name or f"hf-reward:{self._source.name}"
        self._encoder = ExampleEncoder(self._source.tokenizer, stop_ids(self._source))
        self._max_batch_tokens = max_batch_tokens
        self._truncates = truncate
        self._truncated_prompts = 0
        self._worker = Worker(self._name, _Call, prepare=self._prepare, answer=self._answer)
        self._loaded = LoadedOnce(self._name, self._load)

    @property
    def name(self) -> str:
        return self._name

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        return {"backend": "hf-reward", **describe(self._source), "truncate": self._truncates}

    @cached_property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            has_logprobs=False, has_rewards=True, is_in_process=True, context_tokens=self._source.context_tokens
        )

    async def reward(self, request: RewardRequest) -> Reward:
        """The model's score of the response where it ends, less its recorded shift.

        Raises:
            PromptTooLongError: Prompt and response do not fit the context.
            RequestRefusedError: The prompt has no turn that the assistant answers.
            BackendUnusableError: The model cannot be loaded.
        """
        return await self._worker.ask(request, Reward)

    def count_tokens(self, messages: Sequence[Message]) -> int:
        *prompt, response = (Turn(message.role, message.content) for message in messages)
        try:
            return self._encoder.example("row", prompt, (response.content,)).length
        except ValueError:
            return 0  # a call that will be refused

    async def aclose(self) -> None:
        """Stop the worker after the batch it computes now; calls without an answer fail."""
        if await self._worker.aclose() and self._truncated_prompts:
            count = self._truncated_prompts
            cut = "1 prompt was" if count == 1 else f"{count} prompts were"
            context = self._source.context_tokens
            _log.warning("%s: %s cut at the start, to fit the context of %s tokens", self._name, cut, context)

    # The worker's side.

    def _load(self) -> _Model:
        from rlaif.models.rewards import plan_rewards

        model = load_reward_model(self._source)
        # Not FlexAttention: it is compiled for seconds, and rows are short enough for a mask.
        plan = plan_rewards(model, self._source.context_tokens or _UNBOUNDED, attention="sdpa")
        for note in plan.notes:
            _log.warning("%s: %s", self._name, note)
        return _Model(model, plan.is_packed)

    def _prepare(self, call: _Call) -> None:
        """Tokenize a call, and make it fit."""
        request = call.request
        assert isinstance(request, RewardRequest)
        try:
            example = self._encoder.example("row", request.prompt, (request.response,))
        except ConfigError:
            raise
        except ValueError as error:
            raise RequestRefusedError(f"{self._name} cannot score this: {error}") from error
        example = self._fitted(example)
        call.prompt, (call.completion,) = example.prompt, example.completions

    def _fitted(self, example: Example) -> Example:
        context = self._source.context_tokens
        if context is None or example.length <= context:
            return example
        prompt, response = len(example.prompt), len(example.completions[0])
        sizes = f"the prompt has {prompt} tokens, the response {response}, and {self._name} takes {context}"
        try:
            cut = truncate_example(example, context, cut="prompt", bos=self._source.tokenizer.bos_token_id)
        except PromptTooLongError:
            raise PromptTooLongError(
                f"{sizes}, which leaves nothing of the prompt; it takes a model with a longer context"
            ) from None
        if not self._truncates:
            raise PromptTooLongError(f"{sizes}; --truncate cuts the start of the prompt")
        self._truncated_prompts += 1
        return cut.example

    def _answer(self, calls: Sequence[_Call]) -> dict[int, Reply | BackendError]:
        """Answer as many of the calls, the first among them, as fit into a batch: index -> reply."""
        from rlaif.models.batches import collate
        from rlaif.models.rewards import completion_rewards

        model, is_packed = self._loaded.get()
        rows = self._rows(calls, is_packed)
        taken = fitting([row.example.row_tokens(is_packed=is_packed) for row in rows], self._max_batch_tokens)
        rows = [rows[place] for place in taken]
        batch = collate([row.example for row in rows], is_packed=is_packed).to(model.device)
        scores: list[list[float]] = completion_rewards(model, batch).tolist()
        replies: dict[int, Reply | BackendError] = {}
        for row, of_row in zip(rows, scores, strict=True):
            for place, ((completion, asked), score) in enumerate(zip(row.asked.items(), of_row, strict=False)):
                shared = len(row.prompt) if is_packed and place else 0
                usage = Usage(len(row.prompt) + len(completion), 0, shared)
                replies.update({index: self._reply(score, usage) for index in asked})
        return replies

    def _rows(self, calls: Sequence[_Call], is_packed: bool) -> list[_Row]:
        """The calls by what they share: one row for a prompt, or several where its responses do not fit into one; the
        first call's comes first."""
        limit = min(_LONGEST_ROW, self._max_batch_tokens) if is_packed else 0  # a plain row holds one response
        rows: list[_Row] = []
        latest: dict[tuple[int, ...], _Row] = {}
        for index, call in enumerate(calls):
            row = latest.get(call.prompt)
            if row is None or not (call.completion in row.asked or row.has_room(call.completion, limit)):
                row = latest[call.prompt] = _Row(call.prompt)
                rows.append(row)
            row.asked.setdefault(call.completion, []).append(index)
        return rows

    def _reply(self, score: float, usage: Usage) -> Reward | BackendError:
        if not math.isfinite(score):
            return BackendError(f"{self._name} scored {score}, expected a finite number; try --dtype float32")
        return Reward(score - self._shift, usage)

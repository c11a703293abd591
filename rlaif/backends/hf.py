"""A transformers model in this process.

Calls made at the same time are answered in batches: the event loop collects them, one worker thread tokenizes them and
runs the model. How a batch runs stands in `model_runs` and `prefix_sharing`.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from rlaif.backends.base import Capabilities
from rlaif.backends.in_process import Call, PromptFitter
from rlaif.backends.model_runs import Generated, GenerateJob, PaddedRunner, Runner, Scored, ScoreJob
from rlaif.backends.spelling import Spelling, joined, spelling_of
from rlaif.backends.worker import LoadedOnce, Worker
from rlaif.errors import BackendError
from rlaif.models.loading import describe, find_model, load_model, stop_ids
from rlaif.records import (
    CandidateLogprobs,
    GenerateRequest,
    Generation,
    Message,
    Reply,
    ScoreRequest,
    Usage,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Call(Call):
    jobs: list[ScoreJob] = field(default_factory=list)
    """What a ScoreRequest takes: the prompt, and the prompt with each token that a label in two tokens begins with."""
    scored: dict[int, Scored] = field(default_factory=dict)
    """Place in `jobs` -> result; a batch that is full leaves some for the next one."""


class HfBackend:
    """Asks a causal language model of transformers.

    Args:
        path_or_name: A folder with config.json, tokenizer.json and safetensors, or OWNER/NAME[@REVISION] on the hub.
        name: As the user wrote it; by default "hf:" and the model's name.
        device: A torch device, or "auto" (also None): cuda, then mps, then cpu.
        dtype: float32, bfloat16, float16, or "auto" (also None): as saved, but float32 on a CPU.
        max_batch_tokens: Most tokens computed in one batch.
        truncate: Cut a prompt that is longer than the context in the middle of its longest texts; else its call fails.
        shares_prefixes: Compute what prompts share once, where the model allows it; False pads each prompt instead.
        allow_pickle: Load weights that are not safetensors; such files can run code.

    Raises:
        ConfigError: There is no such folder, device or dtype.
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
        shares_prefixes: bool = True,
        allow_pickle: bool = False,
    ) -> None:
        self._source = find_model(
            path_or_name, device=device or "auto", dtype=dtype or "auto", allows_pickle=allow_pickle
        )
        self._name = name or f"hf:{self._source.name}"
        self._max_batch_tokens = max_batch_tokens
        self._truncates = truncate
        self._shares_prefixes = shares_prefixes
        self._prompts = PromptFitter(self._source.tokenizer, self._name, truncates=truncate)
        self._spelling = lru_cache(64)(self._find_spelling)
        self._worker = Worker(self._name, _Call, prepare=self._prepare, answer=self._answer)
        self._loaded = LoadedOnce(self._name, self._load)

    @property
    def name(self) -> str:
        return self._name

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        return {"backend": "hf", **describe(self._source), "truncate": self._truncates}

    @cached_property
    def capabilities(self) -> Capabilities:
        return Capabilities(is_in_process=True, context_tokens=self._source.context_tokens)

    @property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        return self._source.tokenizer

    @property
    def model_path(self) -> str:
        """The folder, or the name on the hub."""
        return self._source.path

    async def score(self, request: ScoreRequest) -> CandidateLogprobs:
        """Exact log-probabilities of every token that spells one of the labels, and of labels in two tokens ("10").

        Raises:
            PromptTooLongError: The prompt does not fit the context.
            RequestRefusedError: The model's chat template cannot render the conversation, or there is nothing in it.
            BackendUnusableError: A label takes more tokens than two, or the model cannot be loaded.
        """
        return await self._worker.ask(request, CandidateLogprobs)

    async def generate(self, request: GenerateRequest) -> Generation:
        """Text after the messages, ended by the model, `max_tokens` or the context. Raises as `score` does."""
        return await self._worker.ask(request, Generation)

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return self._prompts.count(messages)

    async def aclose(self) -> None:
        """Stop the worker after the score batch or the token it computes now; calls without an answer fail."""
        if await self._worker.aclose():
            self._prompts.report(self._source.context_tokens)

    # The worker's side.

    @property
    def _runner(self) -> Runner:
        """The model, loaded by the first call."""
        return self._loaded.get()

    def _load(self) -> Runner:
        self._model = load_model(self._source)
        self._stops = stop_ids(self._source)
        if self._shares_prefixes:
            from rlaif.backends.prefix_sharing import SharingRunner
            from rlaif.backends.tree_attention import SharingUnsupportedError

            try:
                return SharingRunner(self._model, max_batch_tokens=self._max_batch_tokens)
            except SharingUnsupportedError as reason:
                _log.warning("%s: what prompts share is computed again for each, for %s", self._name, reason)
        return PaddedRunner(self._model, max_batch_tokens=self._max_batch_tokens)

    def _prepare(self, call: _Call) -> None:
        """Tokenize a call's prompt, and check what can be checked without the model."""
        request = call.request
        spelling = self._spelling(request.labels) if isinstance(request, ScoreRequest) else None
        follows = spelling is None or bool(spelling.splits)  # a token after the prompt has to fit as well
        further = request.max_tokens - 1 if isinstance(request, GenerateRequest) else 0
        context = self._source.context_tokens
        call.ids = self._prompts.fit(request.messages, None if context is None else context - follows, further)
        if spelling is not None:
            halves = [(head.id, split.tail_ids) for split in spelling.splits for head in split.heads]
            call.jobs = [ScoreJob(call.ids, tuple(token.id for token in spelling.tokens))]
            call.jobs += [ScoreJob([*call.ids, head], tail_ids) for head, tail_ids in halves]

    def _answer(self, calls: Sequence[_Call]) -> dict[int, Reply | BackendError]:
        """Answer as many of the calls, the first among them, as fit into a batch: index -> reply.

        The first is not answered where its own jobs do not fit into one batch; its next batch has fewer left to do.
        """
        kind = type(calls[0].request)
        rows = [row for row, call in enumerate(calls) if isinstance(call.request, kind)]
        if kind is ScoreRequest:
            self._score([calls[row] for row in rows])
            return {row: self._logprobs(calls[row]) for row in rows if len(calls[row].scored) == len(calls[row].jobs)}
        jobs = [self._generate_job(calls[row]) for row in rows]
        written = self._runner.generate(jobs, self._stops, self._worker.is_closed.is_set)
        return {rows[at]: self._text(calls[rows[at]], result) for at, result in written.items()}

    def _score(self, calls: Sequence[_Call]) -> None:
        left = [(call, place) for call in calls for place in range(len(call.jobs)) if place not in call.scored]
        for at, scored in self._runner.score([call.jobs[place] for call, place in left]).items():
            call, place = left[at]
            call.scored[place] = scored

    def _generate_job(self, call: _Call) -> GenerateJob:
        request = call.request
        assert isinstance(request, GenerateRequest)
        context = self._source.context_tokens
        room = request.max_tokens if context is None else min(request.max_tokens, context - len(call.ids))
        seed = secrets.randbits(64) if request.seed is None else request.seed
        return GenerateJob(call.ids, room, request.temperature, seed, request.top_p)

    def _find_spelling(self, labels: tuple[str, ...]) -> Spelling:
        return spelling_of(self._source.tokenizer, labels, self._name)

    def _logprobs(self, call: _Call) -> CandidateLogprobs:
        assert isinstance(call.request, ScoreRequest)
        spelling = self._spelling(call.request.labels)
        first = call.scored[0]
        heads = [head.id for split in spelling.splits for head in split.heads]
        halves = {
            head: dict(zip(call.jobs[place].wanted, call.scored[place].logprobs, strict=True))
            for place, head in enumerate(heads, 1)
        }
        tokens = joined(spelling, dict(zip(call.jobs[0].wanted, first.logprobs, strict=True)), halves)
        return CandidateLogprobs(tokens, is_exhaustive=True, usage=Usage(len(call.ids), 0, first.cached_tokens))

    def _text(self, call: _Call, generated: Generated) -> Generation | BackendError:
        if generated.is_broken:
            place = f"after {len(generated.ids)} tokens" if generated.ids else "at once"
            return BackendError(
                f"{self._name} gave no probabilities but NaN, {place}; its numbers overflow: give it another --dtype"
            )
        spoken = generated.ids[:-1] if generated.is_stopped else generated.ids
        text: str = self._source.tokenizer.decode(spoken, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        usage = Usage(len(call.ids), len(generated.ids), generated.cached_tokens)
        return Generation(text, "stop" if generated.is_stopped else "length", usage=usage)

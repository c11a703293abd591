"""`vllm:MODEL`: vLLM's asynchronous engine on this machine, in a process of its own.

Prompts are tokenized here, so that what stands in a response cannot act as a special token; the engine gets token ids
and gives exact log-probabilities of the labels' tokens. The process is started by the first call and ends with this
one. It knows no judge; what is said to it stands in `vllm_engine`.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from queue import SimpleQueue
from typing import Any

from rlaif.backends.base import Capabilities
from rlaif.backends.in_process import Call, Collector, PromptFitter, R, deliver, own_copy, resolve
from rlaif.backends.spelling import NEGLIGIBLE, Spelling, joined, spelling_of
from rlaif.backends.vllm_args import identity_of, parse_engine_args, vllm_folder
from rlaif.backends.vllm_process import EngineProcess, engine_settings, tell_defaults
from rlaif.errors import BackendError, BackendUnusableError, ConfigError, RequestRefusedError
from rlaif.models.loading import describe, find_model, stop_ids
from rlaif.records import (
    CandidateLogprobs,
    GenerateRequest,
    Generation,
    Message,
    Reply,
    Request,
    ScoreRequest,
    TokenLogprob,
    Usage,
)

_log = logging.getLogger(__name__)

_FLOOR = math.log(NEGLIGIBLE)


@dataclass(eq=False)
class _Call(Call):
    number: int = -1
    """Under which the engine knows it; -1 as long as it does not."""


class VllmBackend:
    """Asks a causal language model through vLLM.

    Args:
        path_or_name: A folder with config.json, tokenizer.json and weights, or OWNER/NAME[@REVISION] on the hub.
        name: As the user wrote it; by default "vllm:" and the model's name.
        dtype: float32, bfloat16, float16, or "auto" (also None): as saved, but float32 on a CPU.
        truncate: Cut a prompt that is longer than the context in the middle of its longest texts; else its call fails.
        engine_args: KEY=VALUE each, for vLLM's AsyncEngineArgs; a dtype among them counts as `dtype`.

    Raises:
        BackendNotInstalledError: vLLM is missing.
        ConfigError: There is no such folder, dtype or engine argument.
        BackendUnusableError: The hub has no such model, or cannot be reached.
    """

    def __init__(
        self,
        path_or_name: str,
        *,
        name: str | None = None,
        dtype: str | None = None,
        truncate: bool = False,
        engine_args: Sequence[str] = (),
    ) -> None:
        vllm_folder()
        self._args = parse_engine_args(engine_args, f"judge 'vllm:{path_or_name}', vllm-arg")
        chosen = [each for each in (dtype, self._args.pop("dtype", None)) if each not in {None, "auto"}]
        if len(set(chosen)) > 1:
            raise ConfigError(f"dtype: {chosen[0]!r} and --vllm-arg dtype={chosen[1]} contradict each other")
        self._source = find_model(
            path_or_name, backend="vllm", device="auto", dtype=str(chosen[0]) if chosen else "auto"
        )
        self._name = name or f"vllm:{self._source.name}"
        self._truncates = truncate
        stated = [self._source.context_tokens, self._args.get("max_model_len")]
        self._context = min((size for size in stated if isinstance(size, int) and size > 0), default=None)
        self._prompts = PromptFitter(self._source.tokenizer, self._name, truncates=truncate)
        self._spelling = lru_cache(64)(self._find_spelling)
        self._collector = Collector(_Call, self._hand_over)
        self._news: SimpleQueue[list[_Call] | _Call | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._process: EngineProcess | None = None
        self._is_closed = False
        self._is_exact = True
        self._is_settled = threading.Event()
        """Set when the engine is ready, or has failed."""
        self._lock = threading.Lock()
        """Held for the three below, and while the process is started."""
        self._failure: BackendError | None = None
        self._asked: dict[int, _Call] = {}
        self._last_number = 0

    @property
    def name(self) -> str:
        return self._name

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """Weights, dtype, truncation, and each engine argument that is not about place or speed.

        vLLM's version is not part of it: versions differ by rounding, as kernels and GPUs do; run.json names it.
        """
        arguments = identity_of(self._args)
        return {
            "backend": "vllm",
            **describe(self._source),
            "truncate": self._truncates,
            **({"engine_args": arguments} if arguments else {}),
        }

    @cached_property
    def capabilities(self) -> Capabilities:
        return Capabilities(is_in_process=True, context_tokens=self._context)

    @property
    def process_id(self) -> int | None:
        """Of the parent of vLLM's processes; None before the first call."""
        return None if self._process is None else self._process.pid

    async def score(self, request: ScoreRequest) -> CandidateLogprobs:
        """Log-probabilities of every token that spells one of the labels, and of labels in two tokens ("10").

        They are exact, or the likeliest 20 tokens' where the installed vLLM cannot name tokens.

        Raises:
            PromptTooLongError: The prompt does not fit the context.
            RequestRefusedError: The model's chat template cannot render the conversation, there is nothing in it, or
                vLLM does not take this request.
            BackendUnusableError: A label takes more tokens than two, or vLLM does not start or has died.
        """
        return await self._ask(request, CandidateLogprobs)

    async def generate(self, request: GenerateRequest) -> Generation:
        """Text after the messages, ended by the model, `max_tokens` or the context. Raises as `score` does."""
        return await self._ask(request, Generation)

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return self._prompts.count(messages)

    async def aclose(self) -> None:
        """End vLLM's processes; calls without an answer fail."""
        if self._is_closed:
            return
        self._is_closed = True
        self._fail(self._closed())
        await asyncio.to_thread(self._stop)
        self._prompts.report(self._context)

    def _stop(self) -> None:
        self._news.put(None)
        with self._lock:
            process = self._process
        if process is not None:
            process.stop()
        if self._thread is not None:
            self._thread.join()

    # The event loop's side.

    async def _ask(self, request: Request, reply_type: type[R]) -> R:
        if self._is_closed:
            raise self._closed()
        return await self._collector.ask(request, reply_type, on_cancel=self._news.put)

    def _hand_over(self, calls: list[_Call]) -> None:
        if self._is_closed:
            resolve([(call, self._closed()) for call in calls])
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        self._news.put(calls)

    def _closed(self) -> BackendUnusableError:
        return BackendUnusableError(f"{self._name} was closed before it answered; what it had begun is lost")

    # The worker thread: starts the engine, tokenizes, and passes calls on.

    def _work(self) -> None:
        process = self._start()
        self._is_settled.wait()
        is_open = True
        while is_open:
            messages: list[Mapping[str, Any]] = []
            news = [self._news.get()]
            while not self._news.empty():
                news.append(self._news.get())
            for item in news:
                if item is None:
                    is_open = False
                elif isinstance(item, _Call):
                    messages += self._taken_back(item)
                else:
                    messages += self._asked_for(item)
            if messages and process is not None:
                process.send(messages)

    def _start(self) -> EngineProcess | None:
        failure = None
        with self._lock:
            if not self._is_closed:
                try:
                    self._process = EngineProcess(engine_settings(self._source, self._args), self._take, self._end)
                except OSError as error:
                    failure = BackendUnusableError(f"{self._name}: a process for vLLM cannot be started: {error}")
        if failure is not None:
            self._fail(failure)
        return self._process

    def _asked_for(self, calls: Sequence[_Call]) -> list[Mapping[str, Any]]:
        """What the engine is told of new calls."""
        messages: list[Mapping[str, Any]] = []
        failed: list[tuple[Call, Reply | Exception]] = []
        for call in calls:
            if call.future.cancelled():
                continue
            try:
                message = self._message(call)
                with self._lock:
                    if self._failure is not None:
                        raise own_copy(self._failure)
                    self._last_number += 1
                    call.number = self._last_number
                    self._asked[call.number] = call
                messages.append({"id": call.number, **message})
            except Exception as error:
                failed.append((call, error))
        deliver(failed)
        return messages

    def _taken_back(self, call: _Call) -> list[Mapping[str, Any]]:
        with self._lock:
            was_asked = self._asked.pop(call.number, None)
        return [{"abort": call.number}] if was_asked else []

    def _message(self, call: _Call) -> dict[str, Any]:
        request = call.request
        context = self._context
        if isinstance(request, ScoreRequest):
            spelling = self._spelling(request.labels)
            # vLLM writes one token after each prompt, also where only its log-probabilities are wanted.
            limit = None if context is None else context - 1 - bool(spelling.splits)
            call.ids = self._prompts.fit(request.messages, limit)
            halves = [{"head": head.id, "tails": split.tail_ids} for split in spelling.splits for head in split.heads]
            wanted = [token.id for token in spelling.tokens]
            return {"ids": call.ids, "wanted": wanted, "halves": halves, "floor": _FLOOR}
        assert isinstance(request, GenerateRequest)
        limit = None if context is None else context - 1
        call.ids = self._prompts.fit(request.messages, limit, request.max_tokens - 1)
        room = request.max_tokens if context is None else min(request.max_tokens, context - len(call.ids))
        return {
            "ids": call.ids,
            "max_tokens": room,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "seed": None if request.seed is None else request.seed % (1 << 63),
            "stops": sorted(self._stops),
        }

    @cached_property
    def _stops(self) -> frozenset[int]:
        return stop_ids(self._source)

    def _find_spelling(self, labels: tuple[str, ...]) -> Spelling:
        return spelling_of(self._source.tokenizer, labels, self._name)

    # The process's thread: what the engine says.

    def _take(self, messages: Sequence[Mapping[str, Any]]) -> None:
        answers: list[tuple[Call, Reply | Exception]] = []
        for message in messages:
            if "ready" in message:
                self._begin(message["ready"])
                continue
            with self._lock:
                call = self._asked.pop(message["id"], None)
            if call is None:
                continue  # cancelled
            try:
                answers.append((call, self._reply(call, message)))
            except Exception as error:  # whatever it is, it belongs to who waits
                wrapped = BackendError(f"{self._name}: a reply cannot be read: {type(error).__name__}: {error}")
                answers.append((call, wrapped))
        deliver(answers)

    def _begin(self, ready: Mapping[str, Any]) -> None:
        self._is_exact = ready["is_exact"]
        self._context = min(self._context or ready["context_tokens"], ready["context_tokens"])
        tell_defaults(self._name, ready)
        if not self._is_exact:
            where = f"vLLM {ready['version']} on {ready['platform']}"
            _log.warning("%s: %s cannot name tokens; only the likeliest 20 are read", self._name, where)
        self._is_settled.set()

    def _reply(self, call: _Call, message: Mapping[str, Any]) -> Reply | Exception:
        if "refused" in message:
            return RequestRefusedError(f"{self._name} does not take this request: {message['refused']}")
        if "error" in message:
            return BackendError(f"{self._name} failed on this call: {message['error']}")
        usage = Usage(len(call.ids), 0, min(message["cached"], len(call.ids)))
        if isinstance(call.request, ScoreRequest):
            first, halves = _logprobs(message["first"]), {head: _logprobs(found) for head, found in message["halves"]}
            spelling = self._spelling(call.request.labels)
            tokens = joined(spelling, first, halves)
            if not self._is_exact:
                labels = {token.id for token in spelling.tokens}
                tokens += tuple(
                    TokenLogprob(self._text([token]), logprob)
                    for token, logprob in first.items()
                    if token not in labels
                )
            return CandidateLogprobs(tokens, is_exhaustive=self._is_exact, usage=usage)
        ids, is_stopped = message["text_ids"], message["is_stopped"]
        text = self._text(ids[:-1] if is_stopped and ids and ids[-1] in self._stops else ids, skips_special=True)
        return Generation(text, "stop" if is_stopped else "length", usage=usage._replace(completion_tokens=len(ids)))

    def _text(self, ids: Sequence[int], *, skips_special: bool = False) -> str:
        text: str = self._source.tokenizer.decode(
            ids, skip_special_tokens=skips_special, clean_up_tokenization_spaces=False
        )
        return text

    def _end(self, why: str) -> None:
        what = "vLLM's process has died" if self._is_settled.is_set() else "vLLM does not start"
        self._fail(BackendUnusableError(f"{self._name}: {what}: {why}"))

    def _fail(self, failure: BackendError) -> None:
        """From now on every call fails, those that wait among them."""
        with self._lock:
            if self._failure is None:
                self._failure = failure
            waiting, self._asked = list(self._asked.values()), {}
            failure = self._failure
        deliver([(call, own_copy(failure)) for call in waiting])
        self._is_settled.set()


def _logprobs(pairs: Sequence[tuple[int, float | None]]) -> dict[int, float]:
    return {token: math.nan if logprob is None else logprob for token, logprob in pairs}

"""The thread on which a model of this process answers (`hf`, `hf-reward`): calls in, batch by batch, replies out."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from queue import SimpleQueue
from typing import Generic, TypeVar

from rlaif.backends.in_process import C, Collector, R, deliver, own_copy, resolve
from rlaif.backends.model_runs import CancelledRunError
from rlaif.errors import BackendError, BackendUnusableError, RlaifError
from rlaif.records import Reply, Request

ModelT = TypeVar("ModelT")


class Worker(Generic[C]):
    """Answers calls on a thread, which the first one starts.

    Args:
        name: The judge, for messages.
        call_type: What a call is made as.
        prepare: Does for one call what can be done before it stands in a batch; an error is that call's alone.
        answer: Answers as many of the calls, the first among them, as fit into a batch: index -> reply, or
            the error of that call. It may answer none, where it has got on with the first. An error that it raises is
            that of all who wait.

    Attributes:
        is_closed: Set once nobody is to be answered any more.
    """

    def __init__(
        self,
        name: str,
        call_type: type[C],
        *,
        prepare: Callable[[C], None],
        answer: Callable[[Sequence[C]], Mapping[int, Reply | BackendError]],
    ) -> None:
        self.is_closed = threading.Event()
        self._name = name
        self._prepare = prepare
        self._answer = answer
        self._collector = Collector(call_type, self._hand_over)
        self._handed_over: SimpleQueue[list[C] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    # The event loop's side.

    async def ask(self, request: Request, reply_type: type[R]) -> R:
        """The reply to a request.

        Raises:
            BackendError: It failed, or the worker is closed.
        """
        if self.is_closed.is_set():
            raise self._closed()
        return await self._collector.ask(request, reply_type)

    async def aclose(self) -> bool:
        """Stop after the batch, or the token, that is computed now; calls without an answer fail. True where a thread
        was stopped."""
        self.is_closed.set()
        thread, self._thread = self._thread, None
        if thread is None:
            return False
        self._handed_over.put(None)
        await asyncio.to_thread(thread.join)
        return True

    def _hand_over(self, calls: list[C]) -> None:
        if self.is_closed.is_set():
            resolve([(call, self._closed()) for call in calls])
            return
        if self._thread is None:
            # A daemon, so that Ctrl-C does not wait for a batch.
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        self._handed_over.put(calls)

    def _closed(self) -> BackendUnusableError:
        return BackendUnusableError(f"{self._name} was closed before it answered; what it had begun is lost")

    # The thread's side.

    def _work(self) -> None:
        """Answer what waits, until the worker is closed and None handed over."""
        import torch

        backlog: list[C] = []
        with torch.inference_mode():
            while True:
                news = [] if backlog else [self._handed_over.get()]
                while not self._handed_over.empty():
                    news.append(self._handed_over.get())
                if self.is_closed.is_set():
                    unanswered = backlog + [call for calls in news if calls is not None for call in calls]
                    deliver([(call, self._closed()) for call in unanswered])
                    return
                for calls in news:
                    backlog += self._prepared(calls or [])
                backlog = [call for call in backlog if not call.future.cancelled()]
                if not backlog:
                    continue
                try:
                    replies = self._answer(backlog)
                except CancelledRunError:
                    continue  # to the end, above
                except Exception as error:  # whatever it is, it belongs to those who wait
                    deliver([(call, self._as_backend_error(error)) for call in backlog])
                    backlog = []
                    continue
                deliver([(backlog[row], reply) for row, reply in replies.items()])
                backlog = [call for row, call in enumerate(backlog) if row not in replies]

    def _prepared(self, calls: Sequence[C]) -> list[C]:
        ready, failed = [], []
        for call in calls:
            try:
                self._prepare(call)
                ready.append(call)
            except Exception as error:
                failed.append((call, error))
        deliver(failed)
        return ready

    def _as_backend_error(self, error: Exception) -> BackendError:
        if isinstance(error, BackendError):
            return own_copy(error)
        wrapped = BackendError(f"{self._name} failed on a batch: {type(error).__name__}: {error}")
        wrapped.__cause__ = error
        return wrapped


class LoadedOnce(Generic[ModelT]):
    """A model that the first who needs it loads; one that cannot be loaded is not tried again.

    Args:
        name: The judge, for messages.
        load: Loads it.
    """

    def __init__(self, name: str, load: Callable[[], ModelT]) -> None:
        self._name = name
        self._load = load
        self._loaded: ModelT | None = None
        self._failure: BackendError | None = None

    def get(self) -> ModelT:
        """The model.

        Raises:
            BackendError: It cannot be loaded.
        """
        if self._failure is not None:
            raise self._failure
        if self._loaded is None:
            try:
                self._loaded = self._load()
            except Exception as error:
                self._failure = self._load_error(error)
                raise self._failure from error
        return self._loaded

    def _load_error(self, error: Exception) -> BackendError:
        if isinstance(error, BackendError):
            return error
        why = str(error) if isinstance(error, RlaifError) else f"{type(error).__name__}: {error}"
        return BackendUnusableError(f"{self._name} cannot be loaded: {why}")

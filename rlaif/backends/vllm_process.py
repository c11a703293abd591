"""The parent's side of vLLM's process: starting it, talking to it, and saying what it died of."""

from __future__ import annotations

import logging
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import orjson

from rlaif.models.loading import ModelSource
from rlaif.visibility import visible

_log = logging.getLogger(__name__)

_ENV = {"VLLM_NO_USAGE_STATS": "1", "VLLM_WORKER_MULTIPROC_METHOD": "spawn"}
"""Set unless the user sets them. Processes that are spawned, not forked, do not hold our socket open."""

_LOG_TAIL = 1 << 16
_STOP_SECONDS = 15.0
_PREFIX = re.compile(r"^\([^()]*pid=\d+\)\s+(?:[A-Z]+ \d\d-\d\d \d\d:\d\d:\d\d \[[^\]]*\]\s?)?")
_ERROR = re.compile(r"^(?:[\w.]+\.)?[A-Z]\w*(?:Error|Exception|Exit|Interrupt)\b(?:: .+)")
_HOLLOW = ("root cause", "Engine core initialization failed", "EngineDeadError", "EngineGenerateError")
"""Words of errors that only point to another one."""


def engine_settings(source: ModelSource, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What an engine is started with for a model.

    Args:
        source: The model.
        arguments: Engine arguments, before those that follow from the model.
    """
    is_commit = len(source.fingerprint) == 40
    args = {
        "model": source.path,
        "revision": source.fingerprint if is_commit else source.revision,
        "dtype": source.dtype,
        "enable_prefix_caching": True,
        "disable_log_stats": True,
    }
    sizes_cache = {"gpu_memory_utilization", "kv_cache_memory_bytes"} & arguments.keys()
    return {
        "args": {**args, **arguments},
        "cpu_args": {"enforce_eager": True, **({} if sizes_cache else {"gpu_memory_utilization": 0.1})},
        "cpu_env": {} if sizes_cache else {"VLLM_CPU_KVCACHE_SPACE": "4"},
    }


def tell_defaults(called: str, ready: Mapping[str, Any], flag: str = "--vllm-arg") -> None:
    """Log what an engine on a CPU was given that nobody chose.

    Args:
        called: Whose engine it is.
        ready: What it said when it was ready.
        flag: That its arguments are given by.
    """
    if ready["defaults"]:
        chosen = ", ".join(f"{name}={value}" for name, value in ready["defaults"].items())
        _log.warning(
            "%s: vLLM %s on %s runs with %s; change it with %s or the environment",
            called, ready["version"], ready["platform"], chosen, flag,
        )  # fmt: skip


class EngineProcess:
    """vLLM in a process of its own, which ends with this one, however this one ends.

    Args:
        settings: See `vllm_engine`.
        on_messages: Takes what the engine says; runs on a thread.
        on_end: Takes what the engine died of, once, when it can answer no more; runs on a thread.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        on_messages: Callable[[Sequence[Mapping[str, Any]]], None],
        on_end: Callable[[str], None],
    ) -> None:
        self._on_messages = on_messages
        self._on_end = on_end
        self._output = tempfile.TemporaryFile(prefix="rlaif-vllm-")  # noqa: SIM115 (it is open as long as the process lives)
        self._link, theirs = socket.socketpair()
        # Where this process looks for modules in the current folder, so must the other.
        looks_here = ["-P"] if not {"", os.getcwd()} & set(sys.path) else []
        try:
            self._process = subprocess.Popen(
                [sys.executable, *looks_here, "-m", "rlaif.backends.vllm_engine", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._output,
                env={**_ENV, **os.environ},
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is for this process, which lets the calls in flight end
            )
        finally:
            theirs.close()
        self.send([settings])
        self._thread = threading.Thread(target=self._receive, name="vllm replies", daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int:
        """Of the keeper: the parent of vLLM's processes."""
        return self._process.pid

    def send(self, messages: Sequence[Mapping[str, Any]]) -> None:
        """Tell the engine; waits while it does not listen. What a dead engine is told is lost."""
        with suppress(OSError):
            self._link.sendall(b"".join(orjson.dumps(message) + b"\n" for message in messages))

    def stop(self) -> None:
        """End all of it; returns when no process is left."""
        with suppress(OSError):
            self._link.shutdown(socket.SHUT_RDWR)
        self._link.close()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            _log.warning("vLLM's processes do not end; their parent is %d", self._process.pid)
        if self._thread is not threading.current_thread():
            self._thread.join(_STOP_SECONDS)
        self._output.close()

    def _receive(self) -> None:
        rest = b""
        said = ""
        with suppress(OSError):
            while data := self._link.recv(1 << 20):
                head, end, tail = data.rpartition(b"\n")
                if not end:
                    rest += tail
                    continue
                messages, rest = _parsed(rest + head), tail
                said = next((message["dead"] for message in messages if "dead" in message), said)
                if said:
                    break
                self._on_messages(messages)
        self._on_end(self._why(said))

    def _why(self, said: str) -> str:
        if said and not any(word in said for word in _HOLLOW):
            return visible(said)
        with suppress(OSError, ValueError):
            size = os.fstat(self._output.fileno()).st_size
            tail = os.pread(self._output.fileno(), _LOG_TAIL, max(0, size - _LOG_TAIL))
            if lines := telling_lines(tail.decode(errors="replace")):
                return "; ".join(lines)
        return visible(said) or "it ended without a word"


def telling_lines(output: str) -> list[str]:
    """The one or two lines of vLLM's output that say why it ended: its last errors, else its last line.

    >>> telling_lines("INFO ready\\n(EngineCore pid=7) ERROR 01-02 03:04:05 [core.py:6] ValueError: no room\\n")
    ['ValueError: no room']
    """
    lines = [_PREFIX.sub("", visible(line)).strip() for line in output.splitlines()]
    errors = [line for line in lines if _ERROR.match(line) and not any(word in line for word in _HOLLOW)]
    found = list(dict.fromkeys(errors))[-2:] or [line for line in lines if line][-1:]
    return [line if len(line) <= 400 else line[:397] + "..." for line in found]


def _parsed(lines: bytes) -> list[Mapping[str, Any]]:
    found = []
    for line in lines.split(b"\n"):
        with suppress(orjson.JSONDecodeError):  # the engine was killed while it wrote
            found.append(orjson.loads(line))
    return found

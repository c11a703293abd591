"""The process above vLLM's processes, which leaves none of them behind.

It forks the engine, waits for the end of whoever started it, and then ends all there is, however that end came about.
Should it be killed too, the engine ends with it, and each process that vLLM spawns soon after its parent. What the
engine does stands in `vllm_engine`.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from multiprocessing import resource_tracker
from typing import NoReturn

_GRACE = 8.0
"""Seconds that vLLM's processes have to end by themselves: they remove files and sockets."""


def keep(link: socket.socket) -> None:
    """Fork. The child returns and becomes the engine; the parent of it stays here, and never returns.

    It ends when the other end of `link` is closed, when its own parent is gone, when the engine has ended or when it is
    told to (SIGTERM): then all processes below it end, first asked to, then killed.
    """
    owner, keeper = os.getppid(), os.getpid()
    _prctl(_SET_CHILD_SUBREAPER, 1)  # processes whose parent dies become the keeper's: none can hide
    begun, done = os.pipe()
    engine = os.fork()
    if engine == 0:
        _prctl(_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != keeper:
            os._exit(1)
        resource_tracker.ensure_running()  # frees shared memory after all others; hence not in the group that is killed
        os.setpgid(0, 0)
        os.close(done)
        return
    os.close(done)
    os.read(begun, 1)  # until the engine has its group, which is what is ended
    told = []
    signal.signal(signal.SIGTERM, lambda *_: told.append(True))
    poller = select.poll()
    poller.register(link, 0)  # nothing but the other end's closing
    status = None
    while status is None and not told and os.getppid() == owner and not poller.poll(200):
        status = _reap().get(engine)
    if status is not None and os.WIFSIGNALED(status):
        with suppress(OSError):  # a line of its own, whatever the engine was writing
            link.send(b'\n{"dead":"it was killed by %s"}\n' % signal.Signals(os.WTERMSIG(status)).name.encode())
    link.close()
    _end_all(engine)


def _end_all(group: int) -> NoReturn:
    """Ask the engine and what it started to end; kill the group that is left, then whatever else is left."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with suppress(OSError):
            os.killpg(group, sign)
        _wait_for_children(_GRACE)
    while True:
        for child in _children():
            with suppress(OSError):
                os.kill(child, signal.SIGKILL)
        _wait_for_children(0.2)


def _wait_for_children(seconds: float) -> None:
    """Wait until they have ended, those they left behind too; if so, the keeper's work is done."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            os._exit(0)
        time.sleep(0.02)


def _reap() -> dict[int, int]:
    """Exit status of each child that has ended."""
    ended = {}
    with suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            ended[found[0]] = found[1]
    return ended


def _children() -> list[int]:
    with suppress(OSError), open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
        return [int(pid) for pid in file.read().split()]
    return []


def end_after_parent() -> None:
    """In a process that vLLM spawned: should its parent end and nobody end this one, end it."""

    def watch(parent: int) -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        time.sleep(_GRACE)
        os.kill(os.getpid(), signal.SIGKILL)

    # Not PR_SET_PDEATHSIG: that goes by the thread of the parent which spawned it, and vLLM may use a short-lived one.
    threading.Thread(target=watch, args=(os.getppid(),), name="rlaif", daemon=True).start()


_SET_PDEATHSIG, _SET_CHILD_SUBREAPER = 1, 36


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)

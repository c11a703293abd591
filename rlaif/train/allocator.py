"""How the C library treats memory that tensors give back, which a training step asks for again at once."""

from __future__ import annotations

import ctypes
import platform

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # of glibc's malloc.h
_ALWAYS_KEPT = (1 << 31) - 1


def keep_freed_memory() -> None:
    """Let glibc keep freed memory instead of giving it back to the kernel, which clears each page before the next use.

    It saves system time on a CPU, where the temporaries of each layer are some MB. Elsewhere nothing happens.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_MMAP_THRESHOLD, 1 << 30)
    libc.mallopt(_TRIM_THRESHOLD, _ALWAYS_KEPT)

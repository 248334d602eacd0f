"""Memory of a process that trains on the CPU."""

from __future__ import annotations

import ctypes
import platform

# mallopt parameters of glibc.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> None:
    """Let freed tensors stay with the process, where the C library is glibc.

    By default glibc hands large ones back to the system, and every training step pays for fresh
    pages: up to a quarter of a step (docs/performance.md).
    """
    if platform.system() == "Linux" and platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_THRESHOLD, 32 << 20)  # the most that every glibc takes
        libc.mallopt(_TRIM_THRESHOLD, 1 << 30)

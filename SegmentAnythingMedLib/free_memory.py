"""How much memory this machine has left: asked before a volume is read and when a cache is given its budget.

And memory that was freed given back to it, after a model was loaded.
"""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress


def free_memory_bytes() -> int | None:
    """Bytes that can be used without swapping; half of the physical memory where only that is told; else None."""
    if sys.platform == "win32":
        return _free_bytes_windows()
    try:
        with open("/proc/meminfo", encoding="ascii") as info:
            available = next(line for line in info if line.startswith("MemAvailable:"))
        return int(available.split()[1]) * 1024
    except (OSError, StopIteration):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (ValueError, OSError):
        return None


def give_back_memory() -> None:
    """Give the system what this process has freed; glibc keeps it, other C libraries give it back by themselves."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # not glibc
            ctypes.CDLL(None).malloc_trim(0)


def _free_bytes_windows() -> int | None:
    class MemoryStatus(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ulong), ("load", ctypes.c_ulong)] + [
            (name, ctypes.c_ulonglong)
            for name in ("total", "free", "page", "page_free", "virtual", "virtual_free", "ext")
        ]

    status = MemoryStatus(length=ctypes.sizeof(MemoryStatus))
    return int(status.free) if ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)) else None

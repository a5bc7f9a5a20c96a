"""What a run was measured on: processor, cores, and its matrix-multiplication peak at that moment."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

import numpy as np


def processor() -> str:
    """Model of the processor and the number of cores this process may use."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f"{model}, {core_count()} cores"


def core_count() -> int:
    """Cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def matmul_gflops(size: int = 1024, seconds: float = 0.5) -> float:
    """Best GFLOP/s of float32 matrix products within a time; the yardstick for milliseconds of this run."""
    a = np.random.default_rng(0).random((size, size), dtype=np.float32)
    best, deadline = 0.0, time.perf_counter() + seconds
    a @ a
    while time.perf_counter() < deadline:
        start = time.perf_counter()
        a @ a
        best = max(best, 2e-9 * size**3 / (time.perf_counter() - start))
    return best


def load_average() -> float:
    """Processes that wanted a core in the last minute; nan where the system does not tell."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")


def thread_count() -> int:
    """Threads a network may use: ``OMP_NUM_THREADS``, else one core stays free (on two busy cores one is faster)."""
    return int(os.environ.get("OMP_NUM_THREADS", 0)) or max(1, core_count() - 1)


def reset_peak() -> bool:
    """Let `peak_bytes` count from now; False where the system cannot (then it counts from the process's start)."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def peak_bytes() -> int:
    """Highest resident memory of this process since its start or `reset_peak`; 0 where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:
        return 0
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return usage if platform.system() == "Darwin" else usage * 1024

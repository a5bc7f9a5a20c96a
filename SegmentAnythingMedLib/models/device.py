"""Which device torch models run on, and in which precision."""

from __future__ import annotations

import logging
import math
import time
from contextlib import AbstractContextManager, nullcontext

import torch

from SegmentAnythingMedLib.errors import ModelUnavailableError

log = logging.getLogger(__name__)

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
ENOUGH_BYTES = 3 << 30
"""Free memory that makes a GPU worth taking: SAM 2.1 large at 1024 px and a slice's work."""

_WORTH_IT = 1.3
_MOST_TRIALS = 1000


def choose_device(name: str) -> torch.device:
    """``auto`` takes the CUDA device with most free memory if that is enough, else Apple's MPS, else the CPU.

    Any other device must be there.

    Raises
    ------
    ModelUnavailableError
        If the device is not known or not there.
    """
    if name == "auto":
        cuda = _roomiest_cuda() if torch.cuda.is_available() else None
        return cuda or torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ModelUnavailableError(f"Device {name!r} is not known: use auto, cpu, cuda, cuda:1 or mps.") from error
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(device.type, False) or (device.index or 0) >= max(torch.cuda.device_count(), 1):
        raise ModelUnavailableError(f"Device {name!r} is not on this machine: use auto or cpu.")
    return device


def _roomiest_cuda() -> torch.device | None:
    """The CUDA device with most free memory, or None if that is not enough."""
    free = {index: _free_bytes(index) for index in range(torch.cuda.device_count())}
    best = max(free, key=free.get, default=None)
    if best is None or free[best] < ENOUGH_BYTES:
        log.warning("The GPU has too little free memory for a model: the CPU is used. Close what else uses the GPU.")
        return None
    return torch.device("cuda", best) if len(free) > 1 else torch.device("cuda")


def _free_bytes(index: int) -> int:
    try:
        return torch.cuda.mem_get_info(index)[0]
    except RuntimeError:  # it is there, but in use by another process alone, or broken
        return 0


def choose_precision(name: str, device: torch.device | None = None) -> torch.dtype:
    """The torch type of ``fp32``, ``bf16`` or ``fp16``; ``auto`` takes bf16 on a CPU that is faster in it, else fp32.

    Raises
    ------
    ModelUnavailableError
        If the name is not known.
    """
    if name == "auto":
        on_cpu = device is None or device.type == "cpu"
        return torch.bfloat16 if on_cpu and is_faster_in_bf16() else torch.float32
    if name not in PRECISIONS:
        raise ModelUnavailableError(f"Precision {name!r} is not known: use auto, {', '.join(PRECISIONS)}.")
    return PRECISIONS[name]


def computing_in(precision: torch.dtype, device: torch.device) -> AbstractContextManager:
    """Within, matrix products and convolutions on the device run in this precision."""
    return nullcontext() if precision is torch.float32 else torch.autocast(device.type, precision)


def is_faster_in_bf16() -> bool:
    """Whether this CPU has bf16 and, in a trial of 50 ms, is clearly faster in it.

    A CPU without it computes bf16 products many times slower (measured: 6 times for SAM 2.1 tiny).
    """
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    if supported is None or not supported():
        return False
    seconds = {dtype: _fastest_product(dtype) for dtype in (torch.float32, torch.bfloat16)}
    return seconds[torch.float32] >= _WORTH_IT * seconds[torch.bfloat16]


def _fastest_product(dtype: torch.dtype, size: int = 512, limit: float = 0.025) -> float:
    """Seconds of computing of the fastest of several matrix products; other programs on the machine do not count."""
    a = torch.ones(size, size, dtype=dtype)
    a @ a
    best, deadline = math.inf, time.perf_counter() + limit
    for _ in range(_MOST_TRIALS):
        start = time.thread_time()
        a @ a
        best = min(best, time.thread_time() - start)
        if time.perf_counter() > deadline and best > 0:
            break
    return best

"""Which device torch models run on, and in which precision."""

from __future__ import annotations

import torch

from SegmentAnythingMedLib.errors import ModelUnavailableError

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(name: str) -> torch.device:
    """``auto`` takes CUDA, else Apple's MPS, else the CPU; anything else must be there.

    Raises
    ------
    ModelUnavailableError
        If the device is not known or not there.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ModelUnavailableError(f"Device {name!r} is not known: use auto, cpu, cuda, cuda:1 or mps.") from error
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(device.type, False) or (device.index or 0) >= max(torch.cuda.device_count(), 1):
        raise ModelUnavailableError(f"Device {name!r} is not on this machine: use auto or cpu.")
    return device


def choose_precision(name: str) -> torch.dtype:
    """The torch type of ``fp32``, ``bf16`` or ``fp16``."""
    if name not in PRECISIONS:
        raise ModelUnavailableError(f"Precision {name!r} is not known: use {', '.join(PRECISIONS)}.")
    return PRECISIONS[name]

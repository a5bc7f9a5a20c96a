"""Measures rows of the GPU run in a process of its own, and writes each down as soon as it is there."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from SegmentAnythingMedLib.benchmark.gpu_rows import Setting
from SegmentAnythingMedLib.benchmark.gpu_task import GpuTask, Ours, Reference, Runner, forget, tensor_cores
from SegmentAnythingMedLib.propagation import dice

ROUNDS = 3
WARM_UPS = {"eager": 1, "graphs": 2}
"""Propagations before the first that counts; 3 where something is compiled."""
TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def measure_rows(plan: Path, rows: Path, device: str, count: int, settled: int) -> None:
    """Measure what a plan lists and is not written down yet.

    Parameters
    ----------
    plan
        JSON list of settings.
    rows
        JSON lines: ``{"started": i}`` when a row is begun, ``{"index": i, ...}`` with its figures.
    device
        "cuda" or "cpu".
    count
        Slices of a propagation.
    settled
        How many of its last slices are measured, once the memory is full.
    """
    settings = [Setting(**one) for one in json.loads(plan.read_text(encoding="utf-8"))]
    begun = {record.get("started", record.get("index")) for record in read_rows(rows)}
    parent = os.getppid()
    for index, setting in enumerate(settings):
        if index in begun:
            continue
        if os.getppid() != parent:
            return  # nobody reads it any more
        _append(rows, {"started": index})
        start = time.perf_counter()
        row = measure(setting, torch.device(device), count, settled)
        _append(rows, {"index": index, **row, "took": round(time.perf_counter() - start, 1)})
        if "error" in row and not _answers(torch.device(device)):
            return  # the next rows are for a fresh process


def _answers(device: torch.device) -> bool:
    """Whether a device can go on after an error; a CUDA process cannot after some."""
    try:
        return bool(torch.ones(1, device=device).item())
    except RuntimeError:
        return False


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Records of a file of JSON lines; a last line that was cut off is left out."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1] if line]


def measure(setting: Setting, device: torch.device, count: int, settled: int) -> dict[str, Any]:
    """The figures of a row, or ``{"error": why there are none}``."""
    try:
        if setting.who == "machine":
            return ceilings(device)
        with tensor_cores(setting.precision):
            return _measure(setting, device, count, settled)
    except (ImportError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        # Memory that is not enough, a package that is missing or does not go with this torch: the next row can do.
        return {"error": f"{type(error).__name__}: {str(error).strip()[:300]}"}
    finally:
        with contextlib.suppress(RuntimeError):  # a device that no longer answers
            forget()


def _measure(setting: Setting, device: torch.device, count: int, settled: int) -> dict[str, Any]:
    task = _task(setting.model, setting.side, count)
    if setting.who == "sam2":
        if setting.model == "miniature":
            raise ValueError("sam2 has no miniature.")
        import sam2  # noqa: F401  (says that it is missing before anything else fails)
    if setting.who == "ours":
        return _figures(Ours(task, setting, device), count, settled)
    try:
        return _figures(Reference(task, setting, device), count, settled)
    except RuntimeError as error:
        if setting.mode != "compiled" or isinstance(error, torch.OutOfMemoryError):
            raise
        why = f"as it recommends: {str(error).strip()[:200]}; measured without CUDA graphs"
    forget()
    return _figures(Reference(task, setting, device, graphs=False), count, settled) | {"failed": [why]}


def _figures(runner: Runner, count: int, settled: int) -> dict[str, Any]:
    setting, device = runner.setting, runner.device
    start = time.perf_counter()
    for _ in range(WARM_UPS.get(setting.mode, 3)):
        runner.times()
    built = time.perf_counter() - start
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    first, second = [], []
    for _ in range(ROUNDS):
        if isinstance(runner, Ours):
            session = runner.session()
            first.append(runner.times(session).settled(settled))
            second.append(runner.times(session).settled(settled))
        else:
            first.append(runner.times().settled(settled))
    row: dict[str, Any] = {"ms": 1e3 * median(first), "fps": 1 / median(first), "spread_ms": 1e3 * _spread(first)}
    row |= {"tracked_ms": 1e3 * median(second)} if second else {}
    row |= _memory(device)
    row |= {"warm_up_s": round(built, 1), "encoder_ms": runner.encoder_ms()}
    if setting.objects == 1:
        row |= _likeness(runner.logits(), _exact(setting.model, setting.side, count, str(device)))
    if failed := runner.failures:
        row["failed"] = failed
    return row


@lru_cache(maxsize=2)
def _task(model: str, side: int, count: int) -> GpuTask:
    return GpuTask(model, side, count)


@lru_cache(maxsize=2)
def _exact(model: str, side: int, count: int, device: str) -> dict[int, np.ndarray]:
    """Our logits in float32 without any lever: what all others are compared with."""
    with tensor_cores("fp32"):
        return Ours(_task(model, side, count), Setting("ours", model, side, "fp32"), torch.device(device)).logits()


def _likeness(found: dict[int, np.ndarray], exact: dict[int, np.ndarray], first: int = 4) -> dict[str, float]:
    """Largest difference on the first slices as a part of the largest logit, and the mean Dice on all."""
    nearest = [index for index in sorted(exact) if index in found][:first]
    worst = max(float(np.abs(found[index] - exact[index]).max() / np.abs(exact[index]).max()) for index in nearest)
    alike = [dice(found[index] > 0, exact[index] > 0) for index in exact if index in found]
    return {"difference": worst, "dice": float(np.mean(alike))}


def _memory(device: torch.device) -> dict[str, float]:
    if device.type != "cuda":
        return {}
    mib = {"peak_mib": torch.cuda.max_memory_allocated(device), "reserved_mib": torch.cuda.max_memory_reserved(device)}
    return {name: round(value / 2**20, 1) for name, value in mib.items()}


def _spread(values: Sequence[float]) -> float:
    return max(values) - min(values)


def ceilings(device: torch.device) -> dict[str, Any]:
    """What the machine itself reaches: matrix products, copies, and the two ways to attend to memories.

    In memory attention our network mixes memories of 64 channels and projects what it has mixed. That is the same as
    mixing 256 projected channels, and less to compute, but not every fast kernel takes keys and values of two widths.
    """
    size = 8192 if device.type == "cuda" else 256
    row: dict[str, Any] = {}
    for name, dtype in TYPES.items():
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        row[f"tflops_{name}"] = 2e-12 * size**3 / _seconds(lambda a=a, b=b: a @ b, device)
    block = torch.randn((1 << 30) // 4 if device.type == "cuda" else 1 << 16, device=device)
    row["copy_gb_s"] = 2e-9 * block.nbytes / _seconds(block.clone, device)
    for side in (512, 1024) if device.type == "cuda" else (64,):
        cells = (side // 16) ** 2
        query, key = (torch.randn(1, 1, n, 256, device=device, dtype=torch.bfloat16) for n in (cells, 7 * cells + 64))
        for channels in (64, 256):
            value = torch.randn(1, 1, key.shape[2], channels, device=device, dtype=torch.bfloat16)
            seconds = _seconds(lambda q=query, k=key, v=value: functional.scaled_dot_product_attention(q, k, v), device)
            row[f"attention_{side}_{channels}_us"] = 1e6 * seconds
    row["gflop"] = {f"{model} {side}": value for (model, side), value in _operations(device).items()}
    return row


def _operations(device: torch.device) -> dict[tuple[str, int], float]:
    """GFLOP of a tracked slice with a full memory, encoder included, counted on the nearest setting."""
    if device.type != "cuda":
        return {}
    found = {}
    for side in (512, 1024):
        runner = Ours(GpuTask("base_plus", side, 20), Setting("ours", "base_plus", side), device)
        slices = runner.slices(runner.session())
        for _ in range(17):
            next(slices)
        with FlopCounterMode(display=False) as counter:
            next(slices)
        found["base_plus", side] = counter.get_total_flops() / 1e9
    return found


def _seconds(call: Callable[[], object], device: torch.device, repeats: int = 10) -> float:
    found = []
    for number in range(repeats + 3):
        _wait(device)
        start = time.perf_counter()
        call()
        _wait(device)
        if number >= 3:
            found.append(time.perf_counter() - start)
    return median(found)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _append(path: Path, record: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def facts(device: str) -> dict[str, Any]:
    """What the run is measured on."""
    from importlib.metadata import PackageNotFoundError, version

    def of(package: str) -> str:
        try:
            return version(package)
        except PackageNotFoundError:
            return "not installed"

    found = {"torch": torch.__version__, **{name: of(name) for name in ("triton", "sam2", "numpy")}}
    if device != "cuda":
        return {"device": device, **found}
    properties = torch.cuda.get_device_properties(0)
    memory = f"{properties.total_memory / 2**30:.0f} GiB"
    return {"device": f"{properties.name}, {memory}, CUDA {torch.version.cuda}", **found}


def setting_as_json(settings: Sequence[Setting]) -> str:
    """A plan as `measure_rows` reads it."""
    return json.dumps([asdict(one) for one in settings], indent=0)

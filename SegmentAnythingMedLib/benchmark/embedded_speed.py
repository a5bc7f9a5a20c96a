"""How fast a model is where a user waits: a slice and a propagation on one core, a click, a cold worker."""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from SegmentAnythingMedLib.benchmark.client_latency import noisy_ellipsoid
from SegmentAnythingMedLib.benchmark.machine import load_average, matmul_gflops
from SegmentAnythingMedLib.benchmark.report import Line
from SegmentAnythingMedLib.errors import WorkerError
from SegmentAnythingMedLib.geometry import Plane, VolumeGeometry
from SegmentAnythingMedLib.models.base import Recall
from SegmentAnythingMedLib.models.registry import ModelRegistry
from SegmentAnythingMedLib.prompts import BoxPrompt, PointPrompt, SlicePrompts
from SegmentAnythingMedLib.session import VolumeSession
from SegmentAnythingMedLib.volume import Modality, Volume
from SegmentAnythingMedLib.worker import messages as m
from SegmentAnythingMedLib.worker.client import WorkerClient

SIDE, SLICES = 512, 101
SIZES = {"an object of 60 pixels (128 x 128)": (60, 20.0, 3.0), "an object of 240 pixels": (240, 60.0, 6.0)}
"""Diameter in slice pixels; most milliseconds a slice, and most seconds for 100 slices."""
CLICK_MS, COLD_S, WORKER_MB = 100.0, 1.5, 500.0
_REPEATS = 21
_COLD_STARTS = 3
_AXIAL = Plane(2)
_PATIENCE_S = 120.0
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Timing:
    """One figure: what, how much, at most how much, and what it was measured beside."""

    title: str
    value: float
    unit: str
    limit: float | None
    reference: str

    @property
    def line(self) -> Line | None:
        """What must hold, None for a figure without a limit."""
        if self.limit is None:
            return None
        text = f"{self.title}: at most {self.limit:g} {self.unit}"
        return Line(text, self.value <= self.limit, f"{self.value:.3g} {self.unit}; {self.reference}")


def run_speed(model: str) -> list[Timing]:
    """All figures; the slices in a child process with one thread, the worker as the host starts it."""
    kept = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    try:
        with ProcessPoolExecutor(1, get_context("spawn")) as child:
            found = child.submit(measure_slices, model).result()
    finally:
        for name, value in kept.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    return found + measure_worker(model)


def measure_slices(model_name: str, side: int = SIDE, count: int = SLICES, repeats: int = _REPEATS) -> list[Timing]:
    """A slice from a box, and a whole propagation, on one core; in this process."""
    model, found = ModelRegistry().load(model_name), []
    for title, (diameter, most_ms, most_s) in SIZES.items():
        volume, box = a_tube(diameter * side / SIDE, side, count), _box(diameter * side / SIDE, side)
        session = VolumeSession(volume, model, cache_bytes=1 << 30)
        slices = session.slices(_AXIAL)
        features = session.features.get(slices, count // 2)
        prompts = SlicePrompts(box_rc=box)
        durations = [_seconds(lambda f=features, p=prompts: model.predict(f, p, Recall())) for _ in range(repeats)]
        middle, best = 1e3 * statistics.median(durations), 1e3 * min(durations)
        found.append(Timing(f"{title}: outline from a box", middle, "ms", most_ms, f"best {best:.3g} ms; {_yard()}"))
        key = session.add_prompt(1, BoxPrompt.on_slice(box, count // 2, _AXIAL))
        session.segment_slice(1, key)
        carried = _seconds(lambda s=session: [*s.propagate([1], plane=_AXIAL, first=0, last=count - 1)])
        reference = f"{1e3 * carried / (count - 1):.3g} ms a slice; {_yard()}"
        found.append(Timing(f"{title}: {count - 1} slices carried", carried, "s", most_s, reference))
    return found


def measure_worker(
    model: str, shape_kji: tuple[int, int, int] = (300, 512, 512), repeats: int = _REPEATS
) -> list[Timing]:
    """A worker's cold start, its first outline on slices not seen before, and its memory with the volume."""
    with tempfile.TemporaryDirectory() as folder:
        cold = [_cold_start(model, folder) for _ in range(_COLD_STARTS)]
        bare = _seconds(lambda: _run_python("import numpy"))
        reference = f"a process that imports numpy {bare:.2f} s; {_yard()}"
        found = [Timing("cold worker: ready with the model", statistics.median(cold), "s", COLD_S, reference)]
        client = WorkerClient(folder=folder)
        try:
            found += _warm(client, model, noisy_ellipsoid(shape_kji), repeats)
        finally:
            client.shutdown()
    return found


def a_tube(diameter: float, side: int = SIDE, count: int = SLICES) -> Volume:
    """A bright tube through all slices of a noisy volume, its middle wandering by a few pixels."""
    random = np.random.default_rng(0)
    noise = random.normal(0, 15, (side, side))
    rows, columns = np.mgrid[:side, :side]
    voxels = np.empty((count, side, side), dtype=np.int16)
    for index in range(count):
        middle = side / 2 + 3 * np.sin(index / 9)
        inside = np.hypot(rows - side / 2, columns - middle) < diameter / 2
        voxels[index] = np.where(inside, 120, 20) + np.roll(noise, index * 37)
    return Volume.from_array(
        voxels, VolumeGeometry.from_spacing((side, side, count), (0.8, 0.8, 2.0)), modality=Modality.CT
    )


def _warm(client: WorkerClient, model: str, volume: Volume, repeats: int) -> list[Timing]:
    client.start()
    client.open_volume(volume)
    client.load_model(model)
    _until_quiet(client, client.open_session(cache_bytes=1 << 30))
    count, side = volume.voxels.shape[2:4]
    middle, reach, found = count // 2, max(count // 10, 1), []
    prompts: dict[str, Callable[[int], PointPrompt | BoxPrompt]] = {
        "click": lambda index: PointPrompt((side / 2, side / 2, float(index)), True, _AXIAL),
        "box": lambda index: BoxPrompt.on_slice(_box(0.43 * side, side), index, _AXIAL),
    }
    for number, (name, make) in enumerate(prompts.items()):
        indices = range(middle - reach + number, middle + reach, max(2 * reach // repeats, 1))
        durations = [_first_outline(client, make(index)) for index in indices]
        typical = 1e3 * statistics.median(durations[1:] or durations)
        reference = f"longest {1e3 * max(durations):.3g} ms of {len(durations)}; {_yard()}"
        size = "x".join(map(str, volume.geometry.size_ijk))
        title = f"warm worker, {size}: first outline after a {name}"
        found.append(Timing(title, typical, "ms", CLICK_MS, reference))
    client.add_prompts(1, prompts["box"](middle))
    _until_quiet(client, client.segment_slice(1, _AXIAL, middle))
    _until_quiet(client, client.propagate([1], plane=_AXIAL))
    memory, volume_mb = _memory_mb(client.pid), volume.nbytes / 1e6
    if memory:
        reference = f"the volume alone {volume_mb:.0f} MB"
        found.append(Timing("worker's memory with that volume", memory, "MB", WORKER_MB, reference))
    return found


def _first_outline(client: WorkerClient, prompt: PointPrompt | BoxPrompt) -> float:
    """Seconds from a new object's prompt to its outline's event, polled without a pause."""
    index = round(prompt.points_ijk[0][2])
    start = time.perf_counter()
    client.add_prompts(1, prompt)
    seen = _until_quiet(client, client.segment_slice(1, _AXIAL, index), m.SliceMask)
    client.remove_object(1)
    return seen - start


def _cold_start(model: str, folder: str) -> float:
    client = WorkerClient(folder=folder)
    start = time.perf_counter()
    try:
        client.start()
        return _until_quiet(client, client.load_model(model), m.ModelLoaded) - start
    finally:
        client.shutdown()


def _until_quiet(client: WorkerClient, job: int, kind: type[m.Event] = m.JobDone) -> float:
    """When an event of a kind came for a job; waits until the job is over."""
    end, seen = time.perf_counter() + _PATIENCE_S, 0.0
    while job in client.jobs or not seen:
        for event in client.poll():
            if isinstance(event, (m.JobFailed, m.WorkerDied)):
                raise WorkerError(event.sentence)
            if isinstance(event, kind) and event.job == job:
                seen = time.perf_counter()
        if time.perf_counter() > end:
            raise WorkerError("The worker did not answer in time.")
        time.sleep(0.0005)
    return seen


def _memory_mb(pid: int | None) -> float:
    """Most resident memory of a process so far, 0 where the system does not tell."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) / 1e3
    except (OSError, StopIteration):
        return 0.0


def _box(diameter: float, side: int) -> tuple[float, float, float, float]:
    low, high = side / 2 - diameter / 2 - 2, side / 2 + diameter / 2 + 2
    return low, low, high, high


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _run_python(code: str) -> None:
    import subprocess

    subprocess.run([sys.executable, "-c", code], check=True)


def _yard() -> str:
    """What this moment's machine can do."""
    return f"matmul {matmul_gflops(512, 0.2):.0f} GFLOP/s, load {load_average():.1f}"

"""What is measured in a process of its own: memory, the time to a first outline, and beside a busy program.

``python -m SegmentAnythingMedLib.benchmark.speed_children NAME ARGUMENTS`` prints one line of JSON.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from SegmentAnythingMedLib.benchmark import reference_sam2
from SegmentAnythingMedLib.benchmark.machine import peak_bytes
from SegmentAnythingMedLib.benchmark.speed_contenders import SETTLED, Task
from SegmentAnythingMedLib.benchmark.volume_network import CHANNELS, SIDE, VolumeNetwork
from SegmentAnythingMedLib.geometry import Plane, SliceKey, VolumeGeometry
from SegmentAnythingMedLib.models import edgetam, sam2
from SegmentAnythingMedLib.models.card import ModelCard
from SegmentAnythingMedLib.models.preprocess import IMAGENET_MEAN, IMAGENET_STD
from SegmentAnythingMedLib.prompts import BoxPrompt
from SegmentAnythingMedLib.session import VolumeSession
from SegmentAnythingMedLib.volume import Volume
from SegmentAnythingMedLib.windowing import Window

CACHE_BYTES = 256 << 20
"""Of features; 60 slices at 512 px. By default a session takes a quarter of the free memory."""
_PLANE = Plane(2)


def grey_voxels(count: int, side: int) -> np.ndarray:
    """(count, side, side) uint8, smooth and random."""
    coarse = np.random.default_rng(5).integers(0, 256, (count, side // 8, side // 8), dtype=np.uint8)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)


def weights_file(folder: Path, model: str, side: int) -> Path:
    """Random weights of a model, as a checkpoint; those of an earlier call with this folder."""
    from safetensors.torch import save_file

    path = folder / f"{model}-{side}.safetensors"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        save_file({key: value.contiguous().clone() for key, value in Task(model, side, 1).network.state_dict().items()},
                  path)  # fmt: skip
    return path


def memory_of_ours(model: str, side: int, count: int, precision: str, folder: str) -> dict[str, Any]:
    """Peak of a session that carries one object through all slices."""
    path = weights_file(Path(folder), model, side)
    voxels = grey_voxels(count, side)
    session = _session(voxels, _loaded(path, model, side, precision))
    _outline(session, side, 0)
    slices = sum(1 for _ in session.propagate([1], plane=_PLANE, first=0, last=count - 1))
    return {"peak": peak_bytes(), "voxels": voxels.nbytes, "labelmap": session.labelmap(1).nbytes, "slices": slices}


def memory_of_sam2(model: str, side: int, count: int) -> dict[str, Any]:
    """Peak of PyPI's sam2 for the same: it holds all slices as float32 and an answer for each."""
    task = Task(model, side, count)
    voxels, frames = grey_voxels(count, side), torch.empty(count, 3, side, side)
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    for index, pixels in enumerate(voxels):
        frames[index] = (torch.from_numpy(pixels / np.float32(255)) - mean) / std
    with torch.autocast("cpu", torch.bfloat16):
        found = reference_sam2.reference_slices(task._predictor, frames, {1: [task.prompt()]}, range(count))
        slices = sum(1 for _ in found)
    return {"peak": peak_bytes(), "voxels": voxels.nbytes, "slices": slices}


def first_outline(model: str, side: int, count: int, precision: str, folder: str) -> dict[str, Any]:
    """Seconds from this process's start to a first outline, and of later ones in a warm process."""
    started = _process_start()
    imported = time.time() - started
    path = weights_file(Path(folder), model, side)
    begin = time.perf_counter()
    loaded = _loaded(path, model, side, precision)
    loading = time.perf_counter() - begin
    session = _session(grey_voxels(count, side), loaded)
    begin = time.perf_counter()
    _outline(session, side, 0)
    found = {"imports": imported, "loading": loading, "first outline": time.perf_counter() - begin}
    for index in range(1, 4):  # what comes with the first calls is done now
        _outline(session, side, index)
    warm, encoders = [], []
    for index in range(4, 9):
        before, begin = dict(session.times.seconds), time.perf_counter()
        _outline(session, side, index)
        warm.append(time.perf_counter() - begin)
        encoders.append(session.times.seconds["encode"] - before["encode"])
    found |= {"warm": median(warm), "encoder pass": median(encoders)}
    list(session.prefetch(_PLANE, 12, 2))
    seconds = []
    for index in range(10, 15):
        begin = time.perf_counter()
        _outline(session, side, index)
        seconds.append(time.perf_counter() - begin)
    return found | {"prefetched": median(seconds), "slices": len(seconds)}


def beside_a_busy_program(
    model: str, side: int, count: int, precision: str, folder: str, threads: int
) -> dict[str, Any]:
    """Seconds a tracked slice by the clock, by turns alone and while another process loads one core."""
    import subprocess

    torch.set_num_threads(threads)
    loaded = _loaded(weights_file(Path(folder), model, side), model, side, precision)
    seconds: dict[str, list[float]] = {"alone": [], "one core loaded": []}
    for _ in range(2):
        for name, found in seconds.items():
            busy = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if name != "alone" else None
            try:
                session = _session(grey_voxels(count, side), loaded)
                _outline(session, side, 0)
                begin = time.perf_counter()
                for place, _ in enumerate(session.propagate([1], plane=_PLANE, first=0, last=count - 1)):
                    if place >= SETTLED:
                        found.append(time.perf_counter() - begin)
                    begin = time.perf_counter()
            finally:
                if busy is not None:
                    busy.kill()
                    busy.wait()
    return {name: median(found) for name, found in seconds.items()} | {"threads": threads}


def jpeg_pipeline(model: str, side: int, count: int) -> dict[str, Any]:
    """Seconds until PyPI's sam2 can take a prompt: the volume as JPEG files, read by its own loader."""
    from PIL import Image

    predictor = Task(model, side, count)._predictor
    voxels = grey_voxels(count, side)
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        for index, pixels in enumerate(voxels):
            Image.fromarray(pixels).convert("RGB").save(Path(folder) / f"{index:05d}.jpg", quality=95)
        writing = time.perf_counter() - begin
        begin = time.perf_counter()
        with torch.inference_mode():
            predictor.init_state(folder)  # encodes the first slice, too
        return {"writing": writing, "reading": time.perf_counter() - begin, "slices": count}


def volume_network(side: int = SIDE, precision: str = "fp32") -> dict[str, Any]:
    """Seconds of one interaction with `VolumeNetwork`; computing, and by the clock."""
    network = VolumeNetwork().eval()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        x = torch.rand(1, CHANNELS, side, side, side)
        begin, used = time.perf_counter(), time.process_time()
        network(x)
    return {"wall": time.perf_counter() - begin, "computing": time.process_time() - used, "peak": peak_bytes()}


def _loaded(path: Path, model: str, side: int, precision: str) -> sam2.Sam2Model:
    family = edgetam if model == "edgetam" else sam2
    kind = "edgetam" if model == "edgetam" else "sam2"
    card = ModelCard(
        "speed", "speed", kind, "none", ("slice", "memory"), ("point", "box", "mask"), (), "imagenet", side
    )
    return family.load(card, path, "cpu", precision=precision)


def _session(voxels: np.ndarray, model: sam2.Sam2Model) -> VolumeSession:
    volume = Volume.from_array(voxels, VolumeGeometry.from_spacing(voxels.shape[::-1]))
    return VolumeSession(volume, model, window=Window((0.0,), (255.0,)), cache_bytes=CACHE_BYTES)


def _outline(session: VolumeSession, side: int, index: int) -> SliceKey:
    box = (side // 4, side // 4, side // 2, side // 2)
    key = session.add_prompt(1, BoxPrompt.on_slice(box, index, _PLANE))
    session.segment_slice(1, key)
    return key


def _process_start() -> float:
    """When this process began, or now where the system does not tell."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        boot = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime"))
        return int(boot.split()[1]) + ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, StopIteration, ValueError):
        return time.time()


CHILDREN: dict[str, Callable[..., dict[str, Any]]] = {
    "memory of ours": memory_of_ours,
    "memory of sam2": memory_of_sam2,
    "first outline": first_outline,
    "beside a busy program": beside_a_busy_program,
    "jpeg pipeline": jpeg_pipeline,
    "volume network": volume_network,
}


def main(argv: list[str]) -> int:
    """Name of what is measured, then its arguments as JSON."""
    options = json.loads(argv[1])
    torch.set_num_threads(options.get("threads", 1))
    print(json.dumps(CHILDREN[argv[0]](**options)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

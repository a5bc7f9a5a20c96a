"""What a session on 512x512x300 voxels costs: seconds per stage and slice, peak memory, and encoder calls.

Each model runs in a child process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from SegmentAnythingMedLib.benchmark.datasets import SCALE_DATASET, CaseOpener, Structure, extent
from SegmentAnythingMedLib.benchmark.machine import (
    load_average,
    matmul_gflops,
    peak_bytes,
    reset_peak,
    thread_count,
)
from SegmentAnythingMedLib.benchmark.metrics import dice
from SegmentAnythingMedLib.benchmark.report import Line
from SegmentAnythingMedLib.benchmark.simulated_user import click_inside, jittered_box, seed_of
from SegmentAnythingMedLib.models.base import SliceModel
from SegmentAnythingMedLib.models.card import ModelCard
from SegmentAnythingMedLib.models.registry import ModelRegistry
from SegmentAnythingMedLib.prompts import BoxPrompt, PointPrompt
from SegmentAnythingMedLib.session import VolumeSession

RANDOM_SAM2 = "sam2 tiny 512 px, random weights"
SAM2_SLICES = 12
"""Slices that sam2 is carried through, half on each side; `classic` goes until it stops itself."""


@dataclass(frozen=True)
class Cost:
    """One model's session.

    Parameters
    ----------
    stages
        ``(seconds, calls)`` of each stage, first propagation and first outline included.
    first_outline_s
        From a box to the first mask, image encoder included.
    slices
        Slices that the first propagation visited.
    first_s, second_s
        Seconds of the propagation, and of the same one after one corrective click.
    second_encodings
        Image-encoder calls of the correction and the second propagation.
    volume_bytes, ready_bytes, peak_bytes
        Of the voxels; process with volume, truth and model before the first prompt; at its highest after that (where
        the system cannot reset its peak, reading and upsampling count, too).
    """

    model: str
    stages: dict[str, tuple[float, int]]
    load_s: float
    first_outline_s: float
    slices: int
    first_s: float
    second_s: float
    second_encodings: int
    volume_bytes: int
    ready_bytes: int
    peak_bytes: int
    feature_bytes: int
    slice_dice: float
    gflops: float
    facts: dict[str, object] = field(default_factory=dict)


def run_cost(structures: list[Structure], data: Path, models: tuple[str, ...] = ("classic", RANDOM_SAM2)) -> list[Cost]:
    """Measure each model on the structure of 512x512x300 voxels, in a child process each, one after another."""
    scaled = next(structure for structure in structures if structure.dataset == SCALE_DATASET)
    found = []
    for model in models:
        with ProcessPoolExecutor(1, get_context("spawn")) as child:
            found.append(child.submit(measure, model, scaled, data).result())
    return found


def measure(model_name: str, structure: Structure, data: Path, limit: int | None = None) -> Cost:
    """Box, propagation, one corrective click, propagation again; in this process."""
    case = CaseOpener(data).open(structure)
    gflops = matmul_gflops()
    start = time.perf_counter()
    model = make_model(model_name)
    loaded = time.perf_counter() - start
    session, slices = VolumeSession(case.volume, model), case.slices
    _ = case.volume.fingerprint  # hashed once per volume, not part of a click
    reset_peak()
    ready = peak_bytes()
    counts = extent(case.truth, slices)
    key_index = int(np.argmax(counts))
    truth = slices.extract(case.truth, key_index)
    box = jittered_box(truth, seed_of(structure.id))
    start = time.perf_counter()
    corners = slices.ijk_from_pixels(key_index, np.array([box[:2], box[2:]]))
    key = session.add_prompt(1, BoxPrompt((tuple(corners[0]), tuple(corners[1])), slices.plane))
    outlined = session.segment_slice(1, key)
    first_outline = time.perf_counter() - start
    if not outlined.mask.any():  # random weights may find nothing: give the slice as painted
        session.confirm_slice(1, key, truth)
    limit = limit if limit is not None else (SAM2_SLICES if model_name == RANDOM_SAM2 else None)
    limits = _around(key_index, limit, slices.count)
    with _timed() as first:
        visited = [result.key.index for result in session.propagate([1], plane=slices.plane, **limits)]
    stages = {stage: (session.times.seconds[stage], session.times.calls[stage]) for stage in session.times.seconds}
    encodings = session.times.calls.get("encode", 0)
    with _timed() as second:
        pixel = click_inside(truth, slices.spacing_mm)
        point = slices.ijk_from_pixels(key_index + 1, np.array(pixel))
        corrected = session.add_prompt(1, PointPrompt(tuple(point), True, slices.plane))
        session.segment_slice(1, corrected)
        again = {"first": min([*visited, key_index]), "last": max([*visited, key_index])}
        for _ in session.propagate([1], plane=slices.plane, **again):
            pass
    return Cost(
        model_name, stages, loaded, first_outline, len(set(visited)), first.seconds, second.seconds,
        session.times.calls.get("encode", 0) - encodings, case.volume.nbytes, ready, peak_bytes(),
        session.features.nbytes, dice(outlined.mask, truth), gflops,
        {"load average": round(load_average(), 2), "threads": thread_count()},
    )  # fmt: skip


def make_model(name: str) -> SliceModel:
    """A model of the registry, or SAM 2.1 tiny at 512 px with random weights."""
    if name != RANDOM_SAM2:
        return ModelRegistry().load(name)
    import torch

    from SegmentAnythingMedLib.models import sam2

    torch.set_num_threads(thread_count())
    card = ModelCard(
        "sam2-random", RANDOM_SAM2, "sam2", "none", ("slice", "memory", "candidates"), ("point", "box", "mask"),
        preprocessing="imagenet", input_size=512, options={"size": "tiny", "version": "2.1", "random_seed": 0},
    )  # fmt: skip
    return sam2.load(card, None, device="cpu")


def acceptance(found: list[Cost]) -> list[Line]:
    """A second propagation after a correction runs no image encoder."""
    return [
        Line(f"{cost.model}: no image-encoder call after a correction", not cost.second_encodings,
             f"{cost.second_encodings} calls over {cost.slices} slices")
        for cost in found
    ]  # fmt: skip


def markdown(found: list[Cost], facts: dict[str, object]) -> str:
    """A table per figure and stage."""
    lines = ["# Cost of a session on 512x512x300 voxels", ""]
    lines += [f"- {name}: {value}" for name, value in facts.items()]
    lines += [f"- {line}" for line in acceptance(found)]
    lines += ["", "| | " + " | ".join(cost.model for cost in found) + " |", "|---" * (len(found) + 1) + "|"]
    for title, text in _ROWS.items():
        lines.append(f"| {title} | " + " | ".join(text(cost) for cost in found) + " |")
    stages = list(dict.fromkeys(stage for cost in found for stage in cost.stages))
    for stage in stages:
        lines.append(f"| {stage}: ms a call (calls) | " + " | ".join(_stage(cost, stage) for cost in found) + " |")
    return "\n".join(lines) + "\n"


def as_json(found: list[Cost]) -> list[dict[str, object]]:
    return [asdict(cost) for cost in found]


_ROWS = {
    "matmul peak, GFLOP/s fp32": lambda c: f"{c.gflops:.0f}",
    "load average before": lambda c: str(c.facts.get("load average")),
    "threads": lambda c: str(c.facts.get("threads")),
    "loading the model, s": lambda c: f"{c.load_s:.2f}",
    "box to first outline, ms": lambda c: f"{1000 * c.first_outline_s:.0f}",
    "slices carried": lambda c: str(c.slices),
    "propagation, ms a slice": lambda c: f"{1000 * c.first_s / max(c.slices, 1):.0f}",
    "propagation after a correction, ms a slice": lambda c: f"{1000 * c.second_s / max(c.slices, 1):.0f}",
    "image-encoder calls in it": lambda c: str(c.second_encodings),
    "voxels, MB": lambda c: f"{c.volume_bytes / 1e6:.0f}",
    "process before the first prompt, MB": lambda c: f"{c.ready_bytes / 1e6:.0f}",
    "process at its peak after that, MB": lambda c: f"{c.peak_bytes / 1e6:.0f}",
    "features kept, MB": lambda c: f"{c.feature_bytes / 1e6:.1f}",
    "Dice of the first outline": lambda c: f"{c.slice_dice:.3f}",
}


def _stage(cost: Cost, stage: str) -> str:
    if stage not in cost.stages:
        return "-"
    seconds, calls = cost.stages[stage]
    return f"{1000 * seconds / max(calls, 1):.1f} ({calls})"


def _around(key: int, limit: int | None, count: int) -> dict[str, int]:
    if limit is None:
        return {}
    return {"first": max(0, key - limit // 2), "last": min(count - 1, key + limit // 2)}


@dataclass
class _Clock:
    seconds: float = 0.0


@contextmanager
def _timed() -> Iterator[_Clock]:
    clock, start = _Clock(), time.perf_counter()
    yield clock
    clock.seconds = time.perf_counter() - start

"""One whole job without a user interface: prompts on a volume become segments, their numbers and their files.

Example
-------
>>> from SegmentAnythingMedLib.io import read_volume
>>> from SegmentAnythingMedLib.segmenting import Job, run_job, write_result
>>> volume = read_volume("ct.nii.gz")
>>> plane = Plane.named("axial", volume.geometry)
>>> job = Job((ObjectPrompts(1, (BoxPrompt.on_slice((60, 45, 95, 80), 52, plane),), "Liver"),), model="classic")
>>> result = run_job(volume, job)
>>> write_result(result, "liver.seg.nrrd", preview="liver.png")
"""

from __future__ import annotations

import colorsys
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from SegmentAnythingMedLib.errors import PromptError
from SegmentAnythingMedLib.geometry import Plane, SliceKey
from SegmentAnythingMedLib.models.registry import ModelRegistry, default_model
from SegmentAnythingMedLib.prompts import BoxPrompt
from SegmentAnythingMedLib.prompts_file import ObjectPrompts
from SegmentAnythingMedLib.propagation import Direction
from SegmentAnythingMedLib.session import VolumeSession
from SegmentAnythingMedLib.slice_result import SliceResult
from SegmentAnythingMedLib.volume import Volume
from SegmentAnythingMedLib.volume_model_session import open_session

logger = logging.getLogger(__name__)

_KEEPS_OVERLAPS = (".seg.nrrd", ".dcm")
_FIRST_HUE = 0.09
_GOLDEN_RATIO = 0.618034


@dataclass(frozen=True)
class Job:
    """What to segment and how.

    Parameters
    ----------
    objects
        Prompts of each object, in the order they are answered.
    direction
        How to propagate, or None to leave the slices with prompts alone.
    first, last
        Range of slices along the prompts' plane; None lets the stop rule decide.
    model, device, policy, window, time
        As on the command line.
    """

    objects: tuple[ObjectPrompts, ...]
    direction: Direction | None = Direction.BOTH
    first: int | None = None
    last: int | None = None
    model: str = field(default_factory=default_model)
    device: str = "auto"
    policy: str = "recent"
    window: str = "auto"
    time: int = 0


@dataclass(frozen=True)
class SliceScore:
    """Numbers of a slice as it was last answered."""

    key: SliceKey
    pixels: int
    quality: float
    presence: float
    prompted: bool

    @classmethod
    def of(cls, result: SliceResult) -> SliceScore:
        pixels = int(np.count_nonzero(result.mask))
        return cls(result.key, pixels, result.quality, result.presence, result.prompted)


@dataclass(frozen=True, eq=False)
class SegmentedObject:
    """One finished object; ``slices`` are the numbers of every slice visited, ``mask`` is (K, J, I) bool."""

    object_id: int
    name: str
    color: tuple[float, float, float]
    mask: np.ndarray
    slices: tuple[SliceScore, ...]


@dataclass(frozen=True, eq=False)
class JobResult:
    """Segments of a job, finished or as far as it came."""

    volume: Volume
    job: Job
    objects: tuple[SegmentedObject, ...]
    window: tuple[float, float]
    window_name: str
    device: str
    seconds: dict[str, float] = field(default_factory=dict)
    encoder_calls: int = 0
    cancelled: bool = False

    def summary(self) -> dict[str, Any]:
        """JSON values: slices, scores, voxels, millilitres (null where the image has none), seconds, model, device."""
        return {
            "model": self.job.model,
            "device": self.device,
            "policy": self.job.policy,
            "window": self.window_name,
            "time": self.job.time,
            "cancelled": self.cancelled,
            "seconds": {stage: round(seconds, 4) for stage, seconds in self.seconds.items()},
            "encoder_calls": self.encoder_calls,
            "objects": [self._describe(item) for item in self.objects],
        }

    def _describe(self, item: SegmentedObject) -> dict[str, Any]:
        voxels = int(np.count_nonzero(item.mask))
        known = self.volume.has_spacing and min(self.volume.geometry.size_ijk) > 1
        filled = [score for score in item.slices if score.pixels]
        return {
            "id": item.object_id,
            "name": item.name,
            "voxels": voxels,
            "volume_ml": round(voxels * self.volume.geometry.voxel_volume_mm3 / 1000, 3) if known else None,
            "score": round(float(np.mean([score.quality for score in filled])), 4) if filled else 0.0,
            "slices": [
                {
                    "plane": str(score.key.plane),
                    "index": score.key.index,
                    "pixels": score.pixels,
                    "score": round(score.quality, 4),
                    "presence": round(score.presence, 3),
                    "prompted": score.prompted,
                }
                for score in filled
            ],
        }


def run_job(
    volume: Volume,
    job: Job,
    *,
    registry: ModelRegistry | None = None,
    on_slice: Callable[[SliceResult], None] = lambda result: None,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> JobResult:
    """Answer all prompts, then propagate every object in every plane it has prompts on.

    Parameters
    ----------
    volume
        What is segmented.
    job
        What is wanted.
    registry
        Where models come from.
    on_slice
        Called with every slice as it arrives.
    is_cancelled
        Asked between slices; once true the job ends with what is done.

    Raises
    ------
    SegmentAnythingMedError
        Any of the library's errors, before anything is lost.
    """
    if not any(item.prompts for item in job.objects):
        raise PromptError("There is nothing to segment: give a box, a point or a prompts file.")
    for item in job.objects:
        if item.prompts and not any(getattr(prompt, "positive", True) for prompt in item.prompts):
            who = item.name or f"object {item.object_id}"
            raise PromptError(f"There are only negative prompts for {who}: add a point or a box inside it.")
    start = time.perf_counter()
    model = (registry or ModelRegistry()).load(job.model, job.device)
    loaded = time.perf_counter()
    session = open_session(volume, model, window=job.window, time=job.time, policy=job.policy)
    latest: dict[tuple[int, SliceKey], SliceScore] = {}
    cancelled = False
    for result in _results(session, job):
        latest[result.object_id, result.key] = SliceScore.of(result)
        on_slice(result)
        if is_cancelled():
            cancelled = True
            break
    finished = time.perf_counter()
    return JobResult(
        volume,
        replace(job, objects=tuple(item for item in job.objects if item.object_id in session.object_ids)),
        tuple(_finished_objects(session, job, latest)),
        (session.features.window.low[0], session.features.window.high[0]),
        session.features.window.name,
        str(getattr(model, "device", "cpu")),
        {"load_model": loaded - start, **session.times.seconds, "total": finished - start},
        session.times.calls.get("encode", 0),
        cancelled,
    )


def write_result(result: JobResult, output: str | Path, preview: str | Path | None = None) -> None:
    """Write the segments (format by extension) and, if wanted, a picture.

    Raises
    ------
    OutputError
        If a file cannot be written; what was there before is still there.
    """
    from SegmentAnythingMedLib.io import Labels, Segment, write_labels

    masks = [item.mask for item in result.objects]
    if not str(output).lower().endswith(_KEEPS_OVERLAPS):
        masks = _without_overlaps(masks)
    segments = tuple(
        Segment(item.name, mask.astype(np.uint8 if value < 256 else np.uint16) * value, value, item.color)
        for value, (item, mask) in enumerate(zip(result.objects, masks, strict=True), start=1)
    )
    write_labels(output, Labels(result.volume.geometry, segments), volume=result.volume)
    if preview is not None:
        write_preview(result, preview)


def write_preview(result: JobResult, path: str | Path) -> None:
    """Draw the segments; see `SegmentAnythingMedLib.preview`."""
    from SegmentAnythingMedLib.preview import render_preview

    plane, index, box = _key_of_first(result)
    render_preview(
        result.volume,
        {item.name: (item.mask, item.color) for item in result.objects},
        path,
        time=result.job.time,
        window=result.window,
        plane_axis=plane,
        key_index=index,
        title=f"{', '.join(item.name for item in result.objects)} in {result.volume.name}",
        box_ijk=box,
    )


def _without_overlaps(masks: list[np.ndarray]) -> list[np.ndarray]:
    """Masks that share no voxel: the first object keeps what several claim, and a warning says so."""
    taken, apart, shared = np.zeros_like(masks[0]), [], 0
    for mask in masks:
        shared += int(np.count_nonzero(mask & taken))
        apart.append(mask & ~taken)
        taken |= mask
    if shared:
        logger.warning(
            "%d voxels belong to two segments: a label map gives them to the first; .seg.nrrd keeps both.", shared
        )
    return apart


def segment_color(number: int) -> tuple[float, float, float]:
    """A colour for the n-th segment, from 0: far apart in hue from the ones before."""
    return colorsys.hsv_to_rgb((_FIRST_HUE + number * _GOLDEN_RATIO) % 1.0, 0.7, 0.95)


def _results(session: VolumeSession, job: Job) -> Iterator[SliceResult]:
    planes: dict[Plane, list[int]] = {}
    for item in job.objects:
        keys = [session.add_prompt(item.object_id, prompt) for prompt in item.prompts]
        for key in dict.fromkeys(keys):
            planes.setdefault(key.plane, [])
            if item.object_id not in planes[key.plane]:
                planes[key.plane].append(item.object_id)
            result = session.segment_slice(item.object_id, key)
            chosen = item.candidate_of(keys.index(key))
            if chosen and result.candidates is not None and chosen < len(result.candidates):
                result = session.choose_candidate(item.object_id, key, chosen)
            yield result
    if job.direction is None:
        return
    for plane, ids in planes.items():
        outlined = [object_id for object_id in ids if session.is_outlined(object_id, plane)]
        if outlined:
            yield from session.propagate(outlined, plane=plane, first=job.first, last=job.last, direction=job.direction)


def _finished_objects(
    session: VolumeSession, job: Job, latest: dict[tuple[int, SliceKey], SliceScore]
) -> Iterator[SegmentedObject]:
    for number, item in enumerate(job.objects):
        if item.object_id not in session.object_ids:
            continue
        scores = [score for (owner, _), score in latest.items() if owner == item.object_id]
        scores.sort(key=lambda score: (str(score.key.plane), score.key.index))
        name = item.name or f"Segment_{item.object_id}"
        yield SegmentedObject(
            item.object_id, name, segment_color(number), session.labelmap(item.object_id), tuple(scores)
        )


def _key_of_first(result: JobResult) -> tuple[int, int, tuple | None]:
    """Plane axis, slice and box (two IJK corners) of the first prompted slice, for the picture."""
    prompted = [one for item in result.objects for one in item.slices if one.prompted]
    axis = next((one.key.plane.axis for one in prompted if one.key.plane.axis is not None), None)
    if axis is None:
        axis = Plane.named("axial", result.volume.geometry).axis
        filled = np.flatnonzero(result.objects[0].mask.any(axis=tuple(a for a in range(3) if a != 2 - axis)))
        return axis, int(filled[len(filled) // 2]) if len(filled) else 0, None
    key = next(one.key for one in prompted if one.key.plane.axis == axis)
    boxes = [
        tuple(tuple(round(x) for x in corner) for corner in prompt.corners_ijk)
        for item in result.job.objects
        for prompt in item.prompts
        if isinstance(prompt, BoxPrompt)
        and prompt.plane == key.plane
        and round(prompt.corners_ijk[0][axis]) == key.index
    ]
    return axis, key.index, boxes[0] if boxes else None

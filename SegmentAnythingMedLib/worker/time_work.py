"""The worker's part in carrying outlines through time: the series' own voxel file, key masks in, time points out."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from SegmentAnythingMedLib.errors import WorkerError
from SegmentAnythingMedLib.features import StageTimes
from SegmentAnythingMedLib.geometry import VolumeGeometry
from SegmentAnythingMedLib.memory.policy import MemoryPolicy
from SegmentAnythingMedLib.models.base import SliceModel
from SegmentAnythingMedLib.through_time import TimeProgress, TimePropagation
from SegmentAnythingMedLib.volume import Modality, Volume
from SegmentAnythingMedLib.voxel_block import VoxelBlock
from SegmentAnythingMedLib.windowing import Window
from SegmentAnythingMedLib.worker import messages as m
from SegmentAnythingMedLib.worker.voxel_file import map_voxels


def carry_through_time(
    command: m.PropagateThroughTime, model: SliceModel, window: Window, policy: MemoryPolicy, times: StageTimes
) -> Iterator[m.Event]:
    """Events of the job: progress for each slice, and each object at each time point that is done."""
    volume = opened_series(command)
    keys = _masks(command, volume.geometry.shape_kji)
    run = TimePropagation(model, volume, window, policy, command.plane, times=times)
    for result in run.run(keys, volume.check_time(command.time), command.direction):
        if isinstance(result, TimeProgress):
            yield m.Progress(command.job, result.done, result.total)
            continue
        block = VoxelBlock.of(result.mask)
        voxels = block.voxels if block.voxels.size else None
        quality = float(np.nan_to_num(result.quality, nan=0.0, posinf=1.0, neginf=0.0))
        yield m.TimePoint(command.job, result.object_id, result.time, block.low_kji, voxels, quality)


def opened_series(command: m.OpenVolume | m.PropagateThroughTime) -> Volume:
    """The volume in a voxel file, mapped."""
    if len(command.shape) != 5:
        raise WorkerError(f"A volume has 5 dimensions (T, C, K, J, I), got shape {command.shape}.")
    voxels = map_voxels(command.path, command.shape, command.dtype)
    geometry = VolumeGeometry(np.reshape(command.ijk_to_world, (4, 4)), command.shape[:1:-1])
    volume = Volume(voxels, geometry, Modality(command.modality))
    volume.__dict__["fingerprint"] = command.fingerprint  # the host hashed these bytes; saves 0.3 s for 157 MB
    return volume


def _masks(command: m.PropagateThroughTime, shape_kji: tuple[int, int, int]) -> dict[int, dict[int, np.ndarray]]:
    if len(command.keys) % 8:
        raise WorkerError("Each key mask needs 8 numbers: object, time point, first voxel and size.")
    masks: dict[int, dict[int, np.ndarray]] = {}
    begin = 1
    for object_id, time, *numbers in np.reshape(command.keys, (-1, 8)).tolist():
        low, size = numbers[:3], numbers[3:]
        end = begin + int(np.prod(size, dtype=object))
        if end > len(command.voxels) or any(a + n > b for a, n, b in zip(low, size, shape_kji, strict=True)):
            raise WorkerError("A key mask does not fit into the volume.")
        block = VoxelBlock(command.voxels[begin:end].reshape(size), tuple(low))
        masks.setdefault(object_id, {})[time] = block.whole(shape_kji)
        begin = end
    if begin != len(command.voxels):
        raise WorkerError("The key masks do not add up to the voxels that came with them.")
    return masks

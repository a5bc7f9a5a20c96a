"""The host's message that has outlines carried through time: a written voxel file and the key masks."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from SegmentAnythingMedLib.geometry import Plane
from SegmentAnythingMedLib.voxel_block import VoxelBlock
from SegmentAnythingMedLib.worker import messages as m
from SegmentAnythingMedLib.worker.voxel_file import VoxelFile

KeyBlocks = Mapping[int, Mapping[int, VoxelBlock]]
"""By object and time point, what the user left there."""


def time_command(
    job: int, file: VoxelFile, keys: KeyBlocks, plane: Plane, time: int, direction: str
) -> m.PropagateThroughTime:
    """The message that starts it, once the file is written."""
    opening = file.command(job)
    numbers: list[int] = []
    voxels = [np.zeros(1, dtype=bool)]  # a mask that is sent is never empty
    for object_id, blocks in keys.items():
        for at, block in blocks.items():
            numbers += [object_id, at, *block.low_kji, *block.voxels.shape]
            voxels.append(block.voxels.ravel())
    return m.PropagateThroughTime(
        job, opening.path, opening.shape, opening.dtype, opening.ijk_to_world, opening.modality, opening.fingerprint,
        plane, time, tuple(numbers), np.concatenate(voxels), direction,
    )  # fmt: skip

"""A volume on a finer grid of the same place: linear for voxels, nearest for labels, slab by slab."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from SegmentAnythingMedLib.geometry import VolumeGeometry
from SegmentAnythingMedLib.io import Labels, Segment
from SegmentAnythingMedLib.volume import Volume

SCALE_SIZE = (512, 512, 300)


def finer_geometry(geometry: VolumeGeometry, size_ijk: tuple[int, int, int]) -> VolumeGeometry:
    """The grid of ``size_ijk`` voxels that fills the same box (outer voxel faces coincide)."""
    scale = np.asarray(geometry.size_ijk) / np.asarray(size_ijk)
    matrix = geometry.ijk_to_world.copy()
    matrix[:3, :3] = geometry.ijk_to_world[:3, :3] * scale
    matrix[:3, 3] = geometry.world_from_ijk((scale - 1) / 2)
    return VolumeGeometry(matrix, size_ijk)


def upsample_volume(volume: Volume, size_ijk: tuple[int, int, int]) -> Volume:
    """The first channel of the first time point on the finer grid, as int16."""
    from scipy import ndimage

    source = volume.array().astype(np.float32)
    k, j, i = _centres(source.shape, size_ijk)
    result = np.empty(size_ijk[::-1], np.int16)
    plane = np.meshgrid(j, i, indexing="ij")
    for index, depth in enumerate(k):
        low = int(np.floor(depth))
        high = min(low + 1, len(source) - 1)
        slab = source[low] * (low + 1 - depth) + source[high] * (depth - low)
        result[index] = np.rint(ndimage.map_coordinates(slab, plane, order=1, mode="nearest"))
    geometry = finer_geometry(volume.geometry, size_ijk)
    return replace(volume, voxels=result[np.newaxis, np.newaxis], geometry=geometry, times_s=())


def upsample_labels(labels: Labels, geometry: VolumeGeometry, values: Iterable[int]) -> Labels:
    """Segments of these values on the finer grid."""
    wanted = set(values)
    segments = []
    for segment in labels.segments:
        if segment.value in wanted:
            k, j, i = (np.rint(c).astype(int) for c in _centres(segment.layer.shape, geometry.size_ijk))
            layer = segment.mask[np.ix_(k, j, i)] * np.uint16(segment.value)
            segments.append(Segment(segment.name, layer, segment.value, segment.color))
    return Labels(geometry, tuple(segments))


def _centres(shape_kji: tuple[int, int, int], size_ijk: tuple[int, int, int]) -> list[np.ndarray]:
    """Source indices (K, J, I) of the finer voxels' centres, clipped to the outermost centres."""
    pairs = zip(shape_kji, size_ijk[::-1], strict=True)
    return [np.clip((np.arange(fine) + 0.5) * (n / fine) - 0.5, 0, n - 1) for n, fine in pairs]

"""The same body on another grid: axes flipped and permuted without loss, or turned and resampled."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from SegmentAnythingMedLib.geometry import VolumeGeometry
from SegmentAnythingMedLib.volume import Volume


def reoriented_geometry(
    geometry: VolumeGeometry, axes: tuple[int, int, int], flip: tuple[bool, bool, bool]
) -> VolumeGeometry:
    """The grid whose axis n is the old axis ``axes[n]``, run backwards where ``flip[n]``; voxels stay in place."""
    size = tuple(geometry.size_ijk[axis] for axis in axes)
    new_to_old = np.zeros((4, 4))
    new_to_old[3, 3] = 1.0
    for new, old in enumerate(axes):
        new_to_old[old, new] = -1.0 if flip[new] else 1.0
        new_to_old[old, 3] = size[new] - 1 if flip[new] else 0.0
    return VolumeGeometry(geometry.ijk_to_world @ new_to_old, size)


def reoriented_array(array: np.ndarray, axes: tuple[int, int, int], flip: tuple[bool, bool, bool]) -> np.ndarray:
    """A (K, J, I) array on `reoriented_geometry`."""
    permuted = np.transpose(array, [2 - axes[2 - depth] for depth in range(3)])
    backwards = tuple(slice(None, None, -1 if flip[2 - depth] else None) for depth in range(3))
    return np.ascontiguousarray(permuted[backwards])


def turned_geometry(geometry: VolumeGeometry, axis: int, degrees: float) -> VolumeGeometry:
    """The grid turned about the normal of the slices along an IJK axis, through its centre, enlarged to hold all."""
    normal = geometry.slice_normal_world(axis)
    angle = np.radians(degrees)
    cross = np.cross(np.eye(3), normal)
    turn = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    linear = turn @ geometry.ijk_to_world[:3, :3]
    center = geometry.world_from_ijk((np.asarray(geometry.size_ijk) - 1) / 2)
    corners = np.array([(i, j, k) for i in (-1, 1) for j in (-1, 1) for k in (-1, 1)]) / 2
    old_to_new = np.linalg.inv(linear) @ geometry.ijk_to_world[:3, :3]
    reach = np.abs((corners * (np.asarray(geometry.size_ijk) - 1)) @ old_to_new.T)
    size = tuple(int(np.ceil(2 * r - 1e-6)) + 1 for r in reach.max(axis=0))
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    matrix[:3, 3] = center - linear @ ((np.asarray(size) - 1) / 2)
    return VolumeGeometry(matrix, size)


def resampled(array: np.ndarray, source: VolumeGeometry, target: VolumeGeometry, order: int) -> np.ndarray:
    """A (K, J, I) array of one grid on another, linear (1) or nearest (0); outside, the smallest value."""
    from scipy import ndimage

    to_source = source.world_to_ijk @ target.ijk_to_world
    reverse = to_source[:3, :3][::-1, ::-1]
    values = array.astype(np.float32) if order else array
    return ndimage.affine_transform(
        values, reverse, to_source[:3, 3][::-1], target.shape_kji, order=order, mode="constant", cval=values.min()
    )


def on_grid(volume: Volume, geometry: VolumeGeometry) -> Volume:
    """The first channel and time point of a volume, resampled linearly onto a grid."""
    array = resampled(volume.array(), volume.geometry, geometry, 1)
    return replace(volume, voxels=array[np.newaxis, np.newaxis], geometry=geometry, times_s=())

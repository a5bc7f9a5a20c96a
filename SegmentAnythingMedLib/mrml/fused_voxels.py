"""Voxels of several volumes on the grid of the first: resampled when asked for, by whoever asks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from SegmentAnythingMedLib.fusion import resampled, smallest
from SegmentAnythingMedLib.mrml.frame import VolumeFrame

Channel = Callable[[], np.ndarray]
"""Makes the (K, J, I) float32 voxels of one channel."""


class FusedVoxels:
    """Stands for a (1, C, K, J, I) float32 array in a `Volume`, a channel at a time.

    Resampling a 512x512x300 volume takes seconds. The thread that hands a volume to the worker asks for the voxels, so
    the host's main thread does not wait. Each channel is made once.

    Parameters
    ----------
    channels
        How each is made, without touching the scene.
    shape_kji
        Of the grid.
    """

    ndim = 5
    dtype = np.dtype(np.float32)

    def __init__(self, channels: Sequence[Channel], shape_kji: tuple[int, int, int]) -> None:
        self._channels = list(channels)
        self._made: dict[int, np.ndarray] = {}
        self.shape = (1, len(self._channels), *shape_kji)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def __getitem__(self, key: object) -> np.ndarray:
        if isinstance(key, tuple) and len(key) >= 2 and all(isinstance(n, (int, np.integer)) for n in key[:2]):
            channel = range(self.shape[1])[key[1]]
            if channel not in self._made:
                self._made[channel] = self._channels[channel]()
            return self._made[channel][np.newaxis][range(1)[key[0]]][key[2:]]
        return np.asarray(self)[key]

    def __array__(self, dtype: object = None, copy: bool | None = None) -> np.ndarray:
        stacked = np.stack([self[0, channel] for channel in range(self.shape[1])])[np.newaxis]
        return stacked if dtype is None else stacked.astype(dtype, copy=False)


def resampling(base: VolumeFrame, frame: VolumeFrame, array: np.ndarray) -> Channel:
    """How a (K, J, I) array of one frame is sampled linearly on the grid of another; its smallest value outside.

    Under a non-linear transform the points are computed here and now: VTK's transforms belong to the main thread.
    """
    matrix = frame.matrix_from(base)
    if matrix is None:
        made = _through_a_warp(base, frame, array)
        return lambda: made
    return lambda: resampled(array, matrix, base.local.shape_kji)


def _through_a_warp(base: VolumeFrame, frame: VolumeFrame, array: np.ndarray) -> np.ndarray:
    from scipy import ndimage

    size_i, size_j, size_k = base.local.size_ijk
    j, i = np.meshgrid(np.arange(size_j), np.arange(size_i), indexing="ij")
    result, fill = np.empty(base.local.shape_kji, np.float32), smallest(array)
    source = array.astype(np.float32, copy=False)
    for k in range(size_k):
        points = frame.ijk_from(base, np.stack([i, j, np.full_like(i, k)], axis=-1))
        coordinates = np.moveaxis(points[..., ::-1], -1, 0)
        result[k] = ndimage.map_coordinates(source, coordinates, order=1, mode="grid-constant", cval=fill)
    return result

"""Part of a mask of a volume: what an object's voxels travel as, however large the volume."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class VoxelBlock:
    """The box round an object's voxels; everything outside it is empty.

    Parameters
    ----------
    voxels
        (K, J, I) bool; may have no voxels at all.
    low_kji
        Index of the first voxel in the volume.
    """

    voxels: np.ndarray
    low_kji: tuple[int, int, int] = (0, 0, 0)

    @classmethod
    def of(cls, mask: np.ndarray) -> VoxelBlock:
        """The smallest block of a (K, J, I) bool mask; its voxels are a view."""
        low, part = [], mask
        for axis in range(3):
            filled = np.flatnonzero(part.any(axis=tuple(other for other in range(3) if other != axis)))
            if not len(filled):
                return cls.nothing()
            low.append(int(filled[0]))
            part = part[(slice(None),) * axis + (slice(filled[0], filled[-1] + 1),)]
        return cls(part, tuple(low))

    @classmethod
    def nothing(cls) -> VoxelBlock:
        """Of an object that is not there."""
        return cls(np.zeros((0, 0, 0), dtype=bool))

    def whole(self, shape_kji: tuple[int, int, int]) -> np.ndarray:
        """(K, J, I) bool mask of the volume."""
        mask = np.zeros(shape_kji, dtype=bool)
        spans = zip(self.low_kji, self.voxels.shape, strict=True)
        mask[tuple(slice(low, low + size) for low, size in spans)] = self.voxels
        return mask

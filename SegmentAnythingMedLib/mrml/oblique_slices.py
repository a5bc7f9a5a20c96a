"""Oblique slices in a (K, J, I) array: pasted where something can change, and told apart voxel by voxel."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from SegmentAnythingMedLib.geometry import SliceGeometry
from SegmentAnythingMedLib.mrml.label_grid import Box


class ObliqueSlices:
    """The same voxels as `SliceGeometry.paste`, without going through the whole slice: 107 ms on 512x512x300.

    Every voxel belongs to the slice nearest to its centre.

    Parameters
    ----------
    slices
        An oblique stack.
    """

    def __init__(self, slices: SliceGeometry) -> None:
        self._slices = slices
        self._size_ijk = slices.volume.size_ijk
        self._whole = Box((0, 0, 0), slices.volume.shape_kji)
        self._to_stack = np.linalg.inv(slices.stack_to_ijk)
        self._steep = int(np.argmax(np.abs(self._to_stack[0, :3])))

    def paste(self, mask: np.ndarray, index: int, target: np.ndarray, filled: Box) -> Box:
        """Write a slice.

        Parameters
        ----------
        mask
            (rows, columns) bool.
        index
            The slice.
        target
            (K, J, I), 0 outside of ``filled``; changed in place.
        filled
            Covers what is not 0 in the target.

        Returns
        -------
        Box
            Covers the slice's voxels that are 1.
        """
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        ours = Box((0, 0, 0), (0, 0, 0))
        if len(rows):
            ours = self._box((index, rows[0], columns[0]), (index, rows[-1], columns[-1]))
        touched = ours.around(filled.cut(self._box((index, 0, 0), (index, *np.subtract(mask.shape, 1)))))
        if not touched.is_empty:
            flat, voxels = mask.ravel(), target.reshape(-1)
            for ijk in self._voxels(index, touched):
                voxels[(ijk[2] * self._size_ijk[1] + ijk[1]) * self._size_ijk[0] + ijk[0]] = flat[self._pixels(ijk)]
        return ours

    def indices(self, box: Box) -> np.ndarray:
        """(K, J, I) int: the slice that each voxel of a box belongs to."""
        places = [np.arange(low, high) for low, high in zip(box.low, box.high, strict=True)]
        axes = dict(zip((2, 1, 0), np.ix_(*places), strict=True))
        slow, fast = (axes[axis] for axis in (2, 1, 0) if axis != self._steep)
        return np.rint(self._base(slow, fast) + self._to_stack[0, self._steep] * axes[self._steep]).astype(int)

    def box_of_slices(self, first: int, last: int) -> Box:
        """Covers the voxels of all slices from one to another."""
        rows, columns = self._slices.shape
        return self._box((first, 0, 0), (last, rows - 1, columns - 1))

    def _box(self, low: tuple[float, ...], high: tuple[float, ...]) -> Box:
        """Covers the voxels between two corners (depth, row, column), both with half a pixel round them."""
        ends = np.array([np.subtract(low, 0.5), np.add(high, 0.5)])
        corners = np.array([(d, r, c) for d in ends[:, 0] for r in ends[:, 1] for c in ends[:, 2]])
        matrix = self._slices.stack_to_ijk
        points = (corners @ matrix[:3, :3].T + matrix[:3, 3])[:, ::-1]
        first, last = np.floor(points.min(axis=0)), np.ceil(points.max(axis=0)) + 1
        return Box(tuple(int(x) for x in first), tuple(int(x) for x in last)).cut(self._whole)

    def _voxels(self, index: int, box: Box) -> Iterator[list[np.ndarray]]:
        """Voxels [i, j, k] of a slice in the lines of the steepest axis that pass through a box, a few on each."""
        steep, step = self._steep, self._to_stack[0, self._steep]
        slow, fast = (axis for axis in (2, 1, 0) if axis != steep)
        a, b = (np.arange(box.low[2 - axis], box.high[2 - axis]) for axis in (slow, fast))
        base = self._base(a[:, np.newaxis], b).ravel()
        ends = (index - 0.5 - base) / step, (index + 0.5 - base) / step
        lowest = np.maximum(np.ceil(np.minimum(*ends) - 1e-6), box.low[2 - steep])
        room = np.minimum(np.floor(np.maximum(*ends) + 1e-6), box.high[2 - steep] - 1) - lowest
        for further in range(int(np.ceil(1 / abs(step))) + 1):
            lines = np.flatnonzero(room >= further)
            along = lowest[lines] + further
            near = np.rint(base[lines] + step * along) == index
            lines, along = lines[near], along[near]
            ijk = [lines, lines, lines]
            ijk[slow], ijk[fast], ijk[steep] = a[lines // len(b)], b[lines % len(b)], along.astype(int)
            yield ijk

    def _pixels(self, ijk: list[np.ndarray]) -> np.ndarray:
        """(N,) int: where in a flat (rows, columns) mask voxels lie."""
        rows, columns = (
            np.rint(row[0] * ijk[0] + row[1] * ijk[1] + row[2] * ijk[2] + row[3]).astype(int)
            for row in self._to_stack[1:3]
        )
        height, width = self._slices.shape
        return np.clip(rows, 0, height - 1) * width + np.clip(columns, 0, width - 1)

    def _base(self, slow: np.ndarray, fast: np.ndarray) -> np.ndarray:
        """Depth of voxels, but for their place along the steepest axis."""
        depth, (first, second) = self._to_stack[0], (axis for axis in (2, 1, 0) if axis != self._steep)
        return depth[first] * slow + depth[second] * fast + depth[3]

"""A segment as we last wrote it, to notice what somebody else painted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from SegmentAnythingMedLib.geometry import SliceGeometry
from SegmentAnythingMedLib.mrml.frame import VolumeFrame
from SegmentAnythingMedLib.mrml.label_grid import Box, labelmap_of, read_box, stored_box

if TYPE_CHECKING:
    from slicer import vtkMRMLSegmentationNode

_SLAB = 16


class WrittenState:
    """Voxels of a segment, packed eight to a byte.

    Parameters
    ----------
    grid
        The grid of its boxes.
    """

    def __init__(self, grid: VolumeFrame) -> None:
        self._grid = grid
        self._box = Box((0, 0, 0), (0, 0, 0))
        self._parts: list[tuple[Box, np.ndarray]] = []
        self._modified = -1

    def add(self, box: Box, voxels: np.ndarray) -> None:
        """Note the (K, J, I) bool voxels of a box; outside all boxes the segment is empty."""
        self._box = self._box.around(box)
        self._parts.append((box, np.packbits(voxels)))

    def changed_slices(
        self, node: vtkMRMLSegmentationNode, segment_id: str, frame: VolumeFrame, slices: SliceGeometry
    ) -> tuple[int, ...]:
        """Slices of a volume on which the segment differs now."""
        if self._modified == _modified(node, segment_id):
            return ()
        found: set[int] = set()
        for box in self._box.around(stored_box(node, segment_id, self._grid)).slabs(_SLAB):
            voxels = np.argwhere(read_box(node, segment_id, self._grid, box) != self._before(box))
            if len(voxels):
                found |= self._slices_of(voxels + np.array(box.low), frame, slices)
        if not found:
            self._modified = _modified(node, segment_id)
        return tuple(sorted(found))

    def _before(self, box: Box) -> np.ndarray:
        before = np.zeros(box.shape, dtype=bool)
        for part, packed in self._parts:
            common = part.cut(box)
            if not common.is_empty:
                voxels = np.unpackbits(packed, count=int(np.prod(part.shape))).reshape(part.shape)
                before[common.within(box)] = voxels[common.within(part)]
        return before

    def _slices_of(self, voxels_kji: np.ndarray, frame: VolumeFrame, slices: SliceGeometry) -> set[int]:
        """Slices whose plane passes through voxels of the grid."""
        points = voxels_kji[:, ::-1].astype(np.float64)
        depth, _ = slices.pixels_from_ijk(frame.ijk_from(self._grid, points))
        steps = np.concatenate([points[:1], points[:1] + np.eye(3)])
        around, _ = slices.pixels_from_ijk(frame.ijk_from(self._grid, steps))
        half = max(0.5 * np.abs(around[1:] - around[0]).max() - 1e-6, 0.0)
        found = set(np.rint(depth).astype(int).tolist())
        for low, high in zip(
            *np.unique([np.ceil(depth - half), np.floor(depth + half)], axis=1).astype(int), strict=True
        ):
            found |= set(range(low, high + 1))
        return {index for index in found if 0 <= index < slices.count}


def _modified(node: vtkMRMLSegmentationNode, segment_id: str) -> int:
    image = labelmap_of(node, segment_id)
    return image.GetMTime() if image is not None else 0

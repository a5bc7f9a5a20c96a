"""A segment as we last wrote it, to notice what somebody else painted."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from SegmentAnythingMedLib.geometry import SliceGeometry
from SegmentAnythingMedLib.mrml.frame import VolumeFrame
from SegmentAnythingMedLib.mrml.label_grid import Box, box_of, labelmap_of, read_box, shift_between, stored_box

if TYPE_CHECKING:
    from slicer import vtkMRMLSegmentationNode


class WrittenState:
    """Voxels of a segment, packed eight to a byte, and the search for what differs from them now.

    Parameters
    ----------
    node, segment_id
        The segment.
    grid
        The grid of its boxes.
    """

    def __init__(self, node: vtkMRMLSegmentationNode, segment_id: str, grid: VolumeFrame) -> None:
        self._node, self._segment_id, self._grid = node, segment_id, grid
        self._box = Box((0, 0, 0), (0, 0, 0))
        self._parts: list[tuple[Box, np.ndarray | None]] = []
        self._begun = self._compared = _modified(node, segment_id)
        self._search: Iterator[np.ndarray] | None = None
        self._found: list[np.ndarray] = []

    def add(self, box: Box, voxels: np.ndarray) -> None:
        """Note the (K, J, I) bool voxels of a box; boxes do not overlap, outside of them the segment is empty."""
        self._box = self._box.around(box)
        self._parts.append((box, np.packbits(voxels) if voxels.any() else None))

    def follow(self, grid: VolumeFrame, box: Box, gained: np.ndarray, lost: np.ndarray) -> bool:
        """Note what an edit of ours changed, so that what somebody else painted before it is still told apart.

        Parameters
        ----------
        grid, box
            Where, in the index of the grid.
        gained, lost
            (K, J, I) bool.

        Returns
        -------
        bool
            False where it lies outside of what was noted: the segment has to be noted anew.
        """
        offset = shift_between(grid, self._grid)
        if offset is None:
            return False
        changed = box_of(gained | lost, box.moved(offset).low)
        if changed.is_empty:
            return True
        if changed.cut(self._box) != changed:
            return False
        first = changed.within(box.moved(offset))
        gained, lost = gained[first], lost[first]
        for number, (part, packed) in enumerate(self._parts):
            common = part.cut(changed)
            if common.is_empty:
                continue
            voxels = np.zeros(part.shape, bool)
            if packed is not None:
                voxels = np.unpackbits(packed, count=voxels.size).reshape(part.shape).astype(bool)
            at, of = common.within(part), common.within(changed)
            voxels[at] = (voxels[at] | gained[of]) & ~lost[of]
            self._parts[number] = (part, np.packbits(voxels) if voxels.any() else None)
        return True

    def close(self) -> None:
        """All is noted; if the segment was changed meanwhile, it is compared at the next occasion."""
        self._compared = self._begun if self._begun == _modified(self._node, self._segment_id) else -1

    def look(self, end: float = float("inf")) -> None:
        """Go on comparing the segment with what was noted, until ``end`` on the performance counter.

        The host's timer calls it, so that what was painted is found before anybody asks for it: comparing takes up to
        0.2 s where the segment's layer is as large as 512x512x300.
        """
        if self._compared != _modified(self._node, self._segment_id):
            self._compared, self._found = _modified(self._node, self._segment_id), []
            self._search = self._differences()
        while self._search is not None:
            voxels = next(self._search, None)
            if voxels is None:
                self._search = None
            elif len(voxels):
                self._found.append(voxels)
            if time.perf_counter() >= end:
                return

    def changed_slices(self, frame: VolumeFrame, slices: SliceGeometry) -> tuple[int, ...]:
        """Slices of a volume on which the segment differs now."""
        self.look()
        found: set[int] = set()
        for voxels in self._found:
            found |= self._slices_of(voxels, frame, slices)
        return tuple(sorted(found))

    def _differences(self) -> Iterator[np.ndarray]:
        """(N, 3) KJI of voxels that differ, a part at a time."""
        for box, packed in self._parts:
            now = read_box(self._node, self._segment_id, self._grid, box)
            bits = None if packed is None else np.packbits(now)
            if np.array_equal(bits, packed) if packed is not None else not now.any():
                yield np.empty((0, 3), int)
            elif packed is None:
                yield np.argwhere(now) + np.array(box.low)
            else:
                differ = np.unpackbits(bits ^ packed, count=now.size).reshape(now.shape)
                yield np.argwhere(differ) + np.array(box.low)
        for box in stored_box(self._node, self._segment_id, self._grid).without(self._box):
            for slab in box.slabs():
                now = read_box(self._node, self._segment_id, self._grid, slab)
                yield np.argwhere(now) + np.array(slab.low) if now.any() else np.empty((0, 3), int)

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

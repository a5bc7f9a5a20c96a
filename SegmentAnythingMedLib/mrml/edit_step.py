"""One edit of ours in a segmentation: which voxels it changed, so that only they are undone, and only if still so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from SegmentAnythingMedLib.errors import OutputError
from SegmentAnythingMedLib.mrml.frame import VolumeFrame
from SegmentAnythingMedLib.mrml.label_grid import Box, labelmap_of, read_box, shift_between

if TYPE_CHECKING:
    from slicer import vtkMRMLSegmentationNode

_REFUSED = "Something else changed these voxels since: undo that first, or correct the segment by hand."


@dataclass(frozen=True, eq=False)
class ChangedBox:
    """Voxels of one segment that an edit changed in a box, packed eight to a byte.

    Parameters
    ----------
    segment_id
        The segment.
    box
        Where, in the index of the step's grid.
    gained, lost
        Packed (K, J, I) bool.
    """

    segment_id: str
    box: Box
    gained: np.ndarray
    lost: np.ndarray

    @classmethod
    def of(cls, segment_id: str, box: Box, gained: np.ndarray, lost: np.ndarray) -> ChangedBox:
        """From (K, J, I) bool arrays."""
        return cls(segment_id, box, np.packbits(gained), np.packbits(lost))

    @property
    def reversed(self) -> ChangedBox:
        return ChangedBox(self.segment_id, self.box, self.lost, self.gained)

    def unpacked(self) -> tuple[np.ndarray, np.ndarray]:
        """(K, J, I) bool: gained, lost."""
        count = int(np.prod(self.box.shape))
        return tuple(
            np.unpackbits(packed, count=count).reshape(self.box.shape).astype(bool)
            for packed in (self.gained, self.lost)
        )


@dataclass(eq=False)
class EditStep:
    """What one acceptance changed in a segmentation.

    Parameters
    ----------
    node
        The segmentation.
    grid
        The grid of the boxes.
    boxes
        In the order they were written.
    """

    node: vtkMRMLSegmentationNode
    grid: VolumeFrame
    boxes: list[ChangedBox] = field(default_factory=list)

    def add(self, box: Box, changes: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
        """Note what was gained and lost in a box, by segment."""
        for segment_id, (gained, lost) in changes.items():
            if gained.any() or lost.any():
                self.boxes.append(ChangedBox.of(segment_id, box, gained, lost))

    @property
    def nbytes(self) -> int:
        return sum(item.gained.nbytes + item.lost.nbytes for item in self.boxes)

    @property
    def reversed(self) -> EditStep:
        """The step that takes this one back."""
        return EditStep(self.node, self.grid, [item.reversed for item in reversed(self.boxes)])

    def check_box(self, item: ChangedBox) -> None:
        """Raise an `OutputError` unless the segment still is as before this step in the voxels of a box."""
        if self.node.GetSegmentation().GetSegment(item.segment_id) is None:
            raise OutputError("The segment was removed since: nothing can be undone there.")
        image = labelmap_of(self.node, item.segment_id)
        if image is not None and shift_between(VolumeFrame.of_labelmap(image, self.grid.transform), self.grid) is None:
            raise OutputError("The segmentation was resampled to another grid since: earlier steps cannot be undone.")
        gained, lost = item.unpacked()
        now = read_box(self.node, item.segment_id, self.grid, item.box)
        if now[gained].any() or not now[lost].all():
            raise OutputError(_REFUSED)

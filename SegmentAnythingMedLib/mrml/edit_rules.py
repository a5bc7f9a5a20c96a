"""What the Segment Editor lets an edit change: editable area, intensity range, segments that may be overwritten.

`vtkSlicerSegmentEditorLogic.ModifySegmentByLabelmap` works these out over the whole volume at every call (seconds on
512x512x300 with an intensity range), so the same rules are applied here to the box that is written.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from SegmentAnythingMedLib.mrml.frame import VolumeFrame
from SegmentAnythingMedLib.mrml.label_grid import Box, read_box, sample_box
from SegmentAnythingMedLib.mrml.scene import voxels_of

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode, vtkMRMLScene, vtkMRMLSegmentationNode, vtkMRMLSegmentEditorNode


@dataclass(frozen=True)
class EditRules:
    """Settings of a Segment Editor node.

    Parameters
    ----------
    editor
        The node, or None: edit everywhere, overwrite nothing.
    volume
        Measures the intensity range where the editor has no source volume.
    """

    editor: vtkMRMLSegmentEditorNode | None
    volume: vtkMRMLScalarVolumeNode

    @classmethod
    def of_scene(cls, scene: vtkMRMLScene, volume: vtkMRMLScalarVolumeNode) -> EditRules:
        """The rules of the scene's Segment Editor, if it was ever opened."""
        return cls(scene.GetSingletonNode("SegmentEditor", "vtkMRMLSegmentEditorNode"), volume)

    def overwritten(self, node: vtkMRMLSegmentationNode, segment_id: str) -> list[str]:
        """Ids of the other segments that lose the voxels this one gains."""
        if self.editor is None or self.editor.GetOverwriteMode() == self.editor.OverwriteNone:
            return []
        others = [name for name in node.GetSegmentation().GetSegmentIDs() if name != segment_id]
        if self.editor.GetOverwriteMode() == self.editor.OverwriteVisibleSegments:
            return _visible(node, others)
        return others

    def editable(
        self, node: vtkMRMLSegmentationNode, segment_id: str, grid: VolumeFrame, box: Box
    ) -> np.ndarray | None:
        """(K, J, I) bool: voxels of a box that may change; None if all may."""
        if self.editor is None:
            return None
        allowed = self._editable_area(node, segment_id, grid, box)
        if self.editor.GetSourceVolumeIntensityMask():
            low, high = self.editor.GetSourceVolumeIntensityMaskRange()
            source = self.editor.GetSourceVolumeNode() or self.volume
            values = sample_box(voxels_of(source)[0], VolumeFrame.of(source), grid, box, order=1)
            in_range = (values >= low) & (values <= high)
            allowed = in_range if allowed is None else allowed & in_range
        return allowed

    def _editable_area(
        self, node: vtkMRMLSegmentationNode, segment_id: str, grid: VolumeFrame, box: Box
    ) -> np.ndarray | None:
        mode, everyone = self.editor.GetMaskMode(), list(node.GetSegmentation().GetSegmentIDs())
        if mode == node.EditAllowedEverywhere:
            return None
        if mode == node.EditAllowedInsideSingleSegment:
            return _union(node, [self.editor.GetMaskSegmentID() or ""], grid, box)
        visible = mode in (node.EditAllowedInsideVisibleSegments, node.EditAllowedOutsideVisibleSegments)
        segments = _visible(node, everyone) if visible else everyone
        if mode in (node.EditAllowedInsideAllSegments, node.EditAllowedInsideVisibleSegments):
            return _union(node, segments, grid, box)
        return ~_union(node, [name for name in segments if name != segment_id], grid, box)


def _visible(node: vtkMRMLSegmentationNode, segment_ids: list[str]) -> list[str]:
    display = node.GetDisplayNode()
    return [name for name in segment_ids if display is not None and display.GetSegmentVisibility(name)]


def _union(node: vtkMRMLSegmentationNode, segment_ids: list[str], grid: VolumeFrame, box: Box) -> np.ndarray:
    union = np.zeros(box.shape, dtype=bool)
    for name in segment_ids:
        union |= read_box(node, name, grid, box)
    return union

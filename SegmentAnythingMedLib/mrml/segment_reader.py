"""A segment of the user as a mask on a slice: for "use the current segment as prompt" and for painted slices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from SegmentAnythingMedLib.errors import PromptError
from SegmentAnythingMedLib.geometry import SliceGeometry
from SegmentAnythingMedLib.mrml.frame import VolumeFrame
from SegmentAnythingMedLib.mrml.label_grid import labelmap_of, labels_of
from SegmentAnythingMedLib.prompts import MaskPrompt

if TYPE_CHECKING:
    from slicer import vtkMRMLSegmentationNode


def mask_from_segment(
    node: vtkMRMLSegmentationNode, segment_id: str, frame: VolumeFrame, slices: SliceGeometry, index: int
) -> MaskPrompt:
    """The segment on a slice as a prompt.

    Raises
    ------
    PromptError
        If the segment has nothing there.
    """
    mask = segment_on_slice(node, segment_id, frame, slices, index)
    if not mask.any():
        raise PromptError(f"The segment has nothing on slice {index}: choose another slice or segment.")
    return MaskPrompt(mask, index, slices.plane)


def segment_on_slice(
    node: vtkMRMLSegmentationNode, segment_id: str, frame: VolumeFrame, slices: SliceGeometry, index: int
) -> np.ndarray:
    """(rows, columns) bool: the segment at the pixel centres of a slice, whatever grid and transform it has.

    Parameters
    ----------
    node, segment_id
        The segment.
    frame
        Frame of the volume the slice belongs to.
    slices, index
        The slice.
    """
    slices.check_index(index)
    image = labelmap_of(node, segment_id)
    if image is None:
        return np.zeros(slices.shape, dtype=bool)
    pixels = np.stack(np.meshgrid(*map(np.arange, slices.shape), indexing="ij"), axis=-1)
    points = VolumeFrame.of_labelmap(image, node.GetParentTransformNode()).ijk_from(
        frame, slices.ijk_from_pixels(index, pixels)
    )
    extent = image.GetExtent()
    voxels = np.floor(points + 0.5).astype(int) - np.array(extent[::2])
    labels = labels_of(image)
    inside = ((voxels >= 0) & (voxels < np.array(labels.shape[::-1]))).all(axis=-1)
    i, j, k = np.moveaxis(np.where(inside[..., np.newaxis], voxels, 0), -1, 0)
    return inside & (labels[k, j, i] == node.GetSegmentation().GetSegment(segment_id).GetLabelValue())

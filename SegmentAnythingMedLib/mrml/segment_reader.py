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
    place = VolumeFrame.of_labelmap(image, node.GetParentTransformNode())
    labels, first = labels_of(image), image.GetExtent()[::2]
    k, j, i = (
        np.floor(points + 0.5).astype(int) - start
        for points, start in zip(reversed(_voxels(place, frame, slices, index)), reversed(first), strict=True)
    )
    sizes = labels.shape
    inside = (k >= 0) & (k < sizes[0]) & (j >= 0) & (j < sizes[1]) & (i >= 0) & (i < sizes[2])
    near = (np.clip(at, 0, size - 1) for at, size in zip((k, j, i), sizes, strict=True))
    return inside & (labels[tuple(near)] == node.GetSegmentation().GetSegment(segment_id).GetLabelValue())


def _voxels(place: VolumeFrame, frame: VolumeFrame, slices: SliceGeometry, index: int) -> list[np.ndarray]:
    """I, J, K in a labelmap of a slice's pixels; each (rows, columns), or 1 where it does not change along one.

    What does not change is not computed for every pixel: 3 ms instead of 40 on 512x512.
    """
    matrix = place.matrix_from(frame)
    rows, columns = np.arange(slices.shape[0])[:, np.newaxis], np.arange(slices.shape[1])
    if matrix is None:
        pixels = np.stack(np.broadcast_arrays(rows, columns), axis=-1)
        points = place.ijk_from(frame, slices.ijk_from_pixels(index, pixels))
        return list(np.moveaxis(points, -1, 0))
    found = []
    for deep, down, right, start in (matrix @ slices.stack_to_ijk)[:3]:
        at = np.full((1, 1), deep * index + start)
        at = at if abs(down) < 1e-9 else at + down * rows
        found.append(at if abs(right) < 1e-9 else at + right * columns)
    return found

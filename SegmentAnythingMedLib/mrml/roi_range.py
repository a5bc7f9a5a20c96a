"""The slices of a volume that an ROI covers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from SegmentAnythingMedLib.errors import GeometryError, PromptError
from SegmentAnythingMedLib.geometry import Plane, SliceGeometry, VolumeGeometry
from SegmentAnythingMedLib.mrml.frame import VolumeFrame, array_of

if TYPE_CHECKING:
    from slicer import vtkMRMLMarkupsROINode

_SAMPLES = 9
"""Points along each side of the box that are looked at: enough for smooth warps."""

_EDGE = 1e-4
"""A slice this close to the ROI's face, in slices, lies in it."""


def slices_in_roi(roi: vtkMRMLMarkupsROINode, frame: VolumeFrame, plane: Plane) -> tuple[int, int]:
    """First and last slice whose plane meets an ROI; the nearest one where the ROI lies between two.

    Parameters
    ----------
    roi
        Under any parent transforms, turned by its ObjectToNode matrix.
    frame
        Frame of the volume.
    plane
        Which slices.

    Raises
    ------
    PromptError
        If the ROI is not placed yet.
    GeometryError
        If it does not meet the volume.
    """
    size = np.array(roi.GetSize(), dtype=np.float64)
    if not roi.GetControlPointPlacementComplete() or np.count_nonzero(size > 1e-9) < 2:
        raise PromptError(f"{roi.GetName()} is not placed yet: place it in a slice view first.")
    object_to_node = array_of(roi.GetObjectToNodeMatrix())
    object_to_node[:3, 3] = roi.GetCenter()
    node = VolumeFrame(VolumeGeometry(np.eye(4), (1, 1, 1)), roi.GetParentTransformNode())
    side = np.linspace(-0.5, 0.5, _SAMPLES)
    unit = np.stack(np.meshgrid(side, side, side, indexing="ij"), axis=-1).reshape(-1, 3)
    in_node = (unit * size) @ object_to_node[:3, :3].T + object_to_node[:3, 3]
    in_volume = frame.ijk_from_ras(node.ras_from_ijk(in_node))
    voxels = (unit + 0.5) * (np.array(frame.local.size_ijk) - 1)
    in_roi = (node.ijk_from_ras(frame.ras_from_ijk(voxels)) - object_to_node[:3, 3]) @ np.linalg.inv(
        object_to_node[:3, :3]
    ).T
    meets = frame.local.contains(in_volume).any() or (np.abs(in_roi) <= size / 2 + _EDGE).all(axis=1).any()
    slices = SliceGeometry(frame.geometry, plane)
    depth, _ = slices.pixels_from_ijk(in_volume)
    low, high = float(depth.min()), float(depth.max())
    if not meets or high < -0.5 or low > slices.count - 0.5:
        raise GeometryError(f"{roi.GetName()} lies beside the volume: move it over the image.")
    first, last = int(np.ceil(low - _EDGE)), int(np.floor(high + _EDGE))
    if first > last:
        first = last = int(np.rint((low + high) / 2))
    return min(max(first, 0), slices.count - 1), min(max(last, 0), slices.count - 1)

"""RTSTRUCT: contours filled on the grid of the volume they were drawn on."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from SegmentAnythingMedLib.errors import VolumeError
from SegmentAnythingMedLib.geometry import Plane, SliceGeometry, VolumeGeometry
from SegmentAnythingMedLib.io.labels import Labels, Segment, default_color
from SegmentAnythingMedLib.rasterize import polygon_mask

if TYPE_CHECKING:
    from pydicom import Dataset

logger = logging.getLogger(__name__)

_FILLED = {"CLOSED_PLANAR", "CLOSEDPLANAR_XOR", "CLOSED_PLANAR_XOR"}
_MAX_OFF_PLANE = 0.5
"""A contour belongs to the slice that is less than half a slice away from all its points."""


def read_rtstruct(dataset: Dataset, path: Path, geometry: VolumeGeometry) -> Labels:
    """Regions of interest as segments; nested contours of a slice cut holes.

    Parameters
    ----------
    dataset
        The whole RTSTRUCT.
    geometry
        Grid in LPS of the volume the contours were drawn on.

    Raises
    ------
    VolumeError
        If a region's contours lie outside the volume or in planes that are none of its slices.
    """
    names = {
        roi.ROINumber: str(roi.get("ROIName") or roi.ROINumber) for roi in dataset.get("StructureSetROISequence", [])
    }
    segments = []
    for number, region in enumerate(dataset.get("ROIContourSequence", []), start=1):
        name = names.get(region.get("ReferencedROINumber"), f"ROI {number}")
        contours = [
            np.array(contour.ContourData, dtype=np.float64).reshape(-1, 3)
            for contour in region.get("ContourSequence", [])
            if contour.get("ContourGeometricType") in _FILLED and len(contour.ContourData) >= 9
        ]
        if not contours:
            logger.warning("%s: the region %r has no closed contour and stays empty", path.name, name)
        color = region.get("ROIDisplayColor")
        layer = fill_contours(contours, geometry, f"{path.name}: the region {name!r}").astype(np.uint8)
        segments.append(Segment(name, layer, 1, tuple(c / 255 for c in color) if color else default_color(number)))
    if not segments:
        raise VolumeError(f"{path.name} holds no contours: choose another RTSTRUCT.")
    return Labels(geometry, tuple(segments))


def fill_contours(contours: list[np.ndarray], geometry: VolumeGeometry, what: str) -> np.ndarray:
    """(K, J, I) bool: voxels whose centre is inside an odd number of the (n, 3) world contours of its slice."""
    mask = np.zeros(geometry.shape_kji, bool)
    if not contours:
        return mask
    slices = SliceGeometry(geometry, Plane(_depth_axis(contours, geometry)))
    skipped = 0
    for contour in contours:
        depths, pixels = slices.pixels_from_ijk(geometry.ijk_from_world(contour))
        index = int(np.rint(depths.mean()))
        if not 0 <= index < slices.count or np.abs(depths - index).max() > _MAX_OFF_PLANE:
            skipped += 1
            continue
        filled = slices.extract(mask, index)
        slices.paste(filled ^ polygon_mask(pixels, slices.shape), index, mask)
    if skipped == len(contours):
        raise VolumeError(f"{what} lies outside the volume or oblique to its slices: give the volume it was drawn on.")
    if skipped:
        logger.warning("%s: %d of %d contours lie outside the volume or between slices", what, skipped, len(contours))
    return mask


def _depth_axis(contours: list[np.ndarray], geometry: VolumeGeometry) -> int:
    """The IJK axis along which the contours are flat."""
    ranges = [np.ptp(geometry.ijk_from_world(contour), axis=0) for contour in contours]
    return int(np.argmin(np.mean(ranges, axis=0)))

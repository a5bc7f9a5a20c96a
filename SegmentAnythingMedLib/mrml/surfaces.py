"""Closed surfaces of segments: put aside while voxels change, and built anew by a thread, because that takes a second.

The filters are those of Slicer's own conversion, which cannot be run in a thread: it holds Python's lock throughout.
VTK lets go of the lock while a filter runs. A test holds both results equal.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import vtk
from vtkmodules.util.numpy_support import numpy_to_vtk

from SegmentAnythingMedLib.mrml.label_grid import SURFACE, Box, box_of, labelmap_of, labels_of, stamp_of

if TYPE_CHECKING:
    from slicer import vtkMRMLSegmentationNode, vtkSegmentation

_TRIES = 3
_FLYING_EDGES = "0"


@dataclass(frozen=True)
class SurfaceSettings:
    """How the user wants surfaces made.

    Parameters
    ----------
    smoothing
        0 none to 1 very strong.
    decimation
        Fraction of triangles to leave out, 0 to 1.
    has_normals
        Whether points get normals.
    """

    smoothing: float
    decimation: float
    has_normals: bool

    @classmethod
    def of(cls, segmentation: vtkSegmentation) -> SurfaceSettings | None:
        """Those of a segmentation; None where Slicer makes surfaces in another way than `surface_of` does."""
        wanted = segmentation.GetConversionParameter
        others = (wanted("Conversion method"), wanted("Joint smoothing"), wanted("SurfaceNets smoothing"))
        if any(value not in ("", _FLYING_EDGES) for value in others):
            return None
        try:
            smoothing, decimation = float(wanted("Smoothing factor")), float(wanted("Decimation factor"))
        except ValueError:
            return None
        return cls(smoothing, decimation, wanted("Compute surface normals") == "1")


class SurfacesAside:
    """Removes the surfaces of some segments until `rebuilt`.

    If the writing between is broken off, the surfaces stay away: Slicer makes them when they are next asked for.

    Parameters
    ----------
    node
        The segmentation.
    segment_ids
        Segments that will change.
    """

    def __init__(self, node: vtkMRMLSegmentationNode, segment_ids: Sequence[str]) -> None:
        self._node, segmentation = node, node.GetSegmentation()
        self._is_shown = segmentation.GetNumberOfSegments() > 0 and any(
            _has_surface(segmentation, name) for name in segmentation.GetSegmentIDs()
        )
        for name in segment_ids:
            if _has_surface(segmentation, name):
                segmentation.GetSegment(name).RemoveRepresentation(SURFACE)

    def at_once(self) -> None:
        """Build the surfaces without a thread."""
        if self._is_shown and self._node.GetScene() is not None:
            self._node.GetSegmentation().CreateRepresentation(SURFACE, False)

    def rebuilt(self) -> Iterator[float | None]:
        """Build the surfaces that are missing, in short steps; a thread does the work."""
        if not self._is_shown or self._node.GetScene() is None:
            return
        segmentation = self._node.GetSegmentation()
        settings = SurfaceSettings.of(segmentation)
        for name in segmentation.GetSegmentIDs() if settings is not None else ():
            for _ in range(_TRIES):
                if segmentation.GetSegment(name) is None or _has_surface(segmentation, name):
                    break
                yield from self._rebuild(name, settings)
        self.at_once()

    def _rebuild(self, segment_id: str, settings: SurfaceSettings) -> Iterator[float | None]:
        """One surface, unless the segment is changed meanwhile."""
        image = labelmap_of(self._node, segment_id)
        if image is None:
            return
        before, value = stamp_of(image), self._node.GetSegmentation().GetSegment(segment_id).GetLabelValue()
        stored, labels = Box.of_extent(image.GetExtent()), labels_of(image)
        parts: list[tuple[Box, np.ndarray]] = []
        for slab in stored.slabs():
            voxels = labels[slab.within(stored)] == value
            filled = box_of(voxels, slab.low)
            if not filled.is_empty:
                parts.append((filled, voxels[filled.within(slab)]))
            yield 1.0
        matrix, made = vtk.vtkMatrix4x4(), []
        image.GetImageToWorldMatrix(matrix)
        thread = threading.Thread(
            target=lambda: made.append(surface_of(parts, matrix, settings)), name="surface", daemon=True
        )
        thread.start()
        while thread.is_alive():
            yield None
        segment = self._node.GetSegmentation().GetSegment(segment_id)
        if segment is not None and made and labelmap_of(self._node, segment_id) is image and stamp_of(image) == before:
            segment.AddRepresentation(SURFACE, made[0])


def surface_of(
    parts: Sequence[tuple[Box, np.ndarray]], ijk_to_world: vtk.vtkMatrix4x4, settings: SurfaceSettings
) -> vtk.vtkPolyData:
    """The closed surface round voxels, as Slicer makes it.

    Parameters
    ----------
    parts
        Boxes and their (K, J, I) bool voxels.
    ijk_to_world
        Of the labelmap.
    settings
        Smoothing, decimation, normals.
    """
    whole = Box((0, 0, 0), (0, 0, 0))
    for box, _ in parts:
        whole = whole.around(box)
    if whole.is_empty:
        return vtk.vtkPolyData()
    padded = Box(tuple(n - 1 for n in whole.low), tuple(n + 1 for n in whole.high))
    array = np.zeros(padded.shape, np.uint8)
    for box, voxels in parts:
        array[box.within(padded)] = voxels
    image = vtk.vtkImageData()
    image.SetExtent(*padded.extent)
    image.GetPointData().SetScalars(numpy_to_vtk(array.reshape(-1), deep=0))
    edges = vtk.vtkDiscreteFlyingEdges3D()
    edges.SetInputData(image)
    edges.ComputeGradientsOff()
    edges.ComputeNormalsOff()
    edges.SetValue(0, 1)
    last = _smoothed(_decimated(edges, settings.decimation), settings.smoothing)
    placed, place = vtk.vtkTransformPolyDataFilter(), vtk.vtkTransform()
    place.SetMatrix(ijk_to_world)
    placed.SetTransform(place)
    placed.SetInputConnection(last.GetOutputPort())
    last = placed
    if settings.has_normals:
        last = vtk.vtkPolyDataNormals()
        last.SetInputConnection(placed.GetOutputPort())
        last.ConsistencyOn()
        last.SplittingOff()
    last.Update()
    surface = vtk.vtkPolyData()
    surface.ShallowCopy(last.GetOutput())
    return surface


def _decimated(source: vtk.vtkAlgorithm, fraction: float) -> vtk.vtkAlgorithm:
    if fraction <= 0:
        return source
    decimate = vtk.vtkDecimatePro()
    decimate.SetInputConnection(source.GetOutputPort())
    decimate.SetFeatureAngle(60)
    decimate.SplittingOff()
    decimate.PreserveTopologyOn()
    decimate.SetMaximumError(1)
    decimate.SetTargetReduction(fraction)
    return decimate


def _smoothed(source: vtk.vtkAlgorithm, factor: float) -> vtk.vtkAlgorithm:
    """A low pass (Taubin 1996): factor 0.25 lets a tenth of the frequencies through, 0.5 a hundredth."""
    if factor <= 0:
        return source
    smooth = vtk.vtkWindowedSincPolyDataFilter()
    smooth.SetInputConnection(source.GetOutputPort())
    smooth.SetNumberOfIterations(round(20 + 40 * factor))  # as slicer-core 5.11 does; older versions: always 20
    smooth.SetPassBand(10 ** (-4 * factor))
    smooth.BoundarySmoothingOff()
    smooth.FeatureEdgeSmoothingOff()
    smooth.NonManifoldSmoothingOn()
    smooth.NormalizeCoordinatesOn()
    return smooth


def _has_surface(segmentation: vtkSegmentation, segment_id: str) -> bool:
    segment = segmentation.GetSegment(segment_id)
    return segment is not None and segment.GetRepresentation(SURFACE) is not None

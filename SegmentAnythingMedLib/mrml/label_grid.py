"""Segments' labelmaps as arrays on one grid, and masks of one grid sampled on another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import slicer
from vtkmodules.util.numpy_support import vtk_to_numpy

from SegmentAnythingMedLib.errors import OutputError
from SegmentAnythingMedLib.mrml.frame import VolumeFrame

if TYPE_CHECKING:
    from slicer import vtkMRMLSegmentationNode, vtkMRMLVolumeNode, vtkOrientedImageData

LABELMAP = "Binary labelmap"
SURFACE = "Closed surface"


@dataclass(frozen=True)
class Box:
    """Voxels from ``low`` to before ``high``, both (K, J, I), in the index of a grid; negative indices are allowed."""

    low: tuple[int, int, int]
    high: tuple[int, int, int]

    @classmethod
    def of_extent(cls, extent: tuple[int, ...]) -> Box:
        """The box of a VTK extent (I0, I1, J0, J1, K0, K1)."""
        return cls((extent[4], extent[2], extent[0]), (extent[5] + 1, extent[3] + 1, extent[1] + 1))

    @property
    def extent(self) -> list[int]:
        """The VTK extent."""
        (k0, j0, i0), (k1, j1, i1) = self.low, self.high
        return [i0, i1 - 1, j0, j1 - 1, k0, k1 - 1]

    @property
    def shape(self) -> tuple[int, int, int]:
        return tuple(max(b - a, 0) for a, b in zip(self.low, self.high, strict=True))

    @property
    def is_empty(self) -> bool:
        return 0 in self.shape

    def cut(self, other: Box) -> Box:
        """What two boxes share."""
        low = tuple(max(a, b) for a, b in zip(self.low, other.low, strict=True))
        return Box(low, tuple(max(min(a, b), c) for a, b, c in zip(self.high, other.high, low, strict=True)))

    def around(self, other: Box) -> Box:
        """The smallest box round two."""
        if self.is_empty or other.is_empty:
            return other if self.is_empty else self
        low = tuple(map(min, zip(self.low, other.low, strict=True)))
        return Box(low, tuple(map(max, zip(self.high, other.high, strict=True))))

    def moved(self, offset: tuple[int, int, int]) -> Box:
        """The box shifted by (K, J, I)."""
        low = tuple(a + o for a, o in zip(self.low, offset, strict=True))
        return Box(low, tuple(b + o for b, o in zip(self.high, offset, strict=True)))

    def within(self, outer: Box) -> tuple[slice, slice, slice]:
        """Slices of an array on ``outer`` that select this box."""
        spans = zip(self.low, self.high, outer.low, strict=True)
        return tuple(slice(low - start, high - start) for low, high, start in spans)

    def slabs(self, thickness: int = 0) -> list[Box]:
        """The box cut along K; by default so that going through one takes a few milliseconds."""
        (k0, j0, i0), (k1, j1, i1) = self.low, self.high
        if self.is_empty:
            return []
        step = thickness or self.thin
        return [Box((k, j0, i0), (min(k + step, k1), j1, i1)) for k in range(k0, k1, step)]

    @property
    def thin(self) -> int:
        """Thickness along K of a slab of about a million voxels."""
        return max(1, (1 << 20) // max(self.shape[1] * self.shape[2], 1))

    def without(self, inner: Box) -> list[Box]:
        """Up to six boxes that hold what is not in another one."""
        rest, found, inner = self, [], inner.cut(self)
        if inner.is_empty:
            return [] if self.is_empty else [self]
        for axis in range(3):
            low, high = list(rest.low), list(rest.high)
            for start, end in ((low[axis], inner.low[axis]), (inner.high[axis], high[axis])):
                if start < end:
                    low[axis], high[axis] = start, end
                    found.append(Box(tuple(low), tuple(high)))
            low[axis], high[axis] = inner.low[axis], inner.high[axis]
            rest = Box(tuple(low), tuple(high))
        return found


def box_of(mask: np.ndarray, origin: tuple[int, int, int]) -> Box:
    """The smallest box round the True voxels of a (K, J, I) mask whose first voxel is ``origin``."""
    low, high, part = [], [], mask
    for axis in range(3):
        filled = np.flatnonzero(part.any(axis=tuple(a for a in range(3) if a != axis)))
        if not len(filled):
            return Box((0, 0, 0), (0, 0, 0))
        low.append(int(filled[0]))
        high.append(int(filled[-1]) + 1)
        part = part[(slice(None),) * axis + (slice(low[-1], high[-1]),)]
    return Box(tuple(low), tuple(high)).moved(origin)


def labelmap_of(node: vtkMRMLSegmentationNode, segment_id: str) -> vtkOrientedImageData | None:
    """The labelmap a segment lives in (maybe with others), or None if it has none or an empty one."""
    segment = node.GetSegmentation().GetSegment(segment_id)
    image = segment.GetRepresentation(LABELMAP) if segment is not None else None
    if image is None or image.GetPointData().GetScalars() is None or 0 in image.GetDimensions():
        return None
    return image


def labels_of(image: vtkOrientedImageData) -> np.ndarray:
    """(K, J, I) view of a labelmap's values; its first voxel is the first of its extent."""
    return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1])


def stamp_of(image: vtkOrientedImageData) -> tuple[int, int, Box]:
    """Differs when the voxels of a labelmap were changed by somebody who says so."""
    scalars = image.GetPointData().GetScalars()
    return image.GetMTime(), scalars.GetMTime(), Box.of_extent(image.GetExtent())


def read_box(node: vtkMRMLSegmentationNode, segment_id: str, grid: VolumeFrame, box: Box) -> np.ndarray:
    """(K, J, I) bool, a copy: a segment's voxels in a box of a grid that its labelmap shares."""
    image = labelmap_of(node, segment_id)
    if image is None:
        return np.zeros(box.shape, dtype=bool)
    offset = shift_between(VolumeFrame.of_labelmap(image, grid.transform), grid)
    if offset is None:
        raise OutputError("The segments of this segmentation lie on different grids: resample them to one first.")
    stored = Box.of_extent(image.GetExtent()).moved(offset)
    common = box.cut(stored)
    value = node.GetSegmentation().GetSegment(segment_id).GetLabelValue()
    if common == box:
        return labels_of(image)[box.within(stored)] == value
    result = np.zeros(box.shape, dtype=bool)
    if not common.is_empty:
        result[common.within(box)] = labels_of(image)[common.within(stored)] == value
    return result


def stored_box(node: vtkMRMLSegmentationNode, segment_id: str, grid: VolumeFrame) -> Box:
    """Where in the grid's index a segment's labelmap lies; an empty box if it has none."""
    image = labelmap_of(node, segment_id)
    offset = None if image is None else shift_between(VolumeFrame.of_labelmap(image, grid.transform), grid)
    return Box((0, 0, 0), (0, 0, 0)) if offset is None else Box.of_extent(image.GetExtent()).moved(offset)


def shift_between(source: VolumeFrame, target: VolumeFrame) -> tuple[int, int, int] | None:
    """(K, J, I) voxels from a source index to the target's where both have the same voxels; else None."""
    matrix = target.matrix_from(source)
    if matrix is None or np.abs(matrix[:3, :3] - np.eye(3)).max() > 1e-5:
        return None
    shift = np.rint(matrix[:3, 3])
    if np.abs(shift - matrix[:3, 3]).max() > 1e-3:
        return None
    return int(shift[2]), int(shift[1]), int(shift[0])


def grid_of(
    node: vtkMRMLSegmentationNode, segment_id: str, volume: vtkMRMLVolumeNode
) -> tuple[VolumeFrame, vtkOrientedImageData]:
    """The grid on which a segment must be written so that nothing is resampled, and an empty image on it.

    That of the segment's labelmap, else of the segmentation's reference geometry or its other labelmaps; a
    segmentation that has neither takes the volume's.
    """
    segmentation = node.GetSegmentation()
    if segmentation.GetNumberOfSegments() and segmentation.GetSourceRepresentationName() != LABELMAP:
        if any(segmentation.GetNthSegment(n).GetRepresentation(SURFACE) is not None for n in _range(segmentation)):
            raise OutputError(
                f"The segmentation {node.GetName()!r} consists of surfaces: make its binary labelmap the source "
                "representation in the Segmentations module, or choose another segmentation."
            )
        segmentation.SetSourceRepresentationName(LABELMAP)
    image = labelmap_of(node, segment_id)
    if image is None:
        text = slicer.vtkSlicerSegmentEditorLogic.GetReferenceImageGeometryStringFromSegmentation(segmentation)
        if not text:
            node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
            text = slicer.vtkSlicerSegmentEditorLogic.GetReferenceImageGeometryStringFromSegmentation(segmentation)
        image = slicer.vtkOrientedImageData()
        slicer.vtkSegmentationConverter.DeserializeImageGeometry(text, image, False)
    empty = slicer.vtkOrientedImageData()
    empty.SetOrigin(image.GetOrigin())
    empty.SetSpacing(image.GetSpacing())
    empty.CopyDirections(image)
    return VolumeFrame.of_labelmap(image, node.GetParentTransformNode()), empty


def sample_box(
    source: np.ndarray, source_frame: VolumeFrame, grid: VolumeFrame, box: Box, order: int = 0
) -> np.ndarray:
    """Values of a (K, J, I) array at the voxel centres of a box of another grid; 0 outside.

    Parameters
    ----------
    source
        On ``source_frame``.
    source_frame, grid
        Frames of the array and of the box.
    box
        What to sample.
    order
        0 nearest voxel, 1 linear (then float32).
    """
    whole = Box((0, 0, 0), source.shape)
    matrix = source_frame.matrix_from(grid)
    offset = shift_between(grid, source_frame)
    if offset is not None:
        result = np.zeros(box.shape, dtype=source.dtype)
        common = box.moved(offset).cut(whole)
        result[common.within(box.moved(offset))] = source[common.within(whole)]
        return result
    if order == 0 and matrix is not None and _is_diagonal(matrix):
        return _nearest_along_axes(source, matrix, box)
    from scipy import ndimage

    if matrix is None:
        k, j, i = np.meshgrid(*(np.arange(a, b) for a, b in zip(box.low, box.high, strict=True)), indexing="ij")
        points = source_frame.ijk_from(grid, np.stack([i, j, k], axis=-1))
        coordinates = np.moveaxis(points[..., ::-1], -1, 0)
        array = source if order == 0 else source.astype(np.float32)
        return ndimage.map_coordinates(array, coordinates, order=order, mode="grid-constant", cval=0)
    linear, start = matrix[:3, :3][::-1, ::-1], matrix[:3, 3][::-1]
    start = linear @ np.asarray(box.low) + start
    ends = linear @ (np.array(list(np.ndindex(2, 2, 2))) * (np.asarray(box.shape) - 1)).T + start[:, np.newaxis]
    touched = Box(
        tuple(int(x) for x in np.floor(ends.min(axis=1)) - 1), tuple(int(x) for x in np.ceil(ends.max(axis=1)) + 2)
    ).cut(whole)
    if touched.is_empty:
        return np.zeros(box.shape, dtype=source.dtype if order == 0 else np.float32)
    block = source[touched.within(whole)]
    block = block if order == 0 else block.astype(np.float32)
    return ndimage.affine_transform(
        block,
        linear,
        start - np.asarray(touched.low),
        output_shape=box.shape,
        order=order,
        mode="grid-constant",
        cval=0,
    )


def _is_diagonal(matrix: np.ndarray) -> bool:
    linear = matrix[:3, :3]
    return bool(np.abs(linear - np.diag(np.diag(linear))).max() < 1e-6)


def _nearest_along_axes(source: np.ndarray, matrix: np.ndarray, box: Box) -> np.ndarray:
    """Nearest voxels where the grids' axes are parallel: much faster than `scipy.ndimage`, and without importing it."""
    result = np.zeros(box.shape, dtype=source.dtype)
    found, targets = [], []
    for array_axis, axis in enumerate((2, 1, 0)):
        places = np.arange(box.low[array_axis], box.high[array_axis]) * matrix[axis, axis] + matrix[axis, 3]
        nearest = np.floor(places + 0.5).astype(int)
        inside = (nearest >= 0) & (nearest < source.shape[array_axis])
        found.append(nearest[inside])
        targets.append(np.flatnonzero(inside))
    result[np.ix_(*targets)] = source[np.ix_(*found)]
    return result


def mapped_box(box: Box, source_frame: VolumeFrame, grid: VolumeFrame) -> Box:
    """The box of ``grid`` that holds everything of a source box, with a voxel to spare."""
    low, high = np.asarray(box.low) - 0.5, np.asarray(box.high) - 0.5
    steps = [np.linspace(a, b, 5) for a, b in zip(low, high, strict=True)]
    k, j, i = np.meshgrid(*steps, indexing="ij")
    points = grid.ijk_from(source_frame, np.stack([i, j, k], axis=-1).reshape(-1, 3))[:, ::-1]
    spare = 1 if grid.matrix_from(source_frame) is not None else 4
    first, last = np.floor(points.min(axis=0)) - spare, np.ceil(points.max(axis=0)) + spare + 1
    return Box(tuple(int(x) for x in first), tuple(int(x) for x in last))


def _range(segmentation: object) -> range:
    return range(segmentation.GetNumberOfSegments())

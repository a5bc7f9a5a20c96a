"""The preview: what the model proposes, slice by slice, in a segmentation node of ours that is edited in place."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

import numpy as np
import slicer
from vtkmodules.util.numpy_support import numpy_to_vtk

from SegmentAnythingMedLib.errors import OutputError
from SegmentAnythingMedLib.geometry import Plane, SliceGeometry
from SegmentAnythingMedLib.mrml.frame import VolumeFrame, matrix_of
from SegmentAnythingMedLib.mrml.label_grid import LABELMAP, Box
from SegmentAnythingMedLib.mrml.nodes import remove_displayed
from SegmentAnythingMedLib.mrml.oblique_slices import ObliqueSlices

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode, vtkMRMLScene, vtkMRMLSegmentationNode

PREVIEW_ATTRIBUTE = "SegmentAnythingMed.preview"


class PreviewObject:
    """One object's proposal on the volume's grid, and which slices of it were written.

    Parameters
    ----------
    frame
        Frame of the volume.

    Attributes
    ----------
    mask
        (K, J, I) uint8, 1 where the object is; the voxels of the preview's segment themselves.
    object_box
        Covers all voxels that were ever 1.
    slices_written
        How often a slice was put.
    """

    def __init__(self, frame: VolumeFrame) -> None:
        self.frame = frame
        self.mask = _zeros(frame.local.shape_kji)
        self._rows = [np.zeros(size, dtype=bool) for size in frame.local.size_ijk]
        self._oblique: dict[Plane, tuple[ObliqueSlices, np.ndarray]] = {}
        self.object_box = Box((0, 0, 0), (0, 0, 0))
        self.slices_written = 0

    def write(self, slices: SliceGeometry, index: int, mask: np.ndarray) -> None:
        """Put a slice."""
        self.slices_written += 1
        if slices.plane.axis is None:
            if slices.plane not in self._oblique:
                self._oblique[slices.plane] = ObliqueSlices(slices), np.zeros(slices.count, dtype=bool)
            oblique, written = self._oblique[slices.plane]
            written[index] = True
            self.object_box = self.object_box.around(oblique.paste(mask, index, self.mask, self.object_box))
            return
        slices.paste(mask, index, self.mask)
        self._rows[slices.plane.axis][index] = True
        self._include(slices, index, mask)

    @property
    def is_empty(self) -> bool:
        """Whether no slice was written yet."""
        return not self._oblique and not any(rows.any() for rows in self._rows)

    def _include(self, slices: SliceGeometry, index: int, mask: np.ndarray) -> None:
        """Let `object_box` cover a slice's pixels; it never shrinks."""
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if len(rows):
            ends = slices.ijk_from_pixels(index, np.array([[rows[0], columns[0]], [rows[-1], columns[-1]]]))
            low, high = ends.min(axis=0).astype(int), ends.max(axis=0).astype(int) + 1
            self.object_box = self.object_box.around(Box(tuple(low[::-1].tolist()), tuple(high[::-1].tolist())))

    def written_box(self) -> Box:
        """The smallest box round all written slices."""
        whole = Box((0, 0, 0), self.mask.shape)
        box = Box((0, 0, 0), (0, 0, 0))
        for axis, rows in enumerate(self._rows):
            filled = np.flatnonzero(rows)
            if len(filled):
                low, high = list(whole.low), list(whole.high)
                low[2 - axis], high[2 - axis] = int(filled[0]), int(filled[-1]) + 1
                box = box.around(Box(tuple(low), tuple(high)))
        for oblique, written in self._oblique.values():
            filled = np.flatnonzero(written)
            box = box.around(oblique.box_of_slices(int(filled[0]), int(filled[-1])))
        return box

    def coded(self, box: Box) -> np.ndarray:
        """(K, J, I) uint8 of a box: 0 not written, 2 written and empty, 3 written and the object's."""
        part = box.within(Box((0, 0, 0), self.mask.shape))
        k, j, i = (rows[span] for rows, span in zip(reversed(self._rows), part, strict=True))
        written = k[:, np.newaxis, np.newaxis] | j[:, np.newaxis] | i
        for oblique, slices in self._oblique.values():
            written = written | slices[np.clip(oblique.indices(box), 0, len(slices) - 1)]
        return np.where(written, self.mask[part] | 2, 0).astype(np.uint8)


class PreviewSegments:
    """Proposals of all objects of a job, shown as contours over the volume.

    Parameters
    ----------
    scene
        Gets one hidden segmentation node that is not saved.
    volume
        Whose grid and parent transform the proposals have.
    budget_bytes
        Most memory for proposals, 1 byte per voxel and object. The pages of slices that are never written cost
        nothing on Linux and macOS.
    """

    def __init__(self, scene: vtkMRMLScene, volume: vtkMRMLScalarVolumeNode, budget_bytes: int = 4 << 30) -> None:
        self._scene = scene
        self._volume = volume
        self._budget = budget_bytes
        self._objects: dict[int, PreviewObject] = {}
        self.node: vtkMRMLSegmentationNode | None = None

    def add_object(self, object_id: int, name: str, color: tuple[float, float, float]) -> PreviewObject:
        """Start an object's proposal, or start it anew.

        Raises
        ------
        OutputError
            If the proposals would take more memory than the budget.
        """
        frame = VolumeFrame.of(self._volume)
        size = int(np.prod(frame.local.shape_kji))
        others = sum(item.mask.nbytes for key, item in self._objects.items() if key != object_id)
        if others + size > self._budget:
            raise OutputError(
                f"The preview of {name!r} needs {size >> 20} MB more than the {self._budget >> 20} MB set aside: "
                "accept or discard a segment first."
            )
        self.discard(object_id)
        item = PreviewObject(frame)
        self._node().GetSegmentation().AddSegment(_segment(item, name, color), str(object_id))
        display = self.node.GetDisplayNode()
        display.SetSegmentVisibility3D(str(object_id), False)
        self._objects[object_id] = item
        return item

    def __getitem__(self, object_id: int) -> PreviewObject:
        return self._objects[object_id]

    def __contains__(self, object_id: int) -> bool:
        return object_id in self._objects

    @property
    def object_ids(self) -> tuple[int, ...]:
        return tuple(self._objects)

    def show(self, object_id: int, slices: SliceGeometry, index: int, mask: np.ndarray) -> None:
        """Put a slice of an object and have the views show it.

        Parameters
        ----------
        object_id
            An object that was added.
        slices, index
            The slice of the volume.
        mask
            (rows, columns) bool.
        """
        self._objects[object_id].write(slices, index, mask)
        segment = self.node.GetSegmentation().GetSegment(str(object_id))
        segment.GetRepresentation(LABELMAP).Modified()
        segment.Modified()

    def discard(self, object_id: int) -> None:
        """Forget an object's proposal."""
        if self._objects.pop(object_id, None) is not None and self._is_there():
            self.node.GetSegmentation().RemoveSegment(str(object_id))

    def close(self) -> None:
        """Forget all and remove the node."""
        self._objects.clear()
        if self._is_there():
            remove_displayed(self._scene, self.node)
        self.node = None

    def _is_there(self) -> bool:
        return self.node is not None and bool(self._scene.IsNodePresent(self.node))

    def _node(self) -> vtkMRMLSegmentationNode:
        if self._is_there():
            return self.node
        node = self._scene.CreateNodeByClass("vtkMRMLSegmentationNode")
        node.UnRegister(None)
        node.SetName(f"{self._volume.GetName()} preview")
        node.SetHideFromEditors(True)
        node.SetSaveWithScene(False)
        node.SetAttribute(PREVIEW_ATTRIBUTE, "1")
        self._scene.AddNode(node)
        node.SetAndObserveTransformNodeID(self._volume.GetTransformNodeID())
        node.SetReferenceImageGeometryParameterFromVolumeNode(self._volume)
        node.CreateDefaultDisplayNodes()
        display = node.GetDisplayNode()
        display.SetSaveWithScene(False)
        display.SetVisibility2DFill(False)
        display.SetVisibility3D(False)
        display.SetSliceIntersectionThickness(2)
        self.node = node
        return node


def _zeros(shape: tuple[int, int, int]) -> np.ndarray:
    """uint8; in small pages: with NumPy's 2 MB ones the first coronal slice of 512x512x300 zeroed all 79 MB (0.3 s)."""
    pages = mmap.mmap(-1, int(np.prod(shape)))
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        pages.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(pages, dtype=np.uint8).reshape(shape)


def _segment(item: PreviewObject, name: str, color: tuple[float, float, float]) -> slicer.vtkSegment:
    """A segment whose labelmap's voxels are the object's own array: full extent, shared with no other segment."""
    image = slicer.vtkOrientedImageData()
    image.SetDimensions(*item.frame.local.size_ijk)
    image.SetImageToWorldMatrix(matrix_of(item.frame.local.ijk_to_world))
    scalars = numpy_to_vtk(item.mask.reshape(-1), deep=0)
    scalars.SetName("ImageScalars")
    image.GetPointData().SetScalars(scalars)
    segment = slicer.vtkSegment()
    segment.SetName(name)
    segment.SetColor(*color)
    segment.SetLabelValue(1)
    segment.AddRepresentation(LABELMAP, image)
    return segment

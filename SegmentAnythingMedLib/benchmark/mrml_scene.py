"""A made-up organ of 512x512x300 voxels in a real MRML scene, and segmentations it is written into."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import slicer
import vtk
from vtkmodules.util.numpy_support import numpy_to_vtk

from SegmentAnythingMedLib.mrml.frame import VolumeFrame, matrix_of
from SegmentAnythingMedLib.mrml.label_grid import LABELMAP
from SegmentAnythingMedLib.mrml.new_segment import make_segment, make_segmentation

SHAPE_KJI = (300, 512, 512)
LOGICS = {
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
    "Markups": "vtkSlicerMarkupsLogic",
    "Sequences": "vtkSlicerSequencesLogic",
}
"""They register node classes; desktop Slicer has them all."""

_RADIUS = 0.42
"""Of the organ, where the volume goes from -1 to 1 along each axis."""


class MadeUpScene:
    """A scene with the logics and one CT-like volume, not tilted.

    Parameters
    ----------
    shape_kji
        Of the volume.
    """

    def __init__(self, shape_kji: tuple[int, int, int] = SHAPE_KJI) -> None:
        self.scene = slicer.vtkMRMLScene()
        self._app = slicer.vtkSlicerApplicationLogic()
        self._app.SetMRMLScene(self.scene)
        self._logics = {}
        for name, class_name in LOGICS.items():
            logic = getattr(slicer, class_name)()
            logic.SetMRMLApplicationLogic(self._app)
            logic.SetMRMLScene(self.scene)
            self._app.SetModuleLogic(name, logic)
            self._logics[name] = logic
        self.shape_kji = shape_kji
        self.volume = self.add_volume("CT", 0)

    def add_volume(self, name: str, seed: int) -> slicer.vtkMRMLScalarVolumeNode:
        """A bright ellipsoid in noise, int16, voxels of 0.8 x 0.8 x 1.5 mm."""
        image = vtk.vtkImageData()
        image.SetDimensions(*self.shape_kji[::-1])
        image.GetPointData().SetScalars(numpy_to_vtk(_voxels(self.shape_kji, seed).ravel(), deep=1))
        node = self.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
        node.SetAndObserveImageData(image)
        node.SetIJKToRASMatrix(matrix_of(np.diag([-0.8, -0.8, 1.5, 1.0])))
        return node

    def own_layer(self) -> tuple[slicer.vtkMRMLSegmentationNode, str]:
        """A new segmentation with an empty segment, and its id."""
        node = make_segmentation(self.scene, self.volume, "own layer")
        return node, make_segment(node, "Organ")

    def half_grid(self) -> tuple[slicer.vtkMRMLSegmentationNode, str]:
        """One whose voxels are twice as large along each axis."""
        node = make_segmentation(self.scene, self.volume, "half grid")
        image = slicer.vtkOrientedImageData()
        image.SetDimensions(*(size // 2 for size in self.shape_kji[::-1]))
        matrix = VolumeFrame.of(self.volume).local.ijk_to_world @ np.diag([2.0, 2, 2, 1])
        image.SetImageToWorldMatrix(matrix_of(matrix))
        node.GetSegmentation().SetConversionParameter(
            slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName(),
            slicer.vtkSegmentationConverter.SerializeImageGeometry(image),
        )
        return node, make_segment(node, "Organ")

    def with_surface(self) -> tuple[slicer.vtkMRMLSegmentationNode, str]:
        """One whose segment has voxels already and is shown in 3D, as a closed surface."""
        node, segment_id = self.own_layer()
        labels = np.zeros(self.shape_kji, np.uint8)
        middle = self.shape_kji[0] // 2
        labels[middle - 50 : middle + 50] = _inside(self.shape_kji, 0.9)[middle - 50 : middle + 50]
        segment = node.GetSegmentation().GetSegment(segment_id)
        segment.AddRepresentation(LABELMAP, self._image(labels))
        node.CreateClosedSurfaceRepresentation()
        return node, segment_id

    def collapsed(self, folder: Path) -> tuple[slicer.vtkMRMLSegmentationNode, str]:
        """Five segments in one layer over the whole volume, saved as .seg.nrrd and loaded again.

        The organ crosses all of them, so that accepting it has to move its segment to a layer of its own.
        """
        node = make_segmentation(self.scene, self.volume, "collapsed")
        width = self.shape_kji[2] // 5
        labels = np.zeros(self.shape_kji, np.uint8)
        for number in range(5):
            labels[:, :, width * number : width * (number + 1) - 10] = number + 1
        image = self._image(labels)
        for number in range(5):
            segment = slicer.vtkSegment()
            segment.SetName(f"segment {number}")
            segment.SetLabelValue(number + 1)
            segment.AddRepresentation(LABELMAP, image)
            node.GetSegmentation().AddSegment(segment, f"segment_{number}")
        path = folder / "five.seg.nrrd"
        node.AddDefaultStorageNode()
        node.GetStorageNode().SetFileName(str(path))
        node.GetStorageNode().WriteData(node)
        self.scene.RemoveNode(node)
        loaded = self._logics["Segmentations"].LoadSegmentationFromFile(str(path), True, "collapsed")
        return loaded, loaded.GetSegmentation().GetNthSegmentID(1)

    def _image(self, labels: np.ndarray) -> slicer.vtkOrientedImageData:
        image = slicer.vtkOrientedImageData()
        image.SetDimensions(*labels.shape[::-1])
        image.SetImageToWorldMatrix(matrix_of(VolumeFrame.of(self.volume).local.ijk_to_world))
        image.GetPointData().SetScalars(numpy_to_vtk(labels.ravel(), deep=1))
        return image


def _inside(shape_kji: tuple[int, int, int], size: float = 1.0) -> np.ndarray:
    """(K, J, I) bool: the organ, or one that is smaller."""
    k, j, i = (np.linspace(-1, 1, n, dtype=np.float32) ** 2 for n in shape_kji)
    return k[:, np.newaxis, np.newaxis] + j[:, np.newaxis] + i < (size * _RADIUS) ** 2


def _voxels(shape_kji: tuple[int, int, int], seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 15, shape_kji[1:])
    voxels = np.where(_inside(shape_kji), np.int16(120), np.int16(20))
    for index in range(len(voxels)):
        voxels[index] += np.roll(noise, index * 37).astype(np.int16)
    return voxels

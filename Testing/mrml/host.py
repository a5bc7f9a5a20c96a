"""A real MRML scene without the Slicer application: what desktop Slicer sets up in C++ and Qt, in 60 lines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import slicer
import vtk
from vtkmodules.util.numpy_support import numpy_to_vtk

from SegmentAnythingMedLib.mrml.frame import matrix_of

LOGICS = {
    "Units": "vtkSlicerUnitsLogic",
    "Terminologies": "vtkSlicerTerminologiesModuleLogic",
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
    "Markups": "vtkSlicerMarkupsLogic",
    "Sequences": "vtkSlicerSequencesLogic",
}


class MrmlHost:
    """A scene with the logics that give it its node classes.

    Parameters
    ----------
    folder
        For temporary files and the cache of loaded bundles.
    """

    def __init__(self, folder: Path) -> None:
        self.scene = slicer.vtkMRMLScene()
        self.app_logic = slicer.vtkSlicerApplicationLogic()
        self.app_logic.SetMRMLScene(self.scene)
        self.app_logic.SetTemporaryPath(str(folder))
        self.app_logic.SetSliceLogics(vtk.vtkCollection())
        self.app_logic.SetViewLogics(vtk.vtkCollection())
        crosshair = slicer.vtkMRMLCrosshairNode()
        crosshair.SetCrosshairName("default")
        self.scene.AddNode(crosshair)
        self.logics = {}
        for name, class_name in LOGICS.items():
            logic = getattr(slicer, class_name)()
            if name == "Terminologies":
                logic.SetModuleShareDirectory(str(folder))
            logic.SetMRMLApplicationLogic(self.app_logic)
            logic.SetMRMLScene(self.scene)
            self.app_logic.SetModuleLogic(name, logic)
            self.logics[name] = logic
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(self.scene, True)
        self._remote = slicer.vtkMRMLRemoteIOLogic()
        self._remote.SetMRMLApplicationLogic(self.app_logic)
        self._remote.SetMRMLScene(self.scene)
        self._remote.GetCacheManager().SetRemoteCacheDirectory(str(folder / "cache"))
        self._data = slicer.vtkDataIOManagerLogic()
        self._data.SetMRMLApplicationLogic(self.app_logic)
        self._data.SetMRMLScene(self.scene)
        self._data.SetAndObserveDataIOManager(self._remote.GetDataIOManager())
        self._remote.AddDataIOToScene()

    def save(self, path: Path) -> None:
        """Save the scene as .mrb."""
        self.scene.SetRootDirectory(str(path.parent))
        self.scene.SetURL(str(path))
        assert self.scene.WriteToMRB(str(path))

    def load(self, path: Path) -> None:
        """Replace the scene by a .mrb."""
        assert self.scene.ReadFromMRB(str(path), True)

    def add_volume(
        self,
        voxels: np.ndarray,
        ijk_to_ras: np.ndarray | None = None,
        name: str = "volume",
        transform: vtk.vtkObject | None = None,
    ) -> slicer.vtkMRMLScalarVolumeNode:
        """A volume node from a (K, J, I) or (K, J, I, C) array."""
        components = voxels.shape[3] if voxels.ndim == 4 else 1
        kind = "vtkMRMLVectorVolumeNode" if components > 1 else "vtkMRMLScalarVolumeNode"
        image = vtk.vtkImageData()
        image.SetDimensions(*voxels.shape[2::-1])
        image.GetPointData().SetScalars(numpy_to_vtk(voxels.reshape(-1, components), deep=1))
        node = self.scene.AddNewNodeByClass(kind, name)
        node.SetAndObserveImageData(image)
        node.SetIJKToRASMatrix(matrix_of(np.eye(4) if ijk_to_ras is None else ijk_to_ras))
        node.CreateDefaultDisplayNodes()
        if transform is not None:
            node.SetAndObserveTransformNodeID(transform.GetID())
        return node

    def add_linear_transform(self, matrix: np.ndarray) -> slicer.vtkMRMLLinearTransformNode:
        """A linear transform node, to the parent."""
        node = self.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "pose")
        node.SetMatrixTransformToParent(matrix_of(matrix))
        return node

    def add_warp(self, amplitude_mm: float) -> slicer.vtkMRMLTransformNode:
        """A thin-plate transform node that bends the middle of a 60 mm cube by about ``amplitude_mm``."""
        corners = np.array(list(np.ndindex(2, 2, 2)), dtype=float) * 120 - 60
        source, target = vtk.vtkPoints(), vtk.vtkPoints()
        for corner in corners:
            source.InsertNextPoint(*corner)
            target.InsertNextPoint(*corner)
        source.InsertNextPoint(0.0, 0.0, 0.0)
        target.InsertNextPoint(amplitude_mm, -amplitude_mm, amplitude_mm / 2)
        warp = vtk.vtkThinPlateSplineTransform()
        warp.SetBasisToR()
        warp.SetSourceLandmarks(source)
        warp.SetTargetLandmarks(target)
        node = self.scene.AddNewNodeByClass("vtkMRMLTransformNode", "warp")
        node.SetAndObserveTransformToParent(warp)
        return node

    def add_segmentation(self, volume: vtk.vtkObject | None, name: str = "user") -> slicer.vtkMRMLSegmentationNode:
        """A segmentation node; without a volume it has no reference geometry."""
        node = self.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
        node.CreateDefaultDisplayNodes()
        if volume is not None:
            node.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
            node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
        return node

    def add_slice_view(self, name: str, slice_to_ras: np.ndarray) -> slicer.vtkMRMLSliceNode:
        """A slice node with a given plane, as a view without a window has."""
        node = self.scene.CreateNodeByClass("vtkMRMLSliceNode")
        node.UnRegister(None)
        node.SetName(name)
        node.SetLayoutName(name)
        node.SetSingletonTag(name)
        node = self.scene.AddNode(node)
        node.GetSliceToRAS().DeepCopy(matrix_of(slice_to_ras))
        node.UpdateMatrices()
        node.SetMappedInLayout(1)
        return node


def set_labels(
    node: slicer.vtkMRMLSegmentationNode,
    segment_id: str,
    mask: np.ndarray,
    ijk_to_world: np.ndarray,
) -> None:
    """Give a segment a labelmap of its own: a (K, J, I) mask on any grid."""
    image = slicer.vtkOrientedImageData()
    image.SetDimensions(*mask.shape[::-1])
    image.SetImageToWorldMatrix(matrix_of(ijk_to_world))
    image.GetPointData().SetScalars(numpy_to_vtk(mask.astype(np.uint8).ravel(), deep=1))
    segment = node.GetSegmentation().GetSegment(segment_id)
    segment.RemoveRepresentation("Binary labelmap")
    segment.SetLabelValue(1)
    segment.AddRepresentation("Binary labelmap", image)

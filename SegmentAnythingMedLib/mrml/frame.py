"""The way between a volume's voxels and the world (RAS), through its parent transforms, non-linear ones too."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import slicer
import vtk
from vtkmodules.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from SegmentAnythingMedLib.errors import VolumeError
from SegmentAnythingMedLib.geometry import VolumeGeometry

if TYPE_CHECKING:
    from slicer import vtkMRMLTransformNode, vtkMRMLVolumeNode, vtkOrientedImageData


@dataclass(frozen=True, eq=False)
class VolumeFrame:
    """A grid of voxels under a parent transform, as it is now.

    Parameters
    ----------
    local
        The grid in the node's own coordinates, without its parent transform.
    transform
        The parent transform node, or None.
    """

    local: VolumeGeometry
    transform: vtkMRMLTransformNode | None = None

    @classmethod
    def of(cls, node: vtkMRMLVolumeNode) -> VolumeFrame:
        """The frame of a volume node.

        Raises
        ------
        VolumeError
            If the node has no voxels.
        """
        image = node.GetImageData()
        if image is None or not all(n > 0 for n in image.GetDimensions()):
            raise VolumeError(f"The volume {node.GetName()!r} has no voxels: load it again or choose another.")
        matrix = vtk.vtkMatrix4x4()
        node.GetIJKToRASMatrix(matrix)
        return cls(VolumeGeometry(array_of(matrix), image.GetDimensions()), node.GetParentTransformNode())

    @classmethod
    def of_labelmap(cls, image: vtkOrientedImageData, transform: vtkMRMLTransformNode | None) -> VolumeFrame:
        """The frame of an oriented image; its IJK count from the image's origin, not from its extent's corner."""
        matrix = vtk.vtkMatrix4x4()
        image.GetImageToWorldMatrix(matrix)
        return cls(VolumeGeometry(array_of(matrix), tuple(max(n, 1) for n in image.GetDimensions())), transform)

    @cached_property
    def is_linear(self) -> bool:
        """Whether the parent transform, if there is one, is a matrix."""
        return self.transform is None or bool(self.transform.IsTransformToWorldLinear())

    @cached_property
    def geometry(self) -> VolumeGeometry:
        """The grid in the world; under a non-linear transform the grid in the node's own coordinates."""
        if self.transform is None or not self.is_linear:
            return self.local
        matrix = vtk.vtkMatrix4x4()
        self.transform.GetMatrixTransformToWorld(matrix)
        return VolumeGeometry(array_of(matrix) @ self.local.ijk_to_world, self.local.size_ijk)

    def ras_from_ijk(self, points_ijk: np.ndarray) -> np.ndarray:
        """(..., 3) continuous IJK to (..., 3) world RAS."""
        if self.is_linear:
            return self.geometry.world_from_ijk(points_ijk)
        return _through(self.local.world_from_ijk(points_ijk), self.transform, None)

    def ijk_from_ras(self, points_ras: np.ndarray) -> np.ndarray:
        """(..., 3) world RAS to (..., 3) continuous IJK."""
        if self.is_linear:
            return self.geometry.ijk_from_world(points_ras)
        return self.local.ijk_from_world(_through(points_ras, None, self.transform))

    def ijk_from(self, other: VolumeFrame, points_ijk: np.ndarray) -> np.ndarray:
        """(..., 3) IJK of another frame to IJK of this one; a matrix where both hang under the same transform."""
        matrix = self.matrix_from(other)
        if matrix is None:
            return self.ijk_from_ras(other.ras_from_ijk(points_ijk))
        return np.asarray(points_ijk, dtype=np.float64) @ matrix[:3, :3].T + matrix[:3, 3]

    def shifted(self, low_kji: tuple[int, int, int]) -> VolumeFrame:
        """The frame of the part of an array that begins at a voxel (K, J, I)."""
        matrix = self.local.ijk_to_world.copy()
        matrix[:3, 3] = self.local.world_from_ijk(np.array(low_kji[::-1], dtype=np.float64))
        return VolumeFrame(VolumeGeometry(matrix, self.local.size_ijk), self.transform)

    def matrix_from(self, other: VolumeFrame) -> np.ndarray | None:
        """(4, 4) from another frame's IJK to this one's, or None if the way is not linear."""
        if self.transform is other.transform:
            return self.local.world_to_ijk @ other.local.ijk_to_world
        if self.is_linear and other.is_linear:
            return self.geometry.world_to_ijk @ other.geometry.ijk_to_world
        return None


def array_of(matrix: vtk.vtkMatrix4x4) -> np.ndarray:
    """A vtkMatrix4x4 as (4, 4) float64."""
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def matrix_of(array: np.ndarray) -> vtk.vtkMatrix4x4:
    """A (4, 4) array as a vtkMatrix4x4."""
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy([float(x) for x in np.asarray(array).ravel()])
    return matrix


def _through(
    points: np.ndarray, source: vtkMRMLTransformNode | None, target: vtkMRMLTransformNode | None
) -> np.ndarray:
    """Points in the coordinates under one transform node (None = world) to those under another."""
    transform = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(source, target, transform)
    flat = np.ascontiguousarray(np.asarray(points, dtype=np.float64).reshape(-1, 3))
    before, after = vtk.vtkPoints(), vtk.vtkPoints()
    before.SetData(numpy_to_vtk(flat, deep=1))
    after.SetDataTypeToDouble()
    transform.TransformPoints(before, after)
    return vtk_to_numpy(after.GetData()).reshape(np.shape(points)).copy()

"""Volume nodes as the library's `Volume`: voxels, modality, window, fused channels; and which volume is looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from vtkmodules.util.numpy_support import vtk_to_numpy

from SegmentAnythingMedLib.errors import VolumeError
from SegmentAnythingMedLib.fusion import MAX_CHANNELS
from SegmentAnythingMedLib.mrml.frame import VolumeFrame
from SegmentAnythingMedLib.mrml.fused_voxels import FusedVoxels, resampling
from SegmentAnythingMedLib.mrml.nodes import nodes_of
from SegmentAnythingMedLib.volume import Modality, Volume
from SegmentAnythingMedLib.windowing import Window

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode, vtkMRMLScene, vtkMRMLVolumeNode

_DICOM_MODALITIES = {
    "CT": Modality.CT,
    "MR": Modality.MR,
    "PT": Modality.PET,
    "PET": Modality.PET,
    "US": Modality.ULTRASOUND,
    "CR": Modality.XRAY,
    "DX": Modality.XRAY,
    "MG": Modality.XRAY,
    "XA": Modality.XRAY,
    "RF": Modality.XRAY,
}
_UNIT_MODALITIES = {"[hnsf'U]": Modality.CT, "HU": Modality.CT, "{SUVbw}g/ml": Modality.PET, "Bq/ml": Modality.PET}


@dataclass(frozen=True)
class VolumeStamp:
    """What changes when a volume node's voxels or place change; costs microseconds, so it can be asked at any time."""

    node_id: str
    voxels_modified: int
    size_ijk: tuple[int, ...]
    ijk_to_ras: tuple[float, ...]
    transform_id: str
    transform_modified: int


def has_voxels(node: vtkMRMLVolumeNode) -> bool:
    """Whether a volume node has an image with voxels now."""
    image = node.GetImageData()
    return image is not None and all(image.GetDimensions()) and image.GetPointData().GetScalars() is not None


def volume_from_node(node: vtkMRMLScalarVolumeNode) -> Volume:
    """The node's voxels, read-only and without a copy, on its grid in the world (RAS).

    Scalar, RGB and 2D images alike; of a sequence proxy the current time point. Under a non-linear transform the grid
    is in the node's own coordinates, and points go through `VolumeFrame`.

    Raises
    ------
    VolumeError
        If the node has no voxels, or more than 4 values per voxel.
    """
    frame = VolumeFrame.of(node)
    voxels = voxels_of(node)
    return Volume(voxels[np.newaxis], frame.geometry, modality_of(node), node.GetName() or "volume")


def voxels_of(node: vtkMRMLVolumeNode) -> np.ndarray:
    """(C, K, J, I) read-only view of a volume node's voxels."""
    image = node.GetImageData()
    scalars = image.GetPointData().GetScalars() if image is not None else None
    if scalars is None:
        raise VolumeError(f"The volume {node.GetName()!r} has no voxels: load it again or choose another.")
    array = vtk_to_numpy(scalars).reshape(*reversed(image.GetDimensions()), scalars.GetNumberOfComponents())
    array.flags.writeable = False
    return np.moveaxis(array, -1, 0)


def fused_volume(nodes: Sequence[vtkMRMLScalarVolumeNode]) -> Volume:
    """Up to three co-located volumes as channels of one, resampled (linear) onto the grid of the first.

    Outside a volume its smallest value stands. The first node decides modality, name and place. The voxels are made
    when they are asked for.

    Raises
    ------
    VolumeError
        If there is no node or more than three, or one has more than one value per voxel.
    """
    if not 1 <= len(nodes) <= MAX_CHANNELS:
        raise VolumeError(f"One to {MAX_CHANNELS} volumes can be used together, got {len(nodes)}.")
    if len(nodes) == 1:
        return volume_from_node(nodes[0])
    arrays = [voxels_of(node) for node in nodes]
    wrong = next((node for node, array in zip(nodes, arrays, strict=True) if len(array) != 1), None)
    if wrong is not None:
        raise VolumeError(f"The volume {wrong.GetName()!r} has several values per voxel and cannot be a channel.")
    base = VolumeFrame.of(nodes[0])
    channels = [lambda: arrays[0][0].astype(np.float32, copy=False)]
    channels += [
        resampling(base, VolumeFrame.of(node), array[0]) for node, array in zip(nodes[1:], arrays[1:], strict=True)
    ]
    name = " + ".join(node.GetName() or "volume" for node in nodes)
    return Volume(FusedVoxels(channels, base.local.shape_kji), base.geometry, modality_of(nodes[0]), name)


def modality_of(node: vtkMRMLVolumeNode) -> Modality:
    """What made the image, from DICOM attributes of node, subject or voxel units; unknown if nothing says so."""
    image = node.GetImageData()
    if image is not None and image.GetNumberOfScalarComponents() >= 3:
        return Modality.COLOR
    named = node.GetAttribute("DICOM.Modality") or _subject_attribute(node, "DICOM.Modality") or ""
    if named.upper() in _DICOM_MODALITIES:
        return _DICOM_MODALITIES[named.upper()]
    units = node.GetVoxelValueUnits() if node.IsA("vtkMRMLScalarVolumeNode") else None
    return _UNIT_MODALITIES.get(units.GetCodeValue() or "", Modality.UNKNOWN) if units else Modality.UNKNOWN


def display_window(*nodes: vtkMRMLVolumeNode) -> Window | None:
    """The window and level the user looks at, a channel for each node; None if one is in colour or not displayed."""
    limits = []
    for node in nodes:
        display = node.GetDisplayNode()
        if display is None or not display.IsA("vtkMRMLScalarVolumeDisplayNode") or not display.GetWindow() > 0:
            return None
        limits.append(Window.from_level(display.GetWindow(), display.GetLevel()))
    return Window(tuple(one.low[0] for one in limits), tuple(one.high[0] for one in limits), "display")


def default_volume(scene: vtkMRMLScene) -> vtkMRMLScalarVolumeNode | None:
    """The background of the slice views (the most frequent one, the Red view's in doubt), else the first volume."""
    composites = nodes_of(scene, "vtkMRMLSliceCompositeNode")
    composites.sort(key=lambda composite: composite.GetLayoutName() != "Red")
    shown = [composite.GetBackgroundVolumeID() for composite in composites if composite.GetBackgroundVolumeID()]
    for node_id in sorted(dict.fromkeys(shown), key=lambda node_id: -shown.count(node_id)):
        node = scene.GetNodeByID(node_id)
        if node is not None and node.IsA("vtkMRMLScalarVolumeNode"):
            return node
    return scene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")


def volume_stamp(node: vtkMRMLVolumeNode) -> VolumeStamp:
    """A value that differs when voxels, size, place or a parent transform of the node changed in between.

    `Volume.fingerprint` tells whether the voxels are really others; it reads them all.
    """
    image, transform = node.GetImageData(), node.GetParentTransformNode()
    frame = VolumeFrame.of(node)
    modified = image.GetMTime()
    if image.GetPointData().GetScalars() is not None:
        modified = max(modified, image.GetPointData().GetScalars().GetMTime())
    return VolumeStamp(
        node.GetID() or "",
        modified,
        tuple(image.GetDimensions()),
        tuple(frame.geometry.ijk_to_world.ravel().tolist()),
        transform.GetID() if transform is not None else "",
        0 if frame.is_linear else transform.GetTransformToWorldMTime(),
    )


def _subject_attribute(node: vtkMRMLVolumeNode, name: str) -> str:
    """Attribute of the node's subject hierarchy item; never makes a subject hierarchy."""
    scene = node.GetScene()
    subjects = scene.GetFirstNodeByClass("vtkMRMLSubjectHierarchyNode") if scene is not None else None
    item = subjects.GetItemByDataNode(node) if subjects is not None else 0
    return subjects.GetItemAttribute(item, name) if item else ""

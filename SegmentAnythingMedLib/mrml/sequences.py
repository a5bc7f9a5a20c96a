"""4D: the time points behind a volume node that a sequence browser plays."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from vtkmodules.util.numpy_support import vtk_to_numpy

from SegmentAnythingMedLib.errors import VolumeError
from SegmentAnythingMedLib.mrml.frame import VolumeFrame
from SegmentAnythingMedLib.mrml.nodes import nodes_of
from SegmentAnythingMedLib.mrml.scene import modality_of, voxels_of
from SegmentAnythingMedLib.volume import Volume

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSequenceBrowserNode, vtkMRMLSequenceNode
    from vtkmodules.vtkCommonCore import vtkDataArray

_SECONDS = {"s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0, "ms": 1e-3, "min": 60.0}


@dataclass(frozen=True)
class PlayedArray:
    """The array of a sequence that a browser has put into a volume node; it does that again at many occasions.

    Parameters
    ----------
    address, modified
        Which array, and when it was changed.
    """

    address: str
    modified: int

    @classmethod
    def of(cls, node: vtkMRMLScalarVolumeNode) -> PlayedArray | None:
        """What a browser plays into the node now; None without one."""
        source = _played_scalars(node)
        return None if source is None else cls(source.GetAddressAsString(""), source.GetMTime())

    def is_still_shown(self, node: vtkMRMLScalarVolumeNode) -> bool:
        """Whether the node has these voxels, though its own copy of them was made anew."""
        source, shown = _played_scalars(node), _scalars_of(node)
        if source is None or shown is None or PlayedArray.of(node) != self:
            return False
        return shown is source or np.array_equal(vtk_to_numpy(source), vtk_to_numpy(shown))


def _played_scalars(node: vtkMRMLScalarVolumeNode) -> vtkDataArray | None:
    browser = browser_of(node)
    return _scalars_of(browser.GetSequenceNode(node).GetNthDataNode(current_time(node))) if browser else None


def _scalars_of(node: vtkMRMLScalarVolumeNode | None) -> vtkDataArray | None:
    image = node.GetImageData() if node is not None else None
    return image.GetPointData().GetScalars() if image is not None else None


def browser_of(node: vtkMRMLScalarVolumeNode) -> vtkMRMLSequenceBrowserNode | None:
    """The sequence browser that plays into this volume node, or None."""
    scene = node.GetScene()
    for browser in nodes_of(scene, "vtkMRMLSequenceBrowserNode") if scene is not None else ():
        if browser.GetSequenceNode(node) is not None:
            return browser
    return None


def current_time(node: vtkMRMLScalarVolumeNode, otherwise: int = 0) -> int:
    """Number of the time point the node shows; ``otherwise`` without a browser."""
    browser = browser_of(node)
    return max(browser.GetSelectedItemNumber(), 0) if browser is not None else otherwise


def volume_of_all_times(node: vtkMRMLScalarVolumeNode) -> Volume:
    """All time points of the sequence behind a node (a copy); of a node without one its only time point.

    Raises
    ------
    VolumeError
        If the time points differ in size, place or type, or one has no voxels.
    """
    volumes = volumes_over_time(node)
    if len({(volume.voxels.dtype, volume.voxels.shape) for volume in volumes}) != 1:
        raise VolumeError(f"The time points of {node.GetName()!r} differ in voxel type or number of values.")
    browser = browser_of(node)
    times = times_s(browser.GetSequenceNode(node)) if browser is not None else ()
    return replace(volumes[0], voxels=np.concatenate([volume.voxels for volume in volumes]), times_s=times)


def volumes_over_time(node: vtkMRMLScalarVolumeNode) -> tuple[Volume, ...]:
    """Each time point of the sequence behind a node, its voxels read-only and without a copy.

    Raises
    ------
    VolumeError
        If the time points differ in size or place, or one has no voxels.
    """
    frame, browser = VolumeFrame.of(node), browser_of(node)
    frames = [node]
    if browser is not None:
        sequence = browser.GetSequenceNode(node)
        frames = [sequence.GetNthDataNode(n) for n in range(sequence.GetNumberOfDataNodes())]
    for number, item in enumerate(frames):
        if not VolumeFrame.of(item).local.matches(frame.local):
            raise VolumeError(f"Time point {number} of {node.GetName()!r} has another grid than the others.")
    modality, name = modality_of(node), node.GetName() or "volume"
    return tuple(Volume(voxels_of(item)[np.newaxis], frame.geometry, modality, name) for item in frames)


def times_s(sequence: vtkMRMLSequenceNode) -> tuple[float, ...]:
    """Seconds of each time point from the first, or () where the index is not a time."""
    scale = _SECONDS.get((sequence.GetIndexUnit() or "").strip().lower())
    if scale is None:
        return ()
    try:
        values = [float(sequence.GetNthIndexValue(n)) * scale for n in range(sequence.GetNumberOfDataNodes())]
    except ValueError:
        return ()
    return tuple(value - values[0] for value in values) if all(map(math.isfinite, values)) else ()

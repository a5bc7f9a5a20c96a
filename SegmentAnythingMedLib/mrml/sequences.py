"""4D: the time points behind a volume node that a sequence browser plays."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from SegmentAnythingMedLib.errors import VolumeError
from SegmentAnythingMedLib.mrml.frame import VolumeFrame
from SegmentAnythingMedLib.mrml.scene import modality_of, voxels_of
from SegmentAnythingMedLib.volume import Volume

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSequenceBrowserNode, vtkMRMLSequenceNode

_SECONDS = {"s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0, "ms": 1e-3, "min": 60.0}


def browser_of(node: vtkMRMLScalarVolumeNode) -> vtkMRMLSequenceBrowserNode | None:
    """The sequence browser that plays into this volume node, or None."""
    scene = node.GetScene()
    for n in range(scene.GetNumberOfNodesByClass("vtkMRMLSequenceBrowserNode") if scene is not None else 0):
        browser = scene.GetNthNodeByClass(n, "vtkMRMLSequenceBrowserNode")
        if browser.GetSequenceNode(node) is not None:
            return browser
    return None


def current_time(node: vtkMRMLScalarVolumeNode) -> int:
    """Number of the time point the node shows; 0 without a browser."""
    browser = browser_of(node)
    return max(browser.GetSelectedItemNumber(), 0) if browser is not None else 0


def volume_of_all_times(node: vtkMRMLScalarVolumeNode) -> Volume:
    """All time points of the sequence behind a node (a copy); of a node without one its only time point.

    Raises
    ------
    VolumeError
        If the time points differ in size, place or type, or one has no voxels.
    """
    browser = browser_of(node)
    frame = VolumeFrame.of(node)
    if browser is None:
        return Volume(voxels_of(node)[np.newaxis], frame.geometry, modality_of(node), node.GetName() or "volume")
    sequence = browser.GetSequenceNode(node)
    frames = [sequence.GetNthDataNode(n) for n in range(sequence.GetNumberOfDataNodes())]
    for number, item in enumerate(frames):
        if not VolumeFrame.of(item).local.matches(frame.local):
            raise VolumeError(f"Time point {number} of {sequence.GetName()!r} has another grid than the others.")
    arrays = [voxels_of(item) for item in frames]
    if len({(array.dtype, array.shape) for array in arrays}) != 1:
        raise VolumeError(f"The time points of {sequence.GetName()!r} differ in voxel type or number of values.")
    return Volume(
        np.stack(arrays), frame.geometry, modality_of(node), node.GetName() or "volume", times_s=times_s(sequence)
    )


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

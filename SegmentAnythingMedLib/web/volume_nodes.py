"""Volumes of files as MRML nodes, and segments of the scene as labels of files: the border of LPS and RAS."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import slicer
import vtk
from vtkmodules.util.numpy_support import numpy_to_vtk

from SegmentAnythingMedLib.errors import OutputError
from SegmentAnythingMedLib.geometry import Plane, SliceGeometry, VolumeGeometry
from SegmentAnythingMedLib.io.labels import Labels, Segment
from SegmentAnythingMedLib.mrml.frame import VolumeFrame, matrix_of
from SegmentAnythingMedLib.mrml.label_grid import Box, labelmap_of, read_box, shift_between, stamp_of
from SegmentAnythingMedLib.mrml.segment_reader import segment_on_slice
from SegmentAnythingMedLib.volume import Modality, Volume
from SegmentAnythingMedLib.windowing import choose_window

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode, vtkMRMLScene, vtkMRMLSegmentationNode

LPS_TO_RAS = np.diag((-1.0, -1.0, 1.0, 1.0))
"""The world of files (LPS) to the world of the scene (RAS), and back."""

_DICOM_MODALITY = {Modality.CT: "CT", Modality.MR: "MR", Modality.PET: "PT", Modality.ULTRASOUND: "US"}


@dataclass(frozen=True)
class FoundSegment:
    """A segment of the scene: name, colour, terminology or None, and (K, J, I) bool on its volume's grid."""

    name: str
    color: tuple[float, float, float]
    terminology: str | None
    mask: np.ndarray


def add_volume(scene: vtkMRMLScene, volume: Volume) -> vtkMRMLScalarVolumeNode:
    """Put a volume that was read from a file (LPS) into the scene; a 4D one as a sequence, its proxy is the answer."""
    if volume.time_count == 1:
        return _display(scene.AddNode(_filled(scene, volume, 0)), volume)
    sequence = scene.AddNewNodeByClass("vtkMRMLSequenceNode", f"{volume.name} sequence")
    sequence.SetIndexName("time")
    sequence.SetIndexUnit("s" if volume.times_s else "")
    for time in range(volume.time_count):
        value = volume.times_s[time] if volume.times_s else time
        sequence.SetDataNodeAtValue(_filled(scene, volume, time), f"{value:g}")
    browser = scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", f"{volume.name} browser")
    browser.AddSynchronizedSequenceNode(sequence)
    browser.SetSelectedItemNumber(0)
    node = browser.GetProxyNode(sequence)
    node.SetName(volume.name)
    return _display(node, volume)


def show_window(node: vtkMRMLScalarVolumeNode, volume: Volume, name: str) -> None:
    """Let the views show a volume through a window that has a name; colour images and ``display`` stay as they are."""
    display = node.GetDisplayNode()
    if name == "display" or display is None or not display.IsA("vtkMRMLScalarVolumeDisplayNode"):
        return
    window = choose_window(volume, name)
    low, high = float(window.low[0]), float(window.high[0])
    display.SetAutoWindowLevel(False)
    display.SetWindowLevel(high - low, (high + low) / 2)


def segments_of(node: vtkMRMLSegmentationNode, volume_node: vtkMRMLScalarVolumeNode) -> Iterator[FoundSegment | None]:
    """The segments that have a labelmap, on the grid of their volume.

    Parameters
    ----------
    node
        The segmentation.
    volume_node
        Its volume in the scene.

    Yields
    ------
    FoundSegment or None
        None after some milliseconds of work, so that the caller can do something else between.

    Raises
    ------
    OutputError
        If something changes a segment meanwhile: a file of two moments would be wrong.
    """
    frame, segmentation = VolumeFrame.of(volume_node), node.GetSegmentation()
    for segment_id in segmentation.GetSegmentIDs():
        image = labelmap_of(node, segment_id)
        if image is None:
            continue
        before, mask = stamp_of(image), np.zeros(frame.local.shape_kji, dtype=bool)
        for part, voxels in _parts_on(frame, node, segment_id):
            mask[part] = voxels
            yield None
            image = labelmap_of(node, segment_id)
            if node.GetScene() is None or image is None or stamp_of(image) != before:
                raise OutputError("The segments were changed while they were read: save again.")
        known, term = segmentation.GetSegment(segment_id), vtk.reference("")
        has_term = known.GetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), term)
        yield FoundSegment(known.GetName(), tuple(known.GetColor()), str(term) if has_term else None, mask)


def labels_of(found: Sequence[FoundSegment], geometry: VolumeGeometry) -> Labels:
    """Segments that have voxels as labels of a file; touches no node, so a thread can do it.

    Parameters
    ----------
    found
        On the grid of ``geometry``.
    geometry
        World LPS.

    Raises
    ------
    OutputError
        If no segment has a voxel.
    """
    filled = [one for one in found if one.mask.any()]
    if not filled:
        raise OutputError("No segment has a voxel yet: press Accept first, what is proposed is not in the file.")
    segments = []
    for value, one in enumerate(filled, start=1):
        layer = one.mask.astype(np.uint8 if value < 256 else np.uint16) * value
        segments.append(Segment(one.name, layer, value, one.color, one.terminology))
    return Labels(geometry, tuple(segments))


def geometry_lps(volume_node: vtkMRMLScalarVolumeNode) -> VolumeGeometry:
    """The geometry of a volume of the scene as files have it."""
    local = VolumeFrame.of(volume_node).local
    return replace(local, ijk_to_world=LPS_TO_RAS @ local.ijk_to_world)


def _parts_on(frame: VolumeFrame, node: vtkMRMLSegmentationNode, segment_id: str) -> Iterator[tuple[slice, np.ndarray]]:
    """Slabs of the volume's grid and a segment's (K, J, I) bool there: copied where grids agree, else the nearest."""
    image = labelmap_of(node, segment_id)
    if shift_between(VolumeFrame.of_labelmap(image, frame.transform), frame) is not None:
        for slab in Box((0, 0, 0), frame.local.shape_kji).slabs():
            yield slice(slab.low[0], slab.high[0]), read_box(node, segment_id, frame, slab)
        return
    slices = SliceGeometry(frame.geometry, Plane(2))
    for k in range(slices.count):
        yield slice(k, k + 1), segment_on_slice(node, segment_id, frame, slices, k)[np.newaxis]


def _filled(scene: vtkMRMLScene, volume: Volume, time: int) -> vtkMRMLScalarVolumeNode:
    """A volume node that is in no scene yet, with the voxels of a time point (shared, not copied, where it can be)."""
    voxels = np.moveaxis(volume.voxels[time], 0, -1)
    if voxels.dtype.str[1:] in ("b1", "f2"):
        voxels = voxels.astype(np.uint8 if voxels.dtype == np.bool_ else np.float32)
    components = voxels.shape[3]
    flat = np.ascontiguousarray(voxels, voxels.dtype.newbyteorder("=")).reshape(-1, components)
    image = vtk.vtkImageData()
    image.SetDimensions(*volume.geometry.size_ijk)
    image.GetPointData().SetScalars(numpy_to_vtk(flat))
    kind = "vtkMRMLVectorVolumeNode" if components > 1 else "vtkMRMLScalarVolumeNode"
    node = scene.CreateNodeByClass(kind)
    node.UnRegister(None)
    node.SetName(volume.name)
    node.SetAndObserveImageData(image)
    node.SetIJKToRASMatrix(matrix_of(LPS_TO_RAS @ volume.geometry.ijk_to_world))
    if volume.modality in _DICOM_MODALITY:
        node.SetAttribute("DICOM.Modality", _DICOM_MODALITY[volume.modality])
    return node


def _display(node: vtkMRMLScalarVolumeNode, volume: Volume) -> vtkMRMLScalarVolumeNode:
    node.CreateDefaultDisplayNodes()
    if node.IsA("vtkMRMLScalarVolumeNode") and not node.IsA("vtkMRMLVectorVolumeNode"):
        node.GetDisplayNode().SetAndObserveColorNodeID("vtkMRMLColorTableNodeGrey")
        show_window(node, volume, "auto")
    return node

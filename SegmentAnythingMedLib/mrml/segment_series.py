"""Segments over time: a sequence of segmentations in the volume's browser, whose proxy is the user's segmentation."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import slicer
import vtk
from vtkmodules.util.numpy_support import numpy_to_vtk

from SegmentAnythingMedLib.errors import OutputError, VolumeError
from SegmentAnythingMedLib.mrml.frame import VolumeFrame
from SegmentAnythingMedLib.mrml.label_grid import LABELMAP, SURFACE, Box, grid_of, mapped_box, read_box, sample_box
from SegmentAnythingMedLib.mrml.label_grid import stored_box as box_of_segment
from SegmentAnythingMedLib.mrml.sequences import browser_of
from SegmentAnythingMedLib.voxel_block import VoxelBlock

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode, vtkMRMLScene, vtkMRMLSegmentationNode, vtkMRMLSequenceNode

CARRIED_TAG = "SegmentAnythingMed.carried"
"""Tag of a segment at a time point: hash of the voxels we carried there. Other voxels are the user's own."""

_SLAB = 16


class SegmentSeries:
    """The user's segmentation over the time points of a volume.

    Nothing is changed in the scene before the first `write`. Then the segmentation becomes the proxy of a sequence:
    what it holds now is kept for the time point it is at; segments that are not carried are copied to all others, and
    those that are begin empty there.

    Parameters
    ----------
    scene, volume, node
        The volume, a proxy of a sequence browser, and the user's segmentation on it.
    time
        Time point that is shown.
    segment_ids
        Segments that are carried.

    Raises
    ------
    VolumeError
        If no sequence browser plays the volume.
    """

    def __init__(
        self,
        scene: vtkMRMLScene,
        volume: vtkMRMLScalarVolumeNode,
        node: vtkMRMLSegmentationNode,
        time: int,
        segment_ids: Iterable[str],
    ) -> None:
        self._scene, self._volume, self._node, self._time = scene, volume, node, time
        self._segment_ids = tuple(segment_ids)
        self._browser = browser_of(volume)
        if self._browser is None:
            raise VolumeError("The volume has only one time point: choose the volume of a sequence.")
        self._frames = self._browser.GetSequenceNode(volume)
        self._volume_frame = VolumeFrame.of(volume)

    @property
    def sequence(self) -> vtkMRMLSequenceNode | None:
        """The sequence of segmentations, or None before the first `write`."""
        return self._browser.GetSequenceNode(self._node)

    def keys(self, segment_id: str) -> dict[int, VoxelBlock]:
        """What the user left of a segment at the shown and at other time points, on the volume's grid.

        A time point is the user's if its voxels are not those that we carried there; it may be empty then.
        """
        keys = {self._time: self._block(self._node, segment_id)}
        if self.sequence is None:
            return keys
        for time in range(self._frames.GetNumberOfDataNodes()):
            item = self.sequence.GetDataNodeAtValue(self._frames.GetNthIndexValue(time))
            segment = item.GetSegmentation().GetSegment(segment_id) if item is not None else None
            if time == self._time or segment is None:
                continue
            tag = _tag_of(segment)
            voxels, box = self._stored(item, segment_id)
            is_ours = tag == _hash_of(voxels, box, self._grid(segment_id)[0])
            if not is_ours and (tag or voxels.size):
                keys[time] = self._block(item, segment_id)
        return keys

    def write(self, segment_id: str, time: int, block: VoxelBlock) -> Iterator[float]:
        """Write a segment of a time point in short steps, on the segmentation's own grid; yields the fraction done."""
        if self.sequence is None and self._browser.GetScene() is not None:
            yield from self._make()
        if self.sequence is None:
            raise OutputError("The sequence browser was removed: time points that are written stay in their sequence.")
        item = self.sequence.GetDataNodeAtValue(self._frames.GetNthIndexValue(time))
        if item is None:
            raise OutputError(f"Time point {time} is no longer in the sequence of segmentations: carry it again.")
        grid, empty = self._grid(segment_id)
        voxels, box = np.zeros((0, 0, 0), dtype=bool), Box((0, 0, 0), (0, 0, 0))
        if block.voxels.size:
            source = self._volume_frame.shifted(block.low_kji)
            box = mapped_box(Box((0, 0, 0), block.voxels.shape), source, grid)
            slabs = box.slabs(_SLAB)
            parts = []
            for number, slab in enumerate(slabs, 1):
                parts.append(sample_box(block.voxels.astype(np.uint8), source, grid, slab) > 0)
                yield number / (len(slabs) + 1)
            sampled = VoxelBlock.of(np.concatenate(parts))
            voxels, box = sampled.voxels, Box((0, 0, 0), sampled.voxels.shape).moved(_sum(box.low, sampled.low_kji))
        self._give_segment(item, segment_id)
        _set_labels(item, segment_id, empty, voxels, box)
        item.GetSegmentation().GetSegment(segment_id).SetTag(CARRIED_TAG, _hash_of(voxels, box, grid))
        yield 1.0

    # -- inside --------------------------------------------------------------------------------------------------

    def _make(self) -> Iterator[float]:
        """The sequence with a copy of the segmentation at every time point; all of it is carried in later."""
        count, node = self._frames.GetNumberOfDataNodes(), self._node
        sequence = self._scene.CreateNodeByClass("vtkMRMLSequenceNode")
        sequence.UnRegister(None)
        sequence.SetName(self._scene.GenerateUniqueName(f"{node.GetName()} over time"))
        sequence.SetIndexName(self._frames.GetIndexName())
        sequence.SetIndexUnit(self._frames.GetIndexUnit())
        sequence.SetIndexType(self._frames.GetIndexType())
        self._scene.AddNode(sequence)
        for time in range(count):
            sequence.SetDataNodeAtValue(node, self._frames.GetNthIndexValue(time))
            yield (time + 0.5) / (count + 1)
            for segment_id in self._segment_ids if time != self._time else ():
                self._empty(sequence.GetDataNodeAtValue(self._frames.GetNthIndexValue(time)), segment_id)
            yield (time + 1) / (count + 1)
        browser = self._browser
        browser.AddSynchronizedSequenceNode(sequence)
        yield (count + 0.5) / (count + 1)
        browser.AddProxyNode(node, sequence, False)
        browser.SetOverwriteProxyName(sequence, False)
        browser.SetSaveChanges(sequence, True)

    def _empty(self, item: vtkMRMLSegmentationNode, segment_id: str) -> None:
        """Nothing was carried here yet."""
        grid, empty = self._grid(segment_id)
        nothing = VoxelBlock.nothing().voxels, Box((0, 0, 0), (0, 0, 0))
        _set_labels(item, segment_id, empty, *nothing)
        item.GetSegmentation().GetSegment(segment_id).SetTag(CARRIED_TAG, _hash_of(*nothing, grid))

    def _give_segment(self, item: vtkMRMLSegmentationNode, segment_id: str) -> None:
        """A segment that was made after the sequence is new to its other time points."""
        if item.GetSegmentation().GetSegment(segment_id) is None:
            segment = slicer.vtkSegment()
            segment.DeepCopyMetadata(self._node.GetSegmentation().GetSegment(segment_id))
            segment.AddRepresentation(LABELMAP, slicer.vtkOrientedImageData())
            item.GetSegmentation().AddSegment(segment, segment_id)

    def _grid(self, segment_id: str) -> tuple[VolumeFrame, object]:
        return grid_of(self._node, segment_id, self._volume)

    def _stored(self, node: vtkMRMLSegmentationNode, segment_id: str) -> tuple[np.ndarray, Box]:
        """A segment's (K, J, I) voxels, and where they lie in its grid."""
        grid, _ = self._grid(segment_id)
        box = box_of_segment(node, segment_id, grid)
        block = VoxelBlock.of(read_box(node, segment_id, grid, box))
        return block.voxels, Box((0, 0, 0), block.voxels.shape).moved(_sum(box.low, block.low_kji))

    def _block(self, node: vtkMRMLSegmentationNode, segment_id: str) -> VoxelBlock:
        """A segment on the volume's grid."""
        voxels, box = self._stored(node, segment_id)
        if not voxels.size:
            return VoxelBlock.nothing()
        source = self._grid(segment_id)[0].shifted(box.low)
        whole = Box((0, 0, 0), self._volume_frame.local.shape_kji)
        target = mapped_box(Box((0, 0, 0), voxels.shape), source, self._volume_frame).cut(whole)
        if target.is_empty:
            return VoxelBlock.nothing()
        block = VoxelBlock.of(sample_box(voxels.astype(np.uint8), source, self._volume_frame, target) > 0)
        return VoxelBlock(block.voxels, _sum(target.low, block.low_kji) if block.voxels.size else (0, 0, 0))


def _set_labels(node: vtkMRMLSegmentationNode, segment_id: str, empty: object, voxels: np.ndarray, box: Box) -> None:
    """Give a segment a labelmap of its own, without touching the others that shared its layer."""
    segmentation = node.GetSegmentation()
    segmentation.SeparateSegmentLabelmap(segment_id)
    segment = segmentation.GetSegment(segment_id)
    image = slicer.vtkOrientedImageData()
    image.SetOrigin(empty.GetOrigin())
    image.SetSpacing(empty.GetSpacing())
    image.CopyDirections(empty)
    if voxels.size:
        image.SetExtent(box.extent)
        scalars = numpy_to_vtk(voxels.astype(np.uint8).ravel(), deep=1)
        scalars.SetName("ImageScalars")
        image.GetPointData().SetScalars(scalars)
    segment.RemoveRepresentation(SURFACE)
    segment.RemoveRepresentation(LABELMAP)
    segment.SetLabelValue(1)
    segment.AddRepresentation(LABELMAP, image)


def _tag_of(segment: slicer.vtkSegment) -> str:
    """The hash of what we carried there, or an empty text."""
    value = vtk.reference("")
    return str(value) if segment.GetTag(CARRIED_TAG, value) else ""


def _hash_of(voxels: np.ndarray, box: Box, grid: VolumeFrame) -> str:
    """16 hex digits of voxels and their place, whatever index the labelmap counts from."""
    place = np.round(grid.local.world_from_ijk(np.array(box.low[::-1], dtype=np.float64)), 2) + 0.0
    text = repr((voxels.shape, place.tolist())) if voxels.size else "empty"
    return hashlib.blake2b(text.encode() + np.packbits(voxels).tobytes(), digest_size=8).hexdigest()


def _sum(a: tuple[int, int, int], b: tuple[int, int, int]) -> tuple[int, int, int]:
    return tuple(x + y for x, y in zip(a, b, strict=True))

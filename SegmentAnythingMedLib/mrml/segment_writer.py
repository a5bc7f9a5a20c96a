"""Accepting a proposal: its written slices go into the user's segment, in short steps, undoable, on its own grid."""

from __future__ import annotations

import enum
import itertools
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from SegmentAnythingMedLib.errors import OutputError
from SegmentAnythingMedLib.geometry import SliceGeometry
from SegmentAnythingMedLib.mrml.edit_rules import EditRules
from SegmentAnythingMedLib.mrml.edit_step import ChangedBox, EditStep
from SegmentAnythingMedLib.mrml.frame import VolumeFrame
from SegmentAnythingMedLib.mrml.label_editor import LabelEditor
from SegmentAnythingMedLib.mrml.label_grid import (
    Box,
    grid_of,
    mapped_box,
    read_box,
    sample_box,
    stored_box,
)
from SegmentAnythingMedLib.mrml.preview_segments import PreviewObject
from SegmentAnythingMedLib.mrml.surfaces import SurfacesAside
from SegmentAnythingMedLib.mrml.written_state import WrittenState

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode, vtkMRMLScene, vtkMRMLSegmentationNode

CHUNK_SECONDS = 0.015
"""Aim for one step of a generator."""

MAX_STEPS = 20


class WriteMode(enum.Enum):
    """What happens to voxels of the segment on the written slices that the proposal does not have."""

    REPLACE = "replace"
    ADD = "add"


class SegmentWriter:
    """Writes accepted proposals into the user's segments, and takes them back.

    Every method that writes is a generator: it does at most some tens of milliseconds of work, yields the fraction
    done, and goes on when asked. Closing it keeps what is written, as one step of undo.

    Parameters
    ----------
    scene
        Its Segment Editor settings are honoured.
    volume
        The volume proposals belong to.
    """

    def __init__(self, scene: vtkMRMLScene, volume: vtkMRMLScalarVolumeNode) -> None:
        self._scene = scene
        self._volume = volume
        self._done: list[EditStep] = []
        self._undone: list[EditStep] = []
        self._written: dict[tuple[str, str], WrittenState] = {}

    @property
    def can_undo(self) -> bool:
        return bool(self._done)

    @property
    def can_redo(self) -> bool:
        return bool(self._undone)

    def accept(
        self,
        item: PreviewObject,
        node: vtkMRMLSegmentationNode,
        segment_id: str,
        mode: WriteMode = WriteMode.REPLACE,
    ) -> Iterator[float | None]:
        """Commit an object's written slices to a segment.

        The segment's grid stays; the proposal is sampled at its voxel centres. Voxels outside the written slices,
        and those the Segment Editor's settings protect, stay as they are.

        Parameters
        ----------
        item
            The proposal.
        node, segment_id
            The user's segment.
        mode
            What happens to voxels on the written slices that the proposal does not have.

        Yields
        ------
        float or None
            Fraction done; None while a thread works and there is nothing to do here.

        Raises
        ------
        OutputError
            If the segment is not there or cannot be written; what was written before stays.
        """
        rules = EditRules.of_scene(self._scene, self._volume)
        grid, like = grid_of(_checked(node, segment_id), segment_id, self._volume)
        step, editor = EditStep(node, grid), LabelEditor(node, segment_id, grid, like)
        overwritten = rules.overwritten(node, segment_id)
        work = self._work_box(item, node, segment_id, grid)
        whole = Box((0, 0, 0), item.mask.shape)
        surfaces = SurfacesAside(node, [segment_id, *overwritten])
        try:
            if not work.is_empty:
                yield 0.0
                _checked(node, segment_id)
                for _ in editor.room_for(work):
                    yield 0.0
            for box in paced_slabs(work):
                _checked(node, segment_id)
                near = mapped_box(box, grid, item.frame).cut(whole)
                if not near.is_empty:
                    coded = sample_box(item.coded(near), item.frame.shifted(near.low), grid, box)
                    gain, lose = coded == 3, (coded == 2) & (mode is WriteMode.REPLACE)
                    allowed = rules.editable(node, segment_id, grid, box)
                    if allowed is not None:
                        gain, lose = gain & allowed, lose & allowed
                    if editor.is_blocked(box, gain, overwritten):
                        for _ in editor.separate(work):
                            yield _fraction(work, box)
                    changes = editor.write(box, gain, lose, overwritten)
                    step.add(box, changes)
                    for other in changes.keys() - {segment_id}:
                        self._note(node, other, grid, box, *changes[other])
                yield _fraction(work, box)
        except OutputError:
            surfaces.at_once()
            raise
        finally:
            if step.boxes:
                self._done = [*self._done, step][-MAX_STEPS:]
                self._undone.clear()
        yield from self._remember(node, segment_id, grid)
        yield from surfaces.rebuilt()

    def undo(self) -> Iterator[float | None]:
        """Take back the last acceptance: exactly the voxels it changed.

        Raises
        ------
        OutputError
            If something else changed one of them since; then nothing is changed.
        """
        if self._done:
            step = self._done[-1]
            yield from self._revert(step.reversed)
            self._undone.append(self._done.pop())

    def redo(self) -> Iterator[float | None]:
        """Do again what was undone last, under the same condition."""
        if self._undone:
            step = self._undone[-1]
            yield from self._revert(step)
            self._done.append(self._undone.pop())

    def painted_slices(self, node: vtkMRMLSegmentationNode, segment_id: str, slices: SliceGeometry) -> tuple[int, ...]:
        """Slices on which the user's segment differs from what we last wrote: somebody painted there.

        () for a segment we never wrote. The painted mask is `segment_reader.segment_on_slice`.
        """
        state = self._written.get((node.GetID(), segment_id))
        if state is None or node.GetSegmentation().GetSegment(segment_id) is None:
            return ()
        return state.changed_slices(VolumeFrame.of(self._volume), slices)

    def look(self, end: float) -> None:
        """Find out, bit by bit, what somebody painted, so that `painted_slices` knows when it is asked."""
        for (node_id, segment_id), state in tuple(self._written.items()):
            node = self._scene.GetNodeByID(node_id)
            if node is None or node.GetSegmentation().GetSegment(segment_id) is None:
                del self._written[node_id, segment_id]
                continue
            try:
                state.look(end)
            except OutputError:  # resampled to another grid since: there is nothing to compare any more
                del self._written[node_id, segment_id]

    def remember(self, node: vtkMRMLSegmentationNode, segment_id: str) -> Iterator[float | None]:
        """Take the segment as it is now for what we last wrote: after painted slices were confirmed."""
        grid, _ = grid_of(_checked(node, segment_id), segment_id, self._volume)
        yield from self._remember(node, segment_id, grid)

    # -- inside --------------------------------------------------------------------------------------------------

    def _work_box(self, item: PreviewObject, node: vtkMRMLSegmentationNode, segment_id: str, grid: VolumeFrame) -> Box:
        """Where something can change: the object's voxels, and on written slices the segment's."""
        written = item.written_box()
        if written.is_empty:
            return written
        ours = item.object_box
        target = ours if ours.is_empty else mapped_box(ours, item.frame, grid)
        theirs = stored_box(node, segment_id, grid).cut(mapped_box(written, item.frame, grid))
        return target.around(theirs)

    def _revert(self, step: EditStep) -> Iterator[float | None]:
        count = max(len(step.boxes), 1)
        for number, item in enumerate(step.boxes):
            step.check_box(item)
            yield 0.3 * (number + 1) / count
        segment_ids = list(dict.fromkeys(item.segment_id for item in step.boxes))
        surfaces = SurfacesAside(step.node, segment_ids)
        editors = {name: self._editor(step.node, name, step.grid) for name in segment_ids}
        for number, (_, same) in enumerate(itertools.groupby(step.boxes, key=lambda item: item.box)):
            items = list(same)
            for _ in _write_exactly(editors, items):
                yield 0.3 + 0.7 * (number + 1) / count
            for item in items:
                self._note(step.node, item.segment_id, step.grid, item.box, *item.unpacked())
        for segment_id in segment_ids:
            if (step.node.GetID(), segment_id) not in self._written:
                yield from self._remember(step.node, segment_id, step.grid)
        yield from surfaces.rebuilt()

    def _editor(self, node: vtkMRMLSegmentationNode, segment_id: str, grid: VolumeFrame) -> LabelEditor:
        _, like = grid_of(node, segment_id, self._volume)
        return LabelEditor(node, segment_id, grid, like)

    def _note(
        self,
        node: vtkMRMLSegmentationNode,
        segment_id: str,
        grid: VolumeFrame,
        box: Box,
        gained: np.ndarray,
        lost: np.ndarray,
    ) -> None:
        """Our edit of a segment is ours; what the user painted into it before stays the user's."""
        state = self._written.get((node.GetID(), segment_id))
        if state is not None and not state.follow(grid, box, gained, lost):
            del self._written[node.GetID(), segment_id]

    def _remember(self, node: vtkMRMLSegmentationNode, segment_id: str, grid: VolumeFrame) -> Iterator[float | None]:
        state = WrittenState(node, segment_id, grid)
        for box in paced_slabs(stored_box(node, segment_id, grid)):
            state.add(box, read_box(node, segment_id, grid, box))
            yield 1.0
        state.close()
        self._written[node.GetID(), segment_id] = state


def paced_slabs(box: Box) -> Iterator[Box]:
    """Slabs along K, as thick as fits in `CHUNK_SECONDS` by what the last one took, at most a million voxels.

    The limit is for objects that begin after many empty slices, which take no time.
    """
    low, thickness = box.low[0], 1
    while not box.is_empty and low < box.high[0]:
        high = min(low + thickness, box.high[0])
        started = time.thread_time()  # not the clock: between two steps the host does something else
        yield Box((low, *box.low[1:]), (high, *box.high[1:]))
        elapsed = max(time.thread_time() - started, 1e-5)
        wanted = int((high - low) * CHUNK_SECONDS / elapsed)
        thickness = max(1, min(wanted, 2 * thickness, box.thin))
        low = high


def _write_exactly(editors: dict[str, LabelEditor], items: list[ChangedBox]) -> Iterator[None]:
    """Losses of all segments of a box before gains, so that voxels of a shared layer are free."""
    for item in items:
        gained, lost = item.unpacked()
        if lost.any():
            editors[item.segment_id].write(item.box, np.zeros_like(gained), lost)
            yield
    for item in items:
        gained, lost = item.unpacked()
        if gained.any():
            editor = editors[item.segment_id]
            if not editor.covers(item.box):
                yield from editor.room_for(item.box)
            if editor.is_blocked(item.box, gained, ()):
                yield from editor.separate(item.box)
            editor.write(item.box, gained, np.zeros_like(lost))
            yield


def _fraction(work: Box, box: Box) -> float:
    return (box.high[0] - work.low[0]) / (work.high[0] - work.low[0])


def _checked(node: vtkMRMLSegmentationNode, segment_id: str) -> vtkMRMLSegmentationNode:
    if node.GetScene() is None or node.GetSegmentation().GetSegment(segment_id) is None:
        raise OutputError("The segment is no longer there: choose another, or make a new one.")
    return node

"""Proposals of the worked segments: shown in the preview, accepted into the user's segments step by step."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from SegmentAnythingMedLib.errors import OutputError, SegmentAnythingMedError
from SegmentAnythingMedLib.geometry import Plane, SliceGeometry
from SegmentAnythingMedLib.mrml.controller_segment import WorkedSegment
from SegmentAnythingMedLib.mrml.frame import VolumeFrame
from SegmentAnythingMedLib.mrml.preview_segments import PreviewSegments
from SegmentAnythingMedLib.mrml.preview_surface import PreviewSurfaces
from SegmentAnythingMedLib.mrml.segment_writer import SegmentWriter, WriteMode

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode, vtkMRMLScene, vtkMRMLSegmentationNode

Done = Callable[[SegmentAnythingMedError | None], None]


class Proposals:
    """What the worker proposes on one volume.

    Parameters
    ----------
    scene, volume
        Where the preview is shown.
    """

    def __init__(self, scene: vtkMRMLScene, volume: vtkMRMLScalarVolumeNode) -> None:
        self.preview = PreviewSegments(scene, volume)
        self.surfaces = PreviewSurfaces(scene, volume)
        self.writer = SegmentWriter(scene, volume)
        self.fraction = 0.0
        self._volume = volume
        self._frame = VolumeFrame.of(volume)
        self._stacks: dict[Plane, SliceGeometry] = {}
        self._tasks: deque[tuple[Iterator[float | None], Done, bool]] = deque()
        self._held: dict[int, list[tuple[Plane, int, np.ndarray]]] = {}

    @property
    def is_writing(self) -> bool:
        """Whether steps of writing wait."""
        return bool(self._tasks)

    def __contains__(self, segment: WorkedSegment) -> bool:
        return segment.object_id in self.preview

    def slices(self, plane: Plane) -> SliceGeometry:
        """The volume's stack of slices in a plane."""
        if plane not in self._stacks:
            self._stacks[plane] = SliceGeometry(self._frame.geometry, plane)
        return self._stacks[plane]

    def show(
        self, segment: WorkedSegment, node: vtkMRMLSegmentationNode, plane: Plane, index: int, mask: np.ndarray
    ) -> None:
        """Put a slice into the preview; while its segment is written, as soon as that is done."""
        if segment.object_id in self._held:
            self._held[segment.object_id].append((plane, index, mask))
            return
        if segment.object_id not in self.preview:
            known = node.GetSegmentation().GetSegment(segment.segment_id)
            if known is None:
                raise OutputError("The segment is no longer there: choose another, or make a new one.")
            self.preview.add_object(segment.object_id, known.GetName(), known.GetColor())
        self.preview.show(segment.object_id, self.slices(plane), index, mask)

    def mask_on(self, segment: WorkedSegment, plane: Plane, index: int) -> np.ndarray | None:
        """(rows, columns) bool of the proposal on a slice, or None without a proposal."""
        if segment not in self:
            return None
        slices = self.slices(plane)
        return slices.extract(self.preview[segment.object_id].mask, slices.check_index(index), order=0) > 0

    def accept(
        self, segment: WorkedSegment, node: vtkMRMLSegmentationNode, mode: WriteMode, done: Callable[[], None]
    ) -> None:
        """Write a proposal into its segment in later steps; when all is written it is no proposal any more."""
        self._held.setdefault(segment.object_id, [])

        def finish(error: SegmentAnythingMedError | None) -> None:
            held = self._held.pop(segment.object_id, [])
            if error is None:
                self.preview.discard(segment.object_id)
                done()
            for plane, index, mask in held:
                self.show(segment, node, plane, index, mask)

        item = self.preview[segment.object_id]
        self._tasks.append((self.writer.accept(item, node, segment.segment_id, mode), finish, True))

    def later(self, steps: Iterator[float | None], done: Done = lambda _error: None, *, is_kept: bool = False) -> None:
        """Do the steps of another generator after those that wait.

        Parameters
        ----------
        steps
            What is done bit by bit.
        done
            Called at its end, with what went wrong.
        is_kept
            Whether it goes on when the user leaves for another volume or segmentation.
        """
        self._tasks.append((steps, done, is_kept))

    def step(self, end: float) -> None:
        """Do steps until ``end`` on the performance counter, at least one.

        Raises
        ------
        SegmentAnythingMedError
            If writing failed; what comes after it is done in later calls.
        """
        while self._tasks:
            steps, done, _ = self._tasks[0]
            try:
                fraction = next(steps)
                if fraction is None:
                    return
                self.fraction = float(fraction)
            except StopIteration:
                self._tasks.popleft()
                done(None)
            except SegmentAnythingMedError as error:
                self._tasks.popleft()
                done(error)
                raise
            if time.perf_counter() >= end:
                return

    def look(self, end: float) -> None:
        """Show in 3D what came; while nothing is written see, for about so long, whether somebody painted."""
        self.surfaces.look(self.preview)
        if not self._tasks:
            self.writer.look(end)

    def discard(self, segment: WorkedSegment) -> None:
        """Forget a proposal."""
        self.preview.discard(segment.object_id)

    def follow_volume(self) -> bool:
        """After the volume moved: forget all proposals, and make the next ones where it is now.

        Returns
        -------
        bool
            Whether a segment was being written, which ends half way: the place of the rest is no longer known.
        """
        was_writing = any(is_kept for _, _, is_kept in self._tasks)
        self._end_tasks()
        self.preview.close()
        self.surfaces.close()
        self._frame = VolumeFrame.of(self._volume)
        self._stacks.clear()
        return was_writing

    def leave(self) -> None:
        """Forget all proposals; what the user had accepted or undone is written to its end by further steps."""
        kept = [task for task in self._tasks if task[2]]
        for steps, _, is_kept in self._tasks:
            if not is_kept:
                steps.close()
        self._tasks = deque(kept)
        self._held.clear()
        self.preview.close()
        self.surfaces.close()

    def close(self) -> None:
        """Forget all; what was being written keeps what is written."""
        self._end_tasks()
        self.preview.close()
        self.surfaces.close()

    def _end_tasks(self) -> None:
        for steps, _, _ in self._tasks:
            steps.close()
        self._tasks.clear()
        self._held.clear()

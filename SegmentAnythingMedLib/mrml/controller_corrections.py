"""Reviewing, correcting and accepting: the verbs after propagation."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np

from SegmentAnythingMedLib.errors import OutputError, PromptError, SegmentAnythingMedError
from SegmentAnythingMedLib.geometry import Plane
from SegmentAnythingMedLib.mrml.controller_link import Purpose
from SegmentAnythingMedLib.mrml.controller_nodes import ControllerNodes
from SegmentAnythingMedLib.mrml.controller_review import SliceReview
from SegmentAnythingMedLib.mrml.controller_segment import WorkedSegment
from SegmentAnythingMedLib.mrml.controller_states import Signal
from SegmentAnythingMedLib.mrml.controller_work import Progress, told
from SegmentAnythingMedLib.mrml.prompt_record import CONFIRMED, PAINTED
from SegmentAnythingMedLib.mrml.segment_reader import segment_on_slice
from SegmentAnythingMedLib.mrml.segment_writer import WriteMode
from SegmentAnythingMedLib.mrml.slice_views import cursor_view, slice_of_view, slice_views
from SegmentAnythingMedLib.prompts import MaskPrompt

if TYPE_CHECKING:
    from slicer import vtkMRMLSegmentationNode, vtkMRMLSliceNode

PREFETCH_RADIUS = 4
"""Slices on each side of the visible one that are encoded when nothing else runs."""


class Corrections(ControllerNodes):
    """The part of `Controller` that looks at proposals, corrects and accepts them."""

    # -- accepting -----------------------------------------------------------------------------------------------

    @told
    def accept(self, segment_ids: Iterable[str] | None = None, mode: WriteMode = WriteMode.REPLACE) -> None:
        """Write the proposals (by default of all segments) into the user's segments, in steps taken by `poll`.

        While something runs, as soon as it has ended; a propagation is ended for it.
        """
        self._needed_proposals(segment_ids)
        self.link.cancel(Purpose.PROPAGATION)
        wanted = None if segment_ids is None else list(segment_ids)
        self.do_when_outlined(lambda: self._accept(wanted, mode))

    @told
    def discard(self, segment_ids: Iterable[str] | None = None) -> None:
        """Forget proposals, and take away the prompts that were given since the last accepting (undo brings them back).

        The user's segments stay as they are.
        """
        chosen = self._needed_proposals(segment_ids)
        if self.proposals.is_writing:
            raise OutputError("A segment is being written: wait until it is done, then undo it.")
        self._when_outlined.clear()
        self.link.end_jobs()
        uids = [record.uid for segment in chosen for record in self._unaccepted(segment)]
        for segment in chosen:
            self.outlining.forget(segment)
            self.proposals.discard(segment)
        self._is_muted = True
        try:
            self.markups.remove(uids)
        finally:
            self._is_muted = False
        self._settle("Discarded: the segment is as it was.")

    @told
    def undo(self) -> None:
        """Take back the last accepting: exactly the voxels it changed."""
        if self.proposals is None or not self.proposals.writer.can_undo:
            raise OutputError("There is nothing to undo.")
        self.proposals.later(self.proposals.writer.undo(), self._undone("Undone."), is_kept=True)

    @told
    def redo(self) -> None:
        """Write again what was undone last."""
        if self.proposals is None or not self.proposals.writer.can_redo:
            raise OutputError("There is nothing to do again.")
        self.proposals.later(self.proposals.writer.redo(), self._undone("Done again."), is_kept=True)

    # -- review --------------------------------------------------------------------------------------------------

    def review(self, segment_id: str = "") -> tuple[SliceReview, ...]:
        """Quality along the slices of a segment, in the plane of its last prompt; weak ones are marked."""
        segment_id = segment_id or self.segment_id
        if segment_id not in self.segments or self.segments.of(segment_id).at is None:
            return ()
        segment = self.segments.of(segment_id)
        return segment.review.strip(segment.at[0])

    @told
    def next_weak(self, view: vtkMRMLSliceNode | None = None) -> int | None:
        """Go to the next weak slice, counted from what a view shows; its index, or None."""
        return self._to_weak(view, 1)

    @told
    def previous_weak(self, view: vtkMRMLSliceNode | None = None) -> int | None:
        """Go to the weak slice before what a view shows; its index, or None."""
        return self._to_weak(view, -1)

    @told
    def go_to_slice(self, index: int) -> None:
        """Have the views that lie in the segment's plane show a slice."""
        plane = self._worked().at[0]
        slices, frame = self.proposals.slices(plane), self.markups.frame
        middle = (np.array(slices.shape) - 1) / 2
        place = frame.ras_from_ijk(slices.ijk_from_pixels(slices.check_index(index), middle))
        for view in slice_views(self.scene):
            if self._shown_by(view, plane) is not None:
                view.JumpSliceByOffsetting(*(float(x) for x in place))

    @told
    def confirm_slice(self, view: vtkMRMLSliceNode | None = None, index: int | None = None) -> None:
        """Make a slice (that a view shows, or of this index) the user's own: propagation never overwrites it."""
        self._needed_segment()
        segment = self.segments.of(self.segment_id)
        if index is not None:
            plane = self._worked().at[0]
        else:
            shown = slice_of_view(self._needed_view(view), self.markups.frame)
            plane, index = shown.plane, shown.index
        mask = self.proposals.mask_on(segment, plane, index)
        if mask is None:
            slices = self.proposals.slices(plane)
            mask = segment_on_slice(self.segmentation, self.segment_id, self.markups.frame, slices, index)
        self.markups.add(self.segment_id, MaskPrompt(mask, index, plane), CONFIRMED)

    @told
    def repropagate(self) -> None:
        """Carry the corrected slices again, only as far as the neighbouring prompted or confirmed ones.

        Corrected are the slices that were painted since the last accepting, or else that of the last prompt.
        """
        self._needed_segment()
        segment = self._worked()
        painted = self.confirm_painted(segment)
        self.make_known(segment)
        plane, last = segment.at
        ends = [index for index in painted if not {index - 1, index + 1} <= set(painted)] or [last]

        def start() -> None:
            for index in ends:
                job = self.link.client.repropagate(segment.object_id, plane, index)
                self.link.track(job, Purpose.PROPAGATION, segment.segment_id)
            self.tell("Carrying the correction.")

        if segment.replay:
            self.do_when_outlined(start)
        else:
            start()

    def confirm_painted(self, *segments: WorkedSegment) -> tuple[int, ...]:
        """Make slices that were painted since we last wrote the segments confirmed ones; their indices.

        Of all segments at once: while one is written, nobody can tell what was painted in the others.
        """
        if self.proposals is None or self.proposals.is_writing:
            return ()
        found = [self._confirm_painted(segment) for segment in segments if segment.at is not None]
        return tuple(index for painted in found for index in painted)

    def _confirm_painted(self, segment: WorkedSegment) -> tuple[int, ...]:
        plane = segment.at[0]
        slices, frame, last = self.proposals.slices(plane), self.markups.frame, segment.at
        painted = self.proposals.writer.painted_slices(self.segmentation, segment.segment_id, slices)
        for index in painted:
            mask = segment_on_slice(self.segmentation, segment.segment_id, frame, slices, index)
            self.markups.add(segment.segment_id, MaskPrompt(mask, index, plane), PAINTED)
            if segment in self.proposals:
                self.proposals.show(segment, self.segmentation, plane, index, mask)
        segment.at = last
        if painted:
            self.proposals.later(self.proposals.writer.remember(self.segmentation, segment.segment_id))
        return painted

    def make_known(self, segment: WorkedSegment) -> None:
        """Have the worker know a segment's prompts, without showing what was accepted already."""
        if not segment.is_told:
            self.outlining.replay(segment, {self.outlining.slice_of(item) for item in self._unaccepted(segment)})

    # -- idle ----------------------------------------------------------------------------------------------------

    def when_idle(self) -> None:
        """Encode the slices round the visible one."""
        view = cursor_view(self.scene) or next(iter(slice_views(self.scene)), None)
        if view is None or self._prefetched == (view.GetID(), view.GetMTime(), self.link.stamps, self.link.model):
            return
        self._prefetched = (view.GetID(), view.GetMTime(), self.link.stamps, self.link.model)
        try:
            shown = slice_of_view(view, self._needed_frame())
        except SegmentAnythingMedError:
            return  # the view is beside the volume
        job = self.link.client.prefetch(shown.plane, shown.index, PREFETCH_RADIUS)
        self.link.track(job, Purpose.PREFETCH)

    # -- inside --------------------------------------------------------------------------------------------------

    def _accept(self, segment_ids: list[str] | None, mode: WriteMode) -> None:
        chosen = self._needed_proposals(segment_ids)
        self.confirm_painted(*chosen)
        for segment in chosen:
            uids = {record.uid for record in self.outlining.records(segment)}
            done = functools.partial(self._accepted, self.segmentation, segment, uids)
            self.proposals.accept(segment, self.segmentation, mode, done)
        self.tell("Writing the segment.")

    def _accepted(self, node: vtkMRMLSegmentationNode, segment: WorkedSegment, uids: set[str]) -> None:
        segment.accepted |= uids
        segment.carried.clear()
        known = node.GetSegmentation().GetSegment(segment.segment_id)
        if known is not None:  # it may be removed right after its last voxel
            self._settle(f"Accepted into {known.GetName()}.")

    def _settle(self, sentence: str) -> None:
        if self.proposals is None or not any(segment in self.proposals for segment in self.segments):
            self.send(Signal.SETTLED)
        self.progress = Progress()
        self.tell(sentence)

    def _undone(self, sentence: str) -> Callable[[SegmentAnythingMedError | None], None]:
        return lambda error: self.tell(sentence) if error is None else None

    def _to_weak(self, view: vtkMRMLSliceNode | None, step: int) -> int | None:
        plane, weak = self._worked().at[0], self._worked().review.weak(self._worked().at[0])
        seen = view or cursor_view(self.scene)
        here = self._shown_by(seen, plane) if seen is not None else None
        here = self._worked().at[1] if here is None else here
        beyond = [index for index in weak if (index - here) * step > 0]
        if not beyond:
            self.tell("No weak slice in this direction." if weak else "No slice is weak.")
            return None
        found = min(beyond, key=lambda index: abs(index - here))
        self.go_to_slice(found)
        return found

    def _shown_by(self, view: vtkMRMLSliceNode, plane: Plane) -> int | None:
        try:
            shown = slice_of_view(view, self.markups.frame)
        except SegmentAnythingMedError:
            return None
        return shown.index if shown.plane == plane else None

    def _worked(self) -> WorkedSegment:
        if self.segment_id not in self.segments or self.segments.of(self.segment_id).at is None:
            raise PromptError("There is no outline yet: draw a box or click on the structure first.")
        return self.segments.of(self.segment_id)

    def _needed_proposals(self, segment_ids: Iterable[str] | None) -> list[WorkedSegment]:
        wanted = None if segment_ids is None else set(segment_ids)
        found = [
            segment
            for segment in self.segments
            if self.proposals is not None
            and segment in self.proposals
            and (wanted is None or segment.segment_id in wanted)
        ]
        if not found:
            raise PromptError("There is nothing to accept or discard: draw a box or click on the structure first.")
        return found

"""From prompts in the scene to outlines asked of the worker."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from SegmentAnythingMedLib.errors import PromptError
from SegmentAnythingMedLib.mrml.controller_link import Purpose, WorkerLink
from SegmentAnythingMedLib.mrml.controller_segment import ReplayStep, SliceAt, WorkedSegment, WorkedSegments
from SegmentAnythingMedLib.mrml.prompt_markups import Action, PromptEvent, PromptMarkups
from SegmentAnythingMedLib.mrml.prompt_record import CONFIRMED, PAINTED, PromptRecord
from SegmentAnythingMedLib.prompts import slice_index
from SegmentAnythingMedLib.worker.client import WorkerClient
from SegmentAnythingMedLib.worker.messages import SliceMask


class Outlining:
    """Keeps the worker's prompts equal to the scene's.

    Parameters
    ----------
    link
        The worker.
    segments
        Who has which object.
    markups
        Gives the prompts of the scene, or None while there are none.
    """

    def __init__(self, link: WorkerLink, segments: WorkedSegments, markups: Callable[[], PromptMarkups | None]) -> None:
        self._link = link
        self._segments = segments
        self._markups = markups

    @property
    def is_busy(self) -> bool:
        """Whether outlines are on their way or waiting to be asked for."""
        return bool(self._link.open_jobs(Purpose.OUTLINE)) or any(item.replay for item in self._segments)

    def unfinished(self) -> list[WorkedSegment]:
        """Segments whose outlines have not all come."""
        waiting = {self._link.jobs[job].segment_id for job in self._link.open_jobs(Purpose.OUTLINE)}
        return [item for item in self._segments if item.replay or item.segment_id in waiting]

    def follow(self, event: PromptEvent) -> None:
        """Tell the worker what happened to a prompt."""
        record = event.record
        segment = self._segments.of(record.segment_id)
        if not self._markups().is_inside(record):  # removed after the volume had become smaller
            return
        segment.at = at = self.slice_of(record)
        if is_confirmed(record):
            segment.review.confirm(*at, event.action is not Action.REMOVED)
        if not segment.is_told or segment.replay:
            shown = segment.is_replay_shown if segment.replay else set()
            self.replay(segment, None if shown is None else shown | {at})
            return
        client = self._link.client
        if is_confirmed(record) and event.action is not Action.REMOVED:
            self._confirm(client, segment, record, at, is_shown=True)
            return
        if is_confirmed(record):
            job = client.clear_slice(segment.object_id, *at)
            self._link.track(job, Purpose.OUTLINE, segment.segment_id)
        self._set_prompts(client, segment, self.records(segment), is_shown=True)
        is_moved = event.before is not None and self._markups().is_inside(event.before)
        for changed in dict.fromkeys([self.slice_of(event.before), at] if is_moved else [at]):
            if any(self.slice_of(other) == changed and not is_confirmed(other) for other in self.records(segment)):
                self._outline(client, segment, changed, is_shown=True)

    def replay(self, segment: WorkedSegment, shown: set[SliceAt] | None) -> None:
        """Say all prompts of a segment to the worker, one after the other, as they were given.

        Parameters
        ----------
        segment
            Whose.
        shown
            Slices whose outline becomes part of the proposal; None for all.
        """
        client = self._link.client
        if segment.is_told:
            self._link.track(client.remove_object(segment.object_id), Purpose.CHANGE, segment.segment_id)
        segment.is_told, segment.is_replay_shown, segment.replay = True, shown, deque()
        records = self.records(segment)
        for number, record in enumerate(records):
            at = self.slice_of(record)
            segment.at = segment.at or at
            segment.replay.append(ReplayStep(record, records[:number], at, shown is None or at in shown))
        self.pump()

    def pump(self) -> None:
        """Say the next prompt of each segment that is replayed and whose last outline has come.

        One by one: of several outlines of a slice that wait the worker would make only the last, but each refines
        the one before.
        """
        waiting = {self._link.jobs[job].segment_id for job in self._link.open_jobs(Purpose.OUTLINE)}
        for segment in self._segments:
            if not segment.replay or segment.segment_id in waiting:
                continue
            step, client = segment.replay.popleft(), self._link.client
            if is_confirmed(step.record):
                segment.review.confirm(*step.at)
                self._confirm(client, segment, step.record, step.at, step.is_shown)
            else:
                self._set_prompts(client, segment, (*step.before, step.record), step.is_shown)
                self._outline(client, segment, step.at, step.is_shown)

    def cycle_candidate(self, segment: WorkedSegment, step: int) -> None:
        """Take the next (or previous) candidate of the last prompted slice."""
        count, chosen = segment.candidates.get(segment.at, (1, 0))
        if count < 2:
            raise PromptError("There is only one outline here: candidates come with a single click on the object.")
        chosen = (chosen + step) % count
        segment.candidates[segment.at] = count, chosen
        record = self._answered_record(segment, segment.at)
        if record is not None:
            self._markups().store.note_candidate(record.uid, chosen)
        self._choose(segment, segment.at, chosen, is_shown=True)

    def remember_choice(self, segment: WorkedSegment, event: SliceMask, is_shown: bool) -> bool:
        """Whether the user had taken another of these answers before; it is asked for now.

        So after loading, undo or a restart the outline is the one the user chose; a model with fewer answers gives its
        own choice.
        """
        at = event.key.plane, event.key.index
        record = self._answered_record(segment, at) if event.candidates is not None else None
        if record is None or record.candidate == event.candidate or record.candidate >= len(event.candidates):
            return False
        self._choose(segment, at, record.candidate, is_shown)
        return True

    def forget(self, segment: WorkedSegment) -> None:
        """Take a segment's object from the worker."""
        if segment.is_told and self._link.is_open:
            job = self._link.client.remove_object(segment.object_id)
            self._link.track(job, Purpose.CHANGE, segment.segment_id, is_shown=False)
        segment.forget_work()

    def records(self, segment: WorkedSegment) -> tuple[PromptRecord, ...]:
        """A segment's prompts at the current time point that lie in the volume, in the order they were given."""
        markups = self._markups()
        if markups is None:
            return ()
        known = markups.records(segment.segment_id)
        return tuple(item for item in known if item.time == markups.time and markups.is_inside(item))

    def slice_of(self, record: PromptRecord) -> SliceAt:
        """The slice a prompt lies on."""
        plane = record.prompt.plane
        return plane, slice_index(record.prompt, self._markups().slices(plane))

    # -- inside --------------------------------------------------------------------------------------------------

    def _answered_record(self, segment: WorkedSegment, at: SliceAt) -> PromptRecord | None:
        """The click whose answers are the candidates of a slice: the first prompt there."""
        prompts = (item for item in self.records(segment) if not is_confirmed(item))
        return next((item for item in prompts if self.slice_of(item) == at), None)

    def _choose(self, segment: WorkedSegment, at: SliceAt, candidate: int, is_shown: bool) -> None:
        job = self._link.client.choose_candidate(segment.object_id, *at, candidate)
        self._link.track(job, Purpose.OUTLINE, segment.segment_id, is_shown)

    def _set_prompts(
        self, client: WorkerClient, segment: WorkedSegment, records: tuple[PromptRecord, ...], is_shown: bool
    ) -> None:
        prompts = [record.prompt for record in records if not is_confirmed(record)]
        job = client.set_prompts(segment.object_id, prompts)
        self._link.track(job, Purpose.CHANGE, segment.segment_id, is_shown)

    def _outline(self, client: WorkerClient, segment: WorkedSegment, at: SliceAt, is_shown: bool) -> None:
        segment.candidates.pop(at, None)
        job = client.segment_slice(segment.object_id, *at)
        self._link.track(job, Purpose.OUTLINE, segment.segment_id, is_shown)

    def _confirm(
        self, client: WorkerClient, segment: WorkedSegment, record: PromptRecord, at: SliceAt, is_shown: bool
    ) -> None:
        job = client.confirm_slice(segment.object_id, *at, record.prompt.mask)
        self._link.track(job, Purpose.OUTLINE, segment.segment_id, is_shown)


def is_confirmed(record: PromptRecord) -> bool:
    """Whether a record is a slice the user confirmed or painted, not a prompt to be answered."""
    return record.role in (CONFIRMED, PAINTED)

"""What the scene does to the nodes that are worked on: prompts placed, volumes edited, moved, removed."""

from __future__ import annotations

from SegmentAnythingMedLib.errors import SegmentAnythingMedError
from SegmentAnythingMedLib.mrml.controller_segment import WorkedSegment
from SegmentAnythingMedLib.mrml.controller_states import Signal
from SegmentAnythingMedLib.mrml.controller_watch import Loss
from SegmentAnythingMedLib.mrml.controller_work import ControllerWork, Progress
from SegmentAnythingMedLib.mrml.prompt_markups import Action, PromptEvent
from SegmentAnythingMedLib.mrml.scene import has_voxels
from SegmentAnythingMedLib.mrml.sequences import current_time

_BROKEN_OFF = " A segment was being written, which ended half way: undo the acceptance."


class ControllerScene(ControllerWork):
    """The part of `Controller` that follows the scene."""

    def prompt_changed(self, event: PromptEvent) -> None:
        """What the user, or undo, did to a prompt."""
        if self._is_muted or self._watch.has_losses:
            return
        self._is_changed = True
        try:
            if event.action is Action.REFUSED:
                self.tell(event.message)
            elif event.record.time == self.time:
                if self.is_usable:
                    self.outlining.follow(event)
                else:
                    self.segments.of(event.record.segment_id).is_told = False
        except SegmentAnythingMedError as error:
            self.tell(str(error))
        self.update_state()

    def attend_to_scene(self) -> None:
        """End the work on nodes that were removed, follow a volume that was edited or moved, forget lost segments."""
        losses = self._watch.take_losses()
        if not losses and not all(map(has_voxels, self._watch.volumes)):
            losses = [Loss.VOXELS]
        if losses:
            self._lose(losses[0])
        if self.volume is None:
            return
        change, time = self.link.changes(), current_time(self.volume, otherwise=self.time)
        if time != self.time:  # not only where voxels changed: before the worker is asked nobody compares them
            self.change_time(time)
        elif change == "voxels" and self.link.is_open:
            self._follow_voxels()
        elif change == "place":
            broken_off = _BROKEN_OFF if self.proposals.follow_volume() else ""
            text = f"The volume was moved: outlines are made again, propagate again.{broken_off}"
            self.reopen(text, "volume", "session")
        for segment in self.segments:
            if self.segmentation is None or self.segmentation.GetSegmentation().GetSegment(segment.segment_id) is None:
                self._drop(segment)

    def reopen(self, sentence: str, *what: str) -> None:
        """Open the session anew and outline again what was shown; proposals of before are gone."""
        shown = [segment for segment in self.segments if self._unaccepted(segment)]
        self.link.reopen(*what)
        for segment in self.segments:
            segment.forget_work()
            if self.proposals is not None:
                self.proposals.discard(segment)
        self.send(Signal.OPENED)
        self.tell(sentence)
        for segment in shown if self.is_usable else ():
            self.outlining.replay(segment, {self.outlining.slice_of(item) for item in self._unaccepted(segment)})

    def _follow_voxels(self) -> None:
        """The user, or another module, edited the voxels: what was being computed from the old ones ends."""
        unfinished = self.outlining.unfinished()
        self.link.end_jobs()
        self.link.volume_changed()
        self.tell("The volume's voxels were changed: prompts are kept, propagate again.")
        for segment in unfinished:
            self.outlining.replay(segment, {segment.at})

    def change_time(self, time: int) -> None:
        """Work on another time point, which the volume node shows now."""
        self.time = time
        if self.markups is not None:
            self.markups.time = time
        broken_off = _BROKEN_OFF if self.proposals is not None and self.proposals.follow_volume() else ""
        for segment in self.segments:
            records = self.outlining.records(segment)
            segment.at = self.outlining.slice_of(records[-1]) if records else None
        self.reopen(f"Time point {time}.{broken_off}", "volume", "session")
        self._remember_as_written()

    def _remember_as_written(self) -> None:
        """A sequence may have put other voxels into the segments: nobody painted those."""
        if self.segmentation is None or self.proposals is None:
            return
        for segment in self.segments:
            if self.segmentation.GetSegmentation().GetSegment(segment.segment_id) is not None:
                self.proposals.later(self.proposals.writer.remember(self.segmentation, segment.segment_id))

    def end_work(self) -> None:
        """Forget segments, prompts and proposals; nodes of the user stay, jobs end.

        A segment that is being written is written to its end: half of it would be worse than all or nothing of it.
        """
        self._when_outlined.clear()
        self.link.end_jobs()
        for segment in self.segments:
            self.outlining.forget(segment)
        self.segments.clear()
        if self._placing is not None and not self._watch.has_losses:
            self._placing.stop()
        self._placing = None
        if self.markups is not None:
            self.markups.close()
        self.markups = None
        if self.proposals is not None:
            self.proposals.leave()
            self.left.append(self.proposals)
        self.progress = Progress()

    def _unaccepted(self, segment: WorkedSegment) -> list[object]:
        return [record for record in self.outlining.records(segment) if record.uid not in segment.accepted]

    def _drop(self, segment: WorkedSegment) -> None:
        self.outlining.forget(segment)
        self.proposals.discard(segment)
        self.segments.remove(segment.segment_id)
        if self.segment_id == segment.segment_id:
            self.segment_id = ""
        self.tell("A segment was removed: what was proposed for it is gone.")

    def _lose(self, loss: Loss) -> None:
        if loss in (Loss.SCENE, Loss.SEGMENTATION):
            for proposals in (self.proposals, *(self.left if loss is Loss.SCENE else ())):
                if proposals is not None:
                    proposals.close()
        if loss is Loss.SEGMENTATION:
            self.end_work()
        else:
            self._placing = None if loss is Loss.SCENE else self._placing
            self.end_work()
            self.link.set_volume(())
            self.volume, self.proposals, self._watch.volumes = None, None, ()
            self.send(Signal.CLOSED)
        self.segmentation, self.segment_id, self._watch.segmentation = None, "", None
        self.send(Signal.ENDED)
        self.send(Signal.SETTLED)
        self.tell(loss.value)

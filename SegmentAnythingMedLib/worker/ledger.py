"""Which jobs are open, and which of the worker's events still hold when they arrive."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

from SegmentAnythingMedLib.geometry import Plane
from SegmentAnythingMedLib.worker import messages as m
from SegmentAnythingMedLib.worker.journal import Journal

_OPENS = (m.LoadModel, m.OpenVolume, m.OpenSession)
_PROPAGATIONS = (m.Propagate, m.Repropagate)
_RUNS_MODEL = (m.LoadModel, m.SegmentSlice, m.Undo)
_HARMLESS = (
    m.OpenVolume, m.OpenSession, m.SetPrompts, m.AddPrompts, m.ChooseCandidate, m.ConfirmSlice, m.ClearSlice,
    m.ProtectVoxels,
)  # fmt: skip


class Ledger:
    """Open jobs by number, prompt revisions by object, and the journal of what a new worker has to be told."""

    def __init__(self) -> None:
        self.journal = Journal()
        self.jobs: dict[int, m.Command] = {}
        self._numbers = itertools.count(1)
        self._revisions: dict[int, int] = {}
        self._newest: dict[tuple[int, Plane | None, int], int] = {}
        self._answered: set[int] = set()
        self._retried: set[int] = set()

    def new_job(self) -> int:
        return next(self._numbers)

    def revision(self, object_id: int) -> int:
        """How often the object's prompts were changed."""
        return self._revisions.get(object_id, 0)

    def changed(self, command: m.ObjectCommand) -> None:
        """An object's prompts change: older events about that slice, or a removed object, no longer hold."""
        self._revisions[command.object_id] = command.revision
        if isinstance(command, m.SliceCommand):
            self._newest[command.object_id, command.plane, command.index] = command.revision
        elif isinstance(command, m.RemoveObject):
            self._newest[command.object_id, None, 0] = command.revision
        self.journal.note(command)

    def end_jobs(self, reason: str) -> list[m.JobCancelled]:
        """The session ends: of its open jobs nothing comes any more, but that they ended."""
        ended = [job for job, command in self.jobs.items() if not isinstance(command, _OPENS)]
        for job in ended:
            self._close(job)
        return [m.JobCancelled(job, reason) for job in ended]

    def forget_slices(self) -> None:
        """A new session starts without objects."""
        self._newest.clear()

    def accept(self, event: m.Event, reviving: bool) -> Iterator[m.Event]:
        """The event as the host gets it, or nothing if it is of the past."""
        if isinstance(event, (m.JobDone, m.JobCancelled, m.JobFailed)):
            yield from self._end(event, reviving)
        elif isinstance(event, m.SliceMask):
            yield from self._pass_on(event)
        elif event.job == 0 or event.job in self.jobs:
            yield event

    def after_death(self, again: bool, asked: bool) -> Iterator[m.Event]:
        """How open jobs end when the worker has died; those that stay open are said again to the next one."""
        for job, command in list(self.jobs.items()):
            if job in self._answered or isinstance(command, m.RemoveObject):
                yield from self._end(m.JobDone(job))
            elif not again or not self._is_tried_again(command, asked):
                yield from self._end(m.JobFailed(job, "WorkerError", _interrupted(command)))

    def _end(self, end: m.JobDone | m.JobCancelled | m.JobFailed, reviving: bool = False) -> Iterator[m.Event]:
        command = self._close(end.job)
        if command is not None and not isinstance(end, m.JobDone):
            self.journal.forget(end.job)
        if command is not None or (reviving and isinstance(end, m.JobFailed)):
            yield end

    def _pass_on(self, event: m.SliceMask) -> Iterator[m.Event]:
        """A slice, unless its prompts changed since, its object is gone or its job is of the past."""
        command, plane, index = self.jobs.get(event.job), event.key.plane, event.key.index
        newest = max(self._newest.get((event.object_id, *at), 0) for at in ((plane, index), (None, 0)))
        if command is None or event.revision < newest:
            return
        tracked = isinstance(command, _PROPAGATIONS)
        if not tracked:
            self._answered.add(event.job)
        yield replace(event, box=self.journal.received(event, tracked))

    def _close(self, job: int) -> m.Command | None:
        self._answered.discard(job)
        self._retried.discard(job)
        return self.jobs.pop(job, None)

    def _is_tried_again(self, command: m.Command, asked: bool) -> bool:
        """Whether the next worker gets an unfinished command. What may have killed the last one gets one more try."""
        if not isinstance(command, _RUNS_MODEL):
            return isinstance(command, _HARMLESS)
        retried = command.job in self._retried
        self._retried.add(command.job)
        return not (asked or retried)


def _interrupted(command: m.Command) -> str:
    if isinstance(command, m.PropagateThroughTime):
        return "The worker stopped while it carried the outline through time; finished time points are kept: try again."
    if isinstance(command, _PROPAGATIONS):
        return "The worker stopped while it carried the outline; finished slices are kept: press propagate to go on."
    if isinstance(command, m.SegmentSlice):
        return "The worker stopped while it outlined the slice; the prompts are kept: click again or take them back."
    return "The worker stopped before this was done: try again."

"""Commands that wait for the inference thread: who goes first, and what a newer command makes superfluous."""

from __future__ import annotations

import enum
import threading
from collections import deque

from SegmentAnythingMedLib.worker.messages import (
    ChooseCandidate,
    ClearSlice,
    Command,
    ConfirmSlice,
    LoadModel,
    ObjectCommand,
    OpenSession,
    OpenVolume,
    Ping,
    Prefetch,
    Propagate,
    PropagateThroughTime,
    Repropagate,
    SegmentSlice,
    Undo,
)


class Lane(enum.IntEnum):
    """Who overtakes whom; within a lane commands keep their order."""

    CLICK = 0
    PROPAGATION = 1
    PREFETCH = 2


_LANES = {
    Propagate: Lane.PROPAGATION,
    PropagateThroughTime: Lane.PROPAGATION,
    Repropagate: Lane.PROPAGATION,
    Prefetch: Lane.PREFETCH,
}
_RESTARTS_SESSION = (LoadModel, OpenVolume, OpenSession)
_DEPENDS_ON_OUTLINE = (ChooseCandidate, ConfirmSlice, ClearSlice, Undo)


def lane_of(command: Command) -> Lane:
    """The lane a command waits in; everything that changes the session is as urgent as a click."""
    return _LANES.get(type(command), Lane.CLICK)


class Mailbox:
    """Filled by the reading thread, emptied by the inference thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._lanes: dict[Lane, deque[Command]] = {lane: deque() for lane in Lane}
        self._running: dict[int, Command] = {}
        self._cancelled: dict[int, str] = {}
        self._closed = False

    def put(self, command: Command) -> list[tuple[int, str]]:
        """Add a command; returns waiting jobs that end because of it, each with the reason."""
        with self._changed:
            ended = self._replaced_by(command)
            self._lanes[lane_of(command)].append(command)
            self._changed.notify_all()
        return ended

    def cancel(self, job: int, reason: str = "cancelled") -> bool:
        """Take a waiting job out (True), or ask the running one to end after its slice (False)."""
        with self._changed:
            for lane in self._lanes.values():
                for command in [waiting for waiting in lane if waiting.job == job]:
                    lane.remove(command)
                    return True
            if job in self._running:
                self._cancelled[job] = reason
            return False

    def close(self) -> None:
        """Forget what waits, ask running jobs to end and wake the inference thread for good."""
        with self._changed:
            self._closed = True
            for lane in self._lanes.values():
                lane.clear()
            self._cancelled |= dict.fromkeys(self._running, "shutdown")
            self._changed.notify_all()

    def wait(self) -> Command | None:
        """The most urgent command; None once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or any(self._lanes.values()))
            return self._next(max(Lane))

    def more_urgent(self, lane: Lane) -> Command | None:
        """The next command that overtakes one of ``lane``, if any waits."""
        with self._changed:
            return self._next(Lane(lane - 1)) if lane else None

    def cancelled(self, job: int) -> str | None:
        """Why a running job has to end, or None."""
        with self._changed:
            return self._cancelled.get(job)

    def finished(self, job: int) -> None:
        """The inference thread is done with a job it took."""
        with self._changed:
            self._running.pop(job, None)
            self._cancelled.pop(job, None)

    def is_outdated(self, command: Command) -> bool:
        """Whether a newer outline of the same slice waits."""
        if not isinstance(command, SegmentSlice):
            return False
        with self._changed:
            return any(_same_slice(waiting, command) for waiting in self._lanes[Lane.CLICK])

    def _next(self, last: Lane) -> Command | None:
        for lane in Lane:
            if lane <= last and self._lanes[lane]:
                command = self._lanes[lane].popleft()
                self._running[command.job] = command
                return command
        return None

    def _replaced_by(self, command: Command) -> list[tuple[int, str]]:
        if isinstance(command, _RESTARTS_SESSION):
            reason = "the session was opened anew"
            gone = [*self._lanes[Lane.PROPAGATION], *self._lanes[Lane.PREFETCH]]
            self._lanes[Lane.PROPAGATION].clear()
            self._lanes[Lane.PREFETCH].clear()
            self._end_running(Lane.PROPAGATION, reason)
            self._end_running(Lane.PREFETCH, reason)
            return [(waiting.job, reason) for waiting in gone]
        if isinstance(command, Prefetch):
            gone = list(self._lanes[Lane.PREFETCH])
            self._lanes[Lane.PREFETCH].clear()
            self._end_running(Lane.PREFETCH, "replaced")
            return [(waiting.job, "replaced") for waiting in gone]
        if isinstance(command, SegmentSlice):
            return self._replaced_click(command)
        return []

    def _replaced_click(self, command: SegmentSlice) -> list[tuple[int, str]]:
        """The waiting outline of the same slice, unless what came after it builds on it."""
        for waiting in reversed(self._lanes[Lane.CLICK]):
            if _same_slice(waiting, command):
                self._lanes[Lane.CLICK].remove(waiting)
                return [(waiting.job, "replaced")]
            same_object = isinstance(waiting, ObjectCommand) and waiting.object_id == command.object_id
            if isinstance(waiting, Ping) or (same_object and isinstance(waiting, _DEPENDS_ON_OUTLINE)):
                break
        return []

    def _end_running(self, lane: Lane, reason: str) -> None:
        for job, running in self._running.items():
            if lane_of(running) is lane:
                self._cancelled.setdefault(job, reason)


def _same_slice(waiting: Command, command: SegmentSlice) -> bool:
    return isinstance(waiting, SegmentSlice) and (waiting.object_id, waiting.plane, waiting.index) == (
        command.object_id,
        command.plane,
        command.index,
    )

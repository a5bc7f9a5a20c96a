"""The host's side of the worker: every call returns at once, answers are polled.

Example
-------
>>> client = WorkerClient()
>>> client.start()
>>> client.open_volume(volume), client.load_model("classic"), client.open_session()
>>> client.add_prompts(1, box)
>>> client.segment_slice(1, box.plane, 34)
>>> for event in client.poll():  # from a timer, every 20 to 50 ms
...     show(event)
"""

from __future__ import annotations

import atexit
import logging
import os
import queue
import sys
import time as clock
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from SegmentAnythingMedLib.errors import WorkerError
from SegmentAnythingMedLib.geometry import Plane
from SegmentAnythingMedLib.prompts import Prompt
from SegmentAnythingMedLib.volume import Volume
from SegmentAnythingMedLib.windowing import Window
from SegmentAnythingMedLib.worker import messages as m
from SegmentAnythingMedLib.worker.child import ChildProcess, Ended, NotSent
from SegmentAnythingMedLib.worker.environment import worker_environment
from SegmentAnythingMedLib.worker.ledger import Ledger
from SegmentAnythingMedLib.worker.time_command import KeyBlocks, time_command
from SegmentAnythingMedLib.worker.voxel_file import VoxelFile, sweep, temporary_folder

logger = logging.getLogger(__name__)

AnyCommand = TypeVar("AnyCommand", bound=m.Command)

MAX_RESTARTS = 3
RESTART_WINDOW_S = 60.0


class WorkerClient:
    """Owns a worker process, and starts it again with everything in it if it dies. Belongs to one thread.

    Every command returns the number of its job; each job ends with one `JobDone`, `JobCancelled` or `JobFailed`.

    Parameters
    ----------
    python
        Interpreter of the child (``PythonSlicer`` in Slicer).
    import_path
        Folder that holds this library; by default the one it was imported from.
    folder
        Where the volume's voxels are put for the child (mode 0600, removed at the end); by default the system's
        temporary folder.
    threads
        Threads for the child's arithmetic; by default all cores but one.
    memory_mb
        Limit of the child's address space, 0 for none (not on Windows).
    arguments
        What the interpreter runs.
    """

    def __init__(
        self,
        *,
        python: str = sys.executable,
        import_path: str | Path | None = None,
        folder: str | Path | None = None,
        threads: int | None = None,
        memory_mb: int = 0,
        arguments: Sequence[str] = ("-m", "SegmentAnythingMedLib.worker.process"),
    ) -> None:
        limit = ("--memory-mb", str(memory_mb)) if memory_mb else ()
        self._command = [python, *arguments, *limit]
        self._environment = partial(worker_environment, import_path, threads)  # asked again at each start
        self._folder = folder
        self._child: ChildProcess | None = None
        self._incoming: queue.SimpleQueue[tuple[ChildProcess, m.Event | Ended | NotSent]] = queue.SimpleQueue()
        self._ready: deque[m.Event] = deque()
        self._ledger = Ledger()
        self._deaths: list[float] = []
        self._reviving = 0
        self._restart_reason = ""
        self._stale_files: list[VoxelFile] = []
        self._series_files: dict[int, VoxelFile] = {}
        self._deadlines: dict[int, float] = {}

    # -- life ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the child; `Ready` follows. Removes voxel files that a killed program has left."""
        if self._child is not None:
            return
        self._folder = temporary_folder(self._folder)
        sweep(self._folder)
        self._deaths.clear()
        self._spawn()
        if self._ledger.journal.model is not None or self._ledger.journal.volume is not None:
            self._revive(with_model=True)
        _at_exit(self)

    @property
    def is_running(self) -> bool:
        """False before `start`, after `shutdown`, and once the worker has died too often."""
        return self._child is not None

    @property
    def pid(self) -> int | None:
        """The child's process number, None while it is being started."""
        return self._child.pid if self._child else None

    @property
    def error_lines(self) -> tuple[str, ...]:
        """The last lines the child wrote to standard error."""
        return self._child.lines if self._child else ()

    @property
    def jobs(self) -> tuple[int, ...]:
        """Jobs that have not ended."""
        return tuple(self._ledger.jobs)

    def restart(self, reason: str = "It was stopped because it did not answer.") -> None:
        """Kill a worker that hangs and start another; finished slices are kept, the running job fails."""
        self._restart_reason = reason
        self._running_child().kill()

    def shutdown(self, timeout: float = 2.0) -> None:
        """End the child, by force after ``timeout`` seconds, and remove the voxels from the disk."""
        if self._child is not None:
            self._child.send_urgent(m.encode(m.Shutdown(0)))
            self._child.stop_sending()
            if timeout <= 0 or not self._child.join(timeout):
                self._child.kill()
                self._child.join(5.0)
        self._close()

    def kill(self) -> None:
        """End the child at once."""
        self.shutdown(0.0)

    # -- model, volume, session ------------------------------------------------------------------------------------

    def load_model(self, name: str, device: str = "auto", **options: object) -> int:
        """Load a model; `ModelLoaded` follows. Ends the session."""
        command = m.LoadModel(self._ledger.new_job(), name, device, options)
        return self._reopen(command, "another model was chosen", self._ledger.journal.load_model)

    def open_volume(self, volume: Volume) -> int:
        """Hand over a volume; `VolumeOpened` follows. Ends the session.

        The voxels are copied by another thread: do not change them in place before the job is done.
        """
        return self._hand_over(volume, keep_session=False)

    def volume_changed(self, volume: Volume) -> int:
        """Hand over a volume whose voxels were edited; running jobs end, prompts and slices stay, and events that
        were computed from the old voxels no longer come."""
        return self._hand_over(volume, keep_session=True)

    def open_session(
        self,
        window: Window | str = "auto",
        time: int = 0,
        policy: str = "recent",
        policy_parameters: Mapping[str, object] | None = None,
        cache_bytes: int | None = None,
    ) -> int:
        """Start with no objects on the volume with the model."""
        name, low, high = (window, None, None) if isinstance(window, str) else (window.name, window.low, window.high)
        command = m.OpenSession(
            self._ledger.new_job(), name, low, high, time, policy, policy_parameters or {}, cache_bytes
        )
        return self._reopen(command, "the session was opened anew", self._ledger.journal.open_session)

    # -- one slice -------------------------------------------------------------------------------------------------

    def add_prompts(self, object_id: int, *prompts: Prompt) -> int:
        """Add prompts to an object, which is made if it is new; `segment_slice` then answers."""
        return self._change(m.AddPrompts, object_id, tuple(prompts))

    def set_prompts(self, object_id: int, prompts: Iterable[Prompt]) -> int:
        """Replace an object's prompts. Slices that lose all of theirs are answered; outline those that change."""
        return self._change(m.SetPrompts, object_id, tuple(prompts))

    def segment_slice(self, object_id: int, plane: Plane, index: int) -> int:
        """Outline a slice from its prompts; a newer call for the same slice replaces a waiting one."""
        return self._change(m.SegmentSlice, object_id, plane, index)

    def choose_candidate(self, object_id: int, plane: Plane, index: int, candidate: int) -> int:
        """Take another candidate of the slice's outline."""
        return self._change(m.ChooseCandidate, object_id, plane, index, candidate)

    def confirm_slice(self, object_id: int, plane: Plane, index: int, mask: np.ndarray | None = None) -> int:
        """Make a slice the user's own, as painted (rows, columns) bool or as it is."""
        return self._change(m.ConfirmSlice, object_id, plane, index, mask)

    def clear_slice(self, object_id: int, plane: Plane, index: int) -> int:
        """Take back prompts and confirmation of a slice."""
        return self._change(m.ClearSlice, object_id, plane, index)

    def undo(self, object_id: int) -> int:
        """Take back the object's last prompt."""
        return self._change(m.Undo, object_id)

    def remove_object(self, object_id: int) -> int:
        """Forget an object; none of its slices comes any more."""
        return self._change(m.RemoveObject, object_id)

    def protect_voxels(self, object_id: int, voxels: np.ndarray) -> int:
        """Keep painted voxels, (K, J, I) bool, from being overwritten."""
        return self._change(m.ProtectVoxels, object_id, voxels)

    # -- many slices -----------------------------------------------------------------------------------------------

    def propagate(
        self,
        objects: Iterable[int] | None = None,
        *,
        plane: Plane,
        first: int | None = None,
        last: int | None = None,
        direction: str = "both",
        policy: str | None = None,
        policy_parameters: Mapping[str, object] | None = None,
        stop: Mapping[str, float] | None = None,
    ) -> int:
        """Carry objects through the stack, as `VolumeSession.propagate`; `SliceMask` events follow.

        ``stop`` holds fields of a `StopRule` that differ from the default.

        If one of the objects is corrected meanwhile, the propagation starts again from the corrected outline.
        """
        ids = None if objects is None else tuple(objects)
        command = m.Propagate(
            self._ledger.new_job(), plane, ids, first, last, direction, policy, policy_parameters or {}, **(stop or {})
        )  # fmt: skip
        return self._submit(command)

    def repropagate(self, object_id: int, plane: Plane, index: int) -> int:
        """After a correction: carry the object again as far as the neighbouring key slices."""
        command = m.Repropagate(self._ledger.new_job(), object_id, self.revision(object_id), plane, index)
        return self._submit(command)

    def propagate_through_time(
        self, volumes: Sequence[Volume], keys: KeyBlocks, *, plane: Plane, time: int, direction: str = "both"
    ) -> int:
        """Carry objects from one time point to the others; `TimePoint` and `Progress` events follow.

        The session goes on beside it. If the worker dies, the job fails.

        Parameters
        ----------
        volumes
            All time points in order, on one grid. Copied by another thread: do not change them before the first event.
        keys
            By object and time point, what the user left there; nothing is carried to these time points.
        plane
            Whose slices are tracked.
        time
            Where to start; a key of every object.
        direction
            To later time points (``forward``), earlier ones (``backward``), or ``both``.
        """
        child, job = self._running_child(), self._ledger.new_job()
        file = VoxelFile(temporary_folder(self._folder), *volumes)

        def frames(between: Callable[[], None]) -> Iterator[bytes]:
            if file.write(between):
                yield m.encode(time_command(job, file, keys, plane, time, direction))

        self._series_files[job] = file
        self._ledger.jobs[job] = m.PropagateThroughTime(job, "", (), "", (), "", "", plane, time, (), np.zeros(1, bool))
        child.send(frames, job)
        return job

    def suggest_prompts(self, command: m.SuggestPrompts) -> int:
        """Ask a prompt source; `SuggestedPrompts` follows. ``command.job`` is numbered here."""
        return self._submit(replace(command, job=self._ledger.new_job()))

    def prefetch(self, plane: Plane, index: int, radius: int) -> int:
        """When idle, encode the slices around the visible one; replaces an earlier prefetch."""
        command = m.Prefetch(self._ledger.new_job(), plane, index, radius)
        return self._submit(command)

    def get_labelmap(self, object_id: int) -> int:
        """Ask for the object's voxels as they are now; `Labelmap` follows."""
        command = m.GetLabelmap(self._ledger.new_job(), object_id, self.revision(object_id))
        return self._submit(command)

    def cancel(self, job: int, kill_after: float | None = None) -> None:
        """End a job within one slice; with ``kill_after`` seconds, by a new worker if it has not ended by then."""
        if job not in self._ledger.jobs:
            return
        series = self._series_files.get(job)
        if self._running_child().withdraw(job) or (series is not None and series.give_up()):
            self._ready.extend(self._ledger.accept(m.JobCancelled(job), reviving=False))
        else:
            self._child.send_urgent(m.encode(m.Cancel(job)))
            if kill_after is not None:
                self._deadlines[job] = clock.monotonic() + kill_after

    def revision(self, object_id: int) -> int:
        """How often the object's prompts were changed."""
        return self._ledger.revision(object_id)

    # -- answers ---------------------------------------------------------------------------------------------------

    def poll(self, max_items: int = 64, budget_s: float = 0.01) -> list[m.Event]:
        """Events that have arrived, in order; at most so many, and for at most about so long. Never waits."""
        end, events = clock.perf_counter() + budget_s, []
        self._kill_overdue()
        while len(events) < max_items and clock.perf_counter() < end:
            if self._ready:
                events.append(self._ready.popleft())
                self._let_series_go(events[-1].job)
                continue
            try:
                child, item = self._incoming.get_nowait()
            except queue.Empty:
                break
            if child is self._child:
                self._ready.extend(self._accept(item))
        return events

    def _accept(self, item: m.Event | Ended | NotSent) -> Iterator[m.Event]:
        if isinstance(item, Ended):
            yield from self._after_death(item)
            return
        if isinstance(item, NotSent):
            item = m.JobFailed(item.job, type(item.error).__name__, str(item.error))
        if isinstance(item, m.JobDone) and item.job == self._reviving:
            self._reviving = 0
            yield m.WorkerRestarted(0, self.pid or 0)
        if isinstance(item, m.VolumeOpened):
            self._remove_stale_files()
        yield from self._ledger.accept(item, reviving=bool(self._reviving))

    def _after_death(self, ended: Ended) -> Iterator[m.Event]:
        asked, self._restart_reason = self._restart_reason, ""
        now = clock.monotonic()
        if not asked:
            self._deaths = [*(at for at in self._deaths if now - at < RESTART_WINDOW_S), now]
        again = not ended.reason and len(self._deaths) <= MAX_RESTARTS
        sentence = asked or ended.reason or f"The worker stopped unexpectedly ({_exit_text(ended.exit_code)})."
        if not again and not ended.reason:
            sentence += f" It is not started again after {len(self._deaths)} times within a minute: start it by hand."
        logger.warning("%s", sentence)
        yield m.WorkerDied(0, sentence, ended.lines, ended.exit_code, again)
        yield from self._ledger.after_death(again, bool(asked))
        self._deadlines.clear()
        if again:
            self._spawn()
            self._revive(with_model=True)
        else:
            self._child = None

    # -- inside ----------------------------------------------------------------------------------------------------

    def _spawn(self) -> None:
        incoming = self._incoming  # not self: the threads must not keep the client alive
        self._child = ChildProcess(self._command, self._environment(), lambda *delivery: incoming.put(delivery))

    def _revive(self, *, with_model: bool) -> None:
        ping = self._ledger.new_job()
        if with_model:
            self._reviving = ping
        frames = self._ledger.journal.frames(with_model=with_model, ping=ping)
        self._running_child().send(frames, self._ledger.journal.volume_job)

    def _running_child(self) -> ChildProcess:
        if self._child is None:
            raise WorkerError("The worker does not run: start it first.")
        return self._child

    def _submit(self, command: m.Command) -> int:
        self._running_child().send(m.encode(command), command.job)
        self._ledger.jobs[command.job] = command
        return command.job

    def _change(self, kind: type[m.ObjectCommand], object_id: int, *values: object) -> int:
        values = tuple(value.copy() if isinstance(value, np.ndarray) else value for value in values)
        command = kind(self._ledger.new_job(), object_id, self._ledger.revision(object_id) + 1, *values)
        job = self._submit(command)
        self._ledger.changed(command)
        return job

    def _reopen(self, command: AnyCommand, reason: str, note: Callable[[AnyCommand], None]) -> int:
        m.encode(command)  # if it is refused, the session goes on
        self._end_jobs(reason)
        self._ledger.forget_slices()
        note(command)
        return self._submit(command)

    def _hand_over(self, volume: Volume, *, keep_session: bool) -> int:
        child, job = self._running_child(), self._ledger.new_job()
        self._end_jobs("the volume changed" if keep_session else "another volume was opened")
        if self._ledger.journal.volume is not None:
            self._stale_files.append(self._ledger.journal.volume)
        self._remove_stale_files()
        file = VoxelFile(temporary_folder(self._folder), volume)
        if keep_session:
            self._ledger.journal.volume, self._ledger.journal.volume_job = file, job
        else:
            self._ledger.journal.open_volume(file, job)
            self._ledger.forget_slices()
        self._ledger.jobs[job] = m.OpenVolume(job, "", (), "", (), "", "")
        if keep_session:
            self._revive(with_model=False)
        else:
            child.send(lambda between: _volume_frames(file, job, between), job)
        return job

    def _end_jobs(self, reason: str) -> None:
        for event in self._ledger.end_jobs(reason):
            if self._child is not None and not self._child.withdraw(event.job):
                self._child.send_urgent(m.encode(m.Cancel(event.job)))
            self._ready.append(event)

    def _kill_overdue(self) -> None:
        now = clock.monotonic()
        overdue = [job for job, at in self._deadlines.items() if at < now]
        for job in overdue:
            del self._deadlines[job]
        if any(job in self._ledger.jobs for job in overdue):
            self.restart("The worker did not answer and was started again.")

    def _let_series_go(self, job: int) -> None:
        """Remove the voxels of a job through time once it has ended."""
        if job in self._series_files and job not in self._ledger.jobs:
            self._stale_files.append(self._series_files.pop(job))
            self._remove_stale_files()

    def _remove_stale_files(self) -> None:
        self._stale_files = [file for file in self._stale_files if not file.remove()]

    def _close(self) -> None:
        self._child = None
        if self._ledger.journal.volume is not None:
            self._stale_files.append(self._ledger.journal.volume)
        self._ledger = Ledger()
        self._stale_files += self._series_files.values()
        self._series_files.clear()
        self._remove_stale_files()
        self._deadlines.clear()
        self._ready.clear()


def _volume_frames(file: VoxelFile, job: int, between: Callable[[], None]) -> Iterator[bytes]:
    if file.write(between):
        yield m.encode(file.command(job))


def _exit_text(code: int | None) -> str:
    if code is not None and code < 0:
        return "killed; the memory may have been full" if code == -9 else f"signal {-code}"
    return f"exit code {code}"


def _at_exit(client: WorkerClient) -> None:
    """End the child with the host; a client that is gone by then is not kept alive for it."""
    weak = weakref.ref(client)

    def end() -> None:
        if (kept := weak()) is not None and os.getpid() == owner:
            kept.shutdown(0.5)

    owner = os.getpid()
    atexit.register(end)

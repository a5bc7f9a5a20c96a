"""One life of the worker process, seen from the host: three threads around its pipes, so that nobody else waits."""

from __future__ import annotations

import contextlib
import logging
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from SegmentAnythingMedLib.errors import SegmentAnythingMedError, WorkerError
from SegmentAnythingMedLib.worker.messages import EVENTS, Event
from SegmentAnythingMedLib.worker.transport import receive, write_all

logger = logging.getLogger(__name__)

Frames = Callable[[Callable[[], None]], Iterable[bytes]]
"""Makes frames in the writing thread; calls its argument now and then so that urgent frames overtake."""

_KEPT_LINES = 200
_END_SECONDS = 5.0


@dataclass(frozen=True)
class Ended:
    """The child is gone.

    Parameters
    ----------
    exit_code
        None if it never started.
    reason
        Set if starting it again is of no use.
    """

    exit_code: int | None
    lines: tuple[str, ...]
    reason: str = ""


@dataclass(frozen=True)
class NotSent:
    """Frames of a job could not be made."""

    job: int
    error: SegmentAnythingMedError


class ChildProcess:
    """Starts the process at once, without waiting for it.

    Parameters
    ----------
    command, environment
        As for `subprocess.Popen`.
    deliver
        Called with every event, and last with `Ended`, from threads of this object.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        deliver: Callable[[ChildProcess, Event | Ended | NotSent], None],
    ) -> None:
        self._command, self._environment, self._deliver = list(command), dict(environment), deliver
        self._process: subprocess.Popen[bytes] | None = None
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._waiting: deque[tuple[int, bytes | Frames]] = deque()
        self._urgent: deque[bytes] = deque()
        self._changed = threading.Condition()
        self._stopping = self._killed = False
        self._ended = threading.Event()
        self._stderr_done = threading.Event()
        threading.Thread(target=self._write, name="worker-writer", daemon=True).start()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def lines(self) -> tuple[str, ...]:
        """The last lines of its standard error."""
        return tuple(self._lines)

    def send(self, frames: bytes | Frames, job: int = 0) -> None:
        """Send after everything before; a callable is called in the writing thread, its errors become `NotSent`."""
        with self._changed:
            self._waiting.append((job, frames))
            self._changed.notify()

    def withdraw(self, job: int) -> bool:
        """Take back what is not on its way yet; False if there is nothing."""
        with self._changed:
            kept = [item for item in self._waiting if item[0] != job]
            found = len(kept) < len(self._waiting)
            self._waiting = deque(kept)
        return found

    def send_urgent(self, frame: bytes) -> None:
        """Send before everything that waits."""
        with self._changed:
            self._urgent.append(frame)
            self._changed.notify()

    def stop_sending(self) -> None:
        """Close its standard input once urgent frames are sent."""
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def kill(self) -> None:
        """End it at once.

        The signal goes before its standard input is closed: on an end of input the child would take its host for dead
        and delete the voxels that the next child needs.
        """
        with self._changed:
            self._killed = True
        if self._process is not None:
            self._process.kill()
        self.stop_sending()

    def join(self, timeout: float) -> bool:
        """Wait until it is gone; False if it is not."""
        return self._ended.wait(timeout)

    def _write(self) -> None:
        """Runs in the writing thread, which also starts the process: that can take 30 ms."""
        process = self._start()
        if process is None:
            return
        readers = [
            threading.Thread(target=target, args=(process,), name=name, daemon=True)
            for name, target in (("worker-reader", self._read), ("worker-stderr", self._read_errors))
        ]
        readers[1].start()
        readers[0].start()
        try:
            while self._wait_for_work():
                with self._changed:
                    item = self._waiting.popleft() if self._waiting and not self._stopping else None
                self._send_urgent_frames()
                if item is not None:
                    self._send_frames(*item)
        except OSError:  # the child is gone; the reading thread says so
            pass
        finally:
            with contextlib.suppress(OSError):
                process.stdin.close()

    def _start(self) -> subprocess.Popen[bytes] | None:
        own = {"start_new_session": True}
        if sys.platform == "win32":
            own = {"creationflags": subprocess.CREATE_NO_WINDOW | subprocess.BELOW_NORMAL_PRIORITY_CLASS}
        pipe = subprocess.PIPE
        try:
            process = subprocess.Popen(
                self._command, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0, env=self._environment, **own
            )
        except (OSError, ValueError) as error:
            reason = f"The worker cannot be started: {getattr(error, 'strerror', None) or error}."
            self._finish(Ended(None, (), reason))
            return None
        self._process = process
        if self._killed:
            process.kill()
        return process

    def _wait_for_work(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._urgent or self._waiting or self._stopping)
            return bool(self._urgent) or not self._stopping

    def _send_urgent_frames(self) -> None:
        while self._urgent:
            write_all(self._process.stdin, self._urgent.popleft())

    def _send_frames(self, job: int, frames: bytes | Frames) -> None:
        if isinstance(frames, bytes):
            write_all(self._process.stdin, frames)
            return
        try:
            for frame in frames(self._send_urgent_frames):
                write_all(self._process.stdin, frame)
                self._send_urgent_frames()
        except SegmentAnythingMedError as error:
            self._deliver(self, NotSent(job, error))

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        reason = ""
        try:
            while (event := receive(process.stdout, EVENTS)) is not None:
                self._deliver(self, event)
        except WorkerError as error:
            logger.warning("The worker's answer was refused: %s", error)
            reason = str(error)
        except OSError:
            pass
        finally:
            exit_code = self._wait_for_end(process, bool(reason))
            self._finish(Ended(exit_code, self.lines, reason))

    def _wait_for_end(self, process: subprocess.Popen[bytes], refused: bool) -> int:
        if refused:
            process.kill()
        try:
            return process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()
        finally:
            process.stdout.close()
            self._stderr_done.wait(_END_SECONDS)

    def _read_errors(self, process: subprocess.Popen[bytes]) -> None:
        left = b""
        with process.stderr as stream:
            while chunk := stream.read(8192):
                *lines, left = (left + chunk).split(b"\n")
                self._lines.extend(line.decode("utf-8", "replace").rstrip()[:1000] for line in lines)
                left = left[-8192:]
        if left:
            self._lines.append(left.decode("utf-8", "replace")[:1000])
        self._stderr_done.set()

    def _finish(self, ended: Ended) -> None:
        self.stop_sending()
        self._deliver(self, ended)
        self._ended.set()

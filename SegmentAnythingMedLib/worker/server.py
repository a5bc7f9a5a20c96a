"""The worker's loop: one thread reads commands, one runs them for life and sends events."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from SegmentAnythingMedLib.errors import SegmentAnythingMedError, WorkerError
from SegmentAnythingMedLib.worker import messages as m
from SegmentAnythingMedLib.worker.mailbox import Mailbox, lane_of
from SegmentAnythingMedLib.worker.transport import ByteReader, ByteWriter, Sender, receive
from SegmentAnythingMedLib.worker.workbench import Registry, Workbench

logger = logging.getLogger(__name__)

_OUT_OF_MEMORY = (
    "The memory is not enough for this step. Nothing already outlined is lost: close other programs, or choose a "
    "smaller model or cache, and try again."
)
_REFUSED = 3


class Server:
    """Serves one host until it says so or goes away.

    Parameters
    ----------
    commands, events
        Where frames come from and go to.
    registry
        Where models come from; by default the library's.
    """

    def __init__(self, commands: ByteReader, events: ByteWriter, registry: Registry | None = None) -> None:
        self._commands = commands
        self._sender = Sender(events)
        self._mailbox = Mailbox()
        self._workbench = Workbench(registry)

    def serve(self) -> None:
        """Run until the host ends it; the calling thread becomes the inference thread."""
        logging.getLogger().addHandler(_LogSender(self._send))
        self._send(m.Ready(0, os.getpid(), ".".join(map(str, sys.version_info[:3]))))
        threading.Thread(target=self._read, name="commands", daemon=True).start()
        while (command := self._mailbox.wait()) is not None:
            self._run(command)

    def _read(self) -> None:
        """Runs in the reading thread; the end of the stream means that the host is gone, whatever runs here."""
        try:
            while (command := receive(self._commands, m.COMMANDS)) is not None:
                if isinstance(command, m.Shutdown):
                    self._mailbox.close()
                    return
                self._take(command)
        except WorkerError as error:
            logger.error("A command was refused: %s", error)
            os._exit(_REFUSED)
        except OSError:
            pass
        self._abandon()

    def _take(self, command: m.Command) -> None:
        if isinstance(command, m.Cancel):
            if self._mailbox.cancel(command.job):
                self._send(m.JobCancelled(command.job))
            return
        for job, reason in self._mailbox.put(command):
            self._send(m.JobCancelled(job, reason))

    def _run(self, command: m.Command) -> None:
        """Run a command to its end, and between its slices whatever is more urgent."""
        try:
            self._send(self._perform(command))
        except SegmentAnythingMedError as error:
            self._send(m.JobFailed(command.job, type(error).__name__, str(error)))
        except Exception as error:  # noqa: BLE001 - a bug in any model must not end the session of the user
            self._fail(command, error)
        finally:
            self._mailbox.finished(command.job)

    def _perform(self, command: m.Command) -> m.Event:
        start, slices, before = time.perf_counter(), 0, self._workbench.stage_seconds
        with contextlib.closing(self._workbench.perform(command)) as events:
            for event in events:
                if not self._mailbox.is_outdated(command):
                    self._send(event)
                    slices += isinstance(event, m.SliceMask)
                while (urgent := self._mailbox.more_urgent(lane_of(command))) is not None:
                    self._run(urgent)
                if (reason := self._mailbox.cancelled(command.job)) is not None:
                    return m.JobCancelled(command.job, reason)
        after = self._workbench.stage_seconds
        stages = {stage: after[stage] - before.get(stage, 0.0) for stage in after}
        return m.JobDone(command.job, {"seconds": time.perf_counter() - start, "slices": slices, "stages": stages})

    def _fail(self, command: m.Command, error: Exception) -> None:
        logger.error("%s failed: %s", type(command).__name__, _summary(error))
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            error.__traceback__ = None  # its frames hold the arrays that filled the memory
            self._workbench.free_memory()
            self._send(m.JobFailed(command.job, "MemoryError", _OUT_OF_MEMORY))
            return
        name = type(error).__name__
        sentence = f"The model failed ({name}); the log says where. What is already outlined is kept: try again."
        self._send(m.JobFailed(command.job, name, sentence))

    def _send(self, event: m.Event) -> None:
        try:
            self._sender(event)
        except OSError:
            self._abandon()

    def _abandon(self) -> None:
        """The host is gone without a word: leave nothing behind, wherever the inference thread is."""
        self._workbench.remove_voxel_file()
        os._exit(0)


class _LogSender(logging.Handler):
    """Sends warnings and errors of any library to the host."""

    def __init__(self, send: Callable[[m.Event], None]) -> None:
        super().__init__(logging.WARNING)
        self._send_event = send

    def emit(self, record: logging.LogRecord) -> None:
        self._send_event(m.Log(0, record.levelname, without_paths(record.getMessage())))


def without_paths(line: str) -> str:
    """A log line in which paths, that often hold names of patients, are left out."""
    line = re.sub(r"""(['"])[^'"\n]*[\\/][^'"\n]*\1""", "<path>", line)
    return re.sub(r"""(?:[A-Za-z]:)?[\\/](?:[^\\/\n'"<>|]*[\\/])*[^\\/\s'",;:()<>|]*""", "<path>", line)


def _summary(error: BaseException) -> str:
    """Where an exception came from: file names without folders, and its message without paths."""
    frames = traceback.extract_tb(error.__traceback__)[-8:]
    where = " > ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames)
    return f"{type(error).__name__}: {without_paths(str(error))[:500]} at {where}"

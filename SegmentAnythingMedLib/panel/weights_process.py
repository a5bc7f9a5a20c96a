"""A task with weights in a process of its own, seen from the panel: it is polled and never waited for."""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import sys
import threading
from dataclasses import asdict, dataclass
from typing import Any

from SegmentAnythingMedLib.models.weights.task import Outcome, Task
from SegmentAnythingMedLib.worker.environment import worker_environment

_MODULE = "SegmentAnythingMedLib.models.weights.task"
_UNKNOWN = "The background process ended without a word"


@dataclass(frozen=True)
class Step:
    """Bytes of a download that are here, and of the whole file, or None if that is not known."""

    done: int
    total: int | None


@dataclass(frozen=True)
class Stopped:
    """The task was not done.

    Parameters
    ----------
    error
        Why, as a sentence; empty if it was cancelled.
    """

    error: str = ""


News = Step | Outcome | Stopped


class WeightsProcess:
    """Starts a task at once, in a thread; returns immediately.

    Parameters
    ----------
    task
        What is to be done.
    python
        Interpreter to run it with.
    """

    def __init__(self, task: Task, python: str = sys.executable) -> None:
        self._task, self._python = task, python
        self._news: queue.SimpleQueue[News] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._cancelled = False
        threading.Thread(target=self._run, name="weights-task", daemon=True).start()

    def poll(self) -> list[News]:
        """What happened since the last call; the last of all is an `Outcome` or a `Stopped`."""
        found = []
        with contextlib.suppress(queue.Empty):
            while True:
                found.append(self._news.get_nowait())
        return found

    def cancel(self) -> None:
        """Ask it to stop; a `Stopped` follows."""
        with self._lock:
            self._cancelled = True
            if self._process is not None:
                with contextlib.suppress(OSError):
                    self._process.stdin.close()

    def _run(self) -> None:
        try:
            last = self._listen(self._start())
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            last = Stopped(f"The background process cannot be started ({reason}): try again.")
        self._news.put(last)

    def _start(self) -> subprocess.Popen[str]:
        own = {"start_new_session": True}
        if sys.platform == "win32":
            own = {"creationflags": subprocess.CREATE_NO_WINDOW | subprocess.BELOW_NORMAL_PRIORITY_CLASS}
        process = subprocess.Popen(
            [self._python, "-m", _MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=worker_environment(),
            encoding="utf-8",
            errors="replace",
            **own,
        )
        with self._lock:
            self._process = process
            with contextlib.suppress(OSError):
                process.stdin.write(json.dumps(asdict(self._task)) + "\n")
                process.stdin.flush()
                if self._cancelled:
                    process.stdin.close()
        return process

    def _listen(self, process: subprocess.Popen[str]) -> News:
        """Pass on what it says, and return how it ended."""
        last, words = None, ""
        with process.stdout as stream:
            for line in stream:
                news = _read(line)
                if isinstance(news, Step):
                    self._news.put(news)
                elif news is not None:
                    last = news
                else:
                    words = line.strip() or words
        with contextlib.suppress(OSError), self._lock:
            process.stdin.close()
        process.wait()
        if last is None:
            last = Stopped() if self._cancelled else Stopped(f"{_UNKNOWN} ({words[:300]}): try again.")
        return last


def _read(line: str) -> News | None:
    """A line of the process, or None if it is no message but a warning or a traceback."""
    try:
        message: dict[str, Any] = json.loads(line)
        if "ended" in message:
            return Outcome(**message["ended"])
        if "done" in message:
            return Step(message["done"], message["total"])
        return Stopped(message.get("error", ""))
    except (ValueError, TypeError, KeyError, AttributeError):
        return None

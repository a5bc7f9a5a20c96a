"""Running pip without blocking the window: through slicer.packaging where Slicer has it, else as a process."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence

import qt
import slicer

OnLine = Callable[[str], None]
OnDone = Callable[[int], None]
REQUESTER = "Segment Anything Med"

_running: list[PipProcess] = []


def slicer_python() -> str:
    """Slicer's Python interpreter; this process's own where there is none (tests)."""
    return shutil.which("PythonSlicer") or sys.executable


def run_pip(arguments: Sequence[str], on_line: OnLine, on_done: OnDone) -> None:
    """Run ``pip install`` with arguments; returns at once.

    Parameters
    ----------
    arguments
        What follows ``pip install``.
    on_line
        Called with every line that pip prints.
    on_done
        Called once with the exit status; 0 is success.
    """
    packaging = _slicer_packaging()
    if packaging is not None:
        packaging.pip_install(
            list(arguments),
            blocking=False,
            requester=REQUESTER,
            logCallback=on_line,
            completedCallback=on_done,
        )
        return
    PipProcess([slicer_python(), "-m", "pip", "install", *arguments], on_line, on_done).start()


def _slicer_packaging() -> object | None:
    """``slicer.packaging`` came with Slicer 5.12; under test it would block and never call back."""
    if slicer.app.testingEnabled():
        return None
    try:
        from slicer import packaging
    except ImportError:
        return None
    return packaging if hasattr(packaging, "pip_install") else None


class PipProcess:
    """One run of pip as a child process, for Slicer 5.10.

    Parameters
    ----------
    command
        Interpreter and arguments.
    on_line, on_done
        As for `run_pip`.
    """

    def __init__(self, command: Sequence[str], on_line: OnLine, on_done: OnDone) -> None:
        self._command = list(command)
        self._on_line, self._on_done = on_line, on_done
        self._rest = ""
        self._process = qt.QProcess()
        self._process.setProcessChannelMode(qt.QProcess.MergedChannels)
        self._process.connect("readyReadStandardOutput()", self._read)
        self._process.connect("finished(int,QProcess::ExitStatus)", self._finished)
        self._process.connect("errorOccurred(QProcess::ProcessError)", self._failed)

    def start(self) -> None:
        """Start it; it is kept until it ends."""
        _running.append(self)
        self._process.start(self._command[0], self._command[1:])

    def _read(self) -> None:
        printed = self._process.readAllStandardOutput().data()
        self._rest += printed.decode("utf-8", "replace") if isinstance(printed, bytes) else str(printed)
        *lines, self._rest = self._rest.split("\n")
        for line in lines:
            self._on_line(line.rstrip())

    def _failed(self, _error: object) -> None:
        if self._process.state() == qt.QProcess.NotRunning and self in _running:
            self._on_line(f"{self._command[0]} could not be started: {self._process.errorString()}")
            self._end(1)

    def _finished(self, code: int, status: object) -> None:
        if self not in _running:
            return
        self._read()
        if self._rest:
            self._on_line(self._rest)
        self._end(code if status == qt.QProcess.NormalExit else code or 1)

    def _end(self, code: int) -> None:
        _running.remove(self)
        self._on_done(code)

"""A timer as a host has one, and how long what it calls holds the thread."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import TypeVar

from SegmentAnythingMedLib.errors import WorkerError

TICK_S = 0.03
AIM_MS = 50.0
_PATIENCE_S = 600.0

Answer = TypeVar("Answer")


@dataclass
class Phase:
    """What was measured while one thing was done.

    Parameters
    ----------
    name
        What the user did.
    calls
        (wall, own) milliseconds of every call of our code: the time it took, and how much of that this thread was
        computing; the rest it waited for a core or a lock.
    shown
        Milliseconds per slice put into the preview.
    late
        Milliseconds by which the timer woke up too late, although nothing of ours held it.
    """

    name: str
    calls: list[tuple[float, float]] = field(default_factory=list)
    shown: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)

    @property
    def longest(self) -> tuple[float, float]:
        """(wall, own) milliseconds of the call that took longest."""
        return max(self.calls, default=(0.0, 0.0))

    @property
    def most_computing(self) -> float:
        """Milliseconds of the call that computed longest."""
        return max((own for _, own in self.calls), default=0.0)

    @property
    def latest(self) -> float:
        return max(self.late, default=0.0)

    def figures(self) -> dict[str, float | int | str]:
        """As plain numbers; ``show`` is -1 where no slice was shown."""
        wall, own = self.longest
        return {
            "phase": self.name,
            "longest_ms": round(wall, 1),
            "longest_own_ms": round(own, 1),
            "most_computing_ms": round(self.most_computing, 1),
            "over_50_ms": sum(wall > AIM_MS for wall, _ in self.calls),
            "computing_over_50_ms": sum(own > AIM_MS for _, own in self.calls),
            "calls": len(self.calls),
            "slices": len(self.shown),
            "show_median_ms": round(median(self.shown), 2) if self.shown else -1,
            "show_max_ms": round(max(self.shown), 2) if self.shown else -1,
            "timer_late_ms": round(self.latest, 1),
        }


class Watchdog:
    """Calls something every 30 ms on this thread, as a host's timer does, and times it."""

    def __init__(self) -> None:
        self.phases: list[Phase] = []

    def begin(self, name: str) -> Phase:
        """What is called from now on belongs to a phase of this name."""
        self.phases.append(Phase(name))
        return self.phases[-1]

    def timed(self, call: Callable[[], Answer]) -> Answer:
        """Call something that a host calls, and note how long it held the thread."""
        started, own = time.perf_counter(), time.thread_time()
        try:
            return call()
        finally:
            ended = time.perf_counter()
            self.phases[-1].calls.append((1e3 * (ended - started), 1e3 * (time.thread_time() - own)))

    def run(self, call: Callable[[], object], done: Callable[[], bool]) -> None:
        """Let the timer call until something holds.

        Raises
        ------
        WorkerError
            If that takes longer than ten minutes.
        """
        end = time.perf_counter() + _PATIENCE_S
        due = time.perf_counter()
        while not done():
            if time.perf_counter() > end:
                raise WorkerError(f"{self.phases[-1].name!r} was not done within {_PATIENCE_S:.0f} s.")
            due = max(due + TICK_S, time.perf_counter())
            time.sleep(max(due - time.perf_counter(), 0.0))
            self.phases[-1].late.append(1e3 * (time.perf_counter() - due))
            self.timed(call)

    def idle(self, seconds: float) -> Phase:
        """The same timer calling nothing: what this machine does to it by itself."""
        phase, end = self.begin("nothing is called"), time.perf_counter() + seconds
        self.run(lambda: None, lambda: time.perf_counter() > end)
        return phase

"""The timer that polls the controller: quick while something runs, slow otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import qt

if TYPE_CHECKING:
    from SegmentAnythingMedLib.mrml.controller import Controller

BUSY_MS = 30
IDLE_MS = 200


class EventPump:
    """Polls the controller, then lets the panel look; from `start` to `stop`.

    Parameters
    ----------
    controller
        Is polled, also while another module is shown: a propagation goes on.
    look
        Called after every poll.
    """

    def __init__(self, controller: Controller, look: Callable[[], None]) -> None:
        self._controller = controller
        self._look = look
        self._timer = qt.QTimer()
        self._timer.setInterval(IDLE_MS)
        self._timer.connect("timeout()", self.beat)
        self._unobserve = controller.observe(self.hurry)

    def start(self) -> None:
        """Begin."""
        self._timer.start()

    def stop(self) -> None:
        """End, for good."""
        self._timer.stop()
        self._unobserve()

    @property
    def interval_ms(self) -> int:
        """Milliseconds between two polls."""
        return self._timer.interval

    def hurry(self) -> None:
        """Something changed: poll soon."""
        if self._timer.interval != BUSY_MS:
            self._timer.setInterval(BUSY_MS)

    def beat(self) -> None:
        """Poll once."""
        self._controller.poll()
        self._look()
        interval = BUSY_MS if is_busy(self._controller) else IDLE_MS
        if self._timer.interval != interval:
            self._timer.setInterval(interval)


def is_busy(controller: Controller) -> bool:
    """Whether answers of the worker or steps of writing are waited for."""
    return bool(controller.link.jobs) or controller.outlining.is_busy or controller.is_writing

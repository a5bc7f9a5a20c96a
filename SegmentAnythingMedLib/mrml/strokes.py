"""Drawing with a held mouse button in a slice view: scribbles, lassos and dragged boxes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from SegmentAnythingMedLib.mrml.slice_views import ras_from_display

if TYPE_CHECKING:
    import vtk
    from slicer import vtkMRMLSliceNode

_PRIORITY = 10.0
"""Above the slice view's own interactor style, which must not pan or window while the user draws."""

_TOLERANCE_PIXELS = 0.5
_CLICK_PIXELS = 3.0


class StrokeDrawing:
    """Turns drags in one slice view into curves, until `stop`.

    Parameters
    ----------
    interactor
        Of the view's render window.
    view
        Slice node of the view.
    on_stroke
        Called with (N, 3) world RAS, N >= 2, when the button is released. Drags shorter than 3 pixels are no strokes.
    on_progress
        Called with the same while the drag goes on, for a host that shows it.
    """

    def __init__(
        self,
        interactor: vtk.vtkRenderWindowInteractor,
        view: vtkMRMLSliceNode,
        on_stroke: Callable[[np.ndarray], None],
        on_progress: Callable[[np.ndarray], None] | None = None,
    ) -> None:
        self._interactor = interactor
        self._view = view
        self._on_stroke = on_stroke
        self._on_progress = on_progress
        self._pixels: list[tuple[float, float]] | None = None
        events = {
            "LeftButtonPressEvent": self._pressed,
            "MouseMoveEvent": self._moved,
            "LeftButtonReleaseEvent": self._released,
        }
        self._tags = {
            name: interactor.AddObserver(name, self._aborting(name, handle), _PRIORITY)
            for name, handle in events.items()
        }

    def stop(self) -> None:
        """Give the mouse back to the view."""
        for tag in self._tags.values():
            self._interactor.RemoveObserver(tag)
        self._tags = {}
        self._pixels = None

    def _aborting(self, name: str, handle: Callable[[], bool]) -> Callable[..., None]:
        """An observer that keeps the event from the view when ``handle`` says it was ours."""

        def observe(caller: vtk.vtkObject, _event: str) -> None:
            command = caller.GetCommand(self._tags[name])
            if handle() and command is not None:
                command.SetAbortFlag(1)

        return observe

    def _pressed(self) -> bool:
        self._pixels = [self._interactor.GetEventPosition()]
        return True

    def _moved(self) -> bool:
        if self._pixels is None:
            return False
        position = self._interactor.GetEventPosition()
        if position != self._pixels[-1]:
            self._pixels.append(position)
            if self._on_progress is not None:
                self._on_progress(self._in_world(self._pixels))
        return True

    def _released(self) -> bool:
        if self._pixels is None:
            return False
        pixels, self._pixels = self._pixels, None
        if np.ptp(np.array(pixels), axis=0).max() >= _CLICK_PIXELS:
            self._on_stroke(self._in_world(simplified(np.array(pixels, dtype=np.float64), _TOLERANCE_PIXELS)))
        return True

    def _in_world(self, pixels: list[tuple[float, float]] | np.ndarray) -> np.ndarray:
        return np.array([ras_from_display(self._view, *position) for position in pixels])


def simplified(points: np.ndarray, tolerance: float) -> np.ndarray:
    """The fewest of (N, 2) points that stay within ``tolerance`` of the curve (Douglas and Peucker 1973)."""
    keep = np.zeros(len(points), dtype=bool)
    keep[[0, -1]] = True
    spans = [(0, len(points) - 1)]
    while spans:
        first, last = spans.pop()
        if last - first < 2:
            continue
        start, chord = points[first], points[last] - points[first]
        offsets = points[first + 1 : last] - start
        length = np.linalg.norm(chord)
        along = np.clip(offsets @ chord / length**2, 0, 1) if length > 0 else np.zeros(len(offsets))
        distance = np.linalg.norm(offsets - along[:, np.newaxis] * chord, axis=1)
        farthest = int(np.argmax(distance))
        if distance[farthest] > tolerance:
            middle = first + 1 + farthest
            keep[middle] = True
            spans += [(first, middle), (middle, last)]
    return points[keep]

"""Scribbles, lassos and dragged boxes: a held left button in any slice view while such a prompt is placed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np
import vtk

from SegmentAnythingMedLib.mrml.frame import array_of
from SegmentAnythingMedLib.mrml.markup_kinds import KINDS
from SegmentAnythingMedLib.mrml.strokes import StrokeDrawing

if TYPE_CHECKING:
    from slicer import vtkMRMLSliceNode

    from SegmentAnythingMedUI.views import SliceWidget

DRAWN = ("scribble", "background-scribble", "lasso", "box")
CLICKED = ("lasso", "box")
"""Kinds that can be placed by clicks, too: a drag of less than 3 pixels goes on to the view as a click."""

_BEFORE_STROKES = 11.0
_CLICK_PIXELS = 3


class Drawing:
    """Turns drags in the slice views into prompts of the kind that is placed.

    Parameters
    ----------
    on_drawn
        Called with kind, (N, 3) world RAS and the view's slice node.
    """

    def __init__(self, on_drawn: Callable[[str, np.ndarray, vtkMRMLSliceNode], None]) -> None:
        self._on_drawn = on_drawn
        self._kind = ""
        self._pens: list[_Pen] = []

    @property
    def kind(self) -> str:
        """What a drag makes now; empty where the mouse is the view's own."""
        return self._kind

    def follow(self, kind: str, views: Callable[[], Iterable[SliceWidget]]) -> None:
        """Take the left button in all views for a kind of prompt, or give it back."""
        kind = kind if kind in DRAWN else ""
        if kind == self._kind:
            return
        self.stop()
        self._kind = kind
        if kind:
            self._pens = [_Pen(view, kind, self._on_drawn) for view in views()]

    def stop(self) -> None:
        """Give the mouse back to the views."""
        for pen in self._pens:
            pen.stop()
        self._pens, self._kind = [], ""


class _Pen:
    """Drawing in one view: the stroke, the line that shows it, and clicks that are let through."""

    def __init__(
        self, view: SliceWidget, kind: str, on_drawn: Callable[[str, np.ndarray, vtkMRMLSliceNode], None]
    ) -> None:
        self._view, self._kind, self._on_drawn = view, kind, on_drawn
        self._trace = _Trace(view, kind)
        self._pressed: tuple[int, int] | None = None
        self._tags: list[int] = []
        self._begin()
        if kind in CLICKED:
            interactor = view.interactor
            self._tags = [
                interactor.AddObserver("LeftButtonPressEvent", self._press, _BEFORE_STROKES),
                interactor.AddObserver("LeftButtonReleaseEvent", self._release, _BEFORE_STROKES),
            ]

    def stop(self) -> None:
        self._stroke.stop()
        self._trace.clear()
        for tag in self._tags:
            self._view.interactor.RemoveObserver(tag)
        self._tags = []

    def _begin(self) -> None:
        self._stroke = StrokeDrawing(self._view.interactor, self._view.node, self._drawn, self._trace.show)

    def _drawn(self, points_ras: np.ndarray) -> None:
        self._trace.clear()
        ends = points_ras[[0, -1]] if self._kind == "box" else points_ras
        self._on_drawn(self._kind, ends, self._view.node)

    def _press(self, *_: object) -> None:
        self._pressed = self._view.interactor.GetEventPosition()

    def _release(self, *_: object) -> None:
        pressed, self._pressed = self._pressed, None
        now = self._view.interactor.GetEventPosition()
        if pressed is None or max(abs(now[0] - pressed[0]), abs(now[1] - pressed[1])) >= _CLICK_PIXELS:
            return
        self._stroke.stop()  # a click: say press again without us; this release then reaches the view by itself
        self._trace.clear()
        self._view.interactor.InvokeEvent("LeftButtonPressEvent")
        self._pressed = None
        self._begin()


class _Trace:
    """The line under the pen, an overlay of the view's window in display pixels."""

    def __init__(self, view: SliceWidget, kind: str) -> None:
        self._view, self._is_box, self._is_closed = view, kind == "box", kind in CLICKED
        self._lines = vtk.vtkPolyData()
        mapper = vtk.vtkPolyDataMapper2D()
        mapper.SetInputData(self._lines)
        self._actor = vtk.vtkActor2D()
        self._actor.SetMapper(mapper)
        self._actor.GetProperty().SetColor(*KINDS[kind].color)
        self._actor.GetProperty().SetLineWidth(2)
        self._is_shown = False

    def show(self, points_ras: np.ndarray) -> None:
        """Show (N, 3) world positions joined by lines; a box by its two last corners."""
        renderer = self._renderer()
        if renderer is None:
            return
        pixels = self._pixels(points_ras)
        if self._is_box:
            (x0, y0), (x1, y1) = pixels[0], pixels[-1]
            pixels = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
        count = len(pixels) + (1 if self._is_closed else 0)
        points, line = vtk.vtkPoints(), vtk.vtkCellArray()
        for x, y in pixels:
            points.InsertNextPoint(float(x), float(y), 0.0)
        line.InsertNextCell(count)
        for n in range(count):
            line.InsertCellPoint(n % len(pixels))
        self._lines.SetPoints(points)
        self._lines.SetLines(line)
        if not self._is_shown:
            renderer.AddViewProp(self._actor)
            self._is_shown = True
        self._view.interactor.Render()

    def clear(self) -> None:
        """Take the line away."""
        renderer = self._renderer()
        if self._is_shown and renderer is not None:
            renderer.RemoveViewProp(self._actor)
            self._view.interactor.Render()
        self._is_shown = False

    def _pixels(self, points_ras: np.ndarray) -> np.ndarray:
        to_pixels = np.linalg.inv(array_of(self._view.node.GetXYToRAS()))
        return (points_ras @ to_pixels[:3, :3].T + to_pixels[:3, 3])[:, :2]

    def _renderer(self) -> vtk.vtkRenderer | None:
        window = self._view.interactor.GetRenderWindow()
        return window.GetRenderers().GetFirstRenderer() if window is not None else None

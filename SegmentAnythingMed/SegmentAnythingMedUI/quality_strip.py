"""The strip chart of the review: predicted quality, overlap and presence along the slices; a click jumps there."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING

import qt
from slicer.i18n import tr as _

if TYPE_CHECKING:
    from SegmentAnythingMedLib.mrml.controller_review import SliceReview

HEIGHT = 62
_TOP, _BOTTOM, _SIDE = 9, 13, 4
_WIDEST_BAR = 16.0

LIGHT = {
    "plain": (92, 134, 180),
    "weak": (214, 106, 12),
    "prompted": (40, 78, 140),
    "confirmed": (38, 138, 74),
    "line": (60, 60, 60),
    "grid": (190, 190, 190),
    "cursor": (190, 20, 60),
}
DARK = {
    "plain": (104, 150, 200),
    "weak": (255, 160, 60),
    "prompted": (160, 200, 255),
    "confirmed": (96, 208, 136),
    "line": (225, 225, 225),
    "grid": (95, 95, 95),
    "cursor": (255, 110, 140),
}


class QualityStrip(qt.QWidget):
    """A bar per slice: its height is the predicted quality, its colour and mark what the slice is.

    Parameters
    ----------
    on_jump
        Called with the index of the slice that was clicked on.
    """

    def __init__(self, on_jump: Callable[[int], None]) -> None:
        qt.QWidget.__init__(self)
        self._on_jump = on_jump
        self._slices: tuple[SliceReview, ...] = ()
        self._shown: int | None = None
        self.setMinimumHeight(HEIGHT)
        self.setMouseTracking(True)

    def show_slices(self, slices: tuple[SliceReview, ...], shown: int | None) -> None:
        """Draw other slices; ``shown`` is the index that the view shows, or None."""
        if (slices, shown) != (self._slices, self._shown):
            self._slices, self._shown = slices, shown
            self.update()

    def index_at(self, x: float) -> int | None:
        """The slice under a pixel column; the nearest where there is none; None on an empty strip."""
        if not self._slices:
            return None
        first, step = self._scale()
        wanted = first + (x - _SIDE) / step - 0.5
        return min(self._slices, key=lambda item: abs(item.index - wanted)).index

    def paintEvent(self, _event: qt.QPaintEvent) -> None:  # noqa: N802
        painter = qt.QPainter(self)
        try:
            self._paint(painter)
        finally:
            painter.end()

    def mousePressEvent(self, event: qt.QMouseEvent) -> None:  # noqa: N802
        index = self.index_at(_x_of(event))
        if index is not None:
            self._on_jump(index)

    def mouseMoveEvent(self, event: qt.QMouseEvent) -> None:  # noqa: N802
        index = self.index_at(_x_of(event))
        found = [item for item in self._slices if item.index == index]
        self.setToolTip(sentence(found[0]) if found else "")

    def _scale(self) -> tuple[int, float]:
        """Index at the left end, and pixels per slice."""
        first, last = self._slices[0].index, self._slices[-1].index
        return first, min(max(1.0, self.width - 2 * _SIDE) / (last - first + 1), _WIDEST_BAR)

    def _paint(self, painter: qt.QPainter) -> None:
        colors = {name: qt.QColor(*rgb) for name, rgb in (DARK if is_dark(self) else LIGHT).items()}
        if not self._slices:
            painter.setPen(colors["grid"])
            painter.drawRect(0, 0, self.width - 1, self.height - 1)
            painter.setPen(self.palette.color(qt.QPalette.Disabled, qt.QPalette.WindowText))
            text = _("Quality along the slices appears here.")
            painter.drawText(qt.QRect(0, 0, self.width, self.height), qt.Qt.AlignCenter, text)
            return
        self._paint_grid(painter, colors)
        for item in self._slices:
            self._paint_bar(painter, colors, item)
        self._paint_overlap(painter, colors)
        self._paint_cursor(painter, colors)

    def _y(self, value: float) -> int:
        room = self.height - _TOP - _BOTTOM
        return int(round(_TOP + room * (1 - min(max(value, 0.0), 1.0))))

    def _x(self, index: int) -> tuple[int, int]:
        first, step = self._scale()
        left = _SIDE + (index - first) * step
        return int(round(left)), max(1, int(round(left + step)) - int(round(left)) - (1 if step >= 4 else 0))

    def _paint_grid(self, painter: qt.QPainter, colors: dict[str, qt.QColor]) -> None:
        painter.setPen(colors["grid"])
        for value in (0.0, 1.0):
            painter.drawLine(_SIDE, self._y(value), self.width - _SIDE, self._y(value))
        dotted = qt.QPen(colors["weak"])
        dotted.setStyle(qt.Qt.DotLine)
        painter.setPen(dotted)
        for limit in {item.limit for item in self._slices}:  # one for each model that outlined some
            painter.drawLine(_SIDE, self._y(limit), self.width - _SIDE, self._y(limit))
        painter.setPen(self.palette.color(qt.QPalette.WindowText))
        low, high = self._slices[0].index, self._slices[-1].index
        for index in {low, high} if high - low > 3 else {low}:
            if index != self._shown:
                self._paint_index(painter, index)

    def _paint_bar(self, painter: qt.QPainter, colors: dict[str, qt.QColor], item: SliceReview) -> None:
        left, width = self._x(item.index)
        base = self._y(0.0)
        if item.is_empty and not item.is_weak:
            painter.fillRect(left, base - 1, width, 2, colors["grid"])
            return
        kind = "weak" if item.is_weak else "confirmed" if item.confirmed else "prompted" if item.prompted else "plain"
        top = min(self._y(item.quality), base - 2)
        painter.fillRect(left, top, width, base - top, colors[kind])
        if item.presence < 0:  # hollow: the model doubts that the object is there at all
            painter.fillRect(left + 1, top + 2, max(width - 2, 0), max(base - top - 3, 0), self._background())
        if kind != "plain":
            self._paint_mark(painter, colors[kind], left + width // 2, kind)

    def _paint_mark(self, painter: qt.QPainter, color: qt.QColor, x: int, kind: str) -> None:
        """Over the bar, so that colour is not all that tells: weak a triangle, confirmed a square, prompted a line."""
        if kind == "weak":
            for row in range(4):
                painter.fillRect(x - 3 + row, 1 + row, 7 - 2 * row, 1, color)
        elif kind == "confirmed":
            painter.fillRect(x - 2, 1, 5, 5, color)
        else:
            painter.fillRect(x - 1, 0, 2, 7, color)

    def _paint_overlap(self, painter: qt.QPainter, colors: dict[str, qt.QColor]) -> None:
        painter.setPen(colors["line"])
        places = [(self._x(item.index), item) for item in self._slices if not item.is_empty]
        for ((left, width), item), ((right, wide), following) in pairwise(places):
            if following.index == item.index + 1:
                start, end = left + width // 2, right + wide // 2
                painter.drawLine(start, self._y(item.overlap), end, self._y(following.overlap))

    def _paint_cursor(self, painter: qt.QPainter, colors: dict[str, qt.QColor]) -> None:
        first, last = self._slices[0].index, self._slices[-1].index
        if self._shown is None or not first <= self._shown <= last:
            return
        left, width = self._x(self._shown)
        x = left + width // 2
        painter.fillRect(x - 1, _TOP - 2, 2, self.height - _TOP - _BOTTOM + 4, colors["cursor"])
        painter.setPen(colors["cursor"])
        self._paint_index(painter, self._shown)

    def _paint_index(self, painter: qt.QPainter, index: int) -> None:
        """The number of a slice, under its bar and inside the strip."""
        left, width = self._x(index)
        middle = min(max(left + width // 2, _SIDE + 14), self.width - _SIDE - 14)
        box = qt.QRect(middle - 14, self.height - _BOTTOM, 28, _BOTTOM)
        painter.drawText(box, qt.Qt.AlignHCenter, str(index))

    def _background(self) -> qt.QColor:
        return self.palette.color(qt.QPalette.Window)


def sentence(item: SliceReview) -> str:
    """What is known of a slice, for the tooltip."""
    if item.is_empty:
        text = _("Slice {index}: the structure is not there").format(index=item.index)
    else:
        text = _("Slice {index}: quality {quality:.2f}, overlap with the neighbour {overlap:.2f}").format(
            index=item.index, quality=item.quality, overlap=item.overlap
        )
    words = [_("weak, look at it")] if item.is_weak else []
    words += [_("confirmed")] if item.confirmed else [_("prompted")] if item.prompted else []
    return ", ".join([text, *words]) + "."


def is_dark(widget: qt.QWidget) -> bool:
    """Whether a widget is drawn light on dark."""
    return widget.palette.color(qt.QPalette.Window).lightness() < 128


def _x_of(event: qt.QMouseEvent) -> float:
    return event.position().x() if hasattr(event, "position") else event.x()

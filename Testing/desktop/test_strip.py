"""The strip chart: what is drawn where, and that a click jumps there."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
from desktop.desk import Desk
from mrml.controlling import box
from PySide6 import QtCore, QtGui, QtTest

from SegmentAnythingMedLib.mrml.controller_review import SliceReview

WIDTH = 208


@pytest.fixture
def strip(desk: Desk) -> object:
    """A strip of its own of 20 slices from 10 on, 10 pixels each: one weak, one confirmed, one prompted, one empty."""
    module = desk.import_ui("quality_strip")
    made = module.QualityStrip(desk.__dict__.setdefault("jumps", []).append)
    made.resize(WIDTH, module.HEIGHT)
    special = {
        12: {"is_weak": True, "quality": 0.4, "presence": -1.0},
        15: {"confirmed": True},
        20: {"prompted": True},
        29: {"is_empty": True, "quality": 0.0},
    }
    base = {"quality": 0.9, "presence": 5.0, "overlap": 0.95}
    made.show_slices(tuple(SliceReview(**{"index": n, **base, **special.get(n, {})}) for n in range(10, 30)), 17)
    return made


def colors(strip: object) -> np.ndarray:
    """(rows, columns, 3) of what is drawn."""
    image = strip.grab().toImage().convertToFormat(QtGui.QImage.Format_RGB32)
    rows, columns = image.size().height(), image.size().width()
    return np.frombuffer(image.constBits(), np.uint8).reshape(rows, columns, 4)[:, :, 2::-1].astype(int)


def column_of(index: int) -> int:
    return 4 + (index - 10) * 10 + 4


def is_drawn(strip: object, index: int, color: tuple[int, int, int]) -> bool:
    """Whether a colour is in the columns of a slice's bar."""
    middle = column_of(index)
    return bool((np.abs(colors(strip)[:, middle - 3 : middle + 4] - color).sum(axis=2) < 6).any())


def test_what_a_slice_is_can_be_seen(strip: object, desk: Desk) -> None:
    light = desk.import_ui("quality_strip").LIGHT
    assert is_drawn(strip, 11, light["plain"])
    assert is_drawn(strip, 12, light["weak"])
    assert is_drawn(strip, 15, light["confirmed"])
    assert is_drawn(strip, 20, light["prompted"])
    assert is_drawn(strip, 17, light["cursor"])
    assert not is_drawn(strip, 29, light["plain"])
    assert not is_drawn(strip, 13, light["confirmed"])


def test_marks_over_the_bars_tell_the_kinds_apart_without_colour(strip: object) -> None:
    marks = colors(strip)[:7]
    ground = marks[:, column_of(11)]
    seen = {n: int((np.abs(marks[:, column_of(n) - 3 : column_of(n) + 4] - ground[:, None]).sum(axis=2) > 30).sum())
            for n in (11, 12, 15, 20)}  # fmt: skip
    assert seen[11] == 0
    assert len({seen[12], seen[15], seen[20]}) == 3


def test_the_height_of_a_bar_is_the_quality(strip: object, desk: Desk) -> None:
    light = desk.import_ui("quality_strip").LIGHT
    drawn = colors(strip)

    def height(index: int, name: str) -> int:
        return int((np.abs(drawn[:, column_of(index) - 4] - light[name]).sum(axis=1) < 6).sum())

    assert height(15, "confirmed") > 1.8 * height(12, "weak")


def test_a_dark_theme_is_drawn_in_its_own_colours(strip: object, desk: Desk) -> None:
    module = desk.import_ui("quality_strip")
    strip.setPalette(QtGui.QPalette(QtGui.QColor(40, 40, 40), QtGui.QColor(40, 40, 40)))
    assert module.is_dark(strip)
    assert is_drawn(strip, 12, module.DARK["weak"])
    assert not is_drawn(strip, 12, module.LIGHT["weak"])


def test_a_click_jumps_to_the_slice_under_it(strip: object, desk: Desk) -> None:
    for index in (10, 17, 29):
        QtTest.QTest.mouseClick(strip, QtCore.Qt.LeftButton, pos=QtCore.QPoint(column_of(index), 30))
    assert desk.jumps == [10, 17, 29]


def test_slices_that_are_missing_lead_to_the_nearest(desk: Desk) -> None:
    strip = desk.import_ui("quality_strip").QualityStrip(lambda _index: None)
    strip.resize(WIDTH, 60)
    assert strip.index_at(50) is None
    strip.show_slices((SliceReview(10, 0.9, 1, 1), SliceReview(29, 0.9, 1, 1)), None)
    assert strip.index_at(column_of(13)) == 10
    assert strip.index_at(column_of(26)) == 29
    strip.grab()


def test_the_tooltip_says_it_in_words(strip: object, desk: Desk) -> None:
    place, none = QtCore.QPointF(column_of(12), 30), QtCore.Qt.NoButton
    moved = QtGui.QMouseEvent(QtCore.QEvent.MouseMove, place, place, none, none, QtCore.Qt.NoModifier)
    desk.qt_app.sendEvent(strip, moved)
    assert strip.toolTip == "Slice 12: quality 0.40, overlap with the neighbour 0.95, weak, look at it."
    sentence = desk.import_ui("quality_strip").sentence
    assert sentence(SliceReview(5, 0.9, 1, 1, confirmed=True)).endswith("confirmed.")
    assert sentence(SliceReview(5, 0, 1, 1, is_empty=True)) == "Slice 5: the structure is not there."


def test_an_empty_strip_says_what_will_be_there(desk: Desk) -> None:
    strip = desk.import_ui("quality_strip").QualityStrip(lambda _index: None)
    strip.resize(400, 60)
    assert len(np.unique(colors(strip).reshape(-1, 3), axis=0)) > 3


def test_a_click_on_the_panels_strip_moves_the_view(desk: Desk, a_volume: slicer.vtkMRMLScalarVolumeNode) -> None:
    desk.open()
    red = desk.add_view(a_volume)
    desk.widget.enter()
    desk.ui.volumeSelector.setCurrentNode(a_volume)
    desk.controller.add_prompt(box())
    desk.settle()
    desk.ui.propagateBothButton.click()
    desk.settle()
    strip = desk.panel.strip
    assert strip._shown == 6
    x = next(x for x in range(strip.width) if strip.index_at(x) == 8)
    QtTest.QTest.mouseClick(strip, QtCore.Qt.LeftButton, pos=QtCore.QPoint(x + 3, 30))
    from SegmentAnythingMedLib.mrml.frame import VolumeFrame
    from SegmentAnythingMedLib.mrml.slice_views import slice_of_view

    assert slice_of_view(red.mrmlSliceNode(), VolumeFrame.of(a_volume)).index == 8
    desk.until(lambda: strip._shown == 8)

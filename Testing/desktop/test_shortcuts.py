"""Keys act only in slice views while the module is shown, and are none of Slicer's."""

from __future__ import annotations

import pytest
import slicer
from desktop.desk import Desk

from SegmentAnythingMedLib.panel.actions import ACTIONS, keys

MAIN_WINDOW = {
    "O",
    "S",
    "W",
    "Z",
    "Y",
    "X",
    "C",
    "V",
    "H",
    "F",
    "B",
    "0",
    "1",
    "2",
    "3",
    "4",
    "5",
    "6",
    "Left",
    "Right",
}
"""With Ctrl: qSlicerMainWindow.ui, qSlicerMainWindow.cxx, qSlicerModuleSelectorToolBar.cxx, toggle of tilt lock."""

SLICE_VIEW = {"G", "T", "R", "F", "B", "V", "Shift+V", "[", "]", "{", "}", "Left", "Right", "Up", "Down"}
"""vtkMRMLSliceIntersectionWidget.cxx."""

ON_MARKUPS = {"S", "Delete", "Shift+Delete", "Backspace", "Escape"}
"""vtkSlicerMarkupsWidget.cxx (snap to slice, delete), vtkMRMLInteractionWidget.cxx, vtkMRMLWindowLevelWidget.cxx."""

SEGMENT_EDITOR = {
    *(str(n) for n in range(10)),
    *(f"Shift+{n}" for n in range(10)),
    *("Escape", "Space", "Z", "Y", "Q", "W", "/", "*", ",", ".", ">", "<", "I", "+", "=", "-", "_"),
}
"""qMRMLSegmentEditorWidget.cxx, qSlicerSegmentEditorPaintEffect.cxx."""

VIEW_3D = {"End", "PgDown", "Home", "Insert", "Clear", "+", "-", "R", "Shift+End", "Shift+Home", "Shift+PgDown"}
"""vtkMRMLCameraWidget.cxx, and the keys of the number pad."""

SLICER = {f"Ctrl+{key}" for key in MAIN_WINDOW} | SLICE_VIEW | ON_MARKUPS | SEGMENT_EDITOR | VIEW_3D


@pytest.fixture
def working(desk: Desk, a_volume: slicer.vtkMRMLScalarVolumeNode) -> Desk:
    desk.open()
    desk.add_view(a_volume)
    desk.widget.enter()
    desk.ui.volumeSelector.setCurrentNode(a_volume)
    return desk


def test_no_key_is_one_of_slicers() -> None:
    ours = {key for key, _tip in keys()}
    assert len(ours) > 10
    assert ours & SLICER == set()


def test_every_key_is_readable_by_qt(desk: Desk) -> None:
    sequence = desk.import_ui("shortcuts").qt.QKeySequence
    for key, _tip in keys():
        assert sequence(key).toString() == key


def test_a_key_in_a_slice_view_does_its_action_there(working: Desk, a_volume: slicer.vtkMRMLScalarVolumeNode) -> None:
    yellow = working.add_view(a_volume, 4, "Yellow")
    working.panel.follow_layout()
    done = []
    working.panel.shortcuts._perform = lambda name, view: done.append((name, view.GetName()))
    for action in ACTIONS:
        if action.key:
            working.press_key(yellow, action.key)
    assert done == [(action.name, "Yellow") for action in ACTIONS if action.key]


def test_a_key_places_a_box_and_another_stops_it(working: Desk) -> None:
    red = working.app.layout_manager.widgets["Red"]
    working.press_key(red, "D")
    assert working.controller.placing_kind == "box"
    working.press_key(red, "H")
    assert working.controller.placing_kind == ""


def test_keys_do_nothing_outside_slice_views_and_after_leaving(working: Desk) -> None:
    working.press_key(working.ui.moreCollapsibleButton, "D")
    assert working.controller.placing_kind == ""
    working.widget.exit()
    working.press_key(working.app.layout_manager.widgets["Red"], "D")
    assert working.controller.placing_kind == ""

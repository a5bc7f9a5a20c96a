"""Mouse and keys in slice views: real events in offscreen views, drawn by Slicer's own displayable managers."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
from desktop.desk import Desk
from mrml.host import MrmlHost
from mrml.views import SliceView

from SegmentAnythingMedLib.mrml.frame import VolumeFrame
from SegmentAnythingMedLib.prompts import BoxPrompt, LassoPrompt, ScribblePrompt

ORIENTATIONS = (("Red", "Axial"), ("Yellow", "Sagittal"))


@pytest.fixture
def views(
    rendering: None, desk: Desk, host: MrmlHost, a_volume: slicer.vtkMRMLScalarVolumeNode
) -> dict[str, SliceView]:
    """The module on a tilted volume, with two real slice views in its layout."""
    desk.open()
    made = {name: SliceView(host, name, orientation) for name, orientation in ORIENTATIONS}
    for name, view in made.items():
        view.show(a_volume)
        desk.add_widget(name, view.node, view.interactor)
    desk.widget.enter()
    desk.ui.volumeSelector.setCurrentNode(a_volume)
    return made


def ras(desk: Desk, view: SliceView, *fractions: tuple[float, float]) -> np.ndarray:
    """(N, 3) places in a view at fractions of its size."""
    to_ras = np.array([[view.node.GetXYToRAS().GetElement(r, c) for c in range(4)] for r in range(4)])
    pixels = np.rint(np.array(fractions) * view.size)
    return np.array([(to_ras @ (x, y, 0, 1))[:3] for x, y in pixels])


def ijk(desk: Desk, points_ras: np.ndarray) -> np.ndarray:
    return VolumeFrame.of(desk.controller.volume).ijk_from_ras(points_ras)


def only_prompt(desk: Desk) -> object:
    (record,) = desk.controller.markups.records()
    return record.prompt


@pytest.mark.parametrize("name", ["Red", "Yellow"])
def test_a_dragged_box_has_the_corners_of_the_drag(desk: Desk, views: dict[str, SliceView], name: str) -> None:
    path = ras(desk, views[name], (0.4, 0.4), (0.5, 0.42), (0.6, 0.6))
    desk.ui.placeBoxButton.click()
    views[name].drag(path)
    prompt = only_prompt(desk)
    assert isinstance(prompt, BoxPrompt)
    wanted = np.sort(ijk(desk, path[[0, -1]]), axis=0)
    assert np.abs(np.sort(np.array(prompt.points_ijk), axis=0) - wanted).max() < 0.5
    assert desk.controller.placing_kind == ""
    assert not desk.ui.placeBoxButton.checked


def test_two_clicks_still_make_a_box(desk: Desk, views: dict[str, SliceView]) -> None:
    corners = ras(desk, views["Red"], (0.4, 0.4), (0.6, 0.6))
    desk.ui.placeBoxButton.click()
    for corner in corners:
        views["Red"].click(corner)
    prompt = only_prompt(desk)
    assert isinstance(prompt, BoxPrompt)
    wanted = np.sort(ijk(desk, corners), axis=0)
    assert np.abs(np.sort(np.array(prompt.points_ijk), axis=0) - wanted).max() < 0.5


@pytest.mark.parametrize(
    ("button", "positive"), [("placeScribbleButton", True), ("placeBackgroundScribbleButton", False)]
)
def test_a_scribble_is_a_held_button_and_drawing_goes_on(
    desk: Desk, views: dict[str, SliceView], button: str, positive: bool
) -> None:
    path = ras(desk, views["Yellow"], (0.45, 0.5), (0.5, 0.55), (0.55, 0.5))
    getattr(desk.ui, button).click()
    views["Yellow"].drag(path)
    prompt = only_prompt(desk)
    assert isinstance(prompt, ScribblePrompt)
    assert prompt.positive is positive
    assert np.abs(np.array(prompt.points_ijk)[[0, -1]] - ijk(desk, path[[0, -1]])).max() < 0.5
    views["Yellow"].drag(path + (path[1] - path[0]) / 4)
    assert len(desk.controller.markups.records()) == 2
    getattr(desk.ui, button).click()
    assert desk.panel.drawing.kind == ""


def test_a_lasso_is_drawn(desk: Desk, views: dict[str, SliceView]) -> None:
    path = ras(desk, views["Red"], (0.4, 0.4), (0.6, 0.4), (0.6, 0.6), (0.4, 0.6))
    desk.ui.placeLassoButton.click()
    views["Red"].drag(path)
    assert isinstance(only_prompt(desk), LassoPrompt)
    assert desk.controller.placing_kind == ""


def test_the_pen_is_seen_while_the_button_is_held(desk: Desk, views: dict[str, SliceView]) -> None:
    view = views["Red"]
    path = ras(desk, view, (0.3, 0.3), (0.5, 0.5), (0.7, 0.7))
    desk.ui.placeScribbleButton.click()
    before = view.render()
    pixels = [view.display_of(place) for place in path]
    view.event("LeftButtonPressEvent", pixels[0])
    for pixel in pixels[1:]:
        view.event("MouseMoveEvent", pixel)
    during = view.render()
    assert np.abs(during.astype(int) - before).max() > 100
    view.event("LeftButtonReleaseEvent", pixels[-1])
    desk.controller.undo_prompt()
    assert np.abs(view.render().astype(int) - before).max() < 60


def test_points_are_clicked_with_the_views_own_place_mode(desk: Desk, views: dict[str, SliceView]) -> None:
    place = ras(desk, views["Red"], (0.5, 0.5))[0]
    desk.ui.placePointButton.click()
    assert desk.panel.drawing.kind == ""
    views["Red"].click(place)
    assert np.abs(np.array(only_prompt(desk).point_ijk) - ijk(desk, place[np.newaxis])[0]).max() < 0.5


def test_a_scribble_beside_the_volume_is_refused_in_words(desk: Desk, views: dict[str, SliceView]) -> None:
    desk.ui.placeBoxButton.click()
    views["Red"].drag(ras(desk, views["Red"], (0.01, 0.01), (0.02, 0.06)))
    desk.panel.show()
    assert not desk.controller.markups.records()
    assert "beside the volume" in desk.status or "outside" in desk.status

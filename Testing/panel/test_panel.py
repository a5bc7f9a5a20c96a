"""The panel without a toolkit: what can be pressed when, what is shown, and that pressing does the verb."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import slicer
from mrml.controlling import Driver, box, drivers, point, view_on
from mrml.host import MrmlHost

from SegmentAnythingMedLib.mrml.controller_review import SliceReview
from SegmentAnythingMedLib.mrml.controller_states import State
from SegmentAnythingMedLib.panel.actions import ACTIONS, BY_NAME, keys, perform
from SegmentAnythingMedLib.panel.content import _quality_text, content_of


@pytest.fixture
def driver(host: MrmlHost, tmp_path: Path, a_volume: slicer.vtkMRMLScalarVolumeNode) -> Iterator[Driver]:
    for make in drivers(host, tmp_path):
        made = make()
        made.controller.set_volume(a_volume)
        yield made


def test_names_and_keys_are_used_once() -> None:
    assert len(BY_NAME) == len(ACTIONS)
    used = [key for key, _tip in keys()]
    assert len(set(used)) == len(used) > 10


def test_nothing_can_be_pressed_before_a_volume_is_chosen(host: MrmlHost, tmp_path: Path) -> None:
    for make in drivers(host, tmp_path):
        content = content_of(make().controller)
        assert content.allowed == frozenset()
        assert content.state is State.IDLE
        assert content.status == "Choose a volume."


def test_a_fresh_volume_allows_prompts_but_no_propagation(driver: Driver) -> None:
    content = content_of(driver.controller)
    assert {"place-point", "place-box", "place-lasso", "from-segment", "add-segment"} <= content.allowed
    assert not {"propagate-both", "accept", "candidate-next", "undo", "undo-prompt", "cancel"} & content.allowed
    assert (content.range_text, content.candidate, content.quality, content.progress) == ("automatic", "", None, None)


def test_pressing_a_placing_button_twice_stops_placing(driver: Driver) -> None:
    assert perform("place-box", driver.controller)
    assert content_of(driver.controller).placing == "box"
    perform("place-box", driver.controller)
    assert content_of(driver.controller).placing == ""


def test_escape_stops_placing(driver: Driver) -> None:
    assert not perform("stop", driver.controller)
    perform("place-point", driver.controller)
    assert perform("stop", driver.controller)
    assert content_of(driver.controller).placing == ""


def test_a_click_with_two_meanings_shows_candidates_and_its_quality(driver: Driver) -> None:
    driver.controller.add_prompt(point(12, 10))
    driver.settle()
    content = content_of(driver.controller)
    assert content.candidate == "1 of 2"
    assert content.quality is not None
    assert content.quality_text.startswith(f"{content.quality:.2f}")
    assert {"candidate-next", "propagate-both", "accept", "discard", "undo-prompt", "clear"} <= content.allowed
    assert perform("candidate-next", driver.controller)
    driver.settle()
    assert content_of(driver.controller).candidate == "2 of 2"


@pytest.mark.parametrize(("quality", "limit", "is_draft"), [(0.6, 0.7, True), (0.6, 0.55, False), (0.5, 0.55, True)])
def test_a_draft_is_what_its_model_calls_weak(quality: float, limit: float, is_draft: bool) -> None:
    text = _quality_text(SliceReview(3, quality, 5.0, 0.9, prompted=True, limit=limit))
    assert text.startswith(f"{quality:.2f}") and ("draft" in text) == is_draft
    assert _quality_text(None) == ""


def test_the_workflow_goes_by_buttons_alone(driver: Driver, host: MrmlHost) -> None:
    controller = driver.controller
    controller.add_prompt(box())
    driver.settle()
    assert perform("propagate-both", controller)
    seen = []
    controller.observe(lambda: seen.append(content_of(controller)))
    driver.settle()
    carried = [one for one in seen if one.state is State.PROPAGATING and one.progress]
    assert carried
    assert all("of" in one.progress_text for one in carried)
    assert "cancel" in carried[0].allowed
    content = content_of(controller, view_on(host, controller.volume, 6))
    assert content.state is State.REVIEWING
    assert content.shown_slice == 6
    assert len(content.strip) > 3
    assert content.strip_text == f"{sum(not s.is_empty for s in content.strip)} slices, none weak"
    assert perform("accept", controller)
    driver.settle()
    assert driver.labelmap().any()
    content = content_of(controller)
    assert "undo" in content.allowed
    assert [line.name for line in content.segments] == ["Segment_1"] or len(content.segments) == 1
    assert perform("undo", controller)
    driver.settle()
    assert not driver.labelmap().any()
    assert perform("redo", controller)
    driver.settle()
    assert driver.labelmap().any()
    perform("add-segment", controller)
    assert len(content_of(controller).segments) == 2


def test_the_range_is_said_in_words(driver: Driver, host: MrmlHost) -> None:
    perform("from-here", driver.controller, view_on(host, driver.controller.volume, 4))
    assert content_of(driver.controller).range_text == "4 to end"
    perform("to-here", driver.controller, view_on(host, driver.controller.volume, 9))
    assert content_of(driver.controller).range_text == "4 to 9"
    perform("range-automatic", driver.controller)
    assert content_of(driver.controller).range_text == "automatic"


def test_a_failure_is_an_error_and_says_what_to_do(driver: Driver) -> None:
    driver.controller.fail("The model has no weights: choose another.")
    content = content_of(driver.controller)
    assert content.is_error
    assert content.status == "The model has no weights: choose another."
    assert "propagate-both" not in content.allowed
    assert "restart-worker" in content.allowed


def test_the_guide_lists_the_keys_that_there_are() -> None:
    guide = (Path(__file__).resolve().parents[2] / "docs" / "slicer.md").read_text(encoding="utf-8")
    assert [f"| `{key}` | {tip} |" for key, tip in keys()] == [line for line in guide.splitlines() if "| `" in line]

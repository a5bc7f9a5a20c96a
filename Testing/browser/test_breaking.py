"""What nobody should do, and everybody does: two tabs, reloads, other files in the middle, a button pressed twice."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browser.app_page import AppPage, Server, is_running, wait_until
from browser.conftest import write_ellipsoid
from browser.test_workflow import draw_box

from SegmentAnythingMedLib.io import read_labels


@pytest.fixture
def propagating(page: AppPage, tmp_path: Path) -> Iterator[AppPage]:
    """The page in the middle of a propagation that takes seconds."""
    page.upload(write_ellipsoid(tmp_path / "tall.nii.gz", (64, 64, 220)))
    page.until("!panel.busy && panel.volumes.find((one) => one.id === panel.volume).name === 'tall'")
    draw_box(page)
    page.press("propagate-both")
    page.until("panel.state === 'propagating' && strip.count > 3")
    yield page
    page.look_only()


def test_a_reload_and_a_second_tab_find_the_work_as_it_is(propagating: AppPage) -> None:
    page = propagating
    page.tab.reload()
    page.tab.wait_for_selector(".panel")
    page.until("panel.state === 'reviewing' && panel.status.startsWith('Carried')")
    other = page.tab.context.new_page()
    other.goto(page.tab.url)
    other.locator("[data-action=discard]").click()
    page.until("!panel.allowed.includes('discard') && strip.count < 20")
    other.close()
    segments = len(page.panel["segments"])
    page.press("add-segment")
    page.until(f"panel.segments.length === {segments + 1} && panel.quality === null")
    draw_box(page)


def test_other_files_in_the_middle_of_a_propagation_end_it_and_work_goes_on(
    propagating: AppPage, volume_file: Path
) -> None:
    page = propagating
    page.upload(volume_file)
    page.until("!panel.busy && panel.volumes.find((one) => one.id === panel.volume).name === 'ellipsoid'")
    page.until("panel.state === 'prompting' && strip.count === 0")
    draw_box(page)
    page.press("propagate-both")
    first = page.panel["volumes"][0]["id"]
    page.tab.locator("[data-field=volume]").select_option(first)
    page.until(f"panel.volume === '{first}' && panel.state === 'prompting' && strip.count === 0")
    draw_box(page)
    page.press("propagate-both")
    page.until("panel.state === 'reviewing' && strip.count > 15")
    assert page.panel["state"] != "failed"


def test_accept_pressed_twice_is_one_step_of_undo(page: AppPage, tmp_path: Path) -> None:
    draw_box(page)
    page.tab.evaluate("() => { for (let n = 0; n < 3; n++) window.trame.trigger('act', ['accept', 'Red']); }")
    page.until("panel.status.startsWith('Accepted') && panel.progress === null")
    name = page.panel["segments"][-1]["name"]
    saved = read_labels(page.download("seg.nrrd", tmp_path))
    assert name in [one.name for one in saved.segments]
    page.press("undo")
    page.until("panel.status === 'Undone.' && panel.progress === null && !panel.allowed.includes('accept')")
    page.press("redo")
    page.until("panel.status === 'Done again.'")


SENSELESS = (
    ("scroll_view", ["Red", math.inf]),
    ("scroll_view", ["Red", None]),
    ("step_slice", ["Red", math.nan]),
    ("step_slice", ["Nobody", 3]),
    ("stroke", ["lasso", "Red", [[0, 0], ["x", 1]]]),
    ("stroke", ["box", "Red", [[0, 0]]]),
    ("go_to_fraction", [math.nan]),
    ("go_to_fraction", [math.inf]),
    ("act", ["__class__", "Red"]),
    ("act", []),
    ("choose_window", ["no such window"]),
    ("choose_volume", [{"a": 1}]),
    ("choose_model", ["../../x"]),
    ("choose_time", [1e300]),
    ("rename_segment", [None, None]),
    ("recolor_segment", ["a", "#gggggg"]),
    ("maximise", [["Red"]]),
)


def test_messages_that_the_page_never_sends_change_nothing(page: AppPage) -> None:
    def shown() -> dict[str, object]:
        panel, state = page.panel, "(name) => window.trame.state.get(name)"
        # What prompts can be suggested from follows the scene a little later, also what tests before have left there.
        rest = {key: value for key, value in panel.items() if key not in ("status", "messages", "suggestion")}
        return rest | {name: page.tab.evaluate(state, name) for name in ("sliders", "maximised")}

    before = shown()
    for number, (name, values) in enumerate(SENSELESS):
        page.trigger(name, *values)
        page.trigger("say", f"after message {number}")
        page.until(f"panel.status === 'after message {number}'")
        assert shown() == before, (name, values)


def test_a_page_that_is_closed_in_the_middle_ends_its_session_and_worker(
    new_page: Callable[..., AppPage], serving: Callable[..., Server], tmp_path: Path
) -> None:
    server = serving(write_ellipsoid(tmp_path / "tall.nii.gz", (64, 64, 400)), "--idle-minutes", 0.1)
    page = new_page(server.url)
    page.until("panel.volume && sliders.Red")
    draw_box(page)
    page.press("propagate-both")
    page.until("panel.state === 'propagating' && strip.count > 3")
    processes = server.descendants()
    assert server.descendants("worker.process")
    address = page.tab.url
    page.tab.close()
    wait_until(lambda: not any(map(is_running, processes)))
    wait_until(lambda: not list(server.folder.glob("segment-anything-med-*")))
    late = page.open_again(address)
    assert "This session has ended" in late.content()
    assert server.stop() == 0
    assert "Traceback" not in server.errors

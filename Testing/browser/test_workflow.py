"""A whole segmentation in the browser: prompts, propagation, corrections, acceptance and files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from browser.app_page import AppPage
from browser.conftest import SIZE_IJK, ellipsoid, write_ellipsoid

from SegmentAnythingMedLib import cli
from SegmentAnythingMedLib.io import read_labels
from SegmentAnythingMedLib.panel.actions import BY_NAME
from SegmentAnythingMedLib.propagation import dice


def draw_box(page: AppPage) -> None:
    """Two clicks round the ellipsoid in the axial view."""
    page.press("place-box")
    page.until("panel.placing === 'box'")
    page.click("Red", 0.32, 0.16)
    page.click("Red", 0.68, 0.84)
    page.until("panel.quality !== null && ['prompting', 'reviewing'].includes(panel.state)")


def test_a_box_becomes_a_segment_and_its_file_is_the_command_lines(
    page: AppPage, volume_file: Path, tmp_path: Path
) -> None:
    draw_box(page)
    page.press("propagate-both")
    page.until("panel.state === 'reviewing' && strip.count > 15")
    page.tab.evaluate("() => { window.trame.utils.sam.download('seg.nrrd'); }")
    page.until("panel.status.includes('press Accept first')")
    page.press("accept")
    page.until("panel.status.startsWith('Accepted')")

    saved, prompts = page.download("seg.nrrd", tmp_path), page.download("prompts.json", tmp_path)
    assert saved.name == "ellipsoid.seg.nrrd"
    assert (
        cli.main(["segment", str(volume_file), "--prompts", str(prompts), "--output", str(tmp_path / "cli.nrrd")]) == 0
    )
    ours, theirs = read_labels(saved), read_labels(tmp_path / "cli.nrrd")
    assert len(ours.segments) == 1 and ours.geometry.matches(theirs.geometry)
    np.testing.assert_array_equal(ours.segments[0].mask, theirs.segments[0].mask)
    assert dice(ours.segments[0].mask, ellipsoid(SIZE_IJK)) > 0.9
    np.testing.assert_array_equal(
        read_labels(page.download("nii.gz", tmp_path)).segments[0].mask, theirs.segments[0].mask
    )

    page.press("undo")
    page.until("panel.status === 'Undone.'")
    page.tab.evaluate("() => { window.trame.utils.sam.download('nii.gz'); }")
    page.until("panel.status.includes('press Accept first')")
    page.press("redo")
    page.until("panel.status === 'Done again.'")
    again = read_labels(page.download("seg.nrrd", tmp_path))
    np.testing.assert_array_equal(again.segments[0].mask, theirs.segments[0].mask)


def test_clicks_keys_candidates_strokes_and_names(page: AppPage) -> None:
    def key(tag: str, action: str) -> None:
        page.key(tag, BY_NAME[action].key)

    key("Red", "place-point")
    page.until("panel.placing === 'point'")
    page.click("Red", 0.5, 0.5)
    page.until("panel.candidate === '1 of 3'")
    key("Red", "candidate-next")
    page.until("panel.candidate === '2 of 3'")
    page.key("Red", "Escape")
    page.until("panel.placing === ''")
    key("Red", "undo-prompt")
    page.until("panel.quality === null")
    key("Red", "redo-prompt")
    page.until("panel.quality !== null")

    for kind in ("scribble", "lasso", "box"):
        count = len(page.panel["segments"])
        page.press("add-segment")
        page.until(f"panel.segments.length === {count + 1} && panel.quality === null")
        key("Green", f"place-{kind}")
        page.until(f"panel.placing === '{kind}'")
        strokes = {
            "scribble": [(0.45, 0.45), (0.55, 0.5), (0.5, 0.6)],
            "lasso": [(0.36, 0.3), (0.64, 0.3), (0.64, 0.7), (0.36, 0.7), (0.36, 0.32)],
            "box": [(0.33, 0.2), (0.67, 0.8)],
        }
        page.drag("Green", *strokes[kind])
        page.until("panel.quality !== null && ['prompting', 'reviewing'].includes(panel.state)")

    row = page.tab.locator(".segment").first  # not the one that is chosen
    row.locator("input[type=text]").fill("Left kidney")
    row.locator("input[type=text]").press("Enter")
    page.until("panel.segments[0].name === 'Left kidney' && panel.segment === panel.segments[0].id")
    page.tab.evaluate("() => { window.trame.trigger('recolor_segment', [panel_id(), '#ff0000']);"
                      " function panel_id() { return window.trame.state.get('panel').segment; } }")  # fmt: skip
    page.until("panel.segments[0].color === '#ff0000'")


def test_a_propagation_is_cancelled_corrected_and_carried_again(page: AppPage, tmp_path: Path) -> None:
    # large, to be cancelled in time on any machine; little noise, to be small as a file
    page.upload(write_ellipsoid(tmp_path / "tall.nii.gz", (176, 176, 300), noise=1.0))
    page.until("!panel.busy && panel.volumes.find((one) => one.id === panel.volume).name === 'tall'")
    draw_box(page)
    page.press("propagate-both")
    page.until("panel.state === 'propagating' && panel.progress > 2")
    page.press("cancel")
    page.until("panel.state === 'reviewing' && panel.status.startsWith('Cancelled')")
    done = page.tab.evaluate("() => window.trame.state.get('strip')")
    assert 3 < done["count"] < 170

    page.press("propagate-both")
    page.until("panel.state === 'reviewing' && panel.status.startsWith('Carried')")
    strip = page.tab.locator(".strip svg").bounding_box()
    page.tab.mouse.click(strip["x"] + 0.75 * strip["width"], strip["y"] + 20)
    page.until("sliders.Red.text !== 'slice 150' && sliders.Red.text !== 'slice 149'")
    page.press("place-background")
    page.until("panel.placing === 'background'")
    page.click("Red", 0.5, 0.6)
    page.until("strip.given.split('M').length === 3")
    page.press("repropagate")
    page.until("panel.state === 'reviewing' && panel.status.startsWith('Carried')")
    page.press("accept")
    page.until("panel.status.startsWith('Accepted')")
    labels = read_labels(page.download("seg.nrrd", tmp_path))
    assert labels.segments[0].mask.any(axis=(1, 2)).sum() > 60


def test_a_dicom_seg_needs_dicom_and_says_so(page: AppPage) -> None:
    draw_box(page)
    page.press("accept")
    page.until("panel.status.startsWith('Accepted')")
    page.tab.evaluate("() => { window.trame.utils.sam.download('dcm'); }")
    page.until("panel.status.includes('DICOM')")


@pytest.mark.parametrize(("width", "height"), [(1400, 900), (1024, 700)])
def test_nothing_is_cut_off_at_the_sizes_that_are_promised(page: AppPage, width: int, height: int) -> None:
    page.tab.set_viewport_size({"width": width, "height": height})
    draw_box(page)
    cut = page.tab.evaluate(
        "() => [...document.querySelectorAll('.panel button, .panel summary, .view header button')]"
        ".filter((one) => one.scrollWidth > one.clientWidth + 1 && one.offsetParent).map((one) => one.innerText)"
    )
    assert cut == []
    assert page.tab.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth")

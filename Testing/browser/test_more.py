"""The section More: time points, further channels, memory policies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from browser.app_page import AppPage
from browser.conftest import write_ellipsoid
from browser.test_workflow import draw_box

from SegmentAnythingMedLib.io import read_labels

SIZE_IJK = (48, 40, 16)
COUNT = 4


def balls() -> np.ndarray:
    """(T, K, J, I) bool: a ball that moves along I and grows."""
    k, j, i = np.mgrid[: SIZE_IJK[2], : SIZE_IJK[1], : SIZE_IJK[0]]
    far = [((k - 7.5) / 4) ** 2 + ((j - 19.5) / 9) ** 2 + ((i - 21 - 1.5 * t) / 10) ** 2 for t in range(COUNT)]
    return np.array([one < (1 + 0.05 * t) ** 2 for t, one in enumerate(far)])


def write_movie(path: Path) -> Path:
    """A 4D NIfTI file of the ball, tilted and anisotropic, half a second between time points."""
    import SimpleITK

    noise = np.random.default_rng(2).normal(0, 6, balls().shape)
    angle = np.radians(9)
    frames = []
    for voxels in (100 * balls() + noise).astype(np.float32):
        frame = SimpleITK.GetImageFromArray(voxels)
        frame.SetSpacing((1.0, 1.2, 2.5))
        frame.SetDirection((1, 0, 0, 0, np.cos(angle), -np.sin(angle), 0, np.sin(angle), np.cos(angle)))
        frames.append(frame)
    movie = SimpleITK.JoinSeries(frames, 0.0, 0.5)
    SimpleITK.WriteImage(movie, str(path))
    return path


def open_more(page: AppPage) -> None:
    page.tab.locator("details", has=page.tab.locator("[data-field=policy]")).evaluate("(one) => { one.open = true; }")


def go_to_time(page: AppPage, time: int) -> None:
    page.tab.locator("[data-field=time]").fill(str(time))
    page.until(f"panel.timePoint === {time} && panel.timeFree")


def test_a_structure_is_carried_through_time_and_saved_at_each_time_point(page: AppPage, tmp_path: Path) -> None:
    page.upload(write_movie(tmp_path / "movie.nii.gz"))
    page.until(f"!panel.busy && panel.timeCount === {COUNT} && panel.timePoint === 0")
    open_more(page)
    go_to_time(page, 2)
    shown = page.pixels("Red")
    go_to_time(page, 1)
    page.until("sliders.Red")
    assert not page.panel["throughTime"], "there is nothing to carry"
    draw_box(page)
    page.press("propagate-both")
    page.until("panel.state === 'reviewing' && strip.count > 4")
    page.press("through-time")
    page.until(f"panel.status.startsWith('Carried through time: {COUNT - 1} time points')")
    truth, saved = balls(), []
    for time in range(COUNT):
        go_to_time(page, time)
        page.until("panel.progress === null")
        folder = tmp_path / str(time)
        folder.mkdir()
        saved.append(read_labels(page.download("seg.nrrd", folder)).segments[0].mask > 0)
        both = (saved[-1] & truth[time]).sum()
        assert 2 * both / (saved[-1].sum() + truth[time].sum()) > 0.8
    middles = [mask.nonzero()[2].mean() for mask in saved]
    assert middles == sorted(middles) and middles[-1] - middles[0] > 2, "the segment moves with the structure"
    assert shown.shape == page.pixels("Red").shape
    page.trigger("choose_time", 99)
    page.trigger("choose_time", -1)
    page.trigger("choose_time", "no number")
    go_to_time(page, 1)


def test_a_second_volume_is_given_to_the_model_and_the_segments_stay(page: AppPage, tmp_path: Path) -> None:
    page.upload(write_ellipsoid(tmp_path / "second.nrrd"))
    page.until("!panel.busy && panel.volumes.find((one) => one.id === panel.volume).name === 'second'")
    first = page.panel["volumes"][0]["id"]
    draw_box(page)
    open_more(page)
    page.press("accept")
    page.until("panel.status.startsWith('Accepted') && panel.progress === null")
    segments = page.panel["segments"]
    page.tab.locator("[data-field=channel2]").select_option(first)
    page.until(f"panel.channels.length === 1 && panel.channels[0] === '{first}'")
    assert page.panel["segments"] == segments
    page.press("propagate-both")
    page.until("panel.state === 'reviewing' && strip.count > 15")
    page.press("accept")
    page.until("panel.status.startsWith('Accepted')")
    assert read_labels(page.download("seg.nrrd", tmp_path)).segments[0].mask.any(axis=(1, 2)).sum() > 15
    page.tab.locator("[data-field=channel2]").select_option("")
    page.until("panel.channels.length === 0")
    page.trigger("choose_channels", page.panel["volume"], "nobody", 7)
    page.trigger("act", "stop")
    page.until("panel.channels.length === 0")


def test_a_memory_policy_is_chosen_and_used(page: AppPage) -> None:
    open_more(page)
    names = [one["name"] for one in page.tab.evaluate("() => window.trame.state.get('policies')")]
    assert names[0] == "recent" and len(names) == len(set(names)) > 1
    draw_box(page)
    page.tab.locator("[data-field=policy]").select_option(names[1])
    page.until(f"panel.policy === '{names[1]}' && panel.quality !== null && panel.state === 'prompting'")
    page.press("propagate-both")
    page.until("panel.state === 'reviewing' && strip.count > 15")
    page.trigger("choose_policy", "os.system")
    page.tab.locator("[data-field=policy]").select_option("recent")
    page.until("panel.policy === 'recent'")

"""Outlines carried through time become a segmentation sequence: on a real scene with a real worker."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import slicer
from mrml.conftest import SIZE_IJK, rotation, tilted_matrix
from mrml.controlling import AXIAL, Driver, box, dice, in_process
from mrml.host import MrmlHost, set_labels

from SegmentAnythingMedLib.mrml.controller_states import State
from SegmentAnythingMedLib.mrml.frame import VolumeFrame
from SegmentAnythingMedLib.mrml.label_grid import Box, labelmap_of, read_box, sample_box, stored_box
from SegmentAnythingMedLib.prompts import BoxPrompt

COUNT = 5
SHAPE = SIZE_IJK[::-1]


@dataclass
class Movie:
    """A sequence of a moving ellipsoid.

    Parameters
    ----------
    volume
        The proxy that is shown.
    truth
        (T, K, J, I) bool.
    """

    volume: slicer.vtkMRMLScalarVolumeNode
    browser: slicer.vtkMRMLSequenceBrowserNode
    truth: np.ndarray


def moving(count: int = COUNT, last: int | None = None) -> np.ndarray:
    """(T, K, J, I) bool: an ellipsoid that moves in all directions and grows; empty after time point ``last``."""
    k, j, i = np.mgrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    masks = []
    for time in range(count):
        middle, size = (5 + 0.5 * time, 8 + 1.0 * time, 12 - 0.8 * time), 1 + 0.05 * time
        far = ((k - middle[0]) / 3.6) ** 2 + ((j - middle[1]) / 5) ** 2 + ((i - middle[2]) / 7) ** 2
        masks.append((far < size**2) & (last is None or time <= last))
    return np.array(masks)


def add_movie(host: MrmlHost, truth: np.ndarray, pose: slicer.vtkMRMLTransformNode | None = None) -> Movie:
    noise = np.random.default_rng(4)
    sequence = host.scene.AddNewNodeByClass("vtkMRMLSequenceNode", "cine")
    sequence.SetIndexName("time")
    sequence.SetIndexUnit("ms")
    for number, mask in enumerate(truth):
        voxels = (100 * mask + noise.normal(0, 8, mask.shape)).astype(np.int16)
        node = host.add_volume(voxels, tilted_matrix(), f"frame {number}")
        sequence.SetDataNodeAtValue(node, str(40 * number))
        host.scene.RemoveNode(node)
    browser = host.scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", "browser")
    browser.SetAndObserveMasterSequenceNodeID(sequence.GetID())
    host.logics["Sequences"].UpdateProxyNodesFromSequences(browser)
    volume = browser.GetProxyNode(sequence)
    if pose is not None:
        volume.SetAndObserveTransformNodeID(pose.GetID())
    return Movie(volume, browser, truth)


def box_round(mask: np.ndarray, index: int) -> BoxPrompt:
    rows, columns = (np.flatnonzero(mask[index].any(axis=axis)) for axis in (1, 0))
    return BoxPrompt.on_slice((columns[0], rows[0], columns[-1], rows[-1]), index, AXIAL)


def on_volume(driver: Driver, node: slicer.vtkMRMLSegmentationNode, segment_id: str = "") -> np.ndarray:
    """(K, J, I) bool of a segment of any segmentation, on the volume's grid."""
    frame, name = VolumeFrame.of(driver.controller.volume), segment_id or driver.controller.segment_id
    image = labelmap_of(node, name)
    if image is None:
        return np.zeros(SHAPE, bool)
    grid = VolumeFrame.of_labelmap(image, driver.controller.segmentation.GetParentTransformNode())
    stored = stored_box(node, name, grid)
    voxels = read_box(node, name, grid, stored).astype(np.uint8)
    return sample_box(voxels, grid.shifted(stored.low), frame, Box((0, 0, 0), SHAPE)) > 0


def series(driver: Driver, movie: Movie) -> slicer.vtkMRMLSequenceNode:
    return movie.browser.GetSequenceNode(driver.controller.segmentation)


def at_times(driver: Driver, movie: Movie) -> list[np.ndarray]:
    """The segment at each time point, (K, J, I) bool."""
    sequence = series(driver, movie)
    return [on_volume(driver, sequence.GetNthDataNode(n)) for n in range(sequence.GetNumberOfDataNodes())]


@pytest.fixture
def movie(host: MrmlHost, a_pose: slicer.vtkMRMLLinearTransformNode) -> Movie:
    return add_movie(host, moving(), a_pose)


def outlined(driver: Driver, movie: Movie, time: int = 0) -> Driver:
    """A box is outlined and carried through the stack at one time point, not accepted."""
    driver.controller.set_volume(movie.volume)
    if time:
        driver.controller.set_time(time)
    middle = int(np.mean(np.flatnonzero(movie.truth[time].any(axis=(1, 2)))))
    driver.controller.add_prompt(box_round(movie.truth[time], middle))
    driver.settle()
    driver.controller.propagate()
    driver.settle()
    return driver


@pytest.mark.parametrize(("time", "direction"), [(0, "both"), (2, "both"), (2, "forward")])
def test_classic_follows_a_moving_organ_through_time(
    drive: Callable[..., Driver], movie: Movie, time: int, direction: str
) -> None:
    driver = outlined(drive(model="classic"), movie, time)
    driver.controller.propagate_through_time(direction)
    driver.settle()
    found, sequence = at_times(driver, movie), series(driver, movie)
    frames = movie.browser.GetSequenceNode(movie.volume)
    assert [sequence.GetNthIndexValue(n) for n in range(COUNT)] == [frames.GetNthIndexValue(n) for n in range(COUNT)]
    assert (sequence.GetIndexName(), sequence.GetIndexUnit()) == ("time", "ms")
    first = time if direction == "forward" else 0
    scores = [dice(mask, truth) for mask, truth in zip(found, movie.truth, strict=True)]
    assert min(scores[first:]) > 0.8, scores
    assert not any(mask.any() for mask in found[:first])
    assert driver.controller.status.startswith(f"Carried through time: {COUNT - first - 1} time points written")
    np.testing.assert_array_equal(found[time], on_volume(driver, driver.controller.segmentation))
    assert not list(driver.folder.glob("*.voxels"))[1:]  # the series' voxels are gone, the session's stay


def test_the_browser_plays_the_segments_in_the_users_own_segmentation(
    drive: Callable[..., Driver], movie: Movie
) -> None:
    driver = outlined(drive(model="classic"), movie)
    node = driver.controller.segmentation
    driver.controller.propagate_through_time()
    driver.settle()
    found = at_times(driver, movie)
    assert driver.controller.segmentation is node and movie.browser.GetProxyNode(series(driver, movie)) is node
    for time in (3, 1, 0):
        driver.controller.set_time(time)
        driver.settle()
        np.testing.assert_array_equal(driver.labelmap(), found[time])
    assert driver.controller.confirm_painted(next(iter(driver.controller.segments))) == ()
    grid = VolumeFrame.of_labelmap(labelmap_of(node, driver.controller.segment_id), node.GetParentTransformNode())
    np.testing.assert_allclose(grid.local.ijk_to_world[:3, :3], tilted_matrix()[:3, :3], atol=1e-6)


def test_an_organ_that_ends_is_not_carried_on(drive: Callable[..., Driver], host: MrmlHost) -> None:
    movie = add_movie(host, moving(last=1))
    driver = outlined(drive(model="classic"), movie)
    driver.controller.propagate_through_time()
    driver.settle()
    found = at_times(driver, movie)
    assert [mask.any() for mask in found] == [True, True, False, False, False]


def test_what_the_user_made_at_other_times_is_kept_and_what_we_carried_is_replaced(
    drive: Callable[..., Driver], movie: Movie
) -> None:
    driver = drive(model="classic")
    controller = driver.controller
    controller.set_volume(movie.volume)
    other = controller.add_segment("Other")
    bones = np.zeros(SHAPE, bool)
    bones[2:4, 2:5, 2:5] = True
    set_labels(controller.segmentation, other, bones, tilted_matrix())
    controller.add_segment("Organ")
    outlined(driver, movie)
    controller.propagate_through_time()
    driver.settle()
    before = at_times(driver, movie)
    sequence = series(driver, movie)
    for time in range(COUNT):
        np.testing.assert_array_equal(on_volume(driver, sequence.GetNthDataNode(time), other), bones)
    controller.set_time(3)
    driver.settle()
    mine = np.zeros(SHAPE, bool)
    mine[4:8, 9:12, 8:12] = True
    set_labels(controller.segmentation, controller.segment_id, mine, tilted_matrix())
    controller.set_time(0)
    driver.settle()
    controller.propagate_through_time()
    driver.settle()
    after = at_times(driver, movie)
    np.testing.assert_array_equal(after[3], mine)
    np.testing.assert_array_equal(after[0], before[0])
    assert "3 time points written" in controller.status
    assert after[4].sum() < before[4].sum()  # it was reached from the user's smaller one
    for time in range(COUNT):
        np.testing.assert_array_equal(on_volume(driver, sequence.GetNthDataNode(time), other), bones)


def test_a_segment_made_later_joins_the_sequence_and_all_are_carried_together(
    drive: Callable[..., Driver], movie: Movie
) -> None:
    driver = outlined(drive(model="classic"), movie)
    controller, first = driver.controller, driver.controller.segment_id
    controller.propagate_through_time("forward")
    driver.settle()
    second = controller.add_segment("Second")
    controller.add_prompt(box_round(movie.truth[0], 5))
    driver.settle()
    controller.propagate_through_time("forward", "all")
    driver.settle()
    for item in map(series(driver, movie).GetNthDataNode, range(COUNT)):
        assert item.GetSegmentation().GetSegment(second).GetName() == "Second"
        assert on_volume(driver, item, first).any() and on_volume(driver, item, second).any()


def test_a_saved_scene_knows_what_was_carried_and_what_the_user_made(
    drive: Callable[..., Driver], movie: Movie, host: MrmlHost, tmp_path: Path
) -> None:
    driver = outlined(drive(model="classic"), movie)
    driver.controller.propagate_through_time()
    driver.settle()
    before = at_times(driver, movie)
    host.save(tmp_path / "scene.mrb")
    host.load(tmp_path / "scene.mrb")
    driver.controller.poll()
    browser = host.scene.GetFirstNodeByClass("vtkMRMLSequenceBrowserNode")
    again = drive(model="classic")
    again.controller.set_volume(browser.GetProxyNode(browser.GetMasterSequenceNode()))
    again.controller.set_segmentation(host.scene.GetFirstNodeByClass("vtkMRMLSegmentationNode"))
    again.controller.set_segment("")
    loaded = Movie(again.controller.volume, browser, movie.truth)
    for mask, expected in zip(at_times(again, loaded), before, strict=True):
        np.testing.assert_array_equal(mask, expected)
    again.controller.propagate_through_time()
    again.settle()
    assert "4 time points written" in again.controller.status


def test_cancelling_keeps_time_points_that_are_done(drive: Callable[..., Driver], movie: Movie) -> None:
    driver = outlined(drive(delay=0.08), movie)
    controller = driver.controller
    controller.propagate_through_time("forward")
    driver.until(lambda: controller._run_through_time is not None and len(controller._run_through_time.written) >= 1)
    assert controller.state is State.PROPAGATING and 0 < controller.progress.done < controller.progress.total
    controller.cancel()
    driver.settle()
    done = sorted(controller._run_through_time.written)
    assert controller.state is State.PROMPTING and controller.status.startswith("Cancelled: ")
    assert done == list(range(1, len(done) + 1)) and len(done) < COUNT - 1
    found = at_times(driver, movie)
    assert [mask.any() for mask in found] == [time <= len(done) for time in range(COUNT)]


def test_cancelling_before_the_voxels_have_arrived_ends_it_too(drive: Callable[..., Driver], movie: Movie) -> None:
    driver = outlined(drive(), movie)
    driver.accept()
    driver.controller.propagate_through_time()
    driver.until(lambda: driver.controller._run_through_time is not None)
    driver.controller.cancel()
    driver.settle()
    assert driver.controller.status.startswith("Cancelled: ")
    driver.controller.propagate_through_time()
    driver.settle()
    assert driver.controller.status.startswith("Carried through time: 4 time points")


def test_a_killed_worker_keeps_time_points_that_are_done_and_says_so(
    drive: Callable[..., Driver], movie: Movie
) -> None:
    driver = outlined(drive(delay=0.15), movie)
    controller = driver.controller
    controller.propagate_through_time()
    driver.until(lambda: controller._run_through_time is not None and len(controller._run_through_time.written) >= 1)
    os.kill(controller.link.started.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
    driver.until(lambda: "started again" in controller.status)
    assert any("finished time points are kept" in sentence for sentence in controller.messages)
    assert at_times(driver, movie)[1].any()
    controller.propagate_through_time()
    driver.settle()
    assert all(mask.any() for mask in at_times(driver, movie))


def test_prompts_are_outlined_while_it_is_carried_through_time(drive: Callable[..., Driver], movie: Movie) -> None:
    driver = outlined(drive(delay=0.08), movie)
    controller = driver.controller
    controller.propagate_through_time()
    driver.until(lambda: controller.progress.done >= 2)
    controller.add_segment("Second")
    controller.add_prompt(box())
    driver.until(lambda: driver.proposal().any())
    assert controller.state is State.PROPAGATING
    np.testing.assert_array_equal(driver.proposal(), in_process(movie.volume, box()).labelmap(1))
    driver.settle()
    assert controller.status.startswith("Carried through time: 4")


@pytest.mark.parametrize("factor", [0.5, 3.0, "tilted"])
def test_a_segmentation_on_another_grid_keeps_it_at_every_time_point(
    drive: Callable[..., Driver], movie: Movie, host: MrmlHost, factor: float | str
) -> None:
    matrix = tilted_matrix()
    scale = 1.0 if factor == "tilted" else factor
    matrix[:3, :3] = (rotation(9, 0, 4) if factor == "tilted" else np.eye(3)) @ matrix[:3, :3] * scale
    node = host.add_segmentation(movie.volume)
    node.GetSegmentation().AddEmptySegment("organ", "Organ")
    seed = np.zeros((4, 4, 4), bool)
    seed[1, 1, 1] = True
    set_labels(node, "organ", seed, matrix)
    driver = drive()
    driver.controller.set_volume(movie.volume)
    driver.controller.set_segmentation(node)
    outlined(driver, movie)
    driver.controller.propagate_through_time()
    driver.settle()
    sequence = series(driver, movie)
    for time in range(COUNT):
        item = sequence.GetNthDataNode(time)
        grid = VolumeFrame.of_labelmap(labelmap_of(item, "organ"), node.GetParentTransformNode())
        np.testing.assert_allclose(grid.local.ijk_to_world[:3, :3], matrix[:3, :3], atol=1e-6)
        if factor != 3.0:
            assert dice(on_volume(driver, item, "organ"), movie.truth[time]) > 0.6


def test_without_a_sequence_or_an_outline_it_is_refused_in_words(
    drive: Callable[..., Driver], movie: Movie, a_volume: slicer.vtkMRMLScalarVolumeNode
) -> None:
    driver = drive()
    controller = driver.controller
    controller.propagate_through_time()
    assert controller.status == "Choose a volume first."
    controller.set_volume(a_volume)
    assert not controller.has_time_points
    controller.propagate_through_time()
    assert "only one time point" in controller.status
    controller.set_volume(movie.volume)
    assert controller.has_time_points
    controller.propagate_through_time()
    driver.settle()
    assert "has nothing at this time point" in controller.status
    assert movie.browser.GetNumberOfSynchronizedSequenceNodes(True) == 1


def test_a_prompt_belongs_to_the_time_point_that_is_shown_though_nothing_was_asked_of_the_worker_yet(
    drive: Callable[..., Driver], host: MrmlHost, movie: Movie
) -> None:
    driver = drive(model="classic")
    controller = driver.controller
    controller.set_volume(movie.volume)
    for time in (1, 2, 0, 2):
        movie.browser.SetSelectedItemNumber(time)
        host.logics["Sequences"].UpdateProxyNodesFromSequences(movie.browser)
        controller.poll()
        assert controller.time == time
    controller.add_prompt(box_round(movie.truth[2], 5))
    driver.settle()
    assert [record.time for record in controller.markups.records()] == [2]
    movie.browser.SetSelectedItemNumber(0)
    host.logics["Sequences"].UpdateProxyNodesFromSequences(movie.browser)
    controller.poll()
    driver.settle()
    assert controller.time == 0 and not driver.proposal().any()


def test_a_browser_removed_while_it_is_carried_through_time_is_said_in_words(
    drive: Callable[..., Driver], host: MrmlHost, movie: Movie
) -> None:
    driver = outlined(drive(model="classic"), movie)
    driver.controller.propagate_through_time()
    driver.until(lambda: driver.controller.progress.done >= 1)
    host.scene.RemoveNode(movie.browser)
    driver.settle()
    assert not any("Something went wrong inside" in sentence for sentence in driver.controller.messages)
    assert any("browser was removed" in sentence for sentence in driver.controller.messages)

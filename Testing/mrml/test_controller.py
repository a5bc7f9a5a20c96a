"""The whole work of a user, on a real scene with a real worker."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import slicer
from mrml.conftest import an_image, tilted_matrix
from mrml.controlling import AXIAL, DEADLINE_S, Driver, box, carried, in_process, point, view_on
from mrml.host import MrmlHost

from SegmentAnythingMedLib.geometry import SliceGeometry
from SegmentAnythingMedLib.models.registry import default_model
from SegmentAnythingMedLib.mrml.controller import Controller
from SegmentAnythingMedLib.mrml.controller_link import Purpose
from SegmentAnythingMedLib.mrml.controller_states import State
from SegmentAnythingMedLib.mrml.frame import VolumeFrame
from SegmentAnythingMedLib.mrml.segment_reader import segment_on_slice
from SegmentAnythingMedLib.worker.client import WorkerClient


@pytest.fixture
def driver(drive: Callable[..., Driver], a_volume: slicer.vtkMRMLScalarVolumeNode) -> Driver:
    """Ready to prompt the tilted volume."""
    made = drive()
    made.controller.set_volume(a_volume)
    return made


def test_a_controller_begins_with_the_default_model(
    host: MrmlHost, a_volume: slicer.vtkMRMLScalarVolumeNode, tmp_path: Path
) -> None:
    controller = Controller(host.scene, lambda: WorkerClient(folder=tmp_path, threads=1))
    controller.set_volume(a_volume)
    controller.add_prompt(box())
    wait = time.monotonic() + DEADLINE_S
    try:
        while controller.model_loaded is None:
            assert time.monotonic() < wait, controller.messages
            controller.poll()
            time.sleep(0.001)
        assert controller.model_loaded.name == controller.link.model == default_model()
    finally:
        controller.close()


def test_a_prompt_is_outlined_carried_and_accepted_as_the_session_does_it(
    driver: Driver, a_volume: slicer.vtkMRMLScalarVolumeNode
) -> None:
    controller = driver.controller
    node = controller.start_placing("point")
    frame = VolumeFrame.of(a_volume)
    node.AddControlPointWorld(*frame.ras_from_ijk(np.array([12.0, 10.0, 6.0])))
    controller.stop_placing()
    controller.add_prompt(box())
    driver.settle()
    point_prompt = controller.markups.records()[0].prompt
    session = in_process(a_volume, point_prompt, box())
    np.testing.assert_array_equal(driver.proposal(), session.labelmap(1))
    controller.propagate("both")
    driver.settle()
    expected = carried(session)
    assert expected.sum() > session.mask_on(1, session.slice_key(AXIAL, 6)).sum()
    np.testing.assert_array_equal(driver.proposal(), expected)
    assert not driver.labelmap().any()
    driver.accept()
    np.testing.assert_array_equal(driver.labelmap(), expected)
    assert driver.states == [
        State.IDLE, State.PROMPTING, State.SEGMENTING, State.PROPAGATING, State.REVIEWING, State.PROMPTING
    ] or driver.states == [
        State.IDLE, State.PROMPTING, State.SEGMENTING, State.PROMPTING, State.PROPAGATING, State.REVIEWING,
        State.PROMPTING,
    ]  # fmt: skip


def test_moving_and_deleting_a_point_is_followed_and_undo_goes_back(
    driver: Driver, a_volume: slicer.vtkMRMLScalarVolumeNode
) -> None:
    controller = driver.controller
    controller.add_prompt(point(12, 10))
    driver.settle()
    here = driver.proposal()
    node = next(iter(controller.markups.nodes))
    place = VolumeFrame.of(a_volume).ras_from_ijk(np.array([8.0, 9.0, 6.0]))
    node.SetNthControlPointPositionWorld(0, *(float(x) for x in place))
    driver.settle()
    moved = driver.proposal()
    np.testing.assert_array_equal(moved, in_process(a_volume, controller.markups.records()[0].prompt).labelmap(1))
    assert moved.any() and not np.array_equal(moved, here)
    node.RemoveNthControlPoint(0)
    driver.settle()
    assert not driver.proposal().any()
    for expected in (moved, here):
        controller.undo_prompt()
        driver.settle()
        np.testing.assert_array_equal(driver.proposal(), expected)
    controller.redo_prompt()
    driver.settle()
    np.testing.assert_array_equal(driver.proposal(), moved)


def test_clearing_removes_all_prompts_and_their_outlines_in_one_step(driver: Driver) -> None:
    controller = driver.controller
    for prompt in (box(), point(4, 4, positive=False), box(8)):
        controller.add_prompt(prompt)
    driver.settle()
    before = driver.proposal()
    controller.clear()
    driver.settle()
    assert not driver.proposal().any() and before.any()
    controller.undo_prompt()
    driver.settle()
    assert len(controller.markups.records()) == 3 and driver.proposal()[[6, 8]].any(axis=(1, 2)).all()


def test_candidates_of_one_click_are_cycled(driver: Driver, a_volume: slicer.vtkMRMLScalarVolumeNode) -> None:
    controller = driver.controller
    controller.add_prompt(point(12, 10))
    driver.settle()
    first = driver.proposal()
    assert controller.candidate == (0, 2)
    controller.cycle_candidate(1)
    driver.settle()
    second = driver.proposal()
    assert controller.candidate == (1, 2) and second.sum() > first.sum()
    controller.cycle_candidate(1)
    driver.settle()
    np.testing.assert_array_equal(driver.proposal(), first)
    controller.add_prompt(box())
    driver.settle()
    controller.cycle_candidate(-1)
    assert "only one outline" in controller.status


def test_undo_and_redo_of_an_accepted_segment(driver: Driver) -> None:
    controller = driver.controller
    controller.undo()
    assert controller.status == "There is nothing to undo."
    controller.add_prompt(box())
    driver.settle()
    driver.accept()
    accepted = driver.labelmap()
    assert accepted.any() and not driver.proposal().any()
    controller.undo()
    driver.settle()
    assert not driver.labelmap().any()
    controller.redo()
    driver.settle()
    np.testing.assert_array_equal(driver.labelmap(), accepted)


def test_discarding_takes_the_new_prompts_away_and_leaves_the_accepted_segment(driver: Driver) -> None:
    controller = driver.controller
    controller.add_prompt(box())
    driver.settle()
    driver.accept()
    accepted = driver.labelmap()
    controller.add_prompt(box(8))
    driver.settle()
    assert driver.proposal()[8].any() and not driver.proposal()[6].any()
    controller.discard()
    assert controller.state is State.PROMPTING and not driver.proposal().any()
    assert [record.prompt for record in controller.markups.records()] == [box()]
    controller.propagate("both")
    driver.settle()
    assert driver.proposal()[[3, 4, 5, 7, 8, 9]].any(axis=(1, 2)).all()  # slice 6 is accepted already
    controller.discard()
    np.testing.assert_array_equal(driver.labelmap(), accepted)


def test_accepting_waits_for_the_outline_that_is_on_its_way(driver: Driver) -> None:
    driver.controller.add_prompt(box())
    driver.until(lambda: driver.proposal().any())
    driver.controller.add_prompt(box(7))
    driver.controller.accept()
    driver.until(lambda: "Accepted" in driver.controller.status)
    assert driver.labelmap()[[6, 7]].any(axis=(1, 2)).all()


def test_several_segments_are_carried_and_accepted_together(
    driver: Driver, a_volume: slicer.vtkMRMLScalarVolumeNode
) -> None:
    controller = driver.controller
    ids = [controller.set_segment("Liver"), controller.add_segment("Kidney")]
    names = [controller.segmentation.GetSegmentation().GetSegment(name).GetName() for name in ids]
    assert names == ["Liver", "Kidney"]
    controller.add_prompt(point(17, 10))
    controller.set_segment("Liver")
    controller.add_prompt(point(7, 10))
    driver.settle()
    controller.propagate("both", 5, 7, segment_ids=ids)
    driver.settle()
    driver.accept()
    for segment_id, prompt in zip(ids, (point(7, 10), point(17, 10)), strict=True):
        session = in_process(a_volume, prompt)
        np.testing.assert_array_equal(driver.labelmap(segment_id), carried(session, first=5, last=7))


def test_the_range_comes_from_what_the_views_show(
    driver: Driver, host: MrmlHost, a_volume: slicer.vtkMRMLScalarVolumeNode
) -> None:
    controller = driver.controller
    controller.add_prompt(box())
    driver.settle()
    controller.to_here(view_on(host, a_volume, 7, "Red"))
    controller.from_here(view_on(host, a_volume, 5, "Green"))
    assert controller.range == (5, 7)
    controller.propagate("both")
    driver.settle()
    np.testing.assert_array_equal(np.flatnonzero(driver.proposal().any(axis=(1, 2))), [5, 6, 7])
    controller.set_range()
    controller.propagate("forward")
    driver.settle()
    assert driver.proposal()[9].any() and not driver.proposal()[4].any()


def test_the_users_segment_on_the_shown_slice_becomes_a_prompt(
    driver: Driver, host: MrmlHost, a_volume: slicer.vtkMRMLScalarVolumeNode
) -> None:
    controller, view = driver.controller, view_on(host, a_volume, 6)
    controller.use_segment_as_prompt(view)
    assert "nothing on slice 6" in controller.status
    controller.add_prompt(box())
    driver.settle()
    driver.accept()
    controller.clear()
    controller.discard()
    controller.use_segment_as_prompt(view)
    driver.settle()
    np.testing.assert_array_equal(driver.proposal()[6], driver.labelmap()[6])


def test_a_window_or_model_chosen_later_outlines_again(driver: Driver) -> None:
    controller = driver.controller
    controller.add_prompt(box())
    driver.settle()
    before = driver.proposal()
    controller.set_window("10/1000")
    driver.settle()
    assert controller.state is State.PROMPTING and not driver.proposal().any()
    controller.set_window("display")
    controller.volume.GetDisplayNode().SetAutoWindowLevel(0)
    controller.volume.GetDisplayNode().SetWindowLevel(100, 50)
    controller.set_model("fake", delay=0.001)
    driver.settle()
    np.testing.assert_array_equal(driver.proposal(), before)
    assert controller.model_loaded.name == "fake"


def test_exported_prompts_come_back_with_segments_and_outlines(
    driver: Driver, drive: Callable[..., Driver], a_volume: slicer.vtkMRMLScalarVolumeNode, tmp_path: Path
) -> None:
    controller, path = driver.controller, tmp_path / "prompts.json"
    controller.set_segment("Liver")
    for prompt in (box(), point(4, 4, positive=False)):
        controller.add_prompt(prompt)
        driver.settle()
    expected = driver.proposal()
    controller.export_prompts(path)
    other = drive()
    other.controller.import_prompts(path)
    assert other.controller.status == "Choose a volume first."
    other.controller.set_volume(a_volume)
    other.controller.import_prompts(path)
    other.settle()
    np.testing.assert_array_equal(other.proposal(), expected)
    segmentation = other.controller.segmentation
    assert segmentation is not controller.segmentation
    assert segmentation.GetSegmentation().GetNthSegment(0).GetName() == "Liver"


def test_a_saved_scene_is_replayed_to_the_same_segment(
    driver: Driver, drive: Callable[..., Driver], host: MrmlHost, tmp_path: Path
) -> None:
    controller = driver.controller
    controller.set_segment("Liver")
    for prompt in (box(), point(5, 10, positive=False)):
        controller.add_prompt(prompt)
        driver.settle()
    controller.confirm_slice(index=6)
    controller.propagate()
    driver.settle()
    driver.accept()
    expected = driver.labelmap()
    host.save(tmp_path / "scene.mrb")
    host.load(tmp_path / "scene.mrb")
    driver.controller.poll()
    assert controller.state is State.IDLE
    again = drive()
    again.controller.set_volume(host.scene.GetFirstNodeByName("tilted"))
    again.controller.set_segmentation(host.scene.GetFirstNodeByClass("vtkMRMLSegmentationNode"))
    again.controller.set_segment("Liver")
    np.testing.assert_array_equal(again.labelmap(), expected)
    again.controller.replay()
    again.settle()
    again.controller.propagate()
    again.settle()
    np.testing.assert_array_equal(again.proposal(), expected)
    again.accept()
    np.testing.assert_array_equal(again.labelmap(), expected)


def test_a_segmentation_without_reference_geometry_is_written(
    driver: Driver, host: MrmlHost, a_volume: slicer.vtkMRMLScalarVolumeNode
) -> None:
    node = host.add_segmentation(None)
    driver.controller.set_segmentation(node)
    driver.controller.add_prompt(box())
    driver.settle()
    driver.accept()
    frame, segment_id = VolumeFrame.of(a_volume), driver.controller.segment_id
    slices = SliceGeometry(frame.geometry, AXIAL)
    written = [segment_on_slice(node, segment_id, frame, slices, index) for index in range(slices.count)]
    np.testing.assert_array_equal(written, in_process(a_volume, box()).labelmap(1))


def test_nothing_is_started_before_it_is_needed_and_then_the_shown_slices_are_prepared(
    driver: Driver, host: MrmlHost, a_volume: slicer.vtkMRMLScalarVolumeNode
) -> None:
    controller = driver.controller
    view_on(host, a_volume, 6)
    controller.poll()
    assert controller.link.started is None
    controller.start_placing("box")
    assert controller.placing_kind == "box"
    driver.until(lambda: any(job.purpose is Purpose.PREFETCH for job in controller.link.jobs.values()))
    driver.settle()
    controller.start_placing("scribble")
    assert controller.placing_kind == "scribble"
    controller.stop_placing()
    assert controller.placing_kind == ""


def test_each_time_point_has_its_own_prompts_and_outlines(
    driver: Driver, host: MrmlHost, a_volume: slicer.vtkMRMLScalarVolumeNode
) -> None:
    sequence = host.scene.AddNewNodeByClass("vtkMRMLSequenceNode", "frames")
    for number, frame in enumerate((an_image(), np.roll(an_image(), 3, axis=2))):
        node = host.add_volume(frame, tilted_matrix(), f"frame {number}")
        sequence.SetDataNodeAtValue(node, str(number))
        host.scene.RemoveNode(node)
    browser = host.scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", "browser")
    browser.SetAndObserveMasterSequenceNodeID(sequence.GetID())
    host.logics["Sequences"].UpdateProxyNodesFromSequences(browser)
    proxy, controller = browser.GetProxyNode(sequence), driver.controller
    controller.set_time(1)
    assert controller.status == "The volume has only one time point."
    controller.set_volume(proxy)
    controller.add_prompt(box())
    driver.settle()
    first = driver.proposal()
    np.testing.assert_array_equal(first, in_process(proxy, box()).labelmap(1))
    controller.set_time(1)
    host.logics["Sequences"].UpdateProxyNodesFromSequences(browser)
    driver.settle()
    assert controller.time == 1 and not driver.proposal().any()
    controller.add_prompt(box())
    driver.settle()
    np.testing.assert_array_equal(driver.proposal(), in_process(proxy, box()).labelmap(1))
    assert not np.array_equal(driver.proposal(), first)
    assert [record.time for record in controller.markups.records()] == [0, 1]


def test_two_volumes_are_channels_of_one(
    driver: Driver, host: MrmlHost, a_volume: slicer.vtkMRMLScalarVolumeNode
) -> None:
    other = host.add_volume(an_image(), tilted_matrix(), "other", a_volume.GetParentTransformNode())
    driver.controller.set_volume(a_volume, channels=[other])
    driver.controller.add_prompt(box())
    driver.settle()
    np.testing.assert_array_equal(driver.proposal(), in_process(a_volume, box()).labelmap(1))

"""What the user accepted, painted and prompted survives other volumes, other segments and nodes without data."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import slicer
import vtk
from mrml.conftest import an_image, tilted_matrix
from mrml.controlling import Driver, box, point
from mrml.host import MrmlHost
from vtkmodules.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from SegmentAnythingMedLib.mrml.controller_states import State
from SegmentAnythingMedLib.mrml.frame import VolumeFrame, matrix_of
from SegmentAnythingMedLib.mrml.label_grid import Box, labelmap_of, read_box


@pytest.fixture
def driver(drive: Callable[..., Driver], a_volume: slicer.vtkMRMLScalarVolumeNode) -> Driver:
    """A box is carried through the volume; nothing is accepted yet."""
    made = drive()
    made.controller.set_volume(a_volume)
    made.controller.add_prompt(box())
    made.settle()
    made.controller.propagate()
    made.settle()
    return made


@pytest.fixture
def another_volume(host: MrmlHost) -> slicer.vtkMRMLScalarVolumeNode:
    """In the same place, on a somewhat finer grid."""
    return host.add_volume(an_image(), tilted_matrix() @ np.diag([0.9, 0.9, 0.9, 1]), "another")


def paint(driver: Driver, index: int, segment_id: str = "", value: int = 0) -> np.ndarray:
    """Paint one voxel of a slice with a value, as the Segment Editor does; (rows, columns) bool of the slice."""
    segment_id = segment_id or driver.controller.segment_id
    image = labelmap_of(driver.controller.segmentation, segment_id)
    labels = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(*reversed(image.GetDimensions()))
    layer = labels[index - image.GetExtent()[4]]
    layer[tuple(np.argwhere(layer != value)[0])] = value
    image.Modified()
    return driver.labelmap(segment_id)[index]


def prompts_of(driver: Driver) -> list[tuple[str, object]]:
    return [(record.uid, record.prompt) for record in driver.controller.markups.records()]


def test_what_was_accepted_is_written_to_its_end_though_another_volume_is_chosen(
    driver: Driver, another_volume: slicer.vtkMRMLScalarVolumeNode, a_volume: slicer.vtkMRMLScalarVolumeNode
) -> None:
    controller, expected = driver.controller, driver.proposal().copy()
    node, segment_id, frame = controller.segmentation, controller.segment_id, VolumeFrame.of(a_volume)
    controller.accept()
    controller.set_volume(another_volume)
    assert controller.is_writing
    driver.settle()
    whole = Box((0, 0, 0), frame.local.shape_kji)
    np.testing.assert_array_equal(read_box(node, segment_id, frame, whole), expected)
    controller.poll()
    assert controller.left == [] and controller.volume is another_volume


@pytest.mark.parametrize("leave", ["set_segmentation", "close"])
def test_what_was_accepted_is_written_to_its_end_though_the_work_ends(driver: Driver, leave: str) -> None:
    controller, expected = driver.controller, driver.proposal().copy()
    node, segment_id, frame = controller.segmentation, controller.segment_id, VolumeFrame.of(controller.volume)
    controller.accept()
    if leave == "close":
        controller.close()
    else:
        controller.set_segmentation(None)
        driver.settle()
    whole = Box((0, 0, 0), frame.local.shape_kji)
    np.testing.assert_array_equal(read_box(node, segment_id, frame, whole), expected)


def test_an_undo_that_has_begun_goes_on_though_another_segmentation_is_chosen(driver: Driver) -> None:
    controller = driver.controller
    driver.accept()
    node, segment_id, frame = controller.segmentation, controller.segment_id, VolumeFrame.of(controller.volume)
    controller.undo()
    controller.set_segmentation(None)
    driver.settle()
    assert not read_box(node, segment_id, frame, Box((0, 0, 0), frame.local.shape_kji)).any()


def test_a_volume_that_moves_while_a_segment_is_written_is_said_to_have_broken_it_off(
    driver: Driver, a_pose: slicer.vtkMRMLLinearTransformNode
) -> None:
    driver.controller.accept()
    a_pose.SetMatrixTransformToParent(matrix_of(np.eye(4)))
    driver.controller.poll()
    assert "ended half way: undo the acceptance" in driver.controller.status


def test_accepting_twice_writes_once(driver: Driver) -> None:
    expected = driver.proposal().copy()
    driver.controller.accept()
    driver.controller.accept()
    driver.settle()
    np.testing.assert_array_equal(driver.labelmap(), expected)
    driver.controller.undo()
    driver.settle()
    assert not driver.labelmap().any() and not driver.controller.proposals.writer.can_undo


def test_a_segment_removed_while_it_is_written_is_said_in_words(driver: Driver) -> None:
    controller = driver.controller
    for steps in range(12):
        controller.set_segment(f"Segment {steps}")
        controller.add_prompt(box())
        driver.settle()
        controller.accept()
        for _ in range(steps):
            controller.poll(0.0)
        controller.segmentation.GetSegmentation().RemoveSegment(controller.segment_id)
        driver.settle()
    assert not any("Something went wrong inside" in sentence for sentence in controller.messages)


def test_slices_painted_in_two_segments_are_both_kept_when_both_are_accepted(
    drive: Callable[..., Driver], a_volume: slicer.vtkMRMLScalarVolumeNode
) -> None:
    driver = drive()
    controller = driver.controller
    controller.set_volume(a_volume)
    ids = [controller.set_segment("Liver"), controller.add_segment("Kidney")]
    for segment_id in ids:
        controller.set_segment(segment_id)
        controller.add_prompt(box())
    driver.settle()
    controller.propagate("both", segment_ids=ids)
    driver.settle()
    driver.accept()
    controller.propagate("both", segment_ids=ids)
    driver.settle()
    painted = {segment_id: paint(driver, 8, segment_id) for segment_id in ids}
    driver.accept()
    for segment_id in ids:
        np.testing.assert_array_equal(driver.labelmap(segment_id)[8], painted[segment_id])
    painted = {segment_id: paint(driver, 7, segment_id) for segment_id in ids}
    controller.propagate("both", segment_ids=ids)
    driver.settle()
    driver.accept()
    for segment_id in ids:
        np.testing.assert_array_equal(driver.labelmap(segment_id)[7], painted[segment_id])


def test_what_was_painted_before_an_undo_is_still_the_users_afterwards(driver: Driver) -> None:
    controller = driver.controller
    driver.accept()
    paint(driver, 8, value=1)
    controller.undo()
    driver.settle()
    painted = driver.labelmap()[8]
    assert painted.sum() == 1
    controller.propagate()
    driver.settle()
    driver.accept()
    np.testing.assert_array_equal(driver.labelmap()[8], painted)
    assert [record.prompt.index for record in controller.markups.records() if record.role] == [8]


def test_voxels_that_one_accepted_segment_takes_from_another_are_not_the_users_strokes(
    driver: Driver, host: MrmlHost
) -> None:
    editor = host.scene.CreateNodeByClass("vtkMRMLSegmentEditorNode")
    editor.UnRegister(None)
    editor.SetSingletonTag("SegmentEditor")
    host.scene.AddNode(editor)
    editor.SetOverwriteMode(editor.OverwriteAllSegments)
    controller, first = driver.controller, driver.controller.segment_id
    driver.accept()
    painted = paint(driver, 4, first)
    controller.add_segment("Kidney")
    controller.add_prompt(box(7))
    driver.settle()
    driver.accept()
    assert not driver.labelmap(first)[7].any()
    controller.set_segment(first)
    controller.propagate()
    driver.settle()
    assert [record.prompt.index for record in controller.markups.records(first) if record.role] == [4]
    np.testing.assert_array_equal(driver.proposal(first)[4], painted)


def test_another_volume_with_the_same_segmentation_has_its_own_prompts(
    driver: Driver, another_volume: slicer.vtkMRMLScalarVolumeNode, a_volume: slicer.vtkMRMLScalarVolumeNode
) -> None:
    controller = driver.controller
    controller.add_prompt(point(12, 10))
    driver.settle()
    driver.accept()
    node, before = controller.segmentation, prompts_of(driver)
    places = [item.GetNthControlPointPositionWorld(0) for item in controller.markups.nodes]
    controller.set_volume(another_volume)
    controller.set_segmentation(node)
    controller.set_segment("")
    assert controller.markups.records() == ()
    controller.add_prompt(point(12, 10, 5))
    driver.settle()
    assert driver.proposal()[5].any()
    controller.set_volume(a_volume)
    controller.set_segmentation(node)
    assert prompts_of(driver) == before
    np.testing.assert_allclose([item.GetNthControlPointPositionWorld(0) for item in controller.markups.nodes], places)


def test_prompts_of_a_volume_that_was_removed_and_loaded_again_are_found(
    driver: Driver, host: MrmlHost, a_volume: slicer.vtkMRMLScalarVolumeNode
) -> None:
    controller = driver.controller
    controller.add_prompt(point(12, 10))
    driver.settle()
    node, before = controller.segmentation, prompts_of(driver)
    pose = a_volume.GetParentTransformNode()
    host.scene.RemoveNode(a_volume)
    controller.poll()
    controller.set_volume(host.add_volume(an_image()[:4], tilted_matrix(), "smaller", pose))
    controller.set_segmentation(node)
    assert controller.markups.records() == ()
    controller.set_volume(host.add_volume(an_image(), tilted_matrix(), "again", pose))
    controller.set_segmentation(node)
    assert prompts_of(driver) == before
    assert len(list(controller.markups.nodes)) == 2


def test_a_volume_that_loses_its_voxels_ends_the_work_and_another_can_be_chosen(
    driver: Driver, another_volume: slicer.vtkMRMLScalarVolumeNode, a_volume: slicer.vtkMRMLScalarVolumeNode
) -> None:
    controller = driver.controller
    a_volume.SetAndObserveImageData(None)
    controller.poll()
    assert controller.state is State.IDLE and controller.status.startswith("The voxels of the volume were removed")
    controller.set_volume(a_volume)
    assert controller.volume is None and "has no voxels" in controller.status
    controller.set_volume(another_volume)
    controller.add_prompt(box())
    driver.settle()
    assert driver.proposal()[6].any()


def test_prompts_outside_a_volume_that_became_smaller_are_kept_and_do_not_stop_the_work(
    driver: Driver, a_volume: slicer.vtkMRMLScalarVolumeNode
) -> None:
    controller = driver.controller
    image = vtk.vtkImageData()
    image.SetDimensions(24, 20, 5)
    image.GetPointData().SetScalars(numpy_to_vtk(an_image()[:5].reshape(-1, 1), deep=1))
    a_volume.SetAndObserveImageData(image)
    controller.poll()
    assert controller.status.startswith("The volume was moved")
    controller.add_prompt(box(4))
    driver.settle()
    assert driver.proposal()[4].any()
    controller.remove_prompts([controller.markups.records()[0].uid])
    driver.settle()
    assert [record.prompt for record in controller.markups.records()] == [box(4)] and driver.proposal()[4].any()


def test_a_prompts_file_with_one_prompt_beside_the_volume_adds_none_of_them(driver: Driver, tmp_path: Path) -> None:
    controller, path = driver.controller, tmp_path / "prompts.json"
    controller.add_prompt(box(7))
    controller.export_prompts(path)
    document = json.loads(path.read_text())
    document["objects"][0]["prompts"][1]["corners_ijk"] = [[3, 3, 70], [9, 9, 70]]
    path.write_text(json.dumps(document))
    before = prompts_of(driver)
    controller.import_prompts(path)
    assert "outside the volume" in controller.status and prompts_of(driver) == before


def test_a_prompts_file_that_calls_a_box_a_confirmed_slice_is_refused(driver: Driver, tmp_path: Path) -> None:
    controller, path = driver.controller, tmp_path / "prompts.json"
    controller.export_prompts(path)
    document = json.loads(path.read_text())
    document["objects"][0]["prompts"][0]["role"] = "confirmed"
    path.write_text(json.dumps(document))
    before = prompts_of(driver)
    controller.import_prompts(path)
    assert '"role" must be' in controller.status and prompts_of(driver) == before


def test_the_segment_as_prompt_without_any_view_is_said_in_words(driver: Driver) -> None:
    driver.controller.use_segment_as_prompt(None)
    assert driver.controller.status == "No slice view is shown."


@pytest.mark.parametrize("choose", ["set_window", "set_policy"])
def test_another_window_or_policy_recovers_from_one_that_is_not_known(driver: Driver, choose: str) -> None:
    controller = driver.controller
    known = controller.link.window if choose == "set_window" else controller.link.policy
    getattr(controller, choose)("of a newer version")
    driver.until(lambda: controller.state is State.FAILED)
    assert "is not known" in controller.status
    getattr(controller, choose)(known)
    driver.settle()
    assert controller.state is State.PROMPTING and driver.proposal()[6].any()


@pytest.mark.parametrize("text", ["[" * 200_000, '{"version": 2}', "null"])
def test_prompts_of_a_scene_that_cannot_be_read_are_said_in_words_and_left_as_they_are(
    driver: Driver, text: str
) -> None:
    controller = driver.controller
    node, stored = controller.segmentation, controller.markups.store.node
    controller.set_segmentation(None)
    stored.SetText(text)
    controller.set_segmentation(node)
    assert controller.status.startswith("The scene's prompts")
    controller.add_prompt(box(7))
    assert stored.GetText() == text

"""What is kept and said when the worker dies, nodes vanish, and the user corrects by hand."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import slicer
from mrml.controlling import Driver, box, carried, in_process, point, view_on
from mrml.host import MrmlHost
from vtkmodules.util.numpy_support import vtk_to_numpy

from SegmentAnythingMedLib.mrml import controller_review
from SegmentAnythingMedLib.mrml.controller_link import Purpose
from SegmentAnythingMedLib.mrml.controller_states import State
from SegmentAnythingMedLib.mrml.frame import matrix_of
from SegmentAnythingMedLib.mrml.label_grid import labelmap_of
from SegmentAnythingMedLib.mrml.segment_writer import SegmentWriter


@pytest.fixture
def driver(drive: Callable[..., Driver], a_volume: slicer.vtkMRMLScalarVolumeNode) -> Driver:
    """A box is outlined on slice 6."""
    return with_a_box(drive(), a_volume)


@pytest.fixture
def slow(drive: Callable[..., Driver], a_volume: slicer.vtkMRMLScalarVolumeNode) -> Driver:
    """As `driver`, and being carried, 50 ms a slice; one slice has come."""
    made = with_a_box(drive(delay=0.05), a_volume)
    made.controller.propagate()
    made.until(lambda: made.controller.progress.done >= 1)
    return made


def with_a_box(made: Driver, volume: slicer.vtkMRMLScalarVolumeNode) -> Driver:
    made.controller.set_volume(volume)
    made.controller.add_prompt(box())
    made.settle()
    return made


def paint(driver: Driver, index: int) -> np.ndarray:
    """Paint a square onto a slice of the user's segment as the Segment Editor does; (rows, columns) bool."""
    node, segment_id = driver.controller.segmentation, driver.controller.segment_id
    image = labelmap_of(node, segment_id)
    extent = np.array(image.GetExtent())
    labels = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(*reversed(image.GetDimensions()))
    labels[index - extent[4], 8 - extent[2] : 12 - extent[2], 10 - extent[0] : 14 - extent[0]] = 0
    image.Modified()
    return driver.labelmap()[index]


def test_cancelling_keeps_what_is_done(slow: Driver) -> None:
    slow.controller.cancel()
    slow.settle()
    assert slow.controller.state is State.REVIEWING
    assert slow.controller.status == "Cancelled: the slices that are finished are kept."
    assert 2 <= slow.proposal().any(axis=(1, 2)).sum() < 7


def test_accepting_in_the_middle_ends_the_propagation_and_writes_what_is_done(slow: Driver) -> None:
    slow.controller.accept()
    slow.until(lambda: "Accepted" in slow.controller.status)
    assert slow.controller.state is State.PROMPTING
    assert 2 <= slow.labelmap().any(axis=(1, 2)).sum() < 7


def test_a_killed_worker_is_told_started_again_and_the_work_goes_on(
    slow: Driver, a_volume: slicer.vtkMRMLScalarVolumeNode
) -> None:
    controller = slow.controller
    os.kill(controller.link.started.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
    slow.until(lambda: "started again" in controller.status and "prompts and finished" in controller.status)
    assert any("stopped unexpectedly" in sentence for sentence in controller.messages)
    assert any("press propagate to go on" in sentence for sentence in controller.messages)
    assert controller.state is State.REVIEWING and slow.proposal().any(axis=(1, 2)).sum() >= 2
    controller.propagate()
    slow.settle()
    np.testing.assert_array_equal(slow.proposal(), carried(in_process(a_volume, box())))


def test_a_worker_that_dies_too_often_is_given_up_until_it_is_restarted(
    drive: Callable[..., Driver], a_volume: slicer.vtkMRMLScalarVolumeNode
) -> None:
    driver = drive(crashes_on=0)
    driver.controller.set_volume(a_volume)
    driver.controller.add_prompt(box(7))  # its corner voxel is 0: the model crashes there
    driver.settle()
    assert "prompts are kept" in " ".join(driver.controller.messages)
    driver.controller.add_prompt(point(12, 10, 7))
    driver.until(lambda: driver.controller.state is State.FAILED)
    assert "start it by hand" in driver.controller.status
    driver.controller.set_model("fake")
    driver.settle()
    assert driver.controller.state is State.PROMPTING
    assert driver.proposal()[7].any()


def test_a_model_that_is_not_there_is_said_and_another_one_takes_over(
    drive: Callable[..., Driver], a_volume: slicer.vtkMRMLScalarVolumeNode
) -> None:
    driver = drive()
    driver.controller.set_model("missing")
    driver.controller.set_volume(a_volume)
    driver.controller.add_prompt(box())
    driver.until(lambda: driver.controller.state is State.FAILED)
    assert "'missing' is not known" in driver.controller.status
    driver.controller.add_prompt(point(12, 10, 7))
    driver.controller.set_model("fake")
    driver.settle()
    assert driver.controller.state is State.PROMPTING
    assert driver.proposal()[[6, 7]].any(axis=(1, 2)).all()


def test_prompts_given_while_packages_are_installed_are_outlined_afterwards(
    drive: Callable[..., Driver], a_volume: slicer.vtkMRMLScalarVolumeNode
) -> None:
    driver = drive()
    driver.controller.set_volume(a_volume)
    driver.controller.begin_install()
    driver.controller.add_prompt(box())
    driver.settle()
    assert driver.controller.state is State.INSTALLING and driver.controller.link.started is None
    driver.controller.end_install("No network: copy the wheels and try again.")
    assert driver.controller.state is State.FAILED and driver.controller.status.startswith("No network")
    driver.controller.begin_install()
    driver.controller.end_install()
    driver.settle()
    assert driver.controller.state is State.PROMPTING and driver.proposal()[6].any()


def test_removing_the_volume_while_it_is_carried_ends_the_work(
    slow: Driver, host: MrmlHost, a_volume: slicer.vtkMRMLScalarVolumeNode
) -> None:
    segmentation, preview = slow.controller.segmentation, slow.controller.proposals.preview.node
    host.scene.RemoveNode(a_volume)
    slow.controller.poll()
    assert slow.controller.state is State.IDLE and slow.controller.status.startswith("The volume was removed")
    assert host.scene.IsNodePresent(segmentation) and not host.scene.IsNodePresent(preview)
    slow.controller.propagate()
    assert slow.controller.status == "Choose a volume first."
    again = host.add_volume(np.where(np.indices((12, 20, 24)).sum(0) > 20, 100, 0).astype(np.int16))
    slow.controller.set_volume(again)
    slow.controller.add_prompt(box())
    slow.settle()
    assert slow.proposal().any()


def test_removing_the_segmentation_or_a_segment_ends_the_work_on_it(slow: Driver, host: MrmlHost) -> None:
    controller, segmentation = slow.controller, slow.controller.segmentation
    controller.add_segment("Other")
    segmentation.GetSegmentation().RemoveSegment(controller.segments.with_object(1).segment_id)
    controller.poll()
    assert "A segment was removed" in controller.status
    slow.settle()
    controller.add_prompt(box())
    slow.settle()
    controller.propagate()
    host.scene.RemoveNode(segmentation)
    controller.poll()
    assert controller.state is State.PROMPTING and controller.status.startswith("The segmentation was removed")
    controller.add_prompt(box())
    slow.settle()
    assert controller.segmentation is not segmentation and slow.proposal().any()


def test_closing_the_scene_ends_the_work(slow: Driver, host: MrmlHost) -> None:
    host.scene.Clear(False)
    slow.controller.poll()
    assert slow.controller.state is State.IDLE and slow.controller.status.startswith("The scene was closed")
    assert slow.controller.volume is None and slow.controller.segmentation is None
    slow.settle()


def test_another_volume_replaces_the_first_in_the_middle_of_a_job(slow: Driver, host: MrmlHost) -> None:
    voxels = np.zeros((5, 20, 24), np.int16)
    voxels[1:4, 5:9, 5:9] = 100
    slow.controller.set_volume(host.add_volume(voxels, name="second"))
    assert slow.controller.state is State.PROMPTING
    slow.controller.add_prompt(box(2))
    slow.settle()
    np.testing.assert_array_equal(slow.proposal()[2], voxels[2] > 50)
    slow.controller.set_volume(None)
    assert slow.controller.state is State.IDLE


def test_voxels_edited_in_the_middle_of_a_job_are_noticed(
    slow: Driver, a_volume: slicer.vtkMRMLScalarVolumeNode
) -> None:
    voxels = vtk_to_numpy(a_volume.GetImageData().GetPointData().GetScalars()).reshape(12, 20, 24)
    voxels.flags.writeable = True
    voxels[:, 10:] = 0
    a_volume.GetImageData().GetPointData().GetScalars().Modified()
    slow.controller.poll()
    assert "voxels were changed" in slow.controller.status
    slow.settle()
    slow.controller.add_prompt(box(8))
    slow.settle()
    np.testing.assert_array_equal(slow.proposal()[8], in_process(a_volume, box(8)).labelmap(1)[8])
    assert not slow.proposal()[8][10:].any()


def test_a_volume_that_is_moved_is_outlined_again_where_it_is(
    driver: Driver, a_pose: slicer.vtkMRMLLinearTransformNode
) -> None:
    before = driver.proposal()
    a_pose.SetMatrixTransformToParent(matrix_of(np.diag([1.0, 1.0, 1.0, 1.0])))
    driver.controller.poll()
    assert "was moved" in driver.controller.status
    driver.settle()
    np.testing.assert_array_equal(driver.proposal(), before)


def test_a_painted_slice_is_confirmed_and_repropagation_keeps_it(driver: Driver) -> None:
    controller = driver.controller
    controller.propagate()
    driver.settle()
    driver.accept()
    painted = paint(driver, 8)
    before = driver.labelmap()
    controller.repropagate()
    driver.settle()
    assert [(record.role, record.prompt.index) for record in controller.markups.records() if record.role] == [
        ("painted", 8)
    ]
    assert controller.state is State.REVIEWING and 8 in [item.index for item in controller.review() if item.confirmed]
    driver.accept()
    np.testing.assert_array_equal(driver.labelmap()[8], painted)
    np.testing.assert_array_equal(driver.labelmap()[:6], before[:6])
    controller.undo()
    driver.settle()
    np.testing.assert_array_equal(driver.labelmap(), before)


def test_a_confirmed_slice_stays_through_another_propagation(
    driver: Driver, host: MrmlHost, a_volume: slicer.vtkMRMLScalarVolumeNode
) -> None:
    controller = driver.controller
    controller.propagate()
    driver.settle()
    confirmed = driver.proposal()[7]
    controller.confirm_slice(view_on(host, a_volume, 7))
    driver.settle()
    assert controller.state is State.REVIEWING
    controller.add_prompt(point(12, 10, 6, positive=False))
    driver.settle()
    controller.repropagate()
    driver.settle()
    np.testing.assert_array_equal(driver.proposal()[7], confirmed)
    controller.undo_prompt()
    controller.undo_prompt()
    driver.settle()
    assert not any(item.confirmed for item in controller.review())


def test_weak_slices_are_marked_and_jumped_to(
    driver: Driver,
    host: MrmlHost,
    a_volume: slicer.vtkMRMLScalarVolumeNode,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(controller_review, "WEAK_OVERLAP", 0.93)
    controller, view = driver.controller, view_on(host, a_volume, 6)
    controller.next_weak(view)
    assert controller.status == "No slice is weak."
    controller.propagate()
    driver.settle()
    strip = controller.review()
    weak = [item.index for item in strip if item.is_weak]
    assert [item.index for item in strip if not item.is_empty] == list(range(3, 10))
    assert len(weak) >= 2, strip
    assert all(item.overlap < 0.93 for item in strip if item.is_weak)
    found = controller.next_weak(view)
    assert found == min(index for index in weak if index > 6)
    assert controller.previous_weak(view) == max(index for index in weak if index < found)
    assert controller.link.open_jobs(Purpose.PROPAGATION) == []


def test_an_error_of_an_observer_or_inside_never_reaches_the_timer(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("broken")

    monkeypatch.setattr(SegmentWriter, "undo", fail)
    driver.accept()
    forget = driver.controller.observe(fail)
    driver.controller.set_range(2, 1)
    forget()
    assert driver.controller.range == (1, 2)
    monkeypatch.setattr(driver.controller.link, "changes", fail)
    driver.controller.poll()
    assert driver.controller.status.startswith("Something went wrong inside (ValueError)")


def test_a_full_disk_is_said_when_prompts_are_exported_and_the_old_file_stays(
    driver: Driver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "prompts.json"
    driver.controller.export_prompts(file)
    before = file.read_text(encoding="utf-8")

    def full(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    driver.controller.export_prompts(file)
    assert "No space left on device" in driver.controller.status
    assert file.read_text(encoding="utf-8") == before
    assert [path.name for path in tmp_path.glob("*prompts*")] == ["prompts.json"]
    assert driver.controller.markups.records()

"""The range of propagation from an ROI, whatever it hangs under, and several segments carried at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import slicer
from mrml.conftest import an_image, rotation
from mrml.controlling import AXIAL, Driver, box, carried, in_process, point, view_on
from mrml.host import MrmlHost

from SegmentAnythingMedLib.errors import GeometryError, PromptError
from SegmentAnythingMedLib.geometry import Plane, SliceGeometry
from SegmentAnythingMedLib.mrml.controller_states import State
from SegmentAnythingMedLib.mrml.frame import VolumeFrame, array_of, matrix_of
from SegmentAnythingMedLib.mrml.markup_kinds import slice_axes
from SegmentAnythingMedLib.mrml.roi_range import slices_in_roi
from SegmentAnythingMedLib.prompts import PointPrompt


def roi_over(
    host: MrmlHost,
    frame: VolumeFrame,
    plane: Plane,
    first: float,
    last: float,
    transform: slicer.vtkMRMLTransformNode | None = None,
) -> slicer.vtkMRMLMarkupsROINode:
    """An ROI along the slices of a plane, from one slice's centre to another's, 8 mm wide, under a transform."""
    slices = SliceGeometry(frame.geometry, plane)
    middle = (np.array(slices.shape) - 1) / 2
    ends = frame.ras_from_ijk(np.array([slices.ijk_from_pixels(at, middle) for at in (first, last)]))
    axes = slice_axes(slices, frame.geometry)
    size = np.array([8.0, 8.0, abs((ends[1] - ends[0]) @ axes[:, 2])])
    to_world, node = np.eye(4), host.scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "region")
    to_world[:3, :3], to_world[:3, 3] = axes, ends.mean(axis=0)
    if transform is not None:
        node.SetAndObserveTransformNodeID(transform.GetID())
        to_world = np.linalg.inv(frame_matrix(transform)) @ to_world
    node.SetCenter(*(float(x) for x in to_world[:3, 3]))
    node.SetAndObserveObjectToNodeMatrix(matrix_of(to_world))
    node.SetSize(*(float(x) for x in size))
    return node


def frame_matrix(transform: slicer.vtkMRMLTransformNode) -> np.ndarray:
    """(4, 4) from under a linear transform to the world."""
    matrix = matrix_of(np.eye(4))
    transform.GetMatrixTransformToWorld(matrix)
    return array_of(matrix)


def oblique(frame: VolumeFrame) -> Plane:
    normal = rotation(25, 10, 0) @ frame.geometry.slice_normal_world(2)
    return Plane.from_normal(normal, frame.geometry)


@pytest.mark.parametrize("is_transformed", [False, True])
@pytest.mark.parametrize("name", ["I", "J", "K", "oblique"])
def test_the_slices_in_a_turned_roi_are_those_whose_centres_lie_in_it(
    host: MrmlHost,
    a_volume: slicer.vtkMRMLScalarVolumeNode,
    a_pose: slicer.vtkMRMLLinearTransformNode,
    name: str,
    is_transformed: bool,
) -> None:
    frame = VolumeFrame.of(a_volume)
    plane = oblique(frame) if name == "oblique" else Plane.named(name, frame.geometry)
    pose = a_pose if is_transformed else None
    assert slices_in_roi(roi_over(host, frame, plane, 3, 7, pose), frame, plane) == (3, 7)
    assert slices_in_roi(roi_over(host, frame, plane, 3.3, 6.7, pose), frame, plane) == (4, 6)
    assert slices_in_roi(roi_over(host, frame, plane, 4.2, 4.4, pose), frame, plane) == (4, 4)
    count = SliceGeometry(frame.geometry, plane).count
    assert slices_in_roi(roi_over(host, frame, plane, -40, 80, pose), frame, plane) == (0, count - 1)


def test_an_roi_on_a_warped_volume_covers_the_slices_that_are_seen_in_it(host: MrmlHost) -> None:
    matrix = np.diag([1.5, 1.5, 3, 1.0])
    matrix[:3, 3] = -15, -15, -15
    frame = VolumeFrame.of(host.add_volume(an_image(), matrix, transform=host.add_warp(6.0)))
    seen = frame.ras_from_ijk(np.array([[11.0, 9, 3], [13.0, 11, 8]]))
    node = host.scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "region")
    node.SetCenter(*seen.mean(axis=0))
    node.SetSize(*np.abs(seen[1] - seen[0]))
    first, last = slices_in_roi(node, frame, AXIAL)
    assert abs(first - 3) <= 1 and abs(last - 8) <= 1


def test_an_roi_beside_the_volume_or_not_placed_is_refused_in_words(
    host: MrmlHost, a_volume: slicer.vtkMRMLScalarVolumeNode
) -> None:
    frame = VolumeFrame.of(a_volume)
    with pytest.raises(GeometryError, match="beside the volume"):
        slices_in_roi(roi_over(host, frame, AXIAL, 20, 25), frame, AXIAL)
    beside = roi_over(host, frame, AXIAL, 3, 7)
    center = np.array(beside.GetCenter()) + 90 * frame.geometry.slice_normal_world(0)
    beside.SetCenter(*(float(x) for x in center))
    with pytest.raises(GeometryError, match="beside the volume"):
        slices_in_roi(beside, frame, AXIAL)
    with pytest.raises(PromptError, match="not placed"):
        slices_in_roi(host.scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "empty"), frame, AXIAL)


def test_propagation_keeps_to_the_slices_of_an_roi(
    drive: Callable[..., Driver], host: MrmlHost, a_volume: slicer.vtkMRMLScalarVolumeNode
) -> None:
    driver = drive()
    controller, frame = driver.controller, VolumeFrame.of(a_volume)
    region = roi_over(host, frame, AXIAL, 4.6, 7.4)
    assert controller.set_range_from_roi(region) is None and controller.status == "Choose a volume first."
    controller.set_volume(a_volume)
    view = view_on(host, a_volume, 6)
    assert controller.set_range_from_roi(region, view) == controller.range == (5, 7)
    controller.add_prompt(box())
    driver.settle()
    controller.propagate()
    driver.settle()
    assert np.flatnonzero(driver.proposal().any(axis=(1, 2))).tolist() == [5, 6, 7]
    across = roi_over(host, frame, Plane(0), 9, 14)
    first, last = controller.set_range_from_roi(across)  # the plane of the prompt, not that of the ROI
    assert first < 6 < last and last - first < 6
    assert controller.set_range_from_roi(across, view) == (first, last)
    controller.set_range_from_roi(roi_over(host, frame, AXIAL, 20, 25))
    assert "beside the volume" in controller.status and controller.range == (first, last)


def test_all_segments_with_outlines_are_carried_each_in_its_plane(
    drive: Callable[..., Driver], a_volume: slicer.vtkMRMLScalarVolumeNode
) -> None:
    driver = drive()
    controller = driver.controller
    controller.set_volume(a_volume)
    controller.propagate(segment_ids="all")
    assert "no outline yet" in controller.status
    prompts = {
        controller.set_segment("Left"): point(7, 10),
        controller.add_segment("Right"): point(17, 10),
        controller.add_segment("Across"): PointPrompt((12.0, 10.0, 6.0), True, Plane(0)),
    }
    for segment_id, prompt in prompts.items():
        controller.set_segment(segment_id)
        controller.add_prompt(prompt)
        driver.settle()
    denied = controller.add_segment("Denied")
    controller.add_prompt(point(2, 2, positive=False))
    driver.settle()
    controller.propagate(segment_ids="all")
    driver.settle()
    assert controller.state is State.REVIEWING
    for segment_id, prompt in prompts.items():
        session = in_process(a_volume, prompt)
        for _ in session.propagate(plane=prompt.plane):
            pass
        np.testing.assert_array_equal(driver.proposal(segment_id), session.labelmap(1))
        filled = [item.index for item in controller.review(segment_id) if not item.is_empty]
        assert len(filled) > 1 and filled == sorted(filled)
    assert not driver.proposal(denied).any() and len(controller.review(denied)) <= 1
    driver.accept()
    np.testing.assert_array_equal(driver.labelmap(next(iter(prompts))), carried(in_process(a_volume, point(7, 10))))

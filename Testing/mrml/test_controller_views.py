"""The user's own means, from the mouse in a slice view to the Segment Editor's paint, through the controller."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import slicer
from mrml.conftest import SIZE_IJK, an_image, rotation, tilted_matrix
from mrml.controlling import AXIAL, Driver, box, carried, dice, in_process, point
from mrml.host import MrmlHost
from mrml.views import SliceView
from vtkmodules.util.numpy_support import numpy_to_vtk

from SegmentAnythingMedLib.geometry import Plane, SliceGeometry
from SegmentAnythingMedLib.mrml.controller_states import State
from SegmentAnythingMedLib.mrml.frame import VolumeFrame, matrix_of
from SegmentAnythingMedLib.mrml.slice_views import slice_of_view
from SegmentAnythingMedLib.mrml.strokes import StrokeDrawing
from SegmentAnythingMedLib.prompts import BoxPrompt, PointPrompt

SHAPE = SIZE_IJK[::-1]


@pytest.fixture
def driver(drive: Callable[..., Driver], a_volume: slicer.vtkMRMLScalarVolumeNode) -> Driver:
    """Ready to prompt the tilted volume."""
    made = drive()
    made.controller.set_volume(a_volume)
    return made


def in_view(view: SliceView, frame: VolumeFrame, *offsets_rc: tuple[float, float]) -> tuple[SliceGeometry, np.ndarray]:
    """The stack that a view shows at the ellipsoid's middle, and world positions round the middle, (N, 3)."""
    view.node.JumpSliceByCentering(*frame.ras_from_ijk(np.array([12.0, 10.0, 6.0])))
    view.render()
    shown = slice_of_view(view.node, frame)
    slices = SliceGeometry(frame.geometry, shown.plane)
    _, middle = slices.pixels_from_ijk(np.array([12.0, 10.0, 6.0]))
    return slices, frame.ras_from_ijk(slices.ijk_from_pixels(shown.index, middle + np.array(offsets_rc, dtype=float)))


@pytest.mark.parametrize("name", ["Axial", "Sagittal", "Coronal"])
@pytest.mark.parametrize("is_aligned", [True, False])
def test_clicks_and_drags_in_a_view_outline_the_structure(
    views: dict[str, SliceView],
    drive: Callable[..., Driver],
    a_volume: slicer.vtkMRMLScalarVolumeNode,
    name: str,
    is_aligned: bool,
) -> None:
    driver = drive(model="classic")
    controller, frame, view = driver.controller, VolumeFrame.of(a_volume), views[name]
    controller.set_volume(a_volume)
    if not is_aligned:
        view.node.SetOrientation(name)
    slices, places = in_view(view, frame, (0, 0), (-1.5, -2), (1.5, 2), (2, -1))
    seen: list[np.ndarray] = []

    def outlined(kind: str) -> None:
        driver.settle()
        record = controller.markups.records()[-1]
        assert (record.prompt.kind, record.prompt.plane) == (kind, slices.plane)
        seen.append(driver.proposal())
        assert seen[-1].any()

    controller.start_placing("point")
    hit = frame.ijk_from_ras(view.click(places[0]))
    outlined("point")
    assert np.abs(np.array(controller.markups.records()[0].prompt.point_ijk) - hit).max() < 0.5
    controller.start_placing("box")
    for place in places[1:3]:
        view.click(place)
    outlined("box")
    for kind, path in (("scribble", places[:3]), ("lasso", places)):
        controller.start_placing(kind) if kind == "scribble" else controller.stop_placing()
        drawing = StrokeDrawing(
            view.interactor, view.node, lambda stroke, kind=kind: controller.add_drawn(kind, stroke, view.node)
        )
        view.drag(np.repeat(path, 2, axis=0))
        drawing.stop()
        outlined(kind)
    controller.start_placing("background")
    view.click(places[3])
    outlined("point")
    assert not np.array_equal(seen[-1], seen[-2])
    controller.stop_placing()
    for _ in seen[:-1]:
        controller.undo_prompt()
        driver.settle()
    assert [record.prompt.kind for record in controller.markups.records()] == ["point"]
    np.testing.assert_array_equal(driver.proposal(), seen[0])


def test_a_view_of_another_window_and_volume_prompts_the_chosen_volume(
    views: dict[str, SliceView], host: MrmlHost, driver: Driver, a_volume: slicer.vtkMRMLScalarVolumeNode
) -> None:
    frame = VolumeFrame.of(a_volume)
    matrix = np.eye(4)
    matrix[:3, :3] = rotation(0, 0, 40) * (1.2, 1.2, 2)
    matrix[:3, 3] = frame.ras_from_ijk(np.array([12.0, 10, 6])) - matrix[:3, :3] @ np.array([12.0, 10, 6])
    other = host.add_volume(an_image(), matrix, "other")
    second = SliceView(host, "Red+1", "Axial")
    second.show(other)
    slices, places = in_view(second, frame, (0, 0))
    assert slices.plane.is_oblique and slice_of_view(second.node, VolumeFrame.of(other)).plane == AXIAL
    driver.controller.start_placing("point")
    hit = frame.ijk_from_ras(second.click(places[0]))
    driver.controller.stop_placing()
    driver.settle()
    (record,) = driver.controller.markups.records()
    assert record.prompt.plane == slices.plane and np.abs(np.array(record.prompt.point_ijk) - hit).max() < 0.5
    assert driver.proposal().any()
    driver.controller.from_here(second.node)
    assert driver.controller.range[0] == slice_of_view(second.node, frame).index


def edit(host: MrmlHost, driver: Driver, mask: np.ndarray) -> None:
    """Add voxels to the segment as the Segment Editor's paint effect does; (K, J, I) bool on the volume's grid."""
    node, volume = driver.controller.segmentation, driver.controller.volume
    editor = host.scene.GetSingletonNode("SegmentEditor", "vtkMRMLSegmentEditorNode")
    editor.SetAndObserveSegmentationNode(node)
    editor.SetAndObserveSourceVolumeNode(volume)
    editor.SetSelectedSegmentID(driver.controller.segment_id)
    logic = slicer.vtkSlicerSegmentEditorLogic()
    logic.SetMRMLScene(host.scene)
    logic.SetSegmentEditorNode(editor)
    image = slicer.vtkOrientedImageData()
    image.SetDimensions(*mask.shape[::-1])
    image.SetImageToWorldMatrix(matrix_of(VolumeFrame.of(volume).local.ijk_to_world))
    image.GetPointData().SetScalars(numpy_to_vtk(mask.astype(np.uint8).ravel(), deep=1))
    logic.ModifySegmentByLabelmap(node, driver.controller.segment_id, image, logic.ModificationModeAdd, False, False)


@pytest.fixture
def editor(host: MrmlHost) -> slicer.vtkMRMLSegmentEditorNode:
    node = slicer.vtkMRMLSegmentEditorNode()
    node.SetSingletonTag("SegmentEditor")
    node = host.scene.AddNode(node)
    node.SetOverwriteMode(node.OverwriteNone)
    return node


def test_what_the_segment_editor_paints_is_a_confirmed_slice(
    host: MrmlHost, driver: Driver, editor: slicer.vtkMRMLSegmentEditorNode
) -> None:
    controller = driver.controller
    controller.add_prompt(box())
    driver.settle()
    controller.propagate()
    driver.settle()
    driver.accept()
    painted = np.zeros(SHAPE, bool)
    painted[8, 2:5, 2:6] = True
    edit(host, driver, painted)
    by_hand = driver.labelmap()[8]
    assert by_hand[2:5, 2:6].all()
    controller.propagate()
    driver.settle()
    assert [record.role for record in controller.markups.records()] == ["", "painted"]
    assert [item.index for item in controller.review() if item.confirmed] == [8]
    driver.accept()
    np.testing.assert_array_equal(driver.labelmap()[8], by_hand)


def test_masking_and_overwriting_of_the_segment_editor_are_honoured(
    driver: Driver, editor: slicer.vtkMRMLSegmentEditorNode, a_volume: slicer.vtkMRMLScalarVolumeNode
) -> None:
    controller = driver.controller
    first = controller.add_segment("First")
    controller.add_prompt(box())
    driver.settle()
    driver.accept()
    expected = in_process(a_volume, box()).labelmap(1)
    second = controller.add_segment("Second")
    controller.add_prompt(box())
    driver.settle()
    driver.accept()
    for segment_id in (first, second):  # they overlap: nothing is overwritten
        np.testing.assert_array_equal(driver.labelmap(segment_id), expected)
    editor.SetOverwriteMode(editor.OverwriteAllSegments)
    editor.SetSourceVolumeIntensityMask(True)
    editor.SetSourceVolumeIntensityMaskRange(103, 200)
    third = controller.add_segment("Third")
    controller.add_prompt(box())
    driver.settle()
    driver.accept()
    bright = expected & (an_image() >= 103)
    np.testing.assert_array_equal(driver.labelmap(third), bright)
    assert 0 < bright.sum() < expected.sum()
    for segment_id in (first, second):
        np.testing.assert_array_equal(driver.labelmap(segment_id), expected & ~bright)
    controller.undo()
    driver.settle()
    assert not driver.labelmap(third).any()
    np.testing.assert_array_equal(driver.labelmap(first), expected)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_classic_outlines_carries_and_accepts_on_every_plane(
    drive: Callable[..., Driver], a_volume: slicer.vtkMRMLScalarVolumeNode, axis: int
) -> None:
    driver, truth = drive(model="classic"), an_image() > 50
    frame = VolumeFrame.of(a_volume)
    slices = SliceGeometry(frame.geometry, Plane(axis))
    index = (12, 10, 6)[axis]
    rows, columns = (np.flatnonzero(slices.extract(truth, index, 0).any(axis=one)) for one in (1, 0))
    corners = slices.ijk_from_pixels(index, np.array([[rows[0], columns[0]], [rows[-1], columns[-1]]]))
    driver.controller.set_volume(a_volume)
    driver.controller.add_prompt(BoxPrompt((tuple(corners[0]), tuple(corners[1])), Plane(axis)))
    driver.settle()
    driver.controller.propagate()
    driver.settle()
    proposed = driver.proposal()
    assert dice(proposed, truth) > 0.9
    driver.accept()
    np.testing.assert_array_equal(driver.labelmap(), proposed)


def test_a_warped_volume_is_segmented_where_it_is_seen(host: MrmlHost, drive: Callable[..., Driver]) -> None:
    warp = host.add_warp(6.0)
    matrix = np.diag([1.5, 1.5, 3, 1.0])
    matrix[:3, 3] = -15, -15, -15
    volume = host.add_volume(an_image(), matrix, "bent", warp)
    driver = drive()
    driver.controller.set_volume(volume)
    node = driver.controller.start_placing("point")
    node.AddControlPointWorld(*VolumeFrame.of(volume).ras_from_ijk(np.array([12.0, 10.0, 6.0])))
    driver.controller.stop_placing()
    driver.settle()
    (record,) = driver.controller.markups.records()
    assert np.abs(np.array(record.prompt.point_ijk) - (12, 10, 6)).max() < 0.5
    driver.controller.propagate()
    driver.settle()
    proposed = driver.proposal()
    driver.accept()
    np.testing.assert_array_equal(driver.labelmap(), proposed)
    assert driver.controller.segmentation.GetParentTransformNode() is warp


@pytest.mark.parametrize("model", ["fake", "classic"])
@pytest.mark.parametrize("shape", [(1, 1, 2), (2, 1, 1), (1, 8, 9)])
def test_a_volume_of_two_voxels_or_one_slice_is_worked_on_like_any_other(
    host: MrmlHost, drive: Callable[..., Driver], shape: tuple[int, int, int], model: str
) -> None:
    voxels = np.zeros(shape, np.int16)
    voxels.flat[: voxels.size // 2] = 100
    driver = drive(model=model)
    driver.controller.set_volume(host.add_volume(voxels, tilted_matrix(), "tiny"))
    driver.controller.add_prompt(point(0, 0, 0))
    driver.settle()
    driver.controller.propagate()
    driver.settle()
    assert driver.controller.state in (State.PROMPTING, State.REVIEWING), driver.controller.messages
    assert not any("failed" in sentence or "wrong inside" in sentence for sentence in driver.controller.messages)
    driver.accept()
    assert driver.labelmap()[0, 0, 0]


def test_closing_the_scene_while_packages_are_installed_leaves_a_controller_that_works(
    host: MrmlHost, driver: Driver
) -> None:
    controller = driver.controller
    controller.add_prompt(box())
    driver.settle()
    controller.begin_install()
    host.scene.Clear(False)
    controller.poll()
    assert controller.state is State.IDLE and controller.volume is None
    controller.end_install()
    assert controller.state is State.IDLE
    volume = host.add_volume(an_image(), tilted_matrix(), "new")
    controller.set_volume(volume)
    controller.add_prompt(box())
    driver.settle()
    controller.propagate()
    driver.settle()
    np.testing.assert_array_equal(driver.proposal(), carried(in_process(volume, box())))


def test_a_point_on_an_oblique_plane_is_carried_along_its_normal(
    driver: Driver, a_volume: slicer.vtkMRMLScalarVolumeNode
) -> None:
    frame = VolumeFrame.of(a_volume)
    plane = Plane.from_normal(rotation(25, 10, 0) @ frame.geometry.slice_normal_world(2), frame.geometry)
    prompt = PointPrompt((12.0, 10.0, 6.0), True, plane)
    driver.controller.add_prompt(prompt)
    driver.settle()
    driver.controller.propagate()
    driver.settle()
    session = in_process(a_volume, prompt)
    for _ in session.propagate(plane=plane):
        pass
    np.testing.assert_array_equal(driver.proposal(), session.labelmap(1))
    driver.accept()
    np.testing.assert_array_equal(driver.labelmap(), session.labelmap(1))

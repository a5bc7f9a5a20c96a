"""Prompt sources from the scene: segments, rulers and slices become ordinary prompts, as one step of undo."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import slicer
from mrml.conftest import an_image, rotation, tilted_matrix
from mrml.controlling import AXIAL, Driver, box, view_on
from mrml.host import MrmlHost, set_labels

from SegmentAnythingMedLib.mrml.frame import VolumeFrame
from SegmentAnythingMedLib.mrml.markup_nodes import kind_of_node
from SegmentAnythingMedLib.prompts import BoxPrompt, PointPrompt, Prompt

ENDS = ((6.0, 9.0, 6.0), (18.0, 11.0, 6.0))
ACROSS = ((12.5, 5.0, 6.0), (11.5, 15.0, 6.0))


@pytest.fixture
def driver(drive: Callable[..., Driver], a_volume: slicer.vtkMRMLScalarVolumeNode) -> Driver:
    made = drive()
    made.controller.set_volume(a_volume)
    return made


@pytest.fixture
def a_view(host: MrmlHost, a_volume: slicer.vtkMRMLScalarVolumeNode) -> slicer.vtkMRMLSliceNode:
    return view_on(host, a_volume, 6)


def a_ruler(
    host: MrmlHost, volume: slicer.vtkMRMLScalarVolumeNode, ends_ijk: object = ENDS, name: str = "Ruler"
) -> slicer.vtkMRMLMarkupsLineNode:
    """A line between two voxels of a volume, under a transform of its own."""
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation(40, -8, 21), (4, 90, -7)
    node = host.scene.AddNewNodeByClass("vtkMRMLMarkupsLineNode", name)
    node.SetAndObserveTransformNodeID(host.add_linear_transform(matrix).GetID())
    for place in VolumeFrame.of(volume).ras_from_ijk(np.array(ends_ijk)):
        node.AddControlPointWorld(*(float(x) for x in place))
    return node


def given(driver: Driver) -> tuple[Prompt, ...]:
    return tuple(record.prompt for record in driver.controller.markups.records())


def suggest(driver: Driver, source: str, view: object, key: str | None = None) -> tuple[Prompt, ...]:
    """Choose, press, wait; all prompts there are then."""
    driver.controller.choose_suggestion(source, key)
    driver.controller.suggest(view)
    driver.settle()
    return given(driver)


def clicks_of(prompts: tuple[Prompt, ...]) -> np.ndarray:
    return np.array([one.point_ijk for one in prompts if isinstance(one, PointPrompt)])


def test_a_ruler_becomes_a_box_and_clicks_where_it_was_drawn(
    driver: Driver, host: MrmlHost, a_volume: slicer.vtkMRMLScalarVolumeNode, a_view: slicer.vtkMRMLSliceNode
) -> None:
    ruler = a_ruler(host, a_volume)
    first, *points = suggest(driver, "ruler", a_view, ruler.GetID())
    on_line = [np.add(ENDS[0], share * np.subtract(ENDS[1], ENDS[0])) for share in (0.25, 0.5, 0.75)]
    np.testing.assert_allclose(clicks_of(tuple(points)), on_line, atol=1e-6)
    assert isinstance(first, BoxPrompt) and first.plane == AXIAL
    low, high = np.sort(first.points_ijk, axis=0)
    np.testing.assert_allclose((low[0], high[0]), (6, 18), atol=0.6)
    assert low[1] < 8 and high[1] > 12 and low[2] == pytest.approx(6)
    assert driver.controller.status.startswith("A box and 3 clicks on slice 6")
    assert driver.proposal().any()


def test_the_prompts_are_ordinary_markups_and_leave_with_one_undo(
    driver: Driver, host: MrmlHost, a_volume: slicer.vtkMRMLScalarVolumeNode, a_view: slicer.vtkMRMLSliceNode
) -> None:
    controller = driver.controller
    controller.add_prompt(PointPrompt((12, 10, 6), True, AXIAL))
    driver.settle()
    a_ruler(host, a_volume)
    before = given(driver)
    assert len(suggest(driver, "ruler", a_view)) == 5
    nodes = [node for node in controller.markups.nodes if kind_of_node(node) is not None]
    assert sum(node.GetNumberOfControlPoints() for node in nodes if kind_of_node(node).name == "point") == 4
    assert [kind_of_node(node).name for node in nodes].count("box") == 1
    controller.undo_prompt()
    driver.settle()
    assert given(driver) == before
    controller.redo_prompt()
    driver.settle()
    assert len(given(driver)) == 5 and given(driver)[0] == before[0]


def test_a_suggested_click_can_be_dragged(
    driver: Driver, host: MrmlHost, a_volume: slicer.vtkMRMLScalarVolumeNode, a_view: slicer.vtkMRMLSliceNode
) -> None:
    a_ruler(host, a_volume)
    suggest(driver, "ruler", a_view)
    node = next(node for node in driver.controller.markups.nodes if kind_of_node(node).name == "point")
    to = VolumeFrame.of(a_volume).ras_from_ijk(np.array([14.0, 12.0, 6.0]))
    node.SetNthControlPointPositionWorld(0, *(float(x) for x in to))
    driver.settle()
    np.testing.assert_allclose(clicks_of(given(driver))[0], (14, 12, 6), atol=1e-6)


def test_two_rulers_that_cross_are_offered_as_a_pair_with_the_width_of_the_short_one(
    driver: Driver, host: MrmlHost, a_volume: slicer.vtkMRMLScalarVolumeNode, a_view: slicer.vtkMRMLSliceNode
) -> None:
    a_ruler(host, a_volume, ENDS, "long")
    a_ruler(host, a_volume, ACROSS, "short")
    a_ruler(host, a_volume, ((1, 1, 2), (3, 1, 2)), "elsewhere")
    driver.controller.choose_suggestion("ruler")
    labels = [one.label for one in driver.controller.suggestion_inputs]
    assert labels == ["long + short", "elsewhere", "short", "long"]
    low, high = np.sort(suggest(driver, "ruler", a_view)[0].points_ijk, axis=0)
    np.testing.assert_allclose((low[:2], high[:2]), ((6, 5), (18, 15)), atol=1.0)


def test_a_ruler_on_another_slice_brings_the_views_there(
    driver: Driver, host: MrmlHost, a_volume: slicer.vtkMRMLScalarVolumeNode, a_view: slicer.vtkMRMLSliceNode
) -> None:
    a_ruler(host, a_volume, [(i, j, 4.2) for i, j, _ in ENDS])
    assert {round(place[2]) for place in clicks_of(suggest(driver, "ruler", a_view))} == {4}
    assert "on slice 4" in driver.controller.status
    driver.controller.from_here(a_view)
    assert driver.controller.range[0] == 4


@pytest.mark.parametrize(
    ("ends", "sentence"),
    [(((6, 9, 3), (18, 11, 8)), "not on one slice"), (((6, 9, 6), (60, 11, 6)), "outside the volume")],
)
def test_a_ruler_that_fits_no_slice_is_refused_in_words(
    driver: Driver,
    host: MrmlHost,
    a_volume: slicer.vtkMRMLScalarVolumeNode,
    a_view: slicer.vtkMRMLSliceNode,
    ends: object,
    sentence: str,
) -> None:
    a_ruler(host, a_volume, ends)
    assert suggest(driver, "ruler", a_view) == () and sentence in driver.controller.status


def test_a_segment_of_another_segmentation_and_grid_becomes_a_box_and_clicks_inside_it(
    driver: Driver, host: MrmlHost, a_view: slicer.vtkMRMLSliceNode, a_pose: slicer.vtkMRMLLinearTransformNode
) -> None:
    matrix = tilted_matrix() @ np.diag([0.5, 0.5, 1, 1])
    fine = host.add_volume(np.repeat(np.repeat(an_image(), 2, axis=1), 2, axis=2), matrix, "fine", a_pose)
    other = host.add_segmentation(fine, "Other")
    rough = (np.repeat(np.repeat(an_image(), 2, axis=1), 2, axis=2) > 50).astype(np.uint8)
    key = f"{other.GetID()} rough"
    other.GetSegmentation().AddEmptySegment("rough", "Rough")
    set_labels(other, "rough", rough, matrix)
    driver.controller.choose_suggestion("rough_mask")
    assert "Rough (Other)" in [one.label for one in driver.controller.suggestion_inputs]
    prompts = suggest(driver, "rough_mask", a_view, key)
    low, high = np.sort(prompts[0].points_ijk, axis=0)
    rows, columns = np.nonzero(an_image()[6] > 50)
    np.testing.assert_allclose((low[:2], high[:2]), ((columns.min(), rows.min()), (columns.max(), rows.max())), atol=1)
    inside = [an_image()[6][round(j), round(i)] > 50 for i, j, _ in clicks_of(prompts)]
    assert inside and all(inside)


def test_an_empty_segment_is_refused_and_nothing_is_made(driver: Driver, a_view: slicer.vtkMRMLSliceNode) -> None:
    driver.controller.set_segment("Organ")
    assert suggest(driver, "rough_mask", a_view) == ()
    assert driver.controller.status == "Organ has nothing on slice 6: show a slice where it is."


def test_vessels_are_clicked_within_the_segment_that_is_chosen(driver: Driver, a_view: slicer.vtkMRMLSliceNode) -> None:
    driver.controller.add_prompt(box())
    driver.settle()
    driver.accept()
    inside = driver.labelmap()[6]
    driver.controller.clear()
    driver.settle()
    driver.controller.choose_suggestion("vessel")
    assert driver.controller.suggestion_input.label == "Whole slice"
    prompts = suggest(driver, "vessel", a_view, driver.controller.suggestion_inputs[1].key)
    assert prompts and all(inside[round(j), round(i)] for i, j, _ in clicks_of(prompts))


def test_pressing_again_takes_the_next_spot_in_place_of_the_last(drive: Callable[..., Driver], host: MrmlHost) -> None:
    image = np.zeros((4, 60, 80), np.int16)
    image[:, 15:25, 15:25], image[:, 38:46, 55:63] = 100, 60
    volume = host.add_volume(image + 10, tilted_matrix(), "two spots")
    driver = drive()
    driver.controller.set_volume(volume)
    view = view_on(host, volume, 2)
    seen = [suggest(driver, "saliency", view) for _ in range(2)]
    assert [len(prompts) for prompts in seen] == [1, 1]
    np.testing.assert_allclose(clicks_of(seen[0])[0], (20, 20, 2), atol=2)
    np.testing.assert_allclose(clicks_of(seen[1])[0], (59, 42, 2), atol=2)
    driver.controller.undo_prompt()
    driver.settle()
    assert given(driver) == seen[0]
    for _ in range(20):
        assert len(suggest(driver, "saliency", view)) == 1, "also the one that undo brought back gives way"
        if "Nothing else stands out" in driver.controller.status:
            break
    np.testing.assert_allclose(clicks_of(suggest(driver, "saliency", view))[0], (20, 20, 2), atol=2)


def test_what_the_user_moved_stays_when_the_source_is_asked_again(
    driver: Driver, host: MrmlHost, a_volume: slicer.vtkMRMLScalarVolumeNode, a_view: slicer.vtkMRMLSliceNode
) -> None:
    a_ruler(host, a_volume)
    suggest(driver, "ruler", a_view)
    record = driver.controller.markups.records()[1]
    driver.controller.markups.replace(record.uid, PointPrompt((13, 13, 6), True, AXIAL))
    driver.settle()
    prompts = suggest(driver, "ruler", a_view)
    assert len(prompts) == 5 and PointPrompt((13, 13, 6), True, AXIAL) in prompts


def test_the_newest_press_wins_and_leaving_the_volume_ends_it(
    driver: Driver, host: MrmlHost, a_volume: slicer.vtkMRMLScalarVolumeNode, a_view: slicer.vtkMRMLSliceNode
) -> None:
    a_ruler(host, a_volume)
    driver.controller.choose_suggestion("ruler")
    driver.controller.suggest(a_view)
    driver.controller.suggest(a_view)
    driver.settle()
    assert len(given(driver)) == 4
    driver.controller.suggest(a_view)
    driver.controller.set_volume(host.add_volume(an_image(), np.eye(4), "another"))
    driver.settle()
    assert driver.controller.markups is None or given(driver) == ()
    assert not driver.controller.link.jobs


def test_a_ruler_that_is_gone_is_not_offered(
    driver: Driver, host: MrmlHost, a_volume: slicer.vtkMRMLScalarVolumeNode, a_view: slicer.vtkMRMLSliceNode
) -> None:
    ruler = a_ruler(host, a_volume)
    driver.controller.choose_suggestion("ruler", ruler.GetID())
    host.scene.RemoveNode(ruler)
    driver.controller.suggest(a_view)
    assert driver.controller.suggestion_input is None
    assert driver.controller.status == "The scene has no ruler: draw a line with the tools of Markups first."

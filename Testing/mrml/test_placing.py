"""Real mouse events in offscreen slice views place prompts, and the preview is seen."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
from mrml.conftest import an_image
from mrml.host import MrmlHost
from mrml.views import SliceView

from SegmentAnythingMedLib.geometry import Plane, SliceGeometry
from SegmentAnythingMedLib.mrml.frame import VolumeFrame
from SegmentAnythingMedLib.mrml.placing import PromptPlacing
from SegmentAnythingMedLib.mrml.preview_segments import PreviewSegments
from SegmentAnythingMedLib.mrml.prompt_markups import PromptMarkups
from SegmentAnythingMedLib.mrml.slice_views import slice_of_view
from SegmentAnythingMedLib.mrml.strokes import StrokeDrawing
from SegmentAnythingMedLib.prompts import BoxPrompt, PointPrompt


@pytest.fixture
def markups(
    host: MrmlHost, a_volume: slicer.vtkMRMLScalarVolumeNode, a_segmentation: slicer.vtkMRMLSegmentationNode
) -> PromptMarkups:
    made = PromptMarkups(host.scene, a_segmentation, a_volume)
    yield made
    made.close()


@pytest.fixture
def placing(host: MrmlHost, a_volume: slicer.vtkMRMLScalarVolumeNode, markups: PromptMarkups) -> PromptPlacing:
    return PromptPlacing(host.scene, a_volume, markups)


def middle(view: SliceView, frame: VolumeFrame, *offsets_rc: tuple[float, float]) -> tuple[SliceGeometry, np.ndarray]:
    """The stack a view shows, and world positions near the middle of its slice."""
    shown = slice_of_view(view.node, frame)
    slices = SliceGeometry(frame.geometry, shown.plane)
    pixels = np.array(slices.shape) / 2 + np.array(offsets_rc, dtype=float)
    return slices, frame.ras_from_ijk(slices.ijk_from_pixels(shown.index, pixels))


@pytest.mark.parametrize("name", ["Axial", "Sagittal", "Coronal"])
@pytest.mark.parametrize("is_aligned", [True, False])
def test_a_click_places_a_point_and_two_clicks_an_exact_box_in_any_view(
    views: dict[str, SliceView],
    a_volume: slicer.vtkMRMLScalarVolumeNode,
    markups: PromptMarkups,
    placing: PromptPlacing,
    name: str,
    is_aligned: bool,
) -> None:
    frame, view = VolumeFrame.of(a_volume), views[name]
    if not is_aligned:
        view.node.SetOrientation(name)
    view.node.JumpSliceByCentering(*frame.ras_from_ijk(np.array([12.0, 10.0, 6.0])))
    view.render()
    slices, places = middle(view, frame, (-1.5, -2.0), (2.0, 1.5))
    assert slices.plane.is_oblique is not is_aligned
    placing.start("point", "organ")
    hit = frame.ijk_from_ras(view.click(places[0]))
    placing.start("box", "organ")
    hits = np.array([frame.ijk_from_ras(view.click(place)) for place in places])
    placing.stop()
    point, box = (record.prompt for record in markups.records())
    assert isinstance(point, PointPrompt) and isinstance(box, BoxPrompt)
    assert np.abs(np.array(point.point_ijk) - hit).max() < 0.5
    depth, corners = slices.pixels_from_ijk(box.points_ijk)
    _, wanted = slices.pixels_from_ijk(hits)
    assert np.abs(corners.min(axis=0) - wanted.min(axis=0)).max() < 0.5
    assert np.abs(corners.max(axis=0) - wanted.max(axis=0)).max() < 0.5
    assert np.allclose(depth, depth[0], atol=1e-3)


def test_persistent_placing_gives_a_point_for_every_click(
    views: dict[str, SliceView],
    a_volume: slicer.vtkMRMLScalarVolumeNode,
    markups: PromptMarkups,
    placing: PromptPlacing,
) -> None:
    view = views["Axial"]
    _, places = middle(view, VolumeFrame.of(a_volume), (0, 0), (2, 2))
    placing.start("background", "organ")
    for place in places:
        view.click(place)
    placing.stop()
    view.click(places[0])
    assert [record.prompt.positive for record in markups.records()] == [False, False]
    assert placing.node is None


def test_stopping_takes_an_unfinished_box_away(
    host: MrmlHost,
    views: dict[str, SliceView],
    markups: PromptMarkups,
    placing: PromptPlacing,
    a_volume: slicer.vtkMRMLScalarVolumeNode,
) -> None:
    node = placing.start("box", "organ")
    _, places = middle(views["Axial"], VolumeFrame.of(a_volume), (0, 0))
    views["Axial"].click(places[0])
    placing.stop()
    assert not host.scene.IsNodePresent(node)
    assert markups.records() == ()


def test_a_drag_draws_a_scribble_and_does_not_pan_the_view(
    views: dict[str, SliceView], a_volume: slicer.vtkMRMLScalarVolumeNode, markups: PromptMarkups
) -> None:
    frame, view = VolumeFrame.of(a_volume), views["Coronal"]
    slices, path = middle(view, frame, *[(t / 2, np.sin(t / 2) * 2) for t in range(8)])
    drawing = StrokeDrawing(
        view.interactor, view.node, lambda points: markups.add_drawn("scribble", "organ", points, view.node)
    )
    origin = view.node.GetXYZOrigin()
    view.drag(path)
    drawing.stop()
    view.drag(path)
    (record,) = markups.records()
    assert view.node.GetXYZOrigin() == origin
    _, drawn = slices.pixels_from_ijk(record.prompt.points_ijk)
    _, wanted = slices.pixels_from_ijk(frame.ijk_from_ras(path))
    assert 3 <= len(drawn) <= len(wanted)
    assert np.abs(drawn[0] - wanted[0]).max() < 0.5 and np.abs(drawn[-1] - wanted[-1]).max() < 0.5


def test_dragging_a_placed_point_moves_its_prompt_in_one_step(
    views: dict[str, SliceView],
    a_volume: slicer.vtkMRMLScalarVolumeNode,
    markups: PromptMarkups,
    placing: PromptPlacing,
) -> None:
    frame, view = VolumeFrame.of(a_volume), views["Axial"]
    _, places = middle(view, frame, (0, 0), (1, 1), (2, 3))
    placing.start("point", "organ")
    view.click(places[0])
    placing.stop()
    view.render()
    before = markups.records()[0].prompt
    view.drag(places)
    after = markups.records()[0].prompt
    assert np.abs(np.array(after.point_ijk) - frame.ijk_from_ras(places[2])).max() < 0.6
    markups.undo()
    assert markups.records()[0].prompt == before


def test_the_preview_is_seen_as_slices_arrive(
    host: MrmlHost, views: dict[str, SliceView], a_volume: slicer.vtkMRMLScalarVolumeNode
) -> None:
    frame, view = VolumeFrame.of(a_volume), views["Axial"]
    preview = PreviewSegments(host.scene, a_volume)
    preview.add_object(1, "Organ", (1.0, 0.0, 0.0))
    shown = slice_of_view(view.node, frame)
    slices = SliceGeometry(frame.geometry, shown.plane)
    assert shown.plane == Plane.named("axial", frame.geometry)

    def reds() -> int:
        image = view.render().astype(int)
        return int(((image[..., 0] > 120) & (image[..., 1] < 80)).sum())

    counts = [reds()]
    for mask in (an_image() > 50, np.zeros_like(an_image(), bool), an_image() > 50):
        preview.show(1, slices, shown.index, slices.extract(mask, shown.index))
        counts.append(reds())
    assert counts[0] == counts[2] == 0
    assert counts[1] == counts[3] > 20

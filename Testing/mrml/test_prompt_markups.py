"""Prompts in the scene: the JSON is the truth, markups show it, and what the user does to them comes back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import slicer
from mrml.conftest import SIZE_IJK, an_image
from mrml.host import MrmlHost

from SegmentAnythingMedLib.errors import PromptError
from SegmentAnythingMedLib.geometry import Plane, SliceGeometry
from SegmentAnythingMedLib.mrml.frame import VolumeFrame
from SegmentAnythingMedLib.mrml.markup_kinds import KINDS, kind_of, read_points
from SegmentAnythingMedLib.mrml.prompt_markups import Action, PromptEvent, PromptMarkups
from SegmentAnythingMedLib.mrml.prompt_record import CONFIRMED, decode_records
from SegmentAnythingMedLib.prompts import BoxPrompt, LassoPrompt, MaskPrompt, PointPrompt, Prompt, ScribblePrompt
from SegmentAnythingMedLib.prompts_file import load_prompts

PLANES = ["I", "J", "K", "oblique"]


class Heard(list):
    """The events that were told."""

    def __call__(self, event: PromptEvent) -> None:
        self.append(event)

    def actions(self) -> list[str]:
        return [event.action.value for event in self]


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def markups(
    host: MrmlHost,
    a_volume: slicer.vtkMRMLScalarVolumeNode,
    a_segmentation: slicer.vtkMRMLSegmentationNode,
    heard: Heard,
) -> PromptMarkups:
    made = PromptMarkups(host.scene, a_segmentation, a_volume, heard)
    yield made
    made.close()


def plane_called(name: str, frame: VolumeFrame) -> Plane:
    if name == "oblique":
        return Plane.from_normal([0.4, 0.3, 0.85], frame.geometry)
    return Plane.named(name, frame.geometry)


def every_prompt(slices: SliceGeometry) -> list[Prompt]:
    """One of each type, near the middle of the middle slice."""
    index = slices.count // 2
    center = np.array(slices.shape) / 2
    plane = slices.plane

    def at(*pixels: tuple[float, float]) -> tuple[tuple[float, float, float], ...]:
        return tuple(tuple(float(x) for x in p) for p in slices.ijk_from_pixels(index, center + np.array(pixels)))

    mask = np.zeros(slices.shape, bool)
    mask[2:4, 2:5] = True
    return [
        PointPrompt(at((0.3, -1.2))[0], True, plane),
        PointPrompt(at((-2, 2))[0], False, plane),
        BoxPrompt(at((-2, -1.5), (2.25, 2)), plane),
        ScribblePrompt(at((-1, -1), (0, 0.5), (1, 2)), True, plane),
        ScribblePrompt(at((2, -2), (2, 2)), False, plane),
        LassoPrompt(at((-2, -2), (-2, 2), (2, 2), (2.5, 0)), plane),
        MaskPrompt(mask, index, plane),
    ]


def as_comparable(prompt: Prompt) -> tuple[object, ...]:
    if isinstance(prompt, MaskPrompt):
        return prompt.plane, prompt.index, prompt.mask.tobytes()
    return type(prompt), prompt.plane, getattr(prompt, "positive", None), np.round(prompt.points_ijk, 3).tolist()


@pytest.mark.parametrize("plane_name", PLANES)
def test_every_prompt_on_every_plane_is_shown_where_it_is(
    markups: PromptMarkups, a_volume: slicer.vtkMRMLScalarVolumeNode, plane_name: str
) -> None:
    frame = VolumeFrame.of(a_volume)
    slices = SliceGeometry(frame.geometry, plane_called(plane_name, frame))
    for prompt in every_prompt(slices):
        record = markups.add("organ", prompt)
        kind = kind_of(prompt)
        if kind is None:
            continue
        node = markups.nodes.shared(kind, "organ") if kind.is_shared else markups.nodes.of_prompt(record.uid)
        assert node.GetTransformNodeID() == a_volume.GetTransformNodeID()
        shown = read_points(node, kind)[record.control_point if kind.is_shared else ""]
        _, pixels = slices.pixels_from_ijk(frame.local.ijk_from_world(shown))
        _, wanted = slices.pixels_from_ijk(prompt.points_ijk)
        assert np.abs(pixels.min(axis=0) - wanted.min(axis=0)).max() < 0.01
        assert np.abs(pixels.max(axis=0) - wanted.max(axis=0)).max() < 0.01
        if not isinstance(prompt, BoxPrompt):
            world = np.zeros(3)
            node.GetNthControlPointPositionWorld(0, world)
            assert np.abs(frame.ijk_from_ras(world) - prompt.points_ijk[0]).max() < 0.01
    assert [as_comparable(record.prompt) for record in markups.records()] == [
        as_comparable(prompt) for prompt in every_prompt(slices)
    ]


def view_of(host: MrmlHost, slices: SliceGeometry, frame: VolumeFrame, index: int) -> slicer.vtkMRMLSliceNode:
    """A view on a slice, under the cursor."""
    corners = frame.ras_from_ijk(slices.ijk_from_pixels(index, np.array([[0.0, 0], [0, 1], [1, 0]])))
    across, along = corners[1] - corners[0], corners[2] - corners[0]
    matrix = np.eye(4)
    matrix[:3, 0] = across / np.linalg.norm(across)
    normal = np.cross(across, along)
    matrix[:3, 2] = normal / np.linalg.norm(normal)
    matrix[:3, 1] = np.cross(matrix[:3, 2], matrix[:3, 0])
    matrix[:3, 3] = corners[0]
    view = host.add_slice_view("Red", matrix)
    host.scene.GetFirstNodeByClass("vtkMRMLCrosshairNode").SetCursorPositionXYZ([1.0, 1.0, 0.0], view)
    return view


@pytest.mark.parametrize("plane_name", PLANES)
def test_what_the_user_places_in_a_view_is_a_prompt_on_its_plane_within_half_a_voxel(
    host: MrmlHost,
    markups: PromptMarkups,
    heard: Heard,
    a_volume: slicer.vtkMRMLScalarVolumeNode,
    plane_name: str,
) -> None:
    frame = VolumeFrame.of(a_volume)
    slices = SliceGeometry(frame.geometry, plane_called(plane_name, frame))
    index = slices.count // 2
    view = view_of(host, slices, frame, index)
    pixels = np.array(slices.shape) / 2 + np.array([[-2.0, -1], [2, 1.5], [1, -2]])
    places = frame.ras_from_ijk(slices.ijk_from_pixels(index, pixels))
    for name in ("point", "background"):
        node = markups.nodes.shared(KINDS[name], "organ")
        node.AddControlPointWorld(*places[0])
    lasso = markups.nodes.make(KINDS["lasso"], "organ")
    for place in places:
        lasso.AddControlPointWorld(*place)
    markups.add_drawn("scribble", "organ", places, view)
    markups.add_drawn("box", "organ", places[:2], view)
    prompts = {type(record.prompt).__name__: record.prompt for record in markups.records()}
    assert set(prompts) == {"PointPrompt", "LassoPrompt", "ScribblePrompt", "BoxPrompt"}
    for prompt in prompts.values():
        if slices.plane.is_oblique:
            assert np.allclose(prompt.plane.normal_ijk, slices.plane.normal_ijk, atol=1e-4)
        else:
            assert prompt.plane == slices.plane
        depth, placed = slices.pixels_from_ijk(prompt.points_ijk)
        wanted = pixels[: len(placed)]
        assert np.abs(depth - index).max() <= 0.5
        assert np.abs(placed.min(axis=0) - wanted.min(axis=0)).max() <= 0.5
        assert np.abs(placed.max(axis=0) - wanted.max(axis=0)).max() <= 0.5
    assert "refused" not in heard.actions()


def test_moving_and_deleting_markups_changes_the_prompts(
    markups: PromptMarkups, heard: Heard, a_volume: slicer.vtkMRMLScalarVolumeNode
) -> None:
    records = [markups.add("organ", PointPrompt((x, 5.0, 6.0))) for x in (3.0, 6.0, 9.0)]
    node = markups.nodes.shared(KINDS["point"], "organ")
    heard.clear()
    node.SetNthControlPointPosition(1, *VolumeFrame.of(a_volume).local.world_from_ijk([7.0, 8.0, 6.0]))
    node.RemoveNthControlPoint(0)
    assert heard.actions() == ["moved", "removed"]
    assert heard[0].record.uid == records[1].uid and heard[0].before.prompt.point_ijk == (6.0, 5.0, 6.0)
    assert [record.prompt.point_ijk for record in markups.records()] == [(7.0, 8.0, 6.0), (9.0, 5.0, 6.0)]
    assert [record.prompt.point_ijk for record in decode_records(markups.store.node.GetText())] == [
        (7.0, 8.0, 6.0),
        (9.0, 5.0, 6.0),
    ]


def test_a_point_outside_the_volume_is_refused_in_words_and_goes_away(
    markups: PromptMarkups, heard: Heard, a_volume: slicer.vtkMRMLScalarVolumeNode
) -> None:
    frame = VolumeFrame.of(a_volume)
    node = markups.nodes.shared(KINDS["point"], "organ")
    node.AddControlPoint(*frame.local.world_from_ijk([50.0, 5.0, 5.0]))
    assert heard.actions() == ["refused"]
    assert "outside the volume" in heard[0].message
    assert node.GetNumberOfControlPoints() == 0
    markups.add("organ", PointPrompt((3.0, 5.0, 6.0)))
    node.SetNthControlPointPosition(0, *frame.local.world_from_ijk([50.0, 5.0, 5.0]))
    assert heard.actions() == ["refused", "placed", "refused"]
    assert np.allclose(node.GetNthControlPointPosition(0), frame.local.world_from_ijk([3.0, 5.0, 6.0]))


def test_undo_and_redo_take_one_action_at_a_time_and_bring_markups_back(
    markups: PromptMarkups, a_volume: slicer.vtkMRMLScalarVolumeNode
) -> None:
    slices = SliceGeometry(VolumeFrame.of(a_volume).geometry, Plane(2))
    prompts = every_prompt(slices)
    for prompt in prompts:
        markups.add("organ", prompt)
    moved = markups.records()[0]
    markups.replace(moved.uid, PointPrompt((4.0, 4.0, 6.0)))
    markups.remove([record.uid for record in markups.records()])
    assert markups.records() == () and all(node.GetNumberOfControlPoints() == 0 for node in markups.nodes)
    assert markups.undo()
    assert [record.uid for record in markups.records()][0] == moved.uid
    assert markups.records()[0].prompt.point_ijk == (4.0, 4.0, 6.0)
    assert markups.undo()
    assert [as_comparable(record.prompt) for record in markups.records()] == [as_comparable(p) for p in prompts]
    nodes = {node.GetAttribute("SegmentAnythingMed.kind"): node for node in markups.nodes}
    assert set(nodes) == set(KINDS)
    assert np.allclose(
        nodes["point"].GetNthControlPointPosition(0),
        VolumeFrame.of(a_volume).local.world_from_ijk(prompts[0].points_ijk[0]),
    )
    for _ in prompts:
        assert markups.undo()
    assert not markups.undo()
    for _ in range(len(prompts) + 1):
        assert markups.redo()
    assert markups.records()[0].prompt.point_ijk == (4.0, 4.0, 6.0)


def test_a_drag_is_one_step_of_undo_but_told_all_along(
    markups: PromptMarkups, heard: Heard, a_volume: slicer.vtkMRMLScalarVolumeNode
) -> None:
    markups.add("organ", PointPrompt((3.0, 5.0, 6.0)))
    node = markups.nodes.shared(KINDS["point"], "organ")
    for _ in range(2):
        node.InvokeEvent(node.PointStartInteractionEvent)
        for step in range(1, 5):
            start = markups.records()[0].prompt.point_ijk[0] + 0.5
            node.SetNthControlPointPosition(
                0, *VolumeFrame.of(a_volume).local.world_from_ijk([start, 5.0 + step / 10, 6.0])
            )
        node.InvokeEvent(node.PointEndInteractionEvent)
    assert heard.actions() == ["placed"] + ["moved"] * 8
    markups.undo()
    assert markups.records()[0].prompt.point_ijk[0] == pytest.approx(5.0)
    markups.undo()
    assert markups.records()[0].prompt.point_ijk[0] == pytest.approx(3.0)


def test_a_mask_replaces_the_mask_of_its_slice_and_no_other(markups: PromptMarkups) -> None:
    for index, filled in ((3, 1), (4, 2), (3, 3)):
        mask = np.zeros((SIZE_IJK[1], SIZE_IJK[0]), bool)
        mask[:filled] = True
        markups.add("organ", MaskPrompt(mask, index), CONFIRMED)
    assert [(record.prompt.index, record.prompt.mask.sum()) for record in markups.records()] == [(3, 72), (4, 48)]
    assert len({record.content["hash"] for record in markups.records()}) == 2


def test_wrong_prompts_are_refused_and_change_nothing(markups: PromptMarkups) -> None:
    with pytest.raises(PromptError, match="outside the volume"):
        markups.add("organ", PointPrompt((99.0, 0.0, 0.0)))
    record = markups.add("organ", PointPrompt((3.0, 5.0, 6.0)))
    with pytest.raises(PromptError, match="cannot become"):
        markups.replace(record.uid, PointPrompt((3.0, 5.0, 6.0), False))
    assert len(markups.records()) == 1


def test_removing_our_node_removes_its_prompts_and_undo_brings_both_back(
    host: MrmlHost, markups: PromptMarkups, heard: Heard, a_volume: slicer.vtkMRMLScalarVolumeNode
) -> None:
    slices = SliceGeometry(VolumeFrame.of(a_volume).geometry, Plane(2))
    record = markups.add("organ", every_prompt(slices)[2])
    host.scene.RemoveNode(markups.nodes.of_prompt(record.uid))
    assert heard.actions() == ["placed", "removed"] and markups.records() == ()
    markups.undo()
    assert markups.nodes.of_prompt(record.uid) is not None


def test_nodes_that_are_not_ours_are_never_touched(
    host: MrmlHost, a_volume: slicer.vtkMRMLScalarVolumeNode, a_segmentation: slicer.vtkMRMLSegmentationNode
) -> None:
    foreign = [host.scene.AddNewNodeByClass(name, "mine") for name in ("vtkMRMLMarkupsFiducialNode", "vtkMRMLTextNode")]
    roi = host.scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "crop")
    roi.SetSize(3, 3, 3)
    foreign[0].AddControlPoint(1.0, 2.0, 3.0)
    foreign[1].SetText("notes")
    times = [node.GetMTime() for node in (*foreign, roi)]
    markups = PromptMarkups(host.scene, a_segmentation, a_volume)
    for prompt in every_prompt(SliceGeometry(VolumeFrame.of(a_volume).geometry, Plane(2))):
        markups.add("organ", prompt)
    markups.remove([record.uid for record in markups.records()])
    markups.undo()
    foreign[0].AddControlPoint(4.0, 5.0, 6.0)
    assert len(markups.records()) == 7
    markups.close()
    assert all(host.scene.IsNodePresent(node) for node in (*foreign, roi))
    assert [foreign[1].GetMTime(), roi.GetMTime()] == times[1:]


def test_the_prompts_survive_mrb_and_replay_the_same(
    host: MrmlHost,
    markups: PromptMarkups,
    a_volume: slicer.vtkMRMLScalarVolumeNode,
    tmp_path: Path,
) -> None:
    frame = VolumeFrame.of(a_volume)
    for name in ("K", "oblique"):
        for prompt in every_prompt(SliceGeometry(frame.geometry, plane_called(name, frame))):
            markups.add("organ", prompt)
    rich = np.random.default_rng(0).random((SIZE_IJK[1], SIZE_IJK[0])) > 0.5
    markups.add("organ", MaskPrompt(rich, 1), CONFIRMED)
    before = [(record.uid, record.role, as_comparable(record.prompt)) for record in markups.records()]
    count = sum(1 for _ in markups.nodes)
    markups.close()
    (tmp_path / "out").mkdir()
    host.save(tmp_path / "out" / "case.mrb")
    host.load(tmp_path / "out" / "case.mrb")
    heard = Heard()
    volume = host.scene.GetFirstNodeByName("tilted")
    again = PromptMarkups(host.scene, host.scene.GetFirstNodeByName("user"), volume, heard)
    assert [(record.uid, record.role, as_comparable(record.prompt)) for record in again.records()] == before
    assert heard.actions() == []
    assert sum(1 for _ in again.nodes) == count
    node = again.nodes.shared(KINDS["point"], "organ")
    node.SetNthControlPointPosition(0, *VolumeFrame.of(volume).local.world_from_ijk([5.0, 5.0, 6.0]))
    assert heard.actions() == ["moved"] and heard[0].record.uid == before[0][0]
    again.close()


def test_the_text_is_a_prompts_file_of_the_library(markups: PromptMarkups, tmp_path: Path) -> None:
    markups.add("organ", PointPrompt((3.0, 5.0, 6.0)))
    path = tmp_path / "prompts.json"
    path.write_text(markups.store.node.GetText())
    content = load_prompts(path)
    assert content.objects[0].name == "Organ"
    assert content.objects[0].prompts == (PointPrompt((3.0, 5.0, 6.0)),)
    assert json.loads(path.read_text())["volume"]["size_ijk"] == list(SIZE_IJK)


def test_markups_follow_the_volume_when_its_transform_changes_or_is_hardened(
    host: MrmlHost, markups: PromptMarkups, a_volume: slicer.vtkMRMLScalarVolumeNode
) -> None:
    record = markups.add("organ", PointPrompt((3.0, 5.0, 6.0)))
    node = markups.nodes.shared(KINDS["point"], "organ")

    def shown_ijk() -> np.ndarray:
        world = np.zeros(3)
        node.GetNthControlPointPositionWorld(0, world)
        return VolumeFrame.of(a_volume).ijk_from_ras(world)

    pose = host.add_linear_transform(np.diag([-1.0, -1, 1, 1]))
    a_volume.SetAndObserveTransformNodeID(pose.GetID())
    assert np.allclose(shown_ijk(), (3, 5, 6), atol=1e-6)
    a_volume.HardenTransform()
    assert np.allclose(shown_ijk(), (3, 5, 6), atol=1e-6)
    assert markups.store.get(record.uid).prompt.point_ijk == (3.0, 5.0, 6.0)


def test_a_point_placed_on_a_warped_volume_lands_in_the_voxel_that_is_seen(host: MrmlHost) -> None:
    matrix = np.diag([1.5, 1.5, 3, 1])
    matrix[:3, 3] = -15, -15, -15
    volume = host.add_volume(an_image(), matrix, transform=host.add_warp(6.0))
    node = host.add_segmentation(volume)
    node.GetSegmentation().AddEmptySegment("organ", "Organ")
    markups = PromptMarkups(host.scene, node, volume)
    place = VolumeFrame.of(volume).ras_from_ijk(np.array([12.0, 9.0, 5.0]))
    markups.nodes.shared(KINDS["point"], "organ").AddControlPointWorld(*place)
    assert np.abs(np.array(markups.records()[0].prompt.point_ijk) - (12, 9, 5)).max() < 0.05
    markups.close()


def test_closing_the_scene_ends_the_watch(host: MrmlHost, markups: PromptMarkups, heard: Heard) -> None:
    markups.add("organ", PointPrompt((3.0, 5.0, 6.0)))
    heard.clear()
    host.scene.Clear(True)
    assert heard == []


def test_events_name_what_happened(markups: PromptMarkups, heard: Heard) -> None:
    record = markups.add("organ", PointPrompt((3.0, 5.0, 6.0)))
    markups.remove([record.uid])
    assert [(event.action, event.record.uid) for event in heard] == [
        (Action.PLACED, record.uid),
        (Action.REMOVED, record.uid),
    ]

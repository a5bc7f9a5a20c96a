"""Proposals in the preview, and accepting them into the user's segments."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import slicer
from mrml.conftest import SIZE_IJK, an_image, rotation, tilted_matrix
from mrml.host import MrmlHost, set_labels
from scipy import ndimage
from vtkmodules.util.numpy_support import vtk_to_numpy

from SegmentAnythingMedLib.errors import OutputError
from SegmentAnythingMedLib.geometry import Plane, SliceGeometry
from SegmentAnythingMedLib.mrml import written_state
from SegmentAnythingMedLib.mrml.frame import VolumeFrame, array_of
from SegmentAnythingMedLib.mrml.label_grid import Box, box_of, grid_of, labelmap_of, labels_of, read_box, sample_box
from SegmentAnythingMedLib.mrml.new_segment import ensure_segment, make_segment, make_segmentation
from SegmentAnythingMedLib.mrml.preview_segments import PreviewSegments
from SegmentAnythingMedLib.mrml.segment_reader import mask_from_segment, segment_on_slice
from SegmentAnythingMedLib.mrml.segment_writer import SegmentWriter, WriteMode

SHAPE = SIZE_IJK[::-1]
OBJECT = an_image() > 50


def run(steps: Iterator[float]) -> None:
    for _ in steps:
        pass


@pytest.fixture
def thin_slabs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step handles one slice, as on volumes that are large."""
    monkeypatch.setattr(Box, "thin", property(lambda box: 1))


def tell_changed(node: slicer.vtkMRMLSegmentationNode, segment_id: str) -> None:
    """As the Segment Editor does after a stroke."""
    image = labelmap_of(node, segment_id)
    image.GetPointData().GetScalars().Modified()
    image.Modified()
    node.GetSegmentation().GetSegment(segment_id).Modified()


def shift_by(i: float, j: float, k: float) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, 3] = i, j, k
    return matrix


def collapsed(node: slicer.vtkMRMLSegmentationNode) -> np.ndarray:
    """Four segments s1 to s4 in one layer; (K, J, I) number of the one each voxel belongs to, or 0."""
    owner = np.random.default_rng(5).integers(0, 5, SHAPE)
    node.GetSegmentation().RemoveAllSegments()
    for number in range(1, 5):
        node.GetSegmentation().AddEmptySegment(f"s{number}", f"s{number}")
        set_labels(node, f"s{number}", owner == number, tilted_matrix())
    node.GetSegmentation().CollapseBinaryLabelmaps(False)
    assert all(labelmap_of(node, f"s{number}") is labelmap_of(node, "s1") for number in range(2, 5))
    return owner


def grid_box(shape: tuple[int, int, int] = SHAPE) -> Box:
    return Box((0, 0, 0), shape)


def voxels(node: slicer.vtkMRMLSegmentationNode, segment_id: str, volume: slicer.vtkMRMLScalarVolumeNode) -> np.ndarray:
    """(K, J, I) bool on the volume's grid, which the segment must share."""
    return read_box(node, segment_id, VolumeFrame.of(volume), grid_box())


@pytest.fixture
def preview(host: MrmlHost, a_volume: slicer.vtkMRMLScalarVolumeNode) -> PreviewSegments:
    preview = PreviewSegments(host.scene, a_volume)
    preview.add_object(1, "Organ", (1, 0, 0))
    return preview


@pytest.fixture
def writer(host: MrmlHost, a_volume: slicer.vtkMRMLScalarVolumeNode) -> SegmentWriter:
    return SegmentWriter(host.scene, a_volume)


def propose(
    preview: PreviewSegments,
    volume: slicer.vtkMRMLScalarVolumeNode,
    mask: np.ndarray = OBJECT,
    plane: Plane | None = None,
    indices: range | None = None,
) -> SliceGeometry:
    """Show slices of a (K, J, I) mask; by default all along K."""
    slices = SliceGeometry(VolumeFrame.of(volume).geometry, plane or Plane(2))
    for index in indices or range(slices.count):
        preview.show(1, slices, index, slices.extract(mask, index, order=0))
    return slices


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_what_is_shown_and_accepted_equals_the_masks_voxel_by_voxel(
    a_volume: slicer.vtkMRMLScalarVolumeNode,
    a_segmentation: slicer.vtkMRMLSegmentationNode,
    preview: PreviewSegments,
    writer: SegmentWriter,
    axis: int,
) -> None:
    propose(preview, a_volume, plane=Plane(axis))
    assert np.array_equal(voxels(preview.node, "1", a_volume), OBJECT)
    run(writer.accept(preview[1], a_segmentation, "organ"))
    assert np.array_equal(voxels(a_segmentation, "organ", a_volume), OBJECT)
    assert np.array_equal(array_of_voxels(a_volume), an_image())


def array_of_voxels(volume: slicer.vtkMRMLScalarVolumeNode) -> np.ndarray:
    from SegmentAnythingMedLib.mrml.scene import voxels_of

    return voxels_of(volume)[0]


def test_oblique_slices_are_accepted_without_holes(
    a_volume: slicer.vtkMRMLScalarVolumeNode,
    a_segmentation: slicer.vtkMRMLSegmentationNode,
    preview: PreviewSegments,
    writer: SegmentWriter,
) -> None:
    plane = Plane.from_normal([0.3, 0.2, 0.9], VolumeFrame.of(a_volume).geometry)
    assert plane.is_oblique
    propose(preview, a_volume, plane=plane)
    run(writer.accept(preview[1], a_segmentation, "organ"))
    written = voxels(a_segmentation, "organ", a_volume)
    assert np.array_equal(written, preview[1].mask > 0)
    assert np.array_equal(ndimage.binary_fill_holes(written), written)
    assert 2 * (written & OBJECT).sum() / (written.sum() + OBJECT.sum()) > 0.8


def test_voxels_outside_the_written_slices_stay_and_on_them_the_mask_replaces(
    a_volume: slicer.vtkMRMLScalarVolumeNode,
    a_segmentation: slicer.vtkMRMLSegmentationNode,
    preview: PreviewSegments,
    writer: SegmentWriter,
) -> None:
    before = np.zeros(SHAPE, bool)
    before[2:9, 1:4, 2:6] = True
    set_labels(a_segmentation, "organ", before, tilted_matrix())
    propose(preview, a_volume, indices=range(4, 7))
    run(writer.accept(preview[1], a_segmentation, "organ"))
    expected = before.copy()
    expected[4:7] = OBJECT[4:7]
    assert np.array_equal(voxels(a_segmentation, "organ", a_volume), expected)
    run(writer.undo())
    assert np.array_equal(voxels(a_segmentation, "organ", a_volume), before)
    run(writer.accept(preview[1], a_segmentation, "organ", WriteMode.ADD))
    assert np.array_equal(voxels(a_segmentation, "organ", a_volume), before | expected)


GRIDS = {
    "half": tilted_matrix() @ np.diag([0.5, 0.5, 0.5, 1]),
    "triple": tilted_matrix() @ np.diag([3.0, 3, 3, 1]),
    "tilted": tilted_matrix() @ np.block([[rotation(0, 10, 25), np.ones((3, 1))], [np.zeros((1, 3)), np.ones((1, 1))]]),
}
GRID_SHAPES = {"half": (24, 40, 48), "triple": (4, 7, 8), "tilted": (16, 24, 28)}


@pytest.mark.parametrize("has_reference", [True, False])
@pytest.mark.parametrize("name", list(GRIDS))
def test_a_segmentation_on_another_grid_keeps_it_and_every_voxel_beside_the_written_slices(
    host: MrmlHost,
    a_volume: slicer.vtkMRMLScalarVolumeNode,
    preview: PreviewSegments,
    writer: SegmentWriter,
    name: str,
    has_reference: bool,
) -> None:
    node = host.add_segmentation(None)
    node.SetAndObserveTransformNodeID(a_volume.GetTransformNodeID())
    node.GetSegmentation().AddEmptySegment("organ", "Organ")
    node.GetSegmentation().AddEmptySegment("other", "Other")
    before = np.random.default_rng(1).random(GRID_SHAPES[name]) > 0.5
    set_labels(node, "organ", before, GRIDS[name])
    set_labels(node, "other", ~before, GRIDS[name])
    if has_reference:
        image = labelmap_of(node, "organ")
        node.GetSegmentation().SetConversionParameter(
            slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName(),
            slicer.vtkSegmentationConverter.SerializeImageGeometry(image),
        )
    reference = node.GetSegmentation().GetConversionParameter("Reference image geometry")
    propose(preview, a_volume, indices=range(5, 8))
    run(writer.accept(preview[1], node, "organ"))

    frame = VolumeFrame.of_labelmap(labelmap_of(node, "organ"), node.GetParentTransformNode())
    assert np.allclose(frame.local.ijk_to_world, GRIDS[name])
    assert node.GetSegmentation().GetConversionParameter("Reference image geometry") == reference
    k, j, i = np.meshgrid(*map(np.arange, GRID_SHAPES[name]), indexing="ij")
    nearest = np.floor(VolumeFrame.of(a_volume).ijk_from(frame, np.stack([i, j, k], axis=-1)) + 0.5).astype(int)
    inside = ((nearest >= 0) & (nearest < SIZE_IJK)).all(axis=-1) & (nearest[..., 2] >= 5) & (nearest[..., 2] < 8)
    clipped = np.clip(nearest, 0, np.array(SIZE_IJK) - 1)
    expected = np.where(inside, OBJECT[clipped[..., 2], clipped[..., 1], clipped[..., 0]], before)
    after = read_box(node, "organ", frame, grid_box(GRID_SHAPES[name]))
    close = np.abs(VolumeFrame.of(a_volume).ijk_from(frame, np.stack([i, j, k], -1)) % 1 - 0.5).min(axis=-1) < 1e-6
    assert np.array_equal(after[~close], expected[~close])
    assert np.array_equal(read_box(node, "other", frame, grid_box(GRID_SHAPES[name])), ~before)
    run(writer.undo())
    assert np.array_equal(read_box(node, "organ", frame, grid_box(GRID_SHAPES[name])), before)


def test_a_segmentation_of_nothing_takes_the_volumes_grid(
    host: MrmlHost, a_volume: slicer.vtkMRMLScalarVolumeNode, preview: PreviewSegments, writer: SegmentWriter
) -> None:
    node = host.add_segmentation(None)
    node.SetAndObserveTransformNodeID(a_volume.GetTransformNodeID())
    segment_id = make_segment(node, "Liver")
    propose(preview, a_volume)
    run(writer.accept(preview[1], node, segment_id))
    assert np.array_equal(voxels(node, segment_id, a_volume), OBJECT)


def test_a_segmentation_of_surfaces_is_refused_in_words(
    host: MrmlHost, a_volume: slicer.vtkMRMLScalarVolumeNode, preview: PreviewSegments, writer: SegmentWriter
) -> None:
    import vtk

    node = host.add_segmentation(a_volume)
    node.GetSegmentation().SetSourceRepresentationName("Closed surface")
    segment = slicer.vtkSegment()
    sphere = vtk.vtkSphereSource()
    sphere.Update()
    segment.AddRepresentation("Closed surface", sphere.GetOutput())
    node.GetSegmentation().AddSegment(segment, "stl")
    propose(preview, a_volume)
    with pytest.raises(OutputError, match="consists of surfaces"):
        run(writer.accept(preview[1], node, "stl"))


EDITOR = slicer.vtkMRMLSegmentEditorNode
SEGMENTATION = slicer.vtkMRMLSegmentationNode


@pytest.mark.parametrize("is_collapsed", [False, True])
@pytest.mark.parametrize(
    "overwrite", [EDITOR.OverwriteNone, EDITOR.OverwriteVisibleSegments, EDITOR.OverwriteAllSegments]
)
@pytest.mark.parametrize(
    ("area", "in_range"),
    [
        (SEGMENTATION.EditAllowedEverywhere, False),
        (SEGMENTATION.EditAllowedEverywhere, True),
        (SEGMENTATION.EditAllowedInsideAllSegments, False),
        (SEGMENTATION.EditAllowedInsideVisibleSegments, False),
        (SEGMENTATION.EditAllowedOutsideAllSegments, True),
        (SEGMENTATION.EditAllowedOutsideVisibleSegments, False),
        (SEGMENTATION.EditAllowedInsideSingleSegment, False),
    ],
)
def test_masking_range_and_overwriting_are_what_slicers_own_logic_does(
    host: MrmlHost,
    a_volume: slicer.vtkMRMLScalarVolumeNode,
    preview: PreviewSegments,
    writer: SegmentWriter,
    area: int,
    in_range: bool,
    overwrite: int,
    is_collapsed: bool,
) -> None:
    random = np.random.default_rng(3)
    names = ["organ", "seen", "hidden"]
    owner = random.integers(0, 4, SHAPE)
    pair = []
    for name in ("ours", "oracle"):
        node = host.add_segmentation(a_volume, name)
        for number, segment_id in enumerate(names):
            node.GetSegmentation().AddEmptySegment(segment_id, segment_id)
            set_labels(node, segment_id, owner == number, tilted_matrix())
        if is_collapsed:
            node.GetSegmentation().CollapseBinaryLabelmaps(False)
            assert node.GetSegmentation().GetNumberOfLayers() == 1
        node.GetDisplayNode().SetSegmentVisibility("hidden", False)
        pair.append(node)
    ours, oracle = pair
    editor = host.scene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")
    host.scene.RemoveNode(editor)
    editor = slicer.vtkMRMLSegmentEditorNode()
    editor.SetSingletonTag("SegmentEditor")
    editor = host.scene.AddNode(editor)
    editor.SetOverwriteMode(overwrite)
    editor.SetMaskMode(area)
    editor.SetMaskSegmentID("seen")
    editor.SetSelectedSegmentID("organ")
    editor.SetSourceVolumeIntensityMask(in_range)
    editor.SetSourceVolumeIntensityMaskRange(2, 103)
    editor.SetAndObserveSourceVolumeNode(a_volume)

    propose(preview, a_volume)
    run(writer.accept(preview[1], ours, "organ", WriteMode.ADD))

    logic = slicer.vtkSlicerSegmentEditorLogic()
    logic.SetMRMLScene(host.scene)
    logic.SetSegmentEditorNode(editor)
    editor.SetAndObserveSegmentationNode(oracle)
    editor.SetSelectedSegmentID("organ")
    assert logic.ResetModifierLabelmapToDefault()
    modifier = logic.GetModifierLabelmap()
    from SegmentAnythingMedLib.mrml.label_grid import labels_of

    labels_of(modifier)[...] = OBJECT
    logic.ModifySegmentByLabelmap(oracle, "organ", modifier, logic.ModificationModeAdd, False, False)
    for segment_id in names:
        assert np.array_equal(voxels(ours, segment_id, a_volume), voxels(oracle, segment_id, a_volume)), segment_id
    run(writer.undo())
    for number, segment_id in enumerate(names):
        assert np.array_equal(voxels(ours, segment_id, a_volume), owner == number), segment_id


def test_without_a_segment_editor_other_segments_keep_overlapping_voxels(
    a_volume: slicer.vtkMRMLScalarVolumeNode,
    a_segmentation: slicer.vtkMRMLSegmentationNode,
    preview: PreviewSegments,
    writer: SegmentWriter,
) -> None:
    a_segmentation.GetSegmentation().AddEmptySegment("other", "other")
    other = np.roll(OBJECT, 3, axis=2)
    set_labels(a_segmentation, "other", other, tilted_matrix())
    propose(preview, a_volume)
    run(writer.accept(preview[1], a_segmentation, "organ"))
    assert np.array_equal(voxels(a_segmentation, "organ", a_volume), OBJECT)
    assert np.array_equal(voxels(a_segmentation, "other", a_volume), other)


def test_undo_and_redo_go_several_steps_and_leave_foreign_edits_alone(
    a_volume: slicer.vtkMRMLScalarVolumeNode,
    a_segmentation: slicer.vtkMRMLSegmentationNode,
    preview: PreviewSegments,
    writer: SegmentWriter,
) -> None:
    propose(preview, a_volume, indices=range(3, 6))
    run(writer.accept(preview[1], a_segmentation, "organ"))
    first = voxels(a_segmentation, "organ", a_volume)
    propose(preview, a_volume, indices=range(6, 9))
    run(writer.accept(preview[1], a_segmentation, "organ"))
    second = voxels(a_segmentation, "organ", a_volume)
    stroke = np.zeros(SHAPE, bool)
    stroke[5, 0, :5] = True
    set_labels(a_segmentation, "organ", second | stroke, tilted_matrix())
    run(writer.undo())
    assert np.array_equal(voxels(a_segmentation, "organ", a_volume), first | stroke)
    run(writer.undo())
    assert np.array_equal(voxels(a_segmentation, "organ", a_volume), stroke)
    assert not writer.can_undo
    run(writer.redo())
    run(writer.redo())
    assert np.array_equal(voxels(a_segmentation, "organ", a_volume), second | stroke)


def test_undo_refuses_and_changes_nothing_where_something_else_changed_our_voxels(
    a_volume: slicer.vtkMRMLScalarVolumeNode,
    a_segmentation: slicer.vtkMRMLSegmentationNode,
    preview: PreviewSegments,
    writer: SegmentWriter,
) -> None:
    propose(preview, a_volume)
    run(writer.accept(preview[1], a_segmentation, "organ"))
    erased = voxels(a_segmentation, "organ", a_volume)
    erased[6, 10, 12] = False
    set_labels(a_segmentation, "organ", erased, tilted_matrix())
    with pytest.raises(OutputError, match="Something else changed"):
        run(writer.undo())
    assert np.array_equal(voxels(a_segmentation, "organ", a_volume), erased)
    assert writer.can_undo


def test_closing_an_acceptance_halfway_keeps_and_can_undo_what_was_written(
    a_volume: slicer.vtkMRMLScalarVolumeNode,
    a_segmentation: slicer.vtkMRMLSegmentationNode,
    preview: PreviewSegments,
    writer: SegmentWriter,
) -> None:
    propose(preview, a_volume)
    steps = writer.accept(preview[1], a_segmentation, "organ")
    while next(steps) < 0.5:
        pass
    steps.close()
    assert voxels(a_segmentation, "organ", a_volume).sum() > 0
    run(writer.undo())
    assert not voxels(a_segmentation, "organ", a_volume).any()


def test_painted_slices_are_noticed_and_read_as_masks(
    a_volume: slicer.vtkMRMLScalarVolumeNode,
    a_segmentation: slicer.vtkMRMLSegmentationNode,
    preview: PreviewSegments,
    writer: SegmentWriter,
) -> None:
    slices = propose(preview, a_volume)
    run(writer.accept(preview[1], a_segmentation, "organ"))
    assert writer.painted_slices(a_segmentation, "organ", slices) == ()
    painted = OBJECT.copy()
    painted[5, 0:2, 0:2] = True
    painted[7, 10, 12] = False
    set_labels(a_segmentation, "organ", painted, tilted_matrix())
    assert writer.painted_slices(a_segmentation, "organ", slices) == (5, 7)
    assert np.array_equal(
        mask_from_segment(a_segmentation, "organ", VolumeFrame.of(a_volume), slices, 5).mask, painted[5]
    )
    run(writer.remember(a_segmentation, "organ"))
    assert writer.painted_slices(a_segmentation, "organ", slices) == ()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_segment_on_another_grid_is_read_on_the_volumes_slices(
    host: MrmlHost, a_volume: slicer.vtkMRMLScalarVolumeNode, axis: int
) -> None:
    node = host.add_segmentation(a_volume)
    node.GetSegmentation().AddEmptySegment("s", "s")
    fine = OBJECT.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    matrix = tilted_matrix() @ np.diag([0.5, 0.5, 0.5, 1])
    matrix[:3, 3] = (tilted_matrix() @ [-0.25, -0.25, -0.25, 1])[:3]
    set_labels(node, "s", fine, matrix)
    frame = VolumeFrame.of(a_volume)
    slices = SliceGeometry(frame.geometry, Plane(axis))
    for index in range(slices.count):
        assert np.array_equal(segment_on_slice(node, "s", frame, slices, index), slices.extract(OBJECT, index))


@pytest.mark.parametrize("amplitude", [6.0])
def test_under_a_warp_a_segment_is_written_exactly_and_in_another_frame_close(host: MrmlHost, amplitude: float) -> None:
    matrix = np.diag([1.5, 1.5, 3, 1])
    matrix[:3, 3] = -15, -15, -15
    volume = host.add_volume(an_image(), matrix, transform=host.add_warp(amplitude))
    preview = PreviewSegments(host.scene, volume)
    preview.add_object(1, "Organ", (1, 0, 0))
    propose(preview, volume)
    writer = SegmentWriter(host.scene, volume)
    under, beside = make_segmentation(host.scene, volume), host.add_segmentation(None)
    for node in (under, beside):
        segment_id = make_segment(node, "Liver")
        run(writer.accept(preview[1], node, segment_id))
    assert np.array_equal(voxels(under, segment_id, volume), OBJECT)
    grid, _ = grid_of(beside, segment_id, volume)
    box = Box((-6, -8, -8), (20, 30, 34))
    expected = sample_box(OBJECT.astype(np.uint8), VolumeFrame.of(volume), grid, box) > 0
    assert np.array_equal(read_box(beside, segment_id, grid, box), expected)
    assert expected.sum() > 0.5 * OBJECT.sum()


def test_closed_surfaces_are_built_once_at_the_end(
    a_volume: slicer.vtkMRMLScalarVolumeNode,
    a_segmentation: slicer.vtkMRMLSegmentationNode,
    preview: PreviewSegments,
    writer: SegmentWriter,
) -> None:
    first = np.zeros(SHAPE, bool)
    first[2:4, 4:8, 4:8] = True
    set_labels(a_segmentation, "organ", first, tilted_matrix())
    assert a_segmentation.CreateClosedSurfaceRepresentation()
    propose(preview, a_volume)
    run(writer.accept(preview[1], a_segmentation, "organ"))
    surface = a_segmentation.GetClosedSurfaceInternalRepresentation("organ")
    low, high = np.array(surface.GetBounds())[::2], np.array(surface.GetBounds())[1::2]
    corners = VolumeFrame.of(a_volume).local.world_from_ijk(np.argwhere(OBJECT)[:, ::-1])
    assert np.abs(low - corners.min(axis=0)).max() < 3 and np.abs(high - corners.max(axis=0)).max() < 3


def test_a_loaded_seg_nrrd_with_shared_layers_is_written_like_any_other(
    host: MrmlHost, a_volume: slicer.vtkMRMLScalarVolumeNode, preview: PreviewSegments, writer: SegmentWriter, tmp_path
) -> None:
    node = host.add_segmentation(a_volume, "saved")
    owner = np.random.default_rng(5).integers(0, 5, SHAPE)
    owner[:, :3] = 0
    for number in range(1, 5):
        node.GetSegmentation().AddEmptySegment(f"s{number}", f"s{number}")
        set_labels(node, f"s{number}", owner == number, tilted_matrix())
    node.GetSegmentation().CollapseBinaryLabelmaps(False)
    node.AddDefaultStorageNode()
    node.GetStorageNode().SetFileName(str(tmp_path / "four.seg.nrrd"))
    assert node.GetStorageNode().WriteData(node)
    loaded = host.logics["Segmentations"].LoadSegmentationFromFile(str(tmp_path / "four.seg.nrrd"), True, "loaded")
    loaded.SetAndObserveTransformNodeID(a_volume.GetTransformNodeID())
    assert loaded.GetSegmentation().GetNumberOfLayers() == 1
    propose(preview, a_volume)
    run(writer.accept(preview[1], loaded, "s1"))
    assert np.array_equal(voxels(loaded, "s1", a_volume), OBJECT)
    for number in (2, 3, 4):
        assert np.array_equal(voxels(loaded, f"s{number}", a_volume), owner == number)
    run(writer.undo())
    assert np.array_equal(voxels(loaded, "s1", a_volume), owner == 1)


@pytest.mark.usefixtures("thin_slabs")
def test_a_segment_leaves_a_shared_layer_in_many_steps_and_takes_nothing_of_the_others(
    a_volume: slicer.vtkMRMLScalarVolumeNode,
    a_segmentation: slicer.vtkMRMLSegmentationNode,
    preview: PreviewSegments,
    writer: SegmentWriter,
) -> None:
    owner = collapsed(a_segmentation)
    value = a_segmentation.GetSegmentation().GetSegment("s1").GetLabelValue()
    propose(preview, a_volume)
    steps = sum(1 for _ in writer.accept(preview[1], a_segmentation, "s1"))
    assert steps > 4 * SHAPE[0]
    assert np.array_equal(voxels(a_segmentation, "s1", a_volume), OBJECT)
    assert not (labels_of(labelmap_of(a_segmentation, "s2")) == value).any()
    run(writer.undo())
    for number in range(1, 5):
        assert np.array_equal(voxels(a_segmentation, f"s{number}", a_volume), owner == number)


@pytest.mark.usefixtures("thin_slabs")
def test_a_stroke_during_the_move_to_an_own_layer_is_not_lost(
    a_volume: slicer.vtkMRMLScalarVolumeNode,
    a_segmentation: slicer.vtkMRMLSegmentationNode,
    preview: PreviewSegments,
    writer: SegmentWriter,
) -> None:
    owner = collapsed(a_segmentation)
    propose(preview, a_volume, indices=range(4, 8))
    steps = writer.accept(preview[1], a_segmentation, "s1")
    shared = labelmap_of(a_segmentation, "s1")
    while next(steps) == 0.0:
        pass
    for _ in range(3):
        next(steps)
    assert labelmap_of(a_segmentation, "s1") is shared
    labels_of(shared)[0, 0, :4] = a_segmentation.GetSegmentation().GetSegment("s1").GetLabelValue()
    tell_changed(a_segmentation, "s1")
    run(steps)
    expected = owner == 1
    expected[0, 0, :4] = True
    expected[4:8] = OBJECT[4:8]
    assert labelmap_of(a_segmentation, "s1") is not shared
    assert np.array_equal(voxels(a_segmentation, "s1", a_volume), expected)


@pytest.mark.usefixtures("thin_slabs")
def test_a_labelmap_grows_step_by_step_and_keeps_every_voxel_and_stroke(
    a_volume: slicer.vtkMRMLScalarVolumeNode,
    a_segmentation: slicer.vtkMRMLSegmentationNode,
    preview: PreviewSegments,
    writer: SegmentWriter,
) -> None:
    before = np.zeros(SHAPE, bool)
    before[1:3, 2:6, 3:9] = True
    set_labels(a_segmentation, "organ", before[1:3, 2:6, 3:9], tilted_matrix() @ shift_by(3, 2, 1))
    grid = VolumeFrame.of_labelmap(labelmap_of(a_segmentation, "organ"), a_segmentation.GetParentTransformNode())
    propose(preview, a_volume, indices=range(4, 8))
    steps = writer.accept(preview[1], a_segmentation, "organ")
    for _ in range(4):
        next(steps)
    labels_of(labelmap_of(a_segmentation, "organ"))[0, 0, 0] = 0
    tell_changed(a_segmentation, "organ")
    run(steps)
    before[1, 2, 3] = False
    before[4:8] = OBJECT[4:8]
    found = read_box(a_segmentation, "organ", grid, grid_box().moved((-1, -2, -3)))
    assert np.array_equal(found, before)


def test_an_oblique_slice_is_pasted_as_the_geometry_says_and_replaced_without_a_trace(
    a_volume: slicer.vtkMRMLScalarVolumeNode, preview: PreviewSegments
) -> None:
    frame, random = VolumeFrame.of(a_volume), np.random.default_rng(2)
    for normal in ([0.3, 0.2, 0.9], [-0.8, 0.5, 0.2], [0.1, 0.9, -0.5]):
        slices = SliceGeometry(frame.geometry, Plane.from_normal(normal, frame.geometry))
        assert slices.plane.is_oblique
        preview.add_object(1, "Organ", (1, 0, 0))
        propose(preview, a_volume, indices=range(3, 5))
        expected = preview[1].mask.copy()
        for index in [*range(slices.count), *range(2, slices.count, 3)]:
            mask = np.zeros(slices.shape, bool)
            rows, columns = (slice(*sorted(random.integers(0, size, 2))) for size in slices.shape)
            mask[rows, columns] = random.random(mask[rows, columns].shape) > 0.3
            preview.show(1, slices, index, mask)
            slices.paste(mask, index, expected)
        assert np.array_equal(preview[1].mask, expected)
        assert (box_of(expected > 0, (0, 0, 0)).cut(preview[1].object_box)) == box_of(expected > 0, (0, 0, 0))


def test_only_voxels_of_written_oblique_slices_count_as_written(
    a_volume: slicer.vtkMRMLScalarVolumeNode, preview: PreviewSegments
) -> None:
    frame = VolumeFrame.of(a_volume)
    slices = SliceGeometry(frame.geometry, Plane.from_normal([0.3, 0.2, 0.9], frame.geometry))
    written = np.zeros(SHAPE, np.uint8)
    for index in (slices.count // 2, slices.count // 2 + 2):
        preview.show(1, slices, index, np.zeros(slices.shape, bool))
        slices.paste(np.ones(slices.shape, bool), index, written)
    box = Box((2, 3, 1), (9, 18, 20))
    assert np.array_equal(preview[1].coded(box) > 0, written[box.within(grid_box())] > 0)
    covered = preview[1].written_box()
    assert box_of(written > 0, (0, 0, 0)).cut(covered) == box_of(written > 0, (0, 0, 0))


@pytest.mark.parametrize(("smoothing", "decimation", "normals"), [("0.5", "0.0", "1"), ("0.2", "0.4", "0")])
def test_a_surface_is_the_one_that_slicer_makes(
    a_volume: slicer.vtkMRMLScalarVolumeNode,
    a_segmentation: slicer.vtkMRMLSegmentationNode,
    preview: PreviewSegments,
    writer: SegmentWriter,
    smoothing: str,
    decimation: str,
    normals: str,
) -> None:
    segmentation = a_segmentation.GetSegmentation()
    for name, value in (
        ("Smoothing factor", smoothing),
        ("Decimation factor", decimation),
        ("Compute surface normals", normals),
    ):
        segmentation.SetConversionParameter(name, value)
    set_labels(a_segmentation, "organ", OBJECT, tilted_matrix())
    assert a_segmentation.CreateClosedSurfaceRepresentation()
    propose(preview, a_volume, np.roll(OBJECT, 2, axis=2))
    run(writer.accept(preview[1], a_segmentation, "organ"))
    ours = segmentation.GetSegment("organ").GetRepresentation("Closed surface")
    segmentation.GetSegment("organ").RemoveRepresentation("Closed surface")
    segmentation.CreateRepresentation("Closed surface", True)
    slicers = segmentation.GetSegment("organ").GetRepresentation("Closed surface")
    assert ours is not slicers and ours.GetNumberOfPoints() > 300
    for array in (lambda s: s.GetPoints().GetData(), lambda s: s.GetPolys().GetConnectivityArray()):
        assert np.array_equal(vtk_to_numpy(array(ours)), vtk_to_numpy(array(slicers)))
    assert (ours.GetPointData().GetNormals() is None) == (slicers.GetPointData().GetNormals() is None)
    if normals == "1":
        assert np.array_equal(
            vtk_to_numpy(ours.GetPointData().GetNormals()), vtk_to_numpy(slicers.GetPointData().GetNormals())
        )


def test_what_was_painted_is_found_while_nobody_asks(
    a_volume: slicer.vtkMRMLScalarVolumeNode,
    a_segmentation: slicer.vtkMRMLSegmentationNode,
    preview: PreviewSegments,
    writer: SegmentWriter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slices = propose(preview, a_volume)
    run(writer.accept(preview[1], a_segmentation, "organ"))
    labels_of(labelmap_of(a_segmentation, "organ"))[5, 10, 12] = 0
    tell_changed(a_segmentation, "organ")
    for _ in range(50):
        writer.look(0.0)
    monkeypatch.setattr(written_state, "read_box", lambda *_: pytest.fail("the segment was read again"))
    assert len(writer.painted_slices(a_segmentation, "organ", slices)) == 1


def test_a_segment_that_was_resampled_since_has_nothing_painted(
    a_volume: slicer.vtkMRMLScalarVolumeNode,
    a_segmentation: slicer.vtkMRMLSegmentationNode,
    preview: PreviewSegments,
    writer: SegmentWriter,
) -> None:
    slices = propose(preview, a_volume)
    run(writer.accept(preview[1], a_segmentation, "organ"))
    set_labels(a_segmentation, "organ", np.ones((4, 5, 6), bool), GRIDS["tilted"])
    writer.look(0.0)
    assert writer.painted_slices(a_segmentation, "organ", slices) == ()


def test_a_removed_segment_stops_an_acceptance_in_words(
    a_volume: slicer.vtkMRMLScalarVolumeNode,
    a_segmentation: slicer.vtkMRMLSegmentationNode,
    preview: PreviewSegments,
    writer: SegmentWriter,
) -> None:
    propose(preview, a_volume)
    steps = writer.accept(preview[1], a_segmentation, "organ")
    next(steps)
    a_segmentation.GetSegmentation().RemoveSegment("organ")
    with pytest.raises(OutputError, match="no longer there"):
        run(steps)


def test_new_segments_are_named_coloured_coded_and_under_the_volumes_transform(
    host: MrmlHost, a_volume: slicer.vtkMRMLScalarVolumeNode
) -> None:
    node = make_segmentation(host.scene, a_volume)
    assert node.GetTransformNodeID() == a_volume.GetTransformNodeID()
    segment_id = ensure_segment(node, "Left kidney")
    assert ensure_segment(node, "Left kidney") == segment_id
    segment = node.GetSegmentation().GetSegment(segment_id)
    terminology = segment.GetTerminology()
    assert "SCT^64033007^Kidney~SCT^7771000^Left" in terminology
    colors = [node.GetSegmentation().GetSegment(make_segment(node)).GetColor() for _ in range(4)]
    assert len(set(colors)) == 4


def test_the_preview_is_bounded_unsaved_and_goes_without_a_trace(
    host: MrmlHost, a_volume: slicer.vtkMRMLScalarVolumeNode, preview: PreviewSegments
) -> None:
    count = host.scene.GetNumberOfNodes() - 2
    assert not preview.node.GetSaveWithScene()
    assert preview.node.GetTransformNodeID() == a_volume.GetTransformNodeID()
    small = PreviewSegments(host.scene, a_volume, budget_bytes=OBJECT.size)
    small.add_object(1, "a", (1, 0, 0))
    with pytest.raises(OutputError, match="accept or discard"):
        small.add_object(2, "b", (0, 1, 0))
    small.close()
    preview.close()
    assert host.scene.GetNumberOfNodes() == count
    assert array_of(a_volume.GetParentTransformNode().GetMatrixTransformToParent()).shape == (4, 4)

"""Which slice of a volume a view shows, and aligning views with a volume."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
from mrml.conftest import an_image, rotation
from mrml.host import MrmlHost

from SegmentAnythingMedLib.errors import GeometryError
from SegmentAnythingMedLib.geometry import Plane, SliceGeometry, anatomical_axes
from SegmentAnythingMedLib.mrml.frame import VolumeFrame, array_of
from SegmentAnythingMedLib.mrml.slice_views import align_view, is_aligned, slice_of_view, view_of_points


def on_slice(frame: VolumeFrame, axis: int, index: float, tilt_degrees: float = 0.0) -> np.ndarray:
    """SliceToRAS of a view on a slice of the array, through the volume's middle, maybe tilted."""
    geometry = frame.geometry
    middle = (np.array(geometry.size_ijk) - 1) / 2
    middle[axis] = index
    normal = geometry.slice_normal_world(axis)
    across = geometry.ijk_to_world[:3, (axis + 1) % 3]
    across = across / np.linalg.norm(across)
    normal = normal * np.cos(np.radians(tilt_degrees)) + across * np.sin(np.radians(tilt_degrees))
    across = across - (across @ normal) * normal
    across /= np.linalg.norm(across)
    matrix = np.eye(4)
    matrix[:3, 0], matrix[:3, 1], matrix[:3, 2] = across, np.cross(normal, across), normal
    matrix[:3, 3] = frame.ras_from_ijk(middle)
    return matrix


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("tilt", [0.0, 0.9])
def test_a_view_within_a_degree_of_a_slice_is_that_slice(
    host: MrmlHost, a_volume: slicer.vtkMRMLScalarVolumeNode, axis: int, tilt: float
) -> None:
    frame = VolumeFrame.of(a_volume)
    view = host.add_slice_view("Red", on_slice(frame, axis, 4.4, tilt))
    shown = slice_of_view(view, frame)
    assert (shown.plane, shown.index) == (Plane(axis), 4)


def test_a_view_of_another_orientation_is_an_oblique_slice_through_the_same_point(
    host: MrmlHost, a_volume: slicer.vtkMRMLScalarVolumeNode
) -> None:
    frame = VolumeFrame.of(a_volume)
    matrix = on_slice(frame, 2, 5, tilt_degrees=20)
    shown = slice_of_view(host.add_slice_view("Red", matrix), frame)
    assert shown.plane.is_oblique
    slices = SliceGeometry(frame.geometry, shown.plane)
    normal = frame.geometry.ijk_to_world[:3, :3] @ np.array(shown.plane.normal_ijk)
    assert abs(normal @ matrix[:3, 2]) == pytest.approx(1, abs=1e-6)
    depth, _ = slices.pixels_from_ijk(frame.ijk_from_ras(matrix[:3, 3]))
    assert abs(depth - shown.index) <= 0.5


def test_a_view_beside_the_volume_shows_no_slice(host: MrmlHost, a_volume: slicer.vtkMRMLScalarVolumeNode) -> None:
    frame = VolumeFrame.of(a_volume)
    view = host.add_slice_view("Red", on_slice(frame, 2, 40))
    with pytest.raises(GeometryError, match="run from 0 to 11"):
        slice_of_view(view, frame)


@pytest.mark.parametrize("name", ["Axial", "Coronal", "Sagittal"])
def test_aligning_turns_a_view_to_the_nearest_slice_without_mirroring_it(
    host: MrmlHost, a_volume: slicer.vtkMRMLScalarVolumeNode, name: str
) -> None:
    frame = VolumeFrame.of(a_volume)
    view = host.add_slice_view("Red", np.eye(4))
    view.SetOrientation(name)
    center = frame.ras_from_ijk((np.array(frame.geometry.size_ijk) - 1) / 2)
    view.JumpSliceByCentering(*center)
    before = array_of(view.GetSliceToRAS())
    assert not is_aligned(view, frame)
    shown = align_view(view, frame)
    after = array_of(view.GetSliceToRAS())
    assert is_aligned(view, frame)
    assert shown == slice_of_view(view, frame)
    assert shown.plane.axis == anatomical_axes(frame.geometry)[name.lower()]
    assert np.linalg.det(after[:3, :3]) == pytest.approx(np.linalg.det(before[:3, :3]), abs=1e-6)
    assert (np.diag(after[:3, :3].T @ before[:3, :3]) > 0.5).all()
    assert np.linalg.norm(after[:3, 3] - center) < 2.5


def test_the_view_of_a_point_is_the_one_whose_plane_holds_it(
    host: MrmlHost, a_volume: slicer.vtkMRMLScalarVolumeNode
) -> None:
    frame = VolumeFrame.of(a_volume)
    views = [host.add_slice_view(name, on_slice(frame, axis, 3)) for axis, name in enumerate(("Red", "Green", "Blue"))]
    for axis, view in enumerate(views):
        point = np.array([7.0, 8.0, 9.0])
        point[axis] = 3
        assert view_of_points(host.scene, frame.ras_from_ijk(point)[np.newaxis]) is view
    assert view_of_points(host.scene, frame.ras_from_ijk(np.array([[7.0, 8, 9]]))) is None


def test_the_cursors_view_wins_where_views_cross(host: MrmlHost, a_volume: slicer.vtkMRMLScalarVolumeNode) -> None:
    frame = VolumeFrame.of(a_volume)
    views = [host.add_slice_view(name, on_slice(frame, axis, 3)) for axis, name in enumerate(("Red", "Green", "Blue"))]
    crosshair = host.scene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
    for view in views:
        crosshair.SetCursorPositionXYZ([10.0, 10.0, 0.0], view)
        assert view_of_points(host.scene, frame.ras_from_ijk(np.array([[3.0, 3, 3]]))) is view


def test_a_view_on_a_warped_volume_shows_the_slice_where_it_is_asked(host: MrmlHost) -> None:
    matrix = np.eye(4)
    matrix[:3, :3] = rotation(0, 0, 15) * (1.5, 1.5, 3)
    matrix[:3, 3] = -15, -15, -15
    frame = VolumeFrame.of(host.add_volume(an_image(), matrix, transform=host.add_warp(6.0)))
    point = np.array([12.0, 9.0, 5.0])
    around = frame.ras_from_ijk(point + np.array([[0, 0, 0], [0.5, 0, 0], [-0.5, 0, 0], [0, 0.5, 0], [0, -0.5, 0]]))
    across, along = around[1] - around[2], around[3] - around[4]
    view_matrix = np.eye(4)
    normal = np.cross(across, along)
    view_matrix[:3, 2] = normal / np.linalg.norm(normal)
    view_matrix[:3, 0] = across / np.linalg.norm(across)
    view_matrix[:3, 1] = np.cross(view_matrix[:3, 2], view_matrix[:3, 0])
    view_matrix[:3, 3] = around[0]
    view = host.add_slice_view("Red", view_matrix)
    shown = slice_of_view(view, frame, around[0])
    depth, _ = SliceGeometry(frame.geometry, shown.plane).pixels_from_ijk(frame.ijk_from_ras(around[0]))
    assert abs(depth - shown.index) <= 0.5
    if not shown.plane.is_oblique:
        assert (shown.plane.axis, shown.index) == (2, 5)

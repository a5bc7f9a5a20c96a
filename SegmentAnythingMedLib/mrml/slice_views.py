"""Slice views: which slice of a volume a view shows, which view a point was placed in, and aligning views."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from SegmentAnythingMedLib.geometry import Plane, SliceGeometry, VolumeGeometry, anatomical_axes
from SegmentAnythingMedLib.mrml.frame import VolumeFrame, array_of, matrix_of
from SegmentAnythingMedLib.mrml.nodes import nodes_of

if TYPE_CHECKING:
    from slicer import vtkMRMLScene, vtkMRMLSliceNode

ON_PLANE_MM = 0.25
"""A point this close to a view's plane was placed in that view."""

_STEP_MM = 2.0


@dataclass(frozen=True)
class ViewSlice:
    """The slice of a volume that a view shows."""

    plane: Plane
    index: int


def slice_of_view(view: vtkMRMLSliceNode, frame: VolumeFrame, at_ras: np.ndarray | None = None) -> ViewSlice:
    """The slice a view shows.

    Parameters
    ----------
    view
        Slice node of the view.
    frame
        Frame of the volume; need not be the view's background.
    at_ras
        (3,) where on the view the slice is asked for, by default its centre. Matters where the view is tilted by less
        than a degree against the volume, or the volume is warped.

    Raises
    ------
    GeometryError
        If the view does not cut the volume; the message names the valid slices.
    """
    slice_to_ras = array_of(view.GetSliceToRAS())
    center = slice_to_ras[:3, 3] if at_ras is None else np.asarray(at_ras, dtype=np.float64)
    plane = plane_of_view(view, frame, center)
    slices = SliceGeometry(frame.geometry, plane)
    depth, _ = slices.pixels_from_ijk(frame.ijk_from_ras(center))
    return ViewSlice(plane, slices.check_index(int(np.rint(depth))))


def plane_of_view(view: vtkMRMLSliceNode, frame: VolumeFrame, at_ras: np.ndarray | None = None) -> Plane:
    """Orientation of a view's plane in a volume; through a warp, the orientation at ``at_ras``."""
    slice_to_ras = array_of(view.GetSliceToRAS())
    if frame.is_linear:
        return Plane.from_normal(slice_to_ras[:3, 2], frame.geometry)
    center = slice_to_ras[:3, 3] if at_ras is None else np.asarray(at_ras, dtype=np.float64)
    across, along = slice_to_ras[:3, 0] * _STEP_MM, slice_to_ras[:3, 1] * _STEP_MM
    warped = frame.geometry.world_from_ijk(
        frame.ijk_from_ras(np.stack([center + across, center - across, center + along, center - along]))
    )
    return Plane.from_normal(np.cross(warped[0] - warped[1], warped[2] - warped[3]), frame.geometry)


def slice_views(scene: vtkMRMLScene) -> Iterator[vtkMRMLSliceNode]:
    """Slice nodes of the views that are shown, in any layout window; of all if the host does not say which."""
    nodes = nodes_of(scene, "vtkMRMLSliceNode")
    shown = [node for node in nodes if node.IsMappedInLayout()]
    yield from shown or nodes


def cursor_view(scene: vtkMRMLScene) -> vtkMRMLSliceNode | None:
    """The slice view the mouse cursor is or was last in, or None."""
    crosshair = scene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
    return crosshair.GetCursorPositionXYZ([0.0, 0.0, 0.0]) if crosshair is not None else None


def view_of_points(scene: vtkMRMLScene, points_ras: np.ndarray) -> vtkMRMLSliceNode | None:
    """The slice view in whose plane all (N, 3) points lie: the cursor's if it is one of them, else the nearest."""
    cursor = cursor_view(scene)
    if cursor is not None and distance_to_view(cursor, points_ras) <= ON_PLANE_MM:
        return cursor
    near = [(distance_to_view(view, points_ras), view.GetID(), view) for view in slice_views(scene)]
    near = [item for item in near if item[0] <= ON_PLANE_MM]
    return min(near)[2] if near else None


def distance_to_view(view: vtkMRMLSliceNode, points_ras: np.ndarray) -> float:
    """Largest distance in millimetres of (N, 3) points from a view's plane."""
    matrix = array_of(view.GetSliceToRAS())
    normal = matrix[:3, 2] / np.linalg.norm(matrix[:3, 2])
    return float(np.abs((np.atleast_2d(points_ras) - matrix[:3, 3]) @ normal).max())


def ras_from_display(view: vtkMRMLSliceNode, x: float, y: float) -> np.ndarray:
    """World position under a display pixel of a view (origin at its lower left)."""
    return (array_of(view.GetXYToRAS()) @ (x, y, 0.0, 1.0))[:3]


def is_aligned(view: vtkMRMLSliceNode, frame: VolumeFrame) -> bool:
    """Whether the view shows slices of the array; if not, offer `align_view`."""
    return not plane_of_view(view, frame).is_oblique


def align_view(view: vtkMRMLSliceNode, frame: VolumeFrame, axis: int | None = None) -> ViewSlice | None:
    """Turn a view onto the slices of the volume's array, staying where it is; onto the nearest slice's centre.

    Parameters
    ----------
    view
        The view to turn.
    frame
        Frame of the volume. A warped volume has no common plane: the view is turned to its unwarped axes.
    axis
        Depth axis; by default that of the view's orientation name, else the nearest.

    Returns
    -------
    ViewSlice or None
        The slice it shows now; None if it is beside the volume.
    """
    geometry, before = frame.geometry, array_of(view.GetSliceToRAS())
    if axis is None:
        named = anatomical_axes(geometry).get((view.GetOrientation() or "").lower())
        axis = geometry.nearest_axis(before[:3, 2]) if named is None else named
    normal = geometry.slice_normal_world(axis)
    normal = normal if normal @ before[:3, 2] >= 0 else -normal
    across = _closest_axis(geometry, before[:3, 0], normal)
    after = np.eye(4)
    after[:3, 0], after[:3, 1], after[:3, 2] = across, np.cross(normal, across), normal
    if np.linalg.det(before[:3, :3]) < 0:
        after[:3, 1] *= -1
    slices = SliceGeometry(geometry, Plane(axis))
    depth, pixels = slices.pixels_from_ijk(geometry.ijk_from_world(before[:3, 3]))
    index = int(np.rint(depth))
    after[:3, 3] = geometry.world_from_ijk(slices.ijk_from_pixels(index, pixels))
    view.GetSliceToRAS().DeepCopy(matrix_of(after))
    view.UpdateMatrices()
    return ViewSlice(Plane(axis), index) if 0 <= index < slices.count else None


def _closest_axis(geometry: VolumeGeometry, direction: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Unit vector in the plane of ``normal``, along the array axis closest to a direction and pointing its way."""
    axes = geometry.ijk_to_world[:3, :3].T / np.asarray(geometry.spacing_mm)[:, np.newaxis]
    in_plane = axes - np.outer(axes @ normal, normal)
    best = in_plane[int(np.argmax(np.abs(in_plane @ direction)))]
    best = best / np.linalg.norm(best)
    return best if best @ direction >= 0 else -best

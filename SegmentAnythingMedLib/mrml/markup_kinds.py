"""The table of prompt types and the markups that show them. A new prompt type is one more row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from SegmentAnythingMedLib.errors import PromptError
from SegmentAnythingMedLib.geometry import SliceGeometry, VolumeGeometry
from SegmentAnythingMedLib.mrml.frame import array_of, matrix_of
from SegmentAnythingMedLib.prompts import BoxPrompt, LassoPrompt, MaskPrompt, PointPrompt, Prompt, ScribblePrompt

if TYPE_CHECKING:
    from slicer import vtkMRMLMarkupsNode, vtkMRMLMarkupsROINode

GREEN, RED, YELLOW, BLUE = (0.1, 0.85, 0.3), (0.95, 0.2, 0.2), (1.0, 0.85, 0.1), (0.3, 0.7, 1.0)


@dataclass(frozen=True)
class MarkupKind:
    """How prompts of one type appear as markups.

    Parameters
    ----------
    name
        Key of the table; kept in the markup's attribute.
    node_class
        MRML class of the markup.
    color
        RGB from 0 to 1.
    glyph
        Name of the glyph in ``vtkMRMLMarkupsDisplayNode``.
    is_shared
        True: all prompts of a segment are control points of one node. False: a node for each.
    is_locked
        Whether the user can only delete it, not bend it.
    has
        Whether a prompt is of this kind.
    make
        ``(points_ijk, slices) -> Prompt``; puts flat shapes onto the slice nearest to their middle.
    least
        Fewest defined points that make a prompt.
    """

    name: str
    node_class: str
    color: tuple[float, float, float]
    glyph: str
    is_shared: bool
    is_locked: bool
    has: Callable[[Prompt], bool]
    make: Callable[[np.ndarray, SliceGeometry], Prompt]
    least: int = 1


def kind_of(prompt: Prompt) -> MarkupKind | None:
    """The row of a prompt; None for masks, which have no markup."""
    if isinstance(prompt, MaskPrompt):
        return None
    return next(kind for kind in KINDS.values() if kind.has(prompt))


def read_points(node: vtkMRMLMarkupsNode, kind: MarkupKind) -> dict[str, np.ndarray]:
    """What a markup shows, in its own coordinates: control-point id (empty for nodes with one prompt) to (N, 3)."""
    if node.IsA("vtkMRMLMarkupsROINode"):
        corners = roi_corners(node)
        return {} if corners is None else {"": corners}
    defined = [n for n in range(node.GetNumberOfControlPoints()) if _is_defined(node, n)]
    points = {node.GetNthControlPointID(n): np.array(node.GetNthControlPointPosition(n)) for n in defined}
    if kind.is_shared:
        return {name: point[np.newaxis] for name, point in points.items()}
    return {"": np.array(list(points.values()))} if len(points) >= kind.least else {}


def roi_corners(node: vtkMRMLMarkupsROINode) -> np.ndarray | None:
    """(8, 3) corners of a placed ROI in its own coordinates; None while it is being placed."""
    size = np.array(node.GetSize())
    if not node.GetControlPointPlacementComplete() or np.count_nonzero(size > 1e-9) < 2:
        return None
    object_to_node = array_of(node.GetObjectToNodeMatrix())
    object_to_node[:3, 3] = node.GetCenter()
    signs = np.array(list(np.ndindex(2, 2, 2))) * 2 - 1
    return signs * size / 2 @ object_to_node[:3, :3].T + object_to_node[:3, 3]


def write_points(node: vtkMRMLMarkupsNode, prompt: Prompt, slices: SliceGeometry, local: VolumeGeometry) -> None:
    """Make a markup that holds one prompt show it.

    Parameters
    ----------
    node
        The markup, in the coordinates of ``local``.
    prompt
        Box, scribble or lasso.
    slices
        The prompt's stack of slices.
    local
        The volume's grid without its parent transform.
    """
    if isinstance(prompt, BoxPrompt):
        _write_box(node, prompt, slices, local)
        return
    was_modifying = node.StartModify()
    node.RemoveAllControlPoints()
    for point in local.world_from_ijk(prompt.points_ijk):
        node.AddControlPoint(*(float(x) for x in point))
    node.EndModify(was_modifying)


def slice_axes(slices: SliceGeometry, local: VolumeGeometry) -> np.ndarray:
    """(3, 3) right-handed orthonormal columns: column, row and normal direction of slices, in node coordinates."""
    steps = local.ijk_to_world[:3, :3] @ slices.stack_to_ijk[:3, :3]
    column = steps[:, 2] / np.linalg.norm(steps[:, 2])
    row = steps[:, 1] - (steps[:, 1] @ column) * column
    row /= np.linalg.norm(row)
    return np.stack([column, row, np.cross(column, row)], axis=1)


def _write_box(node: vtkMRMLMarkupsROINode, prompt: BoxPrompt, slices: SliceGeometry, local: VolumeGeometry) -> None:
    corners = local.world_from_ijk(prompt.points_ijk)
    axes = slice_axes(slices, local)
    size = np.abs((corners[1] - corners[0]) @ axes)
    size[2] = np.linalg.norm(local.ijk_to_world[:3, :3] @ slices.stack_to_ijk[:3, 0])
    object_to_node = np.eye(4)
    object_to_node[:3, :3], object_to_node[:3, 3] = axes, corners.mean(axis=0)
    was_modifying = node.StartModify()
    node.SetAndObserveObjectToNodeMatrix(matrix_of(object_to_node))
    node.SetCenter(*(float(x) for x in corners.mean(axis=0)))
    node.SetSize(*(float(x) for x in size))
    node.EndModify(was_modifying)


def _is_defined(node: vtkMRMLMarkupsNode, n: int) -> bool:
    return node.GetNthControlPointPositionStatus(n) == node.PositionDefined


def _make_box(points_ijk: np.ndarray, slices: SliceGeometry) -> BoxPrompt:
    depth, pixels = slices.pixels_from_ijk(points_ijk)
    index = _index(depth, slices)
    low, high = pixels.min(axis=0), pixels.max(axis=0)
    last = np.asarray(slices.shape) - 0.5
    if (high < -0.5).any() or (low > last).any():
        raise PromptError("The box is beside the volume: draw it over the image.")
    corners = slices.ijk_from_pixels(index, np.clip([low, high], -0.5, last))
    return BoxPrompt((_triple(corners[0]), _triple(corners[1])), slices.plane)


def _make_point(positive: bool) -> Callable[[np.ndarray, SliceGeometry], PointPrompt]:
    return lambda points_ijk, slices: PointPrompt(_triple(points_ijk[0]), positive, slices.plane)


def _make_scribble(positive: bool) -> Callable[[np.ndarray, SliceGeometry], ScribblePrompt]:
    return lambda points_ijk, slices: ScribblePrompt(_flat_curve(points_ijk, slices), positive, slices.plane)


def _make_lasso(points_ijk: np.ndarray, slices: SliceGeometry) -> LassoPrompt:
    return LassoPrompt(_flat_curve(points_ijk, slices), slices.plane)


def _flat_curve(points_ijk: np.ndarray, slices: SliceGeometry) -> tuple[tuple[float, float, float], ...]:
    depth, pixels = slices.pixels_from_ijk(points_ijk)
    index = _index(depth, slices)
    inside = np.clip(pixels, -0.5, np.asarray(slices.shape) - 0.5)
    return tuple(_triple(point) for point in slices.ijk_from_pixels(index, inside))


def _index(depth: np.ndarray, slices: SliceGeometry) -> int:
    """The slice nearest to the middle of a shape; outside the volume a `PromptError`."""
    index = int(np.rint((depth.min() + depth.max()) / 2))
    if not 0 <= index < slices.count:
        raise PromptError(f"Slice {index} is outside the volume: {slices.plane} run from 0 to {slices.count - 1}.")
    return index


def _triple(point: np.ndarray) -> tuple[float, float, float]:
    return tuple(round(float(x), 6) for x in point)


def _is(cls: type, positive: bool | None = None) -> Callable[[Prompt], bool]:
    return lambda prompt: isinstance(prompt, cls) and (positive is None or prompt.positive is positive)


_FIDUCIAL, _ROI = "vtkMRMLMarkupsFiducialNode", "vtkMRMLMarkupsROINode"
_CURVE, _LOOP = "vtkMRMLMarkupsCurveNode", "vtkMRMLMarkupsClosedCurveNode"

KINDS: dict[str, MarkupKind] = {
    row.name: row
    for row in (
        MarkupKind("point", _FIDUCIAL, GREEN, "Cross2D", True, False, _is(PointPrompt, True), _make_point(True)),
        MarkupKind("background", _FIDUCIAL, RED, "Dash2D", True, False, _is(PointPrompt, False), _make_point(False)),
        MarkupKind("box", _ROI, YELLOW, "Vertex2D", False, False, _is(BoxPrompt), _make_box),
        MarkupKind(
            "scribble", _CURVE, GREEN, "Vertex2D", False, True, _is(ScribblePrompt, True), _make_scribble(True), 2
        ),
        MarkupKind(
            "background-scribble",
            _CURVE,
            RED,
            "Vertex2D",
            False,
            True,
            _is(ScribblePrompt, False),
            _make_scribble(False),
            2,
        ),
        MarkupKind("lasso", _LOOP, BLUE, "Vertex2D", False, False, _is(LassoPrompt), _make_lasso, 3),
    )
}

"""Prompts as nnInteractive knows them: clicks, flat boxes, and drawings in the volume."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from SegmentAnythingMedLib.geometry import SliceGeometry, VolumeGeometry
from SegmentAnythingMedLib.prompts import (
    BoxPrompt,
    PointPrompt,
    Prompt,
    ScribblePrompt,
    SlicePrompts,
    on_slice,
    slice_index,
)
from SegmentAnythingMedLib.rasterize import curve_mask, polygon_mask


@dataclass(frozen=True)
class Click:
    """A (k, j, i) voxel that is the object's, or not."""

    voxel_kji: tuple[int, int, int]
    positive: bool


@dataclass(frozen=True)
class FlatBox:
    """Voxels from ``low_kji`` to before ``high_kji``; one voxel thick along one axis."""

    low_kji: tuple[int, int, int]
    high_kji: tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Drawing:
    """A (K, J, I) bool mask with what was drawn: the line of a ``scribble``, or the filled ``lasso``."""

    kind: str
    mask: np.ndarray
    positive: bool = True


Interaction = Click | FlatBox | Drawing


def interaction_of(prompt: Prompt, geometry: VolumeGeometry) -> Interaction | None:
    """A prompt for the server, in voxels; None for an empty mask, which the server has no word for.

    A mask of a slice goes as a lasso, since a filled lasso is what the server takes for "this is the object on this
    slice"; so does a box on an oblique plane, since the server's boxes follow the grid. Both are our approximation.
    """
    if isinstance(prompt, PointPrompt):
        voxel = np.clip(np.rint(prompt.point_ijk), 0, np.subtract(geometry.size_ijk, 1))
        return Click(_reversed(voxel), prompt.positive)
    if isinstance(prompt, BoxPrompt) and not prompt.plane.is_oblique:
        return _flat_box(prompt, geometry)
    slices = SliceGeometry(geometry, prompt.plane)
    index = slice_index(prompt, slices)
    pixels = _pixels_of(on_slice([prompt], slices, index), slices.shape)
    if not pixels.any():
        return None
    drawn = np.zeros(geometry.shape_kji, dtype=bool)
    slices.paste(pixels, index, drawn)
    return (
        Drawing("scribble", drawn, prompt.positive) if isinstance(prompt, ScribblePrompt) else Drawing("lasso", drawn)
    )


def _flat_box(prompt: BoxPrompt, geometry: VolumeGeometry) -> FlatBox:
    """Both corners of a box are inside it, the server's upper end is not: hence one more.

    A box whose two ends are equal would be moved to the slice before by the server's own guard against empty boxes.
    """
    corners = np.clip(np.rint(prompt.points_ijk), 0, np.subtract(geometry.size_ijk, 1))
    corners[:, prompt.plane.axis] = slice_index(prompt, SliceGeometry(geometry, prompt.plane))
    return FlatBox(_reversed(corners.min(axis=0)), _reversed(corners.max(axis=0) + 1))


def _pixels_of(prompts: SlicePrompts, shape: tuple[int, int]) -> np.ndarray:
    """(rows, columns) bool: what a single prompt of a slice covers."""
    if prompts.mask is not None:
        return prompts.mask
    if prompts.lasso_rc is not None:
        return polygon_mask(prompts.lasso_rc, shape)
    if prompts.scribbles:
        return curve_mask(prompts.scribbles[0][0], shape)
    row0, column0, row1, column1 = prompts.box_rc
    rows, columns = np.indices(shape)
    return (rows >= row0 - 0.5) & (rows <= row1 + 0.5) & (columns >= column0 - 0.5) & (columns <= column1 + 0.5)


def _reversed(ijk: np.ndarray) -> tuple[int, int, int]:
    return tuple(int(x) for x in ijk[::-1])

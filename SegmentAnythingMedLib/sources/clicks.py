"""Steps that several sources share: the deepest points of a mask, the box round it, and prompts from slice pixels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from SegmentAnythingMedLib.geometry import SliceGeometry
from SegmentAnythingMedLib.prompts import BoxPrompt, PointPrompt

_LEAST_SIDE = 0.5
"""Pixels: no box may be empty, so one round a single row or column has this side."""


def depth_mm(mask: np.ndarray, spacing_mm: tuple[float, float]) -> np.ndarray:
    """(rows, columns) float64: how far each pixel of a mask is from the nearest pixel outside; 0 outside.

    Beyond the slice counts as outside.
    """
    from scipy import ndimage

    return ndimage.distance_transform_edt(np.pad(mask, 1), sampling=spacing_mm)[1:-1, 1:-1]


def largest_component(mask: np.ndarray) -> np.ndarray:
    """(rows, columns) bool: the largest part of a mask; pixels that touch at a corner are connected."""
    from scipy import ndimage

    parts, count = ndimage.label(mask, structure=np.ones((3, 3)))
    return mask if count < 2 else parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))


def deepest_points(
    mask: np.ndarray, spacing_mm: tuple[float, float], count: int, least: float = 0.0
) -> Iterator[tuple[int, int]]:
    """Centres of the largest discs that fit into a mask, largest first, no centre inside an earlier disc.

    Parameters
    ----------
    mask
        (rows, columns) bool.
    spacing_mm
        Size of a pixel along a row step and along a column step.
    count
        How many at most.
    least
        Discs of a radius below this share of the first one's are left out.
    """
    depth = depth_mm(mask, spacing_mm)
    rows, columns = np.indices(mask.shape)
    first = depth.max(initial=0.0)
    for _ in range(count):
        row, column = np.unravel_index(int(np.argmax(depth)), mask.shape)
        radius = depth[row, column]
        if radius <= 0 or radius < least * first:
            return
        yield int(row), int(column)
        away = np.hypot((rows - row) * spacing_mm[0], (columns - column) * spacing_mm[1])
        depth[away <= radius] = 0.0


def points(
    slices: SliceGeometry, index: int, pixels_rc: Iterable[tuple[float, float]], positive: bool = True
) -> tuple[PointPrompt, ...]:
    """Clicks at pixels of a slice; those outside the volume are left out."""
    at = np.array(list(pixels_rc), dtype=np.float64).reshape(-1, 2)
    ijk = slices.ijk_from_pixels(index, at)
    inside = slices.volume.contains(ijk)
    return tuple(PointPrompt(tuple(map(float, point)), positive, slices.plane) for point in ijk[inside])


def box(
    slices: SliceGeometry, index: int, low_rc: Iterable[float], high_rc: Iterable[float], inside_rc: Iterable[float]
) -> BoxPrompt:
    """A box on a slice, kept within the slice and the volume.

    Parameters
    ----------
    slices, index
        Where.
    low_rc, high_rc
        First and last (row, column), continuous.
    inside_rc
        A pixel of the box that is inside the volume: on an oblique slice a corner beyond the volume moves towards it.
    """
    last, middle = np.asarray(slices.shape) - 1.0, np.asarray(tuple(inside_rc), dtype=np.float64)
    corners = np.clip([tuple(low_rc), tuple(high_rc)], 0.0, last)
    corners = [_within(slices, index, corner, middle) for corner in corners]
    low, high = np.minimum(*corners), np.maximum(*corners)
    narrow = np.maximum(_LEAST_SIDE - (high - low), 0.0) / 2
    ends = slices.ijk_from_pixels(index, np.stack([low - narrow, high + narrow]))
    return BoxPrompt((tuple(map(float, ends[0])), tuple(map(float, ends[1]))), slices.plane)


def _within(slices: SliceGeometry, index: int, corner: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """The point nearest to a corner, on its way to ``middle``, that is inside the volume."""
    shares = np.linspace(1.0, 0.0, 65)[:, None]
    way = middle + shares * (corner - middle)
    inside = slices.volume.contains(slices.ijk_from_pixels(index, way))
    return way[int(np.argmax(inside))]

"""How good a mask is: Dice, normalised surface Dice, and how far a propagation ran past the object's ends."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from SegmentAnythingMedLib.propagation import dice

__all__ = ["Ends", "dice", "ends", "normalised_surface_dice", "surface"]


def normalised_surface_dice(a: np.ndarray, b: np.ndarray, spacing_mm: tuple[float, ...], tolerance_mm: float) -> float:
    """Share of both surfaces that lies within a tolerance of the other one (Nikolov et al. 2018).

    Surfaces are the outermost voxels of each mask, all of equal weight.

    Parameters
    ----------
    a, b
        Bool arrays of one shape, 2D or 3D.
    spacing_mm
        Voxel side along each array axis.
    tolerance_mm
        Distance between voxel centres that still counts as the same surface, inclusive.

    Returns
    -------
    float
        0 to 1; 1 if both are empty, 0 if one is.
    """
    from scipy.spatial import KDTree

    if not a.any() or not b.any():
        return float(a.any() == b.any())
    block = _bounding_box(a | b)
    points = [np.argwhere(surface(mask[block])) * np.asarray(spacing_mm) for mask in (a, b)]
    near = total = 0
    for own, other in (points, points[::-1]):
        distance, _ = KDTree(other).query(own, distance_upper_bound=tolerance_mm + 1e-6)  # else infinite
        near += np.count_nonzero(np.isfinite(distance))
        total += len(own)
    return near / total


def surface(mask: np.ndarray) -> np.ndarray:
    """Voxels of a mask with a face neighbour outside it; beyond the array is outside."""
    from scipy import ndimage

    return mask & ~ndimage.binary_erosion(mask)


@dataclass(frozen=True)
class Ends:
    """Slices by which a mask passes the true ends (over-run) and falls short of them (early), per open end.

    An end at the volume's first or last slice is closed: nothing can run past it, so it has no over-run.
    """

    over: tuple[int, ...]
    early: tuple[int, ...]


def ends(found: np.ndarray, true: np.ndarray) -> Ends:
    """Compare the extents of two masks given as voxels per slice, (N,) each; nothing found is all early."""
    inside = np.flatnonzero(true)
    first, last, count = int(inside[0]), int(inside[-1]), len(true)
    filled = np.flatnonzero(found)
    if not len(filled):
        return Ends((), (last - first + 1,))
    low, high = int(filled[0]), int(filled[-1])
    over = [max(0, first - low)] * (first > 0) + [max(0, high - last)] * (last < count - 1)
    return Ends(tuple(over), (max(0, low - first), max(0, last - high)))


def _bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    spans = []
    for axis in range(mask.ndim):
        filled = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        spans.append(slice(int(filled[0]), int(filled[-1]) + 1))
    return tuple(spans)

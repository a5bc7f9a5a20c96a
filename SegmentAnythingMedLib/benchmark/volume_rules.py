"""A rule that carries a mask through a stack without learning: what has the same grey values and overlaps goes on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from SegmentAnythingMedLib.benchmark.simulated_user import largest_component
from SegmentAnythingMedLib.geometry import SliceGeometry

PERCENTILES = (5.0, 95.0)
"""Of the grey values under the first mask; what lies between them can be the object."""
GROWTH = 3
"""Pixels that the object may move or grow from a slice to the next."""
LEAST_AREA = 0.05
"""Share of the first mask's area below which the object has ended."""


def overlapping(
    pixels: Callable[[int], np.ndarray], key: int, mask: np.ndarray, slices: SliceGeometry, first: int, last: int
) -> np.ndarray:
    """Threshold and overlap: the largest part of a slice's like pixels near the last mask, until there is none.

    Parameters
    ----------
    pixels
        Gives the (rows, columns) float pixels of a slice by index.
    key, mask
        Where the object is known: slice and (rows, columns) bool mask.
    slices
        The stack.
    first, last
        The slices it may reach, inclusive.

    Returns
    -------
    np.ndarray
        (K, J, I) bool.
    """
    volume = np.zeros(slices.volume.shape_kji, dtype=bool)
    slices.paste(mask, key, volume)
    if not mask.any():
        return volume
    low, high = np.percentile(pixels(key)[mask], PERCENTILES)
    for step, end in ((1, last), (-1, first)):
        found = mask
        for index in range(key + step, end + step, step):
            found = _next(pixels(index), found, float(low), float(high))
            if found.sum() < LEAST_AREA * mask.sum():
                break
            slices.paste(found, index, volume)
    return volume


def _next(pixels: np.ndarray, before: np.ndarray, low: float, high: float) -> np.ndarray:
    from scipy import ndimage

    part = _around(before)
    near = ndimage.binary_dilation(before[part], iterations=GROWTH)
    alike = (pixels[part] >= low) & (pixels[part] <= high)
    found = np.zeros_like(before)
    found[part] = ndimage.binary_fill_holes(largest_component(ndimage.median_filter(alike & near, 3))[0])
    return found if (found & before).any() else np.zeros_like(before)


def _around(mask: np.ndarray) -> tuple[slice, slice]:
    spans = (np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0)))
    return tuple(slice(max(int(at[0]) - GROWTH - 1, 0), int(at[-1]) + GROWTH + 2) for at in spans)

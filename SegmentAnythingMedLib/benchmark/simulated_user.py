"""What a person would draw, from the truth: a box that is a little off, a click in the middle, a corrective click."""

from __future__ import annotations

import hashlib

import numpy as np

from SegmentAnythingMedLib.benchmark.baselines import Box

JITTER = (-0.05, 0.10)
"""Each side of a box moves outwards by this share of the box's size, uniformly drawn."""


def seed_of(text: str) -> int:
    """A seed that is the same on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def tight_box(mask: np.ndarray) -> Box:
    """``(row0, column0, row1, column1)`` of the first and last pixels of a (rows, columns) mask."""
    rows, columns = np.nonzero(mask)
    return float(rows.min()), float(columns.min()), float(rows.max()), float(columns.max())


def jittered_box(mask: np.ndarray, seed: int) -> Box:
    """The tight box with every side moved by `JITTER`, clipped to the slice; continuous pixel positions."""
    row0, column0, row1, column1 = tight_box(mask)
    height, width = row1 - row0 + 1, column1 - column0 + 1
    top, left, bottom, right = np.random.default_rng(seed).uniform(*JITTER, size=4)
    rows, columns = mask.shape
    row0, row1 = _side(row0 - top * height, row1 + bottom * height, rows)
    column0, column1 = _side(column0 - left * width, column1 + right * width, columns)
    return row0, column0, row1, column1


def _side(low: float, high: float, count: int) -> tuple[float, float]:
    """A side within the slice; a box of one row or column keeps a quarter of a pixel, as no box may be empty."""
    if high - low < 0.25:
        low, high = (low + high) / 2 - 0.125, (low + high) / 2 + 0.125
    low = float(np.clip(low, 0, max(count - 1.25, 0)))
    return low, float(np.clip(high, min(low + 0.25, count - 1), count - 1))


def click_inside(mask: np.ndarray, spacing_mm: tuple[float, float]) -> tuple[int, int]:
    """The pixel deepest inside the largest component of a (rows, columns) mask."""
    from scipy import ndimage

    component, _ = largest_component(mask)
    depth = ndimage.distance_transform_edt(np.pad(component, 1), sampling=spacing_mm)[1:-1, 1:-1]
    row, column = np.unravel_index(int(np.argmax(depth)), mask.shape)
    return int(row), int(column)


def corrective_click(
    found: np.ndarray, truth: np.ndarray, spacing_mm: tuple[float, float]
) -> tuple[tuple[int, int], bool] | None:
    """Where the largest error is deepest and whether the object is missing there; None if there is no error.

    The rule of the CVPR 2025 challenge for interactive segmentation, on a slice: missing and surplus parts are
    separate errors.
    """
    missing, surplus = truth & ~found, found & ~truth
    if not missing.any() and not surplus.any():
        return None
    positive = largest_component(missing)[1] >= largest_component(surplus)[1]
    return click_inside(missing if positive else surplus, spacing_mm), positive


def largest_component(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """The largest component (corners touch) of a bool array, and its size; all False and 0 if it is empty."""
    from scipy import ndimage

    labels, count = ndimage.label(mask, structure=np.ones((3,) * mask.ndim))
    if count == 0:
        return np.zeros_like(mask), 0
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return labels == np.argmax(sizes), int(sizes.max())

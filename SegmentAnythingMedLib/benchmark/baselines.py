"""Trivial rules every model has to beat: an ellipse in the box, and the same mask on every slice."""

from __future__ import annotations

import numpy as np

from SegmentAnythingMedLib.geometry import SliceGeometry

Box = tuple[float, float, float, float]


def ellipse(box_rc: Box, shape: tuple[int, int], scale: float = 1.0) -> np.ndarray:
    """(rows, columns) bool: pixel centres in the ellipse that fills a box, shrunk by ``scale``.

    The box's corners are pixel centres inside it, so the ellipse reaches half a pixel beyond them.
    """
    row0, column0, row1, column1 = box_rc
    rows = (np.arange(shape[0]) - (row0 + row1) / 2) / max((row1 - row0 + 1) / 2 * scale, 1e-6)
    columns = (np.arange(shape[1]) - (column0 + column1) / 2) / max((column1 - column0 + 1) / 2 * scale, 1e-6)
    return rows[:, None] ** 2 + columns**2 <= 1.0


def copied(mask: np.ndarray, slices: SliceGeometry, first: int, last: int) -> np.ndarray:
    """(K, J, I) bool: one slice's (rows, columns) mask on all slices from ``first`` to ``last``, inclusive."""
    volume = np.zeros(slices.volume.shape_kji, dtype=bool)
    for index in range(first, last + 1):
        slices.paste(mask, index, volume)
    return volume


def ellipsoid(box_rc: Box, key: int, slices: SliceGeometry, first: int, last: int) -> np.ndarray:
    """(K, J, I) bool: the box's ellipse on the key slice, shrinking to nothing just past both true ends."""
    volume = np.zeros(slices.volume.shape_kji, dtype=bool)
    for index in range(first, last + 1):
        reach = (key - first if index < key else last - key) + 0.5
        scale = np.sqrt(max(1.0 - ((index - key) / reach) ** 2, 0.0))
        slices.paste(ellipse(box_rc, slices.shape, max(float(scale), 1e-3)), index, volume)
    return volume

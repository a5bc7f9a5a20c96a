"""Curves and polygons on the pixels of a slice."""

from __future__ import annotations

import numpy as np


def polygon_mask(curve_rc: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Pixels whose centre lies inside a closed polygon (even-odd rule).

    Parameters
    ----------
    curve_rc
        (N, 2) corners in continuous (row, column) pixels; closed automatically.
    shape
        Rows and columns of the result.

    Returns
    -------
    np.ndarray
        (rows, columns) bool.
    """
    curve = np.asarray(curve_rc, dtype=np.float64)
    rows = np.arange(shape[0])
    start, end = curve, np.roll(curve, -1, axis=0)
    inside = np.zeros((shape[0], shape[1] + 1), dtype=np.int32)
    for (row0, column0), (row1, column1) in zip(start, end, strict=True):
        if row0 == row1:
            continue
        crossed = rows[(rows >= min(row0, row1)) & (rows < max(row0, row1))]
        columns = column0 + (crossed - row0) * (column1 - column0) / (row1 - row0)
        first = np.clip(np.ceil(columns).astype(int), 0, shape[1])
        np.add.at(inside, (crossed, first), 1)
    return (np.cumsum(inside[:, :-1], axis=1) % 2).astype(bool)


def curve_mask(curve_rc: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Pixels an open curve passes through, without gaps; (rows, columns) bool."""
    samples = resample_curve(np.asarray(curve_rc, dtype=np.float64), 0.5)
    pixels = np.rint(samples).astype(int)
    pixels = pixels[((pixels >= 0) & (pixels < np.asarray(shape))).all(axis=1)]
    mask = np.zeros(shape, dtype=bool)
    mask[pixels[:, 0], pixels[:, 1]] = True
    return mask


def resample_curve(curve_rc: np.ndarray, step: float) -> np.ndarray:
    """Points at most ``step`` pixels apart along an open (N, 2) curve, ends included."""
    if len(curve_rc) < 2:
        return curve_rc
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(curve_rc, axis=0), axis=1))])
    at = np.linspace(0.0, length[-1], max(2, int(np.ceil(length[-1] / step)) + 1))
    return np.stack([np.interp(at, length, curve_rc[:, axis]) for axis in (0, 1)], axis=1)

"""Resampling along rows and columns by weighted sums of few pixels.

The weights are sparse matrices: no product of dense ones, for which a BLAS that starts threads took 30 ms on a busy
machine, and no copy of the picture for each of several neighbours.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse


def weighing(source: np.ndarray, weights: np.ndarray, count: int) -> sparse.csr_array:
    """(n, count) float32 matrix that sums (n, taps) of ``count`` pixels with (n, taps) weights, in that order."""
    starts = np.arange(0, source.size + 1, source.shape[1], dtype=np.int32)
    cells = weights.astype(np.float32, copy=False).ravel(), source.astype(np.int32).ravel(), starts
    return sparse.csr_array(cells, shape=(len(source), count))


def resampled(pixels: np.ndarray, rows: sparse.csr_array, columns: sparse.csr_array) -> np.ndarray:
    """(..., h, w) pixels to (..., rows, columns) at least float32, weighed along rows first and then along columns."""
    pixels = pixels.astype(np.promote_types(pixels.dtype, np.float32), copy=False)
    if pixels.ndim == 2:
        return (columns @ np.ascontiguousarray((rows @ pixels).T)).T
    flat = [resampled(one, rows, columns) for one in pixels.reshape(-1, *pixels.shape[-2:])]
    return np.stack(flat).reshape(*pixels.shape[:-2], rows.shape[0], columns.shape[0])

"""Where the embedded network looks: a square window in millimetres on a slice, resampled to the network's pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import sparse

from SegmentAnythingMedLib.resampling import resampled, weighing

INPUT_SIZE = 128
"""Pixels along the side of the network's input."""
FINE_SIZE = 192
"""The same for a second pass over objects that lose detail at `INPUT_SIZE`; a multiple of 32, as the network halves
five times."""
BOX_SCALE = 2.0
"""Side of the window as a multiple of the object's longer side."""
LEAST_PIXELS = 10.0
"""Slice pixels (of the larger spacing) that a window spans at least; less would show the network nothing but blur."""
OUTSIDE = -10.0
"""Logit of slice pixels beyond the window."""


@dataclass(frozen=True)
class Frame:
    """A square window on a slice.

    Parameters
    ----------
    center_rc
        Its centre in continuous (row, column) slice pixels, pixel centres at integers.
    side_mm
        Length of its side.
    spacing_mm
        Size of a slice pixel along a row step and along a column step.
    size
        Network pixels along its side.
    """

    center_rc: tuple[float, float]
    side_mm: float
    spacing_mm: tuple[float, float]
    size: int = INPUT_SIZE

    @classmethod
    def round_box(
        cls,
        box_rc: tuple[float, float, float, float] | np.ndarray,
        spacing_mm: tuple[float, float],
        scale: float = BOX_SCALE,
        size: int = INPUT_SIZE,
    ) -> Frame:
        """A window of ``scale`` times the longer side of a box ``(row0, column0, row1, column1)`` of pixel centres."""
        row0, column0, row1, column1 = (float(value) for value in box_rc)
        longer = max((row1 - row0 + 1) * spacing_mm[0], (column1 - column0 + 1) * spacing_mm[1])
        side_mm = max(scale * longer, LEAST_PIXELS * max(spacing_mm))
        return cls(((row0 + row1) / 2, (column0 + column1) / 2), side_mm, spacing_mm, size)

    @property
    def pixels_per_cell(self) -> tuple[float, float]:
        """Slice pixels that one network pixel spans, along rows and columns."""
        return tuple(self.side_mm / (self.size * spacing) for spacing in self.spacing_mm)

    def covers(self, shape: tuple[int, int]) -> bool:
        """Whether the whole slice of this shape lies in the window."""
        reach = np.array(self.pixels_per_cell) * self.size / 2
        low, high = np.array(self.center_rc) - reach, np.array(self.center_rc) + reach
        return bool((low <= -0.5).all() and (high >= np.array(shape) - 0.5).all())

    def take(self, pixels: np.ndarray) -> np.ndarray:
        """(..., rows, columns) of the slice to (..., size, size) float32; 0 beyond the slice.

        Linear interpolation where the window is finer than the slice, a triangle filter as wide as a network pixel
        (as PIL and torch do for antialiasing) where it is coarser.
        """
        rows, columns = (
            _sampling(self.center_rc[axis], self.pixels_per_cell[axis], self.size, pixels.shape[axis - 2])
            for axis in (0, 1)
        )
        return resampled(pixels[..., rows.held, columns.held], rows.matrix, columns.matrix)

    def give(self, values: np.ndarray, shape: tuple[int, int], outside: float = OUTSIDE) -> np.ndarray:
        """(..., size, size) on the window to (..., rows, columns) float32 on the slice, linear between pixels."""
        rows, columns = (
            _spreading(self.center_rc[axis], self.pixels_per_cell[axis], self.size, shape[axis]) for axis in (0, 1)
        )
        whole = np.full((*values.shape[:-2], *shape), outside, dtype=np.float32)
        whole[..., rows.held, columns.held] = resampled(values, rows.matrix, columns.matrix)
        return whole

    def reach(self, shape: tuple[int, int]) -> tuple[slice, slice]:
        """Rows and columns of a slice of this shape that lie in the window."""
        return tuple(
            _inside(self.center_rc[axis], self.pixels_per_cell[axis], self.size, shape[axis]) for axis in (0, 1)
        )

    def to_crop(self, points_rc: np.ndarray) -> np.ndarray:
        """(..., 2) slice pixels to continuous (row, column) network pixels."""
        away = np.asarray(points_rc, dtype=np.float64) - self.center_rc
        return away / self.pixels_per_cell + (self.size - 1) / 2

    def to_slice(self, points: np.ndarray) -> np.ndarray:
        """(..., 2) continuous network pixels to slice pixels."""
        away = np.asarray(points, dtype=np.float64) - (self.size - 1) / 2
        return away * self.pixels_per_cell + self.center_rc


def mask_box(mask: np.ndarray) -> tuple[float, float, float, float]:
    """First and last row and column of a mask that is not empty, as ``(row0, column0, row1, column1)``."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return float(rows[0]), float(columns[0]), float(rows[-1]), float(columns[-1])


class _Axis(NamedTuple):
    """Pixels of the slice along one axis that lie in a window, and the matrix from them to its pixels, or back."""

    held: slice
    matrix: sparse.csr_array


def _sampling(center: float, step: float, size: int, count: int) -> _Axis:
    """Slice pixels that each of the window's pixels is made of along one axis; weight 0 beyond the slice."""
    at = center + (np.arange(size) - (size - 1) / 2) * step
    reach = max(1.0, step)
    source = np.ceil(at - reach).astype(int)[:, None] + np.arange(int(np.ceil(2 * reach)))
    weights = np.maximum(0.0, 1.0 - np.abs(at[:, None] - source) / reach)
    weights /= weights.sum(axis=1, keepdims=True)
    weights[(source < 0) | (source >= count)] = 0.0
    source = source.clip(0, count - 1)
    low, high = int(source.min()), int(source.max()) + 1
    return _Axis(slice(low, high), weighing(source - low, weights, high - low))


def _spreading(center: float, step: float, size: int, count: int) -> _Axis:
    """Slice pixels whose centre lies in a window along one axis, and the two window pixels each lies between."""
    held = _inside(center, step, size, count)
    at = np.clip((np.arange(held.start, held.stop) - center) / step + (size - 1) / 2, 0, size - 1)
    first = np.minimum(np.floor(at).astype(int), size - 2)
    share = (at - first).astype(np.float32)
    return _Axis(held, weighing(first[:, None] + np.arange(2), np.stack([1 - share, share], 1), size))


def _inside(center: float, step: float, size: int, count: int) -> slice:
    """Slice pixels whose centre lies in a window along one axis."""
    low = int(np.ceil(center - size * step / 2 - 1e-9))
    high = int(np.floor(center + size * step / 2 + 1e-9)) + 1
    low, high = min(max(low, 0), count), max(min(high, count), 0)
    return slice(low, max(low, high))

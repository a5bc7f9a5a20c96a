"""The part of a slice round an object, at a resolution that is solved in milliseconds, and the way back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from scipy import ndimage, sparse

from SegmentAnythingMedLib.models.classic_intensity import to_bins
from SegmentAnythingMedLib.models.classic_random_walk import EdgeWeights
from SegmentAnythingMedLib.resampling import resampled, weighing

MAX_PIXELS = 10_000
"""Pixels of a crop after averaging: 100 x 100 hold an object of 60 pixels with its surroundings (10 ms to solve)."""
FAR = 10.0
"""Log-odds of what is certain; also the limit of every answer."""
SMOOTHING = 0.7
"""Gaussian sigma in crop pixels (the smaller side): noise falls to 0.4, edges stay within a pixel."""
EDGE_SHARPNESS = 1.5
"""See `EdgeWeights.of_image`: 0.5 lets thin structures melt, 4 lets noise stand."""
MARGIN = 0.35
"""Surroundings shown in a crop, as a share of the object's longer side."""


@dataclass(frozen=True)
class Frame:
    """Where a crop lies in its slice.

    Parameters
    ----------
    shape
        Rows and columns of the slice.
    start, stop
        First pixel, and one past the last, (row, column).
    size
        Rows and columns of the crop; where they are fewer than the slice's, pixels are averaged.
    spacing_mm
        Size of a slice pixel.
    """

    shape: tuple[int, int]
    start: tuple[int, int]
    stop: tuple[int, int]
    size: tuple[int, int]
    spacing_mm: tuple[float, float]

    @classmethod
    def round_box(
        cls, shape: tuple[int, int], spacing_mm: tuple[float, float], box_rc: np.ndarray, margin: float = MARGIN
    ) -> Frame:
        """Frame that holds a box ``(row0, column0, row1, column1)`` of pixel centres and a margin, inside the slice.

        ``margin`` is a share of the box's longer side.
        """
        box_rc = np.asarray(box_rc, dtype=np.float64)
        side_mm = ((box_rc[2:] - box_rc[:2] + 1) * spacing_mm).max()
        margin = np.ceil(margin * side_mm / np.asarray(spacing_mm)) + 2
        low = np.clip(np.floor(box_rc[:2] - margin), 0, np.asarray(shape) - 1).astype(int)
        high = np.clip(np.ceil(box_rc[2:] + margin) + 1, low + 1, shape).astype(int)
        size = high - low
        if size.prod() > MAX_PIXELS:
            size_mm = size * np.asarray(spacing_mm)
            step_mm = math.sqrt(float(np.prod(size_mm)) / MAX_PIXELS)
            size = np.clip(np.rint(size_mm / step_mm), 1, size).astype(int)
        return cls(shape, _pair(low), _pair(high), _pair(size), spacing_mm)

    @cached_property
    def factor(self) -> tuple[float, float]:
        """Slice pixels, not always whole, that make one crop pixel, along rows and columns.

        The same share for every crop pixel: so a mirrored slice gives a mirrored crop.
        """
        return tuple((b - a) / n for a, b, n in zip(self.start, self.stop, self.size, strict=True))

    @property
    def reach(self) -> tuple[slice, slice]:
        """Its rows and columns of the slice."""
        return slice(self.start[0], self.stop[0]), slice(self.start[1], self.stop[1])

    @property
    def step_mm(self) -> tuple[float, float]:
        """Size of a crop pixel."""
        return self.spacing_mm[0] * self.factor[0], self.spacing_mm[1] * self.factor[1]

    def take(self, pixels: np.ndarray) -> np.ndarray:
        """(..., rows, columns) of the slice to (..., h, w) of the crop, float32, averaged over equal areas."""
        (row0, column0), (row1, column1) = self.start, self.stop
        part = pixels[..., row0:row1, column0:column1].astype(np.float32, copy=False)
        if self.factor == (1.0, 1.0):
            return part
        rows, columns = (_averaging(b - a, n) for a, b, n in zip(self.start, self.stop, self.size, strict=True))
        return resampled(part, rows, columns)

    def take_mask(self, mask: np.ndarray) -> np.ndarray:
        """(rows, columns) bool of the slice to (h, w) bool: crop pixels that it covers at least half."""
        return self.take(mask) >= 0.5

    def give(self, logits: np.ndarray) -> np.ndarray:
        """(h, w) of the crop to the whole slice, float32: linear between crop pixels, ``-FAR`` outside."""
        whole = np.full(self.shape, -FAR, dtype=np.float32)
        rows, columns = (_interpolation(b - a, n) for a, b, n in zip(self.start, self.stop, self.size, strict=True))
        fine = logits if self.factor == (1.0, 1.0) else resampled(logits, rows, columns)
        whole[self.start[0] : self.stop[0], self.start[1] : self.stop[1]] = np.clip(fine, -FAR, FAR)
        return whole

    def give_mask(self, mask: np.ndarray) -> np.ndarray:
        """(h, w) bool of the crop to (rows, columns) bool of the slice, each pixel from the crop pixel it lies in."""
        whole = np.zeros(self.shape, dtype=bool)
        if not mask.any():
            return whole
        rows, columns = (
            ((np.arange(b - a) + 0.5) / f).astype(int)
            for a, b, f in zip(self.start, self.stop, self.factor, strict=True)
        )
        row0, column0, row1, column1 = mask_box(mask)
        down, right = slice(*rows.searchsorted((row0, row1 + 1))), slice(*columns.searchsorted((column0, column1 + 1)))
        part = whole[self.start[0] : self.stop[0], self.start[1] : self.stop[1]]
        part[down, right] = mask[rows[down]][:, columns[right]]
        return whole

    def to_crop(self, points_rc: np.ndarray) -> np.ndarray:
        """(..., 2) slice pixels to continuous crop pixels."""
        factor = np.asarray(self.factor)
        return (np.asarray(points_rc, dtype=np.float64) - self.start + 0.5) / factor - 0.5

    @property
    def places(self) -> tuple[np.ndarray, np.ndarray]:
        """(h,) continuous slice rows and (w,) columns of the crop pixels' centres."""
        sides = zip(self.start, self.size, self.factor, strict=True)
        return tuple(first + (np.arange(count) + 0.5) * factor - 0.5 for first, count, factor in sides)


@dataclass(frozen=True, eq=False)
class Crop:
    """The pixels of a frame, prepared for solving.

    Parameters
    ----------
    frame
        Where it lies.
    channels
        (F, h, w) float32, smoothed a little.
    bins
        (F, h, w) histogram bin of every value.
    """

    frame: Frame
    channels: np.ndarray
    bins: np.ndarray

    @classmethod
    def of(cls, channels: np.ndarray, frame: Frame) -> Crop:
        """Cut a frame out of (F, rows, columns) channels of a slice."""
        sigma = SMOOTHING * min(frame.step_mm) / np.asarray(frame.step_mm)
        smooth = ndimage.gaussian_filter(frame.take(channels), (0.0, *sigma), mode="nearest")
        return cls(frame, smooth, to_bins(smooth))

    @cached_property
    def edges(self) -> EdgeWeights:
        return EdgeWeights.of_image(self.channels, self.frame.step_mm, EDGE_SHARPNESS)


def signed_distance_mm(mask: np.ndarray, step_mm: tuple[float, float], reach_mm: float = math.inf) -> np.ndarray:
    """Distance to the border of a (h, w) mask in mm, positive inside; -inf or inf where there is no border.

    Pixels more than ``reach_mm`` outside need not be measured: some are -inf.
    """
    if not mask.any():
        return np.full(mask.shape, -np.inf)
    if mask.all():
        return np.full(mask.shape, np.inf)
    half, box = min(step_mm) / 2, mask_box(mask).astype(int)
    near = grown_box(box, [math.ceil(min(reach_mm / step, max(mask.shape))) + 1 for step in step_mm])
    distance = np.full(mask.shape, -np.inf)
    distance[near] = half - ndimage.distance_transform_edt(~mask[near], sampling=step_mm)
    # All that is nearest to the mask's pixels beyond its border lies in its box or beside it.
    held = grown_box(box, (1, 1))
    inside = ndimage.distance_transform_edt(mask[held], sampling=step_mm) - half
    np.copyto(distance[held], inside, where=mask[held])
    return distance


def grown_box(box_rc: np.ndarray, pixels: Sequence[int]) -> tuple[slice, slice]:
    """Rows and columns of a box of whole pixels, and so many more on each side."""
    return tuple(slice(max(box_rc[axis] - more, 0), box_rc[axis + 2] + more + 1) for axis, more in enumerate(pixels))


def mask_box(mask: np.ndarray) -> np.ndarray:
    """(4,) float64 first and last row and column of a mask that is not empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.array([rows[0], columns[0], rows[-1], columns[-1]], dtype=np.float64)


def equivalent_radius_mm(mask: np.ndarray, step_mm: tuple[float, float]) -> float:
    """Radius of the disc of the same area, at least half a pixel."""
    return math.sqrt(max(int(mask.sum()), 1) * step_mm[0] * step_mm[1] / math.pi)


@lru_cache(maxsize=8)
def _averaging(fine: int, coarse: int) -> sparse.csr_array:
    """(coarse, fine) float32 matrix that averages ``fine`` pixels over ``coarse`` equal stretches."""
    edges = np.arange(coarse + 1) * (fine / coarse)
    source = np.floor(edges[:-1]).astype(int)[:, None] + np.arange(math.ceil(fine / coarse) + 1)
    shares = np.clip(edges[1:, None] - source, 0.0, 1.0) - np.clip(edges[:-1, None] - source, 0.0, 1.0)
    return weighing(source.clip(max=fine - 1), np.where(source < fine, shares, 0.0) * (coarse / fine), fine)


@lru_cache(maxsize=8)
def _interpolation(fine: int, coarse: int) -> sparse.csr_array:
    """(fine, coarse) float32 matrix that interpolates linearly between the centres of those stretches."""
    at = np.clip((np.arange(fine) + 0.5) * (coarse / fine) - 0.5, 0, coarse - 1)
    source = np.floor(at).astype(int)[:, None] + np.arange(2)
    shares = np.where(source < coarse, np.maximum(0.0, 1.0 - np.abs(at[:, None] - source)), 0.0)
    return weighing(source.clip(max=coarse - 1), shares, coarse)


def _pair(values: np.ndarray) -> tuple[int, int]:
    return int(values[0]), int(values[1])

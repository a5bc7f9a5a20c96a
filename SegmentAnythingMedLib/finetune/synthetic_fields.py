"""Smooth random fields and the warped coordinates that synthetic anatomy is drawn in."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

_SPLINE_DEVIATION = 0.692  # root mean square of a cubic B-spline's weights, per axis


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A positive number whose logarithm is uniform."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def chance(rng: np.random.Generator, probability: float) -> bool:
    return bool(rng.random() < probability)


@lru_cache(maxsize=512)
def spline_basis(count: int, cells: int) -> np.ndarray:
    """(count, cells + 3) float32 cubic B-spline weights of ``count`` even positions; 0 cells is a constant."""
    if cells == 0:
        return np.ones((count, 1), np.float32)
    position = np.linspace(0, cells, count) if count > 1 else np.array([cells / 2])
    first = np.minimum(position.astype(int), cells - 1)
    t = position - first
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=1) / 6
    basis = np.zeros((count, cells + 3), np.float32)
    basis[np.arange(count)[:, None], first[:, None] + np.arange(4)] = weights
    return basis


def smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], cells: tuple[int, ...]) -> np.ndarray:
    """(D, H, W) float32 of variance 1: random B-splines with so many cells along each axis."""
    bases = [spline_basis(count, max(0, int(round(cell)))) for count, cell in zip(shape, cells, strict=True)]
    coarse = rng.standard_normal([basis.shape[1] for basis in bases], dtype=np.float32)
    plane = (bases[1] @ coarse) @ bases[2].T
    deviation = np.prod([_SPLINE_DEVIATION if basis.shape[1] > 1 else 1.0 for basis in bases])
    return np.tensordot(bases[0] / np.float32(deviation), plane, axes=1)


@lru_cache(maxsize=256)
def blur_matrix(count: int, sigma: float) -> np.ndarray:
    """(count, count) float32 Gaussian blur with repeated edges, as a matrix: faster than filtering short axes."""
    offset = np.arange(count)[:, None] - np.arange(-count, 2 * count)[None, :]
    weights = np.exp(-0.5 * (offset / max(sigma, 1e-3)) ** 2)
    weights /= weights.sum(axis=1, keepdims=True)
    inside = weights[:, count : 2 * count].copy()
    inside[:, 0] += weights[:, :count].sum(axis=1)
    inside[:, -1] += weights[:, 2 * count :].sum(axis=1)
    return inside.astype(np.float32)


@lru_cache(maxsize=256)
def resize_matrix(source: int, target: int) -> np.ndarray:
    """(target, source) float32: area averages when shrinking, linear when growing."""
    position = (np.arange(target) + 0.5) * source / target - 0.5
    reach = max(1.0, source / target)
    weights = np.maximum(0, 1 - np.abs(position[:, None] - np.arange(source)[None, :]) / reach)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def in_plane(image: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Apply a matrix along the rows' axis and one along the columns' axis of (D, H, W)."""
    return rows @ (image @ columns.T)


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur in the plane."""
    if sigma < 0.15:
        return image
    sigma = round(sigma, 2)
    return in_plane(image, blur_matrix(image.shape[1], sigma), blur_matrix(image.shape[2], sigma))


@dataclass(frozen=True)
class Crop:
    """Part of a grid: index slices and the coordinates there, each (d, h, w) float32."""

    region: tuple[slice, slice, slice]
    z: np.ndarray
    y: np.ndarray
    x: np.ndarray
    grid: Grid

    def within(self, low: np.ndarray, high: np.ndarray) -> tuple[tuple[slice, slice, slice], Crop] | None:
        """The part between two (z, y, x) corners: where it is in this crop, and the part; None if there is none."""
        region = self.grid.indices(low, high)
        if region is None:
            return None
        starts = [max(part.start, own.start) for part, own in zip(region, self.region, strict=True)]
        stops = [min(part.stop, own.stop) for part, own in zip(region, self.region, strict=True)]
        if any(start >= stop for start, stop in zip(starts, stops, strict=True)):
            return None
        part = tuple(slice(start, stop) for start, stop in zip(starts, stops, strict=True))
        local = tuple(
            slice(start - own.start, stop - own.start)
            for start, stop, own in zip(starts, stops, self.region, strict=True)
        )
        return local, Crop(part, self.z[local], self.y[local], self.x[local], self.grid)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.x.shape


class Grid:
    """Coordinates of all voxels: the view's plane is about -1 to 1, ``z`` is in the same unit.

    Parameters
    ----------
    z, y, x
        (D, H, W) float32, warped in any way.
    """

    def __init__(self, z: np.ndarray, y: np.ndarray, x: np.ndarray) -> None:
        self.z, self.y, self.x = z, y, x
        self.shape = x.shape
        self.low = np.array([float(axis.min()) for axis in (z, y, x)])
        self.high = np.array([float(axis.max()) for axis in (z, y, x)])
        # Which slices, rows and columns can meet a box: exact for any warp.
        self._bounds = [
            [(array.min(axis=others), array.max(axis=others)) for array in (z, y, x)]
            for others in ((1, 2), (0, 2), (0, 1))
        ]

    def indices(self, low: np.ndarray, high: np.ndarray) -> tuple[slice, slice, slice] | None:
        """The smallest index box that holds every voxel between two (z, y, x) corners; None if there is none."""
        region = []
        for bounds in self._bounds:
            meets = np.ones(len(bounds[0][0]), bool)
            for (least, most), lower, upper in zip(bounds, low, high, strict=True):
                meets &= (most >= lower) & (least <= upper)
            indices = np.flatnonzero(meets)
            if not len(indices):
                return None
            region.append(slice(int(indices[0]), int(indices[-1]) + 1))
        return tuple(region)

    def crop(self, low: np.ndarray, high: np.ndarray) -> Crop | None:
        """The voxels of `indices`."""
        region = self.indices(low, high)
        return None if region is None else Crop(region, self.z[region], self.y[region], self.x[region], self)

    def whole(self) -> Crop:
        """All voxels."""
        return Crop(tuple(slice(0, count) for count in self.shape), self.z, self.y, self.x, self)


def make_grid(
    rng: np.random.Generator,
    depth: int,
    size: int,
    slice_step: float,
    *,
    zoom: float = 1.0,
    center: tuple[float, float] = (0.0, 0.0),
    warp: float = 1.0,
    jitter: float = 0.0,
    oblique: float = 0.5,
) -> Grid:
    """A randomly bent view.

    Parameters
    ----------
    slice_step
        Between slices, in pixels.
    zoom
        Half the field of view in the layout's unit: below 1 shows a part.
    center
        (y, x) of the view's centre in the layout.
    warp
        Strength of the low-frequency bending.
    jitter
        Shift from slice to slice (motion), in the layout's unit.
    oblique
        Chance that the plane is tilted.
    """
    pixel = 2 * zoom / size
    step = slice_step * pixel
    line = (np.arange(size, dtype=np.float32) + 0.5 - size / 2) * np.float32(pixel)
    heights = (np.arange(depth, dtype=np.float32) - (depth - 1) / 2) * np.float32(step)
    angle = np.radians(rng.normal(0, 6))
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    z0, y0, x0 = np.meshgrid(heights, line, line, indexing="ij", sparse=True)
    tilt = rng.normal(0, 0.15, 2).astype(np.float32)
    x = cos * x0 - sin * y0 + np.float32(center[1]) + tilt[0] * z0
    y = sin * x0 + cos * y0 + np.float32(center[0]) + tilt[1] * z0
    z = np.broadcast_to(z0, (depth, size, size)).astype(np.float32)
    if chance(rng, oblique):
        z = z + np.float32(rng.normal(0, 0.15)) * x0 + np.float32(rng.normal(0, 0.15)) * y0
    extent = depth * step
    for frequency, amplitude in ((log_uniform(rng, 1.5, 4), 0.07), (log_uniform(rng, 5, 12), 0.02)):
        cells_z = round(frequency * extent / 2)
        for axis in (x, y):
            cells = (cells_z, round(frequency * zoom) + 1, round(frequency * zoom) + 1)
            axis += np.float32(rng.uniform(0, amplitude) * warp) * smooth_noise(rng, (depth, size, size), cells)
    if jitter:
        x = x + rng.normal(0, jitter, (depth, 1, 1)).astype(np.float32)
        y = y + rng.normal(0, jitter, (depth, 1, 1)).astype(np.float32)
    return Grid(np.ascontiguousarray(z), y, x)

"""Implicit solids in body millimetres: a field that is negative inside, and a box it fits in.

Fields are close to signed distances in millimetres, which lets offsets, shells and smooth unions read as lengths. A
shape is a small tree; a `Block` of voxels evaluates each of its nodes once, and only inside the node's box.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

Field = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
Point = Sequence[float]
Region = tuple[slice, slice, slice]
EVERYWHERE = 1e4
REACH_MM = 8.0
"""Boxes hold everything up to this field value; gaps around a solid plus walls along them must be thinner."""


class Block(Protocol):
    """Some voxels with their body coordinates."""

    def region(self, low: np.ndarray, high: np.ndarray) -> Region:
        """The voxels that a box in mm may touch; possibly empty."""

    def coordinates(self, region: Region) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Body x, y, z of a region's voxels, float32 (K, J, I)."""

    def evaluate(self, shape: Shape) -> tuple[Region, np.ndarray]:
        """A shape's region and its field there; kept, so not to be written to."""


@dataclass(frozen=True, eq=False)
class Shape:
    """A solid. ``low`` and ``high`` bound, in mm, where its field is below `REACH_MM`."""

    low: np.ndarray
    high: np.ndarray

    def sample(self, block: Block) -> tuple[Region, np.ndarray]:
        """The region of its box, and its field there in mm: negative inside."""
        raise NotImplementedError

    def grown(self, margin_mm: float) -> Shape:
        """The solid with its surface moved outwards, by a little, or inwards if negative."""
        return Grown(self.low - max(margin_mm, 0), self.high + max(margin_mm, 0), self, margin_mm)

    def without(self, other: Shape, gap_mm: float = 0.0) -> Shape:
        """This solid minus another one and a gap of less than `REACH_MM` around it."""
        return Difference(self.low, self.high, self, other, gap_mm)

    def within(self, other: Shape) -> Shape:
        """What both solids share."""
        return Common(np.maximum(self.low, other.low), np.minimum(self.high, other.high), self, other)

    def wall(self, thickness_mm: float) -> Shape:
        """The outermost layer: a ring in every cut."""
        return self.without(self.grown(-thickness_mm))

    def rippled(self, ripple: Field) -> Shape:
        """The solid with a function of at most 4 mm added to its field, fading out where the box ends."""
        return Rippled(self.low - 4, self.high + 4, self, ripple)


@dataclass(frozen=True, eq=False)
class Solid(Shape):
    """A solid by its function of x, y, z (mm; left, back and head are positive)."""

    field: Field

    def sample(self, block: Block) -> tuple[Region, np.ndarray]:
        region = block.region(self.low, self.high)
        return region, self.field(*block.coordinates(region))


@dataclass(frozen=True, eq=False)
class Grown(Shape):
    source: Shape
    margin_mm: float

    def sample(self, block: Block) -> tuple[Region, np.ndarray]:
        region, values = block.evaluate(self.source)
        return region, values - np.float32(self.margin_mm)


@dataclass(frozen=True, eq=False)
class Rippled(Shape):
    source: Shape
    ripple: Field

    def sample(self, block: Block) -> tuple[Region, np.ndarray]:
        region, values = block.evaluate(self.source)
        fading = np.clip(1 - values / np.float32(REACH_MM), 0, 1)
        return region, values + fading * self.ripple(*block.coordinates(region))


@dataclass(frozen=True, eq=False)
class Difference(Shape):
    source: Shape
    other: Shape
    gap_mm: float

    def sample(self, block: Block) -> tuple[Region, np.ndarray]:
        region, values = block.evaluate(self.source)
        values = values.copy()
        cut_region, cut = block.evaluate(self.other)
        here, there = _overlap(region, cut_region)
        beyond = cut[there] - np.float32(self.gap_mm)
        # Towards the cut's box it fades to nothing, so that no edge of a box is seen inside the solid.
        left = 1 - np.clip(beyond / np.float32(REACH_MM - self.gap_mm), 0, 0.98)
        values[here] = np.maximum(values[here], -beyond / left)
        return region, values


@dataclass(frozen=True, eq=False)
class Common(Shape):
    source: Shape
    other: Shape

    def sample(self, block: Block) -> tuple[Region, np.ndarray]:
        region, values = block.evaluate(self.source)
        if isinstance(self.other, Solid):
            return region, np.maximum(values, self.other.field(*block.coordinates(region)))
        other_region, other = block.evaluate(self.other)
        here, there = _overlap(region, other_region)
        shared = tuple(slice(a.start + b.start, a.start + b.stop) for a, b in zip(region, here, strict=True))
        return shared, np.maximum(values[here], other[there])


@dataclass(frozen=True, eq=False)
class Union(Shape):
    """Members with joints rounded over ``width_mm``; the field is capped at `REACH_MM`."""

    members: tuple[Shape, ...]
    width_mm: float

    def sample(self, block: Block) -> tuple[Region, np.ndarray]:
        region = block.region(self.low, self.high)
        values = np.full([part.stop - part.start for part in region], REACH_MM, np.float32)
        for member in self.members:
            member_region, field = block.evaluate(member)
            here, there = _overlap(region, member_region)
            nearer = np.minimum(field[there], np.float32(REACH_MM))
            if self.width_mm:
                values[here] = smooth_min(values[here], nearer, self.width_mm)
            else:
                values[here] = np.minimum(values[here], nearer)
        return region, values


def solid(field: Field, low: Point = (-EVERYWHERE,) * 3, high: Point = (EVERYWHERE,) * 3) -> Solid:
    """A shape from its field."""
    return Solid(np.asarray(low, float), np.asarray(high, float), field)


def _overlap(a: Region, b: Region) -> tuple[Region, Region]:
    """What two regions share, as slices into the arrays of the first and of the second."""
    low = [max(m.start, n.start) for m, n in zip(a, b, strict=True)]
    high = [max(min(m.stop, n.stop), start) for m, n, start in zip(a, b, low, strict=True)]
    bounds = list(zip(low, high, strict=True))
    return tuple(
        tuple(
            slice(start - part.start, stop - part.start) if stop > start else slice(0, 0)
            for part, (start, stop) in zip(side, bounds, strict=True)
        )
        for side in (a, b)
    )


def smooth_max(a: np.ndarray, b: np.ndarray, width_mm: float) -> np.ndarray:
    """Maximum whose edge is rounded over ``width_mm``."""
    width = np.float32(width_mm)
    overlap = np.maximum(width - np.abs(a - b), 0)
    return np.maximum(a, b) + overlap * overlap / (4 * width)


def smooth_min(a: np.ndarray, b: np.ndarray, width_mm: float) -> np.ndarray:
    """Minimum whose edge is rounded over ``width_mm``."""
    return -smooth_max(-a, -b, width_mm)


def oval(u: np.ndarray, v: np.ndarray, squareness: float = 0.5) -> np.ndarray:
    """Radius of a rounded ellipse in scaled coordinates: squareness 0 is an ellipse, 1 close to a rectangle."""
    uu, vv = u * u, v * v
    return np.sqrt(np.sqrt(uu * uu + vv * vv + np.float32(2 - 2 * squareness) * uu * vv))


def ellipsoid(center: Point, radii: Point, rotation_deg: Point = (0, 0, 0), squareness: float = 0.0) -> Solid:
    """An ellipsoid, rotated about x, y, z; ``squareness`` flattens its sides."""
    turn = rotation(rotation_deg).astype(np.float32)
    radii32 = np.asarray(radii, np.float32)
    center32 = np.asarray(center, np.float32)
    scale = np.float32(min(radii))

    def field(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        dx, dy, dz = x - center32[0], y - center32[1], z - center32[2]
        u, v, w = ((turn[0, n] * dx + turn[1, n] * dy + turn[2, n] * dz) / radii32[n] for n in range(3))
        return (oval(oval(u, v, squareness), w, squareness) - 1) * scale

    reach = np.sqrt(((turn * radii32) ** 2).sum(axis=1)) * (1 + 0.7 * squareness) * (1 + REACH_MM / scale)
    return solid(field, center32 - reach, center32 + reach)


def tube(points: Sequence[Point], radii: Sequence[float], steps: int = 3) -> Shape:
    """A tube of changing radius along a smooth curve through points; ``steps`` pieces between two points."""
    from scipy.interpolate import CubicSpline

    knots = np.arange(len(points))
    fine = np.linspace(0, len(points) - 1, (len(points) - 1) * steps + 1)
    path = CubicSpline(knots, np.asarray(points, float))(fine).astype(np.float32)
    width = np.interp(fine, knots, radii).astype(np.float32)

    pieces = [_segments(path[n : n + steps + 1], width[n : n + steps + 1]) for n in range(0, len(path) - 1, steps)]
    return union(pieces)


def union(shapes: Sequence[Shape], width_mm: float = 0.0) -> Shape:
    """All solids together, joints rounded over ``width_mm``."""
    low, high = np.min([shape.low for shape in shapes], axis=0), np.max([shape.high for shape in shapes], axis=0)
    return Union(low, high, tuple(shapes), width_mm)


def _segments(path: np.ndarray, width: np.ndarray) -> Solid:
    """Round cones from point to point."""

    def field(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        nearest = None
        for start, end, first, last in zip(path[:-1], path[1:], width[:-1], width[1:], strict=True):
            along = end - start
            dx, dy, dz = x - start[0], y - start[1], z - start[2]
            t = np.clip((dx * along[0] + dy * along[1] + dz * along[2]) / (along @ along), 0, 1)
            squares = (dx - t * along[0]) ** 2 + (dy - t * along[1]) ** 2 + (dz - t * along[2]) ** 2
            distance = np.sqrt(squares) - (first + (last - first) * t)
            nearest = distance if nearest is None else np.minimum(nearest, distance)
        return nearest

    reach = width[:, np.newaxis] + np.float32(REACH_MM)
    return solid(field, (path - reach).min(axis=0), (path + reach).max(axis=0))


def rotation(degrees: Point) -> np.ndarray:
    """(3, 3) float64 rotation about x, then y, then z."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        a, b = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return matrix

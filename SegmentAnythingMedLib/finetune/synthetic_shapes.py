"""Random solids as implicit fields: below 1 inside, smooth outside, each with the box it fits in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from SegmentAnythingMedLib.finetune.synthetic_fields import Crop, chance, log_uniform, smooth_noise

Point = Sequence[float]
"""(z, y, x) in the layout's unit."""


@dataclass(frozen=True)
class Shape:
    """A solid: ``field`` of a crop is below 1 inside."""

    low: np.ndarray
    high: np.ndarray
    field: Callable[[Crop], np.ndarray]


def turned(rng: np.random.Generator, tilt: float = 0.3, angle: float | None = None) -> np.ndarray:
    """(3, 3) float32 rotation: any angle in the plane (or the given one), then a small tilt out of it."""
    angle = rng.uniform(0, np.pi) if angle is None else angle
    matrix = _rotation(0, angle)
    for axis in (1, 2):
        matrix = matrix @ _rotation(axis, rng.normal(0, tilt))
    return matrix.astype(np.float32)


def _rotation(axis: int, angle: float) -> np.ndarray:
    matrix = np.eye(3)
    a, b = (axis + 1) % 3, (axis + 2) % 3
    matrix[a, a] = matrix[b, b] = np.cos(angle)
    matrix[a, b], matrix[b, a] = -np.sin(angle), np.sin(angle)
    return matrix


def _local(crop: Crop, center: Point, turn: np.ndarray, radii: Point) -> list[np.ndarray]:
    """The crop's coordinates along a solid's own axes, in its radii."""
    scaled = turn / np.asarray(radii, np.float32)
    offset = np.asarray(center, np.float32) @ scaled
    axes = (crop.z, crop.y, crop.x)
    local = []
    for n in range(3):
        used = [m for m in range(3) if scaled[m, n]]
        value = axes[used[0]] * scaled[used[0], n]
        for m in used[1:]:
            value += axes[m] * scaled[m, n]
        value -= offset[n]
        local.append(value)
    return local


def _box(center: Point, turn: np.ndarray, radii: Point, reach: float) -> tuple[np.ndarray, np.ndarray]:
    half = np.sqrt(((turn * np.asarray(radii)) ** 2).sum(axis=1)) * reach
    return np.asarray(center) - half, np.asarray(center) + half


def superquadric(
    center: Point, radii: Point, turn: np.ndarray, squareness: float = 0.0, bend: float = 0.0, taper: float = 0.0
) -> Shape:
    """An ellipsoid, flattened towards a box (squareness to 1), bent to a bean and tapered to a pear."""

    def field(crop: Crop) -> np.ndarray:
        w, v, u = _local(crop, center, turn, radii)
        if bend:
            v = v - np.float32(bend) * (u * u - np.float32(0.4))
        if taper:
            v = v * (1 + np.float32(taper) * u)
        ww, vv, uu = w * w, v * v, u * u
        if squareness < 0.05:
            return ww + vv + uu
        cross = np.float32(2 - 2 * squareness)
        plane = np.sqrt(uu * uu + vv * vv + cross * uu * vv)
        return np.sqrt(plane * plane + ww * ww + cross * plane * ww)

    reach = (1 + 0.35 * squareness) * (1 + abs(bend)) * (1 + 0.5 * abs(taper))
    return Shape(*_box(center, turn, radii, reach), field)


def star(
    rng: np.random.Generator, center: Point, radii: Point, turn: np.ndarray, harmonics: int, rough: float
) -> Shape:
    """A solid whose radius in the plane is a Fourier series of the angle, turning slowly through z."""
    angles = np.linspace(-np.pi, np.pi, 257)
    orders = np.arange(2, harmonics + 2)
    size = rough / np.sqrt(orders) * rng.normal(0, 1, len(orders))
    profile = 1 + (size[:, None] * np.cos(orders[:, None] * angles + rng.uniform(0, 6.3, (len(orders), 1)))).sum(axis=0)
    return _radial(rng, center, radii, turn, np.clip(profile, 0.3, 1.7))


def polygon(rng: np.random.Generator, center: Point, radii: Point, turn: np.ndarray, corners: int) -> Shape:
    """A prism-like solid with straight sides."""
    spots = np.sort((np.arange(corners) + rng.uniform(-0.35, 0.35, corners)) / corners * 2 * np.pi - np.pi)
    reach = rng.uniform(0.65, 1.2, corners)
    x, y = reach * np.cos(spots), reach * np.sin(spots)
    steps = np.linspace(0, 1, 16, endpoint=False)
    px = np.concatenate([x[n] + steps * (x[(n + 1) % corners] - x[n]) for n in range(corners)])
    py = np.concatenate([y[n] + steps * (y[(n + 1) % corners] - y[n]) for n in range(corners)])
    order = np.argsort(np.arctan2(py, px))
    angles = np.linspace(-np.pi, np.pi, 257)
    profile = np.interp(angles, np.arctan2(py, px)[order], np.hypot(px, py)[order], period=2 * np.pi)
    return _radial(rng, center, radii, turn, profile)


def _radial(rng: np.random.Generator, center: Point, radii: Point, turn: np.ndarray, profile: np.ndarray) -> Shape:
    inverse = (1 / profile**2).astype(np.float32)
    twist = np.float32(rng.normal(0, 0.4))

    def field(crop: Crop) -> np.ndarray:
        w, v, u = _local(crop, center, turn, radii)
        angle = np.arctan2(v, u) + twist * w
        index = (angle * np.float32(256 / (2 * np.pi)) + np.float32(128.5 + 256 * 4)).astype(np.int32) & 255
        return (u * u + v * v) * inverse.take(index) + w * w

    return Shape(*_box(center, turn, radii, float(profile.max())), field)


def lobed(rng: np.random.Generator, center: Point, radius: float, count: int, depth: float) -> Shape:
    """Several overlapping ellipsoids with rounded joints."""
    lobes = []
    for _ in range(count):
        offset = rng.normal(0, 1, 3)
        offset *= rng.uniform(0.3, 0.75) * radius / np.linalg.norm(offset)
        radii = np.array([depth, 1, 1]) * radius * rng.uniform(0.4, 0.75, 3)
        lobes.append(superquadric(np.asarray(center) + offset * (depth, 1, 1), radii, turned(rng)))
    return joined(lobes, soft=0.25)


def joined(shapes: Sequence[Shape], soft: float = 0.0) -> Shape:
    """Several solids as one; ``soft`` rounds the joints."""
    low = np.min([shape.low for shape in shapes], axis=0)
    high = np.max([shape.high for shape in shapes], axis=0)

    def field(crop: Crop) -> np.ndarray:
        result = shapes[0].field(crop)
        for shape in shapes[1:]:
            other = shape.field(crop)
            if soft:
                overlap = np.maximum(np.float32(soft) - np.abs(result - other), 0)
                result = np.minimum(result, other) - overlap * overlap / np.float32(4 * soft)
            else:
                result = np.minimum(result, other)
        return result

    return Shape(low, high, field)


def without(shape: Shape, hole: Shape) -> Shape:
    """A solid minus another: crescents and bites."""

    def field(crop: Crop) -> np.ndarray:
        return np.maximum(shape.field(crop), 2 - hole.field(crop))

    return Shape(shape.low, shape.high, field)


def rough(rng: np.random.Generator, shape: Shape, amount: float, cell: float) -> Shape:
    """A solid with an uneven surface: noise of ``amount`` with cells of the size ``cell``."""
    seed = int(rng.integers(2**31))

    def field(crop: Crop) -> np.ndarray:
        spans = [float(axis.max() - axis.min()) for axis in (crop.z, crop.y, crop.x)]
        cells = tuple(min(60, max(1, round(span / cell))) for span in spans)
        noise = smooth_noise(np.random.default_rng(seed), crop.shape, cells)
        return shape.field(crop) + np.float32(amount) * noise

    return Shape(shape.low - amount * cell, shape.high + amount * cell, field)


def sheet(rng: np.random.Generator, center: Point, reach: float, thickness: float, turn: np.ndarray) -> Shape:
    """A thin curved plate: its normal is the second axis of ``turn``."""
    curve = rng.normal(0, 0.5, 3).astype(np.float32) / np.float32(reach)
    wave = np.float32(rng.uniform(0, 0.15) * reach)
    frequency, phase = np.float32(rng.uniform(2, 7) / reach), np.float32(rng.uniform(0, 6.3))

    def field(crop: Crop) -> np.ndarray:
        w, v, u = _local(crop, center, turn, (1, 1, 1))
        bent = v - curve[0] * u * u - curve[1] * w * w - curve[2] * u * w - wave * np.sin(frequency * u + phase)
        across = bent * np.float32(1 / thickness)
        along = (u * u + w * w) * np.float32(1 / reach**2)
        return np.maximum(across * across, along)

    half = np.full(3, reach * 1.3)
    return Shape(np.asarray(center) - half, np.asarray(center) + half, field)


def tube(points: Sequence[Point], radii: Sequence[float]) -> Shape:
    """Round cones through points: a vessel, a gut, a duct."""
    path, width = np.asarray(points, np.float32), np.asarray(radii, np.float32)

    def field(crop: Crop) -> np.ndarray:
        nearest = np.full(crop.shape, 9, np.float32)
        for start, end, first, last in zip(path[:-1], path[1:], width[:-1], width[1:], strict=True):
            margin = 1.5 * max(first, last)  # beyond it the field only has to be above 1
            found = crop.within(np.minimum(start, end) - margin, np.maximum(start, end) + margin)
            if found is None:
                continue
            here, part = found
            along = end - start
            dz, dy, dx = part.z - start[0], part.y - start[1], part.x - start[2]
            t = dz * along[0]
            t += dy * along[1]
            t += dx * along[2]
            t *= 1 / (along @ along + np.float32(1e-9))
            np.clip(t, 0, 1, out=t)
            squares = (dz - t * along[0]) ** 2
            squares += (dy - t * along[1]) ** 2
            squares += (dx - t * along[2]) ** 2
            squares /= (first + (last - first) * t) ** 2
            np.minimum(nearest[here], squares, out=nearest[here])
        return nearest

    reach = width[:, None]
    return Shape((path - reach).min(axis=0), (path + reach).max(axis=0), field)


def wandering(
    rng: np.random.Generator, start: Point, direction: Point, length: float, steps: int, wander: float
) -> np.ndarray:
    """(steps + 1, 3) points of a smooth random walk."""
    heading = np.asarray(direction, float) / np.linalg.norm(direction)
    points = [np.asarray(start, float)]
    turn = rng.normal(0, wander, 3)
    for _ in range(steps):
        turn = 0.6 * turn + rng.normal(0, wander, 3)
        heading = heading + turn
        heading /= np.linalg.norm(heading)
        points.append(points[-1] + heading * length / steps)
    return np.array(points)


def branches(
    rng: np.random.Generator, start: Point, direction: Point, length: float, radius: float, levels: int, flat: float
) -> list[Shape]:
    """A vessel tree as its tubes; ``flat`` presses it towards the plane (0 fully, 1 not)."""
    path = wandering(rng, start, direction, length, 4, 0.18)
    path[:, 0] = path[0, 0] + (path[:, 0] - path[0, 0]) * flat
    widths = np.linspace(radius, radius * 0.75, len(path))
    found = [tube(path, widths)]
    if levels > 0:
        heading = path[-1] - path[-2]
        for _ in range(2 if chance(rng, 0.8) else 3):
            spread = rng.normal(0, 0.75, 3) * np.linalg.norm(heading)
            origin = path[-1] if chance(rng, 0.7) else path[int(rng.integers(1, len(path)))]
            shrink = rng.uniform(0.55, 0.8)
            found += branches(
                rng, origin, heading + spread, length * rng.uniform(0.6, 0.9), radius * shrink, levels - 1, flat
            )
    return found


def random_solid(rng: np.random.Generator, center: Point, radius: float, depth: float) -> Shape:
    """Any compact solid about a centre, ``depth`` its extent in z over that in the plane."""
    radii = np.array([depth * rng.uniform(0.6, 1.4), rng.uniform(0.4, 1), 1]) * radius
    turn = turned(rng)
    kind = rng.choice(["quadric", "bean", "star", "polygon", "lobed", "crescent"], p=[0.3, 0.14, 0.2, 0.1, 0.16, 0.1])
    if kind == "quadric":
        shape = superquadric(center, radii, turn, rng.uniform(0, 0.9), taper=rng.normal(0, 0.2))
    elif kind == "bean":
        shape = superquadric(center, radii * (1, 0.7, 1), turn, 0.0, bend=rng.uniform(0.2, 0.8))
    elif kind == "star":
        shape = star(rng, center, radii, turn, int(rng.integers(2, 12)), rng.uniform(0.05, 0.3))
    elif kind == "polygon":
        shape = polygon(rng, center, radii, turn, int(rng.integers(3, 8)))
    elif kind == "lobed":
        shape = lobed(rng, center, radius, int(rng.integers(2, 6)), depth)
    else:
        bite = superquadric(np.asarray(center) + turn[:, 1] * radius * rng.uniform(0.4, 0.9), radii * 1.05, turn)
        shape = without(superquadric(center, radii, turn), bite)
    if chance(rng, 0.6):
        shape = rough(rng, shape, rng.uniform(0.03, 0.3), radius * log_uniform(rng, 0.15, 1))
    return shape

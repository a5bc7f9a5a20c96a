"""Pictures of segmented surfaces without OpenGL: orthographic ray casting of smoothed masks in numpy and scipy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from SegmentAnythingMedLib.geometry import VolumeGeometry

_GRID = 112
_SUPERSAMPLING = 2
_LIGHT = np.array([-0.40, -0.55, -0.73])
"""Where the light comes from: left, up and front of the picture."""


@dataclass(frozen=True, eq=False)
class SurfaceImage:
    """A rendering.

    Parameters
    ----------
    rgba
        (rows, columns, 4) float in 0 to 1, transparent background.
    pixel_mm
        Side of a pixel in the picture's plane.
    camera
        (3, 3); rows are the directions of the picture's right, down and depth in world coordinates.
    """

    rgba: np.ndarray
    pixel_mm: float
    camera: np.ndarray


def oblique_anterior_camera(azimuth_deg: float = 24.0, elevation_deg: float = 14.0) -> np.ndarray:
    """(3, 3) rows right, down, depth in LPS: looking at the patient from the front, the side and a little above."""
    azimuth, elevation = np.radians([azimuth_deg, elevation_deg])
    depth = np.array([-np.sin(azimuth) * np.cos(elevation), np.cos(azimuth) * np.cos(elevation), -np.sin(elevation)])
    right = np.cross(depth, (0.0, 0.0, 1.0))
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(depth, right), depth])


def render_surfaces(
    masks: Sequence[tuple[np.ndarray, tuple[float, float, float]]],
    geometry: VolumeGeometry,
    camera: np.ndarray,
    size: int = 380,
) -> SurfaceImage | None:
    """Shaded surfaces of masks; one that encloses another lets it shine through.

    Parameters
    ----------
    masks
        (K, J, I) bool and a colour (r, g, b) in 0 to 1 each.
    geometry
        Their grid.
    camera
        Rows right, down and depth in world directions, see `oblique_anterior_camera`.
    size
        Side of the square picture in pixels.

    Returns
    -------
    SurfaceImage or None
        None if every mask is empty.
    """
    boxes = [_box(mask) for mask, _ in masks]
    filled = [n for n, box in enumerate(boxes) if box is not None]
    if not filled:
        return None
    corners = np.concatenate([_corners(boxes[n]) for n in filled])
    view = geometry.world_from_ijk(corners) @ camera.T
    low, high = view.min(axis=0), view.max(axis=0)
    extent = max(float((high - low)[:2].max()), 1e-3)
    center, half = (low + high) / 2, extent * 0.68
    count = size * _SUPERSAMPLING
    pixel = 2 * half / count
    layers = []
    for n in filled:
        mask, color = masks[n]
        hit = _cast(_Field(mask, boxes[n], geometry), camera, center, (half, float(high[2] - low[2]) * 0.5), count)
        inside = any(m != n and _encloses(mask, masks[m][0], boxes[m]) for m in filled)
        layers.append((*_shade(*hit, color, camera), 0.42 if inside else 1.0))
    rgba = _composite(layers)
    rgba = rgba.reshape(size, _SUPERSAMPLING, size, _SUPERSAMPLING, 4).mean(axis=(1, 3))
    rgba[..., :3] /= np.maximum(rgba[..., 3:], 1e-6)
    return SurfaceImage(np.clip(rgba, 0, 1), pixel * _SUPERSAMPLING, camera)


class _Field:
    """A mask smoothed on an isotropic grid, sampled by world position: occupancy, normals and openness."""

    def __init__(self, mask: np.ndarray, box: tuple[slice, ...], geometry: VolumeGeometry) -> None:
        from scipy import ndimage

        start = np.array([part.start for part in box])
        stride = np.array([max((part.stop - part.start) // 160, 1) for part in box])
        block = mask[box][:: stride[0], :: stride[1], :: stride[2]].astype(np.float32)
        pad = 4
        block = ndimage.gaussian_filter(np.pad(block, pad), 0.9)
        to_block = np.diag(1 / stride[::-1]) @ geometry.world_to_ijk[:3, :3]
        shift = (geometry.world_to_ijk[:3, 3] - start[::-1]) / stride[::-1] + pad
        corners = geometry.world_from_ijk(_corners(box, margin=2 * stride))
        self.low = corners.min(axis=0)
        size = corners.max(axis=0) - self.low
        self.step = float(max(size.max() / _GRID, min(geometry.spacing_mm) / 3))
        shape = np.ceil(size / self.step).astype(int) + 1
        matrix, offset = to_block * self.step, to_block @ self.low + shift
        # Arrays are (z, y, x) on both sides.
        grid = ndimage.affine_transform(
            block, matrix[::-1, ::-1], offset[::-1], output_shape=tuple(shape[::-1]), order=3, output=np.float32
        )
        thickness = max(geometry.spacing_mm) / self.step
        self.values = ndimage.gaussian_filter(grid, float(np.clip(0.45 * thickness, 0.8, 2.5)))
        voxels = np.count_nonzero(mask[box]) * geometry.voxel_volume_mm3 / self.step**3
        share = min(voxels / self.values.size, 0.999)
        # The level that keeps the volume: thin shapes would vanish at one half.
        self.level = float(np.clip(np.quantile(self.values, 1 - share), 0.12, 0.5))
        self.level = min(self.level, 0.6 * float(self.values.max()))
        self.blurred = ndimage.gaussian_filter(self.values, 4.0)
        self.slopes = np.gradient(self.values)

    def sample(self, points: np.ndarray, values: np.ndarray | None = None) -> np.ndarray:
        """Occupancy (or another array on the grid) at (..., 3) world points, 0 outside."""
        from scipy import ndimage

        xyz = (points - self.low) / self.step
        coordinates = np.moveaxis(xyz[..., ::-1], -1, 0)
        return ndimage.map_coordinates(self.values if values is None else values, coordinates, order=1)

    def normals(self, points: np.ndarray) -> np.ndarray:
        """Outward unit normals at (N, 3) points."""
        slopes = np.stack([self.sample(points, self.slopes[n]) for n in (2, 1, 0)], axis=-1)
        return -slopes / np.maximum(np.linalg.norm(slopes, axis=-1, keepdims=True), 1e-9)


def _cast(
    field: _Field, camera: np.ndarray, center: np.ndarray, half: tuple[float, float], count: int
) -> tuple[_Field, np.ndarray, np.ndarray]:
    """Where rays first meet the surface: (rows, columns) bool, and depth along the camera's axis in mm."""
    from scipy import ndimage

    reach = half[1] + 4 * field.step
    coarse = max(count // 6, 40)
    step = field.step
    depths = np.arange(-reach, reach + step, step)
    # Coarse rays find where to start; a ray of the fine grid starts a step before its neighbourhood's first hit.
    occupied = np.stack([field.sample(_points(camera, center, half[0], coarse, d)) for d in depths])
    solid = ndimage.maximum_filter(occupied, size=(3, 3, 3)) > field.level * 0.8
    first = np.where(solid.any(axis=0), solid.argmax(axis=0) - 1, -1)
    nearest = np.arange(count) * coarse // count
    start = first[np.ix_(nearest, nearest)]
    rows, columns = np.nonzero(start >= 0)
    depth = depths[np.maximum(start[rows, columns], 0)]
    base = _points(camera, center, half[0], count, 0.0)[rows, columns]
    axis = camera[2]
    before = field.sample(base + depth[:, np.newaxis] * axis)
    found = np.full(depth.shape, np.nan)
    active = np.arange(depth.size)
    while active.size:
        ahead = depth[active] + step * 0.7
        after = field.sample(base[active] + ahead[:, np.newaxis] * axis)
        crossed = after >= field.level
        now = active[crossed]
        share = (field.level - before[now]) / np.maximum(after[crossed] - before[now], 1e-6)
        found[now] = depth[now] + np.clip(share, 0, 1) * step * 0.7
        depth[active], before[active] = ahead, after
        active = active[~crossed & (ahead < reach)]
    image = np.full((count, count), np.nan)
    image[rows, columns] = found
    points = _points(camera, center, half[0], count, 0.0)[~np.isnan(image)]
    return field, image, points + image[~np.isnan(image)][:, np.newaxis] * axis


def _shade(
    field: _Field, depth: np.ndarray, points: np.ndarray, color: tuple[float, float, float], camera: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(rows, columns) depth and (rows, columns, 3) colour: Lambert, soft highlight, ambient occlusion, depth cue."""
    normals = field.normals(points)
    light = _LIGHT / np.linalg.norm(_LIGHT) @ camera
    facing = -(normals @ camera[2])
    diffuse = np.clip(normals @ light, 0, 1)
    halfway = light - camera[2]
    halfway /= np.linalg.norm(halfway)
    gloss = np.clip(normals @ halfway, 0, 1) ** 28
    buried = field.sample(points + normals * field.step * 3, field.blurred)
    open_sky = np.clip(1.25 - 1.5 * buried, 0.35, 1)
    span = max(float(np.ptp(depth[~np.isnan(depth)])), 1e-3) if points.size else 1.0
    near = 1 - 0.28 * (depth[~np.isnan(depth)] - np.nanmin(depth)) / span if points.size else np.ones(0)
    strength = (0.30 + 0.62 * diffuse + 0.16 * np.clip(facing, 0, 1)) * open_sky * near
    picture = np.zeros((*depth.shape, 3))
    picture[~np.isnan(depth)] = strength[:, np.newaxis] * np.asarray(color) + 0.22 * (gloss * open_sky)[:, np.newaxis]
    return depth, np.clip(picture, 0, 1)


def _composite(layers: list[tuple[np.ndarray, np.ndarray, float]]) -> np.ndarray:
    """Front to back, premultiplied RGBA."""
    depths = np.stack([np.where(np.isnan(depth), np.inf, depth) for depth, _, _ in layers])
    behind = np.where(np.isfinite(depths), depths, -np.inf).max(axis=0)
    rgba = np.zeros((*depths.shape[1:], 4))
    for rank in np.argsort(depths, axis=0, kind="stable"):
        for n, (depth, picture, opacity) in enumerate(layers):
            here = (rank == n) & ~np.isnan(depth)
            share = np.where(behind[here] > depth[here], opacity, 1.0)[:, np.newaxis]
            alpha = (1 - rgba[here, 3:]) * share
            rgba[here] += np.concatenate([picture[here] * alpha, alpha], axis=1)
    return rgba


def _points(camera: np.ndarray, center: np.ndarray, half_mm: float, count: int, depth: float) -> np.ndarray:
    """(count, count, 3) world points of a square picture's pixels at a depth."""
    across = ((np.arange(count) + 0.5) / count * 2 - 1) * half_mm
    view = np.stack(np.broadcast_arrays(across, across[:, np.newaxis], depth), axis=-1) + center
    return view @ camera


def _box(mask: np.ndarray) -> tuple[slice, slice, slice] | None:
    """The part of a (K, J, I) mask that holds something."""
    planes = mask.any(axis=2)
    spans = [np.flatnonzero(line) for line in (planes.any(axis=1), planes.any(axis=0), mask.any(axis=(0, 1)))]
    return tuple(slice(int(s[0]), int(s[-1]) + 1) for s in spans) if spans[0].size else None


def _encloses(outer: np.ndarray, inner: np.ndarray, inner_box: tuple[slice, ...]) -> bool:
    """Whether most of ``inner`` has voxels of ``outer`` on all six sides."""
    voxels = np.argwhere(inner[inner_box])
    voxels = voxels[:: max(len(voxels) // 150, 1)] + [part.start for part in inner_box]
    surrounded = 0
    for k, j, i in voxels:
        lines = (outer[:k, j, i], outer[k + 1 :, j, i], outer[k, :j, i], outer[k, j + 1 :, i], outer[k, j, :i])
        surrounded += all(line.any() for line in (*lines, outer[k, j, i + 1 :]))
    return surrounded > 0.6 * len(voxels)


def _corners(box: tuple[slice, ...], margin: np.ndarray | int = 0) -> np.ndarray:
    """(8, 3) IJK corners of a (K, J, I) box, at the voxels' outer faces."""
    margins = np.broadcast_to(margin, 3)
    ends = [(part.start - 0.5 - m, part.stop - 0.5 + m) for part, m in zip(box, margins, strict=True)]
    return np.array([(i, j, k) for k in ends[0] for j in ends[1] for i in ends[2]])

"""From clean tissue values to what a scanner shows: CT and MR noise, PET blur, and ultrasound's sector and speckle."""

from __future__ import annotations

import numpy as np

from SegmentAnythingMedLib.geometry import VolumeGeometry

PROBE_MM = (-104.0, -72.0)
_PROBE_TARGET_MM = (-34.0, 30.0)
_PROBE_RADIUS_MM = 42.0
_DEPTH_MM = 172.0
_HALF_ANGLE = np.radians(34.0)
_DYNAMIC_RANGE_DB = 50.0


def ct(values: np.ndarray, geometry: VolumeGeometry, rng: np.random.Generator) -> np.ndarray:
    """(K, J, I) HU with noise of about 14 HU, correlated in the slice plane, as int16."""
    return np.rint(values + 14 * correlated_noise(values.shape, geometry, rng)).clip(-1024, 3071).astype(np.int16)


def mr(values: np.ndarray, geometry: VolumeGeometry, start_k: int, rng: np.random.Generator) -> np.ndarray:
    """(K, J, I) signal of slices from ``start_k`` on, with a coil's bias field and Rician noise, as uint16."""
    x, y, z = body_coordinates(geometry, (0, 0, start_k), values.shape)
    bias = np.exp(0.16 * np.sin(x / 95 + 0.6) - 0.0016 * y + 0.10 * np.cos(z / 110))
    signal = values * bias.astype(np.float32)
    real = signal + 13 * correlated_noise(values.shape, geometry, rng)
    imaginary = 13 * correlated_noise(values.shape, geometry, rng)
    return np.rint(np.hypot(real, imaginary)).clip(0, 4095).astype(np.uint16)


def pet(values: np.ndarray, geometry: VolumeGeometry, rng: np.random.Generator) -> np.ndarray:
    """(K, J, I) SUV blurred to 6 mm resolution, with noise that grows with the signal, as float32."""
    from scipy import ndimage

    sigma = [2.5 / spacing for spacing in geometry.spacing_mm[::-1]]
    blurred = ndimage.gaussian_filter(values, sigma, truncate=3)
    noise = ndimage.gaussian_filter(rng.standard_normal(values.shape, dtype=np.float32), [s * 0.7 for s in sigma])
    noise *= np.float32(0.10) / max(float(noise.std()), 1e-6)
    return np.maximum(blurred + noise * np.sqrt(np.maximum(blurred, 0) + np.float32(0.02)), 0)


def ultrasound(echoes: np.ndarray, geometry: VolumeGeometry, rng: np.random.Generator) -> np.ndarray:
    """(K, J, I) echo amplitudes scanned by a convex probe in body-axial planes: log-compressed uint8, 0 outside.

    Everything happens in probe coordinates (along the body, depth, angle), so speckle widens with depth and gas
    and bone throw shadows.
    """
    from scipy import ndimage

    apex, forward = _probe()
    low_z, high_z = _range_z(geometry)
    step_r = float(np.clip(min(geometry.spacing_mm) / 2, 0.45, 2.0))
    step_z = abs(geometry.ijk_to_world[2, :3]).max()
    depths = np.arange(0, _DEPTH_MM, step_r, dtype=np.float32)
    angles = np.linspace(-_HALF_ANGLE, _HALF_ANGLE, max(int(190 / step_r / 2), 24), dtype=np.float32)
    levels = np.arange(low_z, high_z + step_z, step_z, dtype=np.float32)
    heading = np.arctan2(forward[1], forward[0]) + angles
    radius = _PROBE_RADIUS_MM + depths[:, np.newaxis]
    plane = apex[0] + radius * np.cos(heading), apex[1] + radius * np.sin(heading)
    scanned = np.empty((levels.size, depths.size, angles.size), np.float32)
    inverse = geometry.world_to_ijk.astype(np.float32)
    for n, level in enumerate(levels):
        i, j, k = (
            inverse[a, 0] * plane[0] + inverse[a, 1] * plane[1] + inverse[a, 2] * level + inverse[a, 3]
            for a in range(3)
        )
        scanned[n] = ndimage.map_coordinates(echoes, [k, j, i], order=1, mode="constant")
    hard = np.maximum(scanned - np.float32(0.9), 0)
    hard[:, depths < 12] = 0
    loss = np.cumsum(hard, axis=1) * np.float32(0.35 * step_r) + depths[:, np.newaxis] * np.float32(0.0035)
    edges = np.abs(np.gradient(scanned, axis=1)) * np.float32(0.35)
    speckle = np.hypot(*(_speckle(scanned.shape, step_r, rng) for _ in range(2)))
    envelope = (scanned + edges + np.float32(0.003)) * speckle * np.exp(-loss)
    decibels = 20 * np.log10(envelope + np.float32(1e-5)) + np.float32(_DYNAMIC_RANGE_DB - 9)
    grey = np.clip(decibels / np.float32(_DYNAMIC_RANGE_DB), 0.02, 1) * 255
    return _scan_converted(grey, geometry, (low_z, step_z, step_r))


def correlated_noise(shape: tuple[int, ...], geometry: VolumeGeometry, rng: np.random.Generator) -> np.ndarray:
    """Noise of unit variance, smooth over about 1 mm where voxels are that fine."""
    from scipy import ndimage

    noise = rng.standard_normal(shape, dtype=np.float32)
    for axis, spacing in enumerate(geometry.spacing_mm[::-1]):
        sigma = min(0.9 / spacing, 1.2)
        if sigma > 0.3 and shape[axis] > 1:
            noise = ndimage.gaussian_filter1d(noise, sigma, axis=axis, truncate=3)
    return noise / max(float(noise.std()), 1e-6)


def body_coordinates(
    geometry: VolumeGeometry, start_ijk: tuple[int, int, int], shape_kji: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """World x, y, z (float32) of a block of voxels; arrays broadcast to (K, J, I) and stay thin where they can."""
    steps = [np.arange(start, start + n, dtype=np.float64) for start, n in zip(start_ijk, shape_kji[::-1], strict=True)]
    i, j, k = steps[0], steps[1][:, np.newaxis], steps[2][:, np.newaxis, np.newaxis]
    rows = []
    for a, b, c, d in geometry.ijk_to_world[:3]:
        terms = [term for factor, term in ((a, a * i), (b, b * j), (c, c * k + d)) if factor or term.ndim == 3]
        rows.append(sum(term.astype(np.float32) for term in terms))
    return rows[0], rows[1], rows[2]


def _probe() -> tuple[np.ndarray, np.ndarray]:
    """Centre of the convex probe's arc and its viewing direction, in the body's axial plane."""
    forward = np.subtract(_PROBE_TARGET_MM, PROBE_MM)
    forward /= np.linalg.norm(forward)
    return np.asarray(PROBE_MM) - _PROBE_RADIUS_MM * forward, forward


def _range_z(geometry: VolumeGeometry) -> tuple[float, float]:
    ends = [(0, n - 1) for n in geometry.size_ijk]
    corners = np.array([(i, j, k) for i in ends[0] for j in ends[1] for k in ends[2]])
    heights = geometry.world_from_ijk(corners)[:, 2]
    return float(heights.min()), float(heights.max())


def _speckle(shape: tuple[int, ...], step_r: float, rng: np.random.Generator) -> np.ndarray:
    from scipy import ndimage

    noise = rng.standard_normal(shape, dtype=np.float32)
    noise = ndimage.gaussian_filter(noise, (0.3, 0.6 / step_r, 0.9), truncate=3)
    return noise / max(float(noise.std()), 1e-6)


def _scan_converted(grey: np.ndarray, geometry: VolumeGeometry, sampling: tuple[float, float, float]) -> np.ndarray:
    """Probe coordinates (level, depth, angle) back to the voxel grid."""
    from scipy import ndimage

    apex, forward = _probe()
    low_z, step_z, step_r = sampling
    size_k, size_j, size_i = geometry.shape_kji
    image = np.zeros(geometry.shape_kji, np.uint8)
    for k in range(size_k):
        x, y, z = (
            np.broadcast_to(c, (1, size_j, size_i))[0]
            for c in body_coordinates(geometry, (0, 0, k), (1, size_j, size_i))
        )
        dx, dy = x - apex[0], y - apex[1]
        depth = np.hypot(dx, dy) - _PROBE_RADIUS_MM
        angle = np.arctan2(dy * forward[0] - dx * forward[1], dx * forward[0] + dy * forward[1])
        seen = (np.abs(angle) <= _HALF_ANGLE) & (depth >= 0) & (depth <= _DEPTH_MM - step_r)
        column = (angle[seen] + _HALF_ANGLE) / (2 * _HALF_ANGLE) * (grey.shape[2] - 1)
        points = [(z[seen] - low_z) / step_z, depth[seen] / step_r, column]
        image[k][seen] = np.rint(ndimage.map_coordinates(grey, points, order=1, mode="nearest"))
    return image

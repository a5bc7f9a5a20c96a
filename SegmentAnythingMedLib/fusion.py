"""Up to three volumes of one patient as the channels of one, on the grid of the first: CT, PET and MR of a tumour.

Follows the idea of Ren et al. 2024 (arXiv 2402.17454: SAM on head-and-neck CT, PET and MRI): instead of one grey
value three times, each channel is a volume with its own window. Registration comes before and is not done here. A
model that was never trained on such channels takes them for colours; fine-tuning is what makes fusion pay.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from SegmentAnythingMedLib.errors import GeometryError, VolumeError
from SegmentAnythingMedLib.free_memory import free_memory_bytes
from SegmentAnythingMedLib.geometry import VolumeGeometry
from SegmentAnythingMedLib.volume import Modality, Volume

logger = logging.getLogger(__name__)

MAX_CHANNELS = 3
LEAST_OVERLAP = 0.05
"""Share of the smaller of two volumes that must lie in the other; below, they are not of one place of one patient."""
_SPARSE = 0.5
_LATTICE = 24


def fuse_volumes(volumes: Sequence[Volume]) -> Volume:
    """Several volumes as channels of one, resampled (linear) onto the grid of the first.

    Parameters
    ----------
    volumes
        One to three, each with one channel and one time point. World must be the same for all.

    Returns
    -------
    Volume
        (1, C, K, J, I) float32 on the first's grid; modality, source files and what is known of the place are the
        first's. Outside a volume, and where it is not finite, its smallest value stands. A finer volume is sampled, not
        averaged. A single volume comes back as it is.

    Raises
    ------
    VolumeError
        If there are too many, one has several channels or time points or no place in the patient, or the memory is
        too small.
    GeometryError
        If one lies elsewhere than the first.
    """
    if not 1 <= len(volumes) <= MAX_CHANNELS:
        raise VolumeError(f"One to {MAX_CHANNELS} volumes can be used together, got {len(volumes)}.")
    first = volumes[0]
    if len(volumes) == 1:
        return first
    for volume in volumes:
        _check_channel(volume)
    for volume in volumes[1:]:
        _check_overlap(first, volume)
    shape = len(volumes), *first.geometry.shape_kji
    needed, free = 4 * int(np.prod(shape)), free_memory_bytes()
    if free is not None and needed > free:
        raise VolumeError(
            f"{len(volumes)} channels need {needed / 1e9:.1f} GB but only {free / 1e9:.1f} GB of memory is free: crop "
            f"{first.name!r} first."
        )
    voxels = np.empty((1, *shape), np.float32)
    voxels[0, 0] = first.array()
    for channel, volume in enumerate(volumes[1:], start=1):
        to_source = volume.geometry.world_to_ijk @ first.geometry.ijk_to_world
        voxels[0, channel] = resampled(volume.array(), to_source, first.geometry.shape_kji)
    return replace(first, voxels=voxels, name=" + ".join(volume.name for volume in volumes), times_s=())


def resampled(array: np.ndarray, to_source: np.ndarray, shape_kji: tuple[int, int, int]) -> np.ndarray:
    """A (K, J, I) array on another grid: linear, and its smallest value outside and where it is not finite.

    Parameters
    ----------
    array
        Any numeric type.
    to_source
        (4, 4) from the new grid's IJK to the array's. May shear, which images of SimpleITK cannot.
    shape_kji
        Of the result, which is float32.
    """
    from scipy import ndimage

    source, fill = array.astype(np.float32, copy=False), smallest(array)
    if array.dtype.kind == "f" and not np.isfinite(source).all():
        source = np.where(np.isfinite(source), source, np.float32(fill))
    matrix, offset = to_source[:3, :3][::-1, ::-1], to_source[:3, 3][::-1]
    return ndimage.affine_transform(
        source, matrix, offset, output_shape=shape_kji, order=1, mode="grid-constant", cval=fill
    )


def smallest(array: np.ndarray) -> float:
    """The smallest finite value; 0 if there is none."""
    finite = array[np.isfinite(array)] if array.dtype.kind == "f" else array
    return float(finite.min()) if finite.size else 0.0


def overlap(a: VolumeGeometry, b: VolumeGeometry) -> float:
    """Share of the voxels of grid ``a`` that lie inside grid ``b``, 0 to 1, measured on a lattice of them."""
    lines = [np.linspace(0, n - 1, min(n, _LATTICE)) for n in a.size_ijk]
    points = np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1)
    return float(np.mean(b.contains(b.ijk_from_world(a.world_from_ijk(points)))))


def _check_channel(volume: Volume) -> None:
    if volume.channel_count != 1 or volume.modality is Modality.COLOR:
        raise VolumeError(f"{volume.name!r} has several values per voxel and cannot be a channel: choose one of them.")
    if volume.time_count != 1:
        raise VolumeError(f"{volume.name!r} has {volume.time_count} time points: save one of them and fuse that.")
    if not (volume.has_spacing and volume.has_orientation):
        raise VolumeError(f"{volume.name!r} does not say where it lies in the patient: it cannot be fused.")


def _check_overlap(first: Volume, other: Volume) -> None:
    """Refuse volumes that lie apart, and warn where one covers little of the first."""
    covered, inside = overlap(first.geometry, other.geometry), overlap(other.geometry, first.geometry)
    if max(covered, inside) < LEAST_OVERLAP:
        middles = [grid.world_from_ijk((np.array(grid.size_ijk) - 1) / 2) for grid in (first.geometry, other.geometry)]
        apart = float(np.linalg.norm(middles[0] - middles[1]))
        raise GeometryError(
            f"{other.name!r} does not lie where {first.name!r} lies ({max(covered, inside):.0%} in common, middles "
            f"{apart:.0f} mm apart): choose registered volumes of one patient."
        )
    if covered < _SPARSE:
        logger.warning(
            "%r covers %.0f %% of %r; beyond it the channel has its smallest value.",
            other.name,
            100 * covered,
            first.name,
        )

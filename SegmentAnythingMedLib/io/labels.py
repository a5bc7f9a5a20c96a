"""Labels: named segments on one grid, overlapping or not, and what it takes to bring them onto another grid."""

from __future__ import annotations

import colorsys
import logging
from dataclasses import dataclass, field, replace

import numpy as np

from SegmentAnythingMedLib.errors import GeometryError, VolumeError
from SegmentAnythingMedLib.geometry import VolumeGeometry

logger = logging.getLogger(__name__)

DEFAULT_TERMINOLOGY = (
    "Segmentation category and type - 3D Slicer General Anatomy list~SCT^85756007^Tissue~SCT^85756007^Tissue~^^~"
    "Anatomic codes - DICOM master list~^^~^^"
)
"""What Slicer gives a new segment: just "Tissue"."""

_SAME_VOXEL = 0.05


@dataclass(frozen=True, eq=False)
class Segment:
    """One structure: the voxels of a layer that have its value.

    Parameters
    ----------
    name
        Shown to the user.
    layer
        (K, J, I) integers; segments that do not overlap may share it. Never written to.
    value
        The segment's value in its layer, and in a label map that is written if no other segment has it.
    color
        Red, green, blue, 0 to 1.
    terminology
        Slicer's terminology entry (``contexts~category~type~...``), or None.
    """

    name: str
    layer: np.ndarray = field(repr=False)
    value: int = 1
    color: tuple[float, float, float] = (0.5, 0.68, 0.5)
    terminology: str | None = field(default=None, repr=False)

    @property
    def mask(self) -> np.ndarray:
        """(K, J, I) bool, computed on each call."""
        return self.layer == self.value


@dataclass(frozen=True, eq=False)
class Labels:
    """Segments on one grid; world is LPS millimetres if it was read from a file.

    Raises
    ------
    VolumeError
        If a segment's layer does not fit the grid.
    """

    geometry: VolumeGeometry
    segments: tuple[Segment, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "segments", tuple(self.segments))
        for segment in self.segments:
            if segment.layer.shape != self.geometry.shape_kji:
                raise VolumeError(
                    f"The segment {segment.name!r} {segment.layer.shape} does not fit the grid "
                    f"{self.geometry.shape_kji}."
                )

    @classmethod
    def from_masks(cls, masks: dict[str, np.ndarray], geometry: VolumeGeometry) -> Labels:
        """One segment per (K, J, I) bool mask, valued 1, 2, ... in a label map."""
        segments = [
            Segment(name, np.where(mask, value, 0).astype(np.uint16), value, default_color(value))
            for value, (name, mask) in enumerate(masks.items(), start=1)
        ]
        return cls(geometry, tuple(segments))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(segment.name for segment in self.segments)

    def mask(self, name: str) -> np.ndarray:
        """(K, J, I) bool of the first segment of that name; `VolumeError` names those there are."""
        for segment in self.segments:
            if segment.name == name:
                return segment.mask
        raise VolumeError(f"There is no segment {name!r}; there are: {', '.join(self.names) or 'none'}.")

    def layered(self) -> tuple[np.ndarray, tuple[tuple[int, int], ...]]:
        """As few label maps as hold all segments, (L, K, J, I) uint8 or uint16, and (layer, value) of each segment.

        Values stay what they are if all differ and fit 16 bits, else they are 1, 2, ... A segment goes to the first
        layer where it covers no other.
        """
        values = [segment.value for segment in self.segments]
        if len(set(values)) < len(values) or not all(0 < value < 1 << 16 for value in values):
            values = list(range(1, len(values) + 1))
        dtype = np.uint8 if max(values, default=1) < 256 else np.uint16
        layers: list[np.ndarray] = []
        places = []
        for segment, value in zip(self.segments, values, strict=True):
            mask = segment.mask
            place = next((n for n, layer in enumerate(layers) if not layer[mask].any()), len(layers))
            if place == len(layers):
                layers.append(np.zeros(self.geometry.shape_kji, dtype))
            layers[place][mask] = value
            places.append((place, value))
        return np.stack(layers or [np.zeros(self.geometry.shape_kji, dtype)]), tuple(places)


def default_color(number: int) -> tuple[float, float, float]:
    """A colour that differs from those of the neighbouring numbers (golden-ratio steps of hue)."""
    return tuple(round(c, 4) for c in colorsys.hsv_to_rgb(number * 0.6180339887 % 1, 0.65, 0.9))


def check_same_grid(labels: VolumeGeometry, volume: VolumeGeometry) -> None:
    """Raise `GeometryError` with both sizes and spacings unless the two grids are the same."""
    if labels.matches(volume):
        return
    moved = "" if _described(labels) != _described(volume) else " at another position or in another orientation"
    raise GeometryError(
        f"This is a label map of another grid: {_described(labels)}{moved}, but the volume has {_described(volume)}; "
        "resample it first (labels_on_grid)."
    )


def _described(geometry: VolumeGeometry) -> str:
    size = "x".join(str(n) for n in geometry.size_ijk)
    return f"{size} voxels of {'x'.join(f'{s:.3g}' for s in geometry.spacing_mm)} mm"


def labels_on_grid(labels: Labels, geometry: VolumeGeometry) -> Labels:
    """The labels at the voxel centres of another grid: nearest neighbour, background outside."""
    target_to_source = labels.geometry.world_to_ijk @ geometry.ijk_to_world
    done: dict[int, np.ndarray] = {}
    segments = []
    for segment in labels.segments:
        key = id(segment.layer)
        if key not in done:
            done[key] = _nearest(segment.layer, target_to_source, geometry)
        segments.append(replace(segment, layer=done[key]))
    return Labels(geometry, tuple(segments))


def fitted(labels: Labels, geometry: VolumeGeometry) -> Labels:
    """The labels on the volume's grid if that needs no resampling (flip, permutation, crop), else `GeometryError`."""
    if labels.geometry.matches(geometry):
        return replace(labels, geometry=geometry)
    target_to_source = labels.geometry.world_to_ijk @ geometry.ijk_to_world
    rounded = np.rint(target_to_source)
    is_permutation = (np.abs(rounded[:3, :3]).sum(axis=0) == 1).all() and (
        np.abs(rounded[:3, :3]).sum(axis=1) == 1
    ).all()
    ends = np.array([[*geometry.size_ijk, 1], [1, 1, 1, 1]], dtype=float).T
    if not is_permutation or np.abs((target_to_source - rounded) @ ends).max() > _SAME_VOXEL:
        check_same_grid(labels.geometry, geometry)
    moved = labels_on_grid(labels, geometry)
    before, after = (sum(int(s.mask.sum()) for s in which.segments) for which in (labels, moved))
    if after < before:
        logger.warning("%d labelled voxels lie outside the volume and are left out", before - after)
    return moved


def _nearest(layer: np.ndarray, target_to_source: np.ndarray, geometry: VolumeGeometry) -> np.ndarray:
    linear, offset = target_to_source[:3, :3], target_to_source[:3, 3]
    size = np.array(layer.shape[::-1])
    result = np.zeros(geometry.shape_kji, layer.dtype)
    i, j = np.meshgrid(np.arange(geometry.size_ijk[0]), np.arange(geometry.size_ijk[1]))
    in_plane = i[..., None] * linear[:, 0] + j[..., None] * linear[:, 1] + offset
    for k in range(geometry.size_ijk[2]):
        source = np.floor(in_plane + k * linear[:, 2] + 0.5).astype(np.intp)
        inside = ((source >= 0) & (source < size)).all(axis=-1)
        source = source[inside]
        result[k][inside] = layer[source[:, 2], source[:, 1], source[:, 0]]
    return result

"""A synthetic patient for tests and demonstrations: CT, MR, PET or ultrasound of an abdomen, with exact truth.

The body lives in millimetres (world = LPS). A volume is that body seen through a grid, so the same patient can be
scanned again on a tilted, flipped or permuted grid, and a mask is the sign of a function at the voxel's centre.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from SegmentAnythingMedLib import phantom_imaging
from SegmentAnythingMedLib.errors import VolumeError
from SegmentAnythingMedLib.geometry import VolumeGeometry
from SegmentAnythingMedLib.phantom_anatomy import AIR, HEART_MM, MESENTERY, VEIN, Anatomy, Part, anatomy
from SegmentAnythingMedLib.phantom_shapes import Region, Shape, rotation
from SegmentAnythingMedLib.volume import Modality, Volume

KINDS = ("CT", "MR", "PET", "US")
BEAT_S = 0.9
_CHUNK_VOXELS = 1_000_000
_WORKERS = 2
_LATTICE_MM = 4.0


@dataclass(frozen=True, eq=False)
class Structure:
    """An organ on the phantom's grid.

    Parameters
    ----------
    name
        For people, in English.
    color
        Red, green, blue in 0 to 1.
    label
        Its value in `Phantom.labelmap`, from 1.
    """

    name: str
    color: tuple[float, float, float]
    label: int
    _phantom: Phantom = field(repr=False)

    def mask(self, time: int = 0) -> np.ndarray:
        """(K, J, I) bool: voxels whose centre is inside the organ at a time point."""
        mask = np.zeros(self._phantom.volume.geometry.shape_kji, bool)
        for piece in self._phantom._truth(time).get(self.name, ()):
            piece.add_to(mask)
        return mask


@dataclass(frozen=True, eq=False)
class _Piece:
    """A box of a mask, bit-packed."""

    region: Region
    bits: np.ndarray

    @classmethod
    def of(cls, region: Region, inside: np.ndarray) -> _Piece:
        return cls(region, np.packbits(inside))

    def add_to(self, mask: np.ndarray) -> None:
        shape = [part.stop - part.start for part in self.region]
        mask[self.region] = np.unpackbits(self.bits, count=int(np.prod(shape))).reshape(shape).view(bool)


@dataclass(frozen=True, eq=False)
class Phantom:
    """A synthetic scan.

    Parameters
    ----------
    volume
        What the scanner saw; world is LPS millimetres.
    seed
        The patient.
    """

    volume: Volume
    seed: int
    _known: dict[int, dict[str, list[_Piece]]] = field(default_factory=dict, repr=False)

    def body(self, time: int = 0) -> Anatomy:
        """The implicit solids behind the voxels of a time point, in world millimetres."""
        return anatomy(self.seed, self.volume.check_time(time) / self.volume.time_count)

    @cached_property
    def structures(self) -> tuple[Structure, ...]:
        """Organs with at least one voxel on this grid at the first time point; they may overlap (lesion, liver)."""
        present, body = self._truth(0), self.body(0)
        labels = enumerate(body.organs, start=1)
        return tuple(Structure(o.name, o.color, label, self) for label, o in labels if o.name in present)

    def structure(self, name: str) -> Structure:
        """The structure with this name, or a `VolumeError` that lists the names."""
        for structure in self.structures:
            if structure.name == name:
                return structure
        names = ", ".join(structure.name for structure in self.structures)
        raise VolumeError(f"The phantom shows no {name!r}; it has: {names}.")

    def labelmap(self, time: int = 0) -> np.ndarray:
        """(K, J, I) uint8 of `Structure.label`; where organs overlap the later one (lesion, wall) wins."""
        labels = np.zeros(self.volume.geometry.shape_kji, np.uint8)
        for structure in self.structures:
            labels[structure.mask(time)] = structure.label
        return labels

    def _truth(self, time: int) -> dict[str, list[_Piece]]:
        """All organs at a time point, evaluated together once, since they share most of their shapes."""
        if time not in self._known:
            geometry, body = self.volume.geometry, self.body(time)
            pieces: dict[str, list[_Piece]] = {}
            for start_k, stop_k in _chunks(geometry):
                block = _Block(geometry, body, start_k, stop_k)
                for organ in body.organs:
                    (k, j, i), values = block.evaluate(organ.shape)
                    inside = values <= 0
                    if inside.any():
                        region = slice(k.start + start_k, k.stop + start_k), j, i
                        pieces.setdefault(organ.name, []).append(_Piece.of(region, inside))
            self._known[time] = pieces
        return self._known[time]


def make_phantom(
    kind: str = "CT",
    size_ijk: tuple[int, int, int] = (192, 160, 56),
    spacing_mm: tuple[float, float, float] = (1.6, 1.6, 4.0),
    tilt_deg: tuple[float, float, float] = (8.0, -5.0, 0.0),
    flip: tuple[bool, bool, bool] = (False, False, False),
    axes: tuple[int, int, int] = (0, 1, 2),
    time_count: int = 1,
    seed: int = 0,
    *,
    center_mm: tuple[float, float, float] | None = None,
    geometry: VolumeGeometry | None = None,
) -> Phantom:
    """Scan a synthetic patient.

    Parameters
    ----------
    kind
        ``CT`` (int16 HU), ``MR`` (uint16), ``PET`` (float32 SUV) or ``US`` (uint8 B-mode sector).
    size_ijk, spacing_mm
        Grid before ``flip`` and ``axes``: along the patient's left, back and head.
    tilt_deg
        Turns the grid about x, then y, then z, around its centre.
    flip
        Which of the grid's axes run backwards. The voxels' places in the patient stay the same.
    axes
        Permutation: axis n of the result is axis ``axes[n]`` of the grid before. The places stay the same.
    time_count
        More than one gives a heart beat of 0.9 s, ``times_s`` set; the default centre is then the heart.
    seed
        The patient: another seed is another person, with another lesion. Noise differs too.
    center_mm
        Body point at the grid's centre; default (0, 0, 0), between the kidneys.
    geometry
        Use this grid instead of all the above, to scan the same patient on any other one. World must be LPS.

    Returns
    -------
    Phantom
        Same arguments, same voxels.

    Raises
    ------
    VolumeError
        If ``kind`` is unknown, ``time_count`` below 1 or ``axes`` no permutation.
    """
    if kind not in KINDS:
        raise VolumeError(f"Phantom kind {kind!r} is not known: use {', '.join(KINDS)}.")
    if time_count < 1:
        raise VolumeError(f"A phantom needs at least one time point, not {time_count}.")
    if sorted(axes) != [0, 1, 2]:
        raise VolumeError(f"axes must be a permutation of 0, 1, 2, got {axes}.")
    if geometry is None:
        center = center_mm or ((0.0, 0.0, 0.0) if time_count == 1 else (HEART_MM[0] / 2, 0.0, HEART_MM[2] - 20))
        geometry = _grid(size_ijk, spacing_mm, tilt_deg, flip, axes, center)
    voxels = np.stack(list(_scans(kind, geometry, time_count, seed)))[:, np.newaxis]
    times = tuple(BEAT_S * n / time_count for n in range(time_count)) if time_count > 1 else ()
    return Phantom(Volume(voxels, geometry, Modality(kind), f"phantom {kind}", times), seed)


def largest_slice_box(mask: np.ndarray, axis: int) -> tuple[int, tuple[int, int, int, int]]:
    """Where a person would draw the first box: the slice with most voxels, and the tight box there.

    Parameters
    ----------
    mask
        (K, J, I) bool.
    axis
        Depth axis of the slices: 0 = I, 1 = J, 2 = K.

    Returns
    -------
    index, box
        Slice index along ``axis``; inclusive first and last voxel (a0, b0, a1, b1) of the other two axes in IJK
        order: (J, K) for axis 0, (I, K) for 1, (I, J) for 2.

    Raises
    ------
    VolumeError
        If the mask is empty.
    """
    depth = 2 - axis
    counts = np.count_nonzero(mask, axis=tuple(n for n in range(3) if n != depth))
    if not counts.any():
        raise VolumeError("The mask is empty: it has no largest slice.")
    index = int(np.argmax(counts))
    slower, faster = np.nonzero(mask[(slice(None),) * depth + (index,)])
    return index, (int(faster.min()), int(slower.min()), int(faster.max()), int(slower.max()))


def middle_box(
    mask: np.ndarray, geometry: VolumeGeometry, axis: int
) -> tuple[int, tuple[tuple[int, int, int], tuple[int, int, int]]]:
    """`largest_slice_box` as a slice index and two inclusive corners (I, J, K) of the grid ``geometry``."""
    if mask.shape != geometry.shape_kji:
        raise VolumeError(f"The mask {mask.shape} does not fit the geometry {geometry.shape_kji}.")
    index, (a0, b0, a1, b1) = largest_slice_box(mask, axis)
    low, high = [a0, b0], [a1, b1]
    low.insert(axis, index)
    high.insert(axis, index)
    return index, (tuple(low), tuple(high))


def _grid(
    size_ijk: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    tilt_deg: tuple[float, float, float],
    flip: tuple[bool, bool, bool],
    axes: tuple[int, int, int],
    center_mm: tuple[float, float, float],
) -> VolumeGeometry:
    directions = rotation(tilt_deg) * np.where(flip, -1.0, 1.0)
    directions, spacing = directions[:, list(axes)], np.asarray(spacing_mm, float)[list(axes)]
    size = tuple(size_ijk[axis] for axis in axes)
    origin = np.asarray(center_mm) - directions @ (spacing * (np.asarray(size) - 1) / 2)
    return VolumeGeometry.from_spacing(size, tuple(spacing), directions, tuple(origin))


def _chunks(geometry: VolumeGeometry) -> list[tuple[int, int]]:
    """Runs of slices small enough to work on at once."""
    size_i, size_j, size_k = geometry.size_ijk
    count = max(-(-size_i * size_j * size_k // _CHUNK_VOXELS), 1)
    bounds = np.linspace(0, size_k, min(count, size_k) + 1).astype(int)
    return list(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True))


class _Block:
    """Some slices of the grid with their body coordinates; a `phantom_shapes.Block`."""

    def __init__(self, geometry: VolumeGeometry, body: Anatomy, start_k: int, stop_k: int) -> None:
        size_i, size_j, _ = geometry.size_ijk
        self.geometry, self.body, self.start_k = geometry, body, start_k
        self.shape = (stop_k - start_k, size_j, size_i)
        thin = phantom_imaging.body_coordinates(geometry, (0, 0, start_k), self.shape)
        self._xyz = [np.broadcast_to(c, self.shape) for c in body.warped(*thin)]
        self._known: dict[Shape, tuple[Region, np.ndarray]] = {}

    def region(self, low: np.ndarray, high: np.ndarray) -> Region:
        """The voxels that a box in body mm may touch; possibly empty."""
        matrix = self.geometry.world_to_ijk
        middle = matrix[:3, :3] @ ((low + high) / 2) + matrix[:3, 3]
        reach = np.abs(matrix[:3, :3]) @ ((high - low) / 2 + self.body.warp_mm) + 1
        offset = np.array([self.start_k, 0, 0])
        first = np.clip(np.floor(middle - reach)[::-1] - offset, 0, self.shape).astype(int)
        last = np.clip(np.ceil(middle + reach)[::-1] - offset + 1, first, self.shape).astype(int)
        return tuple(slice(int(a), int(b)) for a, b in zip(first, last, strict=True))

    def coordinates(self, region: Region) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Body x, y, z of a region's voxels, float32 (K, J, I)."""
        x, y, z = (c[region] for c in self._xyz)
        return x, y, z

    def evaluate(self, shape: Shape) -> tuple[Region, np.ndarray]:
        """A shape's region and its field there; kept, so not to be written to."""
        if shape not in self._known:
            self._known[shape] = shape.sample(self)
        return self._known[shape]


def _scans(kind: str, geometry: VolumeGeometry, time_count: int, seed: int) -> Iterator[np.ndarray]:
    """Finished (K, J, I) images, one per time point; what does not beat is painted once."""
    lattice = _lattice(seed)
    chunks = _chunks(geometry)
    still: dict[int, np.ndarray] = {}

    def scan(number: int, time: int, body: Anatomy) -> np.ndarray:
        start_k, stop_k = chunks[number]
        block = _Block(geometry, body, start_k, stop_k)
        texture = _texture(geometry, start_k, block.shape, lattice)
        if time == 0:
            image = np.full(block.shape, getattr(AIR, kind), np.float32)
            _paint(image, kind, block, texture, beats=False)
            if time_count > 1:
                still[number] = image.copy()
        else:
            image = still[number].copy()
        _paint(image, kind, block, texture, beats=True)
        rng = np.random.default_rng([seed, time, number])
        if kind == "CT":
            return phantom_imaging.ct(image, geometry, rng)
        return phantom_imaging.mr(image, geometry, start_k, rng) if kind == "MR" else image

    for time in range(time_count):
        body = anatomy(seed, time / time_count, ribs=kind != "US")
        with ThreadPoolExecutor(_WORKERS) as pool:
            images = list(pool.map(lambda number: scan(number, time, body), range(len(chunks))))  # noqa: B023
        whole = images[0] if len(images) == 1 else np.concatenate(images)
        if kind in ("PET", "US"):
            finish = phantom_imaging.pet if kind == "PET" else phantom_imaging.ultrasound
            whole = finish(whole, geometry, np.random.default_rng([seed, time]))
        yield whole


def _paint(image: np.ndarray, kind: str, block: _Block, texture: np.ndarray, beats: bool) -> None:
    """Coat after coat onto (K, J, I) float32, in place; edges mix by how much of a voxel the part fills."""
    for part in block.body.parts:
        if part.beats != beats:
            continue
        region, values = block.evaluate(part.shape)
        if values.size == 0 or values.min() > 4 * max(block.geometry.spacing_mm):
            continue
        share = _coverage(values)
        target = image[region]
        coat = _coat(part, kind, texture[region])
        target += share * (coat - target)


def _coat(part: Part, kind: str, texture: np.ndarray) -> np.ndarray:
    """A tissue's values with its texture; fat holds small vessels."""
    tissue, value = part.tissue, np.float32(getattr(part.tissue, kind))
    if kind == "CT":
        coat = value + np.float32(tissue.texture_hu) * texture
    else:
        coat = value * (1 + np.float32(min(tissue.texture_hu / 70, 0.2)) * texture)
    if tissue is MESENTERY:
        vessel = np.clip((texture - np.float32(1.7)) * 1.2, 0, 0.75)
        coat += vessel * (np.float32(getattr(VEIN, kind)) - coat)
    return coat


def _coverage(values: np.ndarray) -> np.ndarray:
    """How much of each voxel is inside: the field over its change from one voxel to the next."""
    change = np.full(values.shape, 1e-3, np.float32)
    for axis in range(3):
        if values.shape[axis] > 1:
            step = np.abs(np.diff(values, axis=axis))
            ends = [(0, 1) if n == axis else (0, 0) for n in range(3)]
            change += np.pad(step, ends, mode="edge")
    return np.clip(np.float32(0.5) - values / change, 0, 1)


def _lattice(seed: int) -> np.ndarray:
    """A periodic block of smooth noise with unit variance."""
    from scipy import ndimage

    noise = np.random.default_rng([seed, 7]).standard_normal((44, 44, 44), dtype=np.float32)
    fine, coarse = (ndimage.gaussian_filter(noise, sigma, mode="wrap") for sigma in (0.8, 2.2))
    total = fine / fine.std() + coarse / coarse.std()
    return total / total.std()


def _texture(geometry: VolumeGeometry, start_k: int, shape: tuple[int, int, int], lattice: np.ndarray) -> np.ndarray:
    """The lattice, repeated through the body, at the voxels of some slices."""
    from scipy import ndimage

    matrix = geometry.ijk_to_world / _LATTICE_MM
    start = matrix[:3, :3] @ (0, 0, start_k) + matrix[:3, 3]
    return ndimage.affine_transform(
        lattice, matrix[2::-1, 2::-1], start[::-1], output_shape=shape, order=1, mode="grid-wrap", output=np.float32
    )

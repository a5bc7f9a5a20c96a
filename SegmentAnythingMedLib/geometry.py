"""Where voxels are: the grid of a volume, the planes through it, and the way from slice pixels to voxels and back.

Frames used everywhere in the library:

``ijk``
    Continuous voxel index, voxel centres at integers, I fastest (SimpleITK's index order). Arrays are (K, J, I).
``rc``
    Continuous slice pixel (row, column), pixel centres at integers.
``world``
    Millimetres, whatever 4x4 matrix the volume came with (LPS from files, RAS from a Slicer scene).

No other module transposes, flips or resamples arrays between volume and slice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from SegmentAnythingMedLib.errors import GeometryError

AXIS_NAMES = "IJK"
SNAP_DEGREES = 1.0
"""A plane whose normal is this close to an IJK axis is a slice of the array, not an oblique plane."""

_ANATOMICAL_AXES = {"sagittal": 0, "coronal": 1, "axial": 2}
_MAX_OBLIQUE_SIDE = 1024
_MAX_MM = 1e7


@dataclass(frozen=True, eq=False)
class VolumeGeometry:
    """The grid of a volume: a 4x4 matrix from voxel index to millimetres, and a size.

    Parameters
    ----------
    ijk_to_world
        (4, 4) float64; maps homogeneous continuous IJK to world millimetres. May rotate, flip, permute and shear.
    size_ijk
        Number of voxels along I, J, K.

    Raises
    ------
    GeometryError
        If the matrix is not finite or not invertible, or a size is below 1.
    """

    ijk_to_world: np.ndarray
    size_ijk: tuple[int, int, int]

    def __post_init__(self) -> None:
        matrix = np.array(self.ijk_to_world, dtype=np.float64)
        if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or np.abs(matrix).max() > _MAX_MM:
            raise GeometryError(f"ijk_to_world must be a 4x4 matrix of believable millimetres, got {matrix.tolist()}.")
        if abs(np.linalg.det(matrix[:3, :3])) < 1e-12:
            raise GeometryError("The volume's directions are degenerate: two of its axes point the same way.")
        if len(self.size_ijk) != 3 or min(self.size_ijk) < 1:
            raise GeometryError(f"A volume needs at least one voxel along each axis, got size {self.size_ijk}.")
        matrix.setflags(write=False)
        object.__setattr__(self, "ijk_to_world", matrix)
        object.__setattr__(self, "size_ijk", tuple(int(n) for n in self.size_ijk))

    @classmethod
    def from_spacing(
        cls,
        size_ijk: tuple[int, int, int],
        spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0),
        directions: np.ndarray | None = None,
        origin_mm: tuple[float, float, float] = (0.0, 0.0, 0.0),
    ) -> VolumeGeometry:
        """Grid from spacing (I, J, K), a (3, 3) matrix whose columns are the axes' directions, and an origin."""
        matrix = np.eye(4)
        matrix[:3, :3] = (np.eye(3) if directions is None else np.asarray(directions)) * np.asarray(spacing_mm)
        matrix[:3, 3] = origin_mm
        return cls(matrix, size_ijk)

    @property
    def shape_kji(self) -> tuple[int, int, int]:
        """Shape of an array on this grid."""
        return self.size_ijk[2], self.size_ijk[1], self.size_ijk[0]

    @cached_property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between voxel centres along I, J, K."""
        return tuple(float(s) for s in np.linalg.norm(self.ijk_to_world[:3, :3], axis=0))

    @property
    def voxel_volume_mm3(self) -> float:
        return float(abs(np.linalg.det(self.ijk_to_world[:3, :3])))

    @cached_property
    def world_to_ijk(self) -> np.ndarray:
        """(4, 4) inverse of ``ijk_to_world``."""
        return np.linalg.inv(self.ijk_to_world)

    def world_from_ijk(self, points_ijk: np.ndarray) -> np.ndarray:
        """(..., 3) continuous IJK to (..., 3) world millimetres."""
        return _transform(self.ijk_to_world, points_ijk)

    def ijk_from_world(self, points_world: np.ndarray) -> np.ndarray:
        """(..., 3) world millimetres to (..., 3) continuous IJK."""
        return _transform(self.world_to_ijk, points_world)

    def contains(self, points_ijk: np.ndarray) -> np.ndarray:
        """Which of (..., 3) points lie inside a voxel: half a voxel beyond the first and last centre, inclusive."""
        points = np.asarray(points_ijk, dtype=np.float64)
        return ((points >= -0.5) & (points <= np.asarray(self.size_ijk) - 0.5)).all(axis=-1)

    def matches(self, other: VolumeGeometry, tolerance_mm: float = 1e-2) -> bool:
        """Same size, and every corner within ``tolerance_mm``."""
        if self.size_ijk != other.size_ijk:
            return False
        corners = _corners(self.size_ijk)
        return bool(np.abs(self.world_from_ijk(corners) - other.world_from_ijk(corners)).max() <= tolerance_mm)

    def nearest_axis(self, direction_world: np.ndarray) -> int:
        """The IJK axis whose slices' normal is closest to a world direction."""
        direction = np.asarray(direction_world, dtype=np.float64)
        return int(np.argmax([abs(self.slice_normal_world(axis) @ direction) for axis in range(3)]))

    def slice_normal_world(self, axis: int) -> np.ndarray:
        """Unit normal of the slices along an IJK axis, in increasing index (differs from the axis if sheared)."""
        normal = self.world_to_ijk[axis, :3]
        return normal / np.linalg.norm(normal)


@dataclass(frozen=True)
class Plane:
    """An orientation of slices: along an IJK axis of the array, or oblique.

    Parameters
    ----------
    axis
        Depth axis, 0 = I, 1 = J, 2 = K; None for an oblique plane.
    normal_ijk
        Oblique only: the displacement in voxels that goes 1 mm along the plane's normal.
    """

    axis: int | None = 2
    normal_ijk: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        if (self.axis is None) == (self.normal_ijk is None):
            raise GeometryError("A plane has either an IJK axis or, if it is oblique, a normal.")
        if self.axis is not None and self.axis not in (0, 1, 2):
            raise GeometryError(f"A plane's axis is 0 (I), 1 (J) or 2 (K), not {self.axis}.")
        if self.normal_ijk is not None:
            normal = tuple(round(float(n), 9) for n in self.normal_ijk)
            if len(normal) != 3 or not all(abs(n) < _MAX_MM for n in normal) or not any(normal):
                raise GeometryError(f"An oblique plane needs a finite normal that is not zero, got {self.normal_ijk}.")
            object.__setattr__(self, "normal_ijk", normal)

    @property
    def is_oblique(self) -> bool:
        return self.axis is None

    def __str__(self) -> str:
        if self.axis is not None:
            return f"slices along {AXIS_NAMES[self.axis]}"
        return "oblique slices along ({:.3f}, {:.3f}, {:.3f})".format(*self.normal_ijk)

    @classmethod
    def named(cls, name: str, geometry: VolumeGeometry) -> Plane:
        """The plane called ``axial``, ``coronal`` or ``sagittal`` (nearest IJK axis in patient space), or I, J, K.

        Each IJK axis gets one name: a volume tilted by 45 degrees has no two equal planes.
        """
        if name.upper() in AXIS_NAMES and len(name) == 1:
            return cls(AXIS_NAMES.index(name.upper()))
        if name not in _ANATOMICAL_AXES:
            raise GeometryError(f"Plane {name!r} is not known: use axial, coronal, sagittal, I, J or K.")
        return cls(anatomical_axes(geometry)[name])

    @classmethod
    def from_normal(cls, normal_world: np.ndarray, geometry: VolumeGeometry) -> Plane:
        """The plane with this normal (world direction, any length and sign).

        Within `SNAP_DEGREES` of the normal of an array slice it is that array slice.
        """
        normal = np.asarray(normal_world, dtype=np.float64)
        length = np.linalg.norm(normal)
        if not np.isfinite(length) or length == 0:
            raise GeometryError(f"A plane's normal must be a finite direction, got {normal.tolist()}.")
        normal = normal / length
        axis = geometry.nearest_axis(normal)
        cosine = abs(geometry.slice_normal_world(axis) @ normal)
        if cosine >= math.cos(math.radians(SNAP_DEGREES)):
            return cls(axis)
        leading = np.argmax(np.abs(normal))
        normal = normal * np.sign(normal[leading])
        return cls(None, tuple(np.round(geometry.world_to_ijk[:3, :3] @ normal, 6).tolist()))

    def settled(self, geometry: VolumeGeometry) -> Plane:
        """The same orientation as `from_normal` gives it: unit length, one sign, snapped to the array's slices."""
        if self.normal_ijk is None:
            return self
        settled = Plane.from_normal(geometry.ijk_to_world[:3, :3] @ np.asarray(self.normal_ijk), geometry)
        if settled.normal_ijk is None or np.abs(np.subtract(settled.normal_ijk, self.normal_ijk)).max() > 1e-5:
            return settled
        return self  # settled before, but for rounding


def anatomical_axes(geometry: VolumeGeometry) -> dict[str, int]:
    """Which IJK axis is the depth of ``sagittal``, ``coronal`` and ``axial`` slices; a one-to-one assignment."""
    normals = np.abs([geometry.slice_normal_world(axis) for axis in range(3)])
    permutations = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
    best = max(permutations, key=lambda axes: sum(normals[axis, world] for world, axis in enumerate(axes)))
    return {name: best[world] for name, world in _ANATOMICAL_AXES.items()}


@dataclass(frozen=True)
class SliceKey:
    """Identity of a slice: which volume, time point, plane and index along it."""

    volume: str
    time: int
    plane: Plane
    index: int


@dataclass(frozen=True, eq=False)
class SliceGeometry:
    """The stack of all parallel slices of one plane through a volume: (depth, row, column) to IJK and back.

    Parameters
    ----------
    volume
        The grid that is cut.
    plane
        Orientation. Along an IJK axis the slices are views of the array (rows and columns are the other two
        axes, slower one first). Oblique slices are resampled: pixels as fine as the finest voxel side, one slice
        per slice of the nearest IJK axis, anchored so that a slice passes through the volume's centre.
    """

    volume: VolumeGeometry
    plane: Plane

    @cached_property
    def stack_to_ijk(self) -> np.ndarray:
        """(4, 4) matrix from homogeneous (depth, row, column) to IJK."""
        return self._stack[0]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of a slice."""
        return self._stack[1][1:]

    @property
    def count(self) -> int:
        """Number of slices."""
        return self._stack[1][0]

    @cached_property
    def spacing_mm(self) -> tuple[float, float]:
        """Size of a pixel: along a row step, along a column step."""
        steps = self.volume.ijk_to_world[:3, :3] @ self.stack_to_ijk[:3, :3]
        return float(np.linalg.norm(steps[:, 1])), float(np.linalg.norm(steps[:, 2]))

    @cached_property
    def thickness_mm(self) -> float:
        """Distance between neighbouring slices, along their normal."""
        steps = self.volume.ijk_to_world[:3, :3] @ self.stack_to_ijk[:3, :3]
        normal = np.cross(steps[:, 1], steps[:, 2])
        return float(abs(steps[:, 0] @ normal) / np.linalg.norm(normal))

    def check_index(self, index: int) -> int:
        """The index itself, or a `GeometryError` that names the valid range."""
        if not 0 <= index < self.count:
            raise GeometryError(f"Slice {index} does not exist: {self.plane} run from 0 to {self.count - 1}.")
        return int(index)

    def ijk_from_pixels(self, index: float, pixels_rc: np.ndarray) -> np.ndarray:
        """(..., 2) pixels of slice ``index`` to (..., 3) IJK."""
        pixels = np.asarray(pixels_rc, dtype=np.float64)
        depth = np.full(pixels.shape[:-1] + (1,), float(index))
        return _transform(self.stack_to_ijk, np.concatenate([depth, pixels], axis=-1))

    def pixels_from_ijk(self, points_ijk: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(..., 3) IJK to (...) continuous slice index and (..., 2) pixels."""
        stack = _transform(self._ijk_to_stack, points_ijk)
        return stack[..., 0], stack[..., 1:]

    def extract(self, array: np.ndarray, index: int, order: int = 1) -> np.ndarray:
        """Slice ``index`` of a (K, J, I) array, (rows, columns).

        Along an IJK axis a view without a copy. Oblique: resampled with splines of ``order`` (0 nearest, 1 linear),
        outside the volume the nearest voxel's value; integer arrays come back as float32 when ``order`` > 0.
        """
        self.check_index(index)
        if self.plane.axis is not None:
            return _view(array, self.plane.axis, index)
        from scipy import ndimage

        rows, columns = np.meshgrid(*map(np.arange, self.shape), indexing="ij")
        ijk = self.ijk_from_pixels(index, np.stack([rows, columns], axis=-1))
        source = array if order == 0 else array.astype(np.float32, copy=False)
        coordinates = np.stack([ijk[..., 2], ijk[..., 1], ijk[..., 0]])
        low, block = _cropped(source, coordinates)
        return ndimage.map_coordinates(block, coordinates - low[:, None, None], order=order, mode="nearest")

    def region(self, index: int) -> tuple[object, ...]:
        """Index of the slice's voxels in a (K, J, I) array.

        Every voxel belongs to the slice nearest to its centre, so the regions of a stack leave no hole. Along an IJK
        axis a basic index (a view, rows and columns), oblique three arrays (k, j, i).
        """
        self.check_index(index)
        if self.plane.axis is not None:
            return (slice(None),) * (2 - self.plane.axis) + (index,)
        return self._voxels_of_slice(index)

    def values(self, mask: np.ndarray, index: int) -> np.ndarray:
        """A (rows, columns) mask of slice ``index`` at the voxels of its `region`."""
        if self.plane.axis is not None:
            return mask
        k, j, i = self._voxels_of_slice(index)
        _, pixels = self.pixels_from_ijk(np.stack([i, j, k], axis=-1))
        rows, columns = np.clip(np.rint(pixels).astype(int), 0, np.asarray(self.shape) - 1).T
        return mask[rows, columns]

    def paste(self, mask: np.ndarray, index: int, target: np.ndarray) -> None:
        """Write a (rows, columns) mask of slice ``index`` into a (K, J, I) array, in place."""
        target[self.region(index)] = self.values(mask, index)

    def _voxels_of_slice(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Voxels (k, j, i) whose centre is nearest to an oblique slice: a few on each line of the steepest axis."""
        depth = self._ijk_to_stack[0]
        steep = int(np.argmax(np.abs(depth[:3])))
        first, second = (axis for axis in range(3) if axis != steep)
        a, b = np.meshgrid(*(np.arange(self.volume.size_ijk[axis]) for axis in (first, second)), indexing="ij")
        base = depth[first] * a + depth[second] * b + depth[3]
        lowest = np.ceil(np.minimum((index - 0.5 - base) / depth[steep], (index + 0.5 - base) / depth[steep]) - 1e-6)
        found = []
        for step in range(int(np.ceil(1 / abs(depth[steep]))) + 1):
            along = (lowest + step).astype(int)
            near = np.rint(base + depth[steep] * along) == index
            near &= (along >= 0) & (along < self.volume.size_ijk[steep])
            ijk = np.empty((3, int(near.sum())), dtype=int)
            ijk[first], ijk[second], ijk[steep] = a[near], b[near], along[near]
            found.append(ijk)
        i, j, k = np.concatenate(found, axis=1)
        return k, j, i

    @cached_property
    def _ijk_to_stack(self) -> np.ndarray:
        return np.linalg.inv(self.stack_to_ijk)

    @cached_property
    def _stack(self) -> tuple[np.ndarray, tuple[int, int, int]]:
        if self.plane.axis is None:
            return _oblique_stack(self.volume, self.plane)
        order = [self.plane.axis, *(axis for axis in (2, 1, 0) if axis != self.plane.axis)]
        matrix = np.zeros((4, 4))
        matrix[order, range(3)] = 1.0
        matrix[3, 3] = 1.0
        return matrix, tuple(self.volume.size_ijk[axis] for axis in order)


def _oblique_stack(volume: VolumeGeometry, plane: Plane) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Matrix (depth, row, column) to IJK and shape of the stack that covers the whole volume."""
    linear = volume.ijk_to_world[:3, :3]
    normal = linear @ np.asarray(plane.normal_ijk)
    normal /= np.linalg.norm(normal)
    across = linear[:, int(np.argmin(np.abs(normal @ (linear / np.linalg.norm(linear, axis=0)))))]
    column = across - (across @ normal) * normal
    column /= np.linalg.norm(column)
    row = np.cross(normal, column)
    depth_axis = volume.nearest_axis(normal)
    thickness = abs(linear[:, depth_axis] @ volume.slice_normal_world(depth_axis))
    axes = np.stack([normal, row, column], axis=1)
    center = volume.world_from_ijk((np.asarray(volume.size_ijk) - 1) / 2)
    extent = np.abs((volume.world_from_ijk(_corners(volume.size_ijk)) - center) @ axes).max(axis=0)
    pixel = max(min(volume.spacing_mm), 2 * max(extent[1:]) / _MAX_OBLIQUE_SIDE)
    steps = np.array([thickness, pixel, pixel])
    half = np.ceil(extent / steps - 1e-6).astype(int)
    matrix = np.eye(4)
    matrix[:3, :3] = volume.world_to_ijk[:3, :3] @ (axes * steps)
    matrix[:3, 3] = volume.ijk_from_world(center - axes @ (steps * half))
    return matrix, tuple(int(n) for n in 2 * half + 1)


def _transform(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    return np.asarray(points, dtype=np.float64) @ matrix[:3, :3].T + matrix[:3, 3]


def _corners(size_ijk: tuple[int, int, int]) -> np.ndarray:
    ends = [(0, n - 1) for n in size_ijk]
    return np.array([(i, j, k) for i in ends[0] for j in ends[1] for k in ends[2]], dtype=np.float64)


def _view(array: np.ndarray, axis: int, index: int) -> np.ndarray:
    """Slice of a (K, J, I) array along an IJK axis, without a copy."""
    return array[(slice(None),) * (2 - axis) + (index,)]


def _cropped(array: np.ndarray, coordinates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The block of ``array`` that (3, ...) coordinates touch, and its first index."""
    flat = coordinates.reshape(3, -1)
    last = np.asarray(array.shape) - 1
    low = np.clip(np.floor(flat.min(axis=1)).astype(int), 0, last)
    high = np.clip(np.ceil(flat.max(axis=1)).astype(int), 0, last)
    return low, array[low[0] : high[0] + 1, low[1] : high[1] + 1, low[2] : high[2] + 1]

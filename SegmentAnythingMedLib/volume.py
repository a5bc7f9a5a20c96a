"""A volume: voxels with a place in space and a modality. Scalar, RGB, fused, 4D and 2D images are all this type."""

from __future__ import annotations

import enum
import hashlib
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from SegmentAnythingMedLib.errors import GeometryError, VolumeError
from SegmentAnythingMedLib.geometry import VolumeGeometry


class Modality(enum.Enum):
    """What made the image; decides the automatic window."""

    CT = "CT"
    MR = "MR"
    PET = "PET"
    ULTRASOUND = "US"
    XRAY = "XR"
    COLOR = "RGB"
    UNKNOWN = ""


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxels (T, C, K, J, I) on one grid.

    Parameters
    ----------
    voxels
        (T, C, K, J, I) of any integer or floating type; T time points, C channels (1, or 3 for RGB and fused
        volumes). Never written to. NaN and infinities are allowed and handled by the window.
    geometry
        Grid shared by all channels and time points.
    modality
        Decides the automatic window; `Modality.UNKNOWN` lets the values decide.
    name
        Shown to the user.
    times_s
        Time of each time point in seconds from the first, or () if not known.
    source_files
        The DICOM files the volume was read from, in no particular order, for references in DICOM SEG; else ().
    has_spacing
        Whether the size of a voxel came with the image. If not, the geometry's spacing is made up: nothing may be
        stated in millimetres or millilitres.
    has_orientation
        Whether the image's place and directions in the patient came with it. If not, the geometry's directions are
        made up: nothing may be called left, anterior or axial.

    Raises
    ------
    VolumeError
        If the array is not five-dimensional, has no voxels, no numeric type, more than 4 channels, or does not fit
        the geometry.
    """

    voxels: np.ndarray = field(repr=False)
    geometry: VolumeGeometry
    modality: Modality = Modality.UNKNOWN
    name: str = "volume"
    times_s: tuple[float, ...] = ()
    source_files: tuple[str, ...] = field(default=(), repr=False)
    has_spacing: bool = True
    has_orientation: bool = True

    def __post_init__(self) -> None:
        voxels = self.voxels
        if voxels.ndim != 5:
            raise VolumeError(f"Voxels must be (T, C, K, J, I), got an array of shape {voxels.shape}.")
        if voxels.size == 0:
            raise VolumeError(f"The volume {self.name!r} has no voxels (shape {voxels.shape}).")
        if voxels.dtype.kind not in "iufb":
            raise VolumeError(f"Voxels of type {voxels.dtype} are not supported: convert to integers or floats.")
        if voxels.shape[1] > 4:
            raise VolumeError(
                f"The volume {self.name!r} has {voxels.shape[1]} values per voxel; choose one with a component index."
            )
        if voxels.shape[2:] != self.geometry.shape_kji:
            raise VolumeError(f"Voxels {voxels.shape[2:]} do not fit the geometry {self.geometry.shape_kji}.")

    @classmethod
    def from_array(cls, array: np.ndarray, geometry: VolumeGeometry | None = None, **fields: object) -> Volume:
        """Volume from a (K, J, I) array (or a 2D image (J, I)), by default on a grid of 1 mm."""
        array = np.asarray(array)
        if array.ndim == 2:
            array = array[np.newaxis]
        if array.ndim != 3:
            raise VolumeError(f"Expected a (K, J, I) or (J, I) array, got shape {array.shape}.")
        if array.size == 0:
            raise VolumeError(f"The array has no voxels (shape {array.shape}).")
        geometry = geometry or VolumeGeometry.from_spacing(array.shape[::-1])
        return cls(array[np.newaxis, np.newaxis], geometry, **fields)

    @property
    def time_count(self) -> int:
        return self.voxels.shape[0]

    @property
    def channel_count(self) -> int:
        return self.voxels.shape[1]

    @property
    def nbytes(self) -> int:
        return self.voxels.nbytes

    def check_time(self, time: int) -> int:
        """The time index itself, or a `GeometryError` that names the valid range."""
        if not 0 <= time < self.time_count:
            raise GeometryError(f"Time point {time} does not exist: valid are 0 to {self.time_count - 1}.")
        return int(time)

    def array(self, time: int = 0, channel: int = 0) -> np.ndarray:
        """One channel at one time point, (K, J, I), a view."""
        return self.voxels[self.check_time(time), channel]

    def at_time(self, time: int) -> Volume:
        """The volume of one time point (a view of the voxels)."""
        time = self.check_time(time)
        return replace(self, voxels=self.voxels[time : time + 1], times_s=self.times_s[time : time + 1])

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits of the voxels' and the grid's hash: the identity of the volume in slice keys."""
        digest = hashlib.blake2b(digest_size=8)
        digest.update(repr((self.voxels.shape, self.voxels.dtype.str)).encode())
        digest.update(np.round(self.geometry.ijk_to_world, 6).tobytes())
        for time in range(self.time_count):
            for channel in range(self.channel_count):
                digest.update(np.ascontiguousarray(self.voxels[time, channel]).data)
        return digest.hexdigest()

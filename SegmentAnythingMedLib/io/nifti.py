"""NIfTI-1 and NIfTI-2 in one file (.nii, .nii.gz), with the matrix kept as it is, sheared ones too.

SimpleITK refuses a NIfTI file whose directions are not orthonormal and takes spacings from another field than
directions, so the header is read here. Which of sform and qform counts follows ITK (itkNiftiImageIO.cxx), so that a
file lies here where Slicer puts it.
"""

from __future__ import annotations

import gzip
import logging
import struct
from pathlib import Path

import numpy as np

from SegmentAnythingMedLib.errors import GeometryError, VolumeError
from SegmentAnythingMedLib.geometry import VolumeGeometry
from SegmentAnythingMedLib.io.voxels import Raster, check_claim, grid, open_packed, read_exactly, rescaled

logger = logging.getLogger(__name__)

_LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 128: "u1", 256: "i1", 512: "u2", 768: "u4", 1024: "i8",
          1280: "u8", 2304: "u1"}  # fmt: skip
_COLORS = {128: 3, 2304: 4}
_CODES = {"u1": 2, "i2": 4, "i4": 8, "f4": 16, "f8": 64, "i1": 256, "u2": 512, "u4": 768, "i8": 1024, "u8": 1280}
_MM = {1: 1000.0, 3: 1e-3}
_SECONDS = {8: 1.0, 16: 1e-3, 24: 1e-6}


def is_nifti(head: bytes) -> bool:
    """Whether the first 348 bytes (unpacked) are those of a single-file NIfTI."""
    return head[344:347] == b"n+1" or head[4:7] == b"n+2"


def read_nifti(path: Path) -> Raster:
    """Voxels and grid of a single-file NIfTI.

    Raises
    ------
    VolumeError
        If the file is truncated or damaged, claims more than it can hold, or has an unsupported type.
    """
    with open_packed(path) as stream:
        header = _Header(read_exactly(stream, 540 if stream.peek(8)[4:7] == b"n+2" else 348, path).tobytes(), path)
        colors = _COLORS.get(header.datatype, 1)
        dtype = np.dtype(header.byte_order + _TYPES[header.datatype])
        packed = stream.__class__ is gzip.GzipFile
        claimed = check_claim(path, (*header.sizes, colors), dtype.itemsize, packed=packed)
        read_exactly(stream, max(header.offset - header.length, 0), path)
        values = read_exactly(stream, claimed, path).view(dtype).reshape(*header.sizes[::-1], colors)
    values = values.astype(dtype.newbyteorder("="), copy=False)
    if colors == 1:
        values = rescaled(values, *header.scaling)
    values = values.transpose(1, 0, 5, 2, 3, 4)  # from (fifth axis, T, K, J, I, colour)
    voxels = np.ascontiguousarray(values).reshape(header.sizes[3], -1, *header.sizes[2::-1])
    geometry = grid(header.ijk_to_lps, header.sizes[:3], path)
    return Raster(
        voxels[:, :3] if colors == 4 else voxels,
        geometry,
        colors > 1,
        header.times_s,
        has_orientation=max(header.codes) > 0,
    )


class _Header:
    """The fields of a NIfTI-1 or NIfTI-2 header that say what the voxels are and where."""

    def __init__(self, data: bytes, path: Path) -> None:
        self.length, self.path = len(data), path
        second = self.length == 540
        self.byte_order = "<" if struct.unpack_from("<i", data)[0] == self.length else ">"

        def get(code: str, first_at: int, second_at: int) -> tuple:
            return struct.unpack_from(self.byte_order + code, data, second_at if second else first_at)

        dims = get("8q" if second else "8h", 40, 16)
        if not 1 <= dims[0] <= 7 or min(dims[1 : dims[0] + 1]) < 1 or any(n > 1 for n in dims[6 : dims[0] + 1]):
            raise VolumeError(f"{path.name} has a damaged NIfTI header (dimensions {dims}): export it again.")
        self.sizes = tuple(int(n) for n in (*dims[1 : dims[0] + 1], 1, 1, 1, 1)[:5])
        (self.datatype,) = get("h", 70, 12)
        if self.datatype not in _TYPES:
            raise VolumeError(f"{path.name} has the NIfTI type {self.datatype}: convert it to integers or floats.")
        self.pixdim = get("8d" if second else "8f", 76, 104)
        (offset,) = get("q" if second else "f", 108, 168)
        if not np.isfinite(offset) or not 0 <= offset < 1 << 31:
            raise VolumeError(f"{path.name} has a damaged NIfTI header (data offset {offset}): export it again.")
        self.offset = int(offset)
        slope, intercept = get("2d" if second else "2f", 112, 176)
        usable = np.isfinite([slope, intercept]).all() and slope != 0
        self.scaling = (slope, intercept) if usable else (1.0, 0.0)
        self.codes = get("2i" if second else "2h", 252, 344)
        self.quaternion = get("6d" if second else "6f", 256, 352)
        self.rows = get("12d" if second else "12f", 280, 400)
        (units,) = get("i" if second else "B", 123, 500)
        self.units = int(units)

    @property
    def times_s(self) -> tuple[float, ...]:
        step = self.pixdim[4] * _SECONDS.get(self.units & 0x38, 0.0)
        if self.sizes[3] == 1 or not np.isfinite(step) or step <= 0:
            return ()
        return tuple(float(step * t) for t in range(self.sizes[3]))

    @property
    def ijk_to_lps(self) -> np.ndarray:
        qform_code, sform_code = self.codes
        if qform_code <= 0 and sform_code <= 0:
            return np.diag([*self._spacing, 1.0])
        return self._in_lps(self._sform if self._prefers_sform() else self._qform)

    def _prefers_sform(self) -> bool:
        qform_code, sform_code = self.codes
        if sform_code <= 0:
            return False
        if not np.isfinite(self._sform).all():
            return qform_code <= 0
        linear = self._sform[:3, :3]
        scales = np.linalg.norm(linear, axis=0)
        unit = linear / np.where(scales > 0, scales, 1)
        orthonormal = np.abs(unit.T @ unit - np.eye(3)).max() < 1e-3 and np.abs(scales - self._spacing).max() < 1e-3
        if qform_code <= 0:
            if not orthonormal:
                logger.warning("%s: the axes are sheared or scaled; its sform is kept exactly", self.path.name)
            return True
        return bool(orthonormal and (sform_code == 1 or np.allclose(self._sform, self._qform, atol=1e-3)))

    def _in_lps(self, ras: np.ndarray) -> np.ndarray:
        unit = _MM.get(self.units & 7, 1.0)
        return _LPS_FROM_RAS @ np.diag([unit, unit, unit, 1.0]) @ ras

    @property
    def _spacing(self) -> np.ndarray:
        spacing = np.abs(np.nan_to_num(self.pixdim[1:4]))
        return np.where(spacing > 0, spacing, 1.0)

    @property
    def _sform(self) -> np.ndarray:
        return np.vstack([np.reshape(self.rows, (3, 4)), [0, 0, 0, 1]]).astype(np.float64)

    @property
    def _qform(self) -> np.ndarray:
        b, c, d, *offset = self.quaternion
        a = np.sqrt(max(0.0, 1.0 - b * b - c * c - d * d))
        rotation = np.array([
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ])  # fmt: skip
        flip = -1.0 if self.pixdim[0] < 0 else 1.0
        matrix = np.eye(4)
        matrix[:3, :3] = rotation * (self._spacing * [1, 1, flip])
        matrix[:3, 3] = offset
        return matrix


def nifti_bytes(array: np.ndarray, geometry: VolumeGeometry) -> bytes:
    """NIfTI-1 header and voxels of a (K, J, I) array on a grid in LPS; a sheared grid is kept in the sform.

    Raises
    ------
    GeometryError
        If an axis has more than 32767 voxels, which NIfTI-1 cannot say.
    """
    if max(geometry.size_ijk) > 32767:
        raise GeometryError(f"NIfTI holds 32767 voxels along an axis, not {geometry.size_ijk}: write .nrrd.")
    ras = _LPS_FROM_RAS @ geometry.ijk_to_world
    unit = ras[:3, :3] / geometry.spacing_mm
    orthonormal = bool(np.abs(unit.T @ unit - np.eye(3)).max() < 1e-4)
    flip = -1.0 if np.linalg.det(unit) < 0 else 1.0
    dtype = array.dtype.newbyteorder("<")
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, *geometry.size_ijk, 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, _CODES[array.dtype.str[1:]], 8 * array.dtype.itemsize)
    struct.pack_into("<8f", header, 76, flip, *geometry.spacing_mm, 0, 0, 0, 0)
    struct.pack_into("<3f", header, 108, 352, 1, 0)
    header[123] = 2 | 8
    struct.pack_into("<2h", header, 252, int(orthonormal), 1)
    struct.pack_into("<6f", header, 256, *_quaternion(unit * [1, 1, flip]), *ras[:3, 3])
    struct.pack_into("<12f", header, 280, *ras[:3].ravel())
    header[344:348] = b"n+1\0"
    return bytes(header) + np.ascontiguousarray(array, dtype).tobytes()


def _quaternion(rotation: np.ndarray) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    left, _, right = np.linalg.svd(rotation)
    x, y, z, w = Rotation.from_matrix(left @ right).as_quat()
    return np.array([x, y, z]) * (-1 if w < 0 else 1)

"""NRRD: volumes, colour images, sequences (.seq.nrrd) and layered segmentations, with directions kept exactly."""

from __future__ import annotations

import gzip
import re
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from SegmentAnythingMedLib.errors import VolumeError
from SegmentAnythingMedLib.geometry import VolumeGeometry
from SegmentAnythingMedLib.io.voxels import Raster, check_claim, grid, open_packed, read_exactly, unpacked

_TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
_DTYPES = {name: code for code, names in _TYPES.items() for name in names}
_WRITTEN = {code: names[1] if len(names) > 1 else names[0] for code, names in _TYPES.items()}
_TO_LPS = {"left-posterior": (1, 1, 1), "right-anterior": (-1, -1, 1), "left-anterior": (1, -1, 1),
           "lps": (1, 1, 1), "ras": (-1, -1, 1), "las": (1, -1, 1)}  # fmt: skip
_SPATIAL = {"domain", "space", "???", ""}
_TIME = {"time", "list"}
_MAX_HEADER = 1 << 24


def read_nrrd(path: Path) -> Raster:
    """Voxels, grid and key/value pairs of a NRRD file; a list or time axis becomes T, a vector axis C.

    Raises
    ------
    VolumeError
        If the header is damaged, claims more than the file can hold, or describes something that is no image.
    """
    with open(path, "rb") as stream:
        fields, keys = _read_header(stream, path)
        axes = _Axes(fields, path)
        code = _DTYPES.get(fields.get("type", "").lower())
        if code is None:
            raise VolumeError(
                f"{path.name} has the NRRD type {fields.get('type')!r}: convert it to integers or floats."
            )
        dtype = np.dtype((">" if fields.get("endian") == "big" else "<") + code)
        encoding = fields.get("encoding", "raw").lower()
        if any(fields.get(skip, "0") != "0" for skip in ("line skip", "lineskip", "byte skip", "byteskip")):
            raise VolumeError(f"{path.name} skips a part of its data: save it again with Slicer or SimpleITK.")
        detached = fields.get("data file", fields.get("datafile"))
        if detached is None:
            values = _read_values(stream, path, axes.sizes, dtype, encoding)
        else:
            values = _read_detached(path, detached, axes.sizes, dtype, encoding)
    values = values.astype(dtype.newbyteorder("="), copy=False)
    voxels, is_color = axes.arranged(values)
    return Raster(
        voxels,
        axes.geometry(voxels.shape),
        is_color,
        _times(keys, voxels.shape[0]),
        keys,
        has_spacing=axes.has_spacing,
        has_orientation=axes.has_orientation,
    )


def _read_values(stream: BinaryIO, path: Path, sizes: tuple[int, ...], dtype: np.dtype, encoding: str) -> np.ndarray:
    claimed = check_claim(path, sizes, dtype.itemsize, packed=encoding != "raw")
    return read_exactly(unpacked(stream, encoding, path), claimed, path).view(dtype).reshape(sizes[::-1])


def _read_detached(path: Path, name: str, sizes: tuple[int, ...], dtype: np.dtype, encoding: str) -> np.ndarray:
    if Path(name).name != name or name.startswith("LIST") or "%" in name:
        raise VolumeError(f"{path.name} keeps its data in {name!r}: save it as one .nrrd file.")
    data = path.with_name(name)
    with open_packed(data) as stream:  # unpacks gzip by itself
        return _read_values(stream, data, sizes, dtype, "raw" if encoding in ("gzip", "gz") else encoding)


def _read_header(stream: BinaryIO, path: Path) -> tuple[dict[str, str], dict[str, str]]:
    fields: dict[str, str] = {}
    keys: dict[str, str] = {}
    stream.readline(64)
    while True:
        line = stream.readline(_MAX_HEADER)
        if not line and ("data file" in fields or "datafile" in fields):
            return fields, keys
        if not line.endswith(b"\n"):
            raise VolumeError(f"{path.name} ends inside its NRRD header: copy it again.")
        text = line.decode("utf-8", errors="replace").rstrip("\r\n")
        if not text:
            return fields, keys
        key, assigned, value = text.partition(":=")
        if assigned:
            keys[key] = re.sub(r"\\(.)", lambda match: "\n" if match[1] == "n" else match[1], value)
        elif not text.startswith("#"):
            key, _, value = text.partition(":")
            fields[key.strip().lower()] = value.strip()


class _Axes:
    """Which axes of a NRRD are space, time and channels, and where the spatial ones lie."""

    def __init__(self, fields: Mapping[str, str], path: Path) -> None:
        self.path = path
        try:
            self.sizes = tuple(int(n) for n in fields["sizes"].split())
            count = len(self.sizes)
            kinds = fields.get("kinds", "").lower().split() or [""] * count
            vectors = re.findall(r"none|\([^)]*\)", fields.get("space directions", "").lower()) or None
            self.directions = vectors and [None if v == "none" else _numbers(v) for v in vectors]
            self.spacings = [float(s) for s in fields.get("spacings", "").split()] or [np.nan] * count
            self.origin = _numbers(fields.get("space origin", "")) or [0.0] * 3
            lengths = {int(fields["dimension"]), len(kinds), len(self.directions or kinds), len(self.spacings)}
            if lengths != {count}:
                raise ValueError("axes do not agree")
        except (KeyError, ValueError) as error:
            raise VolumeError(f"{path.name} has a damaged NRRD header ({error}): export it again.") from error
        self.kinds = kinds
        space = fields.get("space", "").lower()
        signs = next((signs for start, signs in _TO_LPS.items() if space.startswith(start)), None)
        self.signs = signs or (1, 1, 1)
        self.has_orientation = bool(self.directions) and signs is not None
        spatial = [a for a in range(count) if kinds[a] in _SPATIAL and not (self.directions and not self.directions[a])]
        self.spatial, rest = spatial[:3], spatial[3:]
        self.time = rest + [a for a in range(count) if kinds[a] in _TIME]
        self.channel = [a for a in range(count) if a not in self.spatial + self.time]
        if len(self.spatial) < 2 or len(self.time) > 1 or len(self.channel) > 1:
            raise VolumeError(f"{path.name} has axes {' '.join(kinds)}, which is no image, volume or sequence.")

    def arranged(self, values: np.ndarray) -> tuple[np.ndarray, bool]:
        """(T, C, K, J, I) from an array with the file's axes, slowest first; and whether it is in colour."""
        last = values.ndim - 1
        order = [last - a for a in [*self.time, *self.channel, *self.spatial[::-1]]]
        leading = [self.sizes[a[0]] if a else 1 for a in (self.time, self.channel)]
        spatial = [self.sizes[a] for a in self.spatial[::-1]]
        shape = leading + [1] * (3 - len(spatial)) + spatial
        voxels = np.ascontiguousarray(values.transpose(order)).reshape(shape)
        kind = self.kinds[self.channel[0]] if self.channel else ""
        is_color = kind in ("rgb-color", "rgba-color", "3-color", "4-color") or (shape[1] == 3 and values.dtype == "u1")
        return (voxels[:, :3] if is_color else voxels), is_color

    @property
    def has_spacing(self) -> bool:
        return bool(self.directions) or any(np.isfinite(self.spacings[axis]) for axis in self.spatial)

    def geometry(self, shape: tuple[int, ...]) -> VolumeGeometry:
        matrix = np.eye(4)
        for column, axis in enumerate(self.spatial):
            if self.directions:
                vector = self.directions[axis][:3]
                matrix[:, column] = 0
                matrix[: len(vector), column] = vector
            else:
                matrix[column, column] = self.spacings[axis] if np.isfinite(self.spacings[axis]) else 1.0
        matrix[: len(self.origin[:3]), 3] = self.origin[:3]
        return grid(np.array([*self.signs, 1])[:, np.newaxis] * matrix, shape[:1:-1], self.path)


def _numbers(text: str) -> list[float]:
    return [float(n) for n in text.strip("() ").split(",") if n.strip()]


def _times(keys: Mapping[str, str], count: int) -> tuple[float, ...]:
    """Times of a Slicer sequence, in seconds from the first."""
    axis = next((key.removesuffix("index values") for key in keys if re.fullmatch(r"axis \d index values", key)), None)
    unit = {"s": 1.0, "ms": 1e-3}.get(keys.get(f"{axis}index unit", ""))
    if count == 1 or unit is None:
        return ()
    try:
        values = [float(v) * unit for v in keys[f"{axis}index values"].split()]
    except ValueError:
        return ()
    return tuple(v - values[0] for v in values) if len(values) == count else ()


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def write_nrrd(stream: BinaryIO, layers: np.ndarray, geometry: VolumeGeometry, keys: Mapping[str, str]) -> None:
    """Write (L, K, J, I) integer layers, gzip-compressed; one layer makes a 3D file, more a list axis in front."""
    listed = layers.shape[0] > 1
    matrix = geometry.ijk_to_world
    directions = ["(" + ",".join(repr(float(x)) for x in matrix[:3, axis]) + ")" for axis in range(3)]
    code = layers.dtype.str[1:]
    lines = [
        "NRRD0004",
        "# Complete NRRD file format specification at:",
        "# http://teem.sourceforge.net/nrrd/format.html",
        f"type: {_WRITTEN[code]}",
        f"dimension: {3 + listed}",
        "space: left-posterior-superior",
        "sizes: " + " ".join(str(n) for n in ([layers.shape[0]] if listed else []) + list(geometry.size_ijk)),
        "space directions: " + " ".join((["none"] if listed else []) + directions),
        "kinds: " + " ".join((["list"] if listed else []) + ["domain"] * 3),
        *(["endian: little"] if layers.dtype.itemsize > 1 else []),
        "encoding: gzip",
        "space origin: (" + ",".join(repr(float(x)) for x in matrix[:3, 3]) + ")",
        *(f"{key}:={_escaped(value)}" for key, value in keys.items()),
    ]  # fmt: skip
    stream.write(("\n".join(lines) + "\n\n").encode(errors="replace"))
    with gzip.GzipFile(fileobj=stream, mode="wb", compresslevel=3, mtime=0) as packed:
        for k in range(layers.shape[1]):
            plane = layers[:, k]
            packed.write(np.ascontiguousarray(np.moveaxis(plane, 0, -1), plane.dtype.newbyteorder("<")).tobytes())

"""What every reader shares: a raster, guards before memory is allocated, and the rescaling of stored values."""

from __future__ import annotations

import bz2
import gzip
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from SegmentAnythingMedLib.errors import GeometryError, VolumeError
from SegmentAnythingMedLib.free_memory import free_memory_bytes
from SegmentAnythingMedLib.geometry import VolumeGeometry

_MAX_DEFLATE_RATIO = 1040
"""Deflate cannot compress better than 1032:1 (zlib.net/zlib_tech.html), so a header that claims more is wrong."""
_CHUNK = 1 << 24
_FARTHEST_MM = 1e6
_MOST_SCALE = 1 << 31


@dataclass(frozen=True, eq=False)
class Raster:
    """A file's voxels (T, C, K, J, I), their grid in LPS millimetres, and what else its header says.

    ``has_spacing`` and ``has_orientation`` are those of `Volume`.
    """

    voxels: np.ndarray
    geometry: VolumeGeometry
    is_color: bool = False
    times_s: tuple[float, ...] = ()
    keys: Mapping[str, str] = field(default_factory=dict)
    has_spacing: bool = True
    has_orientation: bool = True


def grid(matrix: np.ndarray, size_ijk: tuple[int, int, int], path: Path) -> VolumeGeometry:
    """The grid of a file's (4, 4) matrix, or a `VolumeError` if no image of a patient can lie there."""
    numbers = np.asarray(matrix, dtype=np.float64)
    if not (np.abs(numbers) <= _FARTHEST_MM).all():  # NaN is caught here, too
        raise VolumeError(
            f"{path.name} has a damaged orientation, export it again: its spacing, directions or origin are not finite "
            "or beyond a kilometre."
        )
    try:
        return VolumeGeometry(numbers, size_ijk)
    except GeometryError as error:
        raise VolumeError(f"{path.name} has a damaged orientation, export it again: {error}") from error


def open_packed(path: Path) -> BinaryIO:
    """The file's bytes, unpacked if it is gzip; raises `VolumeError` where it cannot be opened."""
    try:
        with open(path, "rb") as stream:
            packed = stream.read(2) == b"\x1f\x8b"
        return gzip.open(path, "rb") if packed else open(path, "rb")
    except OSError as error:
        raise VolumeError(f"{path} cannot be opened ({error.strerror}): check the path and its permissions.") from error


def peek(path: Path, count: int) -> bytes:
    """The first bytes of the unpacked file, fewer if it is shorter or damaged."""
    with open_packed(path) as stream:
        try:
            return stream.read(count)
        except (OSError, EOFError, zlib.error):
            return b""


def check_claim(path: Path, shape: tuple[int, ...], itemsize: int, *, packed: bool = True) -> int:
    """Bytes that a header claims, or a `VolumeError` if the file or the memory cannot hold them.

    Parameters
    ----------
    shape
        Sizes from the header, any order.
    itemsize
        Bytes of one value.
    packed
        Whether the file may be compressed.
    """
    size = "x".join(str(n) for n in shape)
    if not shape or min(shape) < 1:
        raise VolumeError(f"{path.name} says its size is {size}: the file is damaged, export it again.")
    claimed = itemsize
    for n in shape:
        claimed *= int(n)
    held = path.stat().st_size * (_MAX_DEFLATE_RATIO if packed else 1)
    if claimed > held:
        raise VolumeError(
            f"{path.name} claims {size} voxels ({human_bytes(claimed)}), more than a file of "
            f"{human_bytes(path.stat().st_size)} can hold: it is truncated or damaged, export it again."
        )
    check_memory(path, size, claimed)
    return claimed


def check_memory(path: Path, size: str, claimed: int) -> None:
    """Raise `VolumeError` if ``claimed`` bytes do not fit into the free memory."""
    free = free_memory_bytes()
    if free is not None and claimed > free:
        raise VolumeError(
            f"{path.name} has {size} voxels ({human_bytes(claimed)}) but only {human_bytes(free)} of memory is free: "
            "crop or resample it first."
        )


def read_exactly(stream: BinaryIO, count: int, path: Path) -> np.ndarray:
    """``count`` bytes of a stream as uint8 (count,); `VolumeError` if it ends before or is damaged."""
    try:
        data = np.empty(count, np.uint8)
        view, done = memoryview(data), 0
        while done < count:
            got = stream.readinto(view[done : done + _CHUNK])
            if not got:
                raise VolumeError(f"{path.name} ends after {human_bytes(done)} of {human_bytes(count)}: copy it again.")
            done += got
    except (OSError, EOFError, zlib.error) as error:
        raise VolumeError(f"{path.name} is truncated or its compressed data is damaged: copy it again.") from error
    except MemoryError as error:
        raise VolumeError(f"{path.name} needs {human_bytes(count)} of memory: crop or resample it first.") from error
    return data


def unpacked(stream: BinaryIO, encoding: str, path: Path) -> BinaryIO:
    """A stream of the unpacked bytes of a NRRD encoding."""
    if encoding == "raw":
        return stream
    if encoding in ("gzip", "gz"):
        return gzip.GzipFile(fileobj=stream)
    if encoding in ("bzip2", "bz2"):
        return bz2.BZ2File(stream)
    raise VolumeError(f"{path.name} uses the NRRD encoding {encoding!r}: save it with raw or gzip encoding.")


def rescaled(stored: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    """``stored * slope + intercept``: integers stay integers where the result is whole, else float32."""
    if slope == 1 and intercept == 0:
        return stored
    largest = max(abs(slope), abs(intercept))
    if (
        stored.dtype.kind in "iub"
        and largest <= _MOST_SCALE
        and float(slope).is_integer()
        and float(intercept).is_integer()
    ):
        low, high = int(stored.min()) * int(slope) + int(intercept), int(stored.max()) * int(slope) + int(intercept)
        dtype = integer_type(min(low, high), max(low, high))
        if dtype is not None:
            return (stored.astype(np.int64) * int(slope) + int(intercept)).astype(dtype)
    is_wide = stored.dtype == np.float64 or largest > np.finfo(np.float32).max
    dtype = np.float64 if is_wide else np.float32
    with np.errstate(over="ignore", invalid="ignore"):  # what no number holds becomes infinite
        return stored.astype(dtype) * dtype(slope) + dtype(intercept)


def integer_type(low: int, high: int) -> np.dtype | None:
    """The smallest of uint8, int16, uint16, int32 that holds both values; None if none does."""
    for dtype in (np.uint8, np.int16, np.uint16, np.int32):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return np.dtype(dtype)
    return None


def human_bytes(count: int) -> str:
    """1536 -> '1.5 KiB'."""
    amount, units = float(count), ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB"]
    while amount >= 1024 and len(units) > 1:
        amount, units = amount / 1024, units[1:]
    return f"{amount:.4g} {units[0]}"

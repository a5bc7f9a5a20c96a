"""The file through which a volume's voxels reach the worker: written once in chunks, mapped by the child."""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import os
import re
import secrets
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from SegmentAnythingMedLib.errors import VolumeError, WorkerError
from SegmentAnythingMedLib.volume import Volume
from SegmentAnythingMedLib.worker.messages import OpenVolume
from SegmentAnythingMedLib.worker.transport import write_all

_NAME = re.compile(r"segment-anything-med-(\d+)-[0-9a-f]{16}\.voxels")
_CHUNK_BYTES = 4 << 20


class VoxelFile:
    """A volume on its way to the worker.

    Parameters
    ----------
    folder
        Where the file is made, readable by this user only; its name carries this process's number.
    volume
        Let go as soon as it is written.
    later
        Further time points on the same grid, of the same type: written behind it, so that nobody has to stack them.

    Raises
    ------
    VolumeError
        If the time points differ in size or type.
    """

    def __init__(self, folder: Path, volume: Volume, *later: Volume) -> None:
        kinds = {(one.voxels.shape[1:], one.voxels.dtype) for one in (volume, *later)}
        if len(kinds) != 1:
            raise VolumeError(f"The time points of {volume.name!r} differ in size, voxel type or number of values.")
        self.path = folder / f"segment-anything-med-{os.getpid()}-{secrets.token_hex(8)}.voxels"
        self.fingerprint = ""
        self._volumes: tuple[Volume, ...] | None = (volume, *later)
        self._shape = (sum(one.time_count for one in (volume, *later)), *volume.voxels.shape[1:])
        self._dtype = volume.voxels.dtype.str
        self._matrix, self._modality = volume.geometry.ijk_to_world, volume.modality.value
        self._unwanted = False
        self._writing = threading.Lock()

    def command(self, job: int) -> OpenVolume:
        """The message that lets the worker open it, once `write` has returned."""
        matrix = tuple(self._matrix.ravel().tolist())
        return OpenVolume(job, str(self.path), self._shape, self._dtype, matrix, self._modality, self.fingerprint)

    def write(self, between_chunks: Callable[[], None]) -> bool:
        """Write the voxels, unless that is done; False if nobody wants them any more.

        Raises
        ------
        VolumeError
            If the disk does not take them.
        """
        with self._writing:
            if self._volumes is not None and not self._unwanted:
                self._write(self._volumes, between_chunks)
            return not self._unwanted

    def give_up(self) -> bool:
        """Stop writing it; False if it is written already."""
        self._unwanted = True
        return self._volumes is not None

    def remove(self) -> bool:
        """Remove the file, or stop writing it; False if that is not possible yet (mapped, on Windows)."""
        self._unwanted = True
        try:
            self.path.unlink(missing_ok=True)
        except OSError:
            return False
        return True

    def _write(self, volumes: tuple[Volume, ...], between_chunks: Callable[[], None]) -> None:
        written, size = False, sum(volume.nbytes for volume in volumes)
        # A mapping would be simpler, but on a full disk it kills the process (SIGBUS) instead of raising.
        try:
            with self._disk_errors(size):
                file = io.FileIO(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o600), "wb")
            with file:
                for chunk in itertools.chain.from_iterable(_chunks(volume.voxels) for volume in volumes):
                    with self._disk_errors(size):
                        write_all(file, chunk)
                    between_chunks()
                    if self._unwanted:
                        return
            self.fingerprint = _fingerprint(volumes)
            self._volumes, written = None, not self._unwanted
        finally:
            if not written:
                with contextlib.suppress(OSError):
                    self.path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _disk_errors(self, size: int) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise VolumeError(
                f"The volume ({size / 1e6:.0f} MB) cannot be handed to the worker: "
                f"{error.strerror or error}. Free some space in the temporary folder, or choose another one."
            ) from error


def map_voxels(path: str, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Read-only view of a voxel file.

    Raises
    ------
    WorkerError
        If it is not one of ours, is gone, or its size does not fit.
    """
    try:
        kind = np.dtype(dtype)
    except TypeError as error:
        raise WorkerError(f"Voxels of type {dtype!r} are not known.") from error
    size = int(np.prod([float(n) for n in shape])) * kind.itemsize
    if kind.kind not in "iufb" or not _NAME.fullmatch(Path(path).name):
        raise WorkerError("This is not a voxel file of this program.")
    try:
        if os.path.getsize(path) != size:
            raise WorkerError(f"The voxel file holds {os.path.getsize(path)} bytes, {size} were announced.")
        return np.asarray(np.memmap(path, dtype=kind, mode="r", shape=shape))
    except OSError as error:
        raise WorkerError(f"The volume's voxels are gone: {error.strerror}. Open the volume again.") from error


def sweep(folder: Path) -> int:
    """Remove voxel files whose process is gone; returns how many."""
    removed = 0
    for path in folder.glob("segment-anything-med-*.voxels"):
        name = _NAME.fullmatch(path.name)
        if name and not is_alive(int(name[1])):
            try:
                path.unlink()
                removed += 1
            except OSError:  # another user's, or still mapped
                continue
    return removed


def temporary_folder(folder: str | Path | None) -> Path:
    """The given folder or the system's, made if it is not there."""
    chosen = Path(folder) if folder is not None else Path(tempfile.gettempdir())
    chosen.mkdir(parents=True, exist_ok=True)
    return chosen


def is_alive(pid: int) -> bool:
    """Whether a process of this number runs."""
    if sys.platform == "win32":
        return _is_alive_windows(pid)
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


_BINARY = getattr(os, "O_BINARY", 0)


def _is_alive_windows(pid: int) -> bool:
    import ctypes

    still_active, query = 259, 0x1000  # os.kill(pid, 0) would end the process there
    kernel = ctypes.windll.kernel32
    handle = kernel.OpenProcess(query, False, pid)
    if not handle:
        return kernel.GetLastError() == 5  # access denied: it runs, as another user
    code = ctypes.c_ulong()
    kernel.GetExitCodeProcess(handle, ctypes.byref(code))
    kernel.CloseHandle(handle)
    return code.value == still_active


def _fingerprint(volumes: tuple[Volume, ...]) -> str:
    """The volume's own; of several the hash of theirs."""
    if len(volumes) == 1:
        return volumes[0].fingerprint
    text = " ".join(volume.fingerprint for volume in volumes)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _chunks(voxels: np.ndarray) -> Iterator[memoryview]:
    """All voxels in C order, a few megabytes at a time."""
    for time in range(voxels.shape[0]):
        for channel in range(voxels.shape[1]):
            block = voxels[time, channel]
            step = max(1, _CHUNK_BYTES // max(block[0].nbytes, 1))
            for first in range(0, len(block), step):
                yield memoryview(np.ascontiguousarray(block[first : first + step])).cast("B")

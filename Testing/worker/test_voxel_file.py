"""The file that carries voxels to the worker."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from SegmentAnythingMedLib.errors import VolumeError, WorkerError
from SegmentAnythingMedLib.volume import Volume
from SegmentAnythingMedLib.worker.voxel_file import VoxelFile, is_alive, map_voxels, sweep


def nothing() -> None:
    pass


def mapped(file: VoxelFile) -> np.ndarray:
    command = file.command(1)
    return map_voxels(command.path, command.shape, command.dtype)


@pytest.mark.parametrize("dtype", ["<i2", ">i2", "<f4", "|u1", "|b1"])
def test_voxels_of_any_type_and_layout_arrive_as_they_are(tmp_path: Path, a_volume: Volume, dtype: str) -> None:
    voxels = np.asfortranarray(np.concatenate([a_volume.voxels, a_volume.voxels[:, :, ::-1]], axis=1).astype(dtype))
    file = VoxelFile(tmp_path, replace(a_volume, voxels=voxels[::1]))
    assert file.write(nothing)
    np.testing.assert_array_equal(mapped(file), voxels)
    assert file.fingerprint == Volume(voxels, a_volume.geometry).fingerprint


def test_many_chunks_make_one_volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, a_volume: Volume) -> None:
    monkeypatch.setattr("SegmentAnythingMedLib.worker.voxel_file._CHUNK_BYTES", 5000)
    file, chunks = VoxelFile(tmp_path, a_volume), []
    file.write(lambda: chunks.append(1))
    assert len(chunks) > 5
    np.testing.assert_array_equal(mapped(file), a_volume.voxels)


@pytest.mark.skipif(sys.platform == "win32", reason="modes are POSIX")
def test_only_the_user_can_read_the_voxels(tmp_path: Path, a_volume: Volume) -> None:
    file = VoxelFile(tmp_path, a_volume)
    file.write(nothing)
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600


def test_a_volume_nobody_wants_any_more_leaves_no_file(tmp_path: Path, a_volume: Volume) -> None:
    file = VoxelFile(tmp_path, a_volume)
    assert not file.write(file.remove)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_one_sentence_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, a_volume: Volume
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("SegmentAnythingMedLib.worker.voxel_file.write_all", refuse)
    with pytest.raises(VolumeError, match="No space left on device.*Free some space"):
        VoxelFile(tmp_path, a_volume).write(nothing)
    assert not list(tmp_path.iterdir())


def test_a_worker_that_dies_meanwhile_does_not_spoil_the_file(tmp_path: Path, a_volume: Volume) -> None:
    def broken() -> None:
        raise BrokenPipeError

    file = VoxelFile(tmp_path, a_volume)
    with pytest.raises(BrokenPipeError):
        file.write(broken)
    assert file.write(nothing)
    np.testing.assert_array_equal(mapped(file), a_volume.voxels)


def test_files_that_are_not_ours_or_do_not_fit_are_refused(tmp_path: Path, a_volume: Volume) -> None:
    file = VoxelFile(tmp_path, a_volume)
    file.write(nothing)
    with pytest.raises(WorkerError, match="announced"):
        map_voxels(str(file.path), (1, 1, 2, 2, 2), "<i2")
    with pytest.raises(WorkerError, match="not a voxel file"):
        map_voxels(__file__, (1, 1, 1, 1, 1), "<i2")
    with pytest.raises(WorkerError, match="not a voxel file"):
        map_voxels(str(file.path), (1, 1, 1, 1, 1), "|O")
    file.remove()
    with pytest.raises(WorkerError, match="Open the volume again"):
        map_voxels(str(file.path), (1, 1, 24, 40, 48), "|u1")


def test_files_of_dead_processes_are_swept_and_others_stay(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert is_alive(os.getpid())
    assert not is_alive(gone.pid)
    names = [f"segment-anything-med-{pid}-{'0' * 16}.voxels" for pid in (gone.pid, os.getpid())]
    for name in (*names, "segment-anything-med-notes.voxels"):
        (tmp_path / name).write_bytes(b"x")
    assert sweep(tmp_path) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([names[1], "segment-anything-med-notes.voxels"])

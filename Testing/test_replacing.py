from __future__ import annotations

from pathlib import Path

import pytest

from SegmentAnythingMedLib.errors import OutputError
from SegmentAnythingMedLib.replacing import replacing


def test_a_finished_file_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "a.seg.nrrd").write_text("old")
    with replacing(tmp_path / "a.seg.nrrd") as beside:
        assert beside.suffix == ".nrrd" and beside.parent == tmp_path
        beside.write_text("new")
    assert (tmp_path / "a.seg.nrrd").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["a.seg.nrrd"]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    with pytest.raises(OutputError, match="No space left"), replacing(tmp_path / "a") as beside:
        beside.write_text("half")
        raise OSError(28, "No space left on device")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_other_errors_pass_unchanged(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "a"):
        1 / 0  # noqa: B018


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="No such file"), replacing(tmp_path / "no" / "a") as beside:
        beside.write_text("x")

from __future__ import annotations

import os
import pickle
import struct
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("torch")

from SegmentAnythingMedLib.errors import ModelFileError
from SegmentAnythingMedLib.models.registry import ModelRegistry
from SegmentAnythingMedLib.models.weights.importing import import_weights
from SegmentAnythingMedLib.models.weights.structure import check_structure, tensor_shapes
from Testing.models.weights_files import folder, save_pt, shapes_of, write_safetensors

__all__ = ["folder"]


class _Harm:
    def __reduce__(self) -> tuple:
        return os.mkdir, ("harm-was-done",)


def _archive(path: Path, pickled: bytes, compression: int = zipfile.ZIP_STORED, extra: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("x/data.pkl", pickled)
        archive.writestr("x/version", "3\n")
        archive.writestr("x/data/0", bytes(extra))
    return path


def test_a_pickle_with_code_is_refused_and_not_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, content in (("zip.pt", None), ("bare.pt", pickle.dumps(_Harm()))):
        source = tmp_path / name
        source.write_bytes(content) if content else _archive(source, pickle.dumps(_Harm(), 2))
        with pytest.raises(ModelFileError, match="refused|no weights file"):
            import_weights(source, ModelRegistry())
    assert not (tmp_path / "harm-was-done").exists() and not list(folder.iterdir())


def test_a_pickle_that_breaks_the_reader_is_a_sentence(folder: Path, tmp_path: Path) -> None:
    for number, pickled in enumerate(
        (b"\x80\x020.", b"\x80\x02h\x05.", b"\x80\x02K\x01b.", b"\x80\x02J\x00", b"\x80\x02", b"\x80\x02}K\x01u.")
    ):
        with pytest.raises(ModelFileError):
            import_weights(_archive(tmp_path / f"{number}.pt", pickled), ModelRegistry())


def test_a_zip_bomb_is_refused_unopened(tmp_path: Path) -> None:
    bomb = _archive(tmp_path / "bomb.pt", pickle.dumps({}), zipfile.ZIP_DEFLATED, 50_000_000)
    assert bomb.stat().st_size < 100_000
    with pytest.raises(ModelFileError, match="would grow when unpacked"):
        check_structure(bomb)
    with pytest.raises(ModelFileError, match="would grow when unpacked"):  # packed at all, whatever sizes it tells
        check_structure(_archive(tmp_path / "small.pt", pickle.dumps({}), zipfile.ZIP_DEFLATED, 100))


def test_an_archive_whose_entries_overlap_is_refused_unopened(tmp_path: Path) -> None:
    path = _archive(tmp_path / "x.pt", pickle.dumps({}), extra=100_000)
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        start = archive.start_dir
    entry = content[content.index(b"PK\x01\x02", content.index(b"x/version", start)) : content.rindex(b"PK\x05\x06")]
    fields = list(struct.unpack("<4s4H2LH", content[content.rindex(b"PK\x05\x06") :]))
    fields[3], fields[4], fields[5] = 53, 53, len(content) - 22 - start + 50 * len(entry)
    path.write_bytes(content[:-22] + entry * 50 + struct.pack("<4s4H2LH", *fields))
    with zipfile.ZipFile(path) as archive:
        assert len(archive.infolist()) == 53
    with pytest.raises(ModelFileError, match="would grow"):
        check_structure(path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"\n <!DOCTYPE html><html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        (b"GIF89a" + bytes(100), "no weights file"),
        (b"PK\x03\x04" + bytes(1000), "truncated or damaged"),
    ],
)
def test_what_is_no_weights_file_is_named(folder: Path, tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(ModelFileError, match=sentence):
        import_weights(tmp_path / "x.pt", ModelRegistry())
    with pytest.raises(ModelFileError, match="is not a file"):
        import_weights(tmp_path, ModelRegistry())
    assert not list(folder.iterdir())


def test_a_truncated_checkpoint_is_refused(folder: Path, tmp_path: Path) -> None:
    source = save_pt(tmp_path / "x.pt", shapes_of("tiny"))
    source.write_bytes(source.read_bytes()[:-500])
    with pytest.raises(ModelFileError, match="truncated"):
        import_weights(source, ModelRegistry())


def _entry(shape: object = (4,), offsets: object = (0, 4), dtype: object = "U8") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    ("header", "size"),
    [
        ({"a": _entry()}, 3),
        ({"a": _entry()}, 5),
        ({"a": _entry((1 << 40, 1 << 40))}, 4),
        ({"a": _entry((5,))}, 4),
        ({"a": _entry((-4,), (4, 0))}, 4),
        ({"a": _entry(), "b": _entry()}, 4),
        ({"a": _entry(), "b": _entry((2,), (6, 8))}, 8),
        ({"a": _entry(dtype="Q9")}, 4),
        ({"a": _entry((True, 4))}, 4),
        ({"a": _entry(offsets=[0, 4, 8])}, 4),
        ({"a": [1]}, 4),
        ({"a": _entry(dtype=[])}, 4),
        ({}, 0),
        ('{"a": 1, "a": 1}', 4),
        ('{"a": ' + "[" * 100_000, 4),
        ("{not json}", 4),
    ],
)
def test_a_safetensors_header_that_lies_is_refused(tmp_path: Path, header: object, size: int) -> None:
    path = write_safetensors(tmp_path / "x.safetensors", header, size)
    with pytest.raises(ModelFileError, match="header"):
        check_structure(path)


def test_a_safetensors_header_that_tells_the_truth_is_read(tmp_path: Path) -> None:
    header = {"__metadata__": {"format": "pt"}, "a": _entry(), "b": _entry((1, 2), (4, 12), "F32")}
    path = write_safetensors(tmp_path / "x.safetensors", header, 12)
    assert check_structure(path) == "safetensors" and tensor_shapes(path) == {"a": (4,), "b": (1, 2)}
    path.write_bytes(struct.pack("<Q", 1 << 60) + path.read_bytes()[8:])
    with pytest.raises(ModelFileError, match="lies about its length"):
        check_structure(path)

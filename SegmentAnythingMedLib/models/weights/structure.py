"""What a weights file is made of, read without running or unpacking it: standard library only.

A file that passes is what it says it is in form; whether its tensors are those of a network is asked elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from SegmentAnythingMedLib.errors import ModelFileError

SAFETENSORS, TORCH, ONNX = "safetensors", "torch", "onnx"
_SUFFIXES = {".safetensors": SAFETENSORS, ".onnx": ONNX}
_BYTES = {"BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1} | {"I16": 2, "U16": 2, "F16": 2, "BF16": 2}
_BYTES |= {"I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8}
_LONGEST_HEADER = 16 << 20  # SAM 2 large has 0.1 MB
_MOST_ENTRIES, _LARGEST_PICKLE, _MOST_AXES = 100_000, 64 << 20, 8


def check_structure(path: Path, name: str = "") -> str:
    """Look at a file's form and return it: `SAFETENSORS`, `TORCH` (torch.save's zip archive) or `ONNX`.

    Parameters
    ----------
    path
        The file.
    name
        What to call it, and whose ending counts, if ``path`` is a temporary place.

    Raises
    ------
    ModelFileError
        If the file is a web page, truncated, of another format, or made to harm; nothing in it was run.
    """
    name = name or path.name
    try:
        with path.open("rb") as stream:
            start = stream.read(64)
    except OSError as error:
        raise ModelFileError(f"{name} cannot be read ({error.strerror}).") from error
    # The length of a header may begin with the byte of "<", but no page has zeros there.
    if start[4:9] != bytes(4) + b"{":
        _refuse_pages(start, name)
    if start.startswith(b"PK\x03\x04"):
        _check_archive(path, name)
        return TORCH
    if start[8:9] == b"{":
        tensor_shapes(path, name)
        return SAFETENSORS
    if _SUFFIXES.get(Path(name).suffix.lower()) == ONNX and start[:1] == b"\x08":
        return ONNX
    raise ModelFileError(f"{name} is no weights file: neither safetensors nor an archive of torch (.pt).")


def tensor_shapes(path: Path, name: str = "") -> dict[str, tuple[int, ...]]:
    """Shapes of a safetensors file by key; only the header is read.

    Raises
    ------
    ModelFileError
        If the header is damaged, too long, or does not describe every byte of the file exactly once.
    """
    name = name or path.name
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or not 2 <= length <= min(_LONGEST_HEADER, size - 8):
            raise ModelFileError(f"{name} is truncated, or its header lies about its length: get the file again.")
        text = stream.read(length)
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{name} has a damaged header: get the file again.") from error
    if not isinstance(header, dict):
        raise ModelFileError(f"{name} has a damaged header: get the file again.")
    header.pop("__metadata__", None)
    _check_extents({key: _extent(key, entry, name) for key, entry in header.items()}, size - 8 - length, name)
    return {key: tuple(entry["shape"]) for key, entry in header.items()}


def sha256_of(path: Path) -> str:
    """Digest of a file, in hexadecimal; `ModelFileError` if it cannot be read."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ModelFileError(f"{path.name} cannot be read ({error.strerror}).") from error


def _refuse_pages(start: bytes, name: str) -> None:
    if not start:
        raise ModelFileError(f"{name} is empty: get the file again.")
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        raise ModelFileError(
            f"{name} is a web page, not weights: the site wanted a sign-in or a click. Open its address in a browser."
        )
    if start.startswith(b"version https://git-lfs"):
        raise ModelFileError(f"{name} is a pointer of Git LFS, not the weights: fetch them with 'git lfs pull'.")


def _check_archive(path: Path, name: str) -> None:
    """torch.save stores its entries as they are, so an archive that would grow when unpacked is not its work."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries, comment = archive.infolist(), archive.comment
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        raise ModelFileError(f"{name} is truncated or damaged: get the file again.") from error
    grows = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
    if grows or sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise ModelFileError(f"{name} would grow when unpacked, which no checkpoint does: it was refused unopened.")
    pickles = [entry for entry in entries if entry.filename.endswith("data.pkl")]
    if comment or len(pickles) != 1 or len(entries) > _MOST_ENTRIES or pickles[0].file_size > _LARGEST_PICKLE:
        raise ModelFileError(f"{name} is an archive, but not one that torch.save wrote: it was refused unopened.")


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a key is there twice")
    return dict(pairs)


def _extent(key: str, entry: Any, name: str) -> tuple[int, int]:
    """First and past-the-last byte of a tensor, after checking that they fit its type and shape."""
    lies = ModelFileError(f"{name} has a header that lies about the tensor {key[:80]!r}: get the file again.")
    if not isinstance(entry, dict) or not isinstance(entry.get("dtype"), str) or entry["dtype"] not in _BYTES:
        raise lies
    shape, offsets = entry.get("shape"), entry.get("data_offsets")
    if not _are_counts(shape) or not _are_counts(offsets) or len(offsets) != 2 or len(shape) > _MOST_AXES:
        raise lies
    if offsets[1] - offsets[0] != math.prod(shape) * _BYTES[entry["dtype"]]:
        raise lies
    return offsets[0], offsets[1]


def _are_counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _check_extents(extents: Mapping[str, tuple[int, int]], size: int, name: str) -> None:
    end = 0
    for first, last in sorted(extents.values()):
        if first != end:
            raise ModelFileError(f"{name} has a header whose tensors overlap or leave holes: get the file again.")
        end = last
    if end != size or not extents:
        raise ModelFileError(f"{name} has {size} bytes of tensors where its header says {end}: get the file again.")

"""Files of what was learned from the user's cases: NumPy's npz without pickle, checked when it is read."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from SegmentAnythingMedLib.errors import ModelFileError
from SegmentAnythingMedLib.replacing import replacing

_MOST_BYTES = 64 << 20
_VERSION = 1


def write_learned(path: str | Path, kind: str, about: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays of numbers and a description of JSON values.

    Raises
    ------
    OutputError
        If the file cannot be written; the one that was there before stays.
    """
    text = json.dumps({"format": f"segment-anything-med {kind}", "version": _VERSION, **about})
    content = {name: np.asarray(array, np.float64) for name, array in arrays.items()}
    with replacing(path) as beside, open(beside, "wb") as stream:
        np.savez_compressed(stream, about=np.frombuffer(text.encode(), np.uint8), **content)


def read_learned(
    path: str | Path, kind: str, shapes: Mapping[str, tuple[str, ...]]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What `write_learned` wrote.

    Parameters
    ----------
    path
        The file.
    kind
        What it must be of.
    shapes
        The arrays it must have, with names of their sides; the same name must have the same length everywhere.

    Raises
    ------
    ModelFileError
        If the file is missing, damaged, too large, of another kind, or its arrays are not finite or do not fit.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as packed:
            if sum(item.file_size for item in packed.infolist()) > _MOST_BYTES:
                raise ModelFileError(f"{path.name} unpacks to more than a file of {kind} can have: do not trust it.")
        with np.load(path, allow_pickle=False) as packed:
            about = json.loads(bytes(packed["about"].astype(np.uint8)).decode())
            arrays = {name: packed[name] for name in shapes}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, RecursionError) as error:
        raise ModelFileError(f"{path.name} is no file of {kind} or it is damaged: learn again, or copy it.") from error
    if not isinstance(about, dict) or about.get("format") != f"segment-anything-med {kind}":
        raise ModelFileError(f"{path.name} is no file of {kind}: choose another file.")
    if about.get("version") != _VERSION:
        raise ModelFileError(f"{path.name} has version {about.get('version')!r}; this program reads {_VERSION}.")
    _check(path, shapes, arrays)
    return about, arrays


def _check(path: Path, shapes: Mapping[str, tuple[str, ...]], arrays: Mapping[str, np.ndarray]) -> None:
    lengths: dict[str, int] = {}
    for name, sides in shapes.items():
        array = arrays[name]
        fits = array.dtype == np.float64 and array.ndim == len(sides) and array.size and np.isfinite(array).all()
        if not fits or any(lengths.setdefault(s, n) != n for s, n in zip(sides, array.shape, strict=True)):
            raise ModelFileError(f"{path.name} is damaged: its {name!r} does not fit the rest; learn again.")

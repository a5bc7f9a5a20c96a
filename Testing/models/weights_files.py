"""Small files with the layout of real checkpoints, and the folder they are brought to."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest
import torch

from SegmentAnythingMedLib.models.networks.edgetam_network import EdgeTamConfig, EdgeTamNetwork
from SegmentAnythingMedLib.models.networks.sam2_network import Sam2Config, Sam2Network

Shapes = Mapping[str, tuple[int, ...]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty weights folder that everything uses."""
    path = tmp_path / "models"
    path.mkdir()
    monkeypatch.setenv("SEGMENT_ANYTHING_MED_MODELS", str(path))
    return path


@cache
def shapes_of(size: str, version: str = "2.1") -> Shapes:
    """Keys and shapes of an original checkpoint."""
    with torch.device("meta"):
        network = (
            EdgeTamNetwork(EdgeTamConfig()) if size == "edgetam" else Sam2Network(Sam2Config.released(size, version))
        )
    return {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}


def save_pt(path: Path, shapes: Shapes, value: float = 0.0) -> Path:
    """A .pt of the original layout that takes little room: every tensor repeats one number."""
    torch.save({"model": {key: torch.full((), value).expand(shape) for key, shape in shapes.items()}}, path)
    return path


def save_safetensors(path: Path, shapes: Shapes) -> Path:
    """Tensors of single bytes, so that the file is small, and sparse on disk."""
    header, end = {}, 0
    for key, shape in shapes.items():
        count = int(torch.Size(shape).numel())
        header[key] = {"dtype": "U8", "shape": list(shape), "data_offsets": [end, end + count]}
        end += count
    return write_safetensors(path, header, end)


def write_safetensors(path: Path, header: object, size: int) -> Path:
    text = header.encode() if isinstance(header, str) else json.dumps(header).encode()
    with path.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        stream.truncate(8 + len(text) + size)
    return path

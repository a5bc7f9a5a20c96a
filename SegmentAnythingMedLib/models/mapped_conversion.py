"""The file that keeps what OpenVINO converted: its XML, its weights, and those that torch would need in its place.

It is mapped, not read: what nobody looks at takes no memory. Who writes into it while it is mapped, in place and not by
putting another file there, ends the process that looks at it.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import struct
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO
from xml.etree import ElementTree

import numpy as np
import torch
from torch import Tensor

from SegmentAnythingMedLib.replacing import replacing

_HEAD = struct.Struct("!8s32s")  # what it is, and sha256 of what follows
_LENGTHS = struct.Struct("!3Q")  # of XML, table and OpenVINO's weights, which follow, and then torch's others
_MAGIC = b"SAM-OV02"
_ALIGNED = 64  # bytes: a line of the processor's cache
_LARGE = 1 << 16  # bytes


class MappedConversion:
    """Such a file, for as long as something looks at it: the compiled program does. On Windows it cannot be deleted
    until then.

    Parameters
    ----------
    stream
        Its content is not checked here, `find` does.
    """

    def __init__(self, stream: BinaryIO) -> None:
        # Twice, and changes stay in this process: OpenVINO's pages can be let go, torch's weights may be trained.
        self._program, self._torch = (mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY) for _ in range(2))
        lengths = _LENGTHS.unpack_from(self._program, _HEAD.size)
        xml, table, start = accumulate(lengths[:2], initial=_HEAD.size + _LENGTHS.size)
        self._places: dict[str, int] = json.loads(self._program[table:start])
        self._start = _aligned(start)
        self.xml = self._program[xml:table].decode()
        self.weights = np.frombuffer(self._program, np.uint8, lengths[2], self._start)
        self._large = [place for place in _places_in(self.xml) if place[1] >= _LARGE]
        self._copy_small()

    @classmethod
    def find(cls, path: Path) -> MappedConversion | None:
        """None if the file is not there or not as it was written."""
        try:
            with path.open("rb") as stream:
                magic, digest = _HEAD.unpack(stream.read(_HEAD.size))
                if magic != _MAGIC or hashlib.file_digest(stream, "sha256").digest() != digest:
                    return None
                return cls(stream)
        except (OSError, ValueError, struct.error):  # also what is no JSON or text
            return None

    @staticmethod
    def write(path: Path, xml: bytes, weights: bytes, tensors: Mapping[str, Tensor]) -> None:
        """Put a whole file in its place.

        Parameters
        ----------
        path
            Replaced, if it is there.
        xml, weights
            As OpenVINO serializes them.
        tensors
            By name, what `tensor` shall find. What ``weights`` hold byte for byte is not written twice.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        view, others, end, table = memoryview(weights), [], _aligned(len(weights)), {}
        places = {hashlib.sha256(view[start : start + size]).digest(): start for start, size in _places_in(xml)}
        for name, content in zip(tensors, map(content_of, tensors.values()), strict=True):
            digest = hashlib.sha256(content).digest()
            if digest not in places:
                places[digest], end = end, _aligned(end + len(content))
                others.append(content)
            table[name] = places[digest]
        listed = json.dumps(table).encode()
        with replacing(path) as beside, beside.open("w+b") as stream:
            stream.write(bytes(_HEAD.size))
            stream.write(_LENGTHS.pack(len(xml), len(listed), len(weights)) + xml + listed)
            for content in (weights, *others):
                stream.write(bytes(_aligned(stream.tell()) - stream.tell()))
                stream.write(content)
            stream.seek(_HEAD.size)
            digest = hashlib.file_digest(stream, "sha256").digest()
            stream.seek(0)
            stream.write(_HEAD.pack(_MAGIC, digest))

    def forget(self) -> None:
        """Let OpenVINO's large constants leave memory; the system brings back what it looks at again."""
        if not hasattr(mmap, "MADV_DONTNEED"):
            return
        for start, size in self._large:
            first, stop = -(-(self._start + start) // mmap.PAGESIZE), (self._start + start + size) // mmap.PAGESIZE
            if first < stop:
                self._program.madvise(mmap.MADV_DONTNEED, first * mmap.PAGESIZE, (stop - first) * mmap.PAGESIZE)

    def _copy_small(self) -> None:
        """Write what lies between large constants in its own place: then it is this process's and no more the file's.

        Programs look at it on each call, and Linux brings up to 2 MiB of a file into memory for one number.
        """
        begin = 0
        for start, size in [*sorted(self._large), (len(self.weights), 0)]:
            self.weights[begin:start] = self.weights[begin:start].copy()
            begin = max(begin, start + size)

    def tensor(self, name: str, like: Tensor) -> Tensor | None:
        """A written tensor of the shape and type of another one, read as it is looked at; None if there is none."""
        if name not in self._places:
            return None
        start = self._start + self._places[name]
        return torch.frombuffer(self._torch, dtype=like.dtype, count=like.numel(), offset=start).view(like.shape)


def content_of(tensor: Tensor) -> memoryview:
    """A tensor's bytes."""
    return memoryview(tensor.detach().contiguous().flatten().view(torch.uint8).numpy())


def _places_in(xml: str | bytes) -> list[tuple[int, int]]:
    """Where OpenVINO's constants begin in its weights, and their bytes."""
    found = (data.attrib for data in ElementTree.fromstring(xml).iter("data"))
    return [(int(one["offset"]), int(one["size"])) for one in found if "offset" in one]


def _aligned(place: int) -> int:
    return -(-place // _ALIGNED) * _ALIGNED

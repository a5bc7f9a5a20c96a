"""Bytes of the nnInteractive server's protocol: arrays and forms out, packed masks in, every size known before use.

Arrays travel as ``.npy`` in array order (K, J, I), which the server calls (x, y, z) and never reorders; coordinates
are triples in the same order, so an IJK position is sent reversed.
"""

from __future__ import annotations

import gzip
import io
import json
import math
import secrets
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from SegmentAnythingMedLib.errors import ModelUnavailableError, VolumeError
from SegmentAnythingMedLib.volume import Volume

_CHUNK = 1 << 20
_SENT_AS = {"b": np.uint8, "u1": np.uint8, "i1": np.int8, "i2": np.int16, "u2": np.int32, "i4": np.int32}
_SLACK_BYTES = 1 << 16
MESSAGE_BYTES = 1 << 16
"""Most that is read of an answer that holds no mask."""


@dataclass(frozen=True, eq=False)
class Body:
    """What a request carries: its type and its pieces, which are sent one after the other."""

    content_type: str
    pieces: tuple[bytes | memoryview, ...]

    @property
    def nbytes(self) -> int:
        return sum(memoryview(piece).nbytes for piece in self.pieces)

    def chunks(self) -> Iterator[memoryview]:
        """The pieces in parts small enough to stop between two of them."""
        for piece in self.pieces:
            view = memoryview(piece).cast("B")
            for begin in range(0, view.nbytes, _CHUNK):
                yield view[begin : begin + _CHUNK]

    @classmethod
    def of_json(cls, content: dict[str, object]) -> Body:
        return cls("application/json", (json.dumps(content).encode(),))

    @classmethod
    def of_form(cls, file_name: str, file: tuple[bytes | memoryview, ...], fields: dict[str, str]) -> Body:
        """``multipart/form-data`` with the fields and one part called ``file``."""
        boundary = secrets.token_hex(16)
        texts = "".join(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in fields.items()
        )
        head = (
            f'{texts}--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{file_name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        tail = f"\r\n--{boundary}--\r\n"
        return cls(f"multipart/form-data; boundary={boundary}", (head.encode(), *file, tail.encode()))


def sent_voxels(volume: Volume) -> np.ndarray:
    """The (K, J, I) raw values of a volume's first time point and channel, in a type the server reads.

    The server computes with float32 whatever it gets, so wider types travel as float32; NaN and -inf become the
    lowest finite value, +inf the highest. Not a copy where none is needed.

    Raises
    ------
    VolumeError
        If all voxels have the same value, which the server cannot normalise.
    """
    voxels = volume.array(0)
    kind = voxels.dtype.kind if voxels.dtype.kind == "b" else voxels.dtype.str[1:]
    voxels = np.ascontiguousarray(voxels, dtype=np.dtype(_SENT_AS.get(kind, np.float32)).newbyteorder("<"))
    if voxels.dtype.kind == "f" and not np.isfinite(voxels).all():
        finite = voxels[np.isfinite(voxels)]
        low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)
        voxels = np.nan_to_num(voxels, nan=low, posinf=high, neginf=low)
    if voxels.min() == voxels.max():
        raise VolumeError(
            f"All voxels of {volume.name!r} have the value {voxels.flat[0]}: there is nothing to outline."
        )
    return voxels


def image_body(voxels: np.ndarray) -> Body:
    """The volume as the server wants it: an ``.npy`` file, not compressed; the voxels are not copied."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(voxels))
    return Body.of_form("volume.npy", (header.getvalue(), memoryview(voxels).cast("B")), {})


def mask_body(mask: np.ndarray, fields: dict[str, str]) -> Body:
    """A (K, J, I) mask as the server wants it: an ``.npy`` file of uint8, compressed with gzip."""
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1, mtime=0) as file:
        np.save(file, np.ascontiguousarray(mask, dtype=np.uint8), allow_pickle=False)
    return Body.of_form("volume.npy.gz", (packed.getvalue(),), fields)


def mask_limit(shape_kji: tuple[int, int, int]) -> int:
    """Most bytes that an answer for a volume of this shape can have, compressed or not."""
    packed = _packed_bytes(shape_kji)
    return packed + packed // 100 + _SLACK_BYTES


def unpacked_mask(body: bytes, is_compressed: bool, shape_kji: tuple[int, int, int]) -> np.ndarray:
    """(K, J, I) bool mask of an answer: one bit a voxel, highest bit first, by default compressed with gzip.

    Raises
    ------
    ModelUnavailableError
        If it does not hold exactly as many bits as there are voxels; no more than that is ever unpacked.
    """
    expected = _packed_bytes(shape_kji)
    packed = _inflated(body, expected) if is_compressed else body
    if len(packed) != expected:
        what = "more" if len(packed) > expected else "fewer"
        raise ModelUnavailableError(
            f"The nnInteractive server answered for a volume of {what} voxels than was sent: somebody else may be "
            "using it, since it holds one volume at a time. Ask again."
        )
    bits = np.unpackbits(np.frombuffer(packed, dtype=np.uint8), count=math.prod(shape_kji))
    return bits.reshape(shape_kji).view(bool)


def _packed_bytes(shape_kji: tuple[int, int, int]) -> int:
    return (math.prod(shape_kji) + 7) // 8


def _inflated(body: bytes, expected: int) -> bytes:
    """At most one byte more than expected, whatever the body would grow to."""
    unpacker = zlib.decompressobj(wbits=31)
    try:
        packed = unpacker.decompress(body, expected + 1)
    except zlib.error as error:
        raise ModelUnavailableError(
            f"The answer of the nnInteractive server is damaged ({error}): ask again, or look at the server."
        ) from error
    if len(packed) <= expected and not unpacker.eof:
        raise ModelUnavailableError("The answer of the nnInteractive server broke off: ask again.")
    return packed

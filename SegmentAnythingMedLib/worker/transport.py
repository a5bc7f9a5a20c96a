"""Frames over byte streams. A WebSocket carries the same frames, one per binary message."""

from __future__ import annotations

import threading
from typing import Protocol

from SegmentAnythingMedLib.errors import WorkerError
from SegmentAnythingMedLib.worker.messages import PREFIX, Kinds, Message, check_size, decode, encode

_CHUNK = 1 << 20


class ByteReader(Protocol):
    """An unbuffered stream to read from, such as a pipe."""

    def read(self, size: int, /) -> bytes | None: ...


class ByteWriter(Protocol):
    """An unbuffered stream to write to; may take fewer bytes than it is given."""

    def write(self, data: memoryview, /) -> int | None: ...


def read_frame(stream: ByteReader) -> tuple[bytearray, bytearray] | None:
    """Header and raw parts of the next frame; None if the stream ended between two frames.

    Raises
    ------
    WorkerError
        If the stream ends inside a frame, or announces more than is accepted.
    """
    prefix = _read(stream, PREFIX.size)
    if not prefix:
        return None
    _check_complete(prefix, PREFIX.size)
    header_bytes, body_bytes = PREFIX.unpack(prefix)
    check_size(header_bytes, body_bytes)
    header, body = (_check_complete(_read(stream, size), size) for size in (header_bytes, body_bytes))
    return header, body


def write_all(stream: ByteWriter, data: bytes | memoryview) -> None:
    """Write all bytes, however few the stream takes at a time."""
    left = memoryview(data)
    while left:
        left = left[stream.write(left) or 0 :]


def receive(stream: ByteReader, kinds: Kinds) -> Message | None:
    """The next message, or None at the end of the stream."""
    frame = read_frame(stream)
    return None if frame is None else decode(*frame, kinds)


class Sender:
    """Sends messages from several threads over one stream."""

    def __init__(self, stream: ByteWriter) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def __call__(self, message: Message) -> None:
        frame = encode(message)
        with self._lock:
            write_all(self._stream, frame)


def _read(stream: ByteReader, size: int) -> bytearray:
    """Up to ``size`` bytes, fewer only at the end; memory grows with what arrives, not with what was announced."""
    got = bytearray()
    while len(got) < size:
        chunk = stream.read(min(size - len(got), _CHUNK))
        if not chunk:
            break
        got += chunk
    return got


def _check_complete(got: bytearray, size: int) -> bytearray:
    if len(got) < size:
        raise WorkerError(f"A message ended after {len(got)} of {size} bytes: the other side stopped while sending.")
    return got

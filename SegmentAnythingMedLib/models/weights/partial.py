"""The part of a download that is here already: a .part file, and beside it which version of the file it is part of."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from SegmentAnythingMedLib.errors import OutputError


class PartialFile:
    """``<file>.part``, and ``<file>.part.version`` with the server's mark of the version (ETag or date).

    Parameters
    ----------
    target
        Path of the whole file.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(target.name + ".part")
        self._version = target.with_name(target.name + ".part.version")

    @property
    def size(self) -> int:
        """Bytes that are here."""
        return self.path.stat().st_size if self.path.is_file() else 0

    @property
    def version(self) -> str:
        """What the server calls the version of the file, or empty if it did not say."""
        try:
            return self._version.read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            return ""

    @contextmanager
    def writing(self, start: int, version: str) -> Iterator[PartWriter]:
        """A writer behind the first ``start`` bytes; what is there beyond them is cut off.

        Raises
        ------
        OutputError
            If the folder cannot be written, is full, or another download writes the same file: its bytes stay.
        """
        with explained(self.target), self.path.open("ab") as stream:
            if not _is_locked_by_us(stream) or self.size < start:
                raise _other_writer(self.path)
            stream.truncate(start)
            self._version.write_text(version, encoding="ascii", errors="ignore")
            try:
                yield PartWriter(stream, start)
            except OutputError:  # two wrote where nothing can be locked: what is here is of no known version
                self._version.unlink(missing_ok=True)
                raise

    def finish(self) -> None:
        """Make the part the file."""
        with explained(self.target):
            os.replace(self.path, self.target)
            self._version.unlink(missing_ok=True)

    def delete(self) -> None:
        """Forget the part."""
        with explained(self.target):
            self.path.unlink(missing_ok=True)
            self._version.unlink(missing_ok=True)


class PartWriter:
    """Appends blocks, and notices a second writer of the same file by its length."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream = stream
        self.size = size

    def write(self, block: bytes) -> None:
        self._stream.write(block)
        self._stream.flush()
        self.size += len(block)
        if os.fstat(self._stream.fileno()).st_size != self.size:
            raise _other_writer(self._stream.name)


def _other_writer(path: str | Path) -> OutputError:
    return OutputError(f"Another download writes {path}, too: wait for it, then try again.")


def _is_locked_by_us(stream: BinaryIO) -> bool:
    """Lock a file until it is closed; False if another process has it. Where nothing can be locked, True."""
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows: two writers are noticed by the length
        return True
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a network drive without locks
        return True
    return True


@contextmanager
def explained(target: Path) -> Iterator[None]:
    """Turn a full, read-only or missing folder into a sentence."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{target} cannot be written ({error.strerror or error}): free some space, or choose another folder with "
            "SEGMENT_ANYTHING_MED_MODELS."
        ) from error

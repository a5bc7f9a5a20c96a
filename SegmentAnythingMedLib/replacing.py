"""Files that are whole or not there: written beside their place and moved into it at the end."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from SegmentAnythingMedLib.errors import OutputError


@contextmanager
def replacing(path: str | Path, suffix: str = "") -> Iterator[Path]:
    """A path beside ``path`` to write to; it takes the place of ``path`` when the block ends without an error.

    Parameters
    ----------
    path
        The file to write.
    suffix
        Ending of the path given to the block, for writers that go by it; by default the ending of ``path``.

    Raises
    ------
    OutputError
        If the folder is missing, read-only or full, in one sentence; the file that was there before stays.
    """
    path = Path(path)
    beside = None
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".writing-", suffix=suffix or path.suffix)
        os.close(handle)
        beside = Path(name)
        os.chmod(beside, _mode(path))
        yield beside
        with open(beside, "rb+") as stream:
            os.fsync(stream.fileno())
        os.replace(beside, path)
        beside = None
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"{path} cannot be written ({reason}): choose another folder or free some space.") from error
    finally:
        if beside is not None:
            with contextlib.suppress(OSError):
                beside.unlink()


def make_folder(path: str | Path) -> Path:
    """Make a folder with its parents, or raise an `OutputError`."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"The folder {path} cannot be made ({error.strerror or error}): choose another.") from error
    return Path(path)


def _mode(path: Path) -> int:
    """Permissions of the file that is replaced, or those a new file would get."""
    if path.exists():
        return path.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask

"""Files that are whole or not there: written beside their place and moved into it at the end."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from SegmentAnythingMedLib.errors import OutputError


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A path beside ``path`` to write to; it takes the place of ``path`` when the block ends without an error.

    The name keeps the ending (all of ``.seg.nrrd``), so that writers which go by it still work.

    Raises
    ------
    OutputError
        If the folder is missing, read-only or full, in one sentence; the file that was there before stays.
    """
    path = Path(path)
    beside = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield beside
        beside.replace(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}.") from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()

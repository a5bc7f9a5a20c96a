"""Where the files that come with the library are: in a checkout, an installed wheel, or Slicer's module folder."""

from __future__ import annotations

from pathlib import Path

from SegmentAnythingMedLib.errors import SegmentAnythingMedError

_PACKAGE = Path(__file__).resolve().parent


def resource_path(*parts: str) -> Path:
    """Path of a file or folder under ``Resources``.

    An installed wheel carries ``Resources`` inside the package; a checkout and Slicer's module folder have it beside.

    Raises
    ------
    SegmentAnythingMedError
        If it is in neither place.
    """
    for root in (_PACKAGE / "Resources", _PACKAGE.parent / "Resources"):
        path = root.joinpath(*parts)
        if path.exists():
            return path
    raise SegmentAnythingMedError(f"{'/'.join(('Resources', *parts))} is missing: install the extension again.")

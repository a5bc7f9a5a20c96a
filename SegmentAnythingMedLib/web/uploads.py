"""Files that come from the browser: written to the session's own folder as they arrive, never held in memory."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from SegmentAnythingMedLib.errors import SegmentAnythingMedError, VolumeError
from SegmentAnythingMedLib.web.upload_checks import check_content, check_name, safe_name

if TYPE_CHECKING:
    from aiohttp import BodyPartReader
    from aiohttp.web import Request

MOST_FILES = 20_000
_PIECE = 1 << 20


class UploadTooLargeError(SegmentAnythingMedError):
    """More was sent than this server takes."""


class Uploads:
    """Receives files.

    Parameters
    ----------
    folder
        The session's own; whoever made it removes it.
    limit_mb
        Most that one upload may have.
    """

    def __init__(self, folder: Path, limit_mb: int) -> None:
        self._folder = folder
        self._limit = limit_mb << 20
        self._numbers = itertools.count(1)

    async def receive(self, request: Request, check: Callable[[str], None] = check_name) -> tuple[Path, ...]:
        """Write the files of a form to a new folder (0700, files 0600), and look at what they are.

        Parameters
        ----------
        request
            Holds the form.
        check
            Refuses a file by its name.

        Raises
        ------
        UploadTooLargeError
            If they have more than the limit.
        VolumeError
            If there is none, or one may not be opened.
        """
        if (request.content_length or 0) > self._limit + _PIECE:
            raise self._too_large()
        folder = self._folder / f"upload-{next(self._numbers)}"
        folder.mkdir(mode=0o700)
        try:
            paths = await self._receive_into(folder, request, check)
            for path in paths:
                await asyncio.to_thread(check_content, path, self._limit)
        except BaseException:  # also when the browser goes away in the middle
            shutil.rmtree(folder)
            raise
        return paths

    async def _receive_into(self, folder: Path, request: Request, check: Callable[[str], None]) -> tuple[Path, ...]:
        paths: list[Path] = []
        left = self._limit
        async for part in await request.multipart():
            if not part.filename:
                continue
            if len(paths) == MOST_FILES:
                raise VolumeError(f"More than {MOST_FILES} files were sent: choose one series.")
            check(safe_name(part.filename))
            paths.append(self._new_path(folder, part.filename, len(paths)))
            left -= await self._write(paths[-1], part, left)
        if not paths:
            raise VolumeError("No file was sent: choose at least one.")
        return tuple(paths)

    @staticmethod
    def _new_path(folder: Path, name: str, number: int) -> Path:
        path = folder / safe_name(name)
        return folder / f"{number:05d}-{path.name}" if path.exists() else path

    async def _write(self, path: Path, part: BodyPartReader, left: int) -> int:
        written = 0
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            while piece := await part.read_chunk(_PIECE):
                written += len(piece)
                if written > left:
                    raise self._too_large()
                stream.write(piece)
        return written

    def _too_large(self) -> UploadTooLargeError:
        return UploadTooLargeError(
            f"This is more than the {self._limit >> 20} MB that may be uploaded: start the app with the file as an "
            "argument, or with a larger --max-upload-mb."
        )

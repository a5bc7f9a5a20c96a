"""Fetching the weights of a model, the only place of this program that asks the internet for anything.

``Download(card, folder, licence_accepted=True)`` is run in one of two ways: ``for progress in download.steps()``, or
``download.run(on_progress)`` in a thread while another one calls `cancel`.
"""

from __future__ import annotations

import http.client
import re
import shutil
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from SegmentAnythingMedLib.errors import ModelFileError, ModelUnavailableError, OutputError
from SegmentAnythingMedLib.models.card import ModelCard
from SegmentAnythingMedLib.models.weights.converting import convert_if_possible
from SegmentAnythingMedLib.models.weights.notes import note_hash
from SegmentAnythingMedLib.models.weights.partial import PartialFile
from SegmentAnythingMedLib.models.weights.structure import check_structure, sha256_of
from SegmentAnythingMedLib.models.weights.transport import TIMEOUT_S, no_answer, open_url
from SegmentAnythingMedLib.replacing import make_folder

_BLOCK = 1 << 18
_MB = 1_000_000
_ALLOWANCE = 1.1  # cards round their sizes
_MOST_MB = 8_000  # for a card that tells no size


@dataclass(frozen=True)
class DownloadProgress:
    """How far a download is.

    Parameters
    ----------
    done
        Bytes that are here, those of an earlier try included.
    total
        Bytes of the whole file, or None if the server does not say.
    """

    done: int
    total: int | None

    @property
    def fraction(self) -> float | None:
        """0 to 1, or None if the total is not known."""
        return self.done / self.total if self.total else None


class Download:
    """One try to fetch a card's weights; what came of an earlier try is used.

    Parameters
    ----------
    card
        Which weights, from where, how large, with which hash.
    folder
        The weights folder, made if it is missing.
    licence_accepted
        Whether the user has seen the card's licence and agreed.
    timeout_s
        Longest silence of the server, in seconds.
    plain_http_on_loopback
        Allow http to this machine: for tests only.

    Raises
    ------
    ModelUnavailableError
        If the licence is not accepted, or the card has no address.
    """

    def __init__(
        self,
        card: ModelCard,
        folder: Path,
        licence_accepted: bool,
        timeout_s: float = TIMEOUT_S,
        plain_http_on_loopback: bool = False,
    ) -> None:
        if not card.file or not card.url:
            missing = "needs no weights." if not card.file else "has no address: bring its file with 'models import'."
            raise ModelUnavailableError(f"Model {card.name!r} {missing}")
        if not licence_accepted:
            raise ModelUnavailableError(f"The licence of {card.name!r} was not accepted: nothing was downloaded.")
        self.card = card
        self.target = Path(folder) / card.file
        self._part = PartialFile(self.target)
        self._cancelled, self._accepted = threading.Event(), False
        self._timeout_s, self._plain = timeout_s, plain_http_on_loopback
        self._limit = int((card.size_mb * _ALLOWANCE or _MOST_MB) * _MB)

    @property
    def part(self) -> Path:
        """Where the bytes lie until all are here and checked."""
        return self._part.path

    def cancel(self) -> None:
        """Stop after the block in work, from any thread; what came is kept for the next try."""
        self._cancelled.set()

    def run(self, on_progress: Callable[[DownloadProgress], None] = lambda _: None) -> Path | None:
        """Fetch, check and keep the weights.

        Returns
        -------
        Path or None
            The weights, or None if it was cancelled.

        Raises
        ------
        ModelUnavailableError
            If the server cannot be reached, refuses, or the connection breaks.
        ModelFileError
            If what came is not what the card says; it is deleted.
        OutputError
            If the folder cannot be written or is full.
        """
        for progress in self.steps():
            on_progress(progress)
        return self.target if self._accepted else None

    def steps(self) -> Iterator[DownloadProgress]:
        """`run` as a generator; closing it keeps what came. It ends early, without an error, after `cancel`."""
        make_folder(self.target.parent)
        try:
            with closing(self._fetch()) as fetched:
                for progress in fetched:
                    yield progress
                    if self._cancelled.is_set():
                        return
            self._accept()
        except ModelFileError:
            self._part.delete()
            raise

    def _fetch(self) -> Generator[DownloadProgress, None, None]:
        start = self._resumable()
        with self._ask(start) as answer:
            if answer.status == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                if _range_total(answer) == start:
                    yield DownloadProgress(start, start)
                    return
                self._part.delete()
                raise ModelUnavailableError(f"The file of {self.card.name!r} has changed: try again, from its start.")
            start, total = self._agreed(answer, start)
            yield DownloadProgress(start, total)
            with self._part.writing(start, _version(answer)) as part:
                while block := self._read(answer, part.size, total):
                    part.write(block)
                    self._check_size(part.size)
                    yield DownloadProgress(part.size, total)
            if total is not None and part.size < total:
                raise ModelUnavailableError(no_answer(self.card.url, ConnectionError("it broke off")))

    def _resumable(self) -> int:
        """Bytes to go on from: only where the version is known, or the hash will tell."""
        size = self._part.size
        return size if size <= self._limit and (self._part.version or self.card.sha256) else 0

    def _ask(self, start: int) -> http.client.HTTPResponse:
        headers = {}
        if start:
            headers["Range"] = f"bytes={start}-"
            if self._part.version:
                headers["If-Range"] = self._part.version
        return open_url(self.card.url, headers, self._plain, self._timeout_s)

    def _agreed(self, answer: http.client.HTTPResponse, start: int) -> tuple[int, int | None]:
        """From which byte the server sends, and how many the whole file has; refuses what is too large."""
        if answer.headers.get("Content-Encoding", "identity") != "identity":
            raise ModelUnavailableError(f"The server of {self.card.name!r} sends the file packed: try again later.")
        length = answer.headers.get("Content-Length", "")
        total = int(length) if length.isdecimal() else None
        if answer.status == http.HTTPStatus.PARTIAL_CONTENT:
            if not start or not answer.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
                self._part.delete()
                raise ModelUnavailableError(f"The server of {self.card.name!r} sent another part: try again.")
            total = _range_total(answer) or (None if total is None else start + total)
        else:
            start = 0
        self._check_size(total or 0)
        free = shutil.disk_usage(self.target.parent).free
        if total is not None and free < total - start:
            raise OutputError(
                f"{self.target.parent} has {free // _MB} MB free, {self.card.name!r} needs {(total - start) // _MB} MB "
                "more: free some space, or choose another folder with SEGMENT_ANYTHING_MED_MODELS."
            )
        return start, total

    def _read(self, answer: http.client.HTTPResponse, done: int, total: int | None) -> bytes:
        if total is not None and done >= total:
            return b""
        try:
            return answer.read1(_BLOCK)
        except (OSError, http.client.HTTPException) as error:
            raise ModelUnavailableError(no_answer(self.card.url, error)) from error

    def _check_size(self, size: int) -> None:
        if size > self._limit:
            raise ModelFileError(
                f"The file of {self.card.name!r} is larger than the {self._limit // _MB} MB its card allows: it was "
                "refused and deleted."
            )

    def _accept(self) -> None:
        """Check the whole part, and only then let it be the file."""
        found = sha256_of(self._part.path)
        if self.card.sha256 and found != self.card.sha256:
            raise ModelFileError(
                f"{self.card.file} came with sha256 {found}, its card says {self.card.sha256}: it was deleted. "
                "Try again; if it happens again, its makers changed the file, or someone else did."
            )
        check_structure(self._part.path, self.card.file)
        self._part.finish()
        self.card = convert_if_possible(note_hash(self.card, self.target.parent, found), self.target.parent)
        self._accepted = True


def _version(answer: http.client.HTTPResponse) -> str:
    """A strong mark of the file's version, as If-Range takes it."""
    tag = answer.headers.get("ETag", "")
    return tag if tag.startswith('"') else answer.headers.get("Last-Modified", "")


def _range_total(answer: http.client.HTTPResponse) -> int | None:
    found = re.fullmatch(r"bytes .+/(\d+)", answer.headers.get("Content-Range", ""))
    return int(found[1]) if found else None

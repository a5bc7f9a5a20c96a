"""A run's rows on disk, one JSON object a line, so that a run cut short goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

_LIBRARY = Path(__file__).parents[1]
_NOT_SCORED = ("phantom", "preview", "cli", "demo", "__", "prompts_file", "segmenting", "resources")
_ALL_FAMILIES = ("base", "preprocess", "conversion", "device")
_SCORING = ("scoring", "baselines", "metrics", "simulated_user", "upsampling", "datasets")


def source_digest(family: str, also: Iterable[str] = ()) -> str:
    """8 hex digits of the source files that decide the scores of a model family; ``also`` names more of this folder."""
    files = [path for path in _LIBRARY.glob("*.py") if not path.name.startswith(_NOT_SCORED)]
    files += [path for path in (_LIBRARY / "models").glob("*.py") if path.name.startswith((family, *_ALL_FAMILIES))]
    files += [path for folder in ("models/networks", "memory") for path in (_LIBRARY / folder).rglob("*.py")]
    files += [_LIBRARY / "benchmark" / f"{name}.py" for name in (*_SCORING, *also)]
    digest = hashlib.blake2b(digest_size=4)
    for path in sorted(files):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


class RunFile:
    """Rows by id, appended as they are made; a half-written last line is dropped.

    Parameters
    ----------
    path
        The JSONL file. Its first line says what made the rows.
    header
        What makes the rows now. If the file was made by something else, its rows are kept beside it as ``.old``
        and the run starts anew.
    """

    def __init__(self, path: Path, header: dict[str, Any]) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        found = _complete_lines(path)
        if found and found[0] != header:
            path.replace(path.with_suffix(".old.jsonl"))
            logger.warning("%s was made by other code or settings: starting anew", path.name)
            found = []
        self._rows = {row["id"]: row for row in found[1:] if "error" not in row}
        self._write([header, *self._rows.values()])

    @property
    def done(self) -> frozenset[str]:
        """Ids that have a row without an error."""
        return frozenset(row_id for row_id, row in self._rows.items() if "error" not in row)

    @property
    def rows(self) -> list[dict[str, Any]]:
        return list(self._rows.values())

    def append(self, row: dict[str, Any]) -> None:
        """Add a row and have it on disk before returning."""
        self._rows[row["id"]] = row
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def _write(self, rows: Iterable[dict[str, Any]]) -> None:
        part = self._path.with_suffix(".part")
        part.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        part.replace(self._path)


def _complete_lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows

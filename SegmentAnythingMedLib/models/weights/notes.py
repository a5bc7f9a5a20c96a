"""Cards this program writes into the weights folder: they note the hash of weights whose own card knows none.

A noted card is a whole card, so every later load checks the hash as for any other card. It is named so that it sorts
after the card it repeats, and wins; `remove` deletes it. The user's own cards are never changed.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

from SegmentAnythingMedLib.errors import ModelFileError
from SegmentAnythingMedLib.models.card import ModelCard
from SegmentAnythingMedLib.replacing import replacing

_SUFFIX = ".noted.json"


def note_hash(card: ModelCard, folder: Path, sha256: str) -> ModelCard:
    """Write the card with this hash into the weights folder, unless it has it already; return it.

    Raises
    ------
    OutputError
        If the folder cannot be written.
    """
    if card.sha256 == sha256:
        return card
    return write_note(replace(card, sha256=sha256), folder)


def write_note(card: ModelCard, folder: Path) -> ModelCard:
    """Write a card that takes the place of others of its name."""
    fields = {key: value for key, value in asdict(card).items() if value not in ("", (), {}, 0, False)}
    fields |= {"prompts": card.prompts, "capabilities": card.capabilities, "options": dict(card.options)}
    with replacing(folder / f"{_stem(card.name, folder)}{_SUFFIX}") as path:
        path.write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")
    return card


def noted_cards(name: str, folder: Path) -> list[Path]:
    """Noted cards of a model."""
    return [path for path in sorted(folder.glob(f"*{_SUFFIX}")) if _name_in(path) == name]


def _stem(name: str, folder: Path) -> str:
    """``x`` if the user's own card of this name is x.json, so that x.noted.json comes after it; else the name."""
    own = [path for path in sorted(folder.glob("*.json")) if not path.name.endswith(_SUFFIX) and _name_in(path) == name]
    return own[-1].stem if own else name


def _name_in(path: Path) -> str:
    if path.name == "schema.json":
        return ""
    try:
        return ModelCard.from_json(path).name
    except ModelFileError:
        return ""

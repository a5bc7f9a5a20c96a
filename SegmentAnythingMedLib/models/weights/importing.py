"""Taking in a weights file that was brought by hand, and taking weights away again."""

from __future__ import annotations

import hashlib
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from SegmentAnythingMedLib.errors import ModelFileError, ModelUnavailableError
from SegmentAnythingMedLib.models.card import ModelCard, converted_file
from SegmentAnythingMedLib.models.registry import ModelRegistry
from SegmentAnythingMedLib.models.weights.converting import convert_if_possible
from SegmentAnythingMedLib.models.weights.notes import note_hash, noted_cards, write_note
from SegmentAnythingMedLib.models.weights.partial import PartialFile, explained
from SegmentAnythingMedLib.models.weights.recognition import Layout, read_shapes, recognise
from SegmentAnythingMedLib.models.weights.structure import SAFETENSORS, sha256_of
from SegmentAnythingMedLib.replacing import make_folder, replacing

_BLOCK = 1 << 20
_UNKNOWN_LICENCE = "not known: brought by hand, ask whoever made it"


@dataclass(frozen=True)
class Imported:
    """What became of a file.

    Parameters
    ----------
    card
        The model it is now, with its hash.
    path
        Where the weights lie.
    layout
        What was recognised.
    assumed
        Whether no card fits, so that one was written with the preprocessing of the model it resembles.
    """

    card: ModelCard
    path: Path
    layout: Layout
    assumed: bool


def import_weights(source: str | Path, registry: ModelRegistry, name: str | None = None) -> Imported:
    """Recognise a checkpoint, copy it whole or not at all into the weights folder, note its hash, and convert a .pt.

    Parameters
    ----------
    source
        A .pt or .safetensors file; it is not changed.
    registry
        Knows the cards and the folder.
    name
        A card's name, or a new one; by default chosen by hash, then by file name.

    Raises
    ------
    ModelFileError
        If the file is damaged, hostile, of no known model, or not what the named card says.
    ModelUnavailableError
        If the model has other weights already.
    OutputError
        If the folder cannot be written.
    """
    source = Path(source)
    if not source.is_file():
        raise ModelFileError(f"{source} is not a file.")
    form, shapes = read_shapes(source)
    layout, sha256 = recognise(shapes, source.name), sha256_of(source)
    known = _known_card(source, registry, layout, sha256, name)
    ending = ".safetensors" if form == SAFETENSORS else ".pt"
    card = known or _new_card(source, registry, layout, _free_name(source, registry, name), ending)
    if (Path(card.file).suffix == ".safetensors") != (form == SAFETENSORS):
        card = replace(card, file=Path(card.file).stem + ending)
    target = make_folder(registry.weights) / card.file
    if not _is_same(source, target, card, sha256):
        _copy(source, target, sha256)
    changed = known is None or card != known
    card = (
        write_note(replace(card, sha256=sha256), target.parent) if changed else note_hash(card, target.parent, sha256)
    )
    return Imported(convert_if_possible(card, target.parent), target, layout, known is None)


def remove_weights(name: str, registry: ModelRegistry) -> tuple[Path, ...]:
    """Delete a model's weights, their safetensors copy, parts of a download and the card written for them.

    Cards of the user stay.

    Raises
    ------
    ModelUnavailableError
        If there is nothing to remove, or the weights came with the program.
    OutputError
        If the folder cannot be written.
    """
    card = registry.card(name)
    part = PartialFile(registry.weights / card.file) if card.file else None
    doomed = [part.target, converted_file(part.target), part.path] if part else []
    doomed = [path for path in doomed if path.is_file()] + noted_cards(name, registry.weights)
    if not doomed:
        bundled = registry.weights_path(card) is not None
        reason = "has weights that belong to the program" if bundled else f"has no weights in {registry.weights}"
        raise ModelUnavailableError(f"Model {name!r} {reason}: there is nothing to remove.")
    for path in doomed:
        with explained(path):
            path.unlink()
    if part:
        part.delete()
    return tuple(doomed)


def _known_card(
    source: Path, registry: ModelRegistry, layout: Layout, sha256: str, name: str | None
) -> ModelCard | None:
    cards = {card.name: card for card in registry.cards}
    if name is not None:
        if name not in cards:
            return None
        misfit = _misfit(cards[name], layout, sha256)
        if misfit:
            raise ModelFileError(f"{source.name} is not the model {name!r}: {misfit}. Give it another --name.")
        return cards[name]
    same = (card for card in cards.values() if card.sha256 == sha256)
    named = (card for card in cards.values() if source.name == card.file or _slug(source) == card.name)
    return next((card for card in (*same, *named) if not _misfit(card, layout, sha256)), None)


def _misfit(card: ModelCard, layout: Layout, sha256: str) -> str:
    """Why a file is not a card's, or empty."""
    is_plain_sam = layout.adapter is False and card.family == "sam" and card.input_size == layout.input_size
    if not (card.family == layout.family or is_plain_sam) or not _agrees(card, layout):
        return f"it is {layout}, the card says {card.family} {card.options.get('size', '')}".rstrip()
    if layout.input_size and card.input_size not in (0, layout.input_size):
        return f"it is for slices of {layout.input_size} pixels, the card says {card.input_size}"
    if card.sha256 and card.sha256 != sha256:
        return f"it has sha256 {sha256}, the card says {card.sha256}"
    return ""


def _agrees(card: ModelCard, layout: Layout) -> bool:
    if layout.adapter is False and card.options.get("adapter"):
        return False
    size, version = card.options.get("size"), card.options.get("version", "2.1")
    if size is None or not layout.size:
        return True
    return size == layout.size and (not layout.version or version == layout.version)


def _new_card(source: Path, registry: ModelRegistry, layout: Layout, name: str, ending: str) -> ModelCard:
    """A card made after the model the file resembles: MedSAM's line by its file name or layout, else the released."""
    medical = "medsam" in f"{source.name} {layout.size}".lower()

    def unlike(card: ModelCard) -> tuple[bool, bool, bool, bool]:
        is_special = card.research_only and not medical
        return ("medsam" in card.name) != medical, is_special, not _agrees(card, layout), not card.url

    base = min((card for card in registry.cards if card.family == layout.family), key=unlike, default=None)
    if base is None:
        raise ModelFileError(f"{source.name} is {layout}, of which there is no card here to go by: write one.")
    options = dict(base.options)
    told = {"size": layout.size or None, "version": layout.version or None, "adapter": layout.adapter}
    options |= {key: value for key, value in told.items() if value is not None}
    return replace(
        base,
        name=name,
        title=f"{source.stem} ({layout}, brought by hand)",
        licence=base.licence if medical and base.research_only else _UNKNOWN_LICENCE,
        research_only=True,
        file=name + ending,
        url="",
        sha256="",
        size_mb=round(source.stat().st_size / 1e6, 1),
        input_size=layout.input_size or base.input_size,
        options=options,
    )


def _free_name(source: Path, registry: ModelRegistry, name: str | None) -> str:
    if name is not None:
        ModelCard.from_fields({"name": name, "title": "-", "family": "sam2", "licence": "-"}, f"for {source.name}")
        return name
    taken = {card.name for card in registry.cards}
    slug = _slug(source)
    return next(one for number in range(1, len(taken) + 2) if (one := slug + f"-{number}" * (number > 1)) not in taken)


def _slug(source: Path) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", source.stem.lower()).strip("-.") or "brought-by-hand"


def _is_same(source: Path, target: Path, card: ModelCard, sha256: str) -> bool:
    """Whether the file is in place already; other weights in its place are not overwritten."""
    if not target.exists():
        return False
    if source.resolve() == target.resolve() or sha256_of(target) == sha256:
        return True
    raise ModelUnavailableError(
        f"Model {card.name!r} has other weights already: 'models remove {card.name}' first, or give a new --name."
    )


def _copy(source: Path, target: Path, sha256: str) -> None:
    """Copy a file that was checked; if it changed meanwhile, nothing is kept."""
    with explained(target):
        free, size = shutil.disk_usage(target.parent).free, source.stat().st_size
        if free < size:
            raise OSError(f"{free // 10**6} MB free, {size // 10**6} MB needed")
    digest = hashlib.sha256()
    with replacing(target) as path:
        with source.open("rb") as stream, path.open("wb") as copy:
            while block := stream.read(_BLOCK):
                digest.update(block)
                copy.write(block)
        if digest.hexdigest() != sha256:
            raise ModelFileError(f"{source.name} changed while it was read: try again.")

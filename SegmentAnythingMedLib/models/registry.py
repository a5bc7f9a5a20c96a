"""All models by name: cards that come with the library and cards the user added, and how to load one."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from SegmentAnythingMedLib.errors import ModelFileError, ModelUnavailableError
from SegmentAnythingMedLib.models.base import SliceModel, VolumeModel
from SegmentAnythingMedLib.models.card import ModelCard, converted_file, is_converted
from SegmentAnythingMedLib.resources import resource_path

log = logging.getLogger(__name__)

FALLBACK_MODEL = "classic"
"""Needs no weights and no further package."""
EMBEDDED_MODEL = "embedded"
"""Comes with the library, and needs one small package."""
_EMBEDDED_NEEDS = "onnxruntime"
FOLDER_VARIABLE = "SEGMENT_ANYTHING_MED_MODELS"
_EXTRAS = {"torch": "torch", "safetensors": "torch", "transformers": "sam3"}


def weights_folder() -> Path:
    """Where the user's weights and cards lie: ``SEGMENT_ANYTHING_MED_MODELS``, else a folder in the user's cache."""
    chosen = os.environ.get(FOLDER_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    base = os.environ.get("LOCALAPPDATA") or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "segment-anything-med" / "models"


def default_model() -> str:
    """The embedded model where its weights and onnxruntime are here, else `FALLBACK_MODEL`; imports neither."""
    folders = resource_path() / "Weights", weights_folder()
    has_weights = any((folder / f"{EMBEDDED_MODEL}.onnx").is_file() for folder in folders)
    return EMBEDDED_MODEL if has_weights and is_installed(_EMBEDDED_NEEDS) else FALLBACK_MODEL


def is_installed(module: str) -> bool:
    """Whether a package can be found, without importing it."""
    try:
        found = importlib.util.find_spec(module)
    except ValueError:  # a stand-in that another package put in its place
        return False
    # An empty folder that an uninstallation left behind is found, too, but has no origin.
    return found is not None and bool(found.origin)


class ModelRegistry:
    """Cards by name. A user's card of the same name replaces the library's.

    Parameters
    ----------
    folders
        Folders of ``*.json`` cards, later ones win; by default the library's and the user's.
    weights
        Folder of weight files. A card there that cannot be read is left out: see `unreadable`.

    Attributes
    ----------
    unreadable
        A sentence for each card in ``weights`` that was left out.
    """

    def __init__(self, folders: Iterable[Path] | None = None, weights: Path | None = None) -> None:
        self.weights = weights if weights is not None else weights_folder()
        searched = list(folders) if folders is not None else [resource_path("ModelCards"), self.weights]
        self.unreadable: tuple[str, ...] = ()
        self._cards: dict[str, ModelCard] = {}
        for folder in searched:
            for path in _card_files(folder):
                self._take(path, folder == self.weights)

    def _take(self, path: Path, is_users: bool) -> None:
        try:
            card = ModelCard.from_json(path)
        except ModelFileError as error:
            if not is_users:
                raise
            log.warning("%s", error)
            self.unreadable += (str(error),)
        else:
            self._cards[card.name] = card

    @property
    def cards(self) -> tuple[ModelCard, ...]:
        """All cards, by name."""
        return tuple(self._cards[name] for name in sorted(self._cards))

    def card(self, name: str) -> ModelCard:
        """The card of this name, or a `ModelUnavailableError` that lists the names."""
        if name not in self._cards:
            raise ModelUnavailableError(f"Model {name!r} is not known: use one of {', '.join(sorted(self._cards))}.")
        return self._cards[name]

    def weights_path(self, card: ModelCard) -> Path | None:
        """Where the card's weights lie, or None if they are not on this machine (or it has none)."""
        if not card.file:
            return None
        candidates = [self.weights / card.file, resource_path() / "Weights" / card.file]
        return next((path for path in candidates if path.is_file()), None)

    def is_present(self, card: ModelCard) -> bool:
        """Whether the model could be loaded without fetching weights."""
        return not card.file or self.weights_path(card) is not None

    def load(self, name: str, device: str = "auto", **options: object) -> SliceModel | VolumeModel:
        """Load a model by name.

        Parameters
        ----------
        name
            A card's name.
        device
            ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        **options
            Replace options of the card.

        Raises
        ------
        ModelUnavailableError
            If the name, its weights or a package it needs is missing.
        ModelFileError
            If the weights do not fit the card.
        """
        card = self.card(name)
        try:
            family = importlib.import_module(f"SegmentAnythingMedLib.models.{card.family}")
        except ModuleNotFoundError as error:
            raise ModelUnavailableError(_missing_package(card, error)) from error
        if not callable(getattr(family, "load", None)):
            raise ModelUnavailableError(_unknown_family(card))
        if not self.is_present(card):
            source = f"Get it from {card.url}" if card.url else "Ask whoever made it"
            raise ModelUnavailableError(
                f"Model {name!r} has no weights here. {source} and put {card.file} into {self.weights}."
            )
        return self._load(family, card, device, options)

    def _load(
        self, family: ModuleType, card: ModelCard, device: str, options: dict[str, object]
    ) -> SliceModel | VolumeModel:
        """From the safetensors copy if there is one and it is whole, else from the original."""
        path = self.weights_path(card)
        if path is not None and is_converted(card, path):
            copy = converted_file(path)
            try:
                copied = replace(card, file=copy.name, sha256=card.converted, converted="")
                return family.load(copied, copy, device=device, **options)
            except ModelFileError as error:
                log.warning("%s The original, %s, is read instead.", error, card.file)
        return family.load(card, path, device=device, **options)


def _missing_package(card: ModelCard, error: ModuleNotFoundError) -> str:
    if error.name and error.name.startswith("SegmentAnythingMedLib"):
        return _unknown_family(card)
    extra = _EXTRAS.get(str(error.name).partition(".")[0])
    install = f"install segment-anything-med[{extra}]" if extra else f"install {error.name}"
    return f"Model {card.name!r} needs the package {error.name!r}: {install}, or use the model {FALLBACK_MODEL}."


def _unknown_family(card: ModelCard) -> str:
    return f"Model {card.name!r} is of the family {card.family!r}, which this version does not have."


def _card_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.glob("*.json") if path.name != "schema.json")

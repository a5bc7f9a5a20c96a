"""The models a user can choose, and what each still needs on this machine."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

from SegmentAnythingMedLib.models.card import ModelCard
from SegmentAnythingMedLib.models.registry import EMBEDDED_MODEL, FALLBACK_MODEL, ModelRegistry, is_installed


@dataclass(frozen=True)
class Package:
    """A Python package that a family of models needs.

    Parameters
    ----------
    module
        What is imported.
    requirement
        What is given to pip.
    download_mb
        About how much is fetched, its dependencies included.
    from_extension
        Name of the Slicer extension that installs it, or empty: then pip does.
    """

    module: str
    requirement: str
    download_mb: int
    from_extension: str = ""


_ONNX = Package("onnxruntime", "onnxruntime>=1.18", 40)
_TORCH = Package("torch", "torch>=2.4", 900, "PyTorch")
_SAFETENSORS = Package("safetensors", "safetensors>=0.4", 1)
_NEEDED: dict[str, tuple[Package, ...]] = {"classic": (), "embedded": (_ONNX,), "nninteractive_remote": ()}


@dataclass(frozen=True)
class ModelChoice:
    """One row of the list of models.

    Parameters
    ----------
    card
        The model's card.
    label
        Short: name and whether it can be used now.
    detail
        Licence, size, research-only, and what is missing, in sentences.
    missing
        Packages to install first.
    has_weights
        Whether its weights lie on this machine, or it has none.
    """

    card: ModelCard
    label: str
    detail: str
    missing: tuple[Package, ...]
    has_weights: bool

    @property
    def is_ready(self) -> bool:
        """Whether it can be used without installing or fetching anything."""
        return self.has_weights and not self.missing


def model_choices(registry: ModelRegistry) -> tuple[ModelChoice, ...]:
    """All models: the embedded and the classic one first, then those that are ready before the others."""
    importlib.invalidate_caches()
    choices = [_choice(registry, card) for card in registry.cards]
    first = {EMBEDDED_MODEL: 0, FALLBACK_MODEL: 1}
    return tuple(sorted(choices, key=lambda one: (first.get(one.card.name, 2), not one.is_ready, one.card.name)))


def default_choice(choices: tuple[ModelChoice, ...]) -> ModelChoice:
    """What to begin with: the first that is ready, which is that of `default_model`."""
    return next((one for one in choices if one.is_ready), choices[0])


def missing_packages(card: ModelCard) -> tuple[Package, ...]:
    """What has to be installed before the model can be loaded; asks only whether modules can be found."""
    needed = _NEEDED.get(card.family, (_TORCH, _SAFETENSORS))
    return tuple(package for package in needed if not is_installed(package.module))


def _choice(registry: ModelRegistry, card: ModelCard) -> ModelChoice:
    missing, has_weights = missing_packages(card), registry.is_present(card)
    if not has_weights:
        state = "no weights here"
    elif missing:
        state = f"needs {missing[0].module}"
    else:
        state = "ready"
    return ModelChoice(card, f"{card.name} ({state})", _detail(card, missing, has_weights), missing, has_weights)


def _detail(card: ModelCard, missing: tuple[Package, ...], has_weights: bool) -> str:
    parts = [f"{card.title}.", f"Licence: {card.licence}."]
    if card.research_only:
        parts.append("For research only.")
    if card.size_mb:
        parts.append(f"{card.size_mb:g} MB.")
    if not has_weights:
        how = "choose it to download them" if card.url else "ask whoever made it for them"
        parts.append(f"Its weights are not on this machine: {how}, or import the file {card.file}.")
    for package in missing:
        by = f"by the extension {package.from_extension}" if package.from_extension else "once"
        parts.append(f"The package {package.module} (about {package.download_mb} MB) is installed {by} when you agree.")
    return " ".join(parts)

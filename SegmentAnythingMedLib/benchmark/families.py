"""What a slice costs with each model on this processor: random weights, one 512 x 512 slice, a box, one thread.

Weights change no time, so every model can be measured without its makers' files.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from SegmentAnythingMedLib.errors import SegmentAnythingMedError
from SegmentAnythingMedLib.models.base import Recall, SliceImage, SliceModel
from SegmentAnythingMedLib.models.card import ModelCard
from SegmentAnythingMedLib.models.registry import ModelRegistry
from SegmentAnythingMedLib.prompts import SlicePrompts

SIDE = 512
_BOX = (180.0, 160.0, 330.0, 340.0)


@dataclass(frozen=True)
class FamilyCost:
    """Seconds of one model.

    Parameters
    ----------
    model, family
        Names of the card and its family.
    encode_s, answer_s
        Features of a slice, and a mask from a box on known features; computing time, the best of ``repeats``.
    """

    model: str
    family: str
    encode_s: float
    answer_s: float
    repeats: int


def run_families(models: Sequence[str] = (), repeats: int = 2) -> list[FamilyCost | str]:
    """Measure cards by name, by default all; a sentence in place of one that cannot be built here."""
    import torch

    torch.set_num_threads(1)
    registry = ModelRegistry()
    cards = [registry.card(name) for name in models] if models else list(registry.cards)
    return [_measured(registry, card, repeats) for card in cards if card.has("slice")]


def _measured(registry: ModelRegistry, card: ModelCard, repeats: int) -> FamilyCost | str:
    try:
        model = _built(registry, card)
    except (SegmentAnythingMedError, ImportError) as error:
        return f"{card.name}: {error}"
    pixels = np.random.default_rng(0).random((1, SIDE, SIDE), dtype=np.float32)
    image, prompts = SliceImage(pixels), SlicePrompts(box_rc=_BOX)
    best = [np.inf, np.inf]
    for _ in range(repeats):
        start = time.process_time()
        features = model.encode_slices([image])[0]
        middle = time.process_time()
        model.predict(features, prompts, Recall())
        best = np.minimum(best, [middle - start, time.process_time() - middle]).tolist()
    return FamilyCost(card.name, card.family, round(best[0], 4), round(best[1], 4), repeats)


def _built(registry: ModelRegistry, card: ModelCard) -> SliceModel:
    """With its weights where they are part of the project, else with random ones."""
    if registry.is_present(card):
        return registry.load(card.name, "cpu")
    family = importlib.import_module(f"SegmentAnythingMedLib.models.{card.family}")
    return family.load(card, None, device="cpu", random_seed=0)


def markdown(found: Sequence[FamilyCost | str], facts: dict[str, Any]) -> str:
    """The report."""
    lines = ["# What a slice costs with each model", "", *(f"- {name}: {value}" for name, value in facts.items()), ""]
    lines += [f"- not measured: {one}" for one in found if isinstance(one, str)]
    lines += ["", "| model | family | features of a slice, s | mask from a box, s |", "|---|---|---|---|"]
    costs = sorted((one for one in found if isinstance(one, FamilyCost)), key=lambda one: one.encode_s + one.answer_s)
    lines += [f"| {one.model} | {one.family} | {one.encode_s:.3f} | {one.answer_s:.3f} |" for one in costs]
    return "\n".join(lines) + "\n"


def as_json(found: Sequence[FamilyCost | str]) -> list[dict[str, Any]]:
    return [asdict(one) for one in found if isinstance(one, FamilyCost)]

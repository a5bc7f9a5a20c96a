"""Slice chaining: how models without a memory carry an outline on, by prompting a slice with its neighbour's mask.

A "memory" is the mask of a slice. The next slice is prompted with the box round the nearest remembered mask, a little
larger, and the point deepest inside it; that the object has ended is read from predicted quality, overlap and change
of area. This is how MedSAM and SAM 2's fine-tuned 2D variants are run on volumes (Ma et al. 2024, arXiv 2408.03322,
there with the box alone); the margins and the rule for the end are ours, an approximation that no paper states.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Protocol

import numpy as np
from scipy import ndimage

from SegmentAnythingMedLib.errors import ModelFileError, PromptError
from SegmentAnythingMedLib.models.base import Prediction, Recall
from SegmentAnythingMedLib.models.chaining_memory import MaskMemory, inside, mask_similarity
from SegmentAnythingMedLib.prompts import SlicePrompts

FAR = 10.0
"""Logit of what is certain."""


class SliceFeatures(Protocol):
    """What features of a slice must say of it, whatever else they hold."""

    @property
    def shape(self) -> tuple[int, int]: ...

    @property
    def spacing_mm(self) -> tuple[float, float]: ...

    @property
    def nbytes(self) -> int: ...


@dataclass(frozen=True)
class Chaining:
    """How a mask prompts the next slice, and when the object has ended there.

    None of it is measured with trained weights. With the model `classic` as a stand-in that sees one slice at a time,
    over 45 structures of the phantom (CT, MR, ultrasound): margins of 0, .02 and .03 gave a mean Dice of .52, .50 and
    .48 and missed 125, 88 and 111 slices; without the point it was .41 in place of .51 (CT alone, margin .05); negative
    points in the corners of the box changed nothing. A card sets these as options ``chain_margin`` and so on.

    Parameters
    ----------
    margin, margin_mm
        Added to the mask's box on each side: a share of its longer side, and millimetres. Twice as much over two
        slices, three times over three or more.
    point
        Whether the deepest point is given beside the box.
    mask
        Whether the mask itself is given as the answer to refine, to networks that take one. It holds on to the last
        outline, also past the object's end.
    min_quality, min_overlap, max_change
        The object is gone below this predicted quality, below this share of the smaller of both masks that they have
        in common, or where the area changes by more than this factor.
    """

    margin: float = 0.02
    margin_mm: float = 0.0
    point: bool = True
    mask: bool = False
    min_quality: float = 0.4
    min_overlap: float = 0.1
    max_change: float = 4.0

    def __post_init__(self) -> None:
        for name, low, high in _RANGES:
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"chain_{name} must be from {low} to {high}, got {getattr(self, name)!r}")

    @classmethod
    def from_options(cls, options: Mapping[str, object], model: str = "") -> Chaining:
        """Settings from a card's options; those that do not start with ``chain_`` are left to others.

        Raises
        ------
        ModelFileError
            If a setting is not known, of the wrong type or out of range.
        """
        kinds = {f"chain_{one.name}": type(one.default) for one in fields(cls)}
        given = {key: value for key, value in options.items() if key.startswith("chain_")}
        for key, value in given.items():
            fits = isinstance(value, bool) if kinds.get(key) is bool else type(value) in (int, float)
            if key not in kinds or not fits:
                raise ModelFileError(f"Model {model!r} has the option {key} = {value!r}: use {', '.join(kinds)}.")
        try:
            return cls(**{key.removeprefix("chain_"): value for key, value in given.items()})
        except ValueError as error:
            raise ModelFileError(f"Model {model!r}: {error}.") from error

    def link(self, recall: Recall) -> Link | None:
        """From the nearest remembered slice with the object; None if there is none."""
        filled = [one for one in recall.memories if one.memory.present and not one.memory.is_empty]
        if not filled:
            return None
        # Of two slices equally near the user's own is the better one.
        nearest = min(filled, key=lambda one: (abs(one.distance), one.slot > 0))
        return Link(nearest.memory, max(abs(nearest.distance), 1), self)


_RANGES = (
    ("margin", 0.0, 1.0),
    ("margin_mm", 0.0, 100.0),
    ("min_quality", 0.0, 0.99),
    ("min_overlap", 0.0, 0.99),
    ("max_change", 1.01, 1000.0),
)


@dataclass(frozen=True, eq=False)
class Link:
    """From a remembered mask to the slice that is asked for.

    Parameters
    ----------
    memory
        The nearest slice with the object.
    distance
        Slices away from it, 1 or more.
    rule
        Margins and limits.
    """

    memory: MaskMemory
    distance: int
    rule: Chaining

    @property
    def prompts(self) -> SlicePrompts:
        """The box, enlarged for the change from slice to slice, and the deepest point."""
        steps = min(self.distance, 3)
        box = self.memory.grown_box(steps * self.rule.margin, steps * self.rule.margin_mm)
        points = [self.memory.deepest_rc] if self.rule.point else []
        return SlicePrompts(
            np.array(points, dtype=np.float64).reshape(-1, 2), np.ones(len(points), dtype=bool), box_rc=box
        )

    @property
    def previous(self) -> Prediction | None:
        """The mask as an answer to refine, if the rule says so."""
        return answer_of(self.memory.mask) if self.rule.mask else None

    def settle(self, found: Prediction) -> Prediction:
        """An answer to `prompts`, without parts that do not touch the remembered mask, and with its presence."""
        logits = np.stack([self._connected(one) for one in found.logits])
        presence = self.presence(logits[0] > 0, float(found.quality[0]))
        return replace(found, logits=logits, presence=presence)

    def presence(self, mask: np.ndarray, quality: float) -> float:
        """Logit, -10 to 10, that a (rows, columns) bool mask is still the object: its weakest clue.

        With distance from the remembered slice less overlap and more change of area are normal.
        """
        area = int(np.count_nonzero(mask))
        if not area:
            return -FAR
        rule = self.rule
        overlap = self.memory.shared_pixels(mask) / min(area, self.memory.area)
        change = abs(math.log(area / self.memory.area)) / (self.distance * math.log(rule.max_change))
        clues = _above(quality, rule.min_quality), _above(overlap, rule.min_overlap / self.distance), 1.0 - change
        return float(np.clip(FAR * min(clues), -FAR, FAR))

    def _connected(self, logits: np.ndarray) -> np.ndarray:
        """Logits with parts apart from the remembered mask made background; all kept if no part touches it."""
        labels, count = ndimage.label(logits > 0)
        if count < 2:
            return logits
        touched = np.unique(labels[inside(self.memory.box_rc)][self.memory.block])
        kept = np.isin(labels, touched[touched > 0])
        return np.where((logits > 0) & ~kept, -logits, logits) if kept.any() else logits


class ChainingModel:
    """What families without a memory share: `predict`, `encode_memory` and `similarity` of `SliceModel`.

    A family sets ``chaining`` and writes `outline`; its features know their shape and spacing (`SliceFeatures`).
    """

    chaining: Chaining = Chaining()

    def outline(
        self, features: SliceFeatures, prompts: SlicePrompts, previous: Prediction | None, multimask: bool
    ) -> Prediction:
        """Masks from prompts on this slice alone, best first; ``prompts`` holds no mask and is not empty."""
        raise NotImplementedError

    def predict(
        self,
        features: SliceFeatures,
        prompts: SlicePrompts,
        recall: Recall = Recall(),  # noqa: B008 (a frozen value)
        previous: Prediction | None = None,
        multimask: bool = False,
    ) -> Prediction:
        """See `SliceModel.predict`. Without prompts the nearest remembered mask gives them; without any the answer is
        empty and absent. Where there are prompts, memories are not looked at."""
        if prompts.mask is not None:
            return confirmed(prompts.mask, features.shape)
        if not prompts.is_empty:
            return self.outline(features, prompts, previous, multimask)
        link = self.chaining.link(recall)
        if link is None:
            return nothing(features.shape)
        return link.settle(self.outline(features, link.prompts, link.previous, multimask))

    def encode_memory(self, features: SliceFeatures, prediction: Prediction, prompted: bool) -> MaskMemory:
        """The first candidate's mask; a tracked one counts as absent where its presence is below 0."""
        present = prompted or prediction.presence >= 0
        return MaskMemory.of(prediction.masks[0], features.spacing_mm, present)

    def similarity(self, a: MaskMemory, b: MaskMemory) -> float:
        """See `mask_similarity`."""
        return mask_similarity(a, b)


def confirmed(mask: np.ndarray, shape: tuple[int, int]) -> Prediction:
    """A mask prompt is the answer; `PromptError` if it does not fit the slice."""
    if np.shape(mask) != shape:
        raise PromptError(f"The mask prompt has shape {np.shape(mask)}, but the slice is {shape}.")
    return replace(answer_of(mask), presence=FAR if np.any(mask) else -FAR)


def answer_of(mask: np.ndarray) -> Prediction:
    """A (rows, columns) bool mask as a prediction without a model's state."""
    return Prediction(np.where(mask, FAR, -FAR).astype(np.float32)[None], np.ones(1, np.float32), FAR)


def nothing(shape: tuple[int, int]) -> Prediction:
    """The answer where nothing says what to look for."""
    return Prediction(np.full((1, *shape), -FAR, np.float32), np.zeros(1, np.float32), -FAR)


def _above(value: float, least: float) -> float:
    """1 at 1, 0 at ``least``, negative below."""
    return (value - least) / (1.0 - least)

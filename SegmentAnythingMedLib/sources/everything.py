"""Snap an automatic segmentation to image edges: a model outlines everything, and each outline takes a vote.

After the study of SAM 2 for video semantic segmentation (VSS): a grid of 16 x 16 clicks gives masks, those with
a predicted quality of at least 0.6 and a stability of at least 0.8 are kept, each takes the class that most of its
pixels have in the automatic segmentation, and pixels without a mask keep their class.

Ours, an approximation: masks live on one slice, not on 32 frames; the grid covers the segmentation's surroundings, not
the whole slice; of two masks that overlap by a Dice of ``overlap`` the one of higher quality stays; a mask votes only
if ``agreement`` of its pixels have one class; where masks overlap the one that agrees most wins; a structure that would
be swallowed or lose half of itself stays; and with ``reach_mm`` above 0 only pixels that near to a border of the
automatic segmentation change.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from SegmentAnythingMedLib.errors import PromptError
from SegmentAnythingMedLib.memory.settings import setting
from SegmentAnythingMedLib.models.base import Prediction
from SegmentAnythingMedLib.prompts import MaskPrompt, Prompt, SlicePrompts
from SegmentAnythingMedLib.sources.source import Given, Need, PromptSource

_AROUND_SHARE = 0.2
_SWALLOWED = 0.4
"""A mask that holds more than this share of another structure is no outline of one thing: that structure stays."""
_LEFT = 0.5
"""A structure of which less than this share is left after the vote stays as it was: a border moves, but not so far."""


@dataclass(frozen=True, eq=False)
class Masklet:
    """A mask that the model gave for a click: (rows, columns) bool, and its predicted quality, 0 to 1."""

    mask: np.ndarray
    quality: float


@dataclass(frozen=True)
class Source(PromptSource):
    """Masks of an automatic segmentation that follow the image's edges, one per slice."""

    name: ClassVar[str] = "everything"
    sentence: ClassVar[str] = (
        "Outlines everything on a grid of clicks and lets each outline vote, to snap a mask to edges."
    )
    needs: ClassVar[frozenset[Need]] = frozenset({Need.LABELS, Need.MODEL})

    grid: int = setting(16, "clicks along each side", 2, 64)
    quality: float = setting(0.6, "least predicted quality of a mask", 0, 1)
    stability: float = setting(0.8, "least overlap of a mask with itself at a shifted threshold", 0, 1)
    offset: float = setting(0.9, "by how much the threshold is shifted, in logits", 0, 10)
    overlap: float = setting(0.8, "masks of a larger Dice are the same", 0.1, 1)
    agreement: float = setting(0.6, "least share of a mask's pixels that have one class, to let it vote", 0, 1)
    reach_mm: float = setting(8.0, "how far a border may move; 0: any distance", 0, 1000)

    def prompts(self, given: Given) -> tuple[Prompt, ...]:
        """See `PromptSource.prompts`: a mask on ``given.index``, or on every slice that shows the structure."""
        given.check(self.needs, self.name)
        found: list[Prompt] = []
        for index in given.mask_slices():
            snapped = self.snapped(given, index)
            mask = snapped > 0 if given.label is None else snapped == given.label
            if mask.any():
                found.append(MaskPrompt(mask, index, given.slices.plane))
        if not found:
            raise PromptError("After the vote nothing is left of the mask: raise its agreement or lower its quality.")
        return tuple(found)

    def snapped(self, given: Given, index: int) -> np.ndarray:
        """(rows, columns) the labels of a slice after the vote, in the type of ``given.labels``."""
        labels = given.labels_on(index)
        changed = vote(labels, self.masklets(given, index), self.agreement)
        return changed if self.reach_mm == 0 else _near_border(labels, changed, self.reach_mm, given.slices.spacing_mm)

    def masklets(self, given: Given, index: int) -> tuple[Masklet, ...]:
        """The masks of a slice, best first; asked once for all labels."""
        where = self._clicks(given, index)
        key = (self, index, where)
        if key not in given.kept:
            clicked = (given.predict(index, _click(at), multimask=True) for at in where)
            given.kept[key] = distinct(self._good(clicked), self.overlap)
        return given.kept[key]

    def _clicks(self, given: Given, index: int) -> tuple[tuple[float, float], ...]:
        """Pixels of a grid over the segmentation and its surroundings."""
        rows, columns = np.nonzero(given.labels_on(index))
        low, high = np.array([rows.min(), columns.min()]), np.array([rows.max(), columns.max()]) + 1
        around = _AROUND_SHARE * (high - low).max()
        low, high = np.maximum(low - around, 0), np.minimum(high + around, given.slices.shape)
        cells = (np.arange(self.grid) + 0.5) / self.grid
        across = [np.unique(np.floor(a + cells * (b - a))) for a, b in zip(low, high, strict=True)]
        return tuple((float(row), float(column)) for row in across[0] for column in across[1])

    def _good(self, predictions: Iterable[Prediction]) -> list[Masklet]:
        """Masks that are good and stable enough."""
        found = []
        for prediction in predictions:
            for logits, quality in zip(prediction.logits, prediction.quality, strict=True):
                small, large = np.count_nonzero(logits > self.offset), np.count_nonzero(logits > -self.offset)
                if quality >= self.quality and small and small >= self.stability * large:
                    found.append(Masklet(logits > 0, float(quality)))
        return found


def distinct(masklets: Iterable[Masklet], overlap: float) -> tuple[Masklet, ...]:
    """Non-maximum suppression: best first, without those whose Dice with a better one is above ``overlap``."""
    kept: list[Masklet] = []
    bits: list[np.ndarray] = []
    for one in sorted(masklets, key=lambda masklet: -masklet.quality):
        flat = one.mask.ravel()
        size = np.count_nonzero(flat)
        if all(2 * np.count_nonzero(flat & other) <= overlap * (size + np.count_nonzero(other)) for other in bits):
            kept.append(one)
            bits.append(flat)
    return tuple(kept)


def vote(labels: np.ndarray, masklets: Iterable[Masklet], agreement: float = 0.0) -> np.ndarray:
    """(rows, columns) the labels after every mask took the class that most of its pixels have.

    Parameters
    ----------
    labels
        (rows, columns) bool or integers from 0, the background.
    masklets
        Masks; those that agree least are written first.
    agreement
        Least share of a mask's pixels that have the class.
    """
    classes, coded = np.unique(labels, return_inverse=True)
    coded = coded.reshape(labels.shape)
    sizes = np.bincount(coded.ravel())
    ballots = []
    for one in masklets:
        counts = np.bincount(coded[one.mask], minlength=len(classes))
        share = counts.max() / max(counts.sum(), 1)
        if counts.sum() and share >= agreement:
            winner = int(np.argmax(counts))
            swallowed = (counts > _SWALLOWED * sizes) & (np.arange(len(classes)) != winner)
            ballots.append((share, one.quality, winner, one.mask & ~swallowed[coded]))
    result = coded.copy()
    for _, _, winner, mask in sorted(ballots, key=lambda ballot: ballot[:2]):
        result[mask] = winner
    left = np.bincount(coded[result == coded], minlength=len(classes)) / sizes
    lost = (left < _LEFT)[coded] & (labels != 0)
    return classes[np.where(lost, coded, result)]


def _near_border(
    labels: np.ndarray, changed: np.ndarray, reach_mm: float, spacing_mm: tuple[float, float]
) -> np.ndarray:
    """The changed labels where a border of the labels is within reach, else the labels."""
    from scipy import ndimage

    padded = np.pad(labels, 1, mode="edge")
    same = ndimage.maximum_filter(padded, 3) == ndimage.minimum_filter(padded, 3)
    away = ndimage.distance_transform_edt(same, sampling=spacing_mm)[1:-1, 1:-1]
    return np.where(away <= reach_mm, changed, labels)


def _click(at: tuple[float, float]) -> SlicePrompts:
    return SlicePrompts(np.array([at], dtype=np.float64), np.array([True]))

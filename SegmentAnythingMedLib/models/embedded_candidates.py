"""Answers of the embedded network on their windows: for a click several, of different size, of which the best stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from SegmentAnythingMedLib.models.base import Reach, united_reach
from SegmentAnythingMedLib.models.embedded_crop import Frame, mask_box
from SegmentAnythingMedLib.prompts import SlicePrompts
from SegmentAnythingMedLib.rasterize import curve_mask

CLICK_WINDOWS = 3
"""Windows of different size that are tried for a click."""
LEAST_WINDOW = 24
"""Slice pixels (of the larger spacing) across the smallest of them."""
_SMALLEST = 1 / 11
_LARGEST = 0.85
"""Sides of the smallest and the largest window as a share of the slice's longer side."""
_ALIKE = 0.8
"""Intersection over union from which on two candidates are the same."""
_BORDER = 2
_TOO_SMALL = 0.06
_CUT = 0.25
"""Taken off the quality of candidates that the window cuts off, or that are too small in it to be judged."""
_DECIDED = 0.5


@dataclass(frozen=True, eq=False)
class Candidate:
    """One answer.

    Parameters
    ----------
    frame
        Its window.
    logits
        (size, size) float32 on the window.
    quality, presence
        Logits of the predicted intersection over union, and that the object is there.
    tracked
        Whether memories alone gave it, so that the object may be absent.
    """

    frame: Frame
    logits: np.ndarray
    quality: float
    presence: float
    tracked: bool = False

    @cached_property
    def mask(self) -> np.ndarray:
        """(size, size) bool."""
        return self.logits > 0

    @property
    def touches_border(self) -> bool:
        """Whether the mask reaches the window's border over more than a few pixels."""
        inner = self.mask[_BORDER:-_BORDER, _BORDER:-_BORDER]
        return int(self.mask.sum()) - int(inner.sum()) > 2 * _BORDER * _BORDER

    @property
    def box_rc(self) -> tuple[float, float, float, float]:
        """Box of the mask on the slice; the mask must not be empty."""
        row0, column0, row1, column1 = mask_box(self.mask)
        low, high = self.frame.to_slice(np.array([[row0, column0], [row1, column1]]))
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])

    @property
    def share(self) -> float:
        """Longer side of the mask as a share of the window's; 0 if it is empty."""
        if not self.mask.any():
            return 0.0
        row0, column0, row1, column1 = mask_box(self.mask)
        return (max(row1 - row0, column1 - column0) + 1) / self.frame.size

    @property
    def rank(self) -> float:
        """Predicted quality, less if the window does not suit the mask."""
        if not self.mask.any():
            return -1.0
        quality = 1 / (1 + np.exp(-self.quality))
        return float(quality - _CUT * (self.touches_border or self.share < _TOO_SMALL))


def click_frames(points_rc: np.ndarray, shape: tuple[int, int], spacing_mm: tuple[float, float]) -> list[Frame]:
    """Windows of growing size round the middle of clicked points."""
    extent = max(shape[0] * spacing_mm[0], shape[1] * spacing_mm[1])
    low, high = points_rc.min(axis=0), points_rc.max(axis=0)
    spread = ((high - low) * spacing_mm).max()
    smallest = max(_SMALLEST * extent, LEAST_WINDOW * max(spacing_mm), 1.5 * spread)
    largest = max(_LARGEST * extent, smallest)
    sides = np.unique(np.geomspace(smallest, largest, CLICK_WINDOWS).round(6))
    center = tuple(float(value) for value in (low + high) / 2)
    return [Frame(center, float(side), spacing_mm) for side in sides]


def distinct(candidates: list[Candidate], count: int) -> list[Candidate]:
    """The best ``count`` candidates that differ, best first."""
    kept: list[Candidate] = []
    for one in sorted(candidates, key=lambda candidate: candidate.rank, reverse=True):
        if len(kept) == count:
            break
        if one.mask.any() and all(_overlap(one, other) < _ALIKE for other in kept):
            kept.append(one)
    return kept


def whole_slice(candidate: Candidate, shape: tuple[int, int], prompts: SlicePrompts) -> np.ndarray:
    """(rows, columns) float32 logits on the slice, in which clicked and scribbled pixels have their label."""
    logits = candidate.frame.give(candidate.logits, shape)
    for curve, positive in prompts.scribbles:
        _decide(logits, curve_mask(curve, shape), positive)
    pixels = np.clip(np.rint(prompts.points_rc).astype(int), 0, np.array(shape) - 1)
    for (row, column), positive in zip(pixels, prompts.positive, strict=True):
        _decide(logits, (row, column), bool(positive))
    return logits


def reached(frames: Sequence[Frame], shape: tuple[int, int], prompts: SlicePrompts) -> Reach:
    """Rows and columns of the slice that `whole_slice` writes to."""
    marks = np.concatenate([prompts.points_rc, *(np.reshape(curve, (-1, 2)) for curve, _ in prompts.scribbles)])
    marked = []
    if len(marks):
        low = np.clip(np.floor(marks.min(axis=0)) - 1, 0, np.array(shape) - 1).astype(int)
        high = np.clip(np.ceil(marks.max(axis=0)) + 2, low + 1, shape).astype(int)
        marked = [(slice(low[0], high[0]), slice(low[1], high[1]))]
    return united_reach([*(frame.reach(shape) for frame in frames), *marked])


def _decide(logits: np.ndarray, where: np.ndarray | tuple[int, int], positive: bool) -> None:
    logits[where] = np.maximum(logits[where], _DECIDED) if positive else np.minimum(logits[where], -_DECIDED)


def _overlap(a: Candidate, b: Candidate) -> float:
    """Intersection over union, on the smaller window's pixels."""
    small, large = sorted((a, b), key=lambda one: one.frame.side_mm)
    seen = small.mask
    if small.frame is not large.frame:
        diagonal = np.repeat(np.arange(small.frame.size)[:, None], 2, axis=1)
        at = np.rint(large.frame.to_crop(small.frame.to_slice(diagonal))).astype(int)
        inside = (at >= 0) & (at < large.frame.size)
        rows, columns = at.clip(0, large.frame.size - 1).T
        other = large.mask[rows][:, columns] & np.logical_and.outer(*inside.T)
        scale = (large.frame.side_mm / large.frame.size) / (small.frame.side_mm / small.frame.size)
        beyond = max(large.mask.sum() * scale**2 - other.sum(), 0.0)
    else:
        other, beyond = large.mask, 0.0
    union = (seen | other).sum() + beyond
    return float((seen & other).sum() / union) if union else 1.0

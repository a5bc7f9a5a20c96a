"""A rough mask becomes what a person would draw from it: a box round it and clicks where it is deepest.

The click is the centre of the largest disc inside the mask, in millimetres: the point that stays inside the object
longest if the mask is too large or shifted. Further clicks are the centres of the next largest discs. The box is the
mask's own with a margin: above 0 for masks that are too small, below 0 for masks that are too large. Slice choice and
margin are ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from SegmentAnythingMedLib.memory.settings import setting
from SegmentAnythingMedLib.prompts import Prompt
from SegmentAnythingMedLib.sources import clicks
from SegmentAnythingMedLib.sources.source import Given, Need, PromptSource

_LEAST_DISC = 0.25


@dataclass(frozen=True)
class Source(PromptSource):
    """Box and deepest clicks of a mask."""

    name: ClassVar[str] = "rough_mask"
    sentence: ClassVar[str] = "Draws a box round a rough mask and clicks where the mask is deepest."
    needs: ClassVar[frozenset[Need]] = frozenset({Need.LABELS})

    box: bool = setting(True, "draw a box")
    points: int = setting(3, "most clicks on a slice", 0, 9)
    margin: float = setting(0.02, "how far the box goes beyond the mask, as a share of its side", -0.4, 1)
    negative: bool = setting(False, "click outside the object, too: in the emptiest corner of the box")
    slices: int = setting(1, "slices that get prompts: the largest, more are spread over the mask", 1, 99)
    whole: bool = setting(False, "use all parts of the mask, not the largest on each slice")

    def prompts(self, given: Given) -> tuple[Prompt, ...]:
        """See `PromptSource.prompts`."""
        given.check(self.needs, self.name)
        found: list[Prompt] = []
        for index in self._chosen(given):
            mask = given.mask_on(index)
            found += self._on_slice(given, index, mask if self.whole else clicks.largest_component(mask))
        return tuple(found)

    def _chosen(self, given: Given) -> tuple[int, ...]:
        """The largest slice first, then others as far from each other as the mask allows."""
        largest = given.largest_slice()
        if self.slices == 1 or given.index is not None:
            return (largest,)
        shown = given.mask_slices()
        places = np.linspace(0, len(shown) - 1, self.slices + 2)[1:-1]
        spread = sorted({shown[int(round(place))] for place in places} - {largest})
        kept = sorted(spread, key=lambda index: -abs(index - largest))[: self.slices - 1]
        return (largest, *sorted(kept))

    def _on_slice(self, given: Given, index: int, mask: np.ndarray) -> list[Prompt]:
        slices = given.slices
        deepest = list(clicks.deepest_points(mask, slices.spacing_mm, max(self.points, 1), _LEAST_DISC))
        rows, columns = np.nonzero(mask)
        low, high = np.array([rows.min(), columns.min()]), np.array([rows.max(), columns.max()])
        reach = self.margin * (high - low + 1)
        found: list[Prompt] = []
        if self.box:
            found.append(clicks.box(slices, index, low - reach, high + reach, deepest[0]))
        found += clicks.points(slices, index, deepest[: self.points])
        if self.negative:
            found += clicks.points(slices, index, self._emptiest(mask, low, high, slices.spacing_mm), positive=False)
        return found

    def _emptiest(
        self, mask: np.ndarray, low: np.ndarray, high: np.ndarray, spacing_mm: tuple[float, float]
    ) -> list[tuple[int, int]]:
        """The pixel of the mask's own box that is farthest from the mask; none if the mask fills its box."""
        block = tuple(slice(int(a), int(b) + 1) for a, b in zip(low, high, strict=True))
        from scipy import ndimage

        away = ndimage.distance_transform_edt(~mask, sampling=spacing_mm)[block]
        if away.max() <= 2 * min(spacing_mm):
            return []
        row, column = np.unravel_index(int(np.argmax(away)), away.shape)
        return [(int(row + low[0]), int(column + low[1]))]

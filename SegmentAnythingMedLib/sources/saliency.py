"""A click on what stands out most on a slice, when nothing else is known.

SqueezeSAM (Varadarajan et al. 2023) takes its first click from a salient-object detector. It has no weights that
fit medical images, so ours is the oldest detector without any: centre-surround contrast at several scales (Itti, Koch
and Niebur 1998), an approximation of the idea. The difference of two Gaussians (a centre, and its surroundings
``surround`` times as wide) is taken within the foreground alone, and counts less near its rim, or else the edge of the
body would win; its size is halved for every four-fold width, so that neither a speck nor a whole organ always wins.
Each region that reaches half of its peak is one thing; ``rank`` chooses the n-th most salient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from SegmentAnythingMedLib.errors import PromptError
from SegmentAnythingMedLib.memory.settings import setting
from SegmentAnythingMedLib.models.base import SliceImage
from SegmentAnythingMedLib.prompts import Prompt
from SegmentAnythingMedLib.sources import clicks
from SegmentAnythingMedLib.sources.source import Given, Need, PromptSource

_BLACK, _WHITE = 0.02, 0.98
_REGION = 0.5
_LEAST = 0.02
_SCALES = 4
"""Widths of the centre, each twice the last."""
_RIM = 0.25
"""Depth in the foreground, as a share of the largest, from which a thing counts in full."""


@dataclass(frozen=True)
class Source(PromptSource):
    """Clicks on what stands out."""

    name: ClassVar[str] = "saliency"
    sentence: ClassVar[str] = "Clicks on what stands out most from its surroundings on the slice."
    needs: ClassVar[frozenset[Need]] = frozenset({Need.IMAGE})

    rank: int = setting(1, "which thing: 1 is the most salient", 1, 20)
    points: int = setting(1, "most clicks on it", 1, 5)
    box: bool = setting(False, "draw a box round it, too")
    size_mm: float = setting(3.0, "radius of the smallest things", 0.2, 100)
    surround: float = setting(2.5, "width of the surroundings over the thing's", 1.2, 8)
    white: bool = setting(True, "look at what the window clips to white, too: on CT these are bones")

    def prompts(self, given: Given) -> tuple[Prompt, ...]:
        """See `PromptSource.prompts`; ``given.index`` says which slice."""
        given.check(self.needs, self.name)
        index = given.slice_to_look_at()
        image = given.image(index)
        region = self._region(self.saliency(image))
        deepest = list(clicks.deepest_points(region, image.spacing_mm, self.points, _REGION))
        found: list[Prompt] = []
        if self.box:
            rows, columns = np.nonzero(region)
            ends = (rows.min(), columns.min()), (rows.max(), columns.max())
            found.append(clicks.box(given.slices, index, *ends, deepest[0]))
        return (*found, *clicks.points(given.slices, index, deepest))

    def saliency(self, image: SliceImage) -> np.ndarray:
        """(rows, columns) float64: how much each pixel stands out, from 0; 0 in the background."""
        grey = image.pixels.mean(axis=0, dtype=np.float64)
        inside = foreground(grey)
        if not self.white and (inside & (grey < _WHITE)).any():
            inside &= grey < _WHITE
        best = np.zeros(grey.shape)
        for scale in range(_SCALES):
            sigma = self.size_mm * 2.0**scale
            center = _mean_within(grey, inside, sigma, image.spacing_mm)
            around = _mean_within(grey, inside, sigma * self.surround, image.spacing_mm)
            best = np.maximum(best, np.abs(center - around) * 2.0 ** (-scale / 2))
        return np.where(inside, best * _depth_weight(foreground(grey), image.spacing_mm), 0.0)

    def _region(self, salient: np.ndarray) -> np.ndarray:
        """(rows, columns) bool: the thing of the wanted rank."""
        from scipy import ndimage

        left = salient.copy()
        for _ in range(self.rank):
            peak = int(np.argmax(left))
            if left.flat[peak] < _LEAST:
                break
            parts, _ = ndimage.label(left >= _REGION * left.flat[peak])
            region = parts == parts.flat[peak]
            left[ndimage.binary_dilation(region)] = 0.0
        else:
            return region
        raise PromptError(
            f"The slice has no {self.rank} things that stand out: choose a lower rank, another slice or another window."
        )


def foreground(grey: np.ndarray) -> np.ndarray:
    """(rows, columns) bool: all but black that is connected to the border of a slice, and without thin leaks of it."""
    from scipy import ndimage

    parts, _ = ndimage.label(ndimage.binary_opening(grey <= _BLACK, border_value=1))
    rim = np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]])
    inside = ~np.isin(parts, np.unique(rim[rim > 0]))
    return inside if inside.any() else np.ones(grey.shape, bool)


def _depth_weight(inside: np.ndarray, spacing_mm: tuple[float, float]) -> np.ndarray:
    """(rows, columns) 0 to 1: less at the rim of the foreground, where skin and fat always stand out."""
    from scipy import ndimage

    depth = ndimage.distance_transform_edt(np.pad(inside, 1, mode="edge"), sampling=spacing_mm)[1:-1, 1:-1]
    return np.clip(depth / max(_RIM * depth.max(), 1e-9), 0, 1) if not inside.all() else np.ones(inside.shape)


def _mean_within(grey: np.ndarray, inside: np.ndarray, sigma_mm: float, spacing_mm: tuple[float, float]) -> np.ndarray:
    """Gaussian mean that counts only the pixels ``inside``."""
    from scipy import ndimage

    sigma = [sigma_mm / step for step in spacing_mm]
    weight = ndimage.gaussian_filter(inside.astype(np.float64), sigma, mode="constant")
    total = ndimage.gaussian_filter(np.where(inside, grey, 0.0), sigma, mode="constant")
    return total / np.maximum(weight, 1e-6)

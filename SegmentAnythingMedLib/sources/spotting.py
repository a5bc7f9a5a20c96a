"""From a map of how likely a structure is at each pixel to prompts: boxes, clicks, and clicks on confusions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from SegmentAnythingMedLib.errors import PromptError
from SegmentAnythingMedLib.prompts import Prompt
from SegmentAnythingMedLib.sources import clicks
from SegmentAnythingMedLib.sources.source import Given

_SLICES_LOOKED_AT = 48
_REGIONS_LOOKED_AT = 5
_NEIGHBOURS = 2


@dataclass(frozen=True, eq=False)
class Spot:
    """A connected region above the level.

    Parameters
    ----------
    part
        (h, w) bool: the region in its own box, and no more, since a noisy slice has hundreds.
    low_rc
        Row and column of the box's first pixel.
    peak_rc
        Where the map is highest among the pixels at least half as deep in the region as its deepest: a click at the
        rim would be risky.
    strength
        How far the map is above the level in the mean, times how well the region's area fits the structure's: the
        smaller of both areas over the larger.
    """

    part: np.ndarray
    low_rc: tuple[int, int]
    peak_rc: tuple[int, int]
    strength: float

    def covers(self, pixel_rc: tuple[int, int]) -> bool:
        """Whether a pixel is in the region."""
        at = np.subtract(pixel_rc, self.low_rc)
        return bool((at >= 0).all() and (at < self.part.shape).all() and self.part[tuple(at)])


def spots(score: np.ndarray, level: float, spacing_mm: tuple[float, float], area_mm2: float) -> list[Spot]:
    """Regions of a (rows, columns) map above a level, the strongest first.

    Parameters
    ----------
    score
        (rows, columns) float.
    level
        What belongs to a region is above it.
    spacing_mm
        Size of a pixel.
    area_mm2
        What the structure has where it is largest.
    """
    from scipy import ndimage

    parts, count = ndimage.label(score > level)
    pixel = float(np.prod(spacing_mm))
    found = []
    for number, block in enumerate(ndimage.find_objects(parts), start=1):
        part = parts[block] == number
        above = score[block] - level
        depth = clicks.depth_mm(part, spacing_mm)
        row, column = np.unravel_index(int(np.argmax(np.where(depth >= depth.max() / 2, above, -np.inf))), part.shape)
        low = block[0].start, block[1].start
        peak = int(row) + low[0], int(column) + low[1]
        ratio = np.count_nonzero(part) * pixel / area_mm2
        found.append(Spot(part, low, peak, float(above[part].mean() * min(ratio, 1 / ratio))))
    return sorted(found, key=lambda spot: -spot.strength)


def box_and_clicks(given: Given, index: int, chosen: Sequence[Spot], margin: float) -> list[Prompt]:
    """One box round all chosen regions, and a positive click in each; ``margin`` is a share of the box's sides."""
    low, high = _box(chosen)
    reach = margin * (high - low + 1)
    return [
        clicks.box(given.slices, index, low - reach, high + reach, chosen[0].peak_rc),
        *clicks.points(given.slices, index, [spot.peak_rc for spot in chosen]),
    ]


def confusions(
    given: Given, index: int, chosen: Sequence[Spot], others: Sequence[Spot], count: int
) -> tuple[Prompt, ...]:
    """Negative clicks at the peaks of the strongest other regions that lie within twice the box of the chosen ones.

    Farther ones cannot be confused by a model that was given the box.
    """
    low, high = _box(chosen)
    near = [spot for spot in others if (np.abs(spot.peak_rc - (low + high) / 2) <= high - low + 1).all()]
    return clicks.points(given.slices, index, [spot.peak_rc for spot in near[:count]], positive=False)


def _box(chosen: Sequence[Spot]) -> tuple[np.ndarray, np.ndarray]:
    """First and last (row, column) of the regions."""
    lows = [spot.low_rc for spot in chosen]
    highs = [np.add(spot.low_rc, spot.part.shape) - 1 for spot in chosen]
    return np.min(lows, axis=0), np.max(highs, axis=0)


def best_slice(given: Given, look: Callable[[int], list[Spot]], what: str) -> tuple[int, list[Spot]]:
    """The wanted slice and its regions; or of all slices the one with the best supported region, which comes first.

    A region is supported by those on the neighbouring slices that lie under its peak: a structure goes on, a chance
    likeness does not. Of a tall stack every n-th slice is looked at.

    Raises
    ------
    PromptError
        If no slice has a region.
    """
    if given.index is not None:
        found = look(given.index)
        if not found:
            raise PromptError(
                f"Nothing on slice {given.index} looks like {what}: choose another slice, or lower the level (shift)."
            )
        return given.index, found
    step = -(-given.slices.count // _SLICES_LOOKED_AT)
    indices = range(step // 2, given.slices.count, step)
    seen = [look(index) for index in indices]
    ranked = [
        (_support(seen, place, spot), place, number)
        for place, found in enumerate(seen)
        for number, spot in enumerate(found[:_REGIONS_LOOKED_AT])
    ]
    if not ranked:
        raise PromptError(f"Nothing in the volume looks like {what}: make prompts by hand, or lower the level (shift).")
    _, place, number = max(ranked, key=lambda one: one[0])
    found = seen[place]
    return indices[place], [found[number], *found[:number], *found[number + 1 :]]


def _support(seen: Sequence[Sequence[Spot]], place: int, spot: Spot) -> float:
    """Strength of a region and of those under its peak on the slices beside it."""
    total = 0.0
    for near in range(max(place - _NEIGHBOURS, 0), min(place + _NEIGHBOURS + 1, len(seen))):
        total += max((other.strength for other in seen[near] if other.covers(spot.peak_rc)), default=0.0)
    return total

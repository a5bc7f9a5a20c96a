"""A ruler or a RECIST measurement becomes a box, clicks on the line, or both.

One line is the object's long axis, a pair its long and short axis. The object is taken for the ellipse of these axes,
and the box is the ellipse's; without a short axis its length is ``width`` times the long one's. MedSAM2 takes a square
of the line's length: ``width=1``. Clicks lie evenly on the long axis, clear of its ends, which lie on the object's
border and hence are no safe clicks. The ellipse and 0.8 are our choice. Lengths are in millimetres on the slice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from SegmentAnythingMedLib.errors import PromptError
from SegmentAnythingMedLib.memory.settings import setting
from SegmentAnythingMedLib.prompts import Prompt
from SegmentAnythingMedLib.sources import clicks
from SegmentAnythingMedLib.sources.source import Given, Need, PromptSource


@dataclass(frozen=True)
class Source(PromptSource):
    """Box and clicks from one line or two crossed lines."""

    name: ClassVar[str] = "ruler"
    sentence: ClassVar[str] = "Turns a ruler or a RECIST pair of lines into a box and clicks."
    needs: ClassVar[frozenset[Need]] = frozenset({Need.LINES})

    box: bool = setting(True, "draw a box")
    points: int = setting(3, "clicks on the long axis", 0, 9)
    width: float = setting(0.8, "short axis over long axis, where only one line is given", 0.1, 1)
    margin: float = setting(0.0, "how far the box goes beyond the ellipse, as a share of its side", -0.2, 1)
    negative: bool = setting(False, "click beyond both ends of the long axis: not the object")
    beyond: float = setting(0.25, "how far beyond an end, as a share of the line", 0.05, 1)

    def prompts(self, given: Given) -> tuple[Prompt, ...]:
        """See `PromptSource.prompts`."""
        given.check(self.needs, self.name)
        slices = given.slices
        index, lines_rc = _on_one_slice(given)
        scale = np.asarray(slices.spacing_mm)
        long, short = _by_length([line * scale for line in lines_rc])
        center, half = _ellipse(long, short, self.width)
        low, high = center - half * (1 + 2 * self.margin), center + half * (1 + 2 * self.margin)
        found: list[Prompt] = []
        if self.box:
            found.append(clicks.box(slices, index, low / scale, high / scale, long.mean(axis=0) / scale))
        shares = (np.arange(self.points) + 1) / (self.points + 1)
        found += clicks.points(slices, index, _along(long, shares) / scale)
        if self.negative:
            ends = _along(long, np.array([-self.beyond, 1 + self.beyond])) / scale
            on = ((ends >= 0) & (ends <= np.asarray(slices.shape) - 1)).all(axis=1)
            found += clicks.points(slices, index, ends[on], positive=False)
        if not found:
            raise PromptError("The prompt source 'ruler' makes nothing so: switch on its box or its points.")
        return tuple(found)


def _on_one_slice(given: Given) -> tuple[int, list[np.ndarray]]:
    """The slice, and each line as (2, 2) pixels of it."""
    slices = given.slices
    ends = np.asarray(given.lines_ijk, dtype=np.float64)
    if ends.ndim != 3 or ends.shape[1:] != (2, 3) or len(ends) > 2 or not np.isfinite(ends).all():
        raise PromptError(f"A ruler is one line or two, each two finite (I, J, K) points, got {ends.tolist()}.")
    if not slices.volume.contains(ends).all():
        worst = ends[~slices.volume.contains(ends)][0]
        size = " x ".join(map(str, slices.volume.size_ijk))
        raise PromptError(
            f"The line ends outside the volume, at voxel ({worst[0]:.1f}, {worst[1]:.1f}, {worst[2]:.1f}) of {size}: "
            "check that it was drawn on this volume and in which frame its points are."
        )
    depth, pixels = slices.pixels_from_ijk(ends)
    index = int(np.rint(np.median(depth)))
    if np.abs(depth - index).max() > 0.5 + 1e-6:
        raise PromptError(
            f"The line is not on one slice: it goes from {depth.min():.1f} to {depth.max():.1f} of the {slices.plane}. "
            "Choose the plane it was drawn on."
        )
    index = min(max(index, 0), slices.count - 1)
    if given.index not in (None, index):
        raise PromptError(f"The line is on slice {index}, not on slice {given.index}: choose that slice.")
    return index, list(pixels)


def _by_length(lines_mm: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray | None]:
    """Long and, if there is one, short axis."""
    lengths = [float(np.linalg.norm(line[1] - line[0])) for line in lines_mm]
    if min(lengths) < 1e-6:
        raise PromptError("The line has no length: its two ends are the same point. Draw it from border to border.")
    order = np.argsort(lengths)[::-1]
    return lines_mm[order[0]], lines_mm[order[1]] if len(lines_mm) > 1 else None


def _ellipse(long: np.ndarray, short: np.ndarray | None, width: float) -> tuple[np.ndarray, np.ndarray]:
    """Centre and half sides of the box round the ellipse of two axes, which also holds the axes' ends, in mm."""
    axis = long[1] - long[0]
    across = np.array([-axis[1], axis[0]]) / np.linalg.norm(axis)
    center, breadth = long.mean(axis=0), width * float(np.linalg.norm(axis))
    ends = long
    if short is not None:
        center = center + ((short.mean(axis=0) - center) @ across) * across
        breadth = abs(float((short[1] - short[0]) @ across))
        ends = np.concatenate([long, short])
    half = np.hypot(axis / 2, across * breadth / 2)
    low, high = np.minimum(center - half, ends.min(axis=0)), np.maximum(center + half, ends.max(axis=0))
    return (low + high) / 2, (high - low) / 2


def _along(line: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """(N, 2) points of a line at shares of its length."""
    return line[0] + shares[:, None] * (line[1] - line[0])

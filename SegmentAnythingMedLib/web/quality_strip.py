"""The strip of quality along the slices, as a few SVG paths: small enough to be sent at every slice."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from SegmentAnythingMedLib.mrml.controller_review import SliceReview

WIDTH, HEIGHT = 1000, 100
"""The strip's own units; the browser scales them to the panel."""

_LEAST_SLICES = 12
_LEAST_HEIGHT = 8


@dataclass(frozen=True)
class QualityStrip:
    """What the browser draws.

    Parameters
    ----------
    good, weak, given
        Path data of the bars of carried slices, of those to look at, and of slices that the user prompted or confirmed.
    shown
        Path data of the mark under the slice that the view shows, or empty.
    first, count
        The strip covers slices ``first`` to ``first + count - 1``.
    """

    good: str = ""
    weak: str = ""
    given: str = ""
    shown: str = ""
    first: int = 0
    count: int = 0

    def slice_at(self, fraction: float) -> int | None:
        """The slice at a place on the strip, 0 at its left end and 1 at its right; None without slices."""
        if not self.count:
            return None
        return self.first + min(max(int(fraction * self.count), 0), self.count - 1)


def strip_of(slices: Sequence[SliceReview], shown: int | None = None) -> QualityStrip:
    """Draw the strip: one bar a slice, as high as its predicted quality; weak ones go to the top.

    Parameters
    ----------
    slices
        In order.
    shown
        Slice that the view shows.
    """
    if not slices:
        return QualityStrip()
    first, last = slices[0].index, slices[-1].index
    missing = max(0, _LEAST_SLICES - (last - first + 1))
    first, last = first - missing // 2, last + missing - missing // 2
    count = last - first + 1
    step = WIDTH / count

    def path(chosen: Iterable[SliceReview]) -> str:
        return "".join(_bar((one.index - first) * step, step, _height(one)) for one in chosen)

    weak = [one for one in slices if one.is_weak]
    given = [one for one in slices if not one.is_weak and (one.prompted or one.confirmed)]
    good = [one for one in slices if not (one.is_weak or one.prompted or one.confirmed)]
    mark = ""
    if shown is not None and first <= shown <= last:
        mark = _bar((shown - first) * step, step, HEIGHT)
    return QualityStrip(path(good), path(weak), path(given), mark, first, count)


def _height(one: SliceReview) -> float:
    if one.is_weak:
        return HEIGHT
    return 0.0 if one.is_empty else max(_LEAST_HEIGHT, HEIGHT * min(max(one.quality, 0.0), 1.0))


def _bar(left: float, width: float, height: float) -> str:
    if not height:
        return ""
    gap = min(width * 0.15, 3.0)
    return f"M{left + gap / 2:.1f},{HEIGHT}h{width - gap:.1f}v{-height:.1f}h{gap - width:.1f}z"

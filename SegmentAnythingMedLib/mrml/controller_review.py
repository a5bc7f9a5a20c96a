"""Quality along the slices of a segment, and which slices a reviewer should look at."""

from __future__ import annotations

from dataclasses import dataclass

from SegmentAnythingMedLib.geometry import Plane
from SegmentAnythingMedLib.worker import messages as m

WEAK_QUALITY = 0.7
WEAK_OVERLAP = 0.7
WEAK_PRESENCE = 0.0


@dataclass(frozen=True)
class SliceReview:
    """One slice of the review strip.

    Parameters
    ----------
    index
        Slice along the strip's plane.
    quality
        Predicted intersection over union, 0 to 1.
    presence
        Logit that the object is there.
    overlap
        Dice with the neighbour it was carried from.
    prompted
        Whether it comes from the user's prompts or hand.
    confirmed
        Whether the user confirmed or painted it: it is never overwritten.
    is_empty
        Whether the object is not there.
    is_weak
        Whether it should be looked at, see `Review.weak`.
    """

    index: int
    quality: float
    presence: float
    overlap: float
    prompted: bool = False
    confirmed: bool = False
    is_empty: bool = False
    is_weak: bool = False


class Review:
    """What is known of each slice of a segment, by plane."""

    def __init__(self) -> None:
        self._slices: dict[tuple[Plane, int], m.SliceMask] = {}
        self._confirmed: set[tuple[Plane, int]] = set()
        self._filled: set[tuple[Plane, int]] = set()
        self._strips: dict[Plane, tuple[SliceReview, ...]] = {}

    def note(self, event: m.SliceMask) -> None:
        """A slice as it now is."""
        at, is_filled = (event.key.plane, event.key.index), bool(event.mask.any())
        self._strips.clear()
        (self._filled.add if is_filled else self._filled.discard)(at)
        if event.cleared or (not is_filled and not event.prompted and event.done == 0):
            self._slices.pop(at, None)
        else:
            self._slices[at] = event

    def confirm(self, plane: Plane, index: int, confirmed: bool = True) -> None:
        """The user confirmed a slice, or took that back."""
        self._strips.clear()
        (self._confirmed.add if confirmed else self._confirmed.discard)((plane, index))

    def clear(self) -> None:
        for known in (self._slices, self._confirmed, self._filled, self._strips):
            known.clear()

    def strip(self, plane: Plane) -> tuple[SliceReview, ...]:
        """The slices of a plane, in order; kept until something changes, since a panel asks several times a second."""
        if plane not in self._strips:
            self._strips[plane] = self._strip(plane)
        return self._strips[plane]

    def _strip(self, plane: Plane) -> tuple[SliceReview, ...]:
        events = {index: event for (at, index), event in self._slices.items() if at == plane}
        filled = [index for index in events if (plane, index) in self._filled]
        low, high = (min(filled), max(filled)) if filled else (0, -1)
        return tuple(
            self._reviewed(plane, index, events[index], low < index < high)
            for index in sorted(events)
        )  # fmt: skip

    def weak(self, plane: Plane) -> tuple[int, ...]:
        """Slices to look at.

        A slice is weak if the user neither prompted nor confirmed it, and either the object is on it with a predicted
        quality below 0.7, an overlap with its neighbour below 0.7 or a presence logit below 0, or the object is not
        on it although it is on slices on both sides (a gap).
        """
        return tuple(item.index for item in self.strip(plane) if item.is_weak)

    def _reviewed(self, plane: Plane, index: int, event: m.SliceMask, is_inside: bool) -> SliceReview:
        confirmed, is_empty = (plane, index) in self._confirmed, (plane, index) not in self._filled
        doubtful = (
            event.quality < WEAK_QUALITY or event.overlap < WEAK_OVERLAP or event.presence < WEAK_PRESENCE
        )  # fmt: skip
        is_weak = not (event.prompted or confirmed) and (is_inside if is_empty else doubtful)
        return SliceReview(
            index, event.quality, event.presence, event.overlap, event.prompted, confirmed, is_empty, is_weak
        )

"""Occlusion-aware memory in the manner of MA-SAM2 (Yin et al. 2025, arXiv 2507.09577): an approximation.

Context: the newest slice that shows the object, and up to ``spread`` earlier ones of predicted quality ``quality`` or
more, ``stride`` slices apart. Occlusion: when presence falls below 0, or the area below ``drop`` of the median of the
last 10 slices, the two latest good slices are frozen and join the memory; nothing else is remembered as context until
``recover`` slices in a row are present and of their usual area again. Slices without the object are never remembered.
The paper's thresholds are not public: all numbers here are ours. Slots follow the order, not the distance.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from SegmentAnythingMedLib.memory.choosing import Passed, by_rank
from SegmentAnythingMedLib.memory.policy import MemoryPolicy, Notes, PolicyContext, Selection
from SegmentAnythingMedLib.memory.settings import setting

if TYPE_CHECKING:
    from SegmentAnythingMedLib.memory.bank import MemoryEntry

_WINDOW = 10
_FROZEN = 2


@dataclass(frozen=True)
class Sightings(Notes):
    """Good slices so far (newest last), areas of the last slices seen in full, and whether the object is occluded.

    ``back`` counts slices since it is seen again, ``last`` is the newest slice that shows it at all.
    """

    good: tuple[int, ...] = ()
    areas: tuple[float, ...] = ()
    frozen: tuple[int, ...] = ()
    back: int = 0
    last: int | None = None


@dataclass(frozen=True)
class Policy(MemoryPolicy):
    """Spread good slices, and the last good ones before an occlusion."""

    name: ClassVar[str] = "occlusion_aware"
    sentence: ClassVar[str] = "Freezes what the object looked like before it was hidden or shrank, until it is back."
    blank: ClassVar[Notes] = Sightings()

    quality: float = setting(0.7, "predicted quality of slices to remember", 0, 1)
    spread: int = setting(4, "earlier slices to look back at", 1, 5)
    stride: int = setting(3, "slices between them", 1, 20)
    drop: float = setting(0.5, "share of the usual area below which the object counts as hidden", 0, 1)
    recover: int = setting(3, "slices it must be back before it is trusted", 1, 20)

    def select(self, entries: Sequence[MemoryEntry], context: PolicyContext) -> Selection:
        passed, notes = Passed.of(entries, context), context.notes
        there = {entry.index for entry in passed.tracked}
        if not isinstance(notes, Sightings):
            return by_rank(passed, sorted(there, key=context.distance), context)
        chosen = {index for index in (*notes.frozen, notes.last) if index in there}
        room = min(self.spread, context.memory_slots - 1 - len(chosen))
        lately = notes.last
        for index in reversed(notes.good):
            if room and index in there - chosen and (lately is None or abs(lately - index) >= self.stride):
                chosen.add(index)
                lately, room = index, room - 1
        ordered = sorted(chosen, key=context.distance)
        pointers = sorted(({*notes.good, *notes.frozen} & there) | chosen, key=context.distance)
        return by_rank(passed, ordered, context, pointers=pointers)

    def observe(self, entry: MemoryEntry, entries: Mapping[int, MemoryEntry], context: PolicyContext) -> Sightings:
        notes = context.notes
        areas = notes.areas or tuple(one.area_mm2 for one in entries.values() if one.prompted)
        usual = statistics.median(areas) if areas else entry.area_mm2
        present = entry.presence > 0 and entry.area_mm2 > 0
        hidden = not present or entry.area_mm2 < self.drop * usual
        notes = replace(notes, last=entry.index if present else notes.last)
        if hidden:
            frozen = notes.frozen or notes.good[-_FROZEN:]
            return self._keeping(replace(notes, frozen=frozen, back=-self.recover))
        if notes.back < 0:  # seen again, but not for long enough
            notes = replace(notes, back=notes.back + 1)
            if notes.back < 0:
                return self._keeping(notes)
        good = (*notes.good, entry.index) if entry.quality >= self.quality else notes.good
        good = good[-(self.spread * self.stride + _FROZEN) :]
        return self._keeping(replace(notes, good=good, areas=(*areas, entry.area_mm2)[-_WINDOW:], frozen=(), back=0))

    def capacity(self, context: PolicyContext) -> int:
        return 1

    def _keeping(self, notes: Sightings) -> Sightings:
        last = () if notes.last is None else (notes.last,)
        return replace(notes, kept=tuple(dict.fromkeys((*notes.good, *notes.frozen, *last))))

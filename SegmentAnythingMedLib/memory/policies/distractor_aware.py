"""DAM4SAM (Videnovic et al. 2025, arXiv 2411.17576): slices where something alike lies beside the object condition.

Recent memory: the newest slice that shows the object, then the latest such slices with an index divisible by
``stride``. Distractor memory: a slice joins, and conditions like a key slice, if its predicted quality is above
``quality``, its area within ``area`` of the median of the last 10 that show the object, more than ``apart`` slices
have passed since the last one joined, and another mask of the model reaches so far beyond it that the boxes overlap by
``overlap`` or less. Of these the nearest ``distractors`` are attended to; recent memory gets the other slots, in
their order. Models with one mask never find distractors. With several key slices all of them condition (ours).
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from SegmentAnythingMedLib.memory.choosing import Passed, by_rank, pointer_count
from SegmentAnythingMedLib.memory.policy import MemoryPolicy, Notes, PolicyContext, Selection
from SegmentAnythingMedLib.memory.settings import setting

if TYPE_CHECKING:
    from SegmentAnythingMedLib.memory.bank import MemoryEntry

_WINDOW = 10
_MOST_KEPT = 32
"""Distractor slices remembered in all; the published code has no limit."""


@dataclass(frozen=True)
class Rivalry(Notes):
    """Areas of the last slices that show the object, slices on the stride, and slices with a distractor."""

    areas: tuple[float, ...] = ()
    spread: tuple[int, ...] = ()
    distractors: tuple[int, ...] = ()


@dataclass(frozen=True)
class Policy(MemoryPolicy):
    """Spread slices, and slices on which the model could have taken something else."""

    name: ClassVar[str] = "distractor_aware"
    sentence: ClassVar[str] = "Remembers slices on which something similar lies beside the object, to tell them apart."
    wants_alternatives: ClassVar[bool] = True
    blank: ClassVar[Notes] = Rivalry()

    quality: float = setting(0.8, "predicted quality above which a distractor slice is kept", 0, 1)
    area: float = setting(0.2, "share by which its area may differ from the usual", 0, 1)
    apart: int = setting(5, "slices that must lie between two distractor slices", 0, 100)
    overlap: float = setting(0.7, "overlap of boxes up to which another mask is a distractor", 0, 1)
    stride: int = setting(5, "slices between recent memories", 1, 50)
    distractors: int = setting(3, "distractor slices attended to", 1, 5)

    def select(self, entries: Sequence[MemoryEntry], context: PolicyContext) -> Selection:
        passed, notes = Passed.of(entries, context), context.notes
        visible = [entry.index for entry in passed.tracked if entry.area_mm2 > 0]
        telling = [i for i in getattr(notes, "distractors", ()) if i in visible and context.distance(i) > 1]
        found = sorted(telling, key=context.distance)[: self.distractors]
        room = max(context.memory_slots - max(len(passed.keys), 1) - len(found), 1)
        free = [index for index in visible if index not in telling]
        recent = [*free[:1], *(index for index in free[1:] if index % self.stride == 0)][:room]
        near = [index for index in visible if context.distance(index) < pointer_count(context)]
        chosen = by_rank(passed, recent, context, sorted((*passed.key_indices, *found)))
        behind = [index for index in (*passed.key_indices, *found) if context.distance(index) >= 0]
        pointers = (*behind, *(index for index in near if index not in found))
        return replace(chosen, pointers=pointers[: max(pointer_count(context), len(behind))])

    def observe(self, entry: MemoryEntry, entries: Mapping[int, MemoryEntry], context: PolicyContext) -> Rivalry:
        notes = context.notes
        if entry.area_mm2 <= 0:
            return notes
        areas, spread, distractors = (*notes.areas, entry.area_mm2)[-_WINDOW:], notes.spread, notes.distractors
        if entry.index % self.stride == 0:
            spread = (*spread, entry.index)[-2 * context.memory_slots :]
        is_first = not any(one.index != entry.index for one in entries.values() if not one.prompted)
        if not is_first and self._is_telling(entry, areas, distractors):
            distractors = (*distractors, entry.index)[-_MOST_KEPT:]
        return Rivalry((*spread, *distractors, entry.index), areas, spread, distractors)

    def _is_telling(self, entry: MemoryEntry, areas: Sequence[float], distractors: Sequence[int]) -> bool:
        usual = abs(entry.area_mm2 / statistics.median(areas) - 1) <= self.area
        late = not distractors or abs(entry.index - distractors[-1]) > self.apart
        return entry.quality > self.quality and usual and late and min(entry.rivals, default=1.0) <= self.overlap

"""Ours: memory for anatomy, in millimetres.

Key slices: the ``keys`` nearest in mm, on both sides if there are, so that a slice between two is told by both.
Tracked slices are worth (presence x predicted quality) x exp(-mm / ``reach_mm``): six slices of 0.6 mm say less than
six of 5 mm, so the look back is as long as the anatomy needs, not as long as the stack happens to be cut. The newest
sure slice comes first; then, one by one, what is worth most less ``diversity`` x its likeness to the nearest one
taken, at least ``step_mm`` away. Likeness: 1 less what the object changed from slice to slice between the two.
Slices that score below ``threshold`` never. Slots follow the order. Not measured with trained weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from SegmentAnythingMedLib.memory.choosing import Passed, by_rank, nearest_keys, score
from SegmentAnythingMedLib.memory.policy import Likeness, MemoryPolicy, Notes, PolicyContext, Selection
from SegmentAnythingMedLib.memory.settings import setting

if TYPE_CHECKING:
    from SegmentAnythingMedLib.memory.bank import MemoryEntry

_MOST_KEPT = 64


@dataclass(frozen=True)
class Changes(Notes):
    """How much the object has changed up to each slice in `kept`: one comparison per slice, of neighbours."""

    change: tuple[float, ...] = ()


@dataclass(frozen=True)
class Policy(MemoryPolicy):
    """Near in mm, sure, and different."""

    name: ClassVar[str] = "anatomical"
    sentence: ClassVar[str] = (
        "Weighs memories by distance in mm, certainty and difference, with key slices on both sides."
    )
    blank: ClassVar[Notes] = Changes()

    keys: int = setting(4, "key slices that condition", 1, 32)
    reach_mm: float = setting(15.0, "distance at which a memory is worth a third", 0.1, 1000)
    step_mm: float = setting(1.5, "least distance between two memories", 0, 100)
    diversity: float = setting(0.3, "how much likeness to a memory already taken counts against a slice", 0, 1)
    threshold: float = setting(0.05, "score below which a slice is not remembered", 0, 1)

    def select(self, entries: Sequence[MemoryEntry], context: PolicyContext) -> Selection:
        passed = Passed.of(entries, context)
        sure = [entry for entry in passed.tracked if score(entry) >= self.threshold]
        change = dict(zip(context.notes.kept, getattr(context.notes, "change", ()), strict=False))
        taken, rest = sure[:1], sure[1:]
        while len(taken) < context.memory_slots - 1:
            rest = [entry for entry in rest if self._apart(entry, taken, context)]
            if not rest:
                break
            best = max(rest, key=lambda entry: self._worth(entry, context) * self._novelty(entry, taken, change))
            taken.append(best)
            rest.remove(best)
        ordered = sorted((entry.index for entry in taken), key=context.distance)
        keys = nearest_keys(passed, context, self.keys)
        return by_rank(passed, ordered, context, keys, [entry.index for entry in sure])

    def observe(self, entry: MemoryEntry, entries: Mapping[int, MemoryEntry], context: PolicyContext) -> Changes:
        """Keeps sure slices as far back as they are worth a twentieth, at most 64."""
        notes = context.notes
        if score(entry) < self.threshold:
            return notes
        far = notes.change[-1] if notes.change else 0.0
        if notes.kept and context.similarity is not None:
            far += 1.0 - max(context.similarity(entry, entries[notes.kept[-1]], Likeness.CELLS), 0.0)
        kept, change = (*notes.kept, entry.index), (*notes.change, far)
        within = sum(1 for i in kept if abs(entry.index - i) * context.thickness_mm <= 3 * self.reach_mm)
        count = min(within, _MOST_KEPT)
        return Changes(kept[-count:], change[-count:])

    def capacity(self, context: PolicyContext) -> int:
        return 1

    def _worth(self, entry: MemoryEntry, context: PolicyContext) -> float:
        return score(entry) * math.exp(-context.distance_mm(entry.index) / self.reach_mm)

    def _apart(self, entry: MemoryEntry, taken: Sequence[MemoryEntry], context: PolicyContext) -> bool:
        away = min(abs(entry.index - other.index) for other in taken) * context.thickness_mm
        return away > 0 and away >= self.step_mm

    def _novelty(self, entry: MemoryEntry, taken: Sequence[MemoryEntry], change: Mapping[int, float]) -> float:
        nearest = min(taken, key=lambda other: abs(other.index - entry.index)).index
        if entry.index not in change or nearest not in change:
            return 1.0
        return 1.0 - self.diversity * max(1.0 - abs(change[entry.index] - change[nearest]), 0.0)

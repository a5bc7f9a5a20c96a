"""Self-sorting bank (Medical SAM 2, Zhu et al. 2024, arXiv 2408.00874): few, good and different, whatever their place.

The bank holds ``size`` slices. Once full, a new one is compared with all: let a be the entry least similar to it and
b the one in the bank most similar to a. If the new one is less similar to a than b is, and its predicted quality is
above b's less ``margin``, it takes b's place. Similarity: cosine of the whole memories.
Attended to: key slices, and the bank entries whose images look most like the slice at hand. Published: drawn at random
with repeats by that likeness; ours takes the best, so that results repeat, and adds the slice just passed
(``previous``). They take the oldest time slot, as the bank knows no time. Models that cannot say what a slice looks
like get the nearest in mm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from SegmentAnythingMedLib.memory.choosing import Passed, by_rank
from SegmentAnythingMedLib.memory.policy import Likeness, MemoryPolicy, Notes, PolicyContext, Selection
from SegmentAnythingMedLib.memory.settings import setting

if TYPE_CHECKING:
    from SegmentAnythingMedLib.memory.bank import MemoryEntry


@dataclass(frozen=True)
class Policy(MemoryPolicy):
    """A bank that sorts itself by quality and difference; `Notes.kept` is the bank."""

    name: ClassVar[str] = "self_sorting"
    sentence: ClassVar[str] = "Keeps sixteen good and different slices and looks at those most like the one at hand."
    wants_look: ClassVar[bool] = True

    size: int = setting(16, "slices in the bank", 2, 64)
    margin: float = setting(0.1, "predicted quality a newcomer may lack", 0, 1)
    previous: bool = setting(True, "also look at the slice just passed")

    def select(self, entries: Sequence[MemoryEntry], context: PolicyContext) -> Selection:
        passed = Passed.of(entries, context)
        before = [e.index for e in passed.tracked if self.previous and context.distance(e.index) == 1]
        banked = [e for e in passed.tracked if e.index in context.notes.kept and e.index not in before]
        likest = sorted(banked, key=lambda entry: -self._likeness(entry, context))
        timeless = [entry.index for entry in likest[: context.memory_slots - 1 - len(before)]]
        timeless.sort(key=context.distance, reverse=True)
        chosen = by_rank(passed, before, context, pointers=before)
        keys = len(passed.keys)
        return Selection(
            (*chosen.memories[:keys], *timeless, *chosen.memories[keys:]),
            (*chosen.slots[:keys], *(context.memory_slots - 1 for _ in timeless), *chosen.slots[keys:]),
            chosen.pointers,
            chosen.pointer_span,
        )

    def observe(self, entry: MemoryEntry, entries: Mapping[int, MemoryEntry], context: PolicyContext) -> Notes:
        bank = context.notes.kept
        if len(bank) < self.size:
            return Notes((*bank, entry.index))
        if context.similarity is None:
            return context.notes
        newcomer = {index: context.similarity(entries[index], entry, Likeness.WHOLE) for index in bank}
        a = min(bank, key=newcomer.__getitem__)
        others = [index for index in bank if index != a]
        to_a = {index: context.similarity(entries[a], entries[index], Likeness.WHOLE) for index in others}
        b = max(others, key=to_a.__getitem__)
        if newcomer[a] < to_a[b] and entry.quality > entries[b].quality - self.margin:
            return Notes((*(index for index in bank if index != b), entry.index))
        return context.notes

    def capacity(self, context: PolicyContext) -> int:
        return 1

    def _likeness(self, entry: MemoryEntry, context: PolicyContext) -> float:
        if entry.look is None or context.look is None:
            return -context.distance_mm(entry.index)
        return float(entry.look @ context.look)

"""DiveMem, training-free (SAM2S, Liu et al. 2025, arXiv 2511.16618): a long-term memory that stays diverse.

Beside the newest slices there is a long-term memory, which starts with the key slices. Slices with the object and a
predicted quality above ``quality`` become candidates. Once there are ``buffer`` of them, the one least similar to the
newest long-term memory joins it, and the others are forgotten; past ``long_term`` the oldest leaves.
Long-term memories take the oldest time slot, what is left of the slots goes to the newest slices.
An approximation: the paper gives neither thresholds nor sizes, nor when entries leave, and trains time embeddings of
its own for the long-term memory. These choices are ours. Without similarity the oldest candidate joins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from SegmentAnythingMedLib.memory.choosing import Passed, nearest_keys
from SegmentAnythingMedLib.memory.policies import recent
from SegmentAnythingMedLib.memory.policy import Likeness, MemoryPolicy, Notes, PolicyContext, Selection
from SegmentAnythingMedLib.memory.settings import setting

if TYPE_CHECKING:
    from SegmentAnythingMedLib.memory.bank import MemoryEntry


@dataclass(frozen=True)
class LongTerm(Notes):
    """Long-term memories, oldest first; ``kept`` holds the candidates, too."""

    long_term: tuple[int, ...] = ()
    candidates: tuple[int, ...] = ()


@dataclass(frozen=True)
class Policy(MemoryPolicy):
    """Recency, and a few slices that differ."""

    name: ClassVar[str] = "diverse"
    sentence: ClassVar[str] = "Keeps a few reliable slices that differ from each other beside those just passed."
    blank: ClassVar[Notes] = LongTerm()

    quality: float = setting(0.5, "predicted quality above which a slice is a candidate", 0, 1)
    buffer: int = setting(20, "candidates of which one is taken", 1, 200)
    long_term: int = setting(2, "long-term memories beside the key slices", 1, 5)

    def select(self, entries: Sequence[MemoryEntry], context: PolicyContext) -> Selection:
        full = recent.Policy().select(entries, context)
        oldest = context.memory_slots - 1
        tracked = [entry.index for entry in Passed.of(entries, context).tracked]
        far = [i for i in getattr(context.notes, "long_term", ()) if i in tracked and context.distance(i) > oldest]
        near = [index for index in reversed(tracked) if context.distance(index) <= oldest - len(far)]
        keys = [index for index, slot in zip(full.memories, full.slots, strict=True) if slot == 0]
        return Selection(
            (*keys, *far, *near),
            (*(0 for _ in keys), *(oldest for _ in far), *map(context.distance, near)),
            full.pointers,
            full.pointer_span,
        )

    def observe(self, entry: MemoryEntry, entries: Mapping[int, MemoryEntry], context: PolicyContext) -> LongTerm:
        notes = context.notes
        if entry.presence <= 0 or entry.quality <= self.quality:
            return notes
        long_term, candidates = notes.long_term, (*notes.candidates, entry.index)
        if len(candidates) >= self.buffer:
            newest = self._newest(long_term, entries, context)
            joins = candidates[0]
            if newest is not None and context.similarity is not None:
                joins = min(candidates, key=lambda i: context.similarity(entries[i], newest, Likeness.CELLS))
            long_term, candidates = (*long_term, joins)[-self.long_term :], ()
        return LongTerm((*long_term, *candidates), long_term, candidates)

    def _newest(
        self, long_term: Sequence[int], entries: Mapping[int, MemoryEntry], context: PolicyContext
    ) -> MemoryEntry | None:
        """The long-term memory to differ from: at first the nearest key slice."""
        if long_term:
            return entries[long_term[-1]]
        keys = nearest_keys(Passed.of(entries.values(), context), context, 1)
        return entries[keys[0]] if keys else None

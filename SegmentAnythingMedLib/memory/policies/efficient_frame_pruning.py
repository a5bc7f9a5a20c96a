"""Efficient Frame Pruning (SurgSAM-2, Liu et al. 2024, arXiv 2408.07931): drops what repeats the newest memory.

Starts from SAM 2's choice, prompted first, then oldest to newest. With ``memory_slots`` entries or more, the
``remove`` ones most similar to the last one are dropped; the first and the last always stay. Similarity: cosine over
channels per cell, summed over cells; of equals the older goes. Slots and pointers stay as they were.
Ours by default: every key slice stays, and sums run in float32, because in bfloat16 nearly all candidates tie and the
rule falls to "drop the oldest". ``parity`` restores the published rule bit for bit: stored precision, first entry only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from SegmentAnythingMedLib.memory.choosing import without
from SegmentAnythingMedLib.memory.policies import recent
from SegmentAnythingMedLib.memory.policy import Likeness, MemoryPolicy, PolicyContext, Selection
from SegmentAnythingMedLib.memory.settings import setting

if TYPE_CHECKING:
    from SegmentAnythingMedLib.memory.bank import MemoryEntry


@dataclass(frozen=True)
class Policy(MemoryPolicy):
    """Recency, thinned by similarity to the newest memory."""

    name: ClassVar[str] = "efficient_frame_pruning"
    sentence: ClassVar[str] = "Drops the two memories that most resemble the newest one, which makes tracking faster."

    remove: int = setting(2, "memories dropped when all slots are filled", 1, 5)
    parity: bool = setting(False, "exactly as published: stored precision, only the first key slice is safe")

    def select(self, entries: Sequence[MemoryEntry], context: PolicyContext) -> Selection:
        full = recent.Policy().select(entries, context)
        if len(full.memories) < context.memory_slots or context.similarity is None:
            return full
        known = {entry.index: entry for entry in entries}
        newest = known[full.memories[-1]]
        likeness = Likeness.STORED if self.parity else Likeness.CELLS
        free = [index for index in full.memories[1:-1] if self.parity or not known[index].prompted]
        likest = sorted(free, key=lambda index: -context.similarity(known[index], newest, likeness))
        return without(full, likest[: self.remove])

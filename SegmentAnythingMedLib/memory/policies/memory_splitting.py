"""Memory splitting and pruning (TSMS-SAM 2, Xu et al. 2025, arXiv 2508.05829): thins old and new halves apart.

Starts from SAM 2's choice, prompted first, then oldest to newest. When it holds more than ``memory_slots - 2``
entries it is cut in the middle: in the older half the entry most similar to the first memory goes, in the newer half
the one most similar to the last; a half of one entry is left alone. Similarity: cosine over cells per channel,
summed over channels. First and last stay, and (ours) every key slice stays.
The published code is one off in the newer half and drops the neighbour of the one it means, even the newest memory:
``compat_offset_bug`` does the same, and protects only what the published code protects.
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
    """Recency, each half thinned by similarity to its end."""

    name: ClassVar[str] = "memory_splitting"
    sentence: ClassVar[str] = "Drops one repeated memory each among the older and the newer half."

    compat_offset_bug: bool = setting(False, "drop what the published code drops, one off in the newer half")

    def select(self, entries: Sequence[MemoryEntry], context: PolicyContext) -> Selection:
        full = recent.Policy().select(entries, context)
        count = len(full.memories)
        if count + 2 <= context.memory_slots or count <= 3 or context.similarity is None:
            return full
        known = {entry.index: entry for entry in entries}
        ordered, middle = [known[index] for index in full.memories], count // 2
        older = self._likest(ordered, range(1, middle), ordered[0], context)
        newer = self._likest(ordered, range(middle, count - 1), ordered[-1], context)
        if self.compat_offset_bug:
            newer = [place + 1 for place in newer]
        return without(full, [full.memories[place] for place in (*older, *newer)])

    def _likest(
        self, ordered: Sequence[MemoryEntry], places: range, end: MemoryEntry, context: PolicyContext
    ) -> list[int]:
        """The place of the entry most similar to the half's end, the first of equals."""
        if len(places) <= 1:
            return []
        free = [place for place in places if self.compat_offset_bug or not ordered[place].prompted]
        return sorted(free, key=lambda place: -context.similarity(ordered[place], end, Likeness.CHANNELS))[:1]

"""SAM 3's rule for its tracker (Carion et al. 2025, arXiv 2511.16719): slices without the object leave no memory.

Score of a slice: (2 sigmoid(presence) - 1) x predicted quality where it is present, else 0. Going back, slices that
score more than ``threshold`` are valid, up to ``max_pointers - 1`` of them; the slice just passed always is.
Attends to all key slices and the latest valid slices, in the slots of their order, not of their distance.
Pointers come from the same list without its oldest slice, and are timed by their order, as published.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from SegmentAnythingMedLib.memory.choosing import Passed, by_rank, pointer_count, score
from SegmentAnythingMedLib.memory.policy import MemoryPolicy, Notes, PolicyContext, Selection
from SegmentAnythingMedLib.memory.settings import setting

if TYPE_CHECKING:
    from SegmentAnythingMedLib.memory.bank import MemoryEntry


@dataclass(frozen=True)
class Policy(MemoryPolicy):
    """Recency among slices that show the object."""

    name: ClassVar[str] = "quality_filter"
    sentence: ClassVar[str] = "Looks back only at slices that surely show the object, as SAM 3's tracker does."

    threshold: float = setting(0.01, "score above which a slice is remembered", 0, 1)

    def select(self, entries: Sequence[MemoryEntry], context: PolicyContext) -> Selection:
        passed = Passed.of(entries, context)
        most = pointer_count(context) - 1
        valid = [entry.index for entry in passed.tracked if score(entry) > self.threshold][: max(most, 1)]
        before = [entry.index for entry in passed.tracked[:1] if context.distance(entry.index) == 1]
        valid = [*before, *(index for index in valid if index not in before)]
        chosen = by_rank(passed, valid, context, pointers=valid[: max(len(valid) - 1, 0)][:most])
        behind = [index for index in chosen.pointers if index in passed.key_indices]
        ranks = range(1, len(chosen.pointers) - len(behind) + 1)
        return replace(chosen, pointer_distances=(*map(context.distance, behind), *ranks))

    def observe(self, entry: MemoryEntry, entries: Mapping[int, MemoryEntry], context: PolicyContext) -> Notes:
        if score(entry) <= self.threshold:
            return context.notes
        return Notes((*context.notes.kept, entry.index)[-context.max_pointers :])

    def capacity(self, context: PolicyContext) -> int:
        return 1

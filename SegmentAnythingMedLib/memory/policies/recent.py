"""SAM 2's own rule (Ravi et al. 2024, arXiv 2408.00714): all key slices and the slices just passed.

Attends to every key slice (slot 0) and to the tracked ones among the last ``memory_slots - 1`` slices, each in the
slot of its distance. Pointers: key slices already passed in this direction, and the tracked ones among the last
``max_pointers - 1`` slices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from SegmentAnythingMedLib.memory.policy import PolicyContext, Selection

if TYPE_CHECKING:
    from SegmentAnythingMedLib.memory.bank import MemoryEntry


@dataclass(frozen=True)
class Policy:
    """Recency, without parameters."""

    name: str = "recent"

    def select(self, entries: Sequence[MemoryEntry], context: PolicyContext) -> Selection:
        keys = sorted(entry.index for entry in entries if entry.prompted)
        tracked = {context.distance(entry.index): entry.index for entry in entries if not entry.prompted}
        recent = [distance for distance in range(context.memory_slots - 1, 0, -1) if distance in tracked]
        pointer_count = min(context.slice_count, context.max_pointers)
        passed = [index for index in keys if context.distance(index) >= 0]
        followed = [tracked[distance] for distance in range(1, pointer_count) if distance in tracked]
        return Selection(
            memories=(*keys, *(tracked[distance] for distance in recent)),
            slots=(*(0 for _ in keys), *recent),
            pointers=(*passed, *followed)[: max(pointer_count, len(passed))],
            pointer_span=max(pointer_count - 1, 1),
        )

    def capacity(self, context: PolicyContext) -> int | None:
        return max(context.memory_slots, context.max_pointers)

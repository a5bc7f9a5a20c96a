"""SAM 2's own rule (Ravi et al. 2024, arXiv 2408.00714): all key slices and the slices just passed.

Attends to every key slice (slot 0) and to the tracked ones among the last ``memory_slots - 1`` slices, each in the
slot of its distance. Pointers: key slices already passed in this direction, and the tracked ones among the last
``max_pointers - 1`` slices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from SegmentAnythingMedLib.memory.choosing import Passed, pointer_count, recent_pointers
from SegmentAnythingMedLib.memory.policy import MemoryPolicy, PolicyContext, Selection

if TYPE_CHECKING:
    from SegmentAnythingMedLib.memory.bank import MemoryEntry


@dataclass(frozen=True)
class Policy(MemoryPolicy):
    """Recency, without settings."""

    name: ClassVar[str] = "recent"
    sentence: ClassVar[str] = "Looks back at all key slices and at the six slices just passed, as SAM 2 does."

    def select(self, entries: Sequence[MemoryEntry], context: PolicyContext) -> Selection:
        passed = Passed.of(entries, context)
        keys = passed.key_indices
        near = [entry.index for entry in passed.tracked if context.distance(entry.index) < context.memory_slots]
        behind = tuple(index for index in keys if context.distance(index) >= 0)
        count = pointer_count(context)
        return Selection(
            memories=(*keys, *reversed(near)),
            slots=(*(0 for _ in keys), *(context.distance(index) for index in reversed(near))),
            pointers=(*behind, *recent_pointers(passed, context))[: max(count, len(behind))],
            pointer_span=max(count - 1, 1),
        )

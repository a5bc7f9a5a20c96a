"""Nearest key slices (SAM 2's limit of conditioning frames, Ravi et al. 2024, arXiv 2408.00714), measured in mm.

As `recent`, but of many key slices only ``keys`` condition: the nearest on each side first, then the next nearest.
A key slice that is left out and lies among the last ``memory_slots - 1`` slices is attended to like a tracked one, in
the slot of its distance, and its pointer is used like theirs. Published: SAM 2 leaves the limit off, SAM 3 takes 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from SegmentAnythingMedLib.memory.choosing import Passed, nearest_keys
from SegmentAnythingMedLib.memory.policies import recent
from SegmentAnythingMedLib.memory.policy import MemoryPolicy, PolicyContext, Selection
from SegmentAnythingMedLib.memory.settings import setting

if TYPE_CHECKING:
    from SegmentAnythingMedLib.memory.bank import MemoryEntry


@dataclass(frozen=True)
class Policy(MemoryPolicy):
    """The nearest key slices and the slices just passed."""

    name: ClassVar[str] = "closest"
    sentence: ClassVar[str] = (
        "Looks back at the nearest key slices only, measured in mm, and at the slices just passed."
    )

    keys: int = setting(4, "key slices that condition", 1, 32)

    def select(self, entries: Sequence[MemoryEntry], context: PolicyContext) -> Selection:
        near = set(nearest_keys(Passed.of(entries, context), context, self.keys))
        seen = [e if not e.prompted or e.index in near else replace(e, prompted=False) for e in entries]
        return recent.Policy().select(seen, context)

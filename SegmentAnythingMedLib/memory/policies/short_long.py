"""Short-long memory (SLM-SAM 2, Chen et al. 2025, arXiv 2505.01854): the slices just passed are looked at twice.

Long look back: as `recent`. Short look back: only the ``slices`` just passed, key slices included, in the slots of
their distance, and their pointers. The published model attends to both with separate attention modules and fuses
the sum with trained blocks, chiefly so that an object's end is not run over (published code: one slice in training,
seven by its settings; one here). With a checkpoint of that model this is what happens.
With plain SAM 2 weights it is a preview without training: the same attention twice, and the mean of both, an
approximation. Models without memory attention (`classic`, the embedded one) use the long look back alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from SegmentAnythingMedLib.memory.policies import recent
from SegmentAnythingMedLib.memory.policy import MemoryPolicy, PolicyContext, Selection
from SegmentAnythingMedLib.memory.settings import setting

if TYPE_CHECKING:
    from SegmentAnythingMedLib.memory.bank import MemoryEntry


@dataclass(frozen=True)
class Policy(MemoryPolicy):
    """Recency, looked at twice."""

    name: ClassVar[str] = "short_long"
    sentence: ClassVar[str] = (
        "Weighs the slice just passed as much as all others together (a preview without its own weights)."
    )

    slices: int = setting(1, "slices of the short look back", 1, 6)

    def select(self, entries: Sequence[MemoryEntry], context: PolicyContext) -> Selection:
        full = recent.Policy().select(entries, context)
        lately = range(1, self.slices + 1)
        near = [place for place, index in enumerate(full.memories) if context.distance(index) in lately]
        if not near:
            return full
        short = Selection(
            tuple(full.memories[place] for place in near),
            tuple(context.distance(full.memories[place]) for place in near),
            tuple(index for index in full.pointers if context.distance(index) in lately),
            full.pointer_span,
        )
        return replace(full, short=short)

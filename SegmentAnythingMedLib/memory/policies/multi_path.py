"""SAM2Long (Ding et al. 2024, arXiv 2410.16268): several ways on are tried, and the best as a whole is kept.

Tracking follows ``paths`` ways at once. On a slice each way offers its masks, each at the sum of its way's
logarithms of predicted quality so far; the best ``paths`` of all go on. If no way is sure that the object is there
(presence below ``uncertain``), only masks that differ go on, so that the ways do not become one. At the end the best
way holds for every slice. Each way remembers slices of predicted quality above ``quality`` with the object, going
back, and always the slice just passed; slots follow the order.
Approximations of ours: masks are the same from an overlap of ``alike`` on; between two key slices the ways are fused
with the opposite pass at once and not revised. Costs as many predictions as paths. One-mask models keep one path.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from SegmentAnythingMedLib.memory.choosing import Passed, by_rank, pointer_count
from SegmentAnythingMedLib.memory.policy import MemoryPolicy, Notes, PolicyContext, Selection
from SegmentAnythingMedLib.memory.settings import setting

if TYPE_CHECKING:
    from SegmentAnythingMedLib.memory.bank import MemoryEntry


@dataclass(frozen=True)
class Way:
    """A mask that could be taken next.

    Parameters
    ----------
    score
        `total` of the path it goes on from, 0 at the key slice.
    quality, presence
        As the model predicts them for this mask.
    """

    score: float
    quality: float
    presence: float

    @property
    def total(self) -> float:
        return self.score + math.log(self.quality + 1e-5)


@dataclass(frozen=True)
class Policy(MemoryPolicy):
    """Recency among good slices, along several paths (`path_tracking` follows them)."""

    name: ClassVar[str] = "multi_path"
    sentence: ClassVar[str] = (
        "Follows three possible outlines at once and keeps the best as a whole (three times slower)."
    )
    wants_alternatives: ClassVar[bool] = True

    paths: int = setting(3, "paths that are followed", 1, 8)
    quality: float = setting(0.1, "predicted quality of a slice to remember", 0, 1)
    uncertain: float = setting(2.0, "presence below which paths must differ", -20, 20)
    alike: float = setting(0.9, "overlap from which two masks are the same", 0, 1)

    def select(self, entries: Sequence[MemoryEntry], context: PolicyContext) -> Selection:
        passed = Passed.of(entries, context)
        near = [e.index for e in passed.tracked if self._is_good(e) or context.distance(e.index) == 1]
        return by_rank(passed, near[: max(pointer_count(context) - 1, 1)], context)

    def observe(self, entry: MemoryEntry, entries: Mapping[int, MemoryEntry], context: PolicyContext) -> Notes:
        if not self._is_good(entry):
            return context.notes
        return Notes((*context.notes.kept, entry.index)[-context.max_pointers :])

    def go_on(self, ways: Sequence[Way], overlap: Callable[[int, int], float]) -> list[int]:
        """Which ways are followed, best first; ``overlap`` is the intersection over union of two ways' masks."""
        order = sorted(range(len(ways)), key=lambda one: -ways[one].total)
        if max(way.presence for way in ways) >= self.uncertain:
            return order[: self.paths]
        taken: list[int] = []
        for one in order:
            if len(taken) < self.paths and all(overlap(one, other) < self.alike for other in taken):
                taken.append(one)
        return taken

    def _is_good(self, entry: MemoryEntry) -> bool:
        return entry.quality > self.quality and entry.presence > 0

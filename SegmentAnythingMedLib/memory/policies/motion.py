"""SAMURAI (Yang et al. 2024, arXiv 2411.11922): a Kalman filter on the mask's box helps to choose masks and memories.

The filter follows centre, aspect and height of the box from slice to slice. After ``stable`` slices of predicted
quality above ``steady`` the mask is taken that is best by ``weight`` x overlap with the predicted box +
(1 - ``weight``) x predicted quality; before, by quality alone. A slice that falls below ``steady`` starts the filter
anew. Going back, slices of predicted quality above ``quality``, with the object, and on the predicted path are
remembered; the slice just passed always is. Slots follow the order, not the distance.
Time is the slice index. Models with one mask only have their memories filtered. Published weights: 0.25, large 0.15.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from SegmentAnythingMedLib.memory.box_filter import BoxFilter
from SegmentAnythingMedLib.memory.choosing import Passed, by_rank, pointer_count
from SegmentAnythingMedLib.memory.outlines import box_overlap
from SegmentAnythingMedLib.memory.policy import Candidate, MemoryPolicy, Notes, PolicyContext, Selection
from SegmentAnythingMedLib.memory.settings import setting

if TYPE_CHECKING:
    from SegmentAnythingMedLib.memory.bank import MemoryEntry


@dataclass(frozen=True)
class Path(Notes):
    """The filter, and for how many slices it has been steady; ``kept`` are the slices worth a memory."""

    box: BoxFilter | None = None
    steady_for: int = 0


@dataclass(frozen=True)
class Policy(MemoryPolicy):
    """Choice of masks and memories by where the object should be."""

    name: ClassVar[str] = "motion"
    sentence: ClassVar[str] = "Predicts where the outline moves and prefers masks and memories that follow its path."
    wants_alternatives: ClassVar[bool] = True
    blank: ClassVar[Notes] = Path()

    weight: float = setting(0.25, "weight of the path against predicted quality", 0, 1)
    stable: int = setting(15, "steady slices before the path counts", 1, 100)
    steady: float = setting(0.3, "predicted quality of a steady slice", 0, 1)
    quality: float = setting(0.5, "predicted quality of a slice to remember", 0, 1)

    def select(self, entries: Sequence[MemoryEntry], context: PolicyContext) -> Selection:
        passed = Passed.of(entries, context)
        near = [e.index for e in passed.tracked if context.distance(e.index) == 1 or e.index in context.notes.kept]
        most = max(pointer_count(context) - 1, 1)
        return by_rank(passed, near[:most], context)

    def choose(self, candidates: Sequence[Candidate], context: PolicyContext) -> int:
        notes = context.notes
        if notes.box is None or notes.steady_for < self.stable:
            return max(range(len(candidates)), key=lambda one: candidates[one].quality)
        expected = notes.box.moved().box
        return max(range(len(candidates)), key=lambda one: self._weighted(candidates[one], expected))

    def observe(self, entry: MemoryEntry, entries: Mapping[int, MemoryEntry], context: PolicyContext) -> Path:
        notes, path = context.notes, None
        box, steady_for = notes.box, notes.steady_for
        if box is None or steady_for == 0:
            box = None if entry.box_mm is None else BoxFilter.at(entry.box_mm)
            steady_for = 0 if box is None else 1
        else:
            box = box.moved()
            if steady_for >= self.stable and entry.box_mm is not None:
                path = box_overlap(box.box, entry.box_mm)
            is_steady = entry.box_mm is not None and entry.quality > self.steady
            box, steady_for = (box.corrected(entry.box_mm), steady_for + 1) if is_steady else (box, 0)
        on_path = path is None or path > 0
        if entry.quality > self.quality and entry.presence > 0 and on_path:
            kept = (*notes.kept, entry.index)[-context.max_pointers :]
            return Path(kept, box, steady_for)
        return Path(notes.kept, box, steady_for)

    def _weighted(self, candidate: Candidate, expected: tuple[float, float, float, float]) -> float:
        overlap = 0.0 if candidate.box_mm is None else box_overlap(expected, candidate.box_mm)
        return self.weight * overlap + (1 - self.weight) * candidate.quality

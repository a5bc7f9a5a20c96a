"""Steps that several policies share: which entries are key slices, which were passed, and how a selection is put
together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from SegmentAnythingMedLib.memory.policy import PolicyContext, Selection

if TYPE_CHECKING:
    from SegmentAnythingMedLib.memory.bank import MemoryEntry


@dataclass(frozen=True)
class Passed:
    """Entries as a policy looks at them.

    Parameters
    ----------
    keys
        Key slices on both sides, by index.
    tracked
        Slices tracked so far in this direction, newest first.
    """

    keys: tuple[MemoryEntry, ...]
    tracked: tuple[MemoryEntry, ...]

    @classmethod
    def of(cls, entries: Iterable[MemoryEntry], context: PolicyContext) -> Passed:
        keys = sorted((entry for entry in entries if entry.prompted), key=lambda entry: entry.index)
        behind = [entry for entry in entries if not entry.prompted and context.distance(entry.index) > 0]
        return cls(tuple(keys), tuple(sorted(behind, key=lambda entry: context.distance(entry.index))))

    @property
    def key_indices(self) -> tuple[int, ...]:
        return tuple(entry.index for entry in self.keys)


def by_rank(
    passed: Passed,
    chosen: Sequence[int],
    context: PolicyContext,
    keys: Sequence[int] | None = None,
    pointers: Sequence[int] | None = None,
) -> Selection:
    """Key slices, and tracked slices in the slots of their order: the newest in 1, the next in 2, however far.

    Parameters
    ----------
    passed
        All entries.
    chosen
        Tracked slices to attend to, newest first; those beyond the model's slots are left out.
    keys
        Key slices to attend to, by default all.
    pointers
        Tracked slices whose pointers are attended to, newest first, by default SAM 2's (`recent_pointers`).
    """
    tracked = tuple(chosen)[: context.memory_slots - 1]
    keys = passed.key_indices if keys is None else tuple(keys)
    followed = recent_pointers(passed, context) if pointers is None else tuple(pointers)
    behind = tuple(index for index in keys if context.distance(index) >= 0)
    return Selection(
        (*keys, *reversed(tracked)),
        (*(0 for _ in keys), *range(len(tracked), 0, -1)),
        (*behind, *followed)[: max(pointer_count(context), len(behind))],
        max(pointer_count(context) - 1, 1),
    )


def recent_pointers(passed: Passed, context: PolicyContext) -> tuple[int, ...]:
    """Tracked slices less than the model's number of pointers back, newest first."""
    return tuple(e.index for e in passed.tracked if context.distance(e.index) < pointer_count(context))


def pointer_count(context: PolicyContext) -> int:
    """Pointers a slice may look at; fewer in a short stack, as in SAM 2."""
    return min(context.slice_count, context.max_pointers)


def score(entry: MemoryEntry) -> float:
    """SAM 3's score of a slice, 0 to 1: predicted quality times presence, 0 where the object is absent."""
    import math

    if entry.presence <= 0:
        return 0.0
    return (2.0 / (1.0 + math.exp(-entry.presence)) - 1.0) * entry.quality


def nearest_keys(passed: Passed, context: PolicyContext, count: int) -> tuple[int, ...]:
    """Up to ``count`` key slices nearest in mm, the nearest of each side first among them; by index."""
    order = sorted(passed.key_indices, key=lambda index: (context.distance_mm(index), index))
    behind = [index for index in order if context.distance(index) >= 0]
    ahead = [index for index in order if context.distance(index) < 0]
    first = sorted((*behind[:1], *ahead[:1]), key=order.index)
    rest = [index for index in order if index not in first]
    return tuple(sorted([*first, *rest][:count]))


def without(selection: Selection, dropped: Sequence[int]) -> Selection:
    """The selection without some memories; the others keep their slots, and pointers stay."""
    kept = [place for place, index in enumerate(selection.memories) if index not in dropped]
    return replace(
        selection,
        memories=tuple(selection.memories[place] for place in kept),
        slots=tuple(selection.slots[place] for place in kept),
    )

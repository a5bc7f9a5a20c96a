"""What is remembered of an object: one entry per slice, key slices and tracked slices apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from SegmentAnythingMedLib.memory.policy import MemoryPolicy, PolicyContext
from SegmentAnythingMedLib.models.base import Recall, Recalled, Sized


@dataclass(frozen=True, eq=False)
class MemoryEntry:
    """One remembered slice of one object. Policies read the numbers; the memory itself is opaque.

    Parameters
    ----------
    index
        Slice along the plane; the entry's identity within a bank.
    memory
        What the model encoded.
    prompted
        True for key slices (prompted, corrected or confirmed by the user).
    presence
        Logit that the object is on the slice.
    quality
        Predicted intersection over union of the mask kept, 0 to 1.
    area_mm2
        Area of the mask.
    """

    index: int
    memory: Sized = field(repr=False)
    prompted: bool = False
    presence: float = 0.0
    quality: float = 0.0
    area_mm2: float = 0.0


class MemoryBank:
    """Entries of one object while it is tracked in one direction.

    Key slices are shared by all directions; tracked slices belong to one direction and are forgotten, oldest first,
    once the policy can no longer ask for them, so a bank does not grow with the volume.
    """

    def __init__(self, keys: dict[int, MemoryEntry] | None = None, capacity: int | None = None) -> None:
        self._keys = dict(keys or {})
        self._tracked: dict[int, MemoryEntry] = {}
        self._capacity = capacity

    def __iter__(self) -> Iterator[MemoryEntry]:
        yield from self._keys.values()
        yield from self._tracked.values()

    def __len__(self) -> int:
        return len(self._keys) + len(self._tracked)

    @property
    def nbytes(self) -> int:
        return sum(entry.memory.nbytes for entry in self)

    def remember(self, entry: MemoryEntry) -> None:
        """Add an entry; a prompted one replaces whatever was tracked on its slice."""
        if entry.prompted:
            self._tracked.pop(entry.index, None)
            self._keys[entry.index] = entry
            return
        self._tracked[entry.index] = entry
        while self._capacity is not None and len(self._tracked) > self._capacity:
            del self._tracked[next(iter(self._tracked))]

    def recall(self, policy: MemoryPolicy, context: PolicyContext) -> Recall:
        """What the policy selects for the slice of the context, ready for the model."""
        entries = {entry.index: entry for entry in self if entry.index != context.index}
        if not entries:
            return Recall()
        selection = policy.select(tuple(entries.values()), context)
        return Recall(
            tuple(
                Recalled(entries[index].memory, slot, context.distance(index))
                for index, slot in zip(selection.memories, selection.slots, strict=True)
            ),
            tuple(Recalled(entries[index].memory, 0, context.distance(index)) for index in selection.pointers),
            pointer_span=selection.pointer_span,
        )

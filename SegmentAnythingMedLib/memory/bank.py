"""What is remembered of an object: one entry per slice, key slices and tracked slices apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from SegmentAnythingMedLib.memory.policy import MemoryPolicy, Notes, PolicyContext, Selection
from SegmentAnythingMedLib.models.base import Recall, Recalled, Sized

if TYPE_CHECKING:
    import numpy as np

    from SegmentAnythingMedLib.memory.outlines import Box


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
    box_mm
        Edges of the mask's box, or None if it is empty or was not measured.
    rivals
        For each other mask the model offered that reaches beyond this one: overlap of the boxes (`outlines.rivals`).
    look
        Unit vector of what the slice looks like, if the policy wants it and the model can say.
    """

    index: int
    memory: Sized = field(repr=False)
    prompted: bool = False
    presence: float = 0.0
    quality: float = 0.0
    area_mm2: float = 0.0
    box_mm: Box | None = None
    rivals: tuple[float, ...] = ()
    look: np.ndarray | None = field(default=None, repr=False)

    @property
    def nbytes(self) -> int:
        return self.memory.nbytes + (0 if self.look is None else self.look.nbytes)


class MemoryBank:
    """Entries of one object while it is tracked in one direction, and what its policy has noted on the way.

    Key slices are shared by all directions; tracked slices belong to one direction and are forgotten, oldest first,
    once the policy can no longer ask for them, so a bank does not grow with the volume.

    Parameters
    ----------
    keys
        Entries of key slices.
    capacity
        Newest tracked entries that are kept beside those in `Notes.kept`; None keeps all.
    """

    def __init__(self, keys: dict[int, MemoryEntry] | None = None, capacity: int | None = None) -> None:
        self._keys = dict(keys or {})
        self._tracked: dict[int, MemoryEntry] = {}
        self._capacity = capacity
        self._notes: Notes | None = None
        self._asked: tuple[MemoryPolicy, PolicyContext] | None = None

    def __iter__(self) -> Iterator[MemoryEntry]:
        yield from self._keys.values()
        yield from self._tracked.values()

    def __len__(self) -> int:
        return len(self._keys) + len(self._tracked)

    @property
    def nbytes(self) -> int:
        return sum(entry.nbytes for entry in self)

    def fork(self) -> MemoryBank:
        """A bank that goes its own way from here; the memories themselves are shared."""
        other = MemoryBank(self._keys, self._capacity)
        other._tracked, other._notes, other._asked = dict(self._tracked), self._notes, self._asked
        return other

    def noted(self, policy: MemoryPolicy, context: PolicyContext) -> PolicyContext:
        """The context with what the policy has noted so far."""
        return replace(context, notes=policy.blank if self._notes is None else self._notes)

    def remember(self, entry: MemoryEntry) -> None:
        """Add an entry; a prompted one replaces whatever was tracked on its slice.

        The policy that was asked for this slice's memories takes note of a tracked entry.
        """
        if entry.prompted:
            self._tracked.pop(entry.index, None)
            self._keys[entry.index] = entry
            return
        self._tracked[entry.index] = entry
        if self._asked is not None and self._asked[1].index == entry.index:
            policy, context = self._asked
            entries = {one.index: one for one in self}
            self._notes = policy.observe(entry, entries, self.noted(policy, context))
        self._forget()

    def recall(self, policy: MemoryPolicy, context: PolicyContext) -> Recall:
        """What the policy selects for the slice of the context, ready for the model."""
        self._asked = policy, context
        entries = {entry.index: entry for entry in self if entry.index != context.index}
        if not entries:
            return Recall()
        return _recall(policy.select(tuple(entries.values()), self.noted(policy, context)), entries, context)

    def _forget(self) -> None:
        if self._capacity is None:
            return
        newest = list(self._tracked)[max(len(self._tracked) - self._capacity, 0) :]
        kept = {*newest, *(self._notes.kept if self._notes is not None else ())}
        for index in [index for index in self._tracked if index not in kept]:
            del self._tracked[index]


def _recall(selection: Selection, entries: dict[int, MemoryEntry], context: PolicyContext) -> Recall:
    distances = selection.pointer_distances or tuple(map(context.distance, selection.pointers))
    return Recall(
        tuple(
            Recalled(entries[index].memory, slot, context.distance(index))
            for index, slot in zip(selection.memories, selection.slots, strict=True)
        ),
        tuple(
            Recalled(entries[index].memory, 0, distance)
            for index, distance in zip(selection.pointers, distances, strict=True)
        ),
        selection.pointer_span,
        None if selection.short is None else _recall(selection.short, entries, context),
    )

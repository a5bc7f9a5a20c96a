"""An object whose story is written out, so that a test can say which memories a policy must keep."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from SegmentAnythingMedLib.memory.bank import MemoryBank, MemoryEntry
from SegmentAnythingMedLib.memory.policy import Likeness, MemoryPolicy, Notes, PolicyContext, load_policy


@dataclass(frozen=True, eq=False)
class Pattern:
    """A memory that is a direction in the plane: two are alike by the cosine of the angle between them."""

    degrees: float = 0.0
    nbytes: int = 10


def likeness(a: MemoryEntry, b: MemoryEntry, kind: Likeness) -> float:
    return float(np.cos(np.radians(a.memory.degrees - b.memory.degrees)))


class Story:
    """Tells a policy slice after slice what tracking found, and asks it what it would look back at.

    Parameters
    ----------
    policy
        Name with settings, or a policy.
    keys
        Key slices.
    direction, count, thickness_mm
        Of the stack.
    """

    def __init__(
        self,
        policy: str | MemoryPolicy,
        keys: tuple[int, ...] = (0,),
        direction: int = 1,
        count: int = 400,
        thickness_mm: float = 1.0,
    ) -> None:
        self.policy = load_policy(policy) if isinstance(policy, str) else policy
        self.direction, self.count, self.thickness_mm = direction, count, thickness_mm
        entries = {index: MemoryEntry(index, Pattern(), True, 10.0, 1.0, 100.0) for index in keys}
        self.bank = MemoryBank(entries, self.policy.capacity(self.context(0)))

    def context(self, index: int, **more: object) -> PolicyContext:
        return PolicyContext(index, self.direction, self.count, self.thickness_mm, similarity=likeness, **more)

    def track(
        self,
        *indices: int,
        presence: float = 5.0,
        quality: float = 0.9,
        area: float = 100.0,
        degrees: float = 0.0,
        **more: object,
    ) -> Story:
        """Pass slices on which the object looks the same; an absent object has no area."""
        for index in indices:
            self.bank.recall(self.policy, self.context(index))
            found = area if presence > 0 else 0.0
            self.bank.remember(MemoryEntry(index, Pattern(degrees), False, presence, quality, found, **more))
        return self

    def recalled(self, index: int, **more: object) -> list[tuple[int, int]]:
        """(slice, slot) of every memory that slice ``index`` would look at, in order."""
        recall = self.bank.recall(self.policy, self.context(index, **more))
        return [(index - one.distance * self.direction, one.slot) for one in recall.memories]

    def memories(self, index: int, **more: object) -> list[int]:
        """The slices alone."""
        return [at for at, _ in self.recalled(index, **more)]

    @property
    def notes(self) -> Notes:
        return self.bank.noted(self.policy, self.context(0)).notes

    @property
    def kept(self) -> list[int]:
        """Tracked slices the bank still holds."""
        return [entry.index for entry in self.bank if not entry.prompted]

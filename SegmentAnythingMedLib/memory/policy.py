"""Which memories a slice attends to: the question every memory policy answers."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from SegmentAnythingMedLib.errors import SegmentAnythingMedError

if TYPE_CHECKING:
    from SegmentAnythingMedLib.memory.bank import MemoryEntry


@dataclass(frozen=True)
class PolicyContext:
    """Where tracking is, and what the model can be asked.

    Parameters
    ----------
    index
        Slice about to be segmented.
    direction
        +1 towards higher indices, -1 towards lower ones.
    slice_count
        Slices in the plane.
    thickness_mm
        Distance between neighbouring slices.
    memory_slots
        Memories the model attends to at most per slice beside further key slices (7 for SAM 2).
    max_pointers
        Object pointers the model attends to at most (16 for SAM 2).
    similarity
        ``similarity(a, b)`` of two entries, -1 to 1, answered by the model.
    """

    index: int
    direction: int
    slice_count: int
    thickness_mm: float = 1.0
    memory_slots: int = 7
    max_pointers: int = 16
    similarity: Callable[[MemoryEntry, MemoryEntry], float] | None = None

    def distance(self, index: int) -> int:
        """Slices back to ``index`` in tracking direction; negative if it lies ahead."""
        return (self.index - index) * self.direction


@dataclass(frozen=True)
class Selection:
    """A policy's answer: slice indices of entries.

    Parameters
    ----------
    memories
        Entries to attend to, key slices first, then oldest to newest.
    slots
        Time slot of each memory: 0 = key slice, 1 = newest tracked, up to ``memory_slots - 1``.
    pointers
        Entries whose object pointer is attended to.
    pointer_span
        Distance that the model's pointer time encoding is normalised by.
    """

    memories: tuple[int, ...] = ()
    slots: tuple[int, ...] = ()
    pointers: tuple[int, ...] = ()
    pointer_span: int = 15


class MemoryPolicy(Protocol):
    """Chooses memories by numbers only; keeps no state about a volume."""

    name: str

    def select(self, entries: Sequence[MemoryEntry], context: PolicyContext) -> Selection:
        """Choose among all entries of one object but the current slice's."""

    def capacity(self, context: PolicyContext) -> int | None:
        """How many tracked entries the policy may still ask for; None keeps all."""


def policy_names() -> tuple[str, ...]:
    """Names of the policies in ``memory/policies``, one file each."""
    from SegmentAnythingMedLib.memory import policies

    return tuple(sorted(module.name for module in pkgutil.iter_modules(policies.__path__)))


def load_policy(name: str, **parameters: object) -> MemoryPolicy:
    """The policy of this name with its parameters.

    Raises
    ------
    SegmentAnythingMedError
        If there is no such policy; the message lists those there are.
    """
    if name not in policy_names():
        raise SegmentAnythingMedError(f"Memory policy {name!r} is not known: use one of {', '.join(policy_names())}.")
    module = importlib.import_module(f"SegmentAnythingMedLib.memory.policies.{name}")
    return module.Policy(**parameters)

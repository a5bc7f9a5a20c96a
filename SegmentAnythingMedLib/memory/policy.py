"""Which memories a slice attends to: the question every memory policy answers."""

from __future__ import annotations

import enum
import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, ClassVar

from SegmentAnythingMedLib.errors import SegmentAnythingMedError
from SegmentAnythingMedLib.memory.settings import read_settings, split_settings

if TYPE_CHECKING:
    import numpy as np

    from SegmentAnythingMedLib.memory.bank import MemoryEntry
    from SegmentAnythingMedLib.memory.outlines import Box


class Likeness(enum.Enum):
    """How two memories are compared; a model that knows one way only answers every kind with it.

    ``CELLS``: mean over cells of the cosine over channels. ``STORED``: its sum over cells in the precision the
    memories are stored in, as SurgSAM-2 computes it. ``CHANNELS``: mean over channels of the cosine over cells.
    ``WHOLE``: cosine of the whole memories.
    """

    CELLS = "cells"
    STORED = "stored"
    CHANNELS = "channels"
    WHOLE = "whole"


@dataclass(frozen=True)
class Notes:
    """What a policy has learnt from the slices passed: a value, so that tracking can fork. Policies extend it.

    Parameters
    ----------
    kept
        Tracked slices that must not be forgotten, however old.
    """

    kept: tuple[int, ...] = ()


@dataclass(frozen=True)
class Candidate:
    """One of several masks a model offers for a slice.

    Parameters
    ----------
    quality
        Predicted intersection over union, 0 to 1.
    box_mm
        (row0, column0, row1, column1) edges of the mask's box; None if it is empty.
    """

    quality: float
    box_mm: Box | None


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
        ``similarity(a, b, likeness)`` of two entries, -1 to 1, answered by the model; None if it cannot be asked.
    look
        What the slice about to be segmented looks like, where the policy wants it and the model can say; compare with
        `MemoryEntry.look` by the dot product.
    notes
        What the policy has noted so far.
    """

    index: int
    direction: int
    slice_count: int
    thickness_mm: float = 1.0
    memory_slots: int = 7
    max_pointers: int = 16
    similarity: Callable[[MemoryEntry, MemoryEntry, Likeness], float] | None = None
    look: np.ndarray | None = None
    notes: Notes = Notes()

    def distance(self, index: int) -> int:
        """Slices back to ``index`` in tracking direction; negative if it lies ahead."""
        return (self.index - index) * self.direction

    def distance_mm(self, index: int) -> float:
        """Millimetres to slice ``index``, either way."""
        return abs(self.index - index) * self.thickness_mm


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
    pointer_distances
        Distance each pointer is encoded with; empty for the true ones.
    short
        A second selection, attended to on its own; the model takes the mean of both results.
    """

    memories: tuple[int, ...] = ()
    slots: tuple[int, ...] = ()
    pointers: tuple[int, ...] = ()
    pointer_span: int = 15
    pointer_distances: tuple[int, ...] = ()
    short: Selection | None = None


@dataclass(frozen=True)
class MemoryPolicy:
    """Chooses memories by numbers only. A policy has settings and no state: what it learns is in `Notes`.

    Attributes
    ----------
    name, sentence
        File name, and what it does in one sentence for a panel.
    wants_alternatives
        Whether the model shall offer its other masks, too: for `choose`, and for `MemoryEntry.rivals`.
    wants_look
        Whether the model shall say what slices look like.
    blank
        Notes before the first slice.
    """

    name: ClassVar[str]
    sentence: ClassVar[str]
    wants_alternatives: ClassVar[bool] = False
    wants_look: ClassVar[bool] = False
    blank: ClassVar[Notes] = Notes()

    def __post_init__(self) -> None:
        given = {one.name: getattr(self, one.name) for one in fields(self)}
        for name, value in read_settings(type(self), given, self.name).items():
            object.__setattr__(self, name, value)

    def select(self, entries: Sequence[MemoryEntry], context: PolicyContext) -> Selection:
        """Choose among all entries of one object but the current slice's."""
        raise NotImplementedError

    def capacity(self, context: PolicyContext) -> int | None:
        """How many of the newest tracked entries may still be asked for, beside those the notes keep; None: all."""
        return max(context.memory_slots, context.max_pointers)

    def choose(self, candidates: Sequence[Candidate], context: PolicyContext) -> int:
        """Which of the model's masks to take; they come best predicted quality first."""
        return 0

    def observe(self, entry: MemoryEntry, entries: Mapping[int, MemoryEntry], context: PolicyContext) -> Notes:
        """Notes after a tracked slice; ``entries`` holds it and all that were not forgotten, by slice."""
        return context.notes


def policy_names() -> tuple[str, ...]:
    """Names of the policies in ``memory/policies``, one file each."""
    from SegmentAnythingMedLib.memory import policies

    return tuple(sorted(module.name for module in pkgutil.iter_modules(policies.__path__)))


def policy_class(name: str) -> type[MemoryPolicy]:
    """The class of the policy of this name.

    Raises
    ------
    SegmentAnythingMedError
        If there is no such policy; the message lists those there are.
    """
    if name not in policy_names():
        raise SegmentAnythingMedError(f"Memory policy {name!r} is not known: use one of {', '.join(policy_names())}.")
    return importlib.import_module(f"SegmentAnythingMedLib.memory.policies.{name}").Policy


def load_policy(name: str, **parameters: object) -> MemoryPolicy:
    """The policy of this name with its settings, given as arguments or in the name, as ``closest:keys=3``.

    Raises
    ------
    SegmentAnythingMedError
        If there is no such policy or setting, or a value is out of range; the message says what there is.
    """
    plain, written = split_settings(name)
    policy = policy_class(plain)
    return policy(**read_settings(policy, {**written, **parameters}, plain))

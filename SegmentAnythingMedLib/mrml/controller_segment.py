"""A segment that is being worked on, as the controller knows it: its object in the worker and what is shown of it."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from SegmentAnythingMedLib.geometry import Plane
from SegmentAnythingMedLib.mrml.controller_review import Review
from SegmentAnythingMedLib.mrml.prompt_record import PromptRecord

SliceAt = tuple[Plane, int]
"""Plane and index of a slice of the volume."""


@dataclass(frozen=True, eq=False)
class ReplayStep:
    """One prompt said again to the worker.

    Parameters
    ----------
    record
        The prompt.
    before
        Prompts that were given before it.
    at
        Its slice.
    is_shown
        Whether the answer becomes part of the proposal.
    """

    record: PromptRecord
    before: tuple[PromptRecord, ...]
    at: SliceAt
    is_shown: bool


@dataclass(eq=False)
class WorkedSegment:
    """A segment of the user with an object in the worker.

    Parameters
    ----------
    segment_id
        Segment of the segmentation.
    object_id
        Its number in the worker and the preview.
    is_told
        Whether the worker knows its prompts.
    at
        The slice of its last prompt: where candidates are cycled and corrections are carried from.
    accepted
        Uids of prompts whose outlines were accepted.
    candidates
        Number of candidates and the chosen one, of slices that have several.
    carried
        Slices of the proposal that propagation made.
    replay
        Prompts to be said again.
    is_replay_shown
        Slices whose replayed outline is shown; None for all.
    review
        What is known of its slices.
    """

    segment_id: str
    object_id: int
    is_told: bool = False
    at: SliceAt | None = None
    accepted: set[str] = field(default_factory=set)
    candidates: dict[SliceAt, tuple[int, int]] = field(default_factory=dict)
    carried: set[SliceAt] = field(default_factory=set)
    replay: deque[ReplayStep] = field(default_factory=deque)
    is_replay_shown: set[SliceAt] | None = field(default_factory=set)
    review: Review = field(default_factory=Review)

    @property
    def is_outlined(self) -> bool:
        """Whether a slice the user prompted or confirmed shows the object in the plane of its last prompt."""
        strip = self.review.strip(self.at[0]) if self.at is not None else ()
        return any((item.prompted or item.confirmed) and not item.is_empty for item in strip)

    def forget_work(self) -> None:
        """The worker knows nothing of it any more."""
        self.is_told = False
        self.candidates.clear()
        self.carried.clear()
        self.replay.clear()
        self.review.clear()


class WorkedSegments:
    """The segments of one segmentation that have an object; made when asked for."""

    def __init__(self) -> None:
        self._segments: dict[str, WorkedSegment] = {}
        self._numbers = itertools.count(1)

    def __iter__(self) -> Iterator[WorkedSegment]:
        return iter(tuple(self._segments.values()))

    def __contains__(self, segment_id: str) -> bool:
        return segment_id in self._segments

    def of(self, segment_id: str) -> WorkedSegment:
        """The segment with this id."""
        if segment_id not in self._segments:
            self._segments[segment_id] = WorkedSegment(segment_id, next(self._numbers))
        return self._segments[segment_id]

    def with_object(self, object_id: int) -> WorkedSegment | None:
        """The segment whose object has this number."""
        return next((item for item in self._segments.values() if item.object_id == object_id), None)

    def remove(self, segment_id: str) -> None:
        self._segments.pop(segment_id, None)

    def clear(self) -> None:
        """Forget all; numbers are not used again."""
        self._segments.clear()

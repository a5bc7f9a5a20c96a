"""One propagation of one or several objects: runs the passes, fuses where they meet, writes, counts."""

from __future__ import annotations

import time as clock
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from SegmentAnythingMedLib.features import FeatureCache, StageTimes
from SegmentAnythingMedLib.geometry import SliceGeometry, SliceKey
from SegmentAnythingMedLib.memory.bank import MemoryBank, MemoryEntry
from SegmentAnythingMedLib.memory.policies.multi_path import Policy as PathPolicy
from SegmentAnythingMedLib.memory.policy import MemoryPolicy
from SegmentAnythingMedLib.models.base import BatchingModel, SliceModel
from SegmentAnythingMedLib.path_tracking import PathTracker
from SegmentAnythingMedLib.propagation import Direction, Meeting, Pass, StopRule, plan_passes, walled_off
from SegmentAnythingMedLib.slice_result import SliceResult
from SegmentAnythingMedLib.tracked_object import TrackedObject
from SegmentAnythingMedLib.tracking import Step, Tracker, make_context


@dataclass(frozen=True)
class Course:
    """Where a propagation goes: slices ``first`` to ``last`` inclusive, which way, chosen how, ended when."""

    first: int
    last: int
    direction: Direction
    policy: MemoryPolicy
    stop: StopRule | None


class Propagator:
    """Carries objects from their key slices through one stack of slices.

    Parameters
    ----------
    model, features, times
        What predicts, where features come from, where seconds are counted.
    volume, time
        Identity of the slices.
    slices
        The stack.
    course
        Range, direction, memory policy and stop rule.
    """

    def __init__(
        self,
        model: SliceModel,
        features: FeatureCache,
        times: StageTimes,
        volume: str,
        time: int,
        slices: SliceGeometry,
        course: Course,
    ) -> None:
        self._model, self._features, self._times = model, features, times
        self._volume, self._time, self._slices = volume, time, slices
        self._course = course

    def run(
        self, objects: Mapping[int, TrackedObject], memories: Mapping[int, dict[int, MemoryEntry]]
    ) -> Iterator[SliceResult]:
        """Yield every slice once it is written.

        Parameters
        ----------
        objects
            State of each object by its identifier.
        memories
            Memory entries of each object's key slices, by slice index.
        """
        trackers = {object_id: self._trackers(state, memories[object_id]) for object_id, state in objects.items()}
        meetings = {object_id: Meeting() for object_id in objects}
        progress = _Progress(sum(len(one.run.indices) for several in trackers.values() for one in several))
        for step in self._course.direction.steps:
            active = [(object_id, one) for object_id in objects for one in trackers[object_id] if one.run.step == step]
            indices = {index for _, one in active for index in one.run.indices}
            order = sorted(indices, reverse=step < 0)
            for place, index in enumerate(order):
                waiting = [one for _, one in active if not one.stopped and index in one.run.indices]
                if waiting:
                    self._features.encode_ahead(self._slices, order[place:])
                self._predict_together(waiting, index)
                for object_id, tracker in active:
                    if tracker.stopped or index not in tracker.run.indices:
                        continue
                    found = self._follow(tracker, index)
                    if not self._course.first <= index <= self._course.last:
                        continue  # on the way from a key slice outside the range
                    if found.revived is not None:
                        before = self._take(
                            object_id, objects[object_id], index - step, found.revived, tracker.run, Meeting()
                        )
                        yield progress.stamp(before, counts=False)
                    result = self._take(object_id, objects[object_id], index, found, tracker.run, meetings[object_id])
                    beyond = _beyond(tracker.run, index) if tracker.stopped else range(0)
                    yield progress.stamp(result, skipped=len(beyond))
                    if tracker.stopped or index == tracker.run.last:
                        for again in self._conclusions(object_id, objects[object_id], tracker):
                            yield progress.stamp(again, counts=False)
                    for left in beyond:
                        if left in objects[object_id].tracked_on(self._slices.plane, self._time):
                            yield progress.stamp(self._clear(object_id, objects[object_id], left), counts=False)

        for object_id, state in objects.items():
            for left in self._left_over(state, memories[object_id]):
                yield progress.stamp(self._clear(object_id, state, left), counts=False)

    def _left_over(self, state: TrackedObject, memories: dict[int, MemoryEntry]) -> list[int]:
        """Tracked slices behind a slice of which the user said that it is empty."""
        course, tracked = self._course, state.tracked_on(self._slices.plane, self._time)
        cut_off = walled_off(memories, self._empty_keys(state), course.first, course.last, course.direction)
        return [index for index in cut_off if index in tracked]

    def _empty_keys(self, state: TrackedObject) -> list[int]:
        slots = state.key_slices(self._slices.plane, self._time)
        return [index for index, slot in slots.items() if not slot.mask.any()]

    def _trackers(self, state: TrackedObject, memories: dict[int, MemoryEntry]) -> list[Tracker]:
        masks = {index: slot.mask for index, slot in state.key_slices(self._slices.plane, self._time).items()}
        course = self._course
        capacity = course.policy.capacity(make_context(self._model, self._slices, course.first, 1))
        # Each direction starts from fresh tracking state, or one would attend to the other's masks.
        banks = {step: MemoryBank(memories, capacity) for step in course.direction.steps}
        tracker = PathTracker if isinstance(course.policy, PathPolicy) else Tracker
        return [
            tracker(
                self._model,
                course.policy,
                self._slices,
                run,
                banks[run.step],
                masks[run.key],
                course.stop,
                self._times,
            )
            for run in plan_passes(memories, self._empty_keys(state), course.first, course.last, course.direction)
        ]

    def _predict_together(self, trackers: Sequence[Tracker], index: int) -> None:
        """Where the model can, predict all objects of a slice in one batch; each tracker then takes its own."""
        if len(trackers) < 2 or not isinstance(self._model, BatchingModel) or self._model.object_batch < 2:
            return
        features = self._features.get(self._slices, index)
        recalls = [(tracker, tracker.recall(index, features)) for tracker in trackers]
        recalls = [(tracker, recall) for tracker, recall in recalls if recall is not None]
        with self._times.measure("predict"):
            found = self._model.predict_together(features, [recall for _, recall in recalls])
        for (tracker, _), prediction in zip(recalls, found, strict=True):
            tracker.expect(prediction)

    def _follow(self, tracker: Tracker, index: int) -> Step:
        before = index - tracker.run.step
        return tracker.step(
            index, self._features.get(self._slices, index), lambda: self._features.get(self._slices, before)
        )

    def _conclusions(self, object_id: int, state: TrackedObject, tracker: Tracker) -> Iterator[SliceResult]:
        """Slices that the pass as a whole says otherwise; what was fused with the opposite pass stays."""
        if self._is_fused(tracker.run):
            return
        for index, found in tracker.conclude():
            if self._course.first <= index <= self._course.last:
                yield self._take(object_id, state, index, found, tracker.run, Meeting())

    def _is_fused(self, run: Pass) -> bool:
        return self._course.direction is Direction.BOTH and run.other_key is not None

    def _take(
        self, object_id: int, state: TrackedObject, index: int, found: Step, run: Pass, meeting: Meeting
    ) -> SliceResult:
        """Write what a pass found; between two key slices fused with what the opposite pass found."""
        mask, final = found.mask, True
        if self._is_fused(run):
            fused = meeting.fuse(index, found.logits)
            final = fused is not None
            if fused is None:
                meeting.leave(index, found.logits, run.weight(index))
            else:
                mask = fused > 0
        key = self._key(index)
        spoken_about = key in state.keys  # the user prompted this slice since the propagation was planned
        if not spoken_about:
            state.write_tracked(self._slices, index, mask)
            state.tracked.setdefault(self._slices.plane, set()).add(index)
        return SliceResult(
            object_id,
            key,
            state.mask_on(self._slices, index),
            found.quality,
            found.presence,
            found.overlap,
            revision=state.revision,
            final=final,
        )

    def _clear(self, object_id: int, state: TrackedObject, index: int) -> SliceResult:
        """Empty a slice that an earlier propagation had filled beyond where this one stopped."""
        state.write_tracked(self._slices, index, np.zeros(self._slices.shape, dtype=bool))
        state.tracked[self._slices.plane].discard(index)
        mask = state.mask_on(self._slices, index)
        return SliceResult(
            object_id, self._key(index), mask, presence=-10.0, overlap=0.0, revision=state.revision, cleared=True
        )

    def _key(self, index: int) -> SliceKey:
        return SliceKey(self._volume, self._time, self._slices.plane, index)


def _beyond(run: Pass, index: int) -> range:
    return run.indices[run.indices.index(index) + 1 :]


class _Progress:
    """Counts slices and guesses the time left."""

    def __init__(self, total: int, now: Callable[[], float] = clock.perf_counter) -> None:
        self._total, self._done, self._now, self._start = total, 0, now, now()

    def stamp(self, result: SliceResult, skipped: int = 0, counts: bool = True) -> SliceResult:
        self._done += counts
        self._total -= skipped
        each = (self._now() - self._start) / max(self._done, 1)
        left = each * (self._total - self._done)
        return replace(result, done=self._done, total=self._total, seconds_left=left)

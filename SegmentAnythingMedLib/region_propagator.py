"""Propagation where the whole object is known already: a region is handed out slice by slice, outwards."""

from __future__ import annotations

import numpy as np

from SegmentAnythingMedLib.geometry import SliceGeometry
from SegmentAnythingMedLib.memory.bank import MemoryEntry
from SegmentAnythingMedLib.propagation import Pass, dice, plan_passes
from SegmentAnythingMedLib.propagator import Propagator
from SegmentAnythingMedLib.tracked_object import TrackedObject
from SegmentAnythingMedLib.tracking import Step


class RegionTracker:
    """One object on one pass; stands in for a `Tracker`.

    Parameters
    ----------
    slices, run
        Where slices are, and the pass.
    region
        (K, J, I) bool: the object.
    quality
        Predicted intersection over union of the region, 0 to 1.
    key_mask
        (rows, columns) bool mask of the key slice the pass starts from.
    ends
        Whether the pass ends at the region's last slice.
    """

    def __init__(
        self, slices: SliceGeometry, run: Pass, region: np.ndarray, quality: float, key_mask: np.ndarray, ends: bool
    ) -> None:
        self.run = run
        self.stopped = False
        self._slices, self._region, self._quality, self._before = slices, region, quality, key_mask
        filled = [index for index in run.indices if region[slices.region(index)].any()]
        self._end = (filled[-1] if filled else run.first) if ends else run.last

    def step(self, index: int) -> Step:
        """The region on a slice."""
        mask = np.array(self._slices.extract(self._region, index, order=0), dtype=bool)
        overlap, self._before = dice(mask, self._before), mask
        self.stopped = self._end != self.run.last and index == self._end
        logits = np.where(mask, 10.0, -10.0).astype(np.float32)
        return Step(logits, mask, self._quality, 10.0 if mask.any() else -10.0, overlap)

    def conclude(self) -> list[tuple[int, Step]]:
        """Nothing: no slice turns out otherwise later."""
        return []


class RegionPropagator(Propagator):
    """Carries objects whose regions are known; what each key slice remembers is the object's whole region.

    Between two key slices each slice is visited once, since there is nothing to fuse. The memory policy and all of the
    stop rule but its presence are not looked at: without one a pass runs to the range's end, with one it ends with
    the region.
    """

    def _trackers(self, state: TrackedObject, memories: dict[int, MemoryEntry]) -> list[RegionTracker]:
        course, slots = self._course, state.key_slices(self._slices.plane, self._time)
        passes = plan_passes(memories, self._empty_keys(state), course.first, course.last, course.direction)
        steps_between = course.direction.steps[0]
        return [
            RegionTracker(
                self._slices,
                run,
                memories[run.key].memory,
                memories[run.key].quality,
                slots[run.key].mask,
                course.stop is not None and run.other_key is None,
            )
            for run in passes
            if run.other_key is None or run.step == steps_between
        ]

    def _follow(self, tracker: RegionTracker, index: int) -> Step:
        return tracker.step(index)

    def _is_fused(self, run: Pass) -> bool:
        return False

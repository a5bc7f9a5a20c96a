"""A session with a model that sees the whole volume: the same verbs, answered from one region per object."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

import numpy as np

from SegmentAnythingMedLib.geometry import Plane, SliceGeometry, SliceKey
from SegmentAnythingMedLib.memory.bank import MemoryEntry
from SegmentAnythingMedLib.models.base import Prediction, Region, SliceModel, VolumeModel
from SegmentAnythingMedLib.prompts import MaskPrompt, Prompt, SlicePrompts
from SegmentAnythingMedLib.propagator import Course
from SegmentAnythingMedLib.region_propagator import RegionPropagator
from SegmentAnythingMedLib.session import VolumeSession
from SegmentAnythingMedLib.slice_result import SliceResult
from SegmentAnythingMedLib.tracked_object import KeyStep, TrackedObject
from SegmentAnythingMedLib.volume import Volume
from SegmentAnythingMedLib.voxel_block import VoxelBlock


def open_session(volume: Volume, model: SliceModel | VolumeModel, **options: object) -> VolumeSession:
    """The session that fits the model, with options as of `VolumeSession`; the one place where this is chosen."""
    sees_slices = model.card.has("slice") or not model.card.has("volume")
    return (VolumeSession if sees_slices else VolumeModelSession)(volume, model, **options)


@dataclass(frozen=True, eq=False)
class _Answer:
    """What the model was asked about an object last, and what it said."""

    prompts: tuple[Prompt, ...]
    region: Region


class VolumeModelSession(VolumeSession):
    """Prompts on one time point of a volume, answered by a `VolumeModel`.

    The model gets all prompts of an object at once, those of other slices and planes too, and slices that the user
    painted or confirmed otherwise than the model has them, as mask prompts. `segment_slice` writes only the slice asked
    for. `propagate` first brings key slices that were answered before later prompts up to the newest region, unless
    they are confirmed, then hands the region's other slices out. Window, memory policy and feature cache are of no use
    here and not looked at.

    Parameters
    ----------
    volume, model, **options
        As of `VolumeSession`, with a `VolumeModel`.
    """

    _propagator = RegionPropagator

    def __init__(self, volume: Volume, model: VolumeModel, **options: object) -> None:
        super().__init__(volume, model, **options)
        self._seen = volume if volume.time_count == 1 else volume.at_time(self.time)
        self._answers: WeakKeyDictionary[TrackedObject, _Answer] = WeakKeyDictionary()
        self._painted: WeakKeyDictionary[KeyStep, MaskPrompt] = WeakKeyDictionary()

    def prepare(self, object_id: int, key: SliceKey) -> Iterator[tuple[int, int]]:
        """Give the volume to the model if the slice has prompts; closing the iterator leaves it for later."""
        if object_id in self._objects and not self._objects[object_id].prompts_on(key, self.slices(key.plane)).is_empty:
            with self.times.measure("prepare"):
                yield from self.model.prepare(self._seen)

    def prefetch(self, plane: Plane, index: int, radius: int) -> Iterator[int]:
        """Nothing: there are no features of slices."""
        return iter(())

    def _run(self, ids: list[int], slices: SliceGeometry, course: Course) -> Iterator[SliceResult]:
        for object_id in ids:
            yield from self._renewed(object_id, slices, course)
        yield from super()._run(ids, slices, course)

    def _renewed(self, object_id: int, slices: SliceGeometry, course: Course) -> Iterator[SliceResult]:
        """Key slices whose answer is older than the region, as the region has them now.

        Where the region has nothing they stay, or they would count as slices the user said are empty.
        """
        state = self._object(object_id)
        region = self._region(state)
        for index, slot in state.key_slices(slices.plane, self.time).items():
            key = self.slice_key(slices.plane, index)
            given = state.prompts_on(key, slices).mask is not None or slot.is_confirmed
            mask = self._on_slice(region, slices, index)
            if not course.first <= index <= course.last or given or not mask.any() or np.array_equal(mask, slot.mask):
                continue
            slot.add(replace(slot.steps.pop(), prediction=_prediction_of(mask, region.quality)))
            state.write_key(slices, index, mask)
            yield self._key_result(object_id, key)

    def _predict_key(self, state: TrackedObject, key: SliceKey, prompts: SlicePrompts) -> Prediction:
        region = self._region(state)
        slices = self.slices(key.plane)
        mask = prompts.mask if prompts.mask is not None else self._on_slice(region, slices, key.index)
        return _prediction_of(mask, region.quality)

    def _key_memories(self, state: TrackedObject, slices: SliceGeometry, skip: int | None) -> dict[int, MemoryEntry]:
        """What each key slice with the object remembers: the whole region."""
        region = self._region(state)
        whole = VoxelBlock(region.mask, region.start_kji).whole(self.volume.geometry.shape_kji)
        return {
            index: MemoryEntry(index, whole, True, 10.0, region.quality, 0.0)
            for index, slot in state.key_slices(slices.plane, self.time).items()
            if index != skip and slot.mask.any()
        }

    def _region(self, state: TrackedObject) -> Region:
        """The object's region from all that the user said by now; asked once."""
        last = self._answers.get(state)
        prompts = self._question(state, last)
        if last is not None and _are_same(last.prompts, prompts):
            return last.region
        previous = last.region if last else None
        if last is None and not any(getattr(prompt, "positive", True) for prompt in prompts):
            previous = self._restored(state)
        with self.times.measure("predict"):
            region = self.model.predict(self._seen, prompts, previous)
        self._answers[state] = _Answer(prompts, region)
        return region

    def _question(self, state: TrackedObject, last: _Answer | None) -> tuple[Prompt, ...]:
        """All prompts, those of the last question first and in its order, so that a model may go on from there."""
        asked = last.prompts if last else ()
        said = [prompt for _, prompt in state.prompts] + self._painted_slices(state, last)
        known = {id(prompt) for prompt in said}
        before = [prompt for prompt in asked if id(prompt) in known]
        known = {id(prompt) for prompt in before}
        return (*before, *(prompt for prompt in said if id(prompt) not in known))

    def _painted_slices(self, state: TrackedObject, last: _Answer | None) -> list[MaskPrompt]:
        """Confirmed slices with the object that the model was told of before, or has otherwise."""
        found = []
        for key, slot in state.keys.items():
            if not slot.is_confirmed or not slot.mask.any() or key.time != self.time:
                continue
            step = slot.steps[-1]
            prompt = self._painted.setdefault(step, MaskPrompt(slot.mask, key.index, key.plane))
            was_asked = last is not None and any(asked is prompt for asked in last.prompts)
            if was_asked or last is None or not self._agrees(last.region, key, slot.mask):
                found.append(prompt)
        return found

    def _agrees(self, region: Region, key: SliceKey, mask: np.ndarray) -> bool:
        return np.array_equal(self._on_slice(region, self.slices(key.plane), key.index), mask)

    def _restored(self, state: TrackedObject) -> Region | None:
        """Voxels of an earlier session, which prompts that say only what does not belong there refer to."""
        if not state.tracked:
            return None
        block = VoxelBlock.of(state.labelmap)
        return Region(np.array(block.voxels), block.low_kji) if block.voxels.size else None

    def _on_slice(self, region: Region, slices: SliceGeometry, index: int) -> np.ndarray:
        """(rows, columns) bool: the region on a slice."""
        whole = VoxelBlock(region.mask, region.start_kji).whole(self.volume.geometry.shape_kji)
        return np.array(slices.extract(whole, index, order=0), dtype=bool)


def _prediction_of(mask: np.ndarray, quality: float) -> Prediction:
    logits = np.where(mask, 10.0, -10.0).astype(np.float32)[np.newaxis]
    return Prediction(logits, np.array([quality], dtype=np.float32), 10.0 if mask.any() else -10.0)


def _are_same(some: tuple[Prompt, ...], others: tuple[Prompt, ...]) -> bool:
    return len(some) == len(others) and all(a is b for a, b in zip(some, others, strict=True))

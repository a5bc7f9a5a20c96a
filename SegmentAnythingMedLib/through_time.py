"""Carries objects from one time point of a volume to the others: memory along time, slice by slice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from SegmentAnythingMedLib.errors import PromptError
from SegmentAnythingMedLib.features import FeatureCache, StageTimes
from SegmentAnythingMedLib.geometry import Plane, SliceGeometry
from SegmentAnythingMedLib.memory.bank import MemoryBank, MemoryEntry
from SegmentAnythingMedLib.memory.policy import MemoryPolicy, PolicyContext
from SegmentAnythingMedLib.models.base import Prediction, Recall, Recalled, SliceModel
from SegmentAnythingMedLib.prompts import SlicePrompts
from SegmentAnythingMedLib.propagation import Direction, StopRule
from SegmentAnythingMedLib.tracking import key_memory, make_context
from SegmentAnythingMedLib.volume import Volume
from SegmentAnythingMedLib.windowing import Window

_NOTHING = SlicePrompts()


@dataclass(frozen=True)
class TimeProgress:
    """A slice of a time point is done; ``total`` is what the slices of the last time point let expect."""

    time: int
    done: int
    total: int


@dataclass(frozen=True, eq=False)
class TimeResult:
    """An object at a time point that is done.

    Parameters
    ----------
    object_id, time
        Whose, and when.
    mask
        (K, J, I) bool; empty if the object has ended.
    quality
        Mean predicted intersection over union of its slices, 0 to 1.
    """

    object_id: int
    time: int
    mask: np.ndarray
    quality: float


@dataclass
class _Track:
    """Memory of one slice along time; areas in pixels, of where it began and of the newest mask."""

    bank: MemoryBank
    key_area: int
    area: int
    gone: int = 0


@dataclass
class _Carried:
    """One object on its way from a key time point in one direction."""

    object_id: int
    keys: dict[int, dict[int, MemoryEntry]]
    tracks: dict[int, _Track] = field(default_factory=dict)


class TimePropagation:
    """Tracks every slice of an object along time, and follows the object where it enters neighbouring slices.

    Parameters
    ----------
    model
        Any `SliceModel` with memory.
    volume
        All time points.
    window, policy
        As in the session of one time point; the policy's slices are time points here.
    plane
        Whose slices are tracked.
    stop
        When a slice's object counts as gone.
    """

    def __init__(
        self,
        model: SliceModel,
        volume: Volume,
        window: Window,
        policy: MemoryPolicy,
        plane: Plane,
        stop: StopRule | None = None,
        times: StageTimes | None = None,
    ) -> None:
        self._model, self._volume, self._window, self._policy = model, volume, window, policy
        self._slices = SliceGeometry(volume.geometry, plane)
        self._stop = stop or StopRule()
        self._times = times or StageTimes()
        self._done = 0

    def run(
        self,
        keys: Mapping[int, Mapping[int, np.ndarray]],
        start: int,
        direction: Direction | str = Direction.BOTH,
    ) -> Iterator[TimeProgress | TimeResult]:
        """Yield every slice that is done, and every object at every time point that is done.

        Closing the generator cancels. Key time points are never carried to; each other one is reached from the
        nearest of them, and all of them condition.

        Parameters
        ----------
        keys
            By object and time point: (K, J, I) bool masks as the user left them.
        start
            Time point the user works on; must be a key of every object.
        direction
            To later time points, earlier ones, or both.

        Raises
        ------
        PromptError
            If an object has no voxels at the time point it starts from, or there is only one time point.
        """
        if self._volume.time_count < 2:
            raise PromptError("The volume has only one time point: there is nowhere to carry the outline.")
        for object_id, masks in keys.items():
            if not np.any(masks.get(start, False)):
                raise PromptError(f"Object {object_id} has no voxels at time point {start}: outline it there first.")
        self._done = 0
        legs = _legs(keys, self._volume.time_count, start, Direction.parse(direction))
        targets = sum(len(leg.times) for leg in legs)
        memories = {object_id: self._key_memories(masks) for object_id, masks in keys.items()}
        for leg in legs:
            carried = _Carried(leg.object_id, memories[leg.object_id])
            capacity = self._policy.capacity(self._context(leg.key, leg.step))
            for index, entries in carried.keys.items():
                if leg.key in entries:
                    area = int(np.count_nonzero(self._on_slice(keys[leg.object_id][leg.key], index)))
                    carried.tracks[index] = _Track(MemoryBank(entries, capacity), area, area)
            for time in leg.times:
                targets -= 1
                yield from self._time_point(carried, time, leg.step, targets)

    # -- one time point ------------------------------------------------------------------------------------------

    def _time_point(
        self, carried: _Carried, time: int, step: int, targets_left: int
    ) -> Iterator[TimeProgress | TimeResult]:
        features = FeatureCache(self._volume, self._window, self._model, time_index=time, times=self._times)
        found: dict[int, tuple[Prediction, MemoryEntry]] = {}
        for asked, one in enumerate(self._outlines(carried, features, time, step), 1):
            self._done += 1
            if one is not None:
                index, prediction, entry = one
                found[index] = prediction, entry
            expected = max(len(carried.tracks) - asked, 0) + targets_left * max(len(carried.tracks), 1)
            yield TimeProgress(time, self._done, self._done + expected)
        mask = np.zeros(self._volume.geometry.shape_kji, dtype=bool)
        for index, (prediction, _) in found.items():
            self._slices.paste(prediction.masks[0], index, mask)
        qualities = [entry.quality for _, entry in found.values()]
        yield TimeResult(carried.object_id, time, mask, float(np.mean(qualities)) if qualities else 0.0)

    def _outlines(
        self, carried: _Carried, features: FeatureCache, time: int, step: int
    ) -> Iterator[tuple[int, Prediction, MemoryEntry] | None]:
        """The slices of the object at a time point, None where it is gone: from its largest slice outwards, and on
        into slices that it has moved into."""
        here: dict[int, MemoryEntry] = {}
        middle = max(carried.tracks, key=lambda index: carried.tracks[index].area, default=0)
        for outwards in (1, -1):
            index = middle if outwards > 0 else middle - 1
            while 0 <= index < self._slices.count:
                track, inner = carried.tracks.get(index), here.get(index - outwards)
                if track is None and inner is None:
                    if not any((other - index) * outwards > 0 for other in carried.tracks):
                        break
                elif (found := self._outline(carried, features, time, step, index, outwards, here)) is not None:
                    here[index] = replace(found[1], index=index)
                    yield index, *found
                else:
                    yield None
                index += outwards

    def _outline(
        self,
        carried: _Carried,
        features: FeatureCache,
        time: int,
        step: int,
        index: int,
        outwards: int,
        here: dict[int, MemoryEntry],
    ) -> tuple[Prediction, MemoryEntry] | None:
        """A slice from its own memory along time and from its neighbour towards the middle; None if it is empty."""
        track, inner = carried.tracks.get(index), here.get(index - outwards)
        if track is None:
            recall = MemoryBank(here).recall(self._policy, self._neighbours(index, outwards))
            key_area = max(self._area_of(entry) for entry in here.values())
        else:
            recall, key_area = track.bank.recall(self._policy, self._context(time, step)), track.key_area
            if inner is not None:
                beside = Recalled(inner.memory, 1, -1)  # on its other side: models take it for a second neighbour
                recall = replace(recall, memories=(*recall.memories, beside))
        prediction, entry = self._predict(features, index, time, recall)
        area = int(np.count_nonzero(prediction.masks[0]))
        if self._stop.is_gone(prediction.presence, area, key_area):
            if track is not None:
                track.bank.remember(entry)
                track.gone += 1
                if track.gone >= self._stop.absent_slices:
                    del carried.tracks[index]
            return None
        if track is None:
            bank = MemoryBank(carried.keys.get(index), self._policy.capacity(self._context(time, step)))
            track = carried.tracks[index] = _Track(bank, area, area)
        track.bank.remember(entry)
        track.gone, track.area = 0, area
        return prediction, entry

    def _predict(self, features: FeatureCache, index: int, time: int, recall: Recall) -> tuple[Prediction, MemoryEntry]:
        seen = features.get(self._slices, index)
        with self._times.measure("predict"):
            prediction = self._model.predict(seen, _NOTHING, recall)
        with self._times.measure("remember"):
            memory = self._model.encode_memory(seen, prediction, prompted=False)
        area_mm2 = float(np.count_nonzero(prediction.masks[0]) * np.prod(self._slices.spacing_mm))
        entry = MemoryEntry(time, memory, False, prediction.presence, float(prediction.quality[0]), area_mm2)
        return prediction, entry

    def _area_of(self, entry: MemoryEntry) -> int:
        """Pixels of a remembered mask."""
        return int(round(entry.area_mm2 / float(np.prod(self._slices.spacing_mm))))

    # -- memories ------------------------------------------------------------------------------------------------

    def _key_memories(self, masks: Mapping[int, np.ndarray]) -> dict[int, dict[int, MemoryEntry]]:
        """By slice and key time point, of all slices that show the object."""
        memories: dict[int, dict[int, MemoryEntry]] = {}
        for time, voxels in masks.items():
            features = FeatureCache(self._volume, self._window, self._model, time_index=time, times=self._times)
            for index in range(self._slices.count):
                mask = self._on_slice(voxels, index)
                if not mask.any():
                    continue
                seen = features.get(self._slices, index)
                answer = self._model.predict(seen, SlicePrompts(mask=mask), Recall())
                logits = np.where(mask, 10.0, -10.0).astype(np.float32)[np.newaxis]
                entry = key_memory(self._model, self._slices, time, seen, replace(answer, logits=logits, reach=None))
                memories.setdefault(index, {})[time] = entry
        return memories

    def _on_slice(self, voxels: np.ndarray, index: int) -> np.ndarray:
        return np.array(self._slices.extract(voxels, index, order=0), dtype=bool)

    def _context(self, time: int, step: int) -> PolicyContext:
        """Along time: the policy's slices are time points."""
        along_stack = make_context(self._model, self._slices, time, step)
        return replace(along_stack, slice_count=self._volume.time_count)

    def _neighbours(self, index: int, step: int) -> PolicyContext:
        return make_context(self._model, self._slices, index, step)


@dataclass(frozen=True)
class _Leg:
    """Time points that one object is carried to, in order, from a key time point."""

    object_id: int
    key: int
    step: int
    times: range


def _legs(keys: Mapping[int, Mapping[int, np.ndarray]], count: int, start: int, direction: Direction) -> list[_Leg]:
    """All ways of all objects: from each key with voxels, nearest first, halfway to the next key or to the end."""
    legs = []
    for object_id, masks in keys.items():
        for step in direction.steps:
            for key in sorted(masks, key=lambda time: abs(time - start)):
                for way in (1, -1):
                    ahead = [other for other in masks if (other - key) * way > 0]
                    beside = min(ahead, key=lambda other: abs(other - key), default=None)
                    end = count - 1 if way > 0 else 0
                    if beside is not None:
                        end = _halfway(key, beside) if np.any(masks[beside]) else beside - way
                    times = range(key + way, end + way, way)
                    wanted = all((time - start) * step > 0 for time in times)
                    if len(times) and wanted and np.any(masks[key]):
                        legs.append(_Leg(object_id, key, way, times))
    return legs


def _halfway(key: int, other: int) -> int:
    """The last time point on the way to another key that is nearer to this one; the earlier key takes the middle."""
    between = abs(other - key) - 1
    share = (between + 1) // 2 if key < other else between // 2
    return key + share if key < other else key - share

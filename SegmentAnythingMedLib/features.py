"""Windowed slices and their image features, kept within a memory budget so that no slice is encoded twice."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from SegmentAnythingMedLib.free_memory import free_memory_bytes
from SegmentAnythingMedLib.geometry import Plane, SliceGeometry
from SegmentAnythingMedLib.models.base import Sized, SliceImage, SliceModel
from SegmentAnythingMedLib.volume import Volume
from SegmentAnythingMedLib.windowing import Window

CACHE_SHARE = 0.25
"""Share of the free memory that features may take by default."""

_UNKNOWN_FREE_BYTES = 4 << 30


@dataclass
class StageTimes:
    """Seconds and calls per stage (window, encode, predict, remember)."""

    seconds: dict[str, float] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start
            self.calls[stage] = self.calls.get(stage, 0) + 1


class FeatureCache:
    """Image features by plane and slice index; the least recently used ones leave when the budget is full.

    Parameters
    ----------
    volume, time_index
        What is cut into slices.
    window
        Applied before encoding; replace it with `set_window`, which empties the cache.
    model
        Encodes the slices.
    budget_bytes
        Upper bound of what is kept (the slice in use is always kept); None takes `CACHE_SHARE` of the free memory.
    """

    def __init__(
        self,
        volume: Volume,
        window: Window,
        model: SliceModel,
        *,
        time_index: int = 0,
        budget_bytes: int | None = None,
        times: StageTimes | None = None,
    ) -> None:
        if budget_bytes is None:
            budget_bytes = int(CACHE_SHARE * (free_memory_bytes() or _UNKNOWN_FREE_BYTES))
        self.budget_bytes = budget_bytes
        self.window = window
        self.times = times if times is not None else StageTimes()
        self.nbytes = 0
        self._volume = volume
        self._time = volume.check_time(time_index)
        self._model = model
        self._kept: OrderedDict[tuple[Plane, int], Sized] = OrderedDict()

    def __contains__(self, key: tuple[Plane, int]) -> bool:
        return key in self._kept

    def __len__(self) -> int:
        return len(self._kept)

    def image(self, slices: SliceGeometry, index: int) -> SliceImage:
        """The windowed slice: 1 channel, or 3 (a third of zeros beside two, the first three of more)."""
        with self.times.measure("window"):
            channels = min(self._volume.channel_count, 3)
            planes = [slices.extract(self._volume.array(self._time, channel), index) for channel in range(channels)]
            pixels = self.window.apply(np.stack(planes))
            if channels == 2:
                pixels = np.concatenate([pixels, np.zeros_like(pixels[:1])])
        return SliceImage(pixels, slices.spacing_mm)

    def get(self, slices: SliceGeometry, index: int) -> Sized:
        """Features of a slice, encoded now if they are not kept."""
        key = (slices.plane, index)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        image = self.image(slices, index)
        with self.times.measure("encode"):
            features = self._model.encode_slices([image])[0]
        self._keep(key, features)
        return features

    def _keep(self, key: tuple[Plane, int], features: Sized) -> None:
        self._kept[key] = features
        self.nbytes += features.nbytes
        while self.nbytes > self.budget_bytes and len(self._kept) > 1:
            _, dropped = self._kept.popitem(last=False)
            self.nbytes -= dropped.nbytes

    def encode_ahead(self, slices: SliceGeometry, indices: Sequence[int]) -> None:
        """Encode the first of these slices together with those after it, where the model gains from batches.

        Nothing is done where the first is kept already. No more are encoded than fit beside the slice in use.
        """
        batch = min(getattr(self._model, "encoder_batch", 1), self._most_at_once())
        if batch < 2 or not indices or (slices.plane, indices[0]) in self._kept:
            return
        missing = [index for index in indices[:batch] if (slices.plane, index) not in self._kept]
        images = [self.image(slices, index) for index in missing]
        with self.times.measure("encode"):
            found = self._model.encode_slices(images)
        for index, features in zip(missing, found, strict=True):
            self._keep((slices.plane, index), features)

    def _most_at_once(self) -> int:
        """Slices that fit into the budget, judged by the newest; one as long as none was encoded."""
        if not self._kept:
            return 1
        return self.budget_bytes // max(next(reversed(self._kept.values())).nbytes, 1) - 1

    def has_room(self, features: Sized) -> bool:
        """Whether another slice of this size fits without dropping one."""
        return self.nbytes + features.nbytes <= self.budget_bytes

    def set_window(self, window: Window) -> None:
        """Use another window from now on and forget all features."""
        self.window = window
        self._kept.clear()
        self.nbytes = 0

    def set_model(self, model: SliceModel | None) -> None:
        """Encode with another model from now on and forget all features."""
        self._model = model
        self.set_window(self.window)

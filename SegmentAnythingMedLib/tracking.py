"""Follows one object along one pass: recall, predict, remember, notice when it is gone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from SegmentAnythingMedLib.features import StageTimes
from SegmentAnythingMedLib.geometry import SliceGeometry
from SegmentAnythingMedLib.memory.bank import MemoryBank, MemoryEntry
from SegmentAnythingMedLib.memory.policy import MemoryPolicy, PolicyContext
from SegmentAnythingMedLib.models.base import Prediction, Recall, Recalled, Sized, SliceModel
from SegmentAnythingMedLib.prompts import SlicePrompts
from SegmentAnythingMedLib.propagation import Pass, StopRule, dice

_NOTHING = SlicePrompts()


@dataclass(frozen=True, eq=False)
class Step:
    """What a pass found on a slice.

    Parameters
    ----------
    logits
        (rows, columns) float32.
    mask
        (rows, columns) bool; empty where the object is gone.
    overlap
        Dice with the slice passed before.
    revived
        The slice passed before, where the object seemed gone: it is here again, so that slice's mask holds after all.
    """

    logits: np.ndarray
    mask: np.ndarray
    quality: float
    presence: float
    overlap: float
    revived: Step | None = None


class Tracker:
    """One object on one pass.

    Parameters
    ----------
    model, policy, slices
        What predicts, what chooses memories, where slices are.
    run
        The pass.
    bank
        Memories of the object in this direction: its key slices', and of slices tracked so far.
    key_mask
        (rows, columns) bool mask of the key slice the pass starts from.
    stop
        When the pass ends; None runs to its last slice and trusts every mask.
    times
        Where seconds are counted.
    """

    def __init__(
        self,
        model: SliceModel,
        policy: MemoryPolicy,
        slices: SliceGeometry,
        run: Pass,
        bank: MemoryBank,
        key_mask: np.ndarray,
        stop: StopRule | None,
        times: StageTimes,
    ) -> None:
        self.run = run
        self.stopped = False
        self._model, self._policy, self._slices = model, policy, slices
        self._stop = stop if run.other_key is None else None
        self._times = times
        self._bank = bank
        self._previous_mask = key_mask
        self._key_area = int(np.count_nonzero(key_mask))
        self._gone = 0
        self._held: Step | None = None

    def step(self, index: int, features: Sized, features_before: Callable[[], Sized]) -> Step:
        """Predict a slice and remember it; ``features_before`` gives the slice passed before, if it is needed."""
        context = make_context(self._model, self._slices, index, self.run.step, self._similarity)
        with self._times.measure("predict"):
            prediction = self._model.predict(features, _NOTHING, self._bank.recall(self._policy, context))
        mask = prediction.masks[0]
        area = int(np.count_nonzero(mask))
        with self._times.measure("remember"):
            memory = self._model.encode_memory(features, prediction, prompted=False)
        gone = False
        if self._stop is not None:
            around = self._round_trip(memory, features_before) if self._stop.round_trip > 0 else 1.0
            gone = self._stop.is_gone(prediction.presence, area, self._key_area, around)
            self._gone = self._gone + 1 if gone else 0
            self.stopped = self._gone >= self._stop.absent_slices
        row_mm, column_mm = self._slices.spacing_mm
        quality = float(prediction.quality[0])
        self._bank.remember(MemoryEntry(index, memory, False, prediction.presence, quality, area * row_mm * column_mm))
        found = Step(prediction.logits[0], mask, quality, prediction.presence, dice(mask, self._previous_mask))
        revived, self._held = (None if gone else self._held), None
        self._previous_mask = mask
        if gone and prediction.presence < 0:
            self._held = found
            return replace(found, mask=np.zeros_like(mask))
        return replace(found, revived=revived)

    def _round_trip(self, memory: Sized, features_before: Callable[[], Sized]) -> float:
        """Dice between the slice passed before and the same slice predicted back from this one alone."""
        recall = Recall((Recalled(memory, 0, 1),), (Recalled(memory, 0, 1),))
        back = self._model.predict(features_before(), _NOTHING, recall)
        return dice(back.masks[0], self._previous_mask)

    def _similarity(self, a: MemoryEntry, b: MemoryEntry) -> float:
        return self._model.similarity(a.memory, b.memory)


def make_context(
    model: SliceModel,
    slices: SliceGeometry,
    index: int,
    direction: int,
    similarity: Callable[[MemoryEntry, MemoryEntry], float] | None = None,
) -> PolicyContext:
    """The policy's view of a slice; memory sizes come from the model's card."""
    options = model.card.options
    return PolicyContext(
        index,
        direction,
        slices.count,
        slices.thickness_mm,
        int(options.get("memory_slots", 7)),
        int(options.get("max_pointers", 16)),
        similarity,
    )


def key_memory(
    model: SliceModel, slices: SliceGeometry, index: int, features: Sized, chosen: Prediction
) -> MemoryEntry:
    """The memory entry of a key slice."""
    row_mm, column_mm = slices.spacing_mm
    area = float(np.count_nonzero(chosen.masks[0])) * row_mm * column_mm
    memory = model.encode_memory(features, chosen, prompted=True)
    return MemoryEntry(index, memory, True, chosen.presence, float(chosen.quality[0]), area)

"""Follows one object along one pass: recall, predict, remember, notice when it is gone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from SegmentAnythingMedLib.features import StageTimes
from SegmentAnythingMedLib.geometry import SliceGeometry
from SegmentAnythingMedLib.memory.bank import MemoryBank, MemoryEntry
from SegmentAnythingMedLib.memory.outlines import box_mm, rivals
from SegmentAnythingMedLib.memory.policy import Candidate, Likeness, MemoryPolicy, PolicyContext
from SegmentAnythingMedLib.models.base import ComparingModel, Prediction, Recall, Recalled, Sized, SliceModel
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


@dataclass
class TrackState:
    """How far tracking has come; a fork of it can go another way.

    Parameters
    ----------
    bank
        Memories of the object in this direction: its key slices', and of slices tracked so far.
    mask
        (rows, columns) bool: the object on the slice passed before, at first on the key slice.
    gone
        Slices in a row on which the object is gone.
    held
        What was found on the slice passed before, if the object seemed gone there.
    """

    bank: MemoryBank
    mask: np.ndarray
    gone: int = 0
    held: Step | None = None

    def fork(self) -> TrackState:
        """The same state, to go on from separately."""
        return TrackState(self.bank.fork(), self.mask, self.gone, self.held)


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
        self._state = TrackState(bank, key_mask)
        self._key_area = int(np.count_nonzero(key_mask))
        self._expected: Prediction | None = None

    def step(self, index: int, features: Sized, features_before: Callable[[], Sized]) -> Step:
        """Predict a slice and remember it; ``features_before`` gives the slice passed before, if it is needed."""
        context = self._context(index, features)
        prediction, self._expected = self._expected, None
        if prediction is None:
            prediction = self._predict(self._state.bank, context, features)
        if len(prediction.logits) > 1:
            prediction = self._chosen(prediction, self._state.bank.noted(self._policy, context))
        return self._settle(self._state, context, features, features_before, prediction)

    def recall(self, index: int, features: Sized) -> Recall | None:
        """What the next slice is predicted from, for who predicts several objects at once and then calls `expect`.

        None where this object is better predicted alone.
        """
        if self._policy.wants_alternatives:
            return None
        return self._state.bank.recall(self._policy, self._context(index, features))

    def expect(self, prediction: Prediction) -> None:
        """Take the next slice's prediction as given."""
        self._expected = prediction

    def conclude(self) -> list[tuple[int, Step]]:
        """Slices for which something else holds after all, now that the pass has ended."""
        return []

    def _context(self, index: int, features: Sized) -> PolicyContext:
        context = make_context(self._model, self._slices, index, self.run.step)
        if self._policy.wants_look and isinstance(self._model, ComparingModel):
            context = replace(context, look=self._model.look(features))
        return context

    def _predict(self, bank: MemoryBank, context: PolicyContext, features: Sized) -> Prediction:
        several = self._policy.wants_alternatives
        with self._times.measure("predict"):
            return self._model.predict(features, _NOTHING, bank.recall(self._policy, context), None, several)

    def _chosen(self, prediction: Prediction, context: PolicyContext) -> Prediction:
        spacing = self._slices.spacing_mm
        boxes = [box_mm(mask, spacing) for mask in prediction.masks]
        candidates = [Candidate(float(q), box) for q, box in zip(prediction.quality, boxes, strict=True)]
        return prediction.preferring(self._policy.choose(candidates, context))

    def _settle(
        self,
        state: TrackState,
        context: PolicyContext,
        features: Sized,
        features_before: Callable[[], Sized],
        prediction: Prediction,
    ) -> Step:
        """Remember a prediction and judge whether the object is gone; the state moves on to this slice."""
        mask = prediction.masks[0]
        entry = self._entry(context, features, prediction)
        gone = False
        if self._stop is not None:
            around = self._round_trip(state, entry.memory, features_before) if self._stop.round_trip > 0 else 1.0
            area = int(np.count_nonzero(mask))
            gone = self._stop.is_gone(prediction.presence, area, self._key_area, around)
            state.gone = state.gone + 1 if gone else 0
            self.stopped = state.gone >= self._stop.absent_slices
        state.bank.remember(entry)
        found = Step(prediction.logits[0], mask, entry.quality, prediction.presence, dice(mask, state.mask))
        revived, state.held = (None if gone else state.held), None
        state.mask = mask
        if gone and prediction.presence < 0:
            state.held = found
            return replace(found, mask=np.zeros_like(mask))
        return replace(found, revived=revived)

    def _entry(self, context: PolicyContext, features: Sized, prediction: Prediction) -> MemoryEntry:
        mask, spacing = prediction.masks[0], self._slices.spacing_mm
        with self._times.measure("remember"):
            memory = self._model.encode_memory(features, prediction, prompted=False)
        return MemoryEntry(
            context.index,
            memory,
            False,
            prediction.presence,
            float(prediction.quality[0]),
            float(np.count_nonzero(mask)) * spacing[0] * spacing[1],
            box_mm(mask, spacing),
            rivals(prediction.masks, spacing) if len(prediction.logits) > 1 else (),
            context.look,
        )

    def _round_trip(self, state: TrackState, memory: Sized, features_before: Callable[[], Sized]) -> float:
        """Dice between the slice passed before and the same slice predicted back from this one alone."""
        recall = Recall((Recalled(memory, 0, 1),), (Recalled(memory, 0, 1),))
        back = self._model.predict(features_before(), _NOTHING, recall)
        return dice(back.masks[0], state.mask)


def make_context(model: SliceModel, slices: SliceGeometry, index: int, direction: int) -> PolicyContext:
    """The policy's view of a slice; memory sizes come from the model's card, similarities from the model."""
    options = model.card.options

    def compare(a: MemoryEntry, b: MemoryEntry, likeness: Likeness) -> float:
        if isinstance(model, ComparingModel):
            return model.compare(a.memory, b.memory, likeness.value)
        return model.similarity(a.memory, b.memory)

    return PolicyContext(
        index,
        direction,
        slices.count,
        slices.thickness_mm,
        int(options.get("memory_slots", 7)),
        int(options.get("max_pointers", 16)),
        compare,
    )


def key_memory(
    model: SliceModel, slices: SliceGeometry, index: int, features: Sized, chosen: Prediction
) -> MemoryEntry:
    """The memory entry of a key slice."""
    row_mm, column_mm = slices.spacing_mm
    area = float(np.count_nonzero(chosen.masks[0])) * row_mm * column_mm
    memory = model.encode_memory(features, chosen, prompted=True)
    return MemoryEntry(index, memory, True, chosen.presence, float(chosen.quality[0]), area)

"""The seam between the engine and every model: what a session asks, and what a model answers.

A `SliceModel` sees one slice at a time and may remember slices; a `VolumeModel` sees the whole volume. Features and
memories are opaque to the session and the memory bank, which only read their ``nbytes``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np

from SegmentAnythingMedLib.models.card import ModelCard
from SegmentAnythingMedLib.prompts import Prompt, SlicePrompts
from SegmentAnythingMedLib.volume import Volume


@dataclass(frozen=True, eq=False)
class SliceImage:
    """A windowed slice.

    Parameters
    ----------
    pixels
        (C, rows, columns) float32 from 0 to 1, finite; C is 1 or 3.
    spacing_mm
        Size of a pixel along a row step and along a column step.
    """

    pixels: np.ndarray
    spacing_mm: tuple[float, float] = (1.0, 1.0)

    @property
    def shape(self) -> tuple[int, int]:
        return self.pixels.shape[1:]


class Sized(Protocol):
    """Something a model keeps for a slice; only its size is known outside the model."""

    @property
    def nbytes(self) -> int: ...


@dataclass(frozen=True, eq=False)
class Recalled:
    """A memory handed back to the model.

    Parameters
    ----------
    memory
        What `SliceModel.encode_memory` returned.
    slot
        0 for a prompted (key) slice, 1 for the newest tracked one, growing with age.
    distance
        Slices between the remembered slice and this one, positive if it was passed earlier in this direction.
    """

    memory: Sized
    slot: int
    distance: int


@dataclass(frozen=True, eq=False)
class Recall:
    """All a model may look back on for one object and slice.

    Parameters
    ----------
    memories
        Slices to attend to, key slices first, then oldest to newest.
    pointers
        Slices of which only the object's summary is wanted (SAM 2's object pointers); may repeat ``memories``.
    pointer_span
        Distance that the time encoding of pointers is normalised by.
    short
        A second, shorter look back: a model with memory attention attends to it on its own and goes on with the mean
        of both results. Others need not read it; its slices are among ``memories``.
    """

    memories: tuple[Recalled, ...] = ()
    pointers: tuple[Recalled, ...] = ()
    pointer_span: int = 15
    short: Recall | None = None

    @property
    def is_empty(self) -> bool:
        return not self.memories


Reach = tuple[slice, slice]
"""Rows and columns of a slice."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """Masks for one object on one slice.

    Parameters
    ----------
    logits
        (M, rows, columns) float32 on the slice's pixels, the one to use first; the mask is ``logits > 0``.
    quality
        (M,) predicted intersection over union, 0 to 1.
    presence
        Logit that the object is on this slice at all; below 0 it is gone.
    state
        The model's own output (low-resolution logits ...), handed back to refine or to remember; None where the mask
        did not come from this model.
    order
        Which of the model's candidates each row is; a model starts with ``()``, which means 0, 1, 2 ...
    reach
        Rows and columns beyond which all logits are -10, so that no one needs to look there; None for the whole slice.
        Who puts other logits in their place says it anew.
    """

    logits: np.ndarray
    quality: np.ndarray
    presence: float = 10.0
    state: object = field(default=None, repr=False)
    order: tuple[int, ...] = ()
    reach: Reach | None = None

    @cached_property
    def masks(self) -> np.ndarray:
        """(M, rows, columns) bool, not to be written to."""
        masks = np.zeros(self.logits.shape, dtype=bool)
        part = (slice(None), *(self.reach or ()))
        np.greater(self.logits[part], 0, out=masks[part])
        masks.flags.writeable = False
        return masks

    @property
    def chosen(self) -> int:
        """Which of the model's own candidates is used."""
        return self.order[0] if self.order else 0

    @property
    def masks_in_model_order(self) -> np.ndarray:
        """(M, rows, columns) bool, as the model gave them, whichever is used."""
        return self.masks[np.argsort(self.order)] if self.order else self.masks

    def preferring(self, candidate: int) -> Prediction:
        """The same candidates with one of the model's own first."""
        order = self.order or tuple(range(len(self.logits)))
        rows = [order.index(candidate), *(row for row, other in enumerate(order) if other != candidate)]
        return replace(
            self, logits=self.logits[rows], quality=self.quality[rows], order=tuple(order[row] for row in rows)
        )


def united_reach(reaches: Iterable[Reach | None]) -> Reach | None:
    """Rows and columns that hold all these; None if one of them is the whole slice."""
    several = list(reaches)
    if None in several:
        return None
    rows, columns = zip(*several, strict=True)
    return tuple(slice(min(one.start for one in side), max(one.stop for one in side)) for side in (rows, columns))


def stacked(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """The arrays along a new first axis; a single one is not copied."""
    return arrays[0][np.newaxis] if len(arrays) == 1 else np.stack(arrays)


@runtime_checkable
class SliceModel(Protocol):
    """A promptable model of slices.

    All methods are called from one thread. None keeps anything about a slice: features, memories and states travel
    through the session.
    """

    card: ModelCard

    def encode_slices(self, images: Sequence[SliceImage]) -> list[Sized]:
        """Features of each slice, the expensive part; cached by the session."""

    def predict(
        self,
        features: Sized,
        prompts: SlicePrompts,
        recall: Recall,
        previous: Prediction | None = None,
        multimask: bool = False,
    ) -> Prediction:
        """Masks from prompts and memories, without gradients.

        ``previous`` is this object's earlier prediction on this slice, when clicks refine it. With ``multimask`` up
        to three candidates. A mask prompt is the answer on its slice.
        """

    def encode_memory(self, features: Sized, prediction: Prediction, prompted: bool) -> Sized:
        """What to remember of a slice: its features with the first candidate's mask."""

    def track_step(self, features: object, prompts: object, memories: object, **options: object) -> object:
        """The pure computation under `predict`: no state, in torch families batched and differentiable.

        Arguments and result are the family's own types (documented there); fine-tuning unrolls it.
        """

    def similarity(self, a: Sized, b: Sized) -> float:
        """How alike two memories are, -1 to 1; for policies that prune or diversify."""


@runtime_checkable
class ComparingModel(Protocol):
    """What a slice model may offer beside: several ways to compare memories, and what a slice looks like."""

    def compare(self, a: Sized, b: Sized, likeness: str) -> float:
        """How alike two memories are by one of the ways of `memory.policy.Likeness`."""

    def look(self, features: Sized) -> np.ndarray:
        """(D,) float32 of length 1: what a slice looks like, whatever object is asked for."""


@runtime_checkable
class BatchingModel(Protocol):
    """What a slice model may offer beside: several slices encoded, and several objects predicted, at once."""

    encoder_batch: int
    """Slices that are best encoded together; 1 where it gains nothing."""
    object_batch: int
    """Objects of a slice that are best predicted together; 1 where it gains nothing."""

    def predict_together(self, features: Sized, recalls: Sequence[Recall]) -> list[Prediction]:
        """Tracked objects of a slice, each from its own memories, as `SliceModel.predict` finds them one by one."""


@dataclass(frozen=True, eq=False)
class Region:
    """A part of a volume: a (K, J, I) bool block and the (k, j, i) index of its first voxel."""

    mask: np.ndarray
    start_kji: tuple[int, int, int] = (0, 0, 0)
    quality: float = 0.0
    state: object = field(default=None, repr=False)


@runtime_checkable
class VolumeModel(Protocol):
    """A promptable model without slices: sees the volume and all prompts of an object, answers with a region."""

    card: ModelCard

    def prepare(self, volume: Volume) -> Iterator[tuple[int, int]]:
        """Do once what a volume needs, yielding how much of how much is done; nothing if it was done before.

        `predict` does it itself where it was not done or not finished.
        """

    def predict(self, volume: Volume, prompts: Sequence[Prompt], previous: Region | None) -> Region:
        """The object's region; ``previous`` is its earlier answer when prompts refine it."""

"""A model that thresholds, for tests of the worker; its options make it slow, noisy, hungry, hang or crash."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from SegmentAnythingMedLib.errors import ModelUnavailableError
from SegmentAnythingMedLib.models.base import Prediction, Recall, SliceImage
from SegmentAnythingMedLib.models.card import ModelCard
from SegmentAnythingMedLib.prompts import SlicePrompts

NEVER = -1


@dataclass(frozen=True, eq=False)
class FakeFeatures:
    bright: np.ndarray
    index: int

    @property
    def nbytes(self) -> int:
        return self.bright.nbytes


@dataclass(frozen=True, eq=False)
class FakeMemory:
    mask: np.ndarray

    @property
    def nbytes(self) -> int:
        return self.mask.nbytes


class FakeModel:
    """Bright pixels near the prompts or near the newest memory; a voxel at a slice's corner tells its index."""

    def __init__(
        self,
        delay: float = 0.0,
        encode_delay: float = 0.0,
        prints: bool = False,
        hangs_on: int = NEVER,
        crashes_on: int = NEVER,
        fails_on: int = NEVER,
        hungry_on: int = NEVER,
    ) -> None:
        capabilities = ("slice", "memory", "candidates")
        self.card = ModelCard("fake", "A fake", "fake", "CC0-1.0", capabilities, options={"memory_slots": 3})
        self.device = "cpu"
        self._delay, self._encode_delay, self._prints = delay, encode_delay, prints
        self._hangs_on, self._crashes_on, self._fails_on, self._hungry_on = hangs_on, crashes_on, fails_on, hungry_on

    def encode_slices(self, images: Sequence[SliceImage]) -> list[FakeFeatures]:
        time.sleep(self._encode_delay)
        return [FakeFeatures(image.pixels[0] > 0.5, round(float(image.pixels[0, 0, 0]) * 255)) for image in images]

    def predict(
        self,
        features: FakeFeatures,
        prompts: SlicePrompts,
        recall: Recall,
        previous: Prediction | None = None,
        multimask: bool = False,
    ) -> Prediction:
        self._misbehave(features.index)
        near = _near_prompts(prompts, features.bright.shape)
        if recall.memories:
            near |= _dilated(recall.memories[-1].memory.mask)
        mask = features.bright & near
        if previous is not None:
            mask |= previous.masks[0] & features.bright
        if prompts.mask is not None:
            mask = prompts.mask
        masks = np.stack([mask, _dilated(mask)]) if multimask else mask[np.newaxis]
        logits = np.where(masks, 5.0, -5.0).astype(np.float32)
        return Prediction(logits, np.linspace(0.9, 0.5, len(masks)), 10.0 if mask.any() else -10.0)

    def encode_memory(self, features: FakeFeatures, prediction: Prediction, prompted: bool) -> FakeMemory:
        return FakeMemory(prediction.masks[0])

    def track_step(self, features: object, prompts: object, memories: object, **options: object) -> object:
        raise NotImplementedError

    def similarity(self, a: FakeMemory, b: FakeMemory) -> float:
        return 1.0

    def _misbehave(self, index: int) -> None:
        time.sleep(self._delay)
        if self._prints:
            sys.stdout.write("a library greets" + "x" * 5000 + "\n")
            os.write(1, b"straight to the descriptor\n")
        if index == self._hangs_on:
            time.sleep(1000)
        if index == self._crashes_on:
            sys.stderr.write("the driver gave up\n")
            os.abort()
        if index == self._fails_on:
            raise ValueError("no such kernel in '/home/jane doe/scan of john.nii'")
        if index == self._hungry_on:
            np.ones(4 << 30, dtype=np.uint8)


class FakeRegistry:
    """Knows the fake model only."""

    def load(self, name: str, device: str = "auto", **options: object) -> FakeModel:
        if name != "fake":
            raise ModelUnavailableError(f"Model {name!r} is not known: use one of fake.")
        return FakeModel(**options)


def _near_prompts(prompts: SlicePrompts, shape: tuple[int, int]) -> np.ndarray:
    rows, columns = np.indices(shape)
    near = np.zeros(shape, dtype=bool)
    if prompts.box_rc is not None:
        row0, column0, row1, column1 = prompts.box_rc
        near |= (rows >= row0) & (rows <= row1) & (columns >= column0) & (columns <= column1)
    for (row, column), positive in zip(prompts.points_rc, prompts.positive, strict=True):
        disc = np.hypot(rows - row, columns - column) <= 4
        near = near | disc if positive else near & ~disc
    return near


def _dilated(mask: np.ndarray) -> np.ndarray:
    padded = np.pad(mask, 1)
    return padded[1:-1, 1:-1] | padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]

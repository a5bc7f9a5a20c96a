"""Small stand-ins for models, exact enough that tests can say what a session must give."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from SegmentAnythingMedLib.models.base import Prediction, Recall, SliceImage
from SegmentAnythingMedLib.models.card import ModelCard
from SegmentAnythingMedLib.prompts import SlicePrompts


@dataclass(frozen=True, eq=False)
class Bright:
    """Features and memories of `ThresholdModel`: a mask of what is bright."""

    mask: np.ndarray
    prompted: bool = False

    @property
    def nbytes(self) -> int:
        return self.mask.nbytes


class ThresholdModel:
    """Segments the bright component that a prompt or a remembered mask touches; counts what it is asked."""

    def __init__(self, **options: object) -> None:
        self.card = ModelCard(
            "threshold", "Threshold", "threshold", "none", ("slice", "memory", "candidates"), options=options
        )
        self.encoded = 0
        self.recalls: list[Recall] = []

    def encode_slices(self, images: list[SliceImage]) -> list[Bright]:
        self.encoded += len(images)
        return [Bright(image.pixels[0] > 0.5) for image in images]

    def predict(
        self,
        features: Bright,
        prompts: SlicePrompts,
        recall: Recall,
        previous: Prediction | None = None,
        multimask: bool = False,
    ) -> Prediction:
        self.recalls.append(recall)
        if prompts.mask is not None:
            mask = prompts.mask
        elif prompts.is_empty:
            near = recall.memories[-1].memory.mask if recall.memories else np.zeros_like(features.mask)
            mask = touched(features.mask, near)
        else:
            mask = self._prompted(features.mask, prompts, previous)
        masks = np.stack([mask, ndimage.binary_erosion(mask)] if multimask else [mask])
        logits = np.where(masks, 8.0, -8.0).astype(np.float32)
        quality = np.array([0.9, 0.5][: len(masks)], dtype=np.float32)
        return Prediction(logits, quality, 5.0 if mask.any() else -5.0)

    def _prompted(self, bright: np.ndarray, prompts: SlicePrompts, previous: Prediction | None) -> np.ndarray:
        seeds = np.zeros_like(bright) if previous is None else previous.masks[0].copy()
        if prompts.box_rc is not None:
            row0, column0, row1, column1 = (int(round(x)) for x in prompts.box_rc)
            seeds[row0 : row1 + 1, column0 : column1 + 1] = True
        labels, _ = ndimage.label(bright)
        removed = np.zeros_like(bright)
        for (row, column), positive in zip(np.rint(prompts.points_rc).astype(int), prompts.positive, strict=True):
            if positive:
                seeds[row, column] = True
            else:
                removed |= (labels == labels[row, column]) & (labels > 0)
        return touched(bright, seeds) & ~removed

    def encode_memory(self, features: Bright, prediction: Prediction, prompted: bool) -> Bright:
        return Bright(prediction.masks[0], prompted)

    def track_step(self, features: object, prompts: object, memories: object, **options: object) -> object:
        return self.predict(features, prompts, memories, **options)

    def similarity(self, a: Bright, b: Bright) -> float:
        return float((a.mask == b.mask).mean())


def touched(bright: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """Components of ``bright`` that ``seeds`` touch."""
    labels, _ = ndimage.label(bright)
    return np.isin(labels, np.setdiff1d(labels[seeds & bright], [0]))
